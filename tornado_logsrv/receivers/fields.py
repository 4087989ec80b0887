"""Time, text and level: how every receiver comes from what its senders say to a record's own fields.

The rules are the same for all of them, whatever a protocol calls these things:

- A record's ``timestamp`` is its own time, unless that cannot be; then it is the time of acceptance, with a note.
  What milliseconds do not hold of it is ``data.time_unix_nano``.
- Its ``message`` is the text that its sender says first, which then leaves ``data``; else a copy of one.
- ``data.level`` is in lower case; where that changes it, what was sent is ``data.severity_text``.
- Where a record has a field of its own under a name that is made here, that one stays, and a note says the rest.
"""

import decimal
import functools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .. import jsontext

#: A record's own time is taken when it is at most this far ahead of the clock.
MAX_AHEAD_MS = 24 * 60 * 60 * 1000
TOO_FAR_AHEAD = "more than a day ahead of the server's clock, time of acceptance taken"
BEFORE_1970 = "before 1970, time of acceptance taken"
NO_TIME = "not a time, time of acceptance taken"
FINER = "finer than a nanosecond, cut"
LOWER = "written in lower case"
TOO_DEEP = "nested deeper than this server reads"

#: Where the text of a record is when it is not where its protocol has it: Fluent Bit, Docker, loggers, the journal.
TEXT_NAMES = ("log", "msg", "line", "MESSAGE")
#: Names of a severity, the surest first: as most call it, ECS, Loki (``log_level_fields``), OpenTelemetry's exporters.
LEVEL_NAMES = (
    "level",
    "severity",
    "severity_text",
    "log.level",
    "lvl",
    "detected_level",
    "otel.log.severity.text",
)

_TIMESTAMP = "/timestamp"
_MILLISECOND, _SECOND = 1_000_000, 1_000_000_000
_BEYOND_INT64 = 1 << 63


def note(notes: jsontext.Notes, path: str, change: str, original: Any) -> None:
    """Add to ``notes`` that ``original``, a value of JSON or what storable has made of one, was changed."""
    notes.append({"path": path, "change": change, "original": json.dumps(original, default=jsontext.as_json)})


def keep(data: dict[str, Any], name: str, value: Any, notes: jsontext.Notes, path: str, change: str) -> None:
    """Make ``value`` a member of ``data`` or, where a record has another of that name, a note of ``change``."""
    if data.setdefault(name, value) != value:
        note(notes, path, change, value)


# Time


def own_time(nanoseconds: int | None, now_ms: int, notes: jsontext.Notes) -> int:
    """A record's timestamp in milliseconds since 1970: its own, or ``now_ms``, with a note when its own cannot be."""
    if nanoseconds is None:
        return now_ms
    own_ms = nanoseconds // _MILLISECOND
    if 0 <= own_ms <= now_ms + MAX_AHEAD_MS:
        return own_ms
    notes.append(
        {
            "path": _TIMESTAMP,
            "change": BEFORE_1970 if own_ms < 0 else TOO_FAR_AHEAD,
            "original": str(nanoseconds),
        }
    )
    return now_ms


def own_times(nanoseconds: Sequence[int | None], now_ms: int) -> list[int] | None:
    """What own_time gives for each of ``nanoseconds``, which are some; None when one of them would be noted."""
    if None in nanoseconds:
        times = [now_ms if each is None else each // _MILLISECOND for each in nanoseconds]
    else:
        times = [each // _MILLISECOND for each in nanoseconds]  # type: ignore[operator]  # none is None
    return times if min(times) >= 0 and max(times) <= now_ms + MAX_AHEAD_MS else None


def keep_fraction(data: dict[str, Any], nanoseconds: int, notes: jsontext.Notes) -> None:
    """Keep in ``data`` what a timestamp in milliseconds does not hold."""
    if nanoseconds % _MILLISECOND and abs(nanoseconds) < _BEYOND_INT64:
        keep(data, "time_unix_nano", nanoseconds, notes, _TIMESTAMP, "finer than a millisecond, cut")


#: Digits of the seconds of a time at the most.
_LONGEST = 12
#: Nanoseconds of the last digit, by how many there are behind the point.
_UNITS = (1_000_000_000, 100_000_000, 10_000_000, 1_000_000)
_SECONDS = re.compile(rf"(-?)(\d{{1,{_LONGEST}}})(?:\.(\d+))?", re.ASCII)
_WITH_EXPONENT = re.compile(r"-?\d{1,40}(?:\.\d{0,40})?[eE][+-]?\d{1,2}", re.ASCII)
_UNSAID = ("", "null")


def seconds(text: str, data: dict[str, Any], notes: jsontext.Notes) -> int | None:
    """Nanoseconds since 1970 of ``text``, which is JSON: seconds as a number, or as a text of one.

    From its digits, since a double does not hold nanoseconds. What is no time is None, and noted unless it is null.
    """
    if text in _UNSAID:
        return None
    if (plain := _plain_seconds(text)) is not None:
        return plain
    digits = text.strip('"')
    match = _SECONDS.fullmatch(digits) or _SECONDS.fullmatch(_without_exponent(digits))
    if match is None:
        notes.append({"path": _TIMESTAMP, "change": NO_TIME, "original": text})
        return None
    sign, whole, fraction = match[1], match[2], match[3] or ""
    time = int(f"{sign}{whole}{fraction[:9]:0<9}")
    keep_fraction(data, time, notes)
    if fraction[9:].strip("0"):
        notes.append({"path": _TIMESTAMP, "change": FINER, "original": text})
    return time


def _plain_seconds(text: str) -> int | None:
    """Nanoseconds of digits with three or fewer behind a point, as most write them; None of any other text."""
    whole, point, fraction = text.partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdecimal()) or not 0 < len(whole) <= _LONGEST or len(fraction) > 3:
        return None
    return int(digits) * _UNITS[len(fraction)] if fraction or not point else None


def _without_exponent(number: str) -> str:
    return f"{decimal.Decimal(number):f}" if _WITH_EXPONENT.fullmatch(number) else number


class _Number(str):
    """The digits of a number."""


def digits_of(raw: bytes, name: str, value: Any) -> str:
    """The JSON text of the member ``name`` of the object ``raw``, a number as it is written; read, it is ``value``."""
    text = raw.decode("utf-8-sig", "surrogateescape")
    found = json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=_Number)[name]
    return found if type(found) is _Number else jsontext.write(value).decode("utf-8", "replace")


#: ISO 8601 as strict_date_optional_time of Elasticsearch has it, with the fractions and offsets that clients write.
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d(?::\d\d(?::\d\d)?)?)(?:[.,](\d{1,32}))?)?\s?(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)
_DIGITS = re.compile(r"\d{1,15}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(given: Any) -> int | None:
    """Nanoseconds since 1970 of a time: ISO 8601, or milliseconds as a number or a text; None of what is none."""
    if type(given) is float:
        return int(decimal.Decimal(repr(given)) * _MILLISECOND) if abs(given) < 1e15 else None
    if type(given) is int:
        return given * _MILLISECOND
    if type(given) is not str:
        return None
    if _DIGITS.fullmatch(given):
        return int(given) * _MILLISECOND
    match = _ISO.fullmatch(given)
    return None if match is None else _from_parts(*match.groups())


def _from_parts(date: str, clock: str | None, fraction: str | None, offset: str | None) -> int | None:
    clock = clock or "00"
    if fraction is not None and len(clock) != 8:
        return None
    try:
        found = datetime.fromisoformat(f"{date}T{clock}{'' if offset is None or offset == 'Z' else offset}")
    except ValueError:
        return None
    passed = (found if found.tzinfo else found.replace(tzinfo=UTC)) - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * _SECOND + int(f"{(fraction or '')[:9]:0<9}")


def plain_moment(text: str) -> int | None:
    """What ``moment`` says of a text like 2026-01-31T12:00:00.000Z, as most senders write; None of any other."""
    if len(text) != 24 or text[19] != "." or text[23] != "Z":
        return None
    second, fraction = _second(text[:19]), text[20:23]
    if second is None or not (fraction.isdecimal() and fraction.isascii()):
        return None
    return second + int(fraction) * _MILLISECOND


#: How such a text ends behind its second → the nanoseconds of that.
_FRACTIONS = {f".{milliseconds:03}Z": milliseconds * _MILLISECOND for milliseconds in range(1000)}


def plain_moments(texts: Sequence[Any]) -> list[int] | None:
    """What plain_moment says of each of ``texts``; None when one of them is no such text."""
    try:
        return [_second(text[:19]) + _FRACTIONS[text[19:]] for text in texts]  # type: ignore[operator]
    except (TypeError, KeyError):
        # No text, no second, or another fraction.
        return None


@functools.lru_cache(maxsize=4096)
def _second(text: str) -> int | None:
    # Records of one request are of few seconds.
    return moment(text) if text[10:11] == "T" and text[13:14] == text[16:17] == ":" else None


# Text


def take_text(
    data: dict[str, Any], own: Sequence[str] = ("message",), others: Sequence[str] = TEXT_NAMES
) -> tuple[str, str]:
    """The text of a record, and the name of the member that left ``data`` for it; else that is empty.

    It is the first text of ``own``, which leaves, or a copy of the first of ``others``. One of ``own`` that another
    has as well stays, so that it can be told which of both it was.
    """
    for name in own:
        text = data.get(name)
        if type(text) is str and text:
            # Most have none of the others, which is told at once.
            if not data.keys().isdisjoint(others) and any(data.get(other) == text for other in others):
                return text, ""
            del data[name]
            return text, name
    for name in others:
        text = data.get(name)
        if type(text) is str:
            return text, ""
    return "", ""


def take_texts(documents: Sequence[dict[str, Any]], names: Collection[str]) -> list[str]:
    """The texts of records as take_text has them; ``names`` are the names of all their members."""
    if "message" in names and not any(other in names for other in TEXT_NAMES):
        texts = [document.get("message") for document in documents]
        if {*map(type, texts)} == {str} and all(texts):
            for document in documents:
                del document["message"]
            return texts  # type: ignore[return-value]  # all are texts
    return [take_text(document)[0] for document in documents]


def moved(notes: jsontext.Notes, path: str) -> jsontext.Notes:
    """``notes`` of a value whose text at ``path`` has become the message."""
    return [{**each, "path": "/message"} if each["path"] == path else each for each in notes]


# Level


def level_in(*places: Any) -> str:
    """The first severity that is a text in ``places``, in lower case; empty when there is none."""
    for place in places:
        if isinstance(place, Mapping):
            for name in LEVEL_NAMES:
                level = place.get(name)
                if type(level) is str and level:
                    return level.lower()
    return ""


def set_level(data: dict[str, Any], notes: jsontext.Notes, *places: Any) -> None:
    """Make ``data.level``: that of ``data`` in lower case or, where it has none, what ``level_in(places)`` finds."""
    level = data.get("level")
    if type(level) is str:
        if level != (lower := level.lower()):
            keep(data, "severity_text", level, notes, "/data/level", LOWER)
            data["level"] = lower
    elif level is None and (found := level_in(*places)):
        data["level"] = found


def set_levels(
    documents: Sequence[dict[str, Any]], names: Collection[str], within: Sequence[str], notes: jsontext.Notes
) -> None:
    """Make ``level`` of each of ``documents`` with set_level: from itself, and then from its members ``within``.

    ``names`` are the names of all their members.
    """
    if not any(name in names for name in (*LEVEL_NAMES, *within)) or _are_levels(documents):
        return
    for document in documents:
        set_level(document, notes, document, *map(document.get, within))


def _are_levels(documents: Sequence[dict[str, Any]]) -> bool:
    try:
        found = {document.get("level") for document in documents}
    except TypeError:
        # What is no text may be an object.
        return False
    return all(type(level) is str and level == level.lower() for level in found)
