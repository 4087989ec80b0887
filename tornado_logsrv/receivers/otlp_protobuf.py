"""OTLP messages in protobuf: opentelemetry-proto's, but for those around the records, which are declared here.

There, what repeats is bytes and read one by one: what is broken breaks nothing else, and an attribute that stands in
every record is read once. Many records are read at once, field by field, where they have attributes of the same keys in
the same order: of what reading one by one takes, most is Python's objects for its messages.
"""

from collections.abc import Sequence
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from .. import jsontext
from ..errors import TooLarge, Unreadable
from . import protobuf
from .pairs import Pairs
from .rows import members

#: Attributes that are kept as they were read, and how long each may be.
KEPT_ATTRIBUTES = 4096
KEPT_BYTES = 256
#: The tag of AnyValue.string_value; and the length from which a length takes more than a byte.
_TEXT_TAG = 0x0A
_SHORT = 130

# severity_number is an enum that may have other numbers: on the wire it is an int32.
_RECORD_FIELDS = (
    "fixed64 time_unix_nano = 1, int32 severity_number = 2, string severity_text = 3, bytes body = 5,"
    "repeated bytes attributes = 6, uint32 dropped_attributes_count = 7, fixed32 flags = 8, bytes trace_id = 9,"
    "bytes span_id = 10, fixed64 observed_time_unix_nano = 11, string event_name = 12"
)
_MESSAGES = protobuf.declare(
    "otlp",
    Request="repeated bytes resource_logs = 1",
    ResourceLogs="bytes resource = 1, repeated bytes scope_logs = 2, string schema_url = 3",
    Resource="repeated bytes attributes = 1, uint32 dropped_attributes_count = 2, repeated bytes entity_refs = 3",
    EntityRef="string schema_url = 1, string type = 2,"
    "repeated string id_keys = 3, repeated string description_keys = 4",
    ScopeLogs="bytes scope = 1, repeated bytes log_records = 2, string schema_url = 3",
    InstrumentationScope="string name = 1, string version = 2, repeated bytes attributes = 3,"
    "uint32 dropped_attributes_count = 4",
    LogRecord=_RECORD_FIELDS,
)
_LOG_RECORD = _MESSAGES["LogRecord"]
_ANY_VALUE = (
    "string string_value = 1, uint64 bool_value = 2, int64 int_value = 3, double double_value = 4,"
    "bytes array_value = 5, bytes kvlist_value = 6, bytes bytes_value = 7, int32 string_value_strindex = 8"
)
_ATTRIBUTES = Pairs(
    protobuf.Columns("otlp.attributes", "string key = 1, AnyValue value = 2", AnyValue=_ANY_VALUE),
    plain=("string_value", "int_value", "double_value", "bytes_value"),
)
_LOG_RECORDS = protobuf.Columns("otlp.records", _RECORD_FIELDS)
#: With the body opened, which most often is a text.
_OPENED_RECORDS = protobuf.Columns(
    "otlp.opened", _RECORD_FIELDS.replace("bytes body", "AnyValue body"), AnyValue=_ANY_VALUE
)
_KINDS = frozenset(field.split()[1] for field in _ANY_VALUE.split(","))
#: What has attributes, which are opened all at once, and an attribute and a value that are not opened.
_WITH_ATTRIBUTES = ("Resource", "InstrumentationScope")
_UNOPENED = protobuf.declare(
    "otlp.unopened", KeyValue="bytes value = 2", AnyValue="bytes array_value = 5, bytes kvlist_value = 6"
)
#: What each value in an array or an object has before it: the tag of ``values = 1``. Ends of lines in texts are such
#: bytes, too, but few texts are in arrays.
_MEMBER_TAG = b"\x0a"

_kept: dict[bytes, tuple[str, Any]] = {}


class Protobuf:
    """An otlp.Reader of protobuf."""

    def __init__(self) -> None:
        self.odd = False

    def message(self, name: str, raw: bytes) -> Any:
        """The message that ``raw`` encodes. Raises Unreadable and TooLarge."""
        message = protobuf.read(_MESSAGES[name], raw)
        if len(raw) > jsontext.SPARSE_BYTES and name in _WITH_ATTRIBUTES:
            _check_values((), message.attributes)
        return message

    def record(self, raw: bytes) -> Any:
        """The LogRecord that ``raw`` encodes. Raises Unreadable and TooLarge."""
        record = protobuf.read(_LOG_RECORD, raw)
        if len(raw) > jsontext.SPARSE_BYTES:
            _check_values((record.body,), record.attributes)
        return record

    def columns(self, raws: Sequence[bytes]) -> dict[str, Sequence[Any]] | None:
        """What the LogRecords ``raws`` have, by the names of fields; None when they are to be read one by one.

        Body, attributes and ids are read. Where a record has not what another has, it is None or empty. Raises
        Unreadable and TooLarge.
        """
        found: dict[str, Any] = _OPENED_RECORDS.read(raws) or {}
        kinds = _KINDS.intersection(found)
        if kinds == {"string_value"}:
            found["body"] = found.pop("string_value")
        elif kinds and (found := _LOG_RECORDS.read(raws) or {}):
            found["body"] = [None if raw is None else self.value(raw) for raw in found["body"]]
        for name, read in (("attributes", self._objects), ("trace_id", _ids), ("span_id", _ids)):
            if name in found:
                found[name] = read(found[name])
        return None if self.odd else found or None

    def value(self, raw: bytes) -> Any:
        """The value of an AnyValue. Raises Unreadable and TooLarge."""
        # Most are a short text and nothing else: tag and length in a byte each, as AnyValue would read them.
        if 2 <= len(raw) < _SHORT and raw[0] == _TEXT_TAG and raw[1] == len(raw) - 2:
            try:
                return raw[2:].decode()
            except UnicodeDecodeError as error:
                raise Unreadable(f"not UTF-8: {error}") from None
        return self._value(protobuf.read(AnyValue, raw)) if raw else None

    def attributes(self, raws: Sequence[bytes]) -> dict[str, Any]:
        """The KeyValues ``raws`` as an object. Raises Unreadable and TooLarge."""
        return self._object([self._known(raw) for raw in members(raws)])

    def entities(self, raws: Sequence[bytes]) -> Any:
        """The EntityRefs that ``raws`` encode. Raises Unreadable and TooLarge."""
        return [protobuf.read(_MESSAGES["EntityRef"], raw) for raw in members(raws)]

    def id(self, raw: bytes) -> str:
        """``raw`` in hex."""
        return raw.hex()

    def _objects(self, lists: Sequence[list[bytes]]) -> list[dict[str, Any]]:
        """The attributes of each record."""
        return _ATTRIBUTES.objects(lists, self._known) or [self.attributes(raws) for raws in lists]

    def _known(self, raw: bytes) -> tuple[str, Any]:
        return _kept.get(raw) or self._pair(raw)

    def _pair(self, raw: bytes) -> tuple[str, Any]:
        read = protobuf.read(KeyValue, raw)
        pair = read.key, self._value(read.value)
        if len(raw) <= KEPT_BYTES and not isinstance(pair[1], (dict, list)):
            if len(_kept) == KEPT_ATTRIBUTES:
                _kept.clear()
            _kept[raw] = pair
        return pair

    def _value(self, value: Any) -> Any:
        kind = value.WhichOneof("value")
        if kind == "string_value":
            return value.string_value
        if kind == "array_value":
            return [self._value(each) for each in members(value.array_value.values)]
        if kind == "kvlist_value":
            pairs = members(value.kvlist_value.values)
            return self._object([(pair.key, self._value(pair.value)) for pair in pairs])
        # An index into the dictionary of a profile has no meaning here; logs must not have one (common.proto).
        return None if kind is None or kind == "string_value_strindex" else getattr(value, kind)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            self.odd = True
            return jsontext.from_pairs(pairs)
        return found


def _ids(raws: Sequence[bytes | None]) -> list[str]:
    return [raw.hex() if raw else "" for raw in raws]


def _check_values(values: Sequence[bytes], attributes: Sequence[bytes]) -> None:
    """Raises TooLarge when the AnyValues ``values``, and those of the KeyValues ``attributes``, may hold too many."""
    count = 0
    for raw in (*values, *(protobuf.read(_UNOPENED["KeyValue"], raw).value for raw in members(attributes))):
        value = protobuf.read(_UNOPENED["AnyValue"], raw)
        count += value.array_value.count(_MEMBER_TAG) + value.kvlist_value.count(_MEMBER_TAG)
        if count > jsontext.MAX_VALUES:
            raise TooLarge(f"more than {jsontext.MAX_VALUES} values, the most that are read in one go")
