"""Labels as Prometheus writes them: ``{job="app", path="C:\\\\x"}``.

The grammar is that of a metric in PromQL (prometheus/prometheus, ``promql/parser``, ParseMetric), which Loki reads
labels with; texts are quoted as by Go's strconv.Quote, in single quotes too, or are raw between backquotes.
"""

import re
from typing import Any

from .. import jsontext
from ..errors import TooLarge, Unreadable
from .rows import text

# Possessive: what is no label is seen to be none in one pass, however long it is.
_QUOTED = r"\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"|'[^'\\]*+(?:\\.[^'\\]*+)*+'|`[^`]*+`"
_BEGINNING = re.compile(r"\s*+([^\s{}=,!~\"'`]++)?\s*+\{\s*+")
_LABEL = re.compile(rf"([^\s{{}}=,!~\"'`]++|{_QUOTED})\s*+=\s*+({_QUOTED})\s*+", re.DOTALL)
_END = re.compile(r"\}\s*")
_COMMA = re.compile(r",\s*")
_ESCAPE = re.compile(
    r"[^\\]+|\\(?:x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([abfnrtv\\\"']))", re.DOTALL
)
#: Bytes of labels at the most: Loki takes some ten thousand, and each escape takes its time.
MAX_BYTES = 1 << 18
_CHARACTERS = {"a": b"\a", "b": b"\b", "f": b"\f", "n": b"\n", "r": b"\r", "t": b"\t", "v": b"\v"}


def parse_labels(selector: str) -> tuple[dict[str, Any], bool]:
    """The labels of ``selector``, and whether each name stands once: if not, jsontext.storable has to see them.

    Bytes that are not UTF-8, which escapes can write, become lone surrogates. Raises Unreadable, saying where, and
    TooLarge.
    """
    if len(selector) > MAX_BYTES:
        raise TooLarge(f"labels of {len(selector)} characters, {MAX_BYTES} are the most")
    match = _BEGINNING.match(selector)
    if match is None:
        raise _unreadable(selector, 0)
    pairs = [("__name__", match[1])] if match[1] else []
    at = match.end()
    while (end := _END.match(selector, at)) is None:
        label = _LABEL.match(selector, at)
        if label is None:
            raise _unreadable(selector, at)
        pairs.append((_unquoted(label[1]), _unquoted(label[2])))
        at = label.end()
        comma = _COMMA.match(selector, at)
        if comma is None and not selector.startswith("}", at):
            raise _unreadable(selector, at)
        at = comma.end() if comma else at
    if end.end() != len(selector):
        raise _unreadable(selector, end.end())
    labels = jsontext.from_pairs(pairs)
    return labels, len(labels) == len(pairs) and type(labels) is dict


def _unreadable(selector: str, at: int) -> Unreadable:
    return Unreadable(f'labels {selector[:80]!a} are not of the form {{name="value", …}}: character {at}')


def _unquoted(quoted: str) -> str:
    if quoted[0] == "`" or "\\" not in quoted:
        return quoted[1:-1] if quoted[0] in "\"'`" else quoted
    pieces: list[bytes] = []
    at, end = 1, len(quoted) - 1
    while at < end:
        match = _ESCAPE.match(quoted, at, end)
        if match is None:
            raise Unreadable(f"labels have {quoted[:80]!a}, which Go does not write: character {at}")
        pieces.append(_bytes(match))
        at = match.end()
    return text(b"".join(pieces))


def _bytes(match: "re.Match[str]") -> bytes:
    kind = match.lastindex
    if kind is None:
        return match[0].encode("utf-8", "surrogateescape")
    digits = match[kind]
    if kind == 5:
        return _CHARACTERS.get(digits) or digits.encode()
    number = int(digits, 8 if kind == 2 else 16)
    if kind <= 2:
        return bytes([number & 0xFF])
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise Unreadable(f"labels have {match[0]}, which is no character")
    return chr(number).encode()
