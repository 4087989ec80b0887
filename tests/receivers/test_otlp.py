"""OTLP/HTTP logs: what each message becomes, how it is answered, and OpenTelemetry's own exporter as the sender."""

import base64
import gzip
import json
import logging
import math
from pathlib import Path

import bson
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from tornado_logsrv import errors, jsontext, records
from tornado_logsrv.config import Options
from tornado_logsrv.receivers import fields, otlp, rows
from tornado_logsrv.receivers import pairs as pairs_of_a_kind

DATA = Path(__file__).parent.parent / "data"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
TIME = 1_700_000_000_123_456_789


def request(*records: LogRecord) -> ExportLogsServiceRequest:
    made = ExportLogsServiceRequest()
    logs = made.resource_logs.add(schema_url="https://schemas/resource")
    logs.resource.attributes.add(key="service.name").value.string_value = "shop"
    logs.resource.dropped_attributes_count = 2
    scope_logs = logs.scope_logs.add(schema_url="https://schemas/scope")
    scope_logs.scope.name, scope_logs.scope.version = "checkout", "1.2"
    scope_logs.log_records.extend(records)
    return made


def record(body: str = "hello", **fields: object) -> LogRecord:
    return LogRecord(body=AnyValue(string_value=body), **fields)


def read(body: bytes, is_json: bool = False) -> list:
    return [row for row in rows.apart(otlp.parse(body, is_json)) if row is not None]


def plain(row: rows.Row) -> dict:
    """The data of a row without what it shares with others."""
    return {name: value for name, value in row.members.items() if name not in ("resource", "scope")}


def stored(row: rows.Row, name: str) -> dict:
    """What ``row`` shares with others."""
    return bson.decode(row.members[name].raw) if name in row.members else {}


def field(number: int, raw: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    return bytes([number << 3 | 2, *([len(raw)] if len(raw) < 128 else [len(raw) & 127 | 128, len(raw) >> 7])]) + raw


class TestParse:
    def test_every_field_of_a_record_has_its_place(self):
        given = record(
            "hello", time_unix_nano=TIME, observed_time_unix_nano=TIME + 1, severity_number=10, severity_text="Info2",
            dropped_attributes_count=3, flags=1, trace_id=bytes(range(16)), span_id=bytes(range(8)), event_name="e",
        )  # fmt: skip
        given.attributes.add(key="a.b$c").value.int_value = -(1 << 63)
        (row,) = read(request(given).SerializeToString())
        assert (row.message, row.time, row.notes) == ("hello", TIME, [])
        assert bson.decode(bson.encode(row.members)) == {
            "level": "info", "severity_number": 10, "severity_text": "Info2", "time_unix_nano": TIME,
            "observed_time_unix_nano": TIME + 1, "attributes": {"a.b$c": -(1 << 63)}, "dropped_attributes_count": 3,
            "flags": 1, "trace_id": "000102030405060708090a0b0c0d0e0f", "span_id": "0001020304050607",
            "event_name": "e",
            "resource": {
                "attributes": {"service.name": "shop"}, "dropped_attributes_count": 2,
                "schema_url": "https://schemas/resource",
            },
            "scope": {"name": "checkout", "version": "1.2", "schema_url": "https://schemas/scope"},
        }  # fmt: skip

    def test_what_is_not_set_is_left_out(self):
        given = ExportLogsServiceRequest()
        given.resource_logs.add().scope_logs.add().log_records.add()
        assert read(given.SerializeToString()) == [rows.Row("", {}, [], None, b"")]
        assert read(b"") == read(b"{}", True) == []

    @pytest.mark.parametrize(
        ("number", "text", "level"),
        [(1, "", "trace"), (4, "", "trace"), (5, "", "debug"), (9, "x", "info"), (13, "", "warn"), (16, "", "warn"),
         (17, "", "error"), (21, "", "fatal"), (24, "", "fatal"), (0, "NOTICE", "notice"), (25, "Odd", "odd")],
    )  # fmt: skip
    def test_the_level_is_of_the_number_and_else_of_the_text(self, number, text, level):
        given = record()
        given.MergeFromString(bytes([2 << 3, number]))
        given.severity_text = text
        (row,) = read(request(given).SerializeToString())
        assert row.members["level"] == level

    @pytest.mark.parametrize(
        ("body", "message", "kept"),
        [
            (AnyValue(string_value="x" * 500), "x" * 500, None),
            (AnyValue(string_value=""), "", ""),
            (AnyValue(bool_value=False), "false", False),
            (AnyValue(int_value=0), "0", 0),
            (AnyValue(double_value=1.5), "1.5", 1.5),
            (AnyValue(double_value=math.inf), '"Infinity"', math.inf),
            (AnyValue(bytes_value=b"\0\xff"), "AP8=", b"\0\xff"),
        ],
    )
    def test_a_body_that_is_not_text_is_a_line_and_kept(self, body, message, kept):
        (row,) = read(request(LogRecord(body=body)).SerializeToString())
        assert (row.message, row.members.get("body")) == (message, kept)

    def test_a_body_may_be_an_object_and_an_event_may_have_none(self):
        given = LogRecord(event_name="device.crash")
        (row,) = read(request(given).SerializeToString())
        assert (row.message, "body" in row.members) == ("device.crash", False)
        inner = given.body.kvlist_value.values.add(key="a").value.array_value.values
        inner.add().int_value = 1
        inner.add()
        (row,) = read(request(given).SerializeToString())
        assert (row.message, row.members["body"]) == ('{"a":[1,null]}', {"a": [1, None]})

    def test_without_a_time_the_observed_time_is_the_records(self):
        (row,) = read(request(record(observed_time_unix_nano=5_000_000)).SerializeToString())
        assert row.time == 5_000_000

    def test_a_key_that_stands_twice_loses_no_value(self):
        given = record()
        for value in "abc":
            given.attributes.add(key="k").value.string_value = value
        (row,) = read(request(given).SerializeToString())
        assert row.members["attributes"] == {"k": "c", "k#1": "a", "k#2": "b"}
        assert [note["path"] for note in row.notes] == ["/data/attributes/k", "/data/attributes/k"]

    def test_a_broken_record_scope_or_resource_costs_no_other(self):
        good, not_utf8 = field(2, record().SerializeToString()), field(3, b"\xff")
        bad_record, bad_scope = field(2, not_utf8), field(2, field(1, field(1, b"\xff")) + good)
        scope_logs = field(2, good + bad_record + good)
        body = field(1, scope_logs + bad_scope + scope_logs) + field(1, field(1, b"\x0a\x7f") + scope_logs)
        found = read(body)
        assert [type(row).__name__ for row in found] == ["Row", "Bad", "Row", "Bad", "Row", "Bad", "Row", "Bad"]
        assert [row.raw for row in found[1::2]] == [not_utf8, bad_scope[2:], not_utf8, body[-len(scope_logs) - 4 :]]

    def test_a_value_nested_deeper_than_protobuf_reads_is_a_bad_record(self):
        deep = b""
        for _ in range(60):
            deep = field(5, field(1, deep))
        body = field(1, field(2, field(2, record().SerializeToString()) + field(2, field(5, deep))))
        assert [type(row).__name__ for row in read(body)] == ["Row", "Bad"]

    def test_more_members_than_a_document_may_have_are_a_bad_record(self):
        many = record()
        many.attributes.extend([KeyValue()] * 70_000)
        found = read(request(record(), many).SerializeToString())
        assert "65536" in found[1].reason

    @pytest.mark.parametrize("body", [b"\x0a", b"\x0a\x05a", b"not protobuf", b"{}"])
    def test_what_is_not_the_message_is_unreadable(self, body):
        with pytest.raises(errors.Unreadable):
            read(body)


def json_request(*records: str, resource: str = "{}") -> bytes:
    logs = ",".join(records)
    return f'{{"resourceLogs":[{{"resource":{resource},"scopeLogs":[{{"logRecords":[{logs}]}}]}}]}}'.encode()


class TestJson:
    def test_what_the_javascript_sdk_sends(self):
        first, second, third, fourth = read((DATA / "otlp_js_sdk.json").read_bytes(), True)
        assert (first.message, first.time) == ("order placed: 3 \u00d7 Übergröße", TIME)
        assert plain(first) == {
            "level": "info", "severity_number": 9, "severity_text": "INFO", "time_unix_nano": TIME,
            "observed_time_unix_nano": 1_700_000_000_123_999_999,
            "attributes": {
                "order.id": 17, "order.total": 12.5, "paid": True, "tags": ["a", "b"], "a.b$c": "dots and $",
                "nothing": None,
            },
        }  # fmt: skip
        assert stored(first, "resource") == {"attributes": {"service.name": "shop", "process.pid": 42}}
        schema_url = "https://opentelemetry.io/schemas/1.27.0"
        assert stored(first, "scope") == {"name": "checkout", "version": "1.2.0", "schema_url": schema_url}
        body = {"code": "E42", "nested": {"list": [1, 2.5, "x", None]}, "raw": b"\0\xff\1"}
        assert (second.data["body"], second.data["event_name"]) == (body, "payment.failed")
        assert third.message == "cut in the middle of an emoji \ud83d"
        assert (fourth.message, fourth.data["body"]) == ("42", 42)

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ('"timeUnixNano": "17", "flags": "1"', {"time_unix_nano": 17, "flags": 1}),
            ('"timeUnixNano": 17.0, "traceId": "5B8EFFF7"', {"time_unix_nano": 17, "trace_id": "5b8efff7"}),
            ('"timeUnixNano": 1.5e18', {"time_unix_nano": 1_500_000_000_000_000_000}),
            ('"severityNumber": "SEVERITY_NUMBER_WARN2"', {"severity_number": 14, "level": "warn"}),
            ('"severityNumber": "17"', {"severity_number": 17, "level": "error"}),
            ('"severityText": null, "attributes": null, "body": null, "timeUnixNano": null', {}),
            ('"unknown": {"a": [1]}, "spanId": "not hex"', {"span_id": "not hex"}),
            ('"body": {"intValue": "-9223372036854775808"}', {"body": -(1 << 63)}),
            ('"body": {"doubleValue": "NaN"}', {"body": math.nan}),
            ('"body": {"doubleValue": 5}', {"body": 5.0}),
            ('"body": {"bytesValue": "-_8"}', {"body": b"\xfb\xff"}),
            ('"body": {"arrayValue": {}}', {"body": []}),
            ('"body": {"kvlistValue": {"values": null}}', {"body": {}}),
            ('"body": {"stringValue": ""}', {"body": ""}),
            ('"attributes": [{}, {"key": "k", "value": null}]', {"attributes": {"": None, "k": None}}),
        ],
    )
    def test_the_forms_that_protojson_allows(self, fields, expected):
        (row,) = read(json_request("{" + fields + "}"), True)
        assert repr(row.members) == repr(expected) or row.members == expected

    @pytest.mark.parametrize(
        "fields",
        ['"timeUnixNano": "x"', '"timeUnixNano": -1', '"timeUnixNano": 18446744073709551616', '"flags": 4294967296',
         '"timeUnixNano": 1.5', '"severityNumber": "LOUD"', '"severityNumber": "SEVERITY_NUMBER_LOUD"',
         '"attributes": {"a": 1}', '"body": "text"', '"body": {"intValue": 9223372036854775808}',
         '"body": {"bytesValue": "?"}', '"body": {"doubleValue": 1e999}', '"body": {"doubleValue": "x"}',
         '"body": ' + '{"arrayValue": {"values": [' * 60 + "]}}" * 60],
    )  # fmt: skip
    def test_a_broken_record_costs_no_other_and_keeps_its_bytes(self, fields):
        good, bad = '{"body": {"stringValue": "a"}}', "{" + fields + "}"
        found = read(json_request(good, bad, good), True)
        assert [type(row).__name__ for row in found] == ["Row", "Bad", "Row"]
        assert found[1].raw == bad.encode()

    def test_what_json_allows_and_utf8_does_not_is_kept(self):
        body = json_request(
            r'{"body": {"stringValue": "\ud83d"}}',
            '{"body": {"stringValue": "@"}}',
            r'{"body": "\ud83d"}',
            '{"attributes": [{"key": "k", "value": {"doubleValue": NaN}}, {"key": "@"}]}',
        )
        first, second, third, fourth = read(body.replace(b"@", b"\xff"), True)
        assert (first.message, second.message) == ("\ud83d", "\udcff")
        assert third.raw == rb'{"body": "\ud83d"}'
        assert repr(fourth.data["attributes"]) == "{'k': nan, '\\udcff': None}"

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            (b"", "empty"),
            (b"[]", "array"),
            (b'{"resourceLogs": 1}', "resourceLogs"),
            (b'{"resource_logs": []}', "lowerCamelCase"),
            (b"\xff", "not JSON"),
            (b'{"a":' * 100_000, "nested"),
        ],
    )
    def test_what_is_not_the_message_is_unreadable(self, body, told):
        with pytest.raises(errors.Unreadable, match=told):
            read(body, True)


@pytest.mark.parametrize("field", ["entity_refs", "id_keys"])
def test_more_entities_or_keys_of_them_than_one_may_have_are_refused(field):
    many = rows.MAX_MEMBERS + 1
    refs = [{} for _ in range(many)] if field == "entity_refs" else [{"id_keys": [""] * many}]
    logs = {"resource": {"entity_refs": refs}, "scope_logs": [{"log_records": [{}]}]}
    (bad,) = read(ExportLogsServiceRequest(resource_logs=[logs]).SerializeToString())
    assert f"{many} members" in bad.reason


def dense(attributes: int) -> LogRecord:
    """A long record with so many attributes of 65,000 values each."""
    made = record("\n" * jsontext.SPARSE_BYTES)
    for number in range(attributes):
        made.attributes.add(key=str(number)).value.array_value.values.extend([AnyValue()] * 65_000)
    return made


def test_a_record_of_too_many_values_costs_no_neighbour_and_ends_of_lines_are_none():
    first, bad, last = read(request(dense(3), dense(4), record()).SerializeToString())
    assert [len(values) for values in first.data["attributes"].values()] == [65_000] * 3
    assert bad.reason.startswith(f"more than {jsontext.MAX_VALUES} values")
    assert bad.raw == dense(4).SerializeToString()
    assert (first.message, last.message) == ("\n" * jsontext.SPARSE_BYTES, "hello")


@pytest.mark.parametrize("where", ["resource", "scope"])
def test_a_resource_or_scope_of_too_many_values_costs_no_other(where):
    body = ExportLogsServiceRequest()
    for made in (dense(3), dense(4)):
        logs = body.resource_logs.add()
        scope_logs = logs.scope_logs.add(log_records=[record()])
        (logs.resource if where == "resource" else scope_logs.scope).attributes.extend(made.attributes)
    good, bad = read(body.SerializeToString())
    assert len(stored(good, where)["attributes"]["2"]) == 65_000
    assert f"more than {jsontext.MAX_VALUES} values" in bad.reason


def test_a_record_of_too_many_values_in_json_costs_no_neighbour():
    many = b'{"body":{"arrayValue":{"values":[%b]}}}' % b",".join([b'{"intValue":1}'] * jsontext.MAX_VALUES)
    body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"eventName":"a"},%b,{"eventName":"b"}]}]}]}'
    first, bad, last = read(body % many, True)
    assert (first.message, bytes(bad.raw), last.message) == ("a", many, "b")
    assert bad.reason.startswith(f"more than {jsontext.MAX_VALUES} JSON values")


def test_what_holds_no_record_is_a_place_to_give_others_their_turn():
    made = ExportLogsServiceRequest(resource_logs=[{}, {"scope_logs": [{}]}])
    assert list(otlp.parse(made.SerializeToString(), False)) == [None, None]


# Any value, and any text that both protobuf and BSON take for a key.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
scalars = (
    st.builds(lambda v: AnyValue(string_value=v), texts | st.text("xy", min_size=100, max_size=140))
    | st.builds(lambda v: AnyValue(bool_value=v), st.booleans())
    | st.builds(lambda v: AnyValue(int_value=v), st.integers(-(1 << 63), (1 << 63) - 1))
    | st.builds(lambda v: AnyValue(double_value=v), st.floats(allow_nan=False) | st.just(math.nan))
    | st.builds(lambda v: AnyValue(bytes_value=v), st.binary(max_size=8))
    | st.just(AnyValue())
)


def pairs(values):
    return st.lists(st.builds(lambda key, value: KeyValue(key=key, value=value), texts, values), max_size=4)


values = st.recursive(
    scalars,
    lambda inner: (
        st.builds(lambda v: AnyValue(array_value={"values": v}), st.lists(inner, max_size=4))
        | st.builds(lambda v: AnyValue(kvlist_value={"values": v}), pairs(inner))
    ),
    max_leaves=8,
)
uint64, uint32 = st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1)
log_records = st.builds(
    LogRecord, time_unix_nano=uint64, observed_time_unix_nano=uint64, severity_number=st.integers(0, 24),
    severity_text=texts, body=values, attributes=pairs(values), dropped_attributes_count=uint32, flags=uint32,
    trace_id=st.binary(max_size=16), span_id=st.binary(max_size=8), event_name=texts,
)  # fmt: skip


@st.composite
def requests(draw) -> ExportLogsServiceRequest:
    made = ExportLogsServiceRequest()
    for _ in range(draw(st.integers(0, 2))):
        logs = made.resource_logs.add(schema_url=draw(texts))
        logs.resource.attributes.extend(draw(pairs(values)))
        logs.resource.dropped_attributes_count = draw(uint32)
        for kind in draw(st.lists(texts, max_size=2)):
            logs.resource.entity_refs.add(type=kind, id_keys=[kind, "b"], description_keys=["c"], schema_url="s")
        for _ in range(draw(st.integers(0, 2))):
            scope_logs = logs.scope_logs.add(schema_url=draw(texts))
            scope_logs.scope.name, scope_logs.scope.version = draw(texts), draw(texts)
            scope_logs.scope.attributes.extend(draw(pairs(values)))
            scope_logs.scope.dropped_attributes_count = draw(uint32)
            scope_logs.log_records.extend(draw(st.lists(log_records, max_size=3)))
    return made


def value_of(value) -> AnyValue:
    """An AnyValue of what was made of one. An object's repeated keys stand in it as key#n: see once_more."""
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, dict):
        return AnyValue(kvlist_value={"values": pairs_of(value)})
    if isinstance(value, list):
        return AnyValue(array_value={"values": [value_of(each) for each in value]})
    kinds = {str: "string_value", int: "int_value", float: "double_value", bytes: "bytes_value"}
    kind = next((name for type_, name in kinds.items() if isinstance(value, type_)), None)
    return AnyValue(**{kind: value}) if kind else AnyValue()


def pairs_of(value: dict) -> list[KeyValue]:
    return [KeyValue(key=key, value=value_of(each)) for key, each in value.items()]


def once(message: Message) -> Message:
    """``message`` with each key once: the law is for these, and what becomes of the others has a test of its own."""
    for _, field in message.ListFields():
        for each in field if hasattr(field, "__len__") and not isinstance(field, (str, bytes)) else [field]:
            if isinstance(each, Message):
                once(each)
    for name in ("attributes", "values"):
        found = getattr(message, name, ())
        if found and hasattr(found[0], "key"):
            kept = list({each.key: each for each in found}.values())
            del found[:]
            found.extend(kept)
    return message


def record_of(row: rows.Row) -> LogRecord:
    """The LogRecord that ``row`` was made of, from what is stored alone."""
    data = {name: value for name, value in row.members.items() if name not in ("level", "resource", "scope")}
    body = data.pop("body", None if row.message == data.get("event_name", "") else row.message)
    attributes = pairs_of(data.pop("attributes", {}))
    ids = {name: bytes.fromhex(data.pop(name, "")) for name in ("trace_id", "span_id")}
    return LogRecord(body=None if body is None else value_of(body), attributes=attributes, **ids, **data)


def encoded(given: LogRecord) -> bytes:
    if given.body.WhichOneof("value") is None:
        given.ClearField("body")
    return given.SerializeToString(deterministic=True)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests())
def test_parsing_loses_nothing_of_what_protobuf_encodes(given):
    found = iter(read(once(given).SerializeToString()))
    for logs in given.resource_logs:
        for scope_logs in logs.scope_logs:
            for each in scope_logs.log_records:
                row = next(found)
                assert row.notes == []
                assert encoded(record_of(row)) == encoded(each)
                shared_as_sent(row, logs, scope_logs)
    assert next(found, None) is None


def shared_as_sent(row, logs, scope_logs):
    resource, scope = stored(row, "resource"), stored(row, "scope")
    for kept, sent in ((resource, logs.resource), (scope, scope_logs.scope)):
        assert repr(pairs_of(kept.get("attributes", {}))) == repr(list(sent.attributes))
        assert kept.get("dropped_attributes_count", 0) == sent.dropped_attributes_count
    assert (resource.get("schema_url", ""), scope.get("schema_url", "")) == (logs.schema_url, scope_logs.schema_url)
    assert (scope.get("name", ""), scope.get("version", "")) == (scope_logs.scope.name, scope_logs.scope.version)
    refs = [json_format.MessageToDict(ref, preserving_proto_field_name=True) for ref in logs.resource.entity_refs]
    assert resource.get("entity_refs", []) == refs


def protojson(request: ExportLogsServiceRequest) -> bytes:
    """As OTLP/JSON has it: ProtoJSON, but for enums that are numbers and ids that are hex."""
    value = json_format.MessageToDict(request, use_integers_for_enums=True)
    for logs in value.get("resourceLogs", []):
        for scope_logs in logs.get("scopeLogs", []):
            for each in scope_logs.get("logRecords", []):
                each.update(
                    (name, base64.b64decode(each[name]).hex()) for name in ("traceId", "spanId") if name in each
                )
    return json.dumps(value).encode()


def told(row: rows.Row) -> str:
    return repr((row.message, {name: getattr(value, "raw", value) for name, value in row.members.items()}, row.time))


some_values = st.builds(lambda text: AnyValue(string_value=text), st.text(max_size=3)) | st.sampled_from(
    [AnyValue(int_value=0), AnyValue(int_value=-7), AnyValue(bool_value=True), AnyValue(double_value=0.5), AnyValue(),
     AnyValue(bytes_value=b"\xff"), AnyValue(array_value={"values": [AnyValue(int_value=1)]}),
     AnyValue(kvlist_value={"values": [KeyValue(key=key) for key in "aba"]}), AnyValue(string_value_strindex=1)]
)  # fmt: skip
some_attributes = st.lists(st.builds(KeyValue, key=st.sampled_from(["a", "b", ""]), value=some_values), max_size=3)
some_records = st.builds(
    LogRecord,
    time_unix_nano=st.sampled_from([0, TIME]),
    observed_time_unix_nano=st.sampled_from([0, TIME + 1]),
    severity_number=st.sampled_from([0, 9, 24]),
    severity_text=st.sampled_from(["", "Info"]),
    body=st.none() | some_values,
    attributes=some_attributes,
    flags=st.sampled_from([0, 1]),
    trace_id=st.sampled_from([b"", bytes(range(16))]),
    event_name=st.sampled_from(["", "", "e"]),
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    some_records,
    st.lists(some_records, max_size=4),
    st.integers(1, 4),
    st.sampled_from([b"", b"\x0a", b"\x2a\x01\xff"]),
)
def test_records_together_become_what_each_does_by_itself(given, others, times, broken):
    body = request(*[given] * times, *others)
    raw = body.SerializeToString()
    if broken:
        scope_logs = field(2, b"".join(field(2, each.SerializeToString()) for each in others) + field(2, broken))
        raw += field(1, scope_logs)
    assert_the_same_together_and_apart(raw)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.builds(
            lambda text, one, other, body: record(
                body,
                time_unix_nano=TIME,
                severity_text=text,
                attributes=[{"key": "a", "value": one}, {"key": "b"}, other],
            ),
            st.sampled_from(["INFO", "Warn"]),
            some_values,
            st.builds(lambda value: KeyValue(key="c", value=value), some_values),
            st.text(max_size=3),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_records_of_the_same_keys_become_together_what_each_does_by_itself(given):
    assert_the_same_together_and_apart(request(*given).SerializeToString())


def assert_the_same_together_and_apart(raw: bytes) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(otlp, "TOGETHER", 1 << 30)
        apart = read(raw)
        patched.setattr(otlp, "TOGETHER", 1)
        together = read(raw)
        # As if no attribute stood twice.
        patched.setattr(pairs_of_a_kind, "_SAMPLE", -1)
        different = read(raw)
    # NaN and the order of members are looked at, too.
    assert list(map(repr, together)) == list(map(repr, apart)) == list(map(repr, different))


@st.composite
def encoded_attributes(draw) -> bytes:
    """A KeyValue, most often of the key a: whole or damaged, its members in any order and number."""
    key = draw(st.sampled_from([b"a", b"a", b"a", b"ab", b"", b"\xff"]))
    parts = [field(1, key)] + [field(2, draw(some_values).SerializeToString()) for _ in range(draw(st.integers(0, 2)))]
    if draw(st.booleans()):
        parts = draw(st.permutations(parts)) + [field(1, b"b")] * draw(st.integers(0, 1))
    raw = b"".join(parts)
    return raw[: len(raw) - draw(st.sampled_from([0, 0, 0, 0, 1, 2, 9]))]


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(encoded_attributes(), min_size=1, max_size=4))
def test_attributes_of_one_key_are_together_what_each_is_by_itself(raws):
    assert_the_same_together_and_apart(
        field(1, field(2, b"".join(field(2, field(5, field(1, b"x")) + field(6, raw)) for raw in raws)))
    )


def test_usual_records_are_read_in_columns():
    given = [record("hello", time_unix_nano=TIME + n, severity_number=9) for n in range(otlp.TOGETHER)]
    for n, each in enumerate(given):
        each.attributes.add(key="order").value.int_value = n
        each.attributes.add(key="shop").value.string_value = "x"
    found = list(otlp.parse(request(*given).SerializeToString(), False))
    assert [(type(each), len(each.raws)) for each in found] == [(rows.Rows, len(given))]


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests())
def test_json_and_protobuf_become_the_same(given):
    from_json, from_protobuf = read(protojson(once(given)), True), read(given.SerializeToString())
    assert list(map(told, from_json)) == list(map(told, from_protobuf))


@st.composite
def damaged(draw, bodies) -> bytes:
    """Bytes of which some are changed, cut out or put in."""
    body = bytearray(draw(bodies))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=64) | damaged(st.builds(lambda made: made.SerializeToString(), requests())), st.booleans())
def test_no_bytes_are_more_than_unreadable(body, is_json):
    parsed_or_refused(body, is_json)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged(st.builds(protojson, requests()) | st.just((DATA / "otlp_js_sdk.json").read_bytes())))
def test_no_text_is_more_than_unreadable(body):
    parsed_or_refused(body, True)


def parsed_or_refused(body: bytes, is_json: bool) -> None:
    try:
        found = read(body, is_json)
    except errors.Refused:
        return
    for row in found:
        if isinstance(row, rows.Row):
            head = {"source": "otlp", "message": row.message}
            records.encode(head, row.members, row.notes, bytes(12), rows.own_time(row.time or 0, 0, row.notes))


# Over HTTP.


@pytest.fixture(autouse=True)
def _routes(request: pytest.FixtureRequest) -> None:
    if "app" in request.fixturenames:
        request.getfixturevalue("app").add_handlers(".*", otlp.ROUTES)


def sent(*bodies: str) -> bytes:
    return request(*(record(body, time_unix_nano=TIME) for body in bodies)).SerializeToString()


def with_bad(good: bytes) -> bytes:
    """``good`` and one more scope with one record, whose severity text is not UTF-8."""
    return good + bytes([0x0A, 7, 0x12, 5, 0x12, 3, 0x1A, 1, 0xFF])


@pytest.mark.gen_test
async def test_a_request_is_stored_and_answered_with_an_empty_message_of_its_type(fetch, app, collection):
    response = await fetch("/v1/logs?ack=stored", sent("a", "b"), headers=PROTOBUF)
    assert (response.code, response.headers["Content-Type"], response.body) == (200, "application/x-protobuf", b"")
    first = collection.find_one({"message": "a"})
    assert list(first) == ["_id", "source", "message", "data", "timestamp"]
    assert (first["source"], first["data"]["time_unix_nano"]) == ("otlp", TIME)
    assert first["timestamp"].timestamp() == 1_700_000_000.123
    body = (DATA / "otlp_js_sdk.json").read_bytes()
    response = await fetch("/v1/logs?ack=stored", body)
    assert (response.code, response.headers["Content-Type"], response.body) == (200, "application/json", b"{}")
    cut = collection.find_one({"data.level": "warn"})
    assert (cut["message"], cut["data"]["attributes"]) == ("cut in the middle of an emoji \\ud83d", {"cut": "\\ud83d"})
    assert [note["path"] for note in cut["notes"]] == ["/message", "/data/attributes/cut"]
    assert app.ledger.row("otlp") == {"received": 6, "stored": 6, "quarantined": 0, "refused": 0, "queued": 0}


@pytest.mark.parametrize("ack", ["memory", "journal", "stored"])
@pytest.mark.gen_test
async def test_a_bad_record_is_in_quarantine_and_told_of(fetch, app, collection, database, ack):
    response = await fetch(f"/v1/logs?ack={ack}", with_bad(sent("a")), headers=PROTOBUF)
    answer = ExportLogsServiceResponse.FromString(response.body)
    assert (response.code, answer.partial_success.rejected_log_records) == (200, 1)
    assert "LogRecord" in answer.partial_success.error_message
    await app.writer.flush()
    kept = database["logs_quarantine"].find_one()
    assert (kept["original"], kept["source"], kept["code"]) == (b"\x1a\1\xff", "otlp", "unreadable")
    assert [document["message"] for document in collection.find()] == ["a"]
    assert app.ledger.row("otlp")["quarantined"] == 1
    response = await fetch("/v1/logs", json_request('{"flags": "x"}', "{}"))
    partial = json.loads(response.body)["partialSuccess"]
    assert (partial["rejectedLogRecords"], "whole number" in partial["errorMessage"]) == ("1", True)


@pytest.mark.parametrize("ack", ["memory", "journal", "stored"])
@pytest.mark.gen_test
async def test_a_request_without_records_is_taken(fetch, app, ack):
    response = await fetch(f"/v1/logs?ack={ack}", b"", headers=PROTOBUF)
    assert (response.code, response.body, len(app.records)) == (200, b"", 0)


@pytest.mark.gen_test
async def test_the_same_request_again_is_stored_once_when_it_is_named(fetch, collection):
    for _ in range(2):
        await fetch("/v1/logs?ack=stored", sent("a", "b"), headers={**PROTOBUF, "Idempotency-Key": "k"})
    assert collection.count_documents({}) == 2


@pytest.mark.gen_test
async def test_a_time_that_cannot_be_is_noted(fetch, app, collection):
    ahead = (app.now_ms() + 25 * 3600 * 1000) * 1_000_000
    body = request(record("ahead", time_unix_nano=ahead), record("none"), record("huge", time_unix_nano=(1 << 64) - 1))
    await fetch("/v1/logs?ack=stored", body.SerializeToString(), headers=PROTOBUF)
    found = {document["message"]: document for document in collection.find()}
    assert all(abs(document["timestamp"].timestamp() * 1000 - app.now_ms()) < 60_000 for document in found.values())
    assert found["ahead"]["notes"] == [{"path": "/timestamp", "change": fields.TOO_FAR_AHEAD, "original": str(ahead)}]
    assert (found["ahead"]["data"]["time_unix_nano"], "notes" in found["none"]) == (ahead, False)
    assert found["huge"]["data"]["time_unix_nano"] == bson.Decimal128(str((1 << 64) - 1))


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"\x0a\x7f", {}, 400, 3),
        (b"\x0a\x7f", {"Content-Encoding": "gzip"}, 400, 3),
        (gzip.compress(bytes(17 << 20)), {"Content-Encoding": "gzip"}, 413, 8),
        (b"", {"Content-Encoding": "br"}, 415, 3),
    ],
)
@pytest.mark.gen_test
async def test_what_cannot_be_taken_ever_is_a_status_that_is_not_sent_again(fetch, app, body, headers, status, code):
    response = await fetch("/v1/logs", body, headers=PROTOBUF | headers)
    assert (response.code, response.headers["Content-Type"]) == (status, "application/x-protobuf")
    answer = otlp._STATUS.FromString(response.body)
    assert (answer.code, bool(answer.message)) == (code, True)
    as_json = await fetch("/v1/logs", b"[" if status == 400 else body, headers={} if status == 400 else headers)
    assert (as_json.code, json.loads(as_json.body)["code"]) == (status, code)
    assert not app.records


@pytest.mark.gen_test
async def test_other_media_and_methods(fetch):
    response = await fetch("/v1/logs", b"x", headers={"Content-Type": "text/plain"})
    assert (response.code, json.loads(response.body)["code"]) == (415, 3)
    response = await fetch("/v1/logs")
    assert (response.code, response.headers["Allow"]) == (405, "POST, OPTIONS")


@pytest.mark.gen_test
async def test_what_records_share_cannot_make_them_more_than_the_queue(fetch, app):
    body = request(*[LogRecord()] * 1000)
    body.resource_logs[0].resource.attributes.add(key="k").value.string_value = "x" * 1_000_000
    response = await fetch("/v1/logs", body.SerializeToString(), headers=PROTOBUF)
    assert (response.code, len(app.records)) == (413, 0)


class TestAway:
    """Redis that cannot be reached."""

    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "redis_url": "redis://127.0.0.1:9", "ack": "journal"})

    @pytest.mark.gen_test
    async def test_it_is_503_with_retry_after_and_a_status(self, fetch, app):
        response = await fetch("/v1/logs", sent("a"), headers=PROTOBUF)
        assert (response.code, response.headers["Retry-After"]) == (503, "1")
        assert otlp._STATUS.FromString(response.body).code == 14
        assert not app.records


class TestBothAway:
    @pytest.fixture
    def options(self, options: Options) -> Options:
        away = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
        changed = {"redis_url": "redis://127.0.0.1:9", "mongo_url": away, "stored_timeout": 0.3}
        return Options(**{**options.__dict__, **changed})

    @pytest.mark.gen_test
    async def test_stored_is_504_with_retry_after(self, fetch):
        response = await fetch("/v1/logs?ack=stored", sent("a"), headers=PROTOBUF)
        assert (response.code, "Retry-After" in response.headers) == (504, True)
        assert otlp._STATUS.FromString(response.body).code == 4


class TestFull:
    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "queue_max_bytes": 500})

    @pytest.mark.gen_test
    async def test_a_full_queue_is_503_with_retry_after(self, fetch, app):
        assert (await fetch("/v1/logs", sent("a"), headers=PROTOBUF)).code == 200
        response = await fetch("/v1/logs", sent("b"), headers=PROTOBUF)
        assert (response.code, int(response.headers["Retry-After"]) >= 1) == (503, True)
        assert len(app.records) == 1


class TestSdk:
    """OpenTelemetry's SDK for Python, fed by logging, over HTTP."""

    @pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
    @pytest.mark.gen_test
    async def test_what_is_logged_is_stored(self, app, http_server, base_url, collection, io_loop, compression):
        exporter = OTLPLogExporter(f"{base_url}/v1/logs?ack=stored", compression=compression)
        await io_loop.run_in_executor(None, log_with, exporter)
        stored = list(collection.find().sort("_id", 1))
        assert [document["message"] for document in stored] == ["order 17 placed: 3 \u00d7 Übergröße", "failed"]
        first, second = (document["data"] for document in stored)
        assert (first["level"], first["severity_number"], first["severity_text"]) == ("warn", 13, "WARN")
        extra = {"order.id": 17, "tags": ["a", "b"], "a.b$c": "x"}
        assert {name: first["attributes"].get(name) for name in extra} == extra
        assert first["scope"]["name"] == "shop.checkout"
        assert first["resource"]["attributes"]["service.name"] == "shop"
        assert stored[0]["timestamp"].timestamp() * 1000 == first["time_unix_nano"] // 1_000_000
        assert (second["level"], second["attributes"]["exception.type"]) == ("error", "ZeroDivisionError")
        assert "1 / 0" in second["attributes"]["exception.stacktrace"]

    @pytest.mark.gen_test
    async def test_what_is_refused_for_now_is_sent_again(self, app, http_server, base_url, collection, io_loop):
        app.intake.closed = True
        io_loop.call_later(0.5, setattr, app.intake, "closed", False)
        await io_loop.run_in_executor(None, log_with, OTLPLogExporter(f"{base_url}/v1/logs?ack=stored"))
        assert collection.count_documents({}) == 2
        assert app.ledger.row("otlp")["refused"] >= 1


def log_with(exporter: OTLPLogExporter) -> None:
    provider = LoggerProvider(Resource.create({"service.name": "shop"}))
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    handler = LoggingHandler(logger_provider=provider)
    logger = logging.getLogger("shop.checkout")
    logger.addHandler(handler)
    try:
        extra = {"order.id": 17, "tags": ["a", "b"], "a.b$c": "x"}
        logger.warning("order %d placed: 3 \u00d7 Übergröße", 17, extra=extra)
        try:
            print(1 / 0)
        except ZeroDivisionError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
        provider.shutdown()
