"""Which of several Redis servers is the one to write to: as Sentinels name it, or the nodes of a cluster.

    redis+sentinel://[user:password@]host[:port],host[:port]…/service[/db][?option=value]
    redis+cluster://[user:password@]host[:port],host[:port]…[?option=value]

With ``rediss`` in place of ``redis``, all of them are spoken to by TLS. It is looked up anew for each connection, and a
server that says that it is no longer the one is left at once: the command fails as with any that is gone.
"""

from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from redis.asyncio import Redis, Sentinel
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AskError, ConnectionError, RedisError

#: There are others to ask.
_ASK_SECONDS = 1.0
_PORTS = {"sentinel": 26379, "cluster": 6379}
#: Parameters of a URL that are for the Sentinels.
_SENTINELS_OWN = {"sentinel_username": "username", "sentinel_password": "password"}


class _Connection(SentinelManagedConnection):
    """A connection to whatever is the primary when it connects."""

    async def read_response(self, *args: Any, **more: Any) -> Any:
        try:
            return await super().read_response(*args, **more)
        except AskError as error:
            # A MovedError is one, too. The other node is found by asking again.
            await self.disconnect()
            raise ConnectionError(f"this node of the cluster is not the one to ask: {error}") from None


class _TLSConnection(_Connection, SentinelManagedSSLConnection):
    pass


class ClusterNodes:
    """Some nodes of a cluster; has what a connection pool asks of redis-py's Sentinel."""

    def __init__(self, nodes: list[Redis]) -> None:
        self.sentinels: list[Any] = nodes

    async def discover_master(self, key: str) -> tuple[str, int]:
        """Host and port of the node that ``key`` is written to. Raises MasterNotFoundError."""
        slot, problems = key_slot(key.encode()), []
        for node in self.sentinels:
            try:
                # Two words: redis-py makes something else of the answer to "CLUSTER SLOTS".
                for first, last, (host, port, *_), *_ in await node.execute_command("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        # A node that does not know its own address gives none.
                        return host.decode() if host else _host(node), int(port)
                problems.append(f"{_host(node)}: nobody has slot {slot}")
            except (RedisError, OSError) as error:
                problems.append(f"{_host(node)}: {error}")
        raise MasterNotFoundError("; ".join(problems))


def _host(node: Any) -> str:
    return str(node.connection_pool.connection_kwargs["host"])


class PrimaryPool(SentinelConnectionPool):
    """Connections to the primary. Raises ValueError when ``url`` is not as it has to be.

    ``prefix`` is that of all keys: on a cluster it has a hash tag, so that one node has them all.
    """

    def __init__(self, url: str, prefix: str, **options: Any) -> None:
        scheme, _, kind = urlsplit(url).scheme.partition("+")
        addresses, path, given = _read(url, kind)
        own = {name: value for name, value in given.items() if name.startswith("ssl_")} | {"ssl": scheme == "rediss"}
        own |= {"socket_connect_timeout": _ASK_SECONDS, "socket_timeout": _ASK_SECONDS, "retry": Retry(NoBackoff(), 0)}
        for name, meaning in _SENTINELS_OWN.items():
            if name in given:
                own[meaning] = given.pop(name)
        if kind == "sentinel":
            service, given["db"] = _service(path)
            manager: Any = Sentinel(addresses, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
        else:
            service = _tagged(prefix, path)
            own |= {name: given[name] for name in ("username", "password") if name in given}
            manager = ClusterNodes([Redis(host=host, port=port, **own) for host, port in addresses])
        connection = _TLSConnection if scheme == "rediss" else _Connection
        options = {**given, **options, "connection_class": connection}
        super().__init__(service, manager, **options)  # type: ignore[no-untyped-call]

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections, with those in use also the ones to whoever names the primary."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for each in self.sentinel_manager.sentinels:
                await each.aclose()


def _read(url: str, kind: str) -> tuple[list[tuple[str, int]], list[str], dict[str, Any]]:
    """Who is to be asked, the parts of the path, and the parameters of a connection."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    addresses = [urlsplit(f"//{host}") for host in hosts.split(",")]
    if not all(address.hostname for address in addresses):
        raise ValueError("must name a host, or several with commas between them")
    plain = urlunsplit((parts.scheme.partition("+")[0], f"{credentials}{at}all", "", parts.query, ""))
    given: dict[str, Any] = dict(parse_url(plain))
    for name in ("host", "port", "connection_class"):
        given.pop(name, None)
    path = [unquote(part) for part in parts.path.split("/") if part]
    return [(address.hostname or "", address.port or _PORTS[kind]) for address in addresses], path, given


def _service(path: list[str]) -> tuple[str, int]:
    match path:
        case [service]:
            return service, 0
        case [service, db] if db.isascii() and db.isdigit():
            return service, int(db)
        case _:
            raise ValueError("must end with /service or /service/db: the name that the Sentinels have for it")


def _tagged(prefix: str, path: list[str]) -> str:
    if path:
        raise ValueError("must have no path: a cluster has one database")
    tag = prefix.partition("{")[2].partition("}")
    if not tag[0] or not tag[1]:
        raise ValueError(
            f"a cluster needs a hash tag in --redis_prefix, such as {{{prefix}}}: one node has all keys then"
        )
    return prefix
