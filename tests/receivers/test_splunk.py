import asyncio
import collections
import datetime
import gzip
import json
import logging
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splunk_handler import SplunkHandler
from tornado.httputil import url_concat

from tornado_logsrv import jsontext, receivers
from tornado_logsrv import records as records_module
from tornado_logsrv.config import Options
from tornado_logsrv.errors import Refused
from tornado_logsrv.queues import RecordQueue
from tornado_logsrv.receivers import fields, splunk, splunk_acks, splunk_events
from tornado_logsrv.receivers.rows import Bad, Row

from .batches import BEYOND_MONGODB, batch_of, documents

DATA = Path(__file__).parent.parent / "data"
NOW = 1_800_000_000_000
EVENT, RAW, ACK = (f"/services/collector/{name}" for name in ("event", "raw", "ack"))
CHANNEL = {"X-Splunk-Request-Channel": "FE0ECFAD-13D5-401B-847D-77833BD77131"}
OTHER = {"X-Splunk-Request-Channel": "0b3ffe2c-38b1-4b8c-93ac-9b3ae42a1c0b"}


@pytest.fixture(autouse=True)
def routes(monkeypatch):
    monkeypatch.setattr(receivers, "ROUTES", [*splunk.ROUTES, *receivers.ROUTES])


def with_options(options: Options, **changed: object) -> Options:
    return Options(**{**options.__dict__, **changed})


def stored(event: Row, now_ms: int = NOW) -> dict:
    """What is stored of an event."""
    (found,) = documents(batch_of("splunk", [event], now_ms))
    return found


def record(event: object, **metadata: str) -> dict:
    (found,) = splunk.parse(event if isinstance(event, bytes) else json.dumps(event).encode(), metadata)
    return stored(found)


def kinds(body: bytes) -> list:
    """The event, or the code and bytes of what is none."""
    return [(e.code, e.raw) if isinstance(e, Bad) else e.data.get("event", e.message) for e in splunk.parse(body, {})]


def test_a_time_that_is_not_utf_8_costs_its_own_event_alone():
    found = [*splunk.parse(b'{"event":"a"}{"event":"x","time":"\xfe17"}{"event":"b\xc3\xa9","time":17}', {})]
    assert [isinstance(each, Bad) for each in found] == [False, True, False]
    assert [found[0].message, found[2].message] == ["a", "bé"]


# What is read


@pytest.mark.parametrize("between", ["", " ", "\n", "\r\n\r\n", "\t"])
def test_objects_one_after_the_other(between):
    body = between.join(['{"event":"a}{b"}', '{"event":{"a":[1]}}', '{"event": false}']) + between
    assert kinds(body.encode()) == ["a}{b", {"a": [1]}, False]
    assert kinds(b"\xef\xbb\xbf" + body.encode()) == ["a}{b", {"a": [1]}, False]


@pytest.mark.parametrize("body", [b"", b" \r\n", b"\xef\xbb\xbf"])
def test_nothing_is_no_data(body):
    with pytest.raises(splunk.Refusal) as refusal:
        kinds(body)
    assert (refusal.value.code, refusal.value.number) == (5, None)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b'{"event": "a"b"}', 6),
        (b'{"event":', 6),
        (b'{"event": "\xff"}', 6),
        (b"junk", 6),
        (b"[1]", 6),
        (b"5", 6),
        (b'{"event": ' + b"[" * 3000 + b"}", 6),
        (b'{"events": 1}', 12),
        (b'{"event": null}', 13),
        (b'{"event": " \\n"}', 13),
        (b'{"event": 1, "index": 5}', 7),
    ],
)
def test_a_bad_event_costs_no_neighbour(bad, code):
    assert kinds(b'{"event":1}' + bad + b'\n{"event":2}') == [1, (code, bad), 2]
    assert kinds(bad + b'\n{"event":2}{"event":3}') == [(code, bad), 2, 3]
    assert kinds(b'{"event":1}' + bad) == [1, (code, bad)]


def test_behind_what_is_no_json_it_goes_on_with_an_event_and_not_inside_of_one():
    broken = b'{"event": {"a": [{"event": 1}, {"b":1}x'
    assert kinds(b'{"event":1}' + broken + b'{"c":1}{"event":2}') == [1, (6, broken + b'{"c":1}'), 2]


def test_behind_a_bad_event_no_more_is_read_than_is_allowed():
    nested = b'\n{"event":[' * 300 + b"1," * 3000
    codes = [code for code, _ in kinds(nested)]
    assert len(codes) < 10


@pytest.mark.parametrize("body", [b"x" + b"\n" * 3_000_000, b"x" + b"\n{" * 1_000_000, b"[" * 3_000_000])
def test_no_bytes_take_long(body):
    assert kinds(body) == [(6, body.rstrip())]


@pytest.mark.parametrize("body", [b'{"event":1}' + b" " * 3_000_000, b" " * 3_000_000 + b'{"event":1}'])
def test_no_space_takes_long(body):
    assert kinds(body) == [1]


#: More than are read in one go; and a text, longer still, that has as many commas.
DENSE = b'{"event":{"a":[%b]}}' % b",".join([b"{}"] * jsontext.MAX_VALUES)
LONG = b'{"event":"%b"}' % (b"{}," * jsontext.MAX_VALUES)


@pytest.mark.parametrize("between", [b"", b" ", b"\n", b"\n\n"])
@pytest.mark.parametrize("before", [b'{"event":0}', b'{"event":0,"x":1}', b'{"event":"\xff"}', b'{"event":0'])
def test_an_event_of_too_many_values_costs_no_neighbour(before, between):
    found = kinds(between.join([before, DENSE, b'{"event":1}', LONG, b'{"event":2}', DENSE]))
    *_, first, one, long, two, last = found
    assert (first, one, two, last) == ((6, DENSE), 1, 2, (6, DENSE)) or first == (6, before + between + DENSE)
    assert long == "{}," * jsontext.MAX_VALUES
    assert len(found) in (5, 6)


def test_it_is_said_that_an_event_has_too_many_values():
    (bad,) = splunk.parse(DENSE, {})
    assert bad.reason.startswith(f"more than {jsontext.MAX_VALUES} JSON values")


@pytest.mark.parametrize("size", [1, 30, 1000])
@pytest.mark.parametrize("between", ["", "\n", "\r\n", " "])
def test_a_body_is_the_same_in_one_piece_and_in_many(monkeypatch, size, between):
    events = ['{"event":"a}{b"}', '{"event":{"a":[{"b":{}}]},"x":1}', '{"event":3}', '{"event":null}', '{"event":4}']
    body = between.join(events * 3).encode()
    expected = kinds(body)
    monkeypatch.setattr(splunk_events, "WINDOW_BYTES", size)
    assert kinds(body) == expected
    assert expected[:4] == ["a}{b", {"a": [{"b": {}}]}, 3, (13, b'{"event":null}')]


def test_unknown_members_and_repeated_ones_are_kept():
    assert record({"event": "a", "nested": {"k": 1}, "fields": {"a.b": "$"}})["data"] == {
        "nested": {"k": 1},
        "fields": {"a.b": "$"},
    }
    twice = record(b'{"event":"a","host":"x","host":"y","time":1.5,"time":2.5}')
    assert twice["data"] == {"host#1": "x", "host": "y", "time#1": 1.5}
    assert twice["timestamp"].timestamp() == 2.5


# What becomes of it


@pytest.mark.parametrize(
    ("given", "time_ns"),
    [
        ("1426279439", 1426279439_000000000),
        ("1426279439.1", 1426279439_100000000),
        ("1426279439.123", 1426279439_123000000),
        ("1426279439.123456789", 1426279439_123456789),
        ('"1426279439.123456789"', 1426279439_123456789),
        ("1426279439.1234567891", 1426279439_123456789),
        ("1426279439.12345678900", 1426279439_123456789),
        ("1.426279439123456789e9", 1426279439_123456789),
        ("14262794391234567e-7", 1426279439_123456700),
    ],
)
@pytest.mark.parametrize(
    "body", [b'{"event":"a","time":%b}', b'{"event":"a","time":%b,"x":1}', b'{"event":"a", "time" : %b }']
)
def test_times_are_exact(body, given, time_ns):
    found = record(body % given.encode())
    assert math.floor(found["timestamp"].timestamp() * 1000) == time_ns // 1_000_000
    assert found["data"].get("time_unix_nano") == (time_ns if time_ns % 1_000_000 else None)
    cut = [{"path": "/timestamp", "change": "finer than a nanosecond, cut", "original": given}]
    assert found.get("notes", []) == (cut if given == "1426279439.1234567891" else [])


@pytest.mark.parametrize(
    "given", ['"now"', '""', "-1", "1426279439123", f"{NOW // 1000 + 86_401}", "true", "[1]", "1e9999", "NaN", "1e99"]
)
def test_times_that_cannot_be_are_noted(given):
    found = record(b'{"event":"a","time":%b,"x":{"n\\u0000":%d}}' % (given.encode(), 2**70))
    assert found["timestamp"].timestamp() * 1000 == NOW
    (note,) = [note for note in found["notes"] if note["path"] == "/timestamp"]
    assert note["original"] == given or note["original"] == f"{given}000000000"
    assert len(found["notes"]) == 3


@pytest.mark.parametrize("body", [{"event": "a"}, {"event": "a", "time": None}])
def test_without_a_time_it_is_that_of_acceptance(body):
    assert (record(body)["timestamp"].timestamp() * 1000, record(body)["data"]) == (NOW, {})


@pytest.mark.parametrize(
    ("event", "message", "data"),
    [
        ("text", "text", {}),
        (5, "", {"event": 5}),
        (["a"], "", {"event": ["a"]}),
        ({"message": "a", "x": 1}, "a", {"event": {"x": 1}}),
        ({"message": "a"}, "a", {"event": {}}),
        ({"message": "a", "log": "a"}, "a", {"event": {"message": "a", "log": "a"}}),
        ({"line": "a", "tag": "t"}, "a", {"event": {"line": "a", "tag": "t"}}),
        ({"message": "", "x": 1}, "", {"event": {"message": "", "x": 1}}),
        ({"severity": "INFO"}, "", {"event": {"severity": "INFO"}, "level": "info"}),
    ],
)
def test_text(event, message, data):
    found = record({"event": event})
    assert (found["message"], found["data"], "notes" in found) == (message, data, False)


def test_level():
    assert record({"event": "a", "fields": {"otel.log.severity.text": "WARN"}})["data"]["level"] == "warn"
    assert record({"event": "a", "level": "WARN"})["data"] == {"level": "warn", "severity_text": "WARN"}
    assert record({"event": {"level": "A"}, "level": 5})["data"]["level"] == 5


def test_the_query_speaks_for_events_that_do_not():
    assert record({"event": "a", "host": "x"}, host="q", index="i")["data"] == {"host": "x", "index": "i"}


def test_notes_go_where_their_values_go():
    assert record(b'{"event":"\\ud800"}')["notes"][0]["path"] == "/message"
    assert record(b'{"event":{"message":"\\ud800"}}')["notes"][0]["path"] == "/message"
    assert record(b'{"event":{"log":"\\ud800"}}')["notes"][0]["path"] == "/data/event/log"


def test_raw_lines():
    lines = splunk.parse_raw("ä\r\n\r\n  b \n".encode(), {"host": "h"})
    assert [(row.message, row.data) for row in lines] == [("ä", {"host": "h"}), ("  b ", {"host": "h"})]
    (latin,) = splunk.parse_raw(b"\xe4\n", {})
    (note,) = stored(latin)["notes"]
    assert (stored(latin)["message"], json.loads(note["original"]).encode("utf-8", "surrogateescape")) == (
        "\\udce4",
        b"\xe4",
    )
    with pytest.raises(splunk.Refusal):
        list(splunk.parse_raw(b"\n \n", {}))


def captured(name: str) -> list[dict]:
    return [stored(event) for event in splunk.parse((DATA / name).read_bytes(), {})]


def test_docker():
    # Three lines as inline, three as json, one with all that there is to say, and three as raw.
    found = captured("splunk_docker.json")
    assert len(found) == 10
    inline, as_text, error = found[:3]
    assert inline["message"] == "order 17 placed: 3 \u00d7 Übergröße"
    assert inline["data"] == {
        "event": {"line": inline["message"], "source": "stdout", "tag": "shop-inline"},
        "host": "vm",
        "time_unix_nano": 1795945096_646531000,
    }
    assert as_text["message"] == as_text["data"]["event"]["line"] == '{"level":"warn","message":"low stock","a.b":1}'
    assert (error["message"], error["data"]["event"]["source"]) == ("oops", "stderr")
    assert found[5]["data"]["event"]["line"] == {"level": "warn", "message": "low stock", "a.b": 1}
    full = found[6]["data"]
    assert full["event"]["attrs"] == {"COLOR": "blue", "team": "till"}
    assert (full["source"], full["sourcetype"], full["index"]) == ("shop", "st", "main")
    raw = found[7]
    assert (raw["message"], "event" in raw["data"]) == ("shop-raw oops", False)


def test_fluent_bit():
    first, second = captured("splunk_fluent_bit.json")
    assert (first["message"], first["data"]["source"]) == ("panic: index out of range", "tail.0")
    assert first["timestamp"].isoformat() == "2024-05-14T09:21:36.482000+00:00"
    assert second["data"]["event"]["kubernetes"] == {"labels": {"app.kubernetes.io/name": "shop"}}


def test_vector():
    first, second = captured("splunk_vector.json")
    assert (first["message"], first["data"]["fields"]) == ("cart 8 saved", {"env": "prod"})
    assert first["data"]["event"] == {"file": "/var/log/shop.log", "source_type": "file"}
    assert (second["message"], second["data"]) == ("cart 9 saved", {"host": "web-1", "fields": {}})


def test_splunk_handler_as_recorded():
    first, second, third = captured("splunk_handler.json")
    assert [first["message"], second["message"], third["message"]] == ["cart 7 saved", "näh\n two lines", '{"a":1}']
    assert first["data"]["time_unix_nano"] == 1795342057_553486300
    assert {key: first["data"][key] for key in splunk.METADATA} == {
        "host": "web-1",
        "source": "shop",
        "sourcetype": "text",
        "index": "main",
    }


KEYS = st.one_of(
    st.sampled_from(["message", "log", "line", "level", "host", "source", "nested", "a.b", "$c"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=15),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
TIMES = st.tuples(st.integers(1, NOW // 1000), st.text("0123456789", max_size=9), st.booleans())
ENVELOPES = st.tuples(
    st.dictionaries(KEYS.filter(lambda key: key not in ("event", "time", "index")), VALUES, max_size=3),
    VALUES.filter(lambda event: event is not None and (not isinstance(event, str) or event.strip())),
    st.none() | TIMES,
)


def encode(envelope: tuple, ascii_only: bool) -> str:
    more, event, time = envelope
    text = json.dumps({**more, "event": event}, ensure_ascii=ascii_only)
    if time is None:
        return text
    seconds = f"{time[0]}.{time[1]}" if time[1] else f"{time[0]}"
    return text[:-1] + (f', "time": "{seconds}"}}' if time[2] else f', "time": {seconds}}}')


@settings(max_examples=300, deadline=None)
@given(st.lists(ENVELOPES, min_size=1, max_size=4), st.sampled_from(["", "\n", " \r\n"]), st.booleans())
def test_parse_after_encode_loses_nothing(envelopes, between, ascii_only):
    body = between.join(encode(each, ascii_only) for each in envelopes).encode()
    found = list(splunk.parse(body, {}))
    assert len(found) == len(envelopes)
    for event, (more, sent, time) in zip(found, envelopes, strict=True):
        document = stored(event)
        data, notes = document["data"], document.get("notes", [])
        for key, value in more.items():
            if key == "level" and isinstance(value, str):
                assert value.lower() == data["level"]
                assert (
                    value == value.lower()
                    or data["severity_text"] == value
                    or json.dumps(value) in [n["original"] for n in notes]
                )
            elif not (key == "level" and value is None):
                assert data[key] == value
        assert event_of(document) == sent
        nanoseconds = data.get("time_unix_nano", round(document["timestamp"].timestamp() * 1000) * 1_000_000)
        assert nanoseconds == (time[0] * 10**9 + int(time[1].ljust(9, "0") or "0") if time else NOW * 1_000_000)


def event_of(document: dict) -> object:
    """The event that a record was made of."""
    data = document["data"]
    if "event" not in data:
        return document["message"]
    event = data["event"]
    taken = isinstance(event, dict) and document["message"] and "message" not in event
    if taken and document["message"] not in [event.get(key) for key in fields.TEXT_NAMES]:
        return {**event, "message": document["message"]}
    return event


PIECES = st.sampled_from(
    b'{"event":1}|{"event":"a","time":"x"}|{"event":|{|}|"|[|\n{"event":{"a":|\xff|\\|1e999|{"event":1,"event":2}|{"a":1}'
    b'|{"time":1e400}|\xef\xbb\xbf| |{"event":"\\ud800","time":1.5}|NaN'.split(b"|")
)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.lists(PIECES, max_size=30).map(b"".join)))
def test_whatever_comes_is_read_or_refused(body):
    try:
        for event in splunk.parse(body, {}):
            if isinstance(event, Row):
                stored(event)
            else:
                assert event.code in splunk.CODES
                assert event.raw in body
        list(splunk.parse_raw(body, {}))
    except Refused:
        pass


# Acknowledgement


class Spool:
    count = 0


def test_acknowledgements_follow_the_queue():
    asyncio.run(acknowledgements_follow_the_queue())


async def acknowledgements_follow_the_queue():
    queue = RecordQueue(collections.deque(), 1000)
    acks = splunk.Acknowledgements(queue, Spool())
    queue.offer([b"a", b"b"])
    first = acks.give("c")
    queue.offer([b"c"])
    second = acks.give("c")
    assert acks.confirmed("c", [first, second]) == {first: False, second: False}
    queue.confirm(queue.take(2, 100), [1])
    assert acks.confirmed("c", [first]) == {first: False}
    queue.confirm(queue.take(1, 100))
    assert acks.confirmed("c", [first, second, 7]) == {first: True, second: False, 7: False}
    assert acks.confirmed("other", [first]) == {first: False}
    assert second == first + 1


def test_acknowledgements_of_what_is_in_the_spool_wait_for_it():
    queue, spool = RecordQueue(collections.deque(), 1000), Spool()
    acks = splunk.Acknowledgements(queue, spool)
    spool.count = 1
    given = acks.give("c")
    assert acks.confirmed("c", [given]) == {given: False}
    queue.restore([b"a"])
    spool.count = 0
    assert acks.confirmed("c", [given]) == {given: False}
    queue.confirm(queue.take(1, 100))
    assert acks.confirmed("c", [given]) == {given: True}


def test_acknowledgements_are_bounded_and_expire(monkeypatch):
    monkeypatch.setattr(splunk_acks, "MAX_ACKS", 3)
    now = [0.0]
    acks = splunk.Acknowledgements(RecordQueue(collections.deque(), 1000), Spool(), lambda: now[0])
    given = [acks.give("c") for _ in range(5)]
    assert list(acks.confirmed("c", given).values()) == [False, False, True, True, True]
    now[0] = splunk_acks.ACK_SECONDS + 1
    acks.give("c")
    assert len(acks) == 1


@pytest.mark.gen_test
async def test_an_acknowledgement_is_true_once_mongodb_has_it(fetch, app, collection):
    response = json.loads((await fetch(EVENT, b'{"event":"a"}{"event":"b"}', headers=CHANNEL)).body)
    assert response == {"text": "Success", "code": 0, "ackId": response["ackId"]}
    ack_id = response["ackId"]
    ask = json.dumps({"acks": [ack_id, 1]}).encode()
    assert json.loads((await fetch(ACK, ask, headers=CHANNEL)).body) == {"acks": {str(ack_id): False, "1": False}}
    # To be asked is reason enough to write at once.
    await app.writer.flush()
    assert collection.count_documents({}) == 2
    assert json.loads((await fetch(ACK, ask, headers=CHANNEL)).body)["acks"][str(ack_id)] is True
    assert json.loads((await fetch(ACK, ask, headers=OTHER)).body)["acks"][str(ack_id)] is False
    by_query = url_concat(ACK, {"channel": CHANNEL["X-Splunk-Request-Channel"].lower()})
    assert json.loads((await fetch(by_query, ask)).body)["acks"][str(ack_id)] is True


@pytest.mark.gen_test
async def test_asking_writes_what_waits(fetch, app, collection):
    ack_id = json.loads((await fetch(RAW, b"a\nb", headers=CHANNEL)).body)["ackId"]
    for _ in range(100):
        if json.loads((await fetch(ACK, b'{"acks":[%d]}' % ack_id, headers=CHANNEL)).body)["acks"][str(ack_id)]:
            break
        await asyncio.sleep(0.02)
    assert collection.count_documents({}) == 2


@pytest.mark.parametrize("ack", ["memory", "journal", "stored"])
@pytest.mark.gen_test
async def test_every_level_has_acknowledgements(fetch, app, ack):
    answer = json.loads((await fetch(f"{EVENT}?ack={ack}", b'{"event":"a"}', headers=CHANNEL)).body)
    asked = json.loads((await fetch(ACK, b'{"acks":[%d]}' % answer["ackId"], headers=CHANNEL)).body)
    assert list(asked["acks"].values()) == [ack == "stored"]


class TestBothAway:
    @pytest.fixture
    def options(self, options):
        away = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
        return with_options(options, redis_url="redis://127.0.0.1:9", mongo_url=away, stored_timeout=0.3)

    @pytest.mark.gen_test
    async def test_nothing_is_acknowledged(self, fetch, app):
        ack_id = json.loads((await fetch(EVENT, b'{"event":"a"}', headers=CHANNEL)).body)["ackId"]
        await app.writer.flush()
        answer = json.loads((await fetch(ACK, b'{"acks":[%d]}' % ack_id, headers=CHANNEL)).body)
        assert list(answer["acks"].values()) == [False]
        assert code_of(await fetch(f"{EVENT}?ack=stored", b'{"event":"a"}')) == (503, 9)


# Over HTTP


def code_of(response) -> tuple:
    answer = json.loads(response.body)
    assert (response.code, answer["text"]) == splunk.CODES[answer["code"]]
    return response.code, answer["code"]


@pytest.mark.parametrize("path", ["/services/collector", EVENT, EVENT + "/1.0"])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain"])
@pytest.mark.gen_test
async def test_events_are_taken_and_stored(fetch, app, collection, path, content_type):
    body = gzip.compress(b'{"event":"a","host":"h"}{"event":"b"}')
    headers = {"Content-Encoding": "gzip", "Content-Type": content_type, "Authorization": "Splunk x"}
    response = await fetch(path + "?sourcetype=st&host=q", body, headers=headers)
    assert json.loads(response.body) == {"text": "Success", "code": 0}
    await app.writer.flush()
    found = list(collection.find().sort("_id", 1))
    assert [(document["source"], document["message"], document["data"]) for document in found] == [
        ("splunk", "a", {"host": "h", "sourcetype": "st"}),
        ("splunk", "b", {"host": "q", "sourcetype": "st"}),
    ]
    assert app.ledger.row("splunk")["stored"] == 2


@pytest.mark.parametrize("path", [RAW, RAW + "/1.0"])
@pytest.mark.gen_test
async def test_raw_text_is_a_record_a_line(fetch, app, collection, path):
    response = await fetch(
        f"{path}?source=%2Fvar%2Flog&index=main", b"one\r\n\n two\xff\n", headers={"Content-Type": "text/plain"}
    )
    assert json.loads(response.body) == {"text": "Success", "code": 0}
    await app.writer.flush()
    found = list(collection.find().sort("_id", 1))
    assert [(document["message"], document["data"]) for document in found] == [
        ("one", {"source": "/var/log", "index": "main"}),
        (" two\\udcff", {"source": "/var/log", "index": "main"}),
    ]


@pytest.mark.gen_test
async def test_a_bad_event_goes_to_quarantine_and_its_neighbours_are_stored(fetch, app, collection, database):
    response = await fetch(f"{EVENT}?ack=stored", b'{"event":1}{"event":"a"b"}{"event":null}{"event":2}')
    assert code_of(response) == (200, 0)
    assert [document["data"]["event"] for document in collection.find().sort("_id", 1)] == [1, 2]
    kept = list(database["logs_quarantine"].find().sort("_id", 1))
    assert [(document["original"], document["reason"]) for document in kept] == [
        (b'{"event":"a"b"}', "record 1: not JSON: Expecting ',' delimiter"),
        (b'{"event":null}', "record 2: Event field cannot be blank"),
    ]
    assert app.ledger.row("splunk") == {"received": 4, "stored": 2, "quarantined": 2, "refused": 0, "queued": 0}


@pytest.mark.gen_test(timeout=60)
async def test_an_event_too_large_for_mongodb_goes_to_quarantine_alone(fetch, database):
    large = b'{"event": %b }' % BEYOND_MONGODB
    response = await fetch(f"{EVENT}?ack=stored", b'{"event":1} ' + large + b'{"event":2}', request_timeout=60)
    assert code_of(response) == (200, 0)
    kept = database["logs_quarantine"].find_one({"parts": 2})
    assert (kept["code"], large.startswith(kept["original"])) == ("too-large", True)


@pytest.mark.parametrize(
    ("path", "body", "headers", "code", "number"),
    [
        (EVENT, b"", {}, 5, None),
        (RAW, b"\n", {}, 5, None),
        (EVENT, b"junk", {}, 6, 0),
        (EVENT, b'{"event":null}{"event":', {}, 13, 0),
        (EVENT, b'{"a":1}', {}, 12, 0),
        (EVENT, b'{"event":1,"index":[]}', {}, 7, 0),
        (EVENT, b'{"event":1}', {"X-Splunk-Request-Channel": "mine"}, 11, None),
        (EVENT + "?ack=maybe", b'{"event":1}', {}, 6, None),
        (EVENT, b"broken", {"Content-Encoding": "gzip"}, 6, None),
        (EVENT, gzip.compress(b" " * (17 << 20)), {"Content-Encoding": "gzip"}, 27, None),
        (ACK, b'{"acks":[1]}', {}, 10, None),
        (ACK, b'{"acks":[1]}', {"X-Splunk-Request-Channel": "mine"}, 11, None),
        (ACK, b'{"acks":["a"]}', CHANNEL, 6, None),
        (ACK, b"junk", CHANNEL, 6, None),
        (ACK, b"", CHANNEL, 6, None),
        (ACK, b'{"acks":[%b]}' % b",".join([b"1"] * 100_001), CHANNEL, 27, None),
    ],
)
@pytest.mark.gen_test
async def test_refusals(fetch, app, caplog, path, body, headers, code, number):
    response = await fetch(path, body, headers=headers)
    assert code_of(response) == (splunk.CODES[code][0], code)
    assert json.loads(response.body).get("invalid-event-number") == number
    assert (app.records, caplog.records) == (type(app.records)(), [])


@pytest.mark.gen_test
async def test_other_methods_and_codings(fetch):
    response = await fetch(EVENT)
    assert (response.code, response.headers["Allow"]) == (405, "POST, OPTIONS")
    assert json.loads(response.body)["code"] == 405
    assert (await fetch(EVENT, b"{}", headers={"Content-Encoding": "br"})).code == 415
    # Docker asks so whether there is a collector.
    assert (await fetch(EVENT + "/1.0", method="OPTIONS")).code == 200


@pytest.mark.gen_test
async def test_sending_again_under_a_key_stores_once(fetch, collection):
    for _ in range(2):
        await fetch(f"{EVENT}?ack=stored", b'{"event":1}{"event":2}', headers={"Idempotency-Key": "k"})
    assert collection.count_documents({}) == 2


class TestFull:
    @pytest.fixture
    def options(self, options):
        return with_options(options, queue_max_bytes=200)

    @pytest.mark.gen_test
    async def test_it_is_busy_and_unhealthy(self, fetch, app):
        assert code_of(await fetch("/services/collector/health")) == (200, 17)
        room = 199 - len(records_module.encode_job("", [], b"1" * 12, NOW))
        await app.intake.accept([records_module.encode_job("x" * room, [], b"1" * 12, NOW)], "journal", "jobs")
        response = await fetch(EVENT, b'{"event":"a"}')
        assert (*code_of(response), int(response.headers["Retry-After"]) > 0) == (503, 9, True)
        assert code_of(await fetch("/services/collector/health/1.0?ack=true&token=x")) == (503, 18)
        assert (await fetch("/services/collector/health", method="HEAD")).code == 503
        assert app.ledger.row("splunk")["refused"] == 1


class TestRedisAway:
    @pytest.fixture
    def options(self, options):
        return with_options(options, redis_url="redis://127.0.0.1:9", ack="journal")

    @pytest.mark.gen_test
    async def test_it_is_busy_and_gives_no_acknowledgement(self, fetch, app):
        response = await fetch(EVENT, b'{"event":"a"}', headers=CHANNEL)
        assert (*code_of(response), "ackId" in json.loads(response.body)) == (503, 9, False)
        assert (len(app.records), response.headers["Retry-After"]) == (0, "1")


# A client no one here wrote


@pytest.mark.gen_test
async def test_splunk_handler(app, http_server, base_url, collection):
    before = datetime.datetime.now(datetime.UTC)
    handler = SplunkHandler(
        host="unused",
        port=0,
        token="t",
        index="main",
        hostname="web-1",
        source="shop",
        sourcetype="app",
        protocol="http",
        verify=False,
        url=base_url + EVENT,
        flush_interval=0.3,
    )
    logger = logging.Logger("shop")
    logger.addHandler(handler)
    for n in range(50):
        logger.warning("grüße %d\nzwei", n)
    await asyncio.get_running_loop().run_in_executor(None, handler.shutdown)
    handler.session.close()
    await app.writer.flush()
    found = list(collection.find().sort("timestamp", 1))
    assert sorted(document["message"] for document in found) == sorted(f"grüße {n}\nzwei" for n in range(50))
    for document in found:
        milliseconds = math.floor(document["timestamp"].timestamp() * 1000)
        # One time in a thousand is whole milliseconds, and has no finer part to keep.
        nano = document["data"].pop("time_unix_nano", milliseconds * 1_000_000)
        assert document["data"] == {"host": "web-1", "index": "main", "source": "shop", "sourcetype": "app"}
        assert milliseconds == nano // 1_000_000
        assert before <= document["timestamp"] + datetime.timedelta(milliseconds=1)
