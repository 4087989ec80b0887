"""Memory for what is on its way in or out: bodies that arrive, pages that are read, answers that are not yet taken."""

import asyncio

from .errors import Overloaded

#: Of each request so much is not counted: small ones go on when large and slow ones have taken all there is.
FREE = 64 * 1024
#: Pages that are fetched at a time; the driver has hardly more threads for them.
FETCHES = 16


class Room:
    """``size`` bytes, of which ``used`` are taken."""

    def __init__(self, size: float = float("inf")) -> None:
        self.size = size
        self.used = 0
        #: Whoever fetches from MongoDB what is not counted yet.
        self.fetching = asyncio.Semaphore(FETCHES)

    def take(self, more: int) -> None:
        """Raises Overloaded when there are not so many left."""
        if self.used + more > self.size:
            raise Overloaded("large requests and answers have taken all memory that there is for them", retry_after=5)
        self.used += more


class Share:
    """What one request has of a Room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = 0
        self.counted = 0

    def take(self, size: int) -> None:
        """Hold ``size`` bytes more. Raises Overloaded; then they are not held."""
        counted = max(0, self._held + size - FREE)
        if counted > self.counted:
            self._room.take(counted - self.counted)
            self.counted = counted
        self._held += size

    def close(self) -> None:
        """Hold nothing any more."""
        self._room.used -= self.counted
        self._held = self.counted = 0
