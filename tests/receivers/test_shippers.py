import contextlib
import json
import logging
import logging.handlers
import os
import shutil
import subprocess
import urllib.parse
from pathlib import Path

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_logsrv.config import Options
from tornado_logsrv.errors import Refused, TooLarge
from tornado_logsrv.jsonlines import Block, ValuesReader
from tornado_logsrv.receivers import shippers

from ..needs import needed
from ..process import PATIENCE, eventually

REQUESTS = json.loads((Path(__file__).parent.parent / "data" / "shipper_requests.json").read_text(encoding="utf-8"))
FORM = {"Content-Type": shippers.FORM}


@pytest.fixture
def app(app):
    app.add_handlers(".*", shippers.ROUTES)
    return app


def with_options(options: Options, **changed: object) -> Options:
    return Options(**{**options.__dict__, **changed})


def queued(app):
    return [bson.decode(record) for record in app.records]


def data(app):
    return [document["data"] for document in queued(app)]


# What is read


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        (b"a=1&b=x+y&c=%26%3D", {"a": "1", "b": "x y", "c": "&="}),
        (b"a=1&a=2&b=", {"a": ["1", "2"], "b": ""}),
        (b"alone", {"alone": ""}),
        (b"w=%C3%B6&raw=\xc3\xb6", {"w": "ö", "raw": "ö"}),
        (b"bad=%FF&raw=\xff", {"bad": "\udcff", "raw": "\udcff"}),
        (b"a;b=1", {"a;b": "1"}),
        (b"", {}),
    ],
)
def test_a_form_is_an_object_of_texts(form, fields):
    assert json.loads(shippers.form_as_json(form)) == fields


def test_a_form_of_too_many_fields_is_refused():
    with pytest.raises(TooLarge):
        shippers.form_as_json(b"a&" * (shippers.MAX_FIELDS + 1))


@given(st.dictionaries(st.text(), st.text()))
def test_a_form_loses_nothing(fields):
    form = urllib.parse.urlencode(fields).encode()
    assert json.loads(shippers.form_as_json(form)) == fields
    assert not form or form.startswith(b"=") or shippers.is_form(shippers.FORM, form)


@settings(max_examples=500)
@given(st.binary())
def test_no_bytes_break_a_form(form):
    with contextlib.suppress(Refused):
        assert isinstance(json.loads(shippers.form_as_json(form)), dict)


@pytest.mark.parametrize(
    ("media_type", "begin", "form"),
    [
        (shippers.FORM, b"a=1", True),
        ("Application/X-WWW-Form-URLencoded; charset=utf-8", b"%7B=1", True),
        (shippers.FORM, b'  {"a"', False),
        (shippers.FORM, b"[1", False),
        (shippers.FORM, b'"text"', False),
        (shippers.FORM, b"", False),
        ("application/json", b"a=1", False),
    ],
)
def test_what_begins_as_json_is_no_form_whatever_it_is_called(media_type, begin, form):
    assert shippers.is_form(media_type, begin) == form


@pytest.mark.parametrize(
    ("value", "envelope"),
    [
        ({"logs": [{"a": 1}]}, True),
        ({"logs": [{"a": 1}, {}]}, True),
        ({"logs": []}, False),
        ({"logs": [1]}, False),
        ({"logs": {"a": 1}}, False),
        ({"logs": [{"a": 1}], "more": 1}, False),
        ([{"logs": [{"a": 1}]}], False),
    ],
)
def test_an_envelope_has_nothing_but_logs(value, envelope):
    assert shippers.is_envelope(Block(0, [value], [0])) == envelope
    assert not shippers.is_envelope(Block(1, [value], [1]))


def test_the_notes_of_an_envelope_go_with_its_records():
    (block,) = ValuesReader().feed(b'{"logs":[{"a":1},{"b":NaN,"c":{"d":1e999}},{"k":1,"k":2}]}\n')
    assert shippers.is_envelope(block)
    inner = shippers.unwrapped(block)
    assert len(inner.values) == 3
    assert {number: [note["path"] for note in notes] for number, notes in inner.notes.items()} == {
        1: ["/data/b", "/data/c/d"],
        2: ["/data/k"],
    }


# Over HTTP


@pytest.mark.parametrize("request_", REQUESTS, ids=[request["sender"] for request in REQUESTS])
@pytest.mark.gen_test
async def test_what_shippers_send_is_stored_as_they_sent_it(fetch, app, collection, request_):
    headers = {"Content-Type": "", **request_["headers"]}
    response = await fetch(
        request_["path"] + "?ack=stored", request_["body"].encode(), method=request_["method"], headers=headers
    )
    assert response.code == request_["status"]
    documents = list(collection.find().sort("_id"))
    assert [document["data"] for document in documents] == request_["data"]
    assert {(document["message"], len(document)) for document in documents} == {("Job processed", 4)}
    assert app.ledger.row("jobs")["stored"] == len(documents)


@pytest.mark.parametrize("path", ["/add-job", "/add-jobs"])
@pytest.mark.gen_test
async def test_a_form_and_a_query_are_one_record(fetch, app, path):
    assert (await fetch(path, b"name=x&msg=%C3%B6+1&empty=", headers=FORM)).code == 202
    assert (await fetch(path + "?name=x&msg=%C3%B6+1&empty=&ack=memory")).code == 202
    assert data(app) == [{"name": "x", "msg": "ö 1", "empty": ""}] * 2
    assert {document["message"] for document in queued(app)} == {"Job processed"}


@pytest.mark.parametrize("path", ["/add-job", "/add-jobs"])
@pytest.mark.gen_test
async def test_a_form_that_is_no_utf_8_is_kept_with_a_note(fetch, app, path):
    assert (await fetch(path, b"a=%FF", headers=FORM)).code == 202
    (document,) = queued(app)
    assert document["data"] == {"a": "\\udcff"}
    assert [note["path"] for note in document["notes"]] == ["/data/a"]


@pytest.mark.parametrize("path", ["/add-job", "/add-jobs"])
@pytest.mark.gen_test
async def test_head_and_a_get_of_nothing_are_health_checks(fetch, app, path):
    for method, target in (("HEAD", path), ("GET", path), ("GET", path + "?ack=memory")):
        assert (await fetch(target, method=method)).code == 200
    response = await fetch(path, method="DELETE")
    assert (response.code, response.headers["Allow"]) == (405, "GET, HEAD, POST, PUT, OPTIONS")
    assert not app.records


@pytest.mark.parametrize("path", ["/add-job", "/add-jobs"])
@pytest.mark.gen_test
async def test_a_get_with_a_body_and_a_put_are_as_post(fetch, app, path):
    for method in ("GET", "PUT"):
        response = await fetch(path, b'{"a":1}', method=method, allow_nonstandard_methods=True)
        assert response.code == 202
    assert data(app) == [{"a": 1}] * 2


@pytest.mark.gen_test
async def test_json_that_curl_calls_a_form_is_json(fetch, app):
    for body in (b'{"hello":"world"}', b" [1]", b'"text"'):
        assert (await fetch("/add-job", body, headers=FORM)).code == 202
    assert data(app) == [{"hello": "world"}, [1], "text"]
    assert (await fetch("/add-job", b'{"hello"', headers=FORM)).code == 400
    assert (await fetch("/add-job", b"", headers=FORM)).code == 400
    assert (await fetch("/add-jobs", b"", headers=FORM)).code == 400


@pytest.mark.parametrize(
    ("body", "media_type", "found"),
    [
        (b'{"logs":[{"a":1},{"a":2}]}', "application/json", [{"a": 1}, {"a": 2}]),
        (b' {"logs":[{"a":1},{"a":2}]}\n\n', "", [{"a": 1}, {"a": 2}]),
        (b'{"logs":[{"a":1}]}\n{"b":1}', "application/json", [{"logs": [{"a": 1}]}, {"b": 1}]),
        (b'{"b":1}\n{"logs":[{"a":1}]}', "application/json", [{"b": 1}, {"logs": [{"a": 1}]}]),
        (b'{"logs":[{"a":1}]}', "application/x-ndjson", [{"logs": [{"a": 1}]}]),
        (b'[{"logs":[{"a":1}]}]', "application/json", [{"logs": [{"a": 1}]}]),
        (b'{"logs":[{"a":1}],"b":1}', "application/json", [{"logs": [{"a": 1}], "b": 1}]),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.gen_test
async def test_an_envelope_is_all_of_a_body(fetch, app, body, media_type, found, size):
    async def produce(write):
        for start in range(0, len(body), size):
            await write(body[start : start + size])

    response = await fetch("/add-jobs", method="POST", body_producer=produce, headers={"Content-Type": media_type})
    assert json.loads(response.body)["accepted"] == len(found)
    assert data(app) == found


@pytest.mark.gen_test
async def test_a_resent_envelope_and_a_resent_form_are_stored_once(fetch, collection):
    for _ in range(2):
        await fetch("/add-jobs?ack=stored", b'{"logs":[{"a":1},{"a":2}]}', headers={"Idempotency-Key": "one"})
        await fetch("/add-jobs?ack=stored", b"a=3", headers=FORM | {"Idempotency-Key": "two"})
        await fetch("/add-jobs?ack=stored&key_field=id", b'{"logs":[{"id":"x"}]}')
    assert collection.count_documents({}) == 4


@pytest.mark.gen_test
async def test_winston_gets_200_for_success_alone(fetch, app):
    good = await fetch("/winston", b'{"level":"info","message":"x"}')
    assert (good.code, json.loads(good.body)["accepted"]) == (200, 1)
    assert (await fetch("/winston", b"not json")).code == 400
    assert (await fetch("/winston", b"x=1", headers=FORM)).code == 415
    assert (await fetch("/winston")).code == 405


class TestFull:
    @pytest.fixture
    def options(self, options):
        return with_options(options, queue_max_bytes=100, max_body_bytes=1000)

    @pytest.mark.parametrize("path", ["/add-job", "/add-jobs", "/winston"])
    @pytest.mark.gen_test
    async def test_full_and_too_large_are_answered_as_ever(self, fetch, app, path):
        assert (await fetch(path, b'{"a":"%b"}' % (b"x" * 100))).code == 503
        assert (await fetch(path, b'{"a":"%b"}' % (b"x" * 1000))).code == 413
        assert app.ledger.row("jobs")["refused"] == 2

    @pytest.mark.parametrize("path", ["/add-job", "/add-jobs"])
    @pytest.mark.gen_test
    async def test_forms_too(self, fetch, app, path):
        assert (await fetch(path, b"a=" + b"x" * 100, headers=FORM)).code == 503
        assert (await fetch(path, b"a=" + b"x" * 1000, headers=FORM)).code == 413
        assert (await fetch(path + "?a=" + "x" * 100)).code == 503


# Real senders


# It leaves its connections to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("path", ["/add-job", "/add-jobs", "/add-job?ack=memory"])
@pytest.mark.gen_test
async def test_pythons_http_handler(app, http_server, http_port, io_loop, collection, method, path):
    logger = logging.Logger("shop.cart")
    handler = logging.handlers.HTTPHandler(f"127.0.0.1:{http_port}", path, method=method)
    logger.addHandler(handler)
    sent = []
    logger.addFilter(lambda record: sent.append(vars(record).copy()) or True)

    def log():
        logger.warning("räksmörgås %d & more", 7, extra={"order": 17, "empty": ""})

    await io_loop.run_in_executor(None, log)
    await io_loop.run_in_executor(None, eventually, lambda: app.unsettled == 1, "it has arrived")
    await app.writer.flush()
    (document,) = collection.find()
    assert document["data"] == {name: str(value) for name, value in sent[0].items()}
    assert (document["data"]["order"], document["data"]["levelname"]) == ("17", "WARNING")


SYSLOG_NG = """
@version: 3.38
options { stats-freq(0); time-reopen(1); };
source s { file("{input}" flags(no-parse) follow-freq(0.1)); };
destination batches { http(url("{url}/add-jobs?ack=memory") method("{method}") batch-lines(2) batch-timeout(300)
    body-prefix("[") delimiter(",") body-suffix("]") body("$(format-json message=$MESSAGE to=batches)")); };
destination single { http(url("{url}/add-job?ack=memory") method("{method}")
    body("$(format-json message=$MESSAGE to=single)")); };
log { source(s); destination(batches); destination(single); };
"""


def start_syslog_ng(directory, url, method):
    """syslog-ng on the file ``input``, with all that it writes in ``directory``."""
    program = shutil.which("syslog-ng", path=os.environ["PATH"] + ":/usr/sbin")
    needed("syslog-ng (Debian: syslog-ng-core, syslog-ng-mod-http)", program)
    conf = SYSLOG_NG
    for name, value in {"input": directory / "input", "url": url, "method": method}.items():
        conf = conf.replace(f"{{{name}}}", str(value))
    (directory / "conf").write_text(conf, encoding="utf-8")
    files = [f"--{name}={directory / name}" for name in ("persist-file", "control", "pidfile")]
    with (directory / "output").open("w") as output:
        return subprocess.Popen(
            [program, "--foreground", "--no-caps", f"--cfgfile={directory / 'conf'}", *files],
            stdout=output,
            stderr=output,
        )


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.gen_test(timeout=PATIENCE)
async def test_syslog_ng(app, http_server, base_url, io_loop, collection, tmp_path, method):
    lines = ['hello "wörld"', "two", "three"]
    (tmp_path / "input").write_text("\n".join(lines) + "\n", encoding="utf-8")
    process = start_syslog_ng(tmp_path, base_url, method)
    try:
        await io_loop.run_in_executor(None, eventually, lambda: app.unsettled == 6, "all have arrived")
    finally:
        process.terminate()
        await io_loop.run_in_executor(None, process.wait)
    await app.writer.flush()
    found = [document["data"] for document in collection.find()]
    for to in ("batches", "single"):
        assert sorted(each["message"] for each in found if each["to"] == to) == sorted(lines)


def node(tmp_path, script, url):
    """Run ``script`` with node, on the packages that LOGSRV_TEST_NODE_MODULES (a node_modules directory) has."""
    program, modules = shutil.which("node"), os.environ.get("LOGSRV_TEST_NODE_MODULES", "")
    needed("node, with LOGSRV_TEST_NODE_MODULES", program and modules and Path(modules).is_dir())
    (tmp_path / "script.js").write_text(script, encoding="utf-8")
    return subprocess.run(
        [program, tmp_path / "script.js", url],
        env={**os.environ, "NODE_PATH": modules},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


WINSTON = """
const winston = require('winston');
const url = new URL(process.argv[2]);
for (const batch of [false, true]) {
  const http = new winston.transports.Http({
    host: url.hostname, port: Number(url.port), path: '/winston?ack=stored', batch, batchCount: 2 });
  http.on('warn', error => console.log('warn ' + error.message));
  http.on('logged', () => console.log('logged'));
  const log = winston.createLogger({ transports: [http] });
  log.info('räksmörgås', { batch, nested: { 'a.b': [1, null] } });
  log.error('second', { batch });
}
"""


@pytest.mark.gen_test(timeout=PATIENCE)
async def test_winston(app, http_server, base_url, io_loop, collection, tmp_path):
    result = await io_loop.run_in_executor(None, node, tmp_path, WINSTON, base_url)
    # Of a batch it tells once.
    assert (result.stdout.split(), result.stderr) == (["logged"] * 3, "")
    found = [document["data"] for document in collection.find()]
    for batch in (False, True):
        mine = sorted((each for each in found if each["batch"] is batch), key=lambda each: each["level"], reverse=True)
        assert mine == [
            {"level": "info", "message": "räksmörgås", "batch": batch, "nested": {"a.b": [1, None]}},
            {"level": "error", "message": "second", "batch": batch},
        ]


PINO = """
const pino = require('pino');
const { createWriteStream } = require('pino-http-send');
const [url, options] = [process.argv[2] + '/add-jobs?ack=stored', OPTIONS];
const log = pino(createWriteStream({ url, batchSize: 2, retries: 0, silent: false, ...options }));
log.info({ user: { id: 7 } }, 'räksmörgås');
log.error(new Error('broken'), 'second');
"""


@pytest.mark.parametrize("how", [{}, {"bodyType": "ndjson"}, {"method": "PUT"}, {"method": "GET"}])
@pytest.mark.gen_test(timeout=PATIENCE)
async def test_pino(app, http_server, base_url, io_loop, collection, tmp_path, how):
    script = PINO.replace("OPTIONS", json.dumps(how))
    result = await io_loop.run_in_executor(None, node, tmp_path, script, base_url)
    assert (result.stdout, result.stderr) == ("", "")
    first, second = (document["data"] for document in collection.find().sort("data.level"))
    assert first == {
        "level": 30,
        "time": first["time"],
        "pid": first["pid"],
        "hostname": first["hostname"],
        "user": {"id": 7},
        "msg": "räksmörgås",
    }
    assert (second["level"], second["msg"], second["err"]["type"], second["err"]["message"]) == (
        50,
        "second",
        "Error",
        "broken",
    )
