import base64
import dataclasses
import datetime
import gzip
import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_logsrv import auth, codings
from tornado_logsrv.errors import Refused, Unreadable
from tornado_logsrv.receivers import datadog
from tornado_logsrv.receivers.rows import Bad, Row

from .batches import BEYOND_MONGODB, batch_of, documents

DATA = Path(__file__).parent.parent / "data"
CAPTURED = json.loads((DATA / "datadog_api_client.json").read_text(encoding="utf-8"))
NODE = json.loads((DATA / "datadog_node.json").read_text(encoding="utf-8"))
NOW = 1_800_000_000_000
LOGS = "/api/v2/logs"
SECRETS = {name: auth.new_secret() for name in ("write", "read")}


def stored(log: object, **metadata: str) -> dict:
    """What MongoDB has of the only log."""
    body = log if isinstance(log, bytes) else json.dumps(log).encode()
    (found,) = documents(batch_of("datadog", datadog.parse(body, metadata), NOW))
    return found


def at(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


# What is read


def test_what_the_agent_sends():
    first, second = datadog.parse((DATA / "datadog_agent.json").read_bytes(), {})
    assert (first.message, first.time, first.notes) == ("GET /cart 200", 1700000000_123000000, [])
    assert first.data == {
        "status": "info",
        "hostname": "web-1",
        "service": "cart",
        "ddsource": "nginx",
        "ddtags": "env:prod,filename:access.log",
        "level": "info",
    }
    assert (second.message, second.data["level"], second.data["ddtags"]) == ("upstream away", "error", "")


def test_what_fluent_bit_sends():
    (row,) = datadog.parse((DATA / "datadog_fluent_bit.json").read_bytes(), {})
    assert (row.message, row.time) == ("GET /cart 200", 1700000000_123000000)
    assert row.data["kubernetes"]["labels"] == {"app.kubernetes.io/name": "cart"}
    assert (row.data["ddtags"], row.data["tagkey"]) == ("env:prod,team:shop", "app.cart")


@pytest.mark.parametrize(
    ("sent", "time", "data"),
    [
        ({"timestamp": 1700000000123}, 1700000000.123, {}),
        ({"date": "2023-11-14T22:13:20.123Z"}, 1700000000.123, {}),
        ({"date": "2023-11-14T23:13:20+01:00"}, 1700000000, {"date": "2023-11-14T23:13:20+01:00"}),
        ({"date": "1700000000123"}, 1700000000.123, {"date": "1700000000123"}),
        (
            {"timestamp": 1700000000123.5},
            1700000000.123,
            {"timestamp": 1700000000123.5, "time_unix_nano": 1700000000_123500000},
        ),
        ({"timestamp": None, "eventTime": 1700000000123}, 1700000000.123, {"timestamp": None}),
        ({"timestamp": "soon", "date": 1700000000123}, 1700000000.123, {"timestamp": "soon"}),
        ({"timestamp": 1700000000123, "date": 5}, 1700000000.123, {"date": 5}),
        ({}, NOW / 1000, {}),
    ],
)
def test_a_time_is_milliseconds_or_iso_8601(sent, time, data):
    document = stored({"message": "x", **sent})
    assert (document["timestamp"], document["data"], "notes" in document) == (at(time), data, False)


@pytest.mark.parametrize(("given", "original"), [("soon", '"soon"'), (True, "true"), ([1], "[1]"), (1e300, "1e+300")])
def test_a_time_that_is_none_is_noted(given, original):
    document = stored({"message": "x", "timestamp": given})
    assert document["timestamp"] == at(NOW / 1000)
    assert document["data"]["timestamp"] == given
    assert document["notes"] == [
        {"path": "/timestamp", "change": "not a time, time of acceptance taken", "original": original}
    ]


def test_one_beyond_64_bits_is_noted_where_the_log_is_not_plain():
    document = stored(b'{"timestamp":100000000000000000000,"x":NaN}')
    assert ("/timestamp", "100000000000000000000") in [(note["path"], note["original"]) for note in document["notes"]]


@pytest.mark.parametrize("given", [NOW + 86_400_001, -1, 1 << 70])
def test_a_time_that_cannot_be_is_noted(given):
    document = stored({"message": "x", "timestamp": given})
    assert document["timestamp"] == at(NOW / 1000)
    assert [(note["path"], note["original"]) for note in document["notes"]] == [("/timestamp", f"{given}000000")]


@pytest.mark.parametrize(
    ("sent", "data"),
    [
        ({"status": "Warning"}, {"status": "Warning", "level": "warning"}),
        ({"status": "info"}, {"status": "info", "level": "info"}),
        ({"status": 404}, {"status": 404}),
        ({"status": "404"}, {"status": "404"}),
        ({"status": "info", "level": 30}, {"status": "info", "level": 30}),
        ({"level": "WARN"}, {"level": "warn", "severity_text": "WARN"}),
        ({"status": 500, "severity": "ERROR"}, {"status": 500, "severity": "ERROR", "level": "error"}),
    ],
)
def test_a_status_that_is_a_word_is_the_level(sent, data):
    assert stored({"message": "x", **sent})["data"] == data


def test_what_the_query_says_is_for_logs_that_do_not():
    assert stored({"message": "x"}, ddtags="a:b", service="s")["data"] == {"ddtags": "a:b", "service": "s"}
    document = stored({"message": "x", "ddtags": "c:d"}, ddtags="a:b")
    assert document["data"] == {"ddtags": "c:d"}
    (note,) = document["notes"]
    assert (note["path"], note["original"]) == ("/data/ddtags", '"a:b"')


def test_what_mongodb_cannot_hold_is_kept_and_noted():
    document = stored(rb'[{"message": "\ud800", "a.b": NaN, "$k": 1, "$k": 2, "n\u0000": 3}]')
    assert document["message"] == "\\ud800"
    assert (document["data"]["$k#1"], document["data"]["$k"], document["data"]["n\\u0000"]) == (1, 2, 3)
    assert {note["path"] for note in document["notes"]} == {"/message", "/data/a.b", "/data/$k", "/data/n\\u0000"}


@pytest.mark.parametrize("odd", [b"", b',"x":NaN'])
def test_an_element_that_is_no_log_costs_no_other(odd):
    found = list(datadog.parse(b'[{"message":"a"%b},5,["b"],{"message":"c"}]' % odd, {}))
    assert [row.message if isinstance(row, Row) else row.raw for row in found] == ["a", b"5", b'["b"]', "c"]


@pytest.mark.parametrize("body", [b"", b"x", b"5", b'"text"', b'[{"message":"a"}', b'{"a":', b"\xff", b"[" * 10_000])
def test_what_is_no_logs_is_refused(body):
    with pytest.raises(Unreadable):
        list(datadog.parse(body, {}))


@pytest.mark.parametrize("body", [b"{}", b"[]", b" { } "])
def test_nothing_is_no_log(body):
    assert list(datadog.parse(body, {})) == []


VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
NAMES = st.text(max_size=8) | st.sampled_from(["ddtags", "ddsource", "status", "level", "a.b", "$c", "log", "_id"])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=3), max_size=8), st.text(min_size=1))
def test_nothing_is_lost(sent, text):
    sent = {name: value for name, value in sent.items() if name not in (*datadog.TIMES, "message")}
    (row,) = datadog.parse(json.dumps([{**sent, "message": text, "timestamp": 1700000000123}]).encode(), {})
    assert row.time == 1700000000_123000000
    if not row.notes:
        # A message that is a copy of another text stays.
        data = {name: value for name, value in row.data.items() if name != "message"}
        made = {name: data.pop(name) for name in ("level", "severity_text") if name not in sent and name in data}
        if "severity_text" in made:
            data["level"] = made["severity_text"]
        assert (row.message, data) == (text, sent)


PIECES = st.sampled_from([b"{", b"}", b"[", b"]", b",", b'"', b"\\", b"\xff", b"NaN", b":1e9", b"[" * 300, b"\0"])
BODY = b'[{"message":"a","timestamp":1.5,"status":"info","x":[1,{"b":null}]},{"message":"b","date":"2023-01-01"}]'


@settings(max_examples=500, deadline=None)
@given(
    st.lists(PIECES | st.binary(max_size=4), max_size=20).map(b"".join)
    | st.tuples(st.integers(0, len(BODY)), st.integers(0, 9), st.binary(max_size=6)).map(
        lambda cut: BODY[: cut[0]] + cut[2] + BODY[cut[0] + cut[1] :]
    )
)
def test_no_bytes_break_the_parser(body):
    try:
        found = list(datadog.parse(body, {"ddtags": "a:b"}))
    except Refused:
        return
    batch = batch_of("datadog", found, NOW)
    assert len(batch.ids) == len(found)
    assert len(batch.rejected) >= sum(isinstance(row, Bad) for row in found)


# Over HTTP


@pytest.mark.parametrize("request_", CAPTURED, ids=["plain", "gzip", "deflate", "ddtags"])
@pytest.mark.gen_test
async def test_what_datadogs_own_client_sends_is_stored_field_by_field(fetch, app, collection, request_):
    body = base64.b64decode(request_["body"])
    response = await fetch(request_["path"], body, headers=request_["headers"])
    assert (response.code, response.body, response.headers["Content-Type"]) == (202, b"{}", "application/json")
    await app.writer.flush()
    first, second = collection.find().sort("timestamp")
    said = {"ddtags": "team:shop"} if "?" in request_["path"] else {}
    notes = [each.pop("notes", []) for each in (first, second)]
    assert first == {
        "_id": first["_id"],
        "source": "datadog",
        "message": "räksmörgås 7",
        "timestamp": at(1700000000.123),
        "data": {
            "ddsource": "nginx",
            "ddtags": "env:staging,version:5.1",
            "hostname": "i-012345678",
            "service": "payment",
            "status": "Warning",
            "level": "warning",
            "order": 17,
            "http.status": 200,
            "$cost": 1.5,
        },
    }
    assert second == {
        "_id": second["_id"],
        "source": "datadog",
        "message": "no root",
        "timestamp": at(1700000000.456),
        "data": {
            "ddsource": "python",
            "service": "payment",
            "status": "error",
            "level": "error",
            "parts": ["a", {"b": None}],
            **said,
        },
    }
    # What a log says itself is kept, and the query's is not lost.
    assert [[note["original"] for note in each] for each in notes] == [['"team:shop"'] if said else [], []]
    assert app.ledger.row("datadog") == {"received": 2, "stored": 2, "quarantined": 0, "refused": 0, "queued": 0}


@pytest.mark.gen_test
async def test_what_winston_and_pino_send_is_stored_field_by_field(fetch, app, collection):
    for request, status in zip(NODE, (200, 202), strict=True):
        body = base64.b64decode(request["body"])
        assert (await fetch(request["path"], body, headers=request["headers"])).code == status
    await app.writer.flush()
    said = {"ddsource": "nodejs", "ddtags": "env:prod", "service": "cart"}
    documents = {document["message"]: document for document in collection.find()}
    assert {document["source"] for document in documents.values()} == {"datadog"}
    winston = {"hostname": "web-1", "level": "warn", "order": 17, "nested": {"a.b": None}}
    assert documents.pop("räksmörgås")["data"] == said | winston
    # pino's transport sends the whole record as text, and text it stays.
    assert [json.loads(message)["msg"] for message in sorted(documents)] == ["räksmörgås", "two"]
    assert [document["data"] for document in documents.values()] == [said, said]


@pytest.mark.parametrize("body", [b'{"message":"a"}', b'[{"message":"a"}]'])
@pytest.mark.gen_test
async def test_the_older_path_answers_200(fetch, app, body):
    response = await fetch("/v1/input", body)
    assert (response.code, response.body, len(app.records)) == (200, b"{}", 1)


@pytest.mark.gen_test
async def test_what_the_agent_and_vector_ask_first(fetch, app):
    assert (await fetch(LOGS, b"{}")).code == 202
    assert (await fetch("/v1/input", b"{}")).code == 200
    valid = await fetch("/api/v1/validate")
    assert (valid.code, json.loads(valid.body), len(app.records)) == (200, {"valid": True}, 0)


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("identity", bytes), ("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", codings.zstd.compress)],
)
@pytest.mark.gen_test
async def test_codings(fetch, app, coding, pack):
    response = await fetch(LOGS, pack(b'[{"message":"a"},{"message":"b"}]'), headers={"Content-Encoding": coding})
    assert (response.code, len(app.records)) == (202, 2)


@pytest.mark.gen_test
async def test_a_bad_element_is_in_quarantine_and_its_neighbours_are_stored_once(fetch, collection, database):
    for _ in range(2):
        body = b'[{"message":"a"},"no log",{"message":"b"}]'
        response = await fetch(f"{LOGS}?ack=stored", body, headers={"Idempotency-Key": "batch-1"})
        assert response.code == 202
    assert sorted(document["message"] for document in collection.find()) == ["a", "b"]
    kept = [(each["original"], each["source"]) for each in database["logs_quarantine"].find()]
    assert kept == [(b'"no log"', "datadog")]


@pytest.mark.gen_test
async def test_a_log_too_large_for_mongodb_is_kept_in_quarantine(fetch, collection, database):
    large = b'{"n":%b}' % BEYOND_MONGODB
    response = await fetch(f"{LOGS}?ack=stored", b'[{"message":"a"},%b]' % large)
    assert (response.code, collection.count_documents({})) == (202, 1)
    kept = database["logs_quarantine"].find_one({"parts": 2})
    assert (kept["code"], large.startswith(kept["original"])) == ("too-large", True)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"not json", {}, 400),
        (b"[5]", {}, 400),
        (gzip.compress(b"[]", mtime=0)[:-3], {"Content-Encoding": "gzip"}, 400),
        # The Agent would send these again for ever.
        (b"{}", {"Content-Encoding": "br"}, 400),
        (b"{}", {"Content-Type": "image/png"}, 400),
        (gzip.compress(b" " * 20_000_000, mtime=0), {"Content-Encoding": "gzip"}, 413),
        (b"[" + b"{}," * 250_001 + b"{}]", {}, 413),
    ],
)
@pytest.mark.gen_test
async def test_what_is_not_taken_is_said_as_v2_says_it_and_counted(fetch, app, caplog, body, headers, status):
    response = await fetch(LOGS, body, headers=headers)
    assert (response.code, response.headers["Content-Type"]) == (status, "application/json")
    (error,) = json.loads(response.body)["errors"]
    assert (set(error), error["status"]) == ({"title", "detail", "status"}, str(status))
    assert (len(app.records), app.ledger.row("datadog")["refused"], caplog.records) == (0, 1, [])


class TestFull:
    @pytest.fixture
    def options(self, options):
        return dataclasses.replace(options, queue_max_bytes=200)

    @pytest.mark.gen_test
    async def test_a_full_queue_is_503_and_says_when_to_come_again(self, fetch, app):
        responses = [await fetch(LOGS, b'{"message":"a"}') for _ in range(3)]
        assert ([each.code for each in responses], len(app.records)) == ([202, 202, 503], 2)
        headers = responses[-1].headers
        assert headers["X-Ratelimit-Reset"] == headers["Retry-After"]
        assert int(headers["Retry-After"]) >= 1


class TestAway:
    @pytest.fixture
    def options(self, options):
        away = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
        return dataclasses.replace(options, redis_url="redis://127.0.0.1:9", mongo_url=away, stored_timeout=0.3)

    @pytest.mark.gen_test
    async def test_redis_away_is_503_and_mongodb_away_504(self, fetch, app):
        assert (await fetch(f"{LOGS}?ack=journal", b'{"message":"a"}')).code == 503
        assert len(app.records) == 0
        assert (await fetch(f"{LOGS}?ack=stored", b'{"message":"a"}')).code == 504
        assert (await fetch(f"{LOGS}?ack=memory", b'{"message":"a"}')).code == 202


class TestKey:
    """A token in Datadog's own header."""

    @pytest.fixture
    def options(self, options, tmp_path):
        path = tmp_path / "tokens.toml"
        path.write_text(
            "\n".join(
                f'[[token]]\nname = "{name}"\nsha256 = "{auth.digest_of(secret)}"\nscopes = ["{name}"]'
                for name, secret in SECRETS.items()
            )
        )
        return dataclasses.replace(options, tokens_file=str(path))

    @pytest.mark.parametrize(
        ("key", "status"),
        [(None, 401), ("", 401), ("wrong", 403), (SECRETS["read"], 403), (SECRETS["write"], 202)],
        ids=("none", "empty", "wrong", "read", "write"),
    )
    @pytest.mark.gen_test
    async def test_it_decides_and_what_is_wrong_is_said_as_v2_says_it(self, fetch, app, key, status):
        headers = {} if key is None else {"DD-API-KEY": key}
        response = await fetch(LOGS, b'{"message":"a"}', headers=headers)
        assert (response.code, len(app.records)) == (status, status == 202)
        if status != 202:
            assert json.loads(response.body)["errors"][0]["status"] == str(status)
        valid = await fetch("/api/v1/validate", headers=headers)
        assert valid.code == (200 if status == 202 else status)

    @pytest.mark.gen_test
    async def test_it_is_a_token_like_any_other_and_authorization_goes_first(self, fetch):
        key = {"DD-API-KEY": SECRETS["write"]}
        assert (await fetch("/add-job", b"1", headers=key)).code == 202
        # By now the token is known to the fast lane, which does not look for a key.
        assert (await fetch("/add-job", b"1", headers=key)).code == 202
        assert (await fetch("/add-job", b"1")).code == 401
        assert (await fetch("/add-job", b"1", headers={**key, "Authorization": "Bearer wrong"})).code == 401

    @pytest.mark.gen_test
    async def test_it_is_of_no_use_to_a_page_from_elsewhere(self, fetch):
        page = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        asks = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "dd-api-key"}
        assert (await fetch(LOGS, method="OPTIONS", headers=asks)).code == 403
        response = await fetch(LOGS, b"{}", headers={**page, "DD-API-KEY": SECRETS["write"]})
        assert response.code == 403

    @pytest.mark.gen_test
    async def test_in_the_query_it_is_none(self, fetch):
        assert (await fetch(f"{LOGS}?dd-api-key={SECRETS['write']}", b"{}")).code == 401
