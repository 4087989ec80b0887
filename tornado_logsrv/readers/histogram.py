"""``GET /logs/histogram``: how many records, by time and level."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

from .. import jsontext
from ..auth import Scope
from ..errors import BadParameter
from ..operations import COUNT, MOMENT, TEXT, array_of, json_of, named, object_of, operation, table_of
from ..reading import LevelCounts, Selection
from . import intervals, paging
from .searching import PARAMETERS as SELECTION
from .searching import SearchHandler, selection

PARAMETERS = {**SELECTION, "interval": intervals.SCHEMA}
DEFAULT_SPAN_MS = 3_600_000
#: Levels that are told apart; the rarer ones are counted together.
MOST_LEVELS = 20
OTHER = "other"
_LONGEST = 40

_LEVELS = table_of(COUNT)
ANSWER = named(
    "Histogram",
    object_of(
        {"from": MOMENT},
        to=MOMENT,
        interval=TEXT,
        interval_ms=COUNT,
        total=COUNT,
        levels=_LEVELS,
        buckets=array_of(object_of(time=MOMENT, total=COUNT, levels=_LEVELS)),
    ),
)

Document = dict[str, Any]
Counts = collections.Counter[str]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a request asks for: the records of ``selection``, whose bounds are both there, in buckets of a length."""

    selection: Selection
    low: int
    high: int
    interval: str

    @property
    def interval_ms(self) -> int:
        """The length of a bucket."""
        return intervals.milliseconds(self.interval)

    @property
    def starts(self) -> range:
        """Where the buckets begin. Raises BadParameter when they are too many."""
        return intervals.starts(self.low, self.high, self.interval_ms)


def parse(arguments: Mapping[str, str], now_ms: int) -> Asked:
    """The histogram that query parameters ask for. Raises BadParameter, naming the one that is wrong."""
    paging.check_names(arguments, PARAMETERS)
    given = selection(arguments, now_ms)
    high = max(now_ms, (given.low or 0) + 1) if given.high is None else given.high
    low = high - DEFAULT_SPAN_MS if given.low is None else given.low
    interval = arguments.get("interval", "") or intervals.chosen(high - low)
    try:
        intervals.milliseconds(interval)
    except ValueError as error:
        raise BadParameter("interval", str(error)) from None
    asked = Asked(dataclasses.replace(given, low=low, high=high), low, high, interval)
    # Too many of them are refused before anything is counted.
    _ = asked.starts
    return asked


def describe(asked: Asked, found: LevelCounts) -> Document:
    """The answer for what has been counted: every bucket, also those with nothing."""
    buckets: dict[int, Counts] = collections.defaultdict(collections.Counter)
    for (number, level), count in found.items():
        buckets[number][_name(level)] += count
    total: Counts = sum(buckets.values(), collections.Counter())
    kept = {level for level, _ in total.most_common(MOST_LEVELS)}
    return {
        "from": paging.moment(asked.low),
        "to": paging.moment(asked.high),
        "interval": asked.interval,
        "interval_ms": asked.interval_ms,
        "total": total.total(),
        "levels": _few(total, kept),
        "buckets": [
            {"time": paging.moment(start), "total": buckets[number].total(), "levels": _few(buckets[number], kept)}
            for number, start in enumerate(asked.starts)
        ],
    }


def _name(level: str | int | float | None) -> str:
    """What a level is called: in lower case, empty where there is none."""
    name = "" if level is None else str(level).lower()
    return name if len(name) <= _LONGEST else OTHER


def _few(counts: Counts, kept: set[str]) -> dict[str, int]:
    few: Counts = collections.Counter()
    for level, count in counts.items():
        few[level if level in kept else OTHER] += count
    return dict(few.most_common())


class HistogramHandler(SearchHandler):
    """Counts stored records."""

    scope = Scope.READ
    keeps_bounds = True

    @operation({200: json_of(ANSWER)}, PARAMETERS)
    async def get(self) -> None:
        """Total, levels, and buckets without a gap."""
        asked = parse(self.arguments, self.now_ms)
        found = await self.reader.count_levels(asked.selection, asked.starts.start, asked.interval_ms, self.deadline)
        self.set_header("Content-Type", "application/json")
        self.finish(jsontext.write(describe(asked, found)))

    head = get
