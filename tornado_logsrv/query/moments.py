"""Moments as people write them: ISO 8601, whole or in part, and times relative to now.

    2026   2026-01   2026-01-31   2026-01-31T10   2026-01-31T10:05:30.250Z   2026-01-31T10:05+01:00
    now   now-15m   now-1d/d   now+2h-5m

Without a zone a time is UTC. Units are s, m, h, d, w, M (months) and y; ``/`` and a unit go back to where that
unit began. Moments are in milliseconds since 1970, as MongoDB holds them.
"""

import calendar
import re
from datetime import UTC, datetime, timedelta

_ISO = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[Tt ](\d\d)(?::(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?"
    # A plus that was not encoded in a URL arrives as a space.
    r"(?:([Zz])|([+\- ])(\d\d):?(\d\d)?)?)?)?)?",
    re.ASCII,
)
_RELATIVE = re.compile(r"now((?:[+-]\d{1,6}[smhdwMy])*)(?:/([smhdwMy]))?", re.ASCII)
_STEP = re.compile(r"([+-]\d+)([smhdwMy])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LOWEST = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND
_HIGHEST = (datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC) - _EPOCH) // _MILLISECOND

#: What clocks of servers say is between 1970 and 2106, as in an ObjectId.
_CLOCKS = (0, 1000 << 32)

EXAMPLES = "2026-01-31, 2026-01-31T10:05:00Z or now-15m"


def moment(text: str, now_ms: int) -> int:
    """The first millisecond of what ``text`` names. Raises ValueError, with the right form, where it names none."""
    return span(text, now_ms)[0]


def span(text: str, now_ms: int) -> tuple[int, int]:
    """What ``text`` names as [first millisecond, first one behind): 2026-01-31 is that whole day, now is one.

    Raises ValueError, with the right form, where it names none.
    """
    try:
        relative = _RELATIVE.fullmatch(text)
        low, high = _relative_span(relative, now_ms) if relative else _iso_span(text)
    except OverflowError:
        low, high = _LOWEST - 1, 0
    if not _LOWEST <= low <= high <= _HIGHEST + 1:
        raise ValueError(f"{text} is outside the years 1 to 9999")
    return low, high


def check(text: str) -> None:
    """Raises ValueError, as ``span`` does, unless ``text`` names a moment whatever the time is: queries are kept."""
    for now_ms in _CLOCKS:
        span(text, now_ms)


def looks_like_moment(text: str) -> bool:
    """Whether ``text`` has the form of a moment, a bare year apart: that is a number."""
    iso = _ISO.fullmatch(text)
    return bool((iso and iso[2]) or _RELATIVE.fullmatch(text))


def is_relative(text: str) -> bool:
    """Whether ``text`` names another moment at another time."""
    return text.startswith("now")


def _iso_span(text: str) -> tuple[int, int]:
    found = _ISO.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a time: write it as {EXAMPLES}")
    year, month, day, hour, minute, second, fraction, _, sign, zone_hours, zone_minutes = found.groups()
    try:
        start = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0))
        zone = timedelta(hours=int(zone_hours or 0), minutes=int(zone_minutes or 0))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from None
    if int(zone_minutes or 0) > 59 or zone > timedelta(hours=18):
        raise ValueError(f"{text!r} is not a time: the zone is more than 18 hours from UTC")
    low = _milliseconds(start) - (-1 if sign == "-" else 1) * (zone // _MILLISECOND)
    low += int((fraction or "0")[:3].ljust(3, "0"))
    if hour is None:
        return low, _end_of_date(start, month, day)
    return low, low + _width(minute, second, fraction)


def _width(minute: str | None, second: str | None, fraction: str | None) -> int:
    if fraction is not None:
        return max(1, 10 ** (3 - len(fraction))) if len(fraction) < 3 else 1
    return 3_600_000 if minute is None else 60_000 if second is None else 1000


def _end_of_date(start: datetime, month: str | None, day: str | None) -> int:
    unit = "d" if day else "M" if month else "y"
    return _add(_milliseconds(start), 1, unit)


def _relative_span(found: re.Match[str], now_ms: int) -> tuple[int, int]:
    low = now_ms
    for number, unit in _STEP.findall(found[1]):
        low = _add(low, int(number), unit)
    if found[2] is None:
        return low, low + 1
    low = _begin(low, found[2])
    return low, _add(low, 1, found[2])


def _add(moment_ms: int, count: int, unit: str) -> int:
    if unit in _UNIT_MS:
        return moment_ms + count * _UNIT_MS[unit]
    at = _datetime(moment_ms)
    months = at.year * 12 + at.month - 1 + count * (12 if unit == "y" else 1)
    year, month = divmod(months, 12)
    if year == 10_000 and (month, at.day) == (0, 1):
        return _HIGHEST + 1
    if not 1 <= year <= 9999:
        raise OverflowError
    # A month has no 31st: its last day stands for it.
    day = min(at.day, calendar.monthrange(year, month + 1)[1])
    return _milliseconds(at.replace(year=year, month=month + 1, day=day))


def _begin(moment_ms: int, unit: str) -> int:
    if unit == "w":
        # 1970 began on a Thursday, weeks begin on Mondays.
        monday = 4 * _UNIT_MS["d"]
        return (moment_ms - monday) // _UNIT_MS["w"] * _UNIT_MS["w"] + monday
    if unit in _UNIT_MS:
        return moment_ms // _UNIT_MS[unit] * _UNIT_MS[unit]
    at = _datetime(moment_ms)
    return _milliseconds(datetime(at.year, 1 if unit == "y" else at.month, 1))


def _datetime(moment_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=moment_ms)


def _milliseconds(at: datetime) -> int:
    return (at.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
