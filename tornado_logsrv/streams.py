"""Redis Streams of records: one an instance, ``<prefix>:backup:<instance>``.

An entry holds whole BSON documents, one after the other, in its one field ``r``. Entries leave from the oldest on,
and only when all of their records are stored.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from . import records
from .errors import StartError
from .primary import PrimaryPool

log = logging.getLogger("logsrv.backup")

#: What a command on Redis may raise: the connection may end in ways that redis-py does not wrap.
FAILURES = (RedisError, OSError, TimeoutError)
_FIELD = b"r"
#: Commands that follow one another need a moment; a server that does not answer at all is given this long.
_CONNECT_SECONDS = 3
_ANSWER_SECONDS = 10
#: How long replicas may take; they are that far behind only when something is wrong with them.
_REPLICA_MS = 1000
#: Removes an empty stream; one that has got an entry meanwhile stays.
_DROP_EMPTY = "if redis.call('XLEN', KEYS[1]) == 0 then return redis.call('DEL', KEYS[1]) end return 0"


class NotReplicated(RedisError):
    """Redis has it, but not so many of its replicas as have to."""


class Client(Redis):
    """redis-py's client; and XADDs without the layers of its commands, for half of their processor time.

    They have a connection of their own, opened, logged in and tried again as any other of redis-py's.
    """

    #: So many replicas have what is appended before it counts as appended.
    replicas = 0
    _kept: Any = None

    @property
    def primary(self) -> tuple[str, int] | None:
        """Which of several servers is written to, as was last found out; None when there is one."""
        address: tuple[str, int] | None = getattr(self.connection_pool, "master_address", None)
        return address

    async def xadd_all(self, key: str, field: bytes, values: Sequence[bytes]) -> list[bytes]:
        """Append an entry of one field for each of ``values``, in one round trip; their ids. Raises one of FAILURES."""
        connection, self._kept = self._kept or self._new_connection(), None
        command = [part for value in values for part in connection.pack_command("XADD", key, "*", field, value)]
        if self.replicas:
            command += connection.pack_command("WAIT", self.replicas, _REPLICA_MS)
        count = len(values) + bool(self.replicas)
        try:
            answers: list[Any] = await connection.retry.call_with_retry(
                lambda: _ask(connection, command, count), lambda error: connection.disconnect(nowait=True)
            )
            if self.replicas and (have := answers.pop()) < self.replicas:
                raise NotReplicated(f"{have} replicas have what was appended, not {self.replicas} (--journal_replicas)")
        except BaseException:
            # What may still be answered must not be taken for the answer to what follows.
            await connection.disconnect(nowait=True)
            raise
        if self._kept is None:
            self._kept = connection
        else:
            await connection.disconnect(nowait=True)
        return answers

    def _new_connection(self) -> Any:
        # redis-py's time limit makes a task of every write; ours is around the whole.
        pool = self.connection_pool
        return pool.connection_class(**pool.connection_kwargs | {"socket_timeout": None})

    async def aclose(self, *args: Any, **more: Any) -> None:
        """Close all connections."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.disconnect()
        await super().aclose(*args, **more)


async def _ask(connection: Any, command: list[bytes], count: int) -> list[Any]:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            if not connection.is_connected:
                await connection.connect()
            await connection.send_packed_command(command, check_health=False)
            return [await connection.read_response() for _ in range(count)]
    except TimeoutError:
        raise RedisTimeoutError(f"Redis does not answer within {_ANSWER_SECONDS} s") from None


def connect(url: str, prefix: str = "", replicas: int = 0) -> Client:
    """A client for ``url`` that connects at its first command; ``prefix`` is that of all its keys.

    What it appends is on so many ``replicas`` as well. Raises StartError when ``url`` cannot be one.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _ANSWER_SECONDS,
        # A connection that an idle time has ended is found by the next command: it is tried again, once.
        "retry": Retry(NoBackoff(), 1),
    }
    try:
        if "+" in url.partition("://")[0]:
            client = cast(Client, Client.from_pool(PrimaryPool(url, prefix, **options)))
        else:
            client = cast(Client, Client.from_url(url, **options))
        # It connects to nothing; what the URL gives it and it does not know is found here.
        cast(Any, client.connection_pool).make_connection()
    except (ValueError, TypeError) as error:
        raise StartError(f"--redis_url: {error}") from None
    client.replicas = replicas
    return client


class RecordStream:
    """One stream. Every method raises one of FAILURES when Redis cannot do it."""

    def __init__(self, redis: Redis, prefix: str, instance: str) -> None:
        # redis-py types an answer as everything it can be in any mode.
        self._redis: Any = redis
        self.instance = instance
        self.key = f"{prefix}:backup:{instance}"

    @property
    def primary(self) -> tuple[str, int] | None:
        """Which of several servers it is on, as was last found out; None when there is one."""
        primary: tuple[str, int] | None = self._redis.primary
        return primary

    async def append(self, entries: list[list[bytes]]) -> list[bytes]:
        """Add one entry for each list of records, in one round trip; the entries' ids."""
        ids: list[bytes] = await self._redis.xadd_all(self.key, _FIELD, [b"".join(entry) for entry in entries])
        return ids

    async def last_id(self) -> bytes | None:
        """The id of the newest entry; None when there is none."""
        newest = await self._redis.xrevrange(self.key, count=1)
        return newest[0][0] if newest else None

    async def read(self, after: bytes | None, last: bytes, count: int) -> list[tuple[bytes, list[bytes]]]:
        """At most ``count`` entries behind ``after`` (None: from the first), none behind ``last``: ids and records."""
        start = b"-" if after is None else b"(" + after
        entries = await self._redis.xrange(self.key, min=start, max=last, count=count)
        return [(entry_id, await self._records(entry_id, fields)) for entry_id, fields in entries]

    async def _records(self, entry_id: bytes, fields: dict[bytes, bytes]) -> list[bytes]:
        found, rest, problem = records.split(fields.get(_FIELD, b""))
        if found and not rest:
            return found
        problem = problem or f"{len(rest)} bytes at its end are no whole record"
        await self._redis.xadd(f"{self.key}:damaged", fields)
        log.error("entry %r of %s is damaged (%s); it is kept in %s:damaged", entry_id, self.key, problem, self.key)
        return found

    async def trim(self, last: bytes) -> None:
        """Remove every entry up to and with ``last``."""
        milliseconds, _, sequence = last.partition(b"-")
        await self._redis.xtrim(self.key, minid=b"%s-%d" % (milliseconds, int(sequence) + 1), approximate=False)

    async def length(self) -> int:
        """How many entries there are."""
        return int(await self._redis.xlen(self.key))

    async def drop_if_empty(self) -> bool:
        """Remove the key when it has no entry; whether there is none now."""
        await self._redis.eval(_DROP_EMPTY, 1, self.key)
        return not await self._redis.exists(self.key)
