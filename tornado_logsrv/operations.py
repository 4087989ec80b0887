"""What handlers declare of themselves, for ``/openapi.json``: parameters, bodies and answers, as JSON Schemas.

What a method does is said by its docstring, what it needs by ``scope``, what it may refuse by ``refusals``.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

Schema = Mapping[str, Any]
#: Schemas by the media types in which a body may come.
Content = Mapping[str, Schema]
Function = TypeVar("Function", bound=Callable[..., Any])

NOTHING: Mapping[str, Schema] = MappingProxyType({})
ANYTHING: Schema = {}
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
MOMENT: Schema = {"type": "string", "format": "date-time"}
NANOSECONDS: Schema = {"type": "string", "pattern": "^[0-9]{1,19}$"}
OBJECT_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{24}$"}


@dataclasses.dataclass(frozen=True)
class Operation:
    """What a method of a handler says of itself: the content of its answers by status, and its query parameters."""

    answers: Mapping[int, Content]
    query: Mapping[str, Schema]


def operation(answers: Mapping[int, Content], query: Mapping[str, Schema] = NOTHING) -> Callable[[Function], Function]:
    """Declare that a method answers so, if it refuses nothing, and reads these parameters."""

    def declare(method: Function) -> Function:
        method.operation = Operation(answers, query)  # type: ignore[attr-defined]
        return method

    return declare


def of(method: Callable[..., Any]) -> Operation | None:
    """What ``method`` has declared."""
    found: Operation | None = getattr(method, "operation", None)
    return found


def json_of(schema: Schema) -> Content:
    """A body of JSON."""
    return {"application/json": schema}


def joined(*parts: Mapping[str, Schema]) -> Mapping[str, Schema]:
    """All of these."""
    return MappingProxyType({name: schema for part in parts for name, schema in part.items()})


def one_of(*values: str) -> Schema:
    """One of a few texts."""
    return {"type": "string", "enum": [*values]}


def whole(low: int, high: int, default: int) -> Schema:
    """A whole number within bounds."""
    return {"type": "integer", "minimum": low, "maximum": high, "default": default}


def array_of(items: Schema) -> Schema:
    """An array of ``items``."""
    return {"type": "array", "items": items}


def table_of(values: Schema) -> Schema:
    """An object with any names, and values like these."""
    return {"type": "object", "additionalProperties": values}


def object_of(optional: Mapping[str, Schema] = NOTHING, /, **required: Schema) -> Schema:
    """An object with these members and no others."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": [*required],
        "additionalProperties": False,
    }


def open_object(optional: Mapping[str, Schema] = NOTHING, /, **required: Schema) -> Schema:
    """An object with these members, and any others."""
    return {"type": "object", "properties": {**required, **optional}, "required": [*required]}


def named(title: str, schema: Schema) -> Schema:
    """A schema that the document has once, under a name."""
    return {"title": title, **schema}


#: A record as it is stored, or of it what ``fields`` asked for. Collections may hold documents of others.
RECORD = named(
    "Record",
    open_object(dict.fromkeys(("message", "tenant", "source", "data", "notes", "timestamp"), ANYTHING), _id=ANYTHING),
)
