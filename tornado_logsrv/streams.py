"""Redis Streams of records: one an instance, ``<prefix>:backup:<instance>``.

An entry holds whole BSON documents, one after the other, in its one field ``r``. Entries leave from the oldest on,
and only when all of their records are stored.
"""

import logging
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

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
#: Removes an empty stream; one that has got an entry meanwhile stays.
_DROP_EMPTY = "if redis.call('XLEN', KEYS[1]) == 0 then return redis.call('DEL', KEYS[1]) end return 0"


def connect(url: str, prefix: str = "") -> Redis:
    """A client for ``url`` that connects at its first command; ``prefix`` is that of all its keys.

    Raises StartError when ``url`` cannot be one.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _ANSWER_SECONDS,
        # A connection that an idle time has ended is found by the next command: it is tried again, once.
        "retry": Retry(NoBackoff(), 1),
    }
    try:
        if "+" in url.partition("://")[0]:
            return Redis.from_pool(PrimaryPool(url, prefix, **options))
        return Redis.from_url(url, **options)
    except ValueError as error:
        raise StartError(f"--redis_url: {error}") from None


class RecordStream:
    """One stream. Every method raises one of FAILURES when Redis cannot do it."""

    def __init__(self, redis: Redis, prefix: str, instance: str) -> None:
        # redis-py types an answer as everything it can be in any mode.
        self._redis: Any = redis
        self.instance = instance
        self.key = f"{prefix}:backup:{instance}"

    async def append(self, entries: list[list[bytes]]) -> list[bytes]:
        """Add one entry for each list of records, in one round trip; the entries' ids."""
        if len(entries) == 1:
            return [await self._redis.xadd(self.key, {_FIELD: b"".join(entries[0])})]
        pipeline = self._redis.pipeline(transaction=False)
        for entry in entries:
            pipeline.xadd(self.key, {_FIELD: b"".join(entry)})
        ids: list[bytes] = await pipeline.execute()
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
