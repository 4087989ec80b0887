"""Loki's push API: what each entry becomes, how it is answered, and a logging handler of others as the sender."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import bson
import cramjam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loki_logger_handler.loki_logger_handler import LokiLoggerHandler

from tornado_logsrv import errors, records
from tornado_logsrv.config import Options
from tornado_logsrv.receivers import fields, loki, pairs, protobuf, rows
from tornado_logsrv.receivers.labels import parse_labels

DATA = Path(__file__).parent.parent / "data"
PUSH = "/loki/api/v1/push"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
TIME = 1_700_000_000_123_456_789
LIMIT = 1 << 20

# The messages whole, as grafana/loki pkg/push/push.proto has them: not in the way that the receiver reads them.
MESSAGES: dict[str, Any] = protobuf.declare(
    "logproto",
    PushRequest="repeated StreamAdapter streams = 1",
    StreamAdapter="bytes labels = 1, repeated EntryAdapter entries = 2, uint64 hash = 3",
    EntryAdapter="Timestamp timestamp = 1, bytes line = 2, repeated LabelPairAdapter structuredMetadata = 3,"
    "repeated LabelPairAdapter parsed = 4",
    LabelPairAdapter="bytes name = 1, bytes value = 2",
    Timestamp="int64 seconds = 1, int32 nanos = 2",
)


def push(*streams: tuple[str, list]) -> bytes:
    """A push in protobuf and snappy of ``(labels, [(time, line, metadata), …])``; texts may be bytes."""
    made = MESSAGES["PushRequest"]()
    for labels, entries in streams:
        stream = made.streams.add(labels=raw(labels))
        for time, line, metadata in entries:
            entry = stream.entries.add(line=raw(line))
            entry.timestamp.seconds, entry.timestamp.nanos = divmod(time, 1_000_000_000)
            for name, value in metadata:
                entry.structuredMetadata.add(name=raw(name), value=raw(value))
    return snappy(made.SerializeToString())


def raw(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def snappy(body: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(body))


def json_push(*values: Any, stream: Any = None) -> bytes:
    return json.dumps({"streams": [{"stream": stream or {"app": "shop"}, "values": values}]}).encode()


def read(body: bytes, is_json: bool = False, tenant: str = "") -> list:
    return [row for row in rows.apart(loki.parse(body, is_json, LIMIT, tenant)) if row is not None]


def plain(row: rows.Row) -> dict:
    """The data of ``row``, its labels as they are stored."""
    return {name: bson.decode(value.raw) if name == "labels" else value for name, value in row.members.items()}


class TestProtobuf:
    def test_an_entry_has_its_line_time_labels_and_metadata(self):
        body = push(('{app="shop", level="WARN"}', [(TIME, "a", [("k.a", "v"), ("$b", "w")]), (5, "b", [])]))
        first, second = read(body, tenant="blue")
        assert (first.message, first.time, first.notes) == ("a", TIME, [])
        assert plain(first) == {
            "level": "warn", "time_unix_nano": TIME, "labels": {"app": "shop", "level": "WARN"},
            "structured_metadata": {"k.a": "v", "$b": "w"}, "tenant": "blue",
        }  # fmt: skip
        assert (second.message, second.time, "structured_metadata" in second.data) == ("b", 5, False)

    def test_what_winston_sends(self):
        found = read((DATA / "loki_winston.snappy").read_bytes())
        assert [(row.members["level"], row.time) for row in found] == [
            (level, 1_700_000_000_123_000_000) for level in ("info", "warn", "error")
        ]
        assert json.loads(found[0].message)["message"] == "order placed: 3 \u00d7 Übergröße"
        assert plain(found[0])["labels"] == {"level": "info", "app": "shop", "env": "prod", "kind": "order"}

    def test_an_entry_without_a_time_has_none(self):
        stream = MESSAGES["StreamAdapter"](entries=[MESSAGES["EntryAdapter"](line=b"a")])
        (row,) = read(snappy(MESSAGES["PushRequest"](streams=[stream]).SerializeToString()))
        assert (row.time, row.members) == (None, {})

    def test_bytes_that_are_no_utf8_and_keys_that_stand_twice_are_kept(self):
        (row,) = read(push(("{}", [(0, b"a\xff", [("k", "1"), ("k", b"\xfe")])])))
        assert (row.message, row.members["structured_metadata"]) == ("a\udcff", {"k#1": "1", "k": "\\udcfe"})
        assert [note["path"] for note in row.notes] == ["/data/structured_metadata/k"] * 2

    def test_a_broken_entry_or_stream_costs_no_other(self):
        good = MESSAGES["StreamAdapter"](labels=b"{}", entries=[{"line": b"a"}]).SerializeToString()
        bad_entry, bad_stream = good + b"\x12\x02\x0a\x7f", b"\x0a\x03{a}"
        body = b"".join(bytes([0x0A, len(each)]) + each for each in (bad_entry, bad_stream, good))
        found = read(snappy(body))
        assert [type(row).__name__ for row in found] == ["Row", "Bad", "Bad", "Row"]
        assert [row.raw for row in found[1:3]] == [b"\x0a\x7f", bad_stream]

    @pytest.mark.parametrize("body", [b"", b"not snappy", snappy(b"\x0a"), snappy(b"x" * 99)[:-1], b"\xff" * 9])
    def test_what_is_not_the_message_is_unreadable(self, body):
        with pytest.raises(errors.Unreadable):
            read(body)

    def test_the_length_that_snappy_claims_is_looked_at_before_it_is_unpacked(self):
        with pytest.raises(errors.TooLarge, match="4294967295"):
            read(b"\xff\xff\xff\xff\x0f" + b"\0" * 20)


class TestJson:
    def test_an_entry_has_its_line_time_labels_and_metadata(self):
        body = json_push([str(TIME), "a", {"trace_id": "7", "level": "Error"}], [TIME, "b"], stream={"a.b": "$c"})
        first, second = read(body, True)
        assert (first.message, first.time, first.notes) == ("a", TIME, [])
        assert plain(first) == {
            "level": "error", "time_unix_nano": TIME, "labels": {"a.b": "$c"},
            "structured_metadata": {"trace_id": "7", "level": "Error"},
        }  # fmt: skip
        assert plain(second) == {"time_unix_nano": TIME, "labels": {"a.b": "$c"}}

    @pytest.mark.parametrize("name", ["loki_winston.json", "loki_pino.json"])
    def test_what_node_sends(self, name):
        found = read((DATA / name).read_bytes(), True)
        sent = json.loads((DATA / name).read_bytes())["streams"]
        assert [(plain(row)["labels"], row.message, str(row.time)) for row in found] == [
            (stream["stream"], value[1], value[0]) for stream in sent for value in stream["values"]
        ]
        metadata = [value[2] if len(value) > 2 else {} for stream in sent for value in stream["values"]]
        assert [row.members.get("structured_metadata", {}) for row in found] == metadata
        assert found[0].data["level"] == "info"

    @pytest.mark.parametrize(
        ("labels", "metadata", "level"),
        [
            ({"level": "INFO"}, {"level": "error"}, "info"),
            ({"a": "b"}, {"severity": "Error", "detected_level": "info"}, "error"),
            ({"detected_level": "warn"}, {}, "warn"),
            ({"level": 3}, {"lvl": "debug"}, "debug"),
        ],
    )
    def test_the_level_is_of_the_labels_and_else_of_the_metadata(self, labels, metadata, level):
        assert read(json_push(["1", "a", metadata], stream=labels), True)[0].data["level"] == level

    def test_a_key_that_stands_twice_loses_no_value(self):
        for spaced in (b"", b" "):
            body = b'{"streams":[{"stream":{"k":"1","k"%b:"2"},"values":[["1","a",{"m":"1","m"%b:"2"}]]}]}'
            (row,) = read(body % (spaced, spaced), True)
            assert plain(row)["labels"] == {"k#1": "1", "k": "2"}
            assert row.members["structured_metadata"] == {"m#1": "1", "m": "2"}
            paths = ["/data/labels/k", "/data/structured_metadata/m"]
            assert [note["path"] for note in row.notes] == paths

    @pytest.mark.parametrize(
        ("line", "message"), [({"a": [1, None]}, '{"a":[1,null]}'), (5, "5"), (None, "null"), (["a"], '["a"]')]
    )
    def test_a_line_that_is_no_text_is_kept(self, line, message):
        (row,) = read(json_push(["1", line]), True)
        assert (row.message, row.members["line"]) == (message, line)

    def test_what_json_allows_and_utf8_does_not_is_kept(self):
        body = rb'{"streams":[{"stream":{"\ud83d":"@"},"values":[["1","a\ud83d"],["2","@",{"k":"@"}],["3","b"]]}]}'
        first, second, third = read(body.replace(b"@", b"\xff"), True)
        assert (first.message, second.message, third.message) == ("a\ud83d", "\udcff", "b")
        assert second.data["structured_metadata"] == {"k": "\\udcff"}
        assert plain(third)["labels"] == {"\\ud83d": "\\udcff"}
        assert [note["path"] for note in third.notes] == ["/data/labels/\\ud83d", "/data/labels/\\ud83d"]

    @pytest.mark.parametrize(
        "entry",
        [[], ["1"], ["1", "a", {}, 1], ["x", "a"], [1.5, "a"], [True, "a"], [None, "a"], ["1", "a", []], "text", 5,
         {"ts": "x"}, ["1" * 30, "a"], [" 1", "a"]],
    )  # fmt: skip
    def test_a_broken_entry_costs_no_other_and_keeps_its_bytes(self, entry):
        found = read(json_push(["1", "a"], entry, ["2", "b", {}]), True)
        assert [type(row).__name__ for row in found] == ["Row", "Bad", "Row"]
        assert found[1].raw == json.dumps(entry).encode()

    @pytest.mark.parametrize(
        "stream", ['{"stream":1}', '{"values":1}', "5", '{"labels":"{}","entries":[]}', '{"stream":[]}']
    )
    def test_a_broken_stream_costs_no_other(self, stream):
        found = read(b'{"streams":[%b,{"values":[["1","a"]]}]}' % stream.encode(), True)
        assert [type(row).__name__ for row in found] == ["Bad", "Row"]
        assert found[0].raw == stream.encode()

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"streams":1}', b"\xff", b'{"a":' * 100_000, b"[" * 100_000])
    def test_what_is_not_the_message_is_unreadable(self, body):
        with pytest.raises(errors.Unreadable):
            read(body, True)


#: What a text of Go may hold: characters, and bytes that are no UTF-8.
any_text = st.lists(st.characters(exclude_categories=["Cs"]) | st.just("\udcff"), max_size=8).map("".join)


class TestLabels:
    @pytest.mark.parametrize(
        ("selector", "labels"),
        [
            ("{}", {}),
            (' { a = "b" , c="d", } ', {"a": "b", "c": "d"}),
            ('{a="x\\"y\\\\z\\n\\t\\a\\b\\f\\r\\v"}', {"a": 'x"y\\z\n\t\a\b\f\r\v'}),
            ('{a="\\x41\\101\\u00e9\\U0001F600é"}', {"a": "AAé😀é"}),
            ('{a="\\xc3\\xa9"}', {"a": "é"}),
            ('{a="\\xff"}', {"a": "\udcff"}),
            ("{a='it\\'s', b=`\\raw\"`}", {"a": "it's", "b": '\\raw"'}),
            ('{"service.name"="x", b="}{,="}', {"service.name": "x", "b": "}{,="}),
            ('up{a="b"}', {"__name__": "up", "a": "b"}),
            ('{a="b",a="c"}', {"a#1": "b", "a": "c"}),
            ('{a="line\nbreak"}', {"a": "line\nbreak"}),
        ],
    )
    def test_they_are_read_as_prometheus_writes_them(self, selector, labels):
        assert parse_labels(selector)[0] == labels

    @pytest.mark.parametrize(
        "selector",
        ["", "a", "{", "}", "{a}", "{a=b}", '{a="b}', '{a="b"', '{a="b"}x', '{a="b" c="d"}', '{,}', '{a!="b"}',
         '{a="\\q"}', '{a="\\x4"}', '{a="\\ud800"}', '{a="\\U00110000"}', '{a="\\"}', "{a=`}", '{="b"}', '{a="b",,}'],
    )  # fmt: skip
    def test_others_are_unreadable(self, selector):
        with pytest.raises(errors.Unreadable):
            parse_labels(selector)

    @settings(max_examples=200, deadline=None)
    @given(st.dictionaries(st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]*", fullmatch=True), any_text, max_size=4))
    def test_what_go_writes_is_read_back(self, labels):
        assert parse_labels(selector(labels)) == (labels, True)

    def test_long_ones_take_no_time(self):
        with pytest.raises(errors.Unreadable):
            parse_labels('{a="' + "\\\\" * 100_000)
        with pytest.raises(errors.Unreadable):
            parse_labels("{" + " " * 200_000 + "x")
        with pytest.raises(errors.TooLarge, match="labels of 500002 characters"):
            parse_labels("{" + " " * 500_000 + "}")


def go_quote(value: str) -> str:
    """As strconv.Quote: what is not printable and not ASCII is escaped; so are bytes that are no UTF-8."""
    short = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
    short |= {"\\": "\\\\", '"': '\\"'}

    def quoted(character: str) -> str:
        code = ord(character)
        if character in short:
            return short[character]
        if 0xDC80 <= code <= 0xDCFF:
            return f"\\x{code - 0xDC00:02x}"
        if character.isprintable():
            return character
        return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return '"' + "".join(map(quoted, value)) + '"'


def selector(labels: dict[str, str]) -> str:
    """Labels as Prometheus writes them."""
    return "{" + ", ".join(f"{name}={go_quote(value)}" for name, value in labels.items()) + "}"


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)
metadata = st.dictionaries(texts, texts, max_size=4)
entries = st.tuples(st.integers(-(10**18), 4 * 10**18), texts | st.binary(max_size=12), metadata)
streams = st.lists(st.tuples(st.dictionaries(names, texts, max_size=4), st.lists(entries, max_size=4)), max_size=3)


def told(row: rows.Row) -> tuple:
    labels = bson.decode(row.members["labels"].raw) if "labels" in row.members else {}
    assert row.notes == []
    line = row.message.encode("utf-8", "surrogateescape")
    return labels, row.time, row.members["time_unix_nano"], line, row.members.get("structured_metadata", {})


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(streams)
def test_parsing_loses_nothing_of_what_protobuf_encodes(given):
    selectors = [
        "{" + ", ".join(f"{name}={go_quote(value)}" for name, value in labels.items()) + "}" for labels, _ in given
    ]
    body = push(*((s, [(t, line, m.items()) for t, line, m in e]) for s, (_, e) in zip(selectors, given, strict=True)))
    expected = [(labels, t, t, raw(line), m) for labels, found in given for t, line, m in found]
    assert list(map(told, read(body))) == expected


def field(number: int, raw: bytes) -> bytes:
    """A field of bytes, of fewer than 16384."""
    length = [len(raw)] if len(raw) < 128 else [len(raw) & 127 | 128, len(raw) >> 7]
    return bytes([number << 3 | 2, *length]) + raw


@st.composite
def encoded_pairs(draw) -> bytes:
    """A label pair, most often of the name a: whole or damaged, its members in any order and number."""
    name = draw(st.sampled_from([b"a", b"a", b"a", b"level", b"", b"\xff"]))
    values = draw(st.lists(st.sampled_from([b"x", b"y", b"", b"Warn", b"\xff"]), max_size=2))
    parts = [field(1, name), *(field(2, value) for value in values)]
    raw = b"".join(draw(st.permutations(parts)) if draw(st.booleans()) else parts)
    return raw[: len(raw) - draw(st.sampled_from([0, 0, 0, 0, 1, 2]))]


@st.composite
def encoded_entries(draw) -> bytes:
    """An entry, most often a usual one."""
    time = MESSAGES["Timestamp"](
        seconds=draw(st.sampled_from([17, 17, 17, 0, -1])), nanos=draw(st.sampled_from([0, 9]))
    )
    parts = [field(1, time.SerializeToString())] * draw(st.sampled_from([1, 1, 1, 0, 2]))
    parts += [field(2, draw(st.sampled_from([b"line", b"other", b"", b"\xff"])))] * draw(st.sampled_from([1, 1, 1, 0]))
    parts += [field(3, draw(encoded_pairs())) for _ in range(draw(st.sampled_from([1, 1, 0, 2])))]
    parts += [field(4, draw(encoded_pairs()))] * draw(st.sampled_from([0, 0, 0, 1]))
    return b"".join(parts)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(encoded_entries(), min_size=1, max_size=4), st.integers(1, 3), st.sampled_from(["{}", '{level="INFO"}'])
)
def test_entries_in_protobuf_are_together_what_each_is_by_itself(given, times, labels):
    body = snappy(field(1, field(1, labels.encode()) + b"".join(field(2, each) for each in given * times)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loki, "TOGETHER", 1 << 30)
        alone = read(body)
        patched.setattr(loki, "TOGETHER", 1)
        together = read(body)
        # As if no pair stood twice.
        patched.setattr(pairs, "_SAMPLE", -1)
        different = read(body)
    assert list(map(repr, together)) == list(map(repr, alone)) == list(map(repr, different))


def test_usual_entries_in_protobuf_are_read_in_columns():
    given = [(TIME + n, "a", {"order": str(n), "shop": "x"}.items()) for n in range(loki.TOGETHER)]
    found = list(loki.parse(push(("{}", given)), False, LIMIT))
    assert [(type(each), len(each.raws)) for each in found] == [(rows.Rows, len(given))]


level_names = st.sampled_from(["level", "severity", "trace_id"])
odd = st.sampled_from(
    [None, {}, 5, "", "1", 'a"b:c', "a\\u003a", "\ud83d", {"level": "Warn", "a": "b:c"}, {"a": 1}, [], "x"]
)
odd_entries = st.lists(odd, max_size=4) | st.tuples(st.sampled_from(["0", "1", "-1", "1" * 21, "\u0661"]), texts)


@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(level_names, st.sampled_from(["info", "WARN"])),
    st.lists(st.tuples(st.just("17"), texts, st.dictionaries(level_names, texts, max_size=2)), min_size=1, max_size=4),
    st.lists(odd_entries, max_size=2),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": ")]),
)
def test_entries_together_become_what_each_does_by_itself(labels, usual, odd_ones, metadata, separators):
    values = [entry if metadata else entry[:2] for entry in usual] + odd_ones
    body = json.dumps({"streams": [{"stream": labels, "values": values}]}, separators=separators).encode()
    together = read(body, True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loki, "_json_rows", lambda *_: None)
        alone = read(body, True)
    assert [shown(row) for row in together] == [shown(row) for row in alone]


def shown(row: rows.Row | rows.Bad) -> tuple[str, bytes]:
    return repr(row).replace(repr(row.raw), ""), bytes(row.raw)


def test_usual_entries_are_read_in_columns():
    for value in (["1", "a"], ["1", 'a "b"', {"c": "d"}]):
        found = list(loki.parse(json_push(*[value] * 3), True, LIMIT))
        assert [(type(each), len(each.raws)) for each in found] == [(rows.Rows, 3)]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(streams)
def test_parsing_loses_nothing_of_what_json_encodes(given):
    made = [
        {"stream": labels, "values": [[str(t), raw(line).decode("latin-1"), m] for t, line, m in found]}
        for labels, found in given
    ]
    for separators in ((",", ":"), (", ", ": ")):
        body = json.dumps({"streams": made}, ensure_ascii=False, separators=separators).encode()
        expected = [
            (labels, t, t, raw(line).decode("latin-1").encode(), m) for labels, found in given for t, line, m in found
        ]
        assert list(map(told, read(body, True))) == expected


@st.composite
def damaged(draw, bodies) -> bytes:
    """Bytes of which some are changed, cut out or put in."""
    body = bytearray(draw(bodies))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


unpacked = bytes(cramjam.snappy.decompress_raw((DATA / "loki_winston.snappy").read_bytes()))


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=64) | damaged(st.just((DATA / "loki_winston.snappy").read_bytes())), st.booleans())
def test_no_bytes_are_more_than_unreadable(body, is_json):
    parsed_or_refused(body, is_json)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.builds(snappy, damaged(st.just(unpacked) | st.binary(max_size=64))))
def test_no_message_is_more_than_unreadable(body):
    parsed_or_refused(body, False)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged(st.sampled_from([(DATA / name).read_bytes() for name in ("loki_winston.json", "loki_pino.json")])))
def test_no_text_is_more_than_unreadable(body):
    parsed_or_refused(body, True)


def parsed_or_refused(body: bytes, is_json: bool) -> None:
    try:
        found = read(body, is_json)
    except errors.Refused:
        return
    for row in found:
        if isinstance(row, rows.Row):
            head = {"source": "loki", "message": row.message}
            records.encode(head, row.members, row.notes, bytes(12), rows.own_time(row.time or 0, 0, row.notes))


# Over HTTP.


@pytest.fixture(autouse=True)
def _routes(request: pytest.FixtureRequest) -> None:
    if "app" in request.fixturenames:
        request.getfixturevalue("app").add_handlers(".*", loki.ROUTES)


@pytest.mark.parametrize("path", [PUSH, "/api/prom/push"])
@pytest.mark.gen_test
async def test_a_push_is_stored_and_answered_204(fetch, app, collection, path):
    body = push(('{app="shop"}', [(TIME, "a", [("level", "info")])]))
    response = await fetch(f"{path}?ack=stored", body, headers={**PROTOBUF, "X-Scope-OrgID": "blue"})
    assert (response.code, response.body) == (204, b"")
    stored = collection.find_one()
    assert list(stored) == ["_id", "source", "message", "data", "timestamp"]
    assert (stored["source"], stored["message"]) == ("loki", "a")
    assert stored["data"] == {
        "level": "info", "time_unix_nano": TIME, "labels": {"app": "shop"}, "tenant": "blue",
        "structured_metadata": {"level": "info"},
    }  # fmt: skip
    assert stored["timestamp"].timestamp() == 1_700_000_000.123


@pytest.mark.parametrize("coding", ["gzip", "snappy"])
@pytest.mark.gen_test
async def test_codings_that_clients_name(fetch, app, coding):
    body = push(("{}", [(TIME, "a", [])]))
    body = gzip.compress(body) if coding == "gzip" else body
    response = await fetch(PUSH, body, headers={**PROTOBUF, "Content-Encoding": coding})
    assert (response.code, len(app.records)) == (204, 1)
    response = await fetch(PUSH, gzip.compress(json_push(["1", "a"])), headers={"Content-Encoding": "gzip"})
    assert (response.code, len(app.records)) == (204, 2)


@pytest.mark.gen_test
async def test_bytes_that_are_no_utf8_are_stored_and_noted(fetch, app, collection):
    await fetch(f"{PUSH}?ack=stored", push(("{}", [(TIME, b"caf\xe9", [])])), headers=PROTOBUF)
    stored = collection.find_one()
    assert stored["message"] == "caf\\udce9"
    (note,) = stored["notes"]
    assert note["path"] == "/message"
    assert json.loads(note["original"]).encode("utf-8", "surrogateescape") == b"caf\xe9"


@pytest.mark.gen_test
async def test_a_bad_entry_among_good_ones_is_in_quarantine(fetch, app, collection, database):
    response = await fetch(f"{PUSH}?ack=stored", json_push(["1", "a"], ["x", "b"]))
    assert response.code == 204
    kept = database["logs_quarantine"].find_one()
    assert (kept["original"], kept["source"]) == (b'["x", "b"]', "loki")
    assert app.ledger.row("loki") == {"received": 2, "stored": 1, "quarantined": 1, "refused": 0, "queued": 0}


@pytest.mark.parametrize(
    ("body", "headers", "told"),
    [
        (b"{", {}, "JSON"),
        (json_push(["x", "b"]), {}, "nanoseconds"),
        (b"nonsense", PROTOBUF, "snappy"),
        (b"\xff\xff\xff\xff\x0f" + b"\0" * 20, PROTOBUF, "--max_body_bytes"),
        (gzip.compress(bytes(17 << 20)), {"Content-Encoding": "gzip"}, "bytes"),
        (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, "application/json"),
        (b"{}", {"Content-Encoding": "br"}, "br"),
    ],
)
@pytest.mark.gen_test
async def test_what_cannot_be_taken_ever_is_400_and_text(fetch, app, body, headers, told):
    response = await fetch(PUSH, body, headers=headers)
    assert (response.code, response.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert told in response.body.decode()
    assert not app.records


@pytest.mark.gen_test
async def test_other_methods_are_405(fetch):
    response = await fetch(PUSH)
    assert (response.code, response.headers["Allow"]) == (405, "POST, OPTIONS")


@pytest.mark.gen_test
async def test_the_same_push_again_is_stored_once_when_it_is_named(fetch, collection):
    for _ in range(2):
        await fetch(f"{PUSH}?ack=stored", json_push(["1", "a"], ["1", "a"]), headers={"Idempotency-Key": "k"})
    assert collection.count_documents({}) == 2


@pytest.mark.gen_test
async def test_a_time_that_cannot_be_is_noted(fetch, app, collection):
    ahead = (app.now_ms() + 25 * 3600 * 1000) * 1_000_000
    await fetch(f"{PUSH}?ack=stored", json_push([str(ahead), "ahead"], ["-1", "before"], ["9" * 20, "huge"]))
    found = {document["message"]: document for document in collection.find()}
    changes = {message: document["notes"][0]["change"] for message, document in found.items()}
    assert changes == {"ahead": fields.TOO_FAR_AHEAD, "before": fields.BEFORE_1970, "huge": fields.TOO_FAR_AHEAD}
    assert found["huge"]["data"]["time_unix_nano"] == bson.Decimal128("9" * 20)
    assert all(abs(document["timestamp"].timestamp() * 1000 - app.now_ms()) < 60_000 for document in found.values())


@pytest.mark.gen_test
async def test_ready(fetch, app):
    response = await fetch("/ready")
    assert (response.code, response.body) == (200, b"ready\n")
    assert (await fetch("/ready", method="HEAD")).code == 200
    app.stopping = True
    response = await fetch("/ready")
    assert (response.code, response.body) == (503, b"not ready: stopping\n")


class TestAway:
    """Redis that cannot be reached."""

    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "redis_url": "redis://127.0.0.1:9", "ack": "journal"})

    @pytest.mark.gen_test
    async def test_it_is_503_with_retry_after_and_not_ready(self, fetch, app):
        response = await fetch(PUSH, json_push(["1", "a"]))
        assert (response.code, response.headers["Retry-After"]) == (503, "1")
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert (await fetch("/ready")).code == 503
        assert not app.records


class TestBothAway:
    @pytest.fixture
    def options(self, options: Options) -> Options:
        away = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
        changed = {"redis_url": "redis://127.0.0.1:9", "mongo_url": away, "stored_timeout": 0.3}
        return Options(**{**options.__dict__, **changed})

    @pytest.mark.gen_test
    async def test_stored_is_504_with_retry_after(self, fetch):
        response = await fetch(f"{PUSH}?ack=stored", json_push(["1", "a"]))
        assert (response.code, "Retry-After" in response.headers) == (504, True)


class TestFull:
    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "queue_max_bytes": 200})

    @pytest.mark.gen_test
    async def test_a_full_queue_is_503_with_retry_after(self, fetch, app):
        assert (await fetch(PUSH, json_push(["1", "a"]))).code == 204
        response = await fetch(PUSH, json_push(["1", "b"]))
        assert (response.code, int(response.headers["Retry-After"]) >= 1) == (503, True)
        assert len(app.records) == 1


class TestHandler:
    """loki-logger-handler, fed by logging, over HTTP."""

    @pytest.mark.parametrize("compressed", [True, False])
    @pytest.mark.gen_test
    async def test_what_is_logged_is_stored(self, app, http_server, base_url, collection, io_loop, compressed):
        await io_loop.run_in_executor(None, log_to, f"{base_url}{PUSH}?ack=stored", compressed)
        first, second = collection.find().sort("_id", 1)
        assert json.loads(first["message"])["message"] == "order 17 placed: 3 \u00d7 Übergröße"
        assert first["data"]["labels"] == {"app": "shop", "level": "WARNING"}
        assert (first["data"]["level"], first["data"]["structured_metadata"]) == (
            "warning",
            {"order.id": "17", "x": "y"},
        )
        assert first["timestamp"].timestamp() * 1000 == first["data"]["time_unix_nano"] // 1_000_000
        assert (second["data"]["level"], "1 / 0" in json.loads(second["message"])["stacktrace"]) == ("error", True)


def log_to(url: str, compressed: bool) -> None:
    handler = LokiLoggerHandler(
        url, {"app": "shop"}, label_keys={"level"}, compressed=compressed, enable_structured_loki_metadata=True,
        loki_metadata={"x": "y"}, timeout=3600,
    )  # fmt: skip
    logger = logging.getLogger("shop.checkout")
    logger.addHandler(handler)
    try:
        extra = {"loki_metadata": {"order.id": 17}}
        logger.warning("order %d placed: 3 \u00d7 Übergröße", 17, extra=extra)
        try:
            print(1 / 0)
        except ZeroDivisionError:
            logger.exception("failed")
        handler._send()
    finally:
        logger.removeHandler(handler)
        handler.request.session.close()
