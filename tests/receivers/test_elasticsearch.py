import asyncio
import datetime
import gzip
import json
from pathlib import Path

import elasticsearch
import pytest
from elasticsearch import helpers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from tornado_logsrv import jsonlines, readers, receivers, records
from tornado_logsrv.config import Options
from tornado_logsrv.errors import Refused, Unreadable
from tornado_logsrv.receivers import elasticsearch as es
from tornado_logsrv.receivers import elasticsearch_probes as probes
from tornado_logsrv.receivers import fields
from tornado_logsrv.receivers.rows import Bad, Row, Rows, apart

from .batches import BEYOND_MONGODB, batch_of, documents

DATA = Path(__file__).parent.parent / "data"
NDJSON = {"Content-Type": "application/x-ndjson"}
NOW = 1_800_000_000_000
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def routes(monkeypatch):
    """The routes in the order they have in the application's table."""
    monkeypatch.setattr(receivers, "ROUTES", [*probes.FIRST_ROUTES, *es.ROUTES, *receivers.ROUTES])
    monkeypatch.setattr(readers, "ROUTES", [*readers.ROUTES, *probes.LAST_ROUTES])


def with_options(options: Options, **changed: object) -> Options:
    return Options(**{**options.__dict__, **changed})


def bulk(*lines: object) -> bytes:
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


def told(body: bytes, index: str = "") -> list[tuple]:
    """Kind, operation, index, id, and data or raw bytes of each item."""
    return [tell(*item) for item in items(body, index)]


def items(body: bytes, index: str = "") -> list[es.Item]:
    """The items of a body, each by itself."""
    return [es.Item(action, each) for action, row in es.parse(body, index) for each in apart([row])]


def tell(action: es.Action, row: object) -> tuple:
    kind = type(row).__name__
    if isinstance(row, Row):
        own = {name: value for name, value in row.data.items() if name not in ("_index", "_id")}
        return (kind, *action[:3], own)
    return (kind, *action[:3], *([row.raw] if isinstance(row, Bad) else []))


def answered(body: bytes, index: str = "", now_ms: int = NOW) -> tuple[list[dict], list[dict]]:
    """What is stored of a body, and the items of the answer."""
    fates: list = []
    batch = batch_of("elasticsearch", es.rows(es.parse(body, index), fates), now_ms)
    return documents(batch), json.loads(f"[{','.join(es.answer(batch, fate) for fate in fates)}]")


def record(document: object, action: object = None, now_ms: int = NOW) -> dict:
    """What is stored of a document."""
    (found,), _ = answered(bulk(action or {"create": {}}, document), "", now_ms)
    return found


# What is read


def test_actions_and_documents_in_turn():
    body = bulk({"create": {}}, {"a": 1}, {"index": {"_index": "own", "_id": "x"}}, {"b": 2}, {"index": {"_id": 7}}, {})
    assert told(body, "given") == [
        ("Row", "create", "given", None, {"a": 1}),
        ("Row", "index", "own", "x", {"b": 2}),
        ("Row", "index", "given", "7", {}),
    ]


def test_ids_are_taken_as_they_are_written():
    body = b"".join(b'{"create":{"_id":%b}}\n{}\n' % given for given in (b"1", b"1.0", b"true", b'"1"', b"null"))
    assert [item[3] for item in told(body)] == ["1", "1.0", "true", "1", None]


@pytest.mark.parametrize("size", [1, 30, 1000])
def test_a_body_is_the_same_in_one_piece_and_in_many(monkeypatch, size):
    whole = bulk({"create": {}}, {"n": 1}, {"delete": {}}, {"index": {}}, {"n": "x" * 50}, b"bad", b"}", {"create": {}})
    expected = told(whole + b'{"n":3}')
    monkeypatch.setattr(jsonlines, "LINES_BYTES", size)
    assert told(whole + b'{"n":3}') == expected
    assert [item[0] for item in expected] == ["Row", "NoneType", "Row", "Bad", "Row"]


def test_updates_and_deletes_cost_no_neighbour():
    body = bulk({"update": {"_id": "1"}}, {"doc": {}}, {"delete": {"_id": "2"}}, {"create": {}}, {"a": 1})
    assert [item[:2] for item in told(body)] == [("NoneType", "update"), ("NoneType", "delete"), ("Row", "create")]


@pytest.mark.parametrize("bad", [b'{"a":', b"5", b'"text"', b"\xff\xfe", b"[" * 3000])
def test_a_document_that_is_none_costs_no_neighbour(bad):
    found = items(bulk({"create": {"_id": "1"}}, bad, {"create": {}}, {"a": 1}))
    assert (found[0].row.raw, found[0].action.id, found[0].row.reason != "") == (bad, "1", True)
    assert found[1].row.data == {"a": 1}


@pytest.mark.parametrize(
    "bad", [b'{"create":{"_id":"a"b"}}', b'{"upsert":{}}', b'{"create":5}', b"{}", b'{"create":{"_index":1}}']
)
def test_an_action_that_is_none_takes_its_document_with_it_and_no_more(bad):
    found = items(bulk({"create": {}}, {"a": 1}, bad, b'{"its": "own"}', {"create": {}}, {"b": 2}))
    assert [type(item.row).__name__ for item in found] == ["Row", "Bad", "Row"]
    assert found[1].row.raw == bad + b'\n{"its": "own"}'
    found = items(bulk({"create": {}}, {"a": 1}, bad, {"create": {}}, {"b": 2}))
    assert found[1].row.raw == bad
    assert found[2].row.data == {"b": 2}


def test_an_action_without_a_document_is_bad():
    assert told(bulk({"create": {}}, {"a": 1}, b'{"create": {}}'))[1][:1] == ("Bad",)
    assert next(iter(es.parse(b'{"create": {}}'))).row.raw == b'{"create": {}}'
    assert [item[0] for item in told(bulk({"create": {}}, {"a": 1}, b"junk"))] == ["Row", "Bad"]


@pytest.mark.parametrize("body", [b"", b"\n\n", b"junk\n", b'{"a":1}\n{"b":2}\n', b"[]"])
def test_what_has_no_action_is_refused(body):
    with pytest.raises(Unreadable):
        list(es.parse(body))


def test_blank_lines_and_carriage_returns_are_read_past():
    assert [item[-1] for item in told(b'{"create":{}}\r\n{"a":1}\r\n\r\n \n{"create":{}}\n{"a":2}')] == [
        {"a": 1},
        {"a": 2},
    ]


# What becomes of it

TEXTS = st.sampled_from(["", "WARN", "info", "2026-01-31T12:00:00.123Z", "2026-01-31T12:00:00.123456Z"])
VALUES = TEXTS | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["level", "a"]), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(
    ["@timestamp", "timestamp", "message", "level", "severity", "severity_text", "log", "msg", "_index", "_bulk", "a"]
)


@pytest.mark.parametrize("lines", [3, 2048])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(usual=st.dictionaries(NAMES, VALUES, max_size=5), rest=st.lists(st.dictionaries(NAMES, VALUES, max_size=5)))
def test_documents_together_become_what_each_does_by_itself(monkeypatch, lines, usual, rest):
    action = {"create": {"_index": "shop", "pipeline": "p"}}
    plain = {"@timestamp": "2026-01-31T12:00:00.123Z", "level": "info", "message": "hello"}
    body = bulk(*(line for document in (plain, plain | usual, *rest, usual) for line in (action, document)))
    with monkeypatch.context() as patched:
        patched.setattr(es, "LINES", lines)
        together = answered(body)
        patched.setattr(es, "rows_of", lambda *_: None)
        alone = answered(body)
    assert [list(document["data"]) for document in together[0]] == [list(document["data"]) for document in alone[0]]
    assert together == alone


def test_documents_of_one_action_are_read_in_columns():
    usual = [{"@timestamp": "2026-01-31T12:00:00.123Z", "level": "INFO", "message": "hello", "n": n} for n in range(3)]
    body = bulk(*(line for document in usual for line in ({"create": {}}, document)))
    assert [(type(row), len(row.raws)) for _, row in es.parse(body)] == [(Rows, 3)]


def test_the_record():
    stored = record(
        {"@timestamp": "2026-01-31T12:00:00.123Z", "message": "hello", "log.level": "WARN", "a.b": {"$c": [1, None]}},
        {"create": {"_index": "logs-app", "_id": "x", "pipeline": "p", "routing": None, "_type": "_doc"}},
    )
    assert list(stored) == ["_id", "source", "message", "data", "timestamp"]
    assert (stored["source"], stored["message"]) == ("elasticsearch", "hello")
    assert stored["timestamp"] == datetime.datetime(2026, 1, 31, 12, 0, 0, 123000, datetime.UTC)
    assert stored["data"] == {
        "log.level": "WARN",
        "a.b": {"$c": [1, None]},
        "level": "warn",
        "_index": "logs-app",
        "_id": "x",
        "_bulk": {"pipeline": "p"},
    }


@pytest.mark.parametrize(
    ("given", "time_ns"),
    [
        ("2026-01-31T12:00:00.123456789Z", 1769860800_123456789),
        ("2026-01-31T12:00:00.123Z", 1769860800_123000000),
        ("2026-01-31T12:00:00.1234567891Z", 1769860800_123456789),
        ("2026-01-31T12:00:00,5Z", 1769860800_500000000),
        ("2026-01-31T14:00:00.000+02:00", 1769860800_000000000),
        ("2026-01-31T14:00:00+0200", 1769860800_000000000),
        ("2026-01-31 12:00:00", 1769860800_000000000),
        ("2026-01-31T12:00Z", 1769860800_000000000),
        ("2026-01-31", 1769817600_000000000),
        (1769860800123, 1769860800_123000000),
        (1769860800123.25, 1769860800_123250000),
        ("1769860800123", 1769860800_123000000),
        ("2026-01-31T12:00:60Z", None),
        ("2026-02-30T12:00:00.000Z", None),
        ("2026-W05-6T12:00:00.000Z", None),
        ("2026-01-31T12:00+01.123Z", None),
        ("2026-01-31T12:00:00.\u0661\u0662\u0663Z", None),
        ("yesterday", None),
        (1e300, None),
        (True, None),
        ({"a": 1}, None),
    ],
)
def test_times(given, time_ns):
    stored = record({"@timestamp": given})
    if time_ns is None:
        assert stored["timestamp"].timestamp() * 1000 == NOW
        assert stored["notes"][0]["change"] == "not a time, time of acceptance taken"
    else:
        assert stored["timestamp"].timestamp() * 1000 == time_ns // 1_000_000
    assert stored["data"].get("time_unix_nano") == (time_ns if time_ns and time_ns % 1_000_000 else None)
    # It is gone only where `timestamp` says the very same.
    assert stored["data"].get("@timestamp") == (None if given == "2026-01-31T12:00:00.123Z" else given)


@pytest.mark.parametrize("given", [NOW + DAY_MS + 1, "1969-12-31T23:59:59.000Z", "0001-01-01T00:00:00Z", -5, 10**30])
def test_times_that_cannot_be_are_noted(given):
    stored = record({"@timestamp": given, "big": 2**70})
    assert stored["timestamp"].timestamp() * 1000 == NOW
    assert sorted(note["path"] for note in stored["notes"])[-1] == "/timestamp"
    assert fields.moment(given) in [json.loads(note["original"]) for note in stored["notes"]]
    assert "/data/big" in [note["path"] for note in stored["notes"]]


def test_a_time_less_than_a_day_ahead_is_believed_and_without_one_it_is_that_of_acceptance():
    assert record({"@timestamp": NOW + DAY_MS})["timestamp"].timestamp() * 1000 == NOW + DAY_MS
    assert (record({"a": 1})["timestamp"].timestamp() * 1000, "notes" in record({"a": 1})) == (NOW, False)


@pytest.mark.parametrize(
    ("document", "message", "left"),
    [
        ({"message": "a"}, "a", {}),
        ({"log": "a\n"}, "a\n", {"log": "a\n"}),
        ({"MESSAGE": "a"}, "a", {"MESSAGE": "a"}),
        ({"message": "a", "log": "a"}, "a", {"message": "a", "log": "a"}),
        ({"message": "a", "log": "b"}, "a", {"log": "b"}),
        ({"message": 5, "msg": "b"}, "b", {"message": 5, "msg": "b"}),
        ({"message": ""}, "", {"message": ""}),
        ({"log": {"level": "Error"}}, "", {"log": {"level": "Error"}, "level": "error"}),
        ({"level": "INFO"}, "", {"level": "info", "severity_text": "INFO"}),
        ({"level": "info"}, "", {"level": "info"}),
        ({"level": 30, "log.level": "x"}, "", {"level": 30, "log.level": "x"}),
        ({"severity": "Notice"}, "", {"severity": "Notice", "level": "notice"}),
    ],
)
def test_text_and_level(document, message, left):
    stored = record(document)
    assert (stored["message"], stored["data"]) == (message, left)


def test_names_that_a_document_may_not_have_are_kept_beside_those_of_the_action():
    stored = record({"_index": "mine", "_id": 5}, {"index": {"_index": "i", "_id": "d"}})
    assert stored["data"] == {"_index": "i", "_index#1": "mine", "_id": "d", "_id#1": 5}
    assert [note["path"] for note in stored["notes"]] == ["/data/_index#1", "/data/_id#1"]


def test_a_note_of_the_message_goes_where_the_message_goes():
    stored = record(b'{"message": "half \\ud83d", "n\\u0000": 1}')
    assert [note["path"] for note in stored["notes"]] == ["/message", "/data/n\\u0000"]


def test_a_time_beyond_64_bits_is_noted_where_the_document_is_not_plain():
    (stored,), _ = answered(b'{"create":{}}\n{"@timestamp":100000000000000000000,"x":NaN}\n')
    assert stored["timestamp"].timestamp() * 1000 == NOW
    assert ("/timestamp", "100000000000000000000") in [(note["path"], note["original"]) for note in stored["notes"]]


def stored_of(name: str) -> list[dict]:
    stored, answers = answered((DATA / name).read_bytes())
    assert all(each["status"] == 201 for answer in answers for each in answer.values())
    return stored


def test_filebeat():
    first, second = stored_of("elasticsearch_filebeat.ndjson")
    assert (first["message"], first["data"]["_index"]) == ("payment 42 refused: card expired", "filebeat-8.13.4")
    assert first["timestamp"].isoformat() == "2024-05-14T09:21:36.482000+00:00"
    assert first["data"]["agent"]["type"] == "filebeat"
    assert (second["data"]["level"], second["data"]["_id"]) == ("warn", "Kq1nXo8BsXoVnGLR3k2a")
    assert second["data"]["_bulk"] == {"pipeline": "filebeat-8.13.4-nginx-access-pipeline"}


def test_logstash():
    first, second = stored_of("elasticsearch_logstash.ndjson")
    assert first["data"]["time_unix_nano"] == 1715678496_482517000
    assert (first["data"]["@version"], first["data"]["tags"], "_bulk" in first["data"]) == ("1", ["syslog"], False)
    assert second["data"]["_id"] == "9d5ed678fe57bcca610140957afab571"


def test_vector():
    first, second = stored_of("elasticsearch_vector.ndjson")
    for stored in (first, second):
        assert stored["timestamp"].isoformat() == "2024-05-14T09:21:36.482000+00:00"
        assert stored["data"]["time_unix_nano"] == 1715678496_482517193
    assert (first["message"], second["data"]["data_stream"]["type"]) == ("cart 7 saved", "logs")


def test_fluent_bit():
    first, second = stored_of("elasticsearch_fluent_bit.ndjson")
    assert (first["message"], first["data"]["stream"]) == ("panic: runtime error: index out of range\n", "stderr")
    assert first["data"]["kubernetes"]["labels"] == {"app.kubernetes.io/name": "shop"}
    assert (second["message"], second["data"]["_index"]) == ("Started Session 4 of user deploy.", "logstash-2024.05.14")


KEYS = st.one_of(
    st.sampled_from(["message", "log", "level", "log.level", "severity_text", "_index", "_id", "_index#1", "time"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
TIMES = st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2026, 1, 1)).flatmap(
    lambda moment: st.sampled_from(["milliseconds", "microseconds", "seconds"]).map(
        lambda unit: moment.isoformat(timespec=unit) + "Z"
    )
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=8).flatmap(
    lambda document: st.one_of(st.just(document), TIMES.map(lambda time: {"@timestamp": time, **document}))
)


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, st.booleans())
def test_nothing_of_a_document_is_lost(document, ascii_only):
    line = json.dumps(document, ensure_ascii=ascii_only).encode()
    stored = record(line, {"create": {"_index": "i", "_id": "d"}})
    data, notes = stored["data"], stored.get("notes", [])
    for key, value in document.items():
        if key == "message" and "message" not in data:
            assert stored["message"] == value
        elif key == "@timestamp" and key not in data:
            assert datetime.datetime.fromisoformat(value) == stored["timestamp"]
            assert len(value) == 24
        elif key == "level" and isinstance(value, str):
            assert data["level"] == value.lower()
            assert (
                value == value.lower()
                or value == data["severity_text"]
                or json.dumps(value) in [n["original"] for n in notes]
            )
        elif key in ("_index", "_id"):
            assert value in [data[kept] for kept in data if kept.startswith(f"{key}#")]
        elif key != "_index#1":
            assert data[key] == value
    assert (data["_index"], data["_id"]) == ("i", "d")
    if "@timestamp" in document and "." in document["@timestamp"] and len(document["@timestamp"]) == 27:
        nano = data.get("time_unix_nano", int(stored["timestamp"].timestamp() * 1000) * 1_000_000)
        assert nano // 1000 % 1_000_000 == int(document["@timestamp"][20:26])


PIECES = st.sampled_from(
    b"""{"create":{}}|{"index":{"_id":"1"}}|{"delete":{}}|{"a":1,"a":2}|{"@timestamp":9e99}|NaN|{"message":"\\ud800"}|
|\r\n|{|}|"|\xff|[[[[|{"_index":1e400}|\xef\xbb\xbf|{"create":{}}\n{"n":1}\n""".split(b"|")
)


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(st.binary(max_size=300), st.lists(PIECES, max_size=30).map(b"".join), st.lists(PIECES).map(b"\n".join))
)
def test_whatever_comes_is_read_or_refused(body):
    try:
        stored, answers = answered(body, "i")
    except Refused:
        return
    taken = [item for each in answers for item in each.values() if item["status"] == 201]
    assert len(taken) == len(stored)


# Over HTTP


@pytest.mark.gen_test
async def test_documents_are_taken_and_stored(fetch, app, collection):
    body = bulk({"create": {"_index": "a"}}, {"message": "one"}, {"index": {}}, {"message": "two"})
    response = await fetch("/logs-x/_bulk", body, headers=NDJSON)
    assert response.code == 200
    assert (response.headers["X-Elastic-Product"], response.headers["Content-Type"]) == (
        "Elasticsearch",
        "application/json",
    )
    assert b',"errors":false,"items":[{"create":{"_index":"a","_id":"' in response.body
    items = [item for each in json.loads(response.body)["items"] for item in each.values()]
    assert [(item["_index"], item["status"], item["result"]) for item in items] == [
        ("a", 201, "created"),
        ("logs-x", 201, "created"),
    ]
    await app.writer.flush()
    stored = {str(document["_id"]): document for document in collection.find()}
    assert [stored[item["_id"]]["message"] for item in items] == ["one", "two"]
    assert [stored[item["_id"]]["data"] for item in items] == [{"_index": "a"}, {"_index": "logs-x"}]
    assert app.ledger.row("elasticsearch")["stored"] == 2


@pytest.mark.parametrize("path", ["/_bulk", "/_bulk/", "/i/_bulk?pipeline=p"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.gen_test
async def test_paths_and_methods(fetch, app, path, method):
    body = gzip.compress(bulk({"create": {}}, {"a": 1}))
    response = await fetch(path, body, method=method, headers={**NDJSON, "Content-Encoding": "gzip"})
    assert (response.code, len(app.records)) == (200, 1)


@pytest.mark.gen_test
async def test_bad_documents_go_to_quarantine_and_the_batch_is_a_success(fetch, app, collection, database):
    body = bulk({"create": {}}, b'{"a":', {"create": {"_id": "x"}}, b"7", {"create": {}}, {"b": 2})
    response = await fetch("/_bulk?ack=stored", body, headers=NDJSON)
    answer = json.loads(response.body)
    assert (response.code, answer["errors"]) == (200, False)
    shown = [(each["create"]["status"], each["create"].get("failure_store")) for each in answer["items"]]
    assert shown == [(201, "used"), (201, "used"), (201, None)]
    kept = list(database["logs_quarantine"].find().sort("_id"))
    assert [(document["original"], document["source"]) for document in kept] == [
        (b'{"a":', "elasticsearch"),
        (b"7", "elasticsearch"),
    ]
    assert str(kept[0]["_id"]) == answer["items"][0]["create"]["_id"]
    assert collection.count_documents({}) == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_document_too_large_for_mongodb_goes_to_quarantine_alone(fetch, app, database):
    large = b'{"large":%b}' % BEYOND_MONGODB
    body = bulk({"create": {}}, large, {"create": {}}, {"b": 2})
    response = await fetch("/_bulk?ack=stored", body, headers=NDJSON, request_timeout=60)
    assert (response.code, json.loads(response.body)["errors"]) == (200, False)
    kept = database["logs_quarantine"].find_one({"parts": 2})
    assert (kept["code"], large.startswith(kept["original"])) == ("too-large", True)


@pytest.mark.gen_test
async def test_updates_and_deletes_are_refused_item_by_item(fetch, app):
    body = bulk({"update": {"_id": "1"}}, {"doc": {}}, {"delete": {"_id": "2"}}, {"create": {}}, {"a": 1})
    answer = json.loads((await fetch("/i/_bulk", body, headers=NDJSON)).body)
    assert answer["errors"] is True
    assert [list(each) for each in answer["items"]] == [["update"], ["delete"], ["create"]]
    assert answer["items"][0]["update"] | {"error": 0} == {"_index": "i", "_id": "1", "status": 400, "error": 0}
    assert answer["items"][1]["delete"]["error"]["type"] == "illegal_argument_exception"
    assert (len(app.records), app.ledger.row("elasticsearch")["refused"]) == (1, 2)


@pytest.mark.gen_test
async def test_an_id_makes_sending_again_safe_and_is_a_conflict_within_a_request(fetch, app, collection):
    twice = bulk({"create": {"_id": "x"}}, {"n": 1}, {"create": {"_id": "x"}}, {"n": 2})
    for _ in range(2):
        answer = json.loads((await fetch("/i/_bulk?ack=stored", twice, headers=NDJSON)).body)
        assert [each["create"]["status"] for each in answer["items"]] == [201, 409]
        assert answer["items"][1]["create"]["error"]["type"] == "version_conflict_engine_exception"
    assert [document["data"] for document in collection.find()] == [{"n": 1, "_index": "i", "_id": "x"}]
    await fetch("/other/_bulk?ack=stored", twice, headers=NDJSON)
    assert collection.count_documents({}) == 2


@pytest.mark.gen_test
async def test_an_index_action_replaces_nothing_and_is_stored_once_for_each_document(fetch, collection):
    for n in (1, 1, 2):
        body = bulk({"index": {"_id": "x"}}, {"n": n, "big": 2**80})
        assert json.loads((await fetch("/i/_bulk?ack=stored", body, headers=NDJSON)).body)["errors"] is False
    assert sorted(document["data"]["n"] for document in collection.find()) == [1, 2]


@pytest.mark.gen_test
async def test_an_idempotency_key_is_heeded_where_there_is_no_id(fetch, collection):
    for _ in range(2):
        await fetch("/_bulk?ack=stored", bulk({"create": {}}, {}), headers={**NDJSON, "Idempotency-Key": "k"})
    assert collection.count_documents({}) == 1


def error_of(response) -> tuple:
    answer = json.loads(response.body)
    assert answer["status"] == response.code
    assert answer["error"]["root_cause"][0]["type"] == answer["error"]["type"]
    return response.code, answer["error"]["type"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "expected"),
    [
        ("/_bulk", b"", NDJSON, (400, "parse_exception")),
        ("/_bulk", b"junk", NDJSON, (400, "parse_exception")),
        ("/_bulk?ack=maybe", b"{}", NDJSON, (400, "illegal_argument_exception")),
        ("/_bulk", b"{}", {"Content-Type": "text/html"}, (415, "media_type_header_exception")),
        ("/_bulk", b"{}", {**NDJSON, "Content-Encoding": "br"}, (415, "media_type_header_exception")),
        (
            "/_bulk",
            gzip.compress(b" " * (17 << 20)),
            {**NDJSON, "Content-Encoding": "gzip"},
            (413, "content_too_long_exception"),
        ),
    ],
)
@pytest.mark.gen_test
async def test_refusals(fetch, app, caplog, path, body, headers, expected):
    response = await fetch(path, body, headers=headers)
    assert error_of(response) == expected
    assert not app.records
    assert not caplog.records


@pytest.mark.gen_test
async def test_other_methods_are_405(fetch):
    response = await fetch("/_bulk")
    assert (response.code, response.headers["Allow"]) == (405, "POST, PUT, OPTIONS")
    assert error_of(response) == (405, "exception")


class TestFull:
    @pytest.fixture
    def options(self, options):
        return with_options(options, queue_max_bytes=600)

    @pytest.mark.gen_test
    async def test_a_request_that_does_not_fit_is_rejected_whole(self, fetch, app):
        await app.intake.accept([records.encode_job("x" * 300, [], b"1" * 12, NOW)], "journal", "jobs")
        response = await fetch("/_bulk", bulk({"create": {}}, {"a": "x" * 300}), headers=NDJSON)
        assert error_of(response) == (429, "es_rejected_execution_exception")
        assert int(response.headers["Retry-After"]) > 0
        assert len(app.records) == 1

    @pytest.mark.gen_test
    async def test_a_request_that_will_never_fit_is_to_be_split(self, fetch, app):
        response = await fetch("/_bulk", bulk({"create": {}}, {"a": "x" * 600}), headers=NDJSON)
        assert error_of(response) == (413, "content_too_long_exception")
        assert not app.records

    @pytest.mark.gen_test
    async def test_the_client_tries_again_until_there_is_room(self, app, http_server, base_url, collection):
        await app.intake.accept([records.encode_job("x" * 500, [], b"1" * 12, NOW)], "journal", "jobs")
        client = client_of(base_url)
        job = asyncio.get_running_loop().run_in_executor(
            None, lambda: helpers.bulk(client, [{"_index": "i", "a": "y" * 20}], max_retries=5, initial_backoff=0.2)
        )
        while not app.ledger.row("elasticsearch")["refused"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await app.writer.flush()
        assert await job == (1, [])
        client.close()
        await app.writer.flush()
        assert collection.count_documents({"source": "elasticsearch"}) == 1


class TestRedisAway:
    @pytest.fixture
    def options(self, options):
        return with_options(options, redis_url="redis://127.0.0.1:9", ack="journal")

    @pytest.mark.gen_test
    async def test_it_is_503(self, fetch, app):
        response = await fetch("/_bulk", bulk({"create": {}}, {}), headers=NDJSON)
        assert error_of(response) == (503, "unavailable_shards_exception")
        assert (response.headers["Retry-After"], len(app.records)) == ("1", 0)


class TestBothAway:
    @pytest.fixture
    def options(self, options):
        away = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
        return with_options(options, redis_url="redis://127.0.0.1:9", mongo_url=away, stored_timeout=0.3)

    @pytest.mark.gen_test
    async def test_it_is_504_for_who_wants_it_stored_since_only_this_process_has_it(self, fetch, app):
        response = await fetch("/_bulk?ack=stored", bulk({"create": {}}, {}), headers=NDJSON)
        assert error_of(response) == (504, "timeout_exception")
        assert app.queue.unstored_count == 1


# What clients ask first

PY8 = {
    "User-Agent": "elasticsearch-py/8.13.2 (Python/3.11.7; elastic-transport/8.13.0)",
    "Accept": "application/vnd.elasticsearch+json; compatible-with=8",
    "X-Elastic-Client-Meta": "es=8.13.2,py=3.11.7,t=8.13.0,ur=2.2.1",
}
BEAT = {"User-Agent": "Elastic-filebeat/8.13.4 (linux; amd64; abc; 2024-05-14)", "Accept": "application/json"}
LOGSTASH = {"User-Agent": "logstash/8.13.4 (OS=Linux) logstash-output-elasticsearch/11.22.6", "Accept": "*/*"}
VECTOR = {"User-Agent": "Vector/0.38.0 (x86_64-unknown-linux-gnu)"}
BROWSER = {"User-Agent": "Mozilla/5.0", "Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("headers", "version"), [(PY8, "8.13.2"), (BEAT, "8.13.4"), (LOGSTASH, "8.13.4"), (VECTOR, probes.VERSION)]
)
@pytest.mark.gen_test
async def test_clients_are_told_who_is_there(fetch, headers, version):
    response = await fetch("/", headers=headers)
    answer = json.loads(response.body)
    assert (response.code, response.headers["X-Elastic-Product"]) == (200, "Elasticsearch")
    assert (answer["version"]["number"], answer["tagline"]) == (version, "You Know, for Search")
    vendor = "application/vnd.elasticsearch+json;compatible-with=8"
    assert response.headers["Content-Type"] == (vendor if headers is PY8 else "application/json")
    assert (await fetch("/", method="HEAD", headers=headers)).code == 200


@pytest.mark.parametrize("headers", [BROWSER, {"User-Agent": "curl/8.5.0", "Accept": "*/*"}, {}, {**BROWSER, **VECTOR}])
@pytest.mark.gen_test
async def test_nobody_else_is(fetch, headers):
    for method, path in (("GET", "/"), ("HEAD", "/"), ("HEAD", "/some-index"), ("PUT", "/some-index")):
        response = await fetch(path, b"" if method == "PUT" else None, method=method, headers=headers)
        # The root is the web page's.
        assert (response.code, "X-Elastic-Product" in response.headers) == (200 if path == "/" else 404, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Elastic-Client-Meta", "es=9.0.0,js=20.1.0"),
        ("X-Elastic-Product-Origin", "logstash-output-elasticsearch"),
        ("Accept", "application/vnd.elasticsearch+json; compatible-with=9"),
        ("User-Agent", "Filebeat/7.17.0"),
        ("User-Agent", "Fluent-Bit"),
        ("User-Agent", "go-elasticsearch/8.13.1 (linux amd64; Go 1.22.2)"),
    ],
)
def test_a_client_is_known_by_any_of_its_headers(name, value):
    start_line = RequestStartLine("GET", "/", "HTTP/1.1")
    request = HTTPServerRequest(start_line=start_line, headers=HTTPHeaders({name: value, "Host": "x"}))
    assert probes.looks_like_client(request)
    request.headers["Accept"] = "text/html"
    assert not probes.looks_like_client(request)


@pytest.mark.parametrize(
    ("method", "path", "part"),
    [
        ("GET", "/_license", {"license": {"status": "active", "type": "basic"}}),
        ("GET", "/_xpack", {"license": {"status": "active", "mode": "basic"}}),
        ("GET", "/_cluster/health", {"status": "green", "timed_out": False}),
        ("HEAD", "/_cat/health", None),
        ("GET", "/_nodes/http", {"_nodes": {"total": 1}}),
        ("GET", "/_nodes/_all/http", {"_nodes": {"total": 1}}),
        ("GET", "/_ilm/policy", {}),
        ("GET", "/_ilm/policy/filebeat", {"filebeat": {"version": 1}}),
        ("PUT", "/_ilm/policy/filebeat", {"acknowledged": True}),
        ("HEAD", "/_index_template/filebeat-8.13.4", None),
        ("GET", "/_index_template", {"index_templates": []}),
        ("PUT", "/_index_template/filebeat-8.13.4", {"acknowledged": True}),
        ("HEAD", "/_template/logstash", None),
        ("GET", "/_template/log%20stash", {"log stash": {"version": 1}}),
        ("PUT", "/_component_template/x", {"acknowledged": True}),
        ("PUT", "/_ingest/pipeline/x", {"acknowledged": True}),
        ("GET", "/_data_stream/filebeat-8.13.4", {"data_streams": [{"name": "filebeat-8.13.4"}]}),
        ("HEAD", "/some-index", None),
        ("PUT", "/some-index", {"acknowledged": True}),
    ],
)
@pytest.mark.gen_test
async def test_whatever_is_asked_for_is_there(fetch, app, method, path, part):
    response = await fetch(path, b'{"x":1}' if method == "PUT" else None, method=method, headers=BEAT)
    assert (response.code, response.headers["X-Elastic-Product"]) == (200, "Elasticsearch")
    assert method == "HEAD" or contains(json.loads(response.body), part)
    assert not app.records


def contains(value: object, part: object) -> bool:
    if isinstance(part, dict):
        return all(contains(value[key], each) for key, each in part.items())
    if isinstance(part, list):
        return len(value) == len(part) and all(map(contains, value, part))
    return value == part


@pytest.mark.gen_test
async def test_a_client_that_sniffs_finds_the_address_that_it_has_used(fetch, base_url):
    (node,) = json.loads((await fetch("/_nodes/_all/http", headers=BEAT)).body)["nodes"].values()
    assert f"http://{node['http']['publish_address']}" == base_url


@pytest.mark.parametrize("headers", [BEAT, BROWSER])
@pytest.mark.gen_test
async def test_other_routes_are_not_taken_over(fetch, headers):
    assert "queueSize" in json.loads((await fetch("/queue-size", headers=headers)).body)
    assert isinstance(json.loads((await fetch("/logs", headers=headers)).body), list)
    assert (await fetch("/add-job", b"1", headers=headers)).code == 202
    assert (await fetch("/logs/x/_bulk", headers=headers)).code == 404


# Clients no one here wrote


def client_of(base_url: str, **more: object) -> elasticsearch.Elasticsearch:
    return elasticsearch.Elasticsearch(base_url, max_retries=0, **more)


async def in_thread(work):
    return await asyncio.get_running_loop().run_in_executor(None, work)


MOMENT = datetime.datetime(2026, 1, 31, 12, 0, 0, 123456, datetime.UTC)
DOCUMENT = {
    "@timestamp": MOMENT,
    "message": "grüße",
    "log": {"level": "ERROR"},
    "a.b": 1,
    "$n": None,
    "f": 0.1,
    "l": [1, "x"],
}
STORED = {
    "@timestamp": "2026-01-31T12:00:00.123456+00:00",
    "time_unix_nano": 1769860800_123456000,
    "log": {"level": "ERROR"},
    "level": "error",
    "a.b": 1,
    "$n": None,
    "f": 0.1,
    "l": [1, "x"],
}


@pytest.mark.parametrize("more", [{}, {"http_compress": True}])
@pytest.mark.gen_test
async def test_elasticsearch_py_bulk(app, http_server, base_url, collection, more):
    client = client_of(base_url, **more)
    actions = [{"_index": "app", "_op_type": op, **DOCUMENT, "n": n} for n, op in enumerate(["index", "create"] * 50)]
    assert await in_thread(client.ping)
    assert (await in_thread(client.info))["version"]["number"] == elasticsearch.__versionstr__
    assert await in_thread(lambda: helpers.bulk(client, actions, chunk_size=30)) == (100, [])
    client.close()
    await app.writer.flush()
    found = list(collection.find().sort("data.n", 1))
    assert [document["data"] for document in found] == [{**STORED, "n": n, "_index": "app"} for n in range(100)]
    assert {document["message"] for document in found} == {"grüße"}
    assert {document["timestamp"] for document in found} == {MOMENT.replace(microsecond=123000)}


@pytest.mark.gen_test
async def test_elasticsearch_py_streaming_bulk(app, http_server, base_url, collection):
    client = client_of(base_url)
    actions = [{"_index": "app", "_id": f"id-{n % 8}", "_op_type": "create", "message": f"m {n}"} for n in range(10)]
    actions.append({"_op_type": "delete", "_index": "app", "_id": "id-1"})
    stream = helpers.streaming_bulk(client, actions, raise_on_error=False, chunk_size=100)
    answers = await in_thread(lambda: list(stream))
    client.close()
    assert [(ok, *item.keys()) for ok, item in answers] == [(True, "create")] * 8 + [(False, "create")] * 2 + [
        (False, "delete")
    ]
    assert [item["create"]["_id"] for _, item in answers[:10]] == [f"id-{n % 8}" for n in range(10)]
    assert {item["create"]["status"] for _, item in answers[8:10]} == {409}
    await app.writer.flush()
    assert sorted((document["data"]["_id"], document["message"]) for document in collection.find()) == [
        (f"id-{n}", f"m {n}") for n in range(8)
    ]


@pytest.mark.gen_test
async def test_elasticsearch_py_sees_errors_as_elasticsearchs(http_server, base_url):
    client = client_of(base_url)
    with pytest.raises(elasticsearch.BadRequestError, match="parse_exception"):
        await in_thread(lambda: client.bulk(body=b"junk\n"))
    assert await in_thread(lambda: client.indices.exists(index="any"))
    assert await in_thread(lambda: client.indices.exists_index_template(name="any"))
    assert (await in_thread(client.cluster.health))["status"] == "green"
    client.close()
