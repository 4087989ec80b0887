"""Where a watcher begins: what the ids of events say, and what is asked for."""

import dataclasses
import re
from collections.abc import Mapping

from bson import ObjectId

from ..errors import BadParameter
from ..reading import Position
from ..watch import Watch
from .paging import is_moment

#: Who comes with a position of another server is shown what is stored since so long before it.
MARGIN_MS = 10_000
#: So long ago it may be that what other servers have stored since is asked of MongoDB, when nobody has watched here:
#: more than that would hold up what is new.
BACK_MS = 300_000
#: The first who comes from another server speaks for all who do: so much earlier may be the position of the others.
_SPREAD_SECONDS = 30
_MARK = re.compile(r"([0-9a-f]{14})\.([0-9]{1,18})\.([0-9]{1,15})(?:~(-?[0-9]{1,15})\.([0-9a-f]{24}))?")


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a watcher begins.

    First what is stored from ``low`` (milliseconds) on, behind ``after``, if there is a ``low``; then the order from
    ``number`` on. Where the order has all that was stored since ``second``, of MongoDB's clock, it is shown that
    instead. ``seen``: it has been shown what is before ``number``, and may not know what became of that.
    """

    number: int
    low: int | None = None
    after: Position | None = None
    seen: bool = False
    second: int | None = None


@dataclasses.dataclass(frozen=True)
class Mark:
    """What the id of an event says: how far its watcher was, and when; ``after`` while it was shown what is stored."""

    order: str
    number: int
    moment_ms: int
    after: Position | None

    def is_of(self, watch: Watch) -> bool:
        """Whether it is of this server's order, which has not been forgotten."""
        return self.order == watch.order.name and self.number <= watch.order.end

    def start(self, watch: Watch) -> Start:
        """Where to go on. Of another server's order, or one that is forgotten, only the time is good."""
        number = self.number if self.is_of(watch) else watch.unsettled_from()
        if self.after is not None:
            return Start(number, self.after.timestamp_ms, self.after)
        if self.is_of(watch):
            return Start(number, seen=True)
        return Start(number, self.moment_ms - MARGIN_MS, second=self.moment_ms // 1000)


def read_mark(text: str) -> Mark | None:
    """The mark of an event's id; None when no server has given it."""
    match = _MARK.fullmatch(text)
    if match is None or not all(map(is_moment, (int(match[3]), int(match[4] or 0)))):
        return None
    after = Position(int(match[4]), ObjectId(match[5])) if match[4] else None
    return Mark(match[1], int(match[2]), int(match[3]), after)


def wanted(arguments: Mapping[str, str], last_event_id: str, low: int | None) -> Mark | int | None:
    """Where a watcher wants to begin: at a mark, at the time ``low``, or with what is new. Raises BadParameter."""
    if given := last_event_id or arguments.get("last_event_id", ""):
        mark = read_mark(given)
        if mark is None:
            raise BadParameter("last_event_id", "must be the id of an event of this stream")
        return mark
    return low


def since(where: Mark | int | None, watch: Watch, now_ms: int) -> int | None:
    """From which second of MongoDB's clock on it has to be known what is stored; None: from now on."""
    if not isinstance(where, Mark) or where.is_of(watch) or abs(now_ms - where.moment_ms) > BACK_MS:
        return None
    return where.moment_ms // 1000 - _SPREAD_SECONDS


def start(where: Mark | int | None, watch: Watch) -> Start:
    """Where that is."""
    if isinstance(where, Mark):
        return where.start(watch)
    return Start(watch.told) if where is None else Start(watch.unsettled_from(), where)
