"""``GET /logs/fields``: which fields the newest records of a search have, and which values most often."""

import asyncio
import collections
import datetime
from collections.abc import Iterator, Mapping
from typing import Any

import bson
from bson import ObjectId

from .. import jsontext
from ..auth import Scope
from ..operations import ANYTHING, BOOLEAN, COUNT, TEXT, array_of, json_of, named, object_of, operation
from . import paging
from .projection import THEMSELVES
from .searching import PARAMETERS as SELECTION
from .searching import SearchHandler, selection

DEFAULT_LIMIT = 500
PARAMETERS = {**SELECTION, "limit": paging.limit_schema(DEFAULT_LIMIT)}
MOST_FIELDS = 200
MOST_VALUES = 10
#: Texts that are longer are no values that one would choose from.
LONGEST_VALUE = 100
_DEEPEST = 6
#: Records that are looked at before other requests have their turn.
_SLICE = 20
_SCALARS = (str, int, float, type(None), datetime.datetime, bson.DatetimeMS, ObjectId)

_Key = tuple[bool, Any]
Document = dict[str, Any]

_FIELD = object_of(name=TEXT, count=COUNT, values=array_of(object_of(value=ANYTHING, count=COUNT)))
ANSWER = named("Fields", object_of(sampled=COUNT, complete=BOOLEAN, fields=array_of(_FIELD)))


class Fields:
    """Counts fields, and values in them, of one record after the other."""

    def __init__(self) -> None:
        self._names: collections.Counter[str] = collections.Counter()
        self._values: dict[str, collections.Counter[_Key]] = collections.defaultdict(collections.Counter)

    def add(self, document: Document) -> None:
        """Count each field, and each value of it, once for ``document``."""
        found = {(name, _key(value)) for name, value in flattened(document)}
        self._names.update({name for name, _ in found})
        for name, key in found:
            if key is not None:
                self._values[name][key] += 1

    def describe(self) -> list[Document]:
        """The most frequent fields, each with its most frequent values."""
        return [
            {
                "name": name,
                "count": count,
                "values": [
                    {"value": value, "count": times}
                    for (_, value), times in self._values[name].most_common(MOST_VALUES)
                ],
            }
            for name, count in self._names.most_common(MOST_FIELDS)
        ]


def _key(value: Any) -> _Key | None:
    """What ``value`` is counted by; None for what is not."""
    if isinstance(value, bson.Decimal128):
        # An integer beyond 64 bits. The type itself cannot be counted by.
        return False, value.to_decimal()
    if not isinstance(value, _SCALARS) or (isinstance(value, str) and len(value) > LONGEST_VALUE):
        return None
    # True is 1 to a Python dict, and not to people.
    return isinstance(value, bool), value


def flattened(document: Document) -> Iterator[tuple[str, Any]]:
    """The fields of a record by the names that a query has for them; of an array, each element."""
    for name in ("message", "source"):
        if name in document:
            yield name, document[name]
    data = document.get("data")
    if not isinstance(data, Mapping):
        yield from _flattened("data", data, 0)
        return
    for key, value in data.items():
        # What is called like a field of the record itself is written with data. before it.
        mine = key in THEMSELVES or key.startswith("data.")
        yield from _flattened(f"data.{key}" if mine else key, value, 1)


def _flattened(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if depth == _DEEPEST:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flattened(f"{name}.{key}", inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _flattened(name, inner, depth + 1)
    else:
        yield name, value


class FieldsHandler(SearchHandler):
    """Looks at the fields of a sample."""

    scope = Scope.READ
    keeps_bounds = True

    @operation({200: json_of(ANSWER)}, PARAMETERS)
    async def get(self) -> None:
        """``sampled`` records, the newest, and whether these were all of them; their fields."""
        paging.check_names(self.arguments, PARAMETERS)
        limit = paging.limit(self.arguments, DEFAULT_LIMIT)
        chosen = selection(self.arguments, self.now_ms)
        page = await self.reader.page(chosen, "desc", None, limit, self.deadline)
        fields = Fields()
        for place, document in enumerate(page.documents):
            fields.add(document)
            if place % _SLICE == 0:
                await asyncio.sleep(0)
        answer = {"sampled": len(page.documents), "complete": page.next is None, "fields": fields.describe()}
        self.set_header("Content-Type", "application/json")
        self.finish(jsontext.write(answer))

    head = get
