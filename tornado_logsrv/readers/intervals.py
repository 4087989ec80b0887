"""Lengths of time that buckets can have, and where they begin."""

import re

from ..errors import BadParameter
from ..operations import Schema

UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
#: Lengths that are round to people.
ROUND = (
    *(f"{count}ms" for count in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(f"{count}{unit}" for unit in ("s", "m") for count in (1, 2, 5, 10, 15, 30)),
    *("1h", "2h", "3h", "6h", "12h", "1d", "2d", "1w", "2w", "4w", "13w", "52w", "520w", "5200w"),
)
#: About so many buckets are chosen, and no more than so many answered.
WANTED = 60
MOST = 1000
_INTERVAL = re.compile(r"([1-9][0-9]{0,6})(ms|s|m|h|d|w)")
SCHEMA: Schema = {"type": "string", "pattern": f"^(?:{_INTERVAL.pattern})?$"}
#: 1970 began on a Thursday, weeks begin on Mondays.
_MONDAY_MS = 4 * UNITS_MS["d"]


def milliseconds(text: str) -> int:
    """The length that ``text`` names. Raises ValueError."""
    found = _INTERVAL.fullmatch(text)
    if found is None:
        raise ValueError("must be a number and ms, s, m, h, d or w, such as 30s or 1h")
    return int(found[1]) * UNITS_MS[found[2]]


def chosen(span_ms: int) -> str:
    """A round length, of which no more than WANTED make ``span_ms``."""
    return next((text for text in ROUND if milliseconds(text) * WANTED >= span_ms), ROUND[-1])


def beginning(moment_ms: int, interval_ms: int) -> int:
    """When the bucket with ``moment_ms`` begins: at a round time (UTC), for weeks on a Monday."""
    shift = _MONDAY_MS if interval_ms % UNITS_MS["w"] == 0 else 0
    return (moment_ms - shift) // interval_ms * interval_ms + shift


def starts(low: int, high: int, interval_ms: int) -> range:
    """Where the buckets of [low, high) begin. Raises BadParameter when they are too many."""
    found = range(beginning(low, interval_ms), high, interval_ms)
    if len(found) > MOST:
        raise BadParameter("interval", f"makes more than {MOST} buckets; {chosen(high - low)} makes fewer")
    return found
