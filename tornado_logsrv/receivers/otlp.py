"""``POST /v1/logs``: OTLP/HTTP logs, protobuf and JSON, one record for each LogRecord.

Protocol: opentelemetry.io/docs/specs/otlp, "OTLP/HTTP"; messages: opentelemetry-proto, ``logs/v1/logs.proto``. A
record's ``message`` is its body where that is text; else the body as a line, and ``data.body``; else its event name:

    {"source": "otlp", "message": str, "data": {
        "level": "info", "severity_number": 9, "severity_text": "INFO", "time_unix_nano": int,
        "observed_time_unix_nano": int, "attributes": {…}, "dropped_attributes_count": int, "flags": int,
        "trace_id": hex, "span_id": hex, "event_name": str, "body": any,
        "resource": {"attributes": {…}, "dropped_attributes_count": int, "entity_refs": […], "schema_url": str},
        "scope": {"name": str, "version": str, "attributes": {…}, "dropped_attributes_count": int, "schema_url": str}},
     "timestamp": Date}

A member that is empty, zero or not set is left out: protobuf does not tell these apart.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from .. import jsontext
from ..errors import Refused
from ..handler import ReceiverHandler
from ..operations import (
    ANYTHING,
    BOOLEAN,
    COUNT,
    NANOSECONDS,
    NUMBER,
    TEXT,
    array_of,
    joined,
    json_of,
    named,
    object_of,
    open_object,
    operation,
)
from . import protobuf
from .otlp_json import Json
from .otlp_protobuf import Protobuf
from .rows import Bad, Batch, Groups, Row, Rows, members, objects, portions, shared

PROTOBUF_TYPES = ("application/x-protobuf", "application/protobuf")

#: Severity number → level (OTel logs data model, "Severity Fields": four numbers each).
LEVELS = dict(enumerate((n for n in ("trace", "debug", "info", "warn", "error", "fatal") for _ in range(4)), start=1))
#: HTTP status → google.rpc.Code (google/rpc/code.proto says which status each is).
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 409: 10, 413: 8, 415: 3, 429: 8, 503: 14, 504: 4}
_UNKNOWN = 2
#: As many reasons of rejected records an answer tells.
_TOLD = 5
#: google/rpc/status.proto, without its details.
_STATUS: Any = protobuf.declare("otlp", Status="int32 code = 1, string message = 2")["Status"]


class Reader(Protocol):
    """Reads messages of one encoding, each when its turn comes; raises Unreadable or TooLarge.

    A message has its fields as attributes, by the names of the .proto file; those that are messages are not read yet.
    """

    odd: bool
    """Set when an object had a key twice: its data has to go through jsontext.storable."""

    def message(self, name: str, raw: Any) -> Any:
        """The message that ``raw`` encodes: Request, ResourceLogs, Resource, ScopeLogs, InstrumentationScope."""

    def record(self, raw: Any) -> Any:
        """The LogRecord that ``raw`` encodes."""

    def value(self, raw: Any) -> Any:
        """The value of an AnyValue; None for one that is not set."""

    def attributes(self, raws: Any) -> dict[str, Any]:
        """Attributes by their keys."""

    def entities(self, raws: Any) -> Any:
        """The EntityRefs of a resource."""

    def id(self, raw: Any) -> str:
        """A trace id or span id in hex."""


#: So many records are read at once at least: fewer are done sooner one by one.
TOGETHER = 48
#: Fields that become members of data as they are, in their order.
_MEMBERS = (
    "severity_number",
    "severity_text",
    "time_unix_nano",
    "observed_time_unix_nano",
    "attributes",
    "dropped_attributes_count",
    "flags",
    "trace_id",
    "span_id",
    "event_name",
)
#: Members of data that many records have, encoded, and their notes.
Shared = tuple[bytes, jsontext.Notes]


def parse(body: bytes, is_json: bool) -> Iterator[Row | Rows | Bad | None]:
    """The log records of an ExportLogsServiceRequest; None after what holds no record, and takes its time all the same.

    Raises Unreadable, before any of them, when ``body`` is none, and TooLarge, before any or among them.
    """
    reader: Reader = Json() if is_json else Protobuf()
    groups = Groups()
    if is_json:
        jsontext.check_body(body)
    found = groups.of(reader.message("Request", body).resource_logs)
    return (row for raw in found for row in _resource_logs(reader, raw, groups))


def _resource_logs(reader: Reader, raw: Any, groups: Groups) -> Iterator[Row | Rows | Bad | None]:
    try:
        logs = reader.message("ResourceLogs", raw)
        of_resource = _shared(reader, (b"", []), "resource", _resource(reader, logs))
    except Refused as error:
        yield Bad(bytes(raw), f"resource logs: {error}")
        return
    if not logs.scope_logs:
        yield None
    for scope_logs in groups.of(logs.scope_logs):
        yield from _scope_logs(reader, scope_logs, of_resource)


def _scope_logs(reader: Reader, raw: Any, of_resource: Shared) -> Iterator[Row | Rows | Bad | None]:
    try:
        logs = reader.message("ScopeLogs", raw)
        of_scope, notes = _shared(reader, of_resource, "scope", _scope(reader, logs))
    except Refused as error:
        yield Bad(bytes(raw), f"scope logs: {error}")
        return
    if not logs.log_records:
        yield None
    records = logs.log_records
    for part in _together(reader, records, of_scope) if isinstance(reader, Protobuf) and not notes else [records]:
        if isinstance(part, Rows):
            yield part
            continue
        for record in part:
            try:
                yield _row(reader, record, of_scope, notes)
            except Refused as error:
                yield Bad(bytes(record), str(error))


def _shared(reader: Reader, outer: Shared, name: str, value: dict[str, Any]) -> Shared:
    """What all records of a resource or scope have: that of ``outer``, and ``value`` unless it is empty."""
    odd, reader.odd = reader.odd, False
    if not value:
        return outer
    encoded, notes = shared(name, value, plain=not odd)
    return outer[0] + encoded, outer[1] + notes


def _resource(reader: Reader, logs: Any) -> dict[str, Any]:
    resource = reader.message("Resource", logs.resource)
    return _filled(
        attributes=reader.attributes(resource.attributes),
        dropped_attributes_count=resource.dropped_attributes_count,
        entity_refs=[_entity(ref) for ref in reader.entities(resource.entity_refs)],
        schema_url=logs.schema_url,
    )


def _entity(ref: Any) -> dict[str, Any]:
    id_keys, description_keys = list(members(ref.id_keys)), list(members(ref.description_keys))
    return _filled(type=ref.type, id_keys=id_keys, description_keys=description_keys, schema_url=ref.schema_url)


def _scope(reader: Reader, logs: Any) -> dict[str, Any]:
    scope = reader.message("InstrumentationScope", logs.scope)
    return _filled(
        name=scope.name,
        version=scope.version,
        attributes=reader.attributes(scope.attributes),
        dropped_attributes_count=scope.dropped_attributes_count,
        schema_url=logs.schema_url,
    )


def _filled(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value}


def _row(reader: Reader, raw: Any, members: bytes, notes: jsontext.Notes) -> Row:
    record = reader.record(raw)
    number, severity, body = record.severity_number, record.severity_text, reader.value(record.body)
    # A loop over the names would cost as much as reading the record.
    data: dict[str, Any] = {}
    if level := LEVELS.get(number) or severity.lower():
        data["level"] = level
    if number:
        data["severity_number"] = number
    if severity:
        data["severity_text"] = severity
    if time := record.time_unix_nano:
        data["time_unix_nano"] = time
    if observed := record.observed_time_unix_nano:
        data["observed_time_unix_nano"] = observed
    if record.attributes:
        data["attributes"] = reader.attributes(record.attributes)
    if dropped := record.dropped_attributes_count:
        data["dropped_attributes_count"] = dropped
    if flags := record.flags:
        data["flags"] = flags
    if trace_id := record.trace_id:
        data["trace_id"] = reader.id(trace_id)
    if span_id := record.span_id:
        data["span_id"] = reader.id(span_id)
    if event_name := record.event_name:
        data["event_name"] = event_name
    message = _message(data, body, event_name)
    notes = notes.copy()
    if reader.odd:
        reader.odd = False
        data, more = jsontext.storable(data)
        notes += more
    # "Use Timestamp if it is present, otherwise use ObservedTimestamp" (OTel logs data model).
    return Row(message, data, notes, time or observed or None, raw, members)


def _together(reader: Protobuf, raws: Sequence[bytes], members: bytes) -> Iterator[Rows | Sequence[bytes]]:
    """The LogRecords ``raws`` in columns, but for those that have to be looked at one by one."""
    for part in portions(raws):
        yield (len(part) >= TOGETHER and _rows(reader, part, members)) or part


def _rows(reader: Protobuf, raws: Sequence[bytes], members: bytes) -> Rows | None:
    """What _row makes of each of ``raws``; None when one of them has to be looked at by itself."""
    try:
        found = reader.columns(raws)
    except Refused:
        found = None
    if found is None:
        reader.odd = False
        return None
    none: Sequence[Any] = [None] * len(raws)
    numbers, severities = found.get("severity_number", none), found.get("severity_text", none)
    levels: Sequence[Any] = list(map(LEVELS.get, numbers))
    if None in levels:
        levels = [level or (text or "").lower() for level, text in zip(levels, severities, strict=True)]
    data = objects(len(raws), {"level": levels} | {name: found[name] for name in _MEMBERS if name in found})
    times = found.get("time_unix_nano", none)
    if not all(times):
        observed = found.get("observed_time_unix_nano", none)
        times = [time or other or None for time, other in zip(times, observed, strict=True)]
    bodies = found.get("body", none)
    if "event_name" not in found and all(bodies) and {*map(type, bodies)} == {str}:
        return Rows(bodies, data, times, raws, members)
    names = [name or "" for name in found.get("event_name", none)]
    return Rows(list(map(_message, data, bodies, names)), data, times, raws, members)


def _message(data: dict[str, Any], body: Any, event_name: str) -> str:
    """The line of a record; a body that it does not say all of goes to ``data``."""
    if type(body) is str and body and body != event_name:
        return body
    if body is None:
        return event_name
    data["body"] = body
    return _line(body)


def _line(body: Any) -> str:
    """A body that is not text as one line: JSON text, bytes in base64 and without quotes."""
    line = jsontext.write(jsontext.storable(body)[0]).decode()
    return line.strip('"') if isinstance(body, (bytes, str)) else line


STATUS = named("OtlpStatus", object_of(code=COUNT, message=TEXT))
#: Of ExportLogsServiceRequest what most send.
_VALUE = open_object({"stringValue": TEXT, "boolValue": BOOLEAN, "doubleValue": NUMBER})
_RECORD = open_object({"timeUnixNano": NANOSECONDS, "severityNumber": COUNT, "severityText": TEXT, "body": _VALUE})
REQUEST = named(
    "OtlpLogs",
    open_object(resourceLogs=array_of(open_object(scopeLogs=array_of(open_object(logRecords=array_of(_RECORD)))))),
)
RESPONSE = named("OtlpResponse", object_of({"partialSuccess": object_of(rejectedLogRecords=TEXT, errorMessage=TEXT)}))


class OtlpHandler(ReceiverHandler):
    """Takes log records from OpenTelemetry SDKs and Collectors."""

    source = "otlp"
    media_types = (*PROTOBUF_TYPES, "application/json")
    bodies = json_of(REQUEST)
    problem_content = joined(json_of(STATUS), {PROTOBUF_TYPES[0]: ANYTHING})

    @operation({200: {**json_of(RESPONSE), PROTOBUF_TYPES[0]: ANYTHING}})
    async def post(self) -> None:
        """200 with an ExportLogsServiceResponse; its partial_success tells how many records are in quarantine."""
        batch = Batch(self)
        await batch.encode(parse(self.body, not self._is_protobuf))
        receipt = await self.accept(batch.records)
        self.refuse(len(batch.lost))
        # With ack=stored the receipt has the reasons of all in quarantine, those that parse has found among them.
        reasons = max(batch.reasons, list(receipt.quarantined), key=len)
        self._answer(*_response(reasons))

    @property
    def _is_protobuf(self) -> bool:
        return self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower() in PROTOBUF_TYPES

    def _answer(self, message: Any, as_json: dict[str, Any]) -> None:
        """An answer has the media type of its request (OTLP/HTTP Response)."""
        if self._is_protobuf:
            self.set_header("Content-Type", PROTOBUF_TYPES[0])
            self.finish(message.SerializeToString())
        else:
            self.set_header("Content-Type", "application/json")
            self.finish(msgspec.json.encode(as_json))

    def write_problem(self, problem: dict[str, Any], error: BaseException | None) -> None:
        """Answer a google.rpc.Status (OTLP/HTTP Failures). Clients send again after 429, 502, 503 and 504 alone."""
        self.set_status(problem["status"])
        code, message = _CODES.get(problem["status"], _UNKNOWN), problem.get("detail") or problem["title"]
        self._answer(_STATUS(code=code, message=message), {"code": code, "message": message})


def _response(reasons: list[str]) -> tuple[Any, dict[str, Any]]:
    """An ExportLogsServiceResponse as protobuf and as JSON, where int64 is text; empty when nothing was rejected."""
    response = ExportLogsServiceResponse()
    if not reasons:
        return response, {}
    more = f"; and {len(reasons) - _TOLD} more" if len(reasons) > _TOLD else ""
    told = "; ".join(reasons[:_TOLD]) + more
    response.partial_success.rejected_log_records = len(reasons)
    response.partial_success.error_message = told
    return response, {"partialSuccess": {"rejectedLogRecords": str(len(reasons)), "errorMessage": told}}


ROUTES = [("/v1/logs", OtlpHandler)]
