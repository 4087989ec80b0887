"""OTLP messages in JSON (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding"; protobuf.dev, "ProtoJSON").

Names are in lowerCamelCase, ids in hex, enums numbers (names are read too), 64-bit integers text or numbers, bytes
base64; null is as if not there, and members that are not known are read past. What JSON allows in a text and UTF-8
does not, and bytes that are no UTF-8, stay as jsontext has them until the record is encoded.
"""

import base64
import math
import re
from collections.abc import Sequence
from typing import Any, Generic

import msgspec
from msgspec import Raw
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber

from .. import jsontext
from ..errors import Unreadable
from . import items
from .items import Item, Message
from .rows import members

#: Levels of arrays and objects in one value at the most; protobuf's own limit is about that.
MAX_LEVELS = 50

_HEX = re.compile(r"[0-9a-fA-F]*")
_LONGEST = 20
_DIGITS = re.compile(rf"-?[0-9]{{1,{_LONGEST}}}")
_UINT32, _UINT64 = range(1 << 32), range(1 << 64)
_INT32, _INT64 = range(-(1 << 31), 1 << 31), range(-(1 << 63), 1 << 63)

_Integer = int | float | str | None
_Text = str | None


class _Value(msgspec.Struct, rename="camel", gc=False):
    string_value: _Text = None
    int_value: _Integer = None
    bool_value: bool | None = None
    double_value: float | str | None = None
    array_value: "_Array | None" = None
    kvlist_value: "_Object | None" = None
    bytes_value: _Text = None


class _Array(msgspec.Struct):
    values: list[_Value | None] | None = None


class _Pair(msgspec.Struct, gc=False):
    key: _Text = None
    value: _Value | None = None


class _Object(msgspec.Struct):
    values: list[_Pair] | None = None


class Request(msgspec.Struct, Generic[Item], rename="camel"):
    """An ExportLogsServiceRequest."""

    resource_logs: list[Item] | None = None
    # Original names are no keys of OTLP/JSON. To read past these alone would be to lose all that was sent.
    by_wrong_name: Item = msgspec.field(default=items.ABSENT, name="resource_logs")

    def __post_init__(self) -> None:
        if items.is_there(self.by_wrong_name):
            raise ValueError("resource_logs is no name of OTLP/JSON: names are in lowerCamelCase")
        self.resource_logs = self.resource_logs or []


class ResourceLogs(msgspec.Struct, Generic[Item], rename="camel"):
    """Logs of one resource."""

    resource: Item = Raw(b"{}")  # type: ignore[assignment]  # what an item is when it is not there
    scope_logs: list[Item] | None = None
    schema_url: _Text = None

    def __post_init__(self) -> None:
        self.scope_logs = self.scope_logs or []


class ScopeLogs(msgspec.Struct, Generic[Item], rename="camel"):
    """Logs of one scope."""

    scope: Item = Raw(b"{}")  # type: ignore[assignment]
    log_records: list[Item] | None = None
    schema_url: _Text = None

    def __post_init__(self) -> None:
        self.log_records = self.log_records or []


class _Entity(msgspec.Struct, rename="camel"):
    schema_url: _Text = None
    type: _Text = None
    id_keys: Sequence[str] | None = ()
    description_keys: Sequence[str] | None = ()

    def __post_init__(self) -> None:
        self.id_keys, self.description_keys = self.id_keys or (), self.description_keys or ()


class Resource(msgspec.Struct, rename="camel"):
    """What the logs are of."""

    attributes: list[_Pair] | None = None
    dropped_attributes_count: _Integer = 0
    entity_refs: Sequence[_Entity] | None = ()

    def __post_init__(self) -> None:
        self.dropped_attributes_count = _integer(self.dropped_attributes_count, _UINT32)
        self.entity_refs = self.entity_refs or ()


class InstrumentationScope(msgspec.Struct, rename="camel"):
    """What has logged them."""

    name: _Text = None
    version: _Text = None
    attributes: list[_Pair] | None = None
    dropped_attributes_count: _Integer = 0

    def __post_init__(self) -> None:
        self.dropped_attributes_count = _integer(self.dropped_attributes_count, _UINT32)


class LogRecord(msgspec.Struct, rename="camel", gc=False):
    """One log record."""

    time_unix_nano: _Integer = 0
    observed_time_unix_nano: _Integer = 0
    severity_number: _Integer = 0
    severity_text: _Text = ""
    body: _Value | None = None
    attributes: list[_Pair] | None = None
    dropped_attributes_count: _Integer = 0
    flags: _Integer = 0
    trace_id: _Text = ""
    span_id: _Text = ""
    event_name: _Text = ""

    def __post_init__(self) -> None:
        # Of most records, most of these are not there, and need not be looked at.
        if self.time_unix_nano != 0:
            self.time_unix_nano = _integer(self.time_unix_nano, _UINT64)
        if self.observed_time_unix_nano != 0:
            self.observed_time_unix_nano = _integer(self.observed_time_unix_nano, _UINT64)
        if self.severity_number != 0:
            self.severity_number = _severity(self.severity_number)
        if self.dropped_attributes_count != 0:
            self.dropped_attributes_count = _integer(self.dropped_attributes_count, _UINT32)
        if self.flags != 0:
            self.flags = _integer(self.flags, _UINT32)
        self.severity_text, self.event_name = self.severity_text or "", self.event_name or ""


def _integer(value: _Integer, allowed: range) -> int:
    if value is None:
        return 0
    if type(value) is str:
        # Most are digits alone; the pattern takes three times as long.
        if (value.isascii() and value.isdecimal() and len(value) <= _LONGEST) or _DIGITS.fullmatch(value):
            value = int(value)
    elif type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or value not in allowed:
        raise ValueError(f"{str(value)[:40]!r} is not a whole number from {allowed[0]} to {allowed[-1]}")
    return value


def _severity(value: _Integer) -> int:
    if type(value) is str and value.startswith("SEVERITY_NUMBER_"):
        return SeverityNumber.Value(value)
    return _integer(value, _INT32)


_MESSAGES = {
    "Request": Message(Request),
    "ResourceLogs": Message(ResourceLogs),
    "ScopeLogs": Message(ScopeLogs),
    "Resource": Message(Resource),
    "InstrumentationScope": Message(InstrumentationScope),
}
_LOG_RECORD = Message(LogRecord)


class Json:
    """An otlp.Reader of JSON."""

    def __init__(self) -> None:
        self.odd = False

    def message(self, name: str, raw: Any) -> Any:
        """The message that ``raw`` encodes. Raises Unreadable and TooLarge."""
        return _MESSAGES[name].read(raw)

    def record(self, raw: Any) -> Any:
        """The LogRecord that ``raw`` encodes. Raises Unreadable and TooLarge."""
        return _LOG_RECORD.read(raw)

    def value(self, value: _Value | None, level: int = 0) -> Any:
        """What ``value`` holds. Raises Unreadable and TooLarge."""
        if value is None:
            return None
        if value.string_value is not None:
            return value.string_value
        if value.array_value is not None:
            return [self.value(each, level + 1) for each in _members(value.array_value.values, level)]
        if value.kvlist_value is not None:
            return self.attributes(value.kvlist_value.values, level + 1)
        return _scalar(value)

    def attributes(self, pairs: list[_Pair] | None, level: int = 0) -> dict[str, Any]:
        """``pairs`` as an object. Raises Unreadable and TooLarge."""
        read = [(pair.key or "", self.value(pair.value, level)) for pair in _members(pairs, level)]
        found = dict(read)
        if len(found) < len(read):
            self.odd = True
            return jsontext.from_pairs(read)
        return found

    def entities(self, refs: Sequence[_Entity]) -> Any:
        """The EntityRefs ``refs``. Raises TooLarge."""
        return members(refs)

    def id(self, raw: str) -> str:
        """``raw`` in lower case where it is hex, and as it is where some sender has put something else."""
        return raw.lower() if _HEX.fullmatch(raw) else raw


def _members(found: list[Any] | None, level: int) -> Any:
    if level > MAX_LEVELS:
        raise Unreadable(f"a value of more than {MAX_LEVELS} levels")
    return members(found or [])


def _scalar(value: _Value) -> Any:
    try:
        if value.int_value is not None:
            return _integer(value.int_value, _INT64)
        if value.bool_value is not None:
            return value.bool_value
        if value.double_value is not None:
            return _double(value.double_value)
        return None if value.bytes_value is None else _bytes(value.bytes_value)
    except ValueError as error:
        raise Unreadable(str(error)) from None


def _double(value: float | str) -> float:
    number = float(value)
    if math.isinf(number) and isinstance(value, str) and value not in ("Infinity", "-Infinity"):
        raise ValueError(f"{value[:40]!r} is beyond a double")
    return number


def _bytes(text: str) -> bytes:
    """Base64, with the standard or the URL-safe alphabet, padded or not (ProtoJSON)."""
    standard = text.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
