"""A record as text for people: one line, and what has several lines below it."""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

#: What a terminal would act on: control characters but line feed and tab, and those that turn the direction of text.
_HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_HARMFUL_IN_JSON = re.compile(r"[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_PLAIN = re.compile(r"[^\s\"'=]+")
_TEXT_KEYS = ("message", "msg", "log", "event")
_NO_TEXT = "Job processed"
_VALUE = 200
_DEPTH = 4
_INDENT = "    "
_DIM, _RED, _YELLOW, _GREEN, _END = "\x1b[2m", "\x1b[1;31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"
_COLOURS = {
    **dict.fromkeys(("error", "err", "critical", "crit", "fatal", "alert", "emergency", "emerg", "panic"), _RED),
    **dict.fromkeys(("warning", "warn"), _YELLOW),
    **dict.fromkeys(("info", "notice"), _GREEN),
    **dict.fromkeys(("debug", "trace", "verbose"), _DIM),
}


def has_colours(stream: TextIO) -> bool:
    """Whether text for ``stream`` is coloured: on a terminal, unless NO_COLOR (no-color.org) says no."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def harmless(text: str) -> str:
    """``text`` with what a terminal would act on spelled out."""
    return _HARMFUL.sub(lambda found: repr(found[0])[1:-1], text.replace("\r\n", "\n"))


def harmless_json(text: str) -> str:
    """JSON that means the same, with what a terminal would act on as escapes."""
    return _HARMFUL_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def warn(text: str) -> None:
    """Tell something that is no record."""
    sys.stderr.write(f"tornado_logsrv.tail: {harmless(text)}\n")
    sys.stderr.flush()


def shown(record: Mapping[str, Any], coloured: bool = False) -> str:
    """The lines for a record."""
    data = record.get("data")
    fields = dict(data) if isinstance(data, dict) else {}
    level = str(fields.pop("level", ""))
    text = _text(record, data, fields)
    where = fields.pop("service", None) or record.get("source")
    short, long = _fields(fields)
    colour = _COLOURS.get(level.lower(), "") if coloured else ""
    first, *others = harmless(text).rstrip("\n").split("\n")
    head = [
        _painted(harmless(str(record.get("timestamp", "-"))), _DIM if coloured else ""),
        _painted(f"{harmless(level).upper():<7}", colour),
        *([f"[{harmless(str(where))}]"] if where else []),
        _painted(first, colour if colour == _RED else ""),
        *([_painted(" ".join(short), _DIM if coloured else "")] if short else []),
    ]
    return "\n".join([" ".join(head).rstrip(), *(_INDENT + line for line in others), *long]) + "\n"


def _text(record: Mapping[str, Any], data: Any, fields: dict[str, Any]) -> str:
    message = record.get("message")
    if isinstance(message, str) and message != _NO_TEXT:
        return message
    if isinstance(data, dict):
        return next((fields.pop(key) for key in _TEXT_KEYS if isinstance(fields.get(key), str)), "")
    return data if isinstance(data, str) else _json(data)


def _fields(fields: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Fields that fit into the line, and the lines of those that do not."""
    short, long = [], []
    for name, value in _flat(fields, "", _DEPTH):
        if isinstance(value, str) and "\n" in value.strip():
            long.append(f"{_INDENT}{harmless(name)}:")
            long += [f"{_INDENT * 2}{line}" for line in harmless(value).strip("\n").split("\n")]
        else:
            short.append(f"{_name(name)}={_value(value)}")
    return short, long


def _flat(fields: Mapping[str, Any], before: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict) and value and depth:
            yield from _flat(value, f"{before}{name}.", depth - 1)
        else:
            yield before + name, value


def _name(name: str) -> str:
    return harmless(name).replace("\n", r"\n")


def _value(value: Any) -> str:
    text = value if isinstance(value, str) and _PLAIN.fullmatch(value) else _json(value)
    text = harmless(text).replace("\n", r"\n")
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}…"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _painted(text: str, colour: str) -> str:
    return f"{colour}{text}{_END}" if colour and text.strip() else text
