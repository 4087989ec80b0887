"""About how many records have a value of an indexed field: a hint that chooses how SecantusDB is asked for it.

It is counted in a sample: of what is stored when it is first asked for, some seconds; of what is stored afterwards, one
record of many. It decides only how records are found; a count that is wrong costs time and never a record.
"""

import collections
import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from bson import CodecOptions
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

#: Of so many records that are stored, one is counted, and for all of them.
EVERY = 64
#: Values with more records than this are many: SecantusDB fetches every record that a reading's first stage allows.
MANY = 500
#: So many values of a field are remembered, twice that for a while; the most frequent are kept.
MOST_VALUES = 2048
_LONGEST = 256
#: Of a record, no more is decoded than the way to its value.
_CODEC: CodecOptions[RawBSONDocument] = CodecOptions(
    document_class=RawBSONDocument, datetime_conversion=DatetimeConversion.DATETIME_MS
)


class Frequency:
    """Estimated numbers of records, by path and value."""

    def __init__(self, paths: Collection[str] = ()) -> None:
        """Of ``paths``, all records are yet to be counted."""
        self._counts: dict[str, collections.Counter[Any]] = {path: collections.Counter() for path in paths}
        self._passed = 0

    @property
    def paths(self) -> Set[str]:
        """Of what anything is known."""
        return self._counts.keys()

    def take(self, counted: "Frequency") -> None:
        """Know what ``counted`` does of its paths."""
        self._counts |= counted._counts

    def take_for_many(self, path: str, documents: Iterable[Mapping[str, Any]]) -> None:
        """The values that ``documents`` have at ``path`` have turned out to be frequent."""
        for document in documents:
            self._count(path, document, MANY + 1)

    def scale(self, factor: float) -> None:
        """So much of the records is left."""
        for counts in self._counts.values():
            for value in counts:
                counts[value] *= factor  # type: ignore[assignment]

    def count(self, document: Mapping[str, Any], weight: float = EVERY) -> None:
        """A record of the sample, which stands for ``weight``."""
        for path in self._counts:
            self._count(path, document, weight)

    def _count(self, path: str, document: Mapping[str, Any], weight: float) -> None:
        counts = self._counts[path]
        for value in set(_values(document, path.split("."))):
            counts[value] += weight  # type: ignore[assignment]
        if len(counts) > 2 * MOST_VALUES:
            self._counts[path] = collections.Counter(dict(counts.most_common(MOST_VALUES)))

    def note(self, records: Sequence[bytes]) -> None:
        """These records, encoded, have been stored."""
        if self._counts:
            for record in records[-self._passed % EVERY :: EVERY]:
                # What cannot be read is not what anybody looks for.
                with contextlib.suppress(BSONError):
                    self.count(RawBSONDocument(record, _CODEC))
            self._passed += len(records)

    def about(self, path: str, values: Sequence[Any]) -> float:
        """About how many records have one of ``values``."""
        return sum(self._of(path, value) for value in values)

    def divided(self, path: str, values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Those of ``values`` that few records have, and those that many have."""
        parts: tuple[list[Any], list[Any]] = ([], [])
        for value in values:
            parts[self._of(path, value) > MANY].append(value)
        return parts

    def _of(self, path: str, value: Any) -> float:
        return self._counts[path][value] if path in self._counts and isinstance(value, str | int | float) else 0


def _values(value: Any, keys: Sequence[str]) -> Iterator[str | int | float]:
    if isinstance(value, list):
        for each in value:
            yield from _values(each, keys)
    elif keys:
        if isinstance(value, Mapping) and keys[0] in value:
            yield from _values(value[keys[0]], keys[1:])
    elif isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _LONGEST):
        yield value
