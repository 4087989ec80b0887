"""What may be meant by a query that is wrong: the first of a few small changes after which it can be read."""

import re
from collections.abc import Iterator

from .tokens import value_at

_OPEN = re.compile(r'"(?:[^\\"]|\\.)*("?)|\\.|[][(){}]', re.DOTALL)
_NEEDLESS = re.compile(r"(?:AND|OR|NOT|&&|\|\|)(?=\s|$)|[~^][\d.]*|[])}\\+!-]")
_NO_VALUE = re.compile(r"\s|\)|$")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def changes(query: str, column: int) -> Iterator[str]:
    """Queries near ``query``, which is wrong at ``column`` (from 1), the nearest first; not all of them are right."""
    at = column - 1
    before, wrong = query[:at], query[at : at + 1]
    if wrong and wrong in '"([{':
        yield query.rstrip() + _closing(query)
    if needless := _NEEDLESS.match(query, at):
        yield f"{before.rstrip()} {query[needless.end() :].lstrip()}".strip()
    if _NO_VALUE.match(query, at) and before.endswith(":"):
        yield f"{before}*{query[at:]}"
    if wrong and wrong in "([{":
        return
    value = value_at(query, min(at, max(0, len(query) - 1)))
    text = query[value].replace('"', "").replace("\\", "\\\\")
    yield f'{query[: value.start]}"{text}"{query[value.stop :]}'


def _closing(query: str) -> str:
    """What closes all that is open at the end of ``query``."""
    opened: list[tuple[str, int]] = []
    for found in _OPEN.finditer(query):
        if found[0] in _CLOSING:
            opened.append((found[0], found.end()))
        elif found[1] == "":
            return '"' + "".join(_CLOSING[bracket] for bracket, _ in reversed(opened))
        elif opened and found[0] in _CLOSING.values():
            opened.pop()
    return "".join(_rest(query[end:], bracket) for bracket, end in reversed(opened))


def _rest(inside: str, bracket: str) -> str:
    """The end of a range, or of a group."""
    if bracket == "(":
        return ")"
    bound = "" if re.search(r"\sTO\s+\S", inside) else " *" if re.search(r"\sTO\s*$", inside) else " TO *"
    return bound + _CLOSING[bracket]
