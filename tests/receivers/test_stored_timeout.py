"""``ack=stored`` while MongoDB does not confirm: what senders are told that send again whatever is answered 504."""

import inspect
import json

import pytest
from elastic_transport import NodeConfig
from opentelemetry.exporter.otlp.proto.http import _log_exporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

from tests.failpoints import failing
from tornado_logsrv.client import LogsrvHandler
from tornado_logsrv.config import Options
from tornado_logsrv.handler import ACK
from tornado_logsrv.readers import openapi

from .test_otlp import PROTOBUF, log_with, sent
from .test_splunk import CHANNEL, EVENT

JSON = {"Content-Type": "application/json"}
#: A request of two records, the status of its success, and that which has it sent again.
SENDERS = {
    "OTLP": ("/v1/logs", PROTOBUF, sent("a", "b"), 200, 504),
    "Loki": (
        "/loki/api/v1/push",
        JSON,
        b'{"streams":[{"stream":{"app":"x"},"values":[["1700000000000000000","a"],["1700000000000000001","b"]]}]}',
        204,
        504,
    ),
    "Elasticsearch": (
        "/_bulk",
        {"Content-Type": "application/x-ndjson"},
        b'{"create":{}}\n{"message":"a"}\n{"index":{}}\n{"message":"b"}\n',
        200,
        504,
    ),
    "HEC": (EVENT, JSON, b'{"event":"a"}{"event":"b"}', 200, 503),
    "HEC, raw": ("/services/collector/raw", JSON, b"a\nb\n", 200, 503),
    "GELF": ("/gelf", JSON, b'{"short_message":"a"}\n{"short_message":"b"}', 202, 504),
    "Datadog": ("/api/v2/logs", JSON, b'[{"message":"a"},{"message":"b"}]', 202, 504),
    "Winston": ("/winston", JSON, b'["a","b"]', 200, 504),
}
each_sender = pytest.mark.parametrize("sender", SENDERS)


@pytest.fixture
def options(options):
    return type(options)(**{**options.__dict__, "stored_timeout": 0.1})


@pytest.fixture
def mongo_fails(app, mongo):
    """``with mongo_fails():`` no insert of the server's is done."""
    return lambda: failing(mongo, "alwaysOn", failCommands=["insert"], errorCode=262)


async def written(app):
    """MongoDB is back: the pause is over, and what waits is written."""
    while app.unsettled:
        app.writer._forget_retry()
        await app.writer.flush()


@each_sender
@pytest.mark.gen_test
async def test_what_redis_has_is_answered_as_journal_is_and_stored_once(
    fetch, app, collection, redis_client, prefix, mongo_fails, sender
):
    path, headers, body, success, _ = SENDERS[sender]
    with mongo_fails():
        journaled, late = [await fetch(f"{path}?ack={ack}", body, headers=headers) for ack in ("journal", "stored")]
        assert (redis_client.xlen(f"{prefix}:backup:test"), collection.count_documents({})) == (2, 0)
    assert (late.code, late.headers[ACK], comparable(late)) == (success, "journal", comparable(journaled))
    await written(app)
    assert collection.count_documents({}) == 4


def comparable(answer):
    """``answer`` without what differs from one request to the next."""
    if answer.headers.get("Content-Type") != "application/json":
        return answer.code, answer.headers[ACK], answer.body
    value = json.loads(answer.body)
    for item in value.pop("items", ()):
        for fate in item.values():
            del fate["_id"]
    return answer.code, answer.headers[ACK], {**value, "took": 0}


class TestRedisAway:
    @pytest.fixture
    def options(self, options):
        return type(options)(**{**options.__dict__, "redis_url": "redis://127.0.0.1:9"})

    @each_sender
    @pytest.mark.gen_test
    async def test_what_only_this_process_has_is_to_be_sent_again(self, fetch, app, mongo_fails, sender):
        path, headers, body, _, failure = SENDERS[sender]
        with mongo_fails():
            answer = await fetch(f"{path}?ack=stored", body, headers=headers)
        assert (answer.code, int(answer.headers["Retry-After"]) >= 1, ACK in answer.headers) == (failure, True, False)
        assert app.unsettled == 2


class TestFull:
    @pytest.fixture
    def options(self, options):
        return type(options)(**{**options.__dict__, "queue_max_bytes": 2000, "spool_max_bytes": 100_000})

    @pytest.mark.gen_test
    async def test_what_redis_has_and_the_queue_has_no_room_for_is_a_success(self, fetch, app):
        path, headers, body, success, _ = SENDERS["OTLP"]
        assert (await fetch("/add-job?ack=memory", b'"%b"' % (b"x" * 1800))).code == 202
        answer = await fetch(f"{path}?ack=stored", body, headers=headers)
        assert (answer.code, answer.headers[ACK], app.spool.count) == (success, "journal", 2)


class TestConfirmed:
    @pytest.fixture
    def options(self, options):
        return type(options)(**{**options.__dict__, "stored_timeout": 60.0})

    @pytest.mark.parametrize("ack", ["memory", "journal", "stored"])
    @pytest.mark.gen_test
    async def test_the_acknowledgement_is_named(self, fetch, ack):
        for path, headers, body, success, _ in SENDERS.values():
            answer = await fetch(f"{path}?ack={ack}", body, headers=headers)
            assert (answer.code, answer.headers[ACK]) == (success, ack)


@pytest.mark.gen_test
async def test_an_indexer_acknowledgement_is_false_until_mongodb_has_the_records(fetch, app, mongo_fails):
    async def is_stored():
        asked = await fetch("/services/collector/ack", b'{"acks":[%d]}' % ack_id, headers=CHANNEL)
        return json.loads(asked.body)["acks"][str(ack_id)]

    with mongo_fails():
        ack_id = json.loads((await fetch(f"{EVENT}?ack=stored", b'{"event":"a"}', headers=CHANNEL)).body)["ackId"]
        assert not await is_stored()
    await written(app)
    assert await is_stored()


@pytest.mark.parametrize("path", ["/add-job", "/add-jobs"])
@pytest.mark.gen_test
async def test_who_knows_what_a_504_means_gets_it(fetch, app, mongo_fails, path):
    with mongo_fails():
        answer = await fetch(f"{path}?ack=stored", b'{"a":1}')
    assert (answer.code, json.loads(answer.body)["type"]) == (504, "urn:logsrv:problem:stored-timeout")
    assert app.unsettled == 1


@pytest.mark.gen_test
async def test_the_sdk_of_opentelemetry_sends_nothing_twice(
    app, http_server, base_url, io_loop, collection, mongo_fails
):
    with mongo_fails():
        await io_loop.run_in_executor(None, log_with, OTLPLogExporter(f"{base_url}/v1/logs?ack=stored"))
    assert app.ledger.row("otlp")["received"] == 2
    await written(app)
    assert collection.count_documents({}) == 2


PATIENCE = {
    "OpenTelemetry": _log_exporter.DEFAULT_TIMEOUT,
    "elasticsearch-py": inspect.signature(NodeConfig).parameters["request_timeout"].default,
    "LogsrvHandler": inspect.signature(LogsrvHandler).parameters["timeout"].default,
}


@pytest.mark.parametrize("sender", PATIENCE)
def test_half_of_a_senders_patience_is_left_for_the_way_unless_somebody_says_otherwise(sender):
    assert 0 < Options().stored_timeout <= PATIENCE[sender] / 2


# What is said of the header


@pytest.mark.gen_test
async def test_where_an_answer_has_it_the_openapi_document_says_so_and_nowhere_else(fetch, app):
    document = json.loads(openapi.encoded(tuple(app.routes)))
    bodies = {"/add-job": (JSON, b"{}"), "/add-jobs": (JSON, b"[1]")}
    bodies |= {path: (headers, body) for path, headers, body, *_ in SENDERS.values()}
    for path, (headers, body) in bodies.items():
        answer = await fetch(path, body, headers=headers)
        declared = document["paths"][path]["post"]["responses"][str(answer.code)].get("headers", {})
        assert (ACK in declared) == (ACK in answer.headers) == (path not in ("/add-job", "/add-jobs")), path
        if ACK in declared:
            assert answer.headers[ACK] in declared[ACK]["schema"]["enum"]
    elsewhere = [
        (path, method)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method not in ("post", "put", "parameters") and ACK in json.dumps(operation)
    ]
    assert elsewhere == []


@pytest.mark.gen_test
async def test_who_takes_no_records_says_nothing_of_it(app):
    document = json.loads(openapi.encoded(tuple(app.routes)))
    assert ACK not in json.dumps([document["paths"][path] for path in ("/services/collector/ack", "/sign-in", "/logs")])


class TestPages:
    @pytest.fixture
    def options(self, options):
        return type(options)(**{**options.__dict__, "cors_origins": ("https://app.example",)})

    @pytest.mark.gen_test
    async def test_a_page_from_elsewhere_may_read_it(self, fetch):
        path, headers, body, *_ = SENDERS["OTLP"]
        answer = await fetch(path, body, headers={**headers, "Origin": "https://app.example"})
        assert answer.headers[ACK] == "memory"
        assert ACK in answer.headers["Access-Control-Expose-Headers"].split(", ")
