"""What is known of the other servers on the same MongoDB: how far it has told what they store."""

import asyncio
import contextlib
from collections.abc import Collection, Iterable

from .echoes import Echoes
from .moments import Moments
from .places import Place
from .records import Ids

#: How long MongoDB may take to tell of what is stored.
HEAR_SECONDS = 5.0
#: How much later than it is stored a record may be told of and still be shown to who comes from another server.
MARGIN_SECONDS = 10


class Others:
    """Which records are theirs, and how many of them are in this server's order."""

    def __init__(self, ids: Ids) -> None:
        """``ids`` makes the ids of this process."""
        self.echoes = Echoes(ids)
        self._moments = Moments()
        #: Whether MongoDB tells what they store; None: it is not known yet.
        self.follows: bool | None = None
        #: All that they had stored by then, in milliseconds of MongoDB's clock, is in the order.
        self.seen_ms = 0
        #: Whose records MongoDB tells of, beside those of nobody; None: it has not told yet.
        self._tenants: frozenset[str] | None = None
        self._known = asyncio.Event()
        self._hearing: list[list[asyncio.Event]] = [[], []]
        self._all_read_back = False

    def begin(self, unsettled: Collection[bytes], second: int | None, number: int) -> None:
        """The order begins with the ``unsettled``; MongoDB will tell what is stored from ``second`` on, or from now.

        All that is stored since then will stand in the order from ``number`` on.
        """
        self.echoes.begin(unsettled, second is not None)
        if second is not None:
            self._moments.add(second, number)

    def end(self) -> None:
        """The order is forgotten."""
        self.follows = self._tenants = None
        self._known.clear()
        self._moments.clear()

    def follow(self, tenants: frozenset[str]) -> None:
        """What MongoDB tells from here on are also the records of these ``tenants``."""
        if self._tenants is not None and tenants - self._tenants:
            # What these have stored before does not stand in the order.
            self._moments.clear()
        self._tenants = tenants

    def covers(self, tenant: str) -> bool:
        """Whether MongoDB tells of this tenant's records."""
        return not tenant or tenant in (self._tenants or ())

    def news(self, stored: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Those of the records that MongoDB tells of that are not in the order."""
        return [(record_id, record) for record_id, record in stored if not self.echoes.heard(record_id)]

    def seen(self, place: Place, whole: bool, number: int) -> None:
        """All before ``place`` is in the order, and all behind it will stand from ``number`` on.

        ``whole``: there was no more when MongoDB was asked.
        """
        self._know(True)
        self.seen_ms = 1000 * place.time.time
        # In the second that it is in, more may have been stored before the stream began.
        self._moments.add(place.time.time + 1, number)
        if whole:
            self._hear()

    def unknown(self) -> None:
        """MongoDB cannot tell what they store."""
        self._know(False)
        self._moments.clear()
        self._hear()
        self._hear()

    def lost(self) -> None:
        """Some of what they have stored is not in the order."""
        self._moments.clear()

    def read_back(self) -> None:
        """All that earlier processes have left has been read back."""
        self._all_read_back = True
        if self.follows is False:
            self.echoes.caught_up()

    def _know(self, follows: bool) -> None:
        self.follows = follows
        self._known.set()

    async def known(self, seconds: float) -> bool:
        """Wait until it is known whether MongoDB tells what they store, ``seconds`` at the most; whether it is."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._known.wait(), seconds)
        return self.follows is not None

    async def heard(self) -> None:
        """Wait until MongoDB has told of all that is stored now, or for ``HEAR_SECONDS``."""
        if self.follows:
            heard = asyncio.Event()
            self._hearing[1].append(heard)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(heard.wait(), HEAR_SECONDS)

    def _hear(self) -> None:
        if self._all_read_back:
            self.echoes.caught_up()
        # The answer may be older than the wish to know: the next one is not.
        done, self._hearing = self._hearing[0], [self._hearing[1], []]
        for each in done:
            each.set()

    def number_at(self, second: int) -> int | None:
        """From which number on stands what was stored since ``second``; None when not all of it does."""
        return self._moments.number_at(second - MARGIN_SECONDS)
