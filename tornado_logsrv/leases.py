"""Which instances live: a lease in Redis each, that runs out unless it is renewed.

    <prefix>:instances            set of the names that have, or had, a stream
    <prefix>:lease:<instance>     its owner; gone LEASE_SECONDS after the last renewal
    <prefix>:adopt:<instance>     who adopts the stream of one whose lease is gone
    <prefix>:turn:<what>          who does what only one process should do at a time

An owner is ``<data directory>/<process>``, each a random name. Who holds a data directory's lock knows that any
other process of that directory is dead, and takes its lease over at once; otherwise a lease has to run out.
"""

import asyncio
from typing import Any

from redis.asyncio import Redis

from .errors import LeaseHeld

LEASE_SECONDS = 15
#: A lease that could not be renewed once is renewed in time for all that.
RENEW_SECONDS = 5

#: Sets the lease if it is free, ours, or of a dead process of our data directory; says who has it then.
_ACQUIRE = """
local owner = redis.call('GET', KEYS[1])
if not owner or owner == ARGV[1] or string.sub(owner, 1, #ARGV[2]) == ARGV[2] then
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
    return ARGV[1]
end
return owner
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
#: Takes the right to adopt only while the lease of the name is gone.
_ADOPT = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local adopter = redis.call('GET', KEYS[2])
if adopter and adopter ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
return 1
"""
#: Forgets a name only while nobody has it and nothing is left under it: it may have come back meanwhile.
_FORGET = """
if redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then return 0 end
return redis.call('SREM', KEYS[1], ARGV[1])
"""


class Leases:
    """The lease of this process, and the leases of others. Methods raise what redis-py raises."""

    def __init__(self, redis: Redis, prefix: str, instance: str, directory: str, process: str) -> None:
        """``directory`` and ``process`` are random names: of the data directory and of this process."""
        self._redis: Any = redis
        self._prefix = prefix
        self.instance = instance
        self._directory = f"{directory}/"
        self._owner = f"{directory}/{process}"
        self._valid_until = 0.0

    def _key(self, kind: str, instance: str) -> str:
        return f"{self._prefix}:{kind}:{instance}"

    async def acquire(self) -> None:
        """Take or renew the lease of this process's name. Raises LeaseHeld when another live process has it."""
        key, began = self._key("lease", self.instance), asyncio.get_running_loop().time()
        owner = await self._redis.eval(_ACQUIRE, 1, key, self._owner, self._directory, LEASE_SECONDS)
        if owner.decode() != self._owner:
            seconds = max(0, await self._redis.pttl(key)) / 1000
            raise LeaseHeld(
                f"another server named {self.instance!r} is running; give this one another --instance", seconds
            )
        await self._redis.sadd(f"{self._prefix}:instances", self.instance)
        self._valid_until = began + LEASE_SECONDS

    @property
    def valid(self) -> bool:
        """Whether the lease is certainly held: only then may this instance append to its stream.

        When it has run out, another may have adopted the stream and forgotten the name.
        """
        return asyncio.get_running_loop().time() < self._valid_until

    async def release(self) -> None:
        """Give the lease up: others may adopt the stream."""
        await self._redis.eval(_RELEASE, 1, self._key("lease", self.instance), self._owner)

    async def orphans(self) -> list[str]:
        """The names, not this process's, whose lease is gone."""
        names = {name.decode() for name in await self._redis.smembers(f"{self._prefix}:instances")} - {self.instance}
        return [name for name in sorted(names) if not await self._redis.exists(self._key("lease", name))]

    async def adopt(self, instance: str) -> bool:
        """Take, or keep, the right to adopt ``instance``'s stream; False when it lives or another adopts it."""
        keys = (self._key("lease", instance), self._key("adopt", instance))
        return bool(await self._redis.eval(_ADOPT, 2, *keys, self._owner, LEASE_SECONDS))

    async def take_turn(self, what: str, seconds: int) -> bool:
        """Take, or keep for ``seconds`` more, the turn to do ``what``; False while another instance has it."""
        owner = await self._redis.eval(_ACQUIRE, 1, self._key("turn", what), self._owner, self._directory, seconds)
        return bool(owner.decode() == self._owner)

    async def adopted(self, instance: str, forget: bool) -> None:
        """End the adoption; with ``forget`` there is nothing left of ``instance``."""
        if forget:
            keys = (f"{self._prefix}:instances", self._key("lease", instance), self._key("backup", instance))
            await self._redis.eval(_FORGET, 3, *keys, instance)
        await self._redis.eval(_RELEASE, 1, self._key("adopt", instance), self._owner)
