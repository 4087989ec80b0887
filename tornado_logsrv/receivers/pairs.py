"""Pairs of a key and a value in protobuf, as attributes and labels are: those of many records, read at once.

Records of one origin mostly have the same keys in the same order. What stands at one place in each of them is a column
then, of one key, whose values are read in one call, or once for each that is different.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from .protobuf import Columns

#: The tag of a pair's key, which is field 1.
_KEY_TAG = 0x0A
#: Of so many pairs, few that are different say that they repeat.
_SAMPLE = 64

Pair = tuple[str, Any]


class Pairs:
    """Reads pairs of one kind: field 1 is the key, and ``columns`` has all fields.

    ``plain`` are those that a column has as a pair has its value.
    """

    def __init__(self, columns: Columns, plain: Collection[str]) -> None:
        self._columns = columns
        self._plain = plain

    def objects(self, lists: Sequence[Sequence[bytes]], read: Callable[[bytes], Pair]) -> list[dict[str, Any]] | None:
        """An object of each list of pairs, of which ``read`` reads one; None when they are to be read list by list.

        Raises Unreadable, and what ``read`` raises.
        """
        width = len(lists[0])
        if width > len(lists) or {*map(len, lists)} != {width}:
            return None
        columns = [self._column(raws, read) for raws in zip(*lists, strict=True)]
        names = {name for name, _ in columns}
        if len(names) != width or None in names:
            return None
        found: list[dict[str, Any]] = [{} for _ in lists]
        for name, values in columns:
            for each, value in zip(found, values, strict=True):
                each[name] = value  # type: ignore[index]  # no name is None
        return found

    def _column(self, raws: Sequence[bytes], read: Callable[[bytes], Pair]) -> tuple[str | None, Sequence[Any]]:
        """The key and the values of the pairs ``raws``; the key is None when these are not of one key and kind."""
        if len({*raws[:_SAMPLE]}) <= _SAMPLE // 4:
            return _same_key({raw: read(raw) for raw in {*raws}}, raws)
        key = _key(raws[0])
        values = [raw.removeprefix(key) for raw in raws]
        if not key or sum(map(len, raws)) != sum(map(len, values)) + len(key) * len(raws):
            return None, ()
        # Where one of them has a second key, that is a column, too.
        found = self._columns.read(values) or {}
        if len(found) == 1:
            ((kind, column),) = found.items()
            if kind in self._plain and None not in column:
                return key[2:].decode(), column
        return None, ()


def _same_key(pairs: dict[bytes, Pair], raws: Sequence[bytes]) -> tuple[str | None, Sequence[Any]]:
    names = {name for name, _ in pairs.values()}
    return (names.pop(), [pairs[raw][1] for raw in raws]) if len(names) == 1 else (None, ())


def _key(raw: bytes) -> bytes:
    """The key of a pair, encoded, where it begins with one that is short and ASCII, as most do; else nothing."""
    end = raw[1] + 2 if len(raw) > 1 and raw[0] == _KEY_TAG else 0
    return raw[:end] if end <= len(raw) and raw[:end].isascii() else b""
