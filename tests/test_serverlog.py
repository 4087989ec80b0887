"""The server's own log: its two forms, the id of each refusal in it, and what must never be."""

import io
import json
import logging
import re
import sys

import pytest

from tornado_logsrv import serverlog, wirelog
from tornado_logsrv.burst import A_SECOND, AT_ONCE
from tornado_logsrv.config import Options
from tornado_logsrv.lane import Lane
from tornado_logsrv.serverlog import KEPT_LINES, JsonFormatter, Refusals, RequestLog, TextFormatter

PROBLEM = {"type": "urn:logsrv:problem:queue-full", "title": "t", "status": 503, "detail": "the queue is full"}
SECRET_BODY = b'{"password":"hunter2"'


def event(message, **more):
    return logging.makeLogRecord({"name": "logsrv.x", "levelname": "INFO", "levelno": 20, "msg": message, **more})


def failure():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        return sys.exc_info()


def test_json_is_one_object_a_line():
    line = JsonFormatter().format(event("a\n%s", args=("b",), created=1_767_323_045.678, exc_info=failure()))
    read = json.loads(line)
    assert "\n" not in line
    assert read["time"] == "2026-01-02T03:04:05.678Z"
    assert (read["level"], read["logger"], read["message"]) == ("info", "logsrv.x", "a\nb")
    assert read["exception"].splitlines()[0] == "Traceback (most recent call last):"


def test_fields_are_members():
    assert json.loads(JsonFormatter().format(event("m", fields={"request": "r1"})))["request"] == "r1"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_password_in_a_url_is_not_written(formatter):
    line = formatter.format(
        event("cannot connect to mongodb://me:hunter2@h:1/x and redis://:hunter2@h http://h:80/a@b")
    )
    assert "hunter2" not in line
    assert "mongodb://me:***@h:1/x" in line
    assert "http://h:80/a@b" in line


@pytest.fixture
def written(caplog):
    caplog.set_level(logging.INFO, "logsrv.http")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "logsrv.http"]


def test_a_flood_of_refusals_is_counted_and_not_written(written):
    now = [0.0]
    refusals = Refusals(lambda: now[0])
    for number in range(1000):
        refusals.note("POST", "/add-job", PROBLEM, f"r{number}")
    assert len(written()) == AT_ONCE
    # Refusals of the other kind have room of their own.
    refusals.note("GET", "/x", {"type": "about:blank", "status": 404}, "other")
    assert written()[-1] == "GET /x answered 404, request other"
    now[0] += 1.5 / A_SECOND
    refusals.note("POST", "/add-job", PROBLEM, "last")
    left = 1000 - AT_ONCE
    assert written()[-1].endswith(f"request last: the queue is full ({left} others like it are not in this log)")


def test_with_the_level_debug_all_are_written(written, caplog):
    caplog.set_level(logging.DEBUG, "logsrv.http")
    refusals = Refusals(lambda: 0.0)
    for number in range(100):
        refusals.note("POST", "/add-job", PROBLEM, f"r{number}")
    assert len(written()) == 100


async def refused(fetch, *request, **more):
    """The id of a refused request, which its header and its body agree on, and the status."""
    response = await fetch(*request, **more)
    instance = json.loads(response.body)["instance"]
    name = response.headers["X-Request-Id"]
    assert instance == f"urn:logsrv:request:{name}"
    return name, response.code


@pytest.mark.gen_test
async def test_the_id_of_a_refusal_is_in_the_log_and_the_record_is_not(fetch, caplog, written):
    name, status = await refused(fetch, "/add-job?ack=memory&token=hunter2", SECRET_BODY)
    assert (status, written()[-1]) == (400, f"POST /add-job answered 400 unreadable, request {name}")
    assert caplog.records[-1].levelno == logging.INFO
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("lane", [True, False])
@pytest.mark.gen_test
async def test_a_refusal_for_want_of_room_is_an_error_whichever_way_it_took(
    fetch, app, caplog, written, monkeypatch, lane
):
    if not lane:
        monkeypatch.setattr(Lane, "__call__", lambda lane, *request: None)
    app.queue._max_bytes = 0
    name, status = await refused(fetch, "/add-job", b"1")
    assert status == 503
    assert written()[-1].startswith(f"POST /add-job answered 503 queue-full, request {name}: the queue is full")
    assert caplog.records[-1].levelno == logging.ERROR


@pytest.mark.parametrize("given", ["0123-abc", "urn:uuid:5", "a" * 128])
@pytest.mark.gen_test
async def test_the_id_that_a_request_brings_is_its_name(fetch, given):
    assert await refused(fetch, "/nowhere", headers={"X-Request-Id": given}) == (given, 404)


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "<script>", '"'])
@pytest.mark.gen_test
async def test_an_id_that_is_not_fit_to_be_shown_is_not(fetch, given):
    name, _ = await refused(fetch, "/nowhere", headers={"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f]{24}", name)


@pytest.mark.gen_test
async def test_a_failure_that_nobody_foresaw_is_logged_once_with_its_id(fetch, app, caplog, written, monkeypatch):
    monkeypatch.setattr(app.store.reader, "page", None)
    name, status = await refused(fetch, "/logs")
    assert (status, written()) == (500, [f"GET /logs failed, request {name}"])
    assert caplog.records[-1].exc_info


@pytest.mark.parametrize("path", ["/loki/api/v1/push", "/_bulk", "/services/collector", "/v1/logs", "/gelf"])
@pytest.mark.gen_test
async def test_a_protocols_own_errors_have_their_id_in_the_header(fetch, written, path):
    response = await fetch(path, b"{")
    assert response.code == 400
    assert written()[-1].endswith(f"request {response.headers['X-Request-Id']}")


class TestMongoAway:
    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "mongo_url": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=50"})

    @pytest.mark.parametrize(
        "path",
        [
            "/logs",
            "/logs?format=csv",
            "/logs?q=a",
            "/logs/histogram",
            "/logs/fields",
            "/quarantine",
            f"/logs/{'0' * 24}",
        ],
    )
    @pytest.mark.gen_test
    async def test_whom_the_server_speaks_to_is_told_in_the_log_alone(self, fetch, written, path):
        response = await fetch(path)
        assert response.code == 503
        assert json.loads(response.body)["type"] == "urn:logsrv:problem:store-unavailable"
        assert b"127.0.0.1" not in response.body
        assert f"request {response.headers['X-Request-Id']}: MongoDB cannot be used: " in written()[-1]
        assert "127.0.0.1:9: " in written()[-1]


class TestRequestLog:
    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "request_log": "yes", "log_format": "json"})

    @pytest.mark.gen_test
    async def test_each_request_is_a_line_without_its_query_and_body(self, fetch, app, capsys):
        named = {"X-Request-Id": "r1"}
        await fetch("/add-job?ack=memory", SECRET_BODY + b"}", headers=named)
        await fetch("/add-job?ack=journal", b"1")
        await fetch("/logs?limit=hunter2", headers=named)
        await fetch("/queue-size")
        app.look()
        text = capsys.readouterr().err
        lines = [json.loads(line) for line in text.splitlines() if '"logsrv.request"' in line]
        assert [(line["method"], line["path"], line["status"], line["request"]) for line in lines] == [
            ("POST", "/add-job", 202, "r1"),
            ("POST", "/add-job", 202, ""),
            ("GET", "/logs", 400, "r1"),
            ("GET", "/queue-size", 200, ""),
        ]
        assert all(line["address"] == "127.0.0.1" and 0 <= line["seconds"] < 60 for line in lines)
        assert "hunter2" not in text

    @pytest.mark.gen_test
    async def test_every_error_has_its_id_there_however_many_there_are(self, fetch, app, capsys):
        app.queue._max_bytes = 0
        asked = [("/nowhere", None), ("/add-job", b"1"), ("/add-job", b"{")] * AT_ONCE
        ids = [(await fetch(path, body)).headers["X-Request-Id"] for path, body in asked]
        app.look()
        lines = capsys.readouterr().err.splitlines()
        assert ids == [json.loads(line)["request"] for line in lines if '"logsrv.request"' in line]


def test_lines_of_requests_are_written_together():
    stream = io.StringIO()
    requests = RequestLog("text", stream, lambda: 1_767_323_045.678)
    requests.note("GET", "/x\x1b", 200, 0.00125, "::1", "")
    assert stream.getvalue() == ""
    requests.flush()
    assert stream.getvalue() == "2026-01-02T03:04:05.678Z ::1 GET '/x\\x1b' 200 1.25ms -\n"
    for _ in range(KEPT_LINES):
        requests.note("GET", "/x", 200, 0.0, "::1", "r")
    assert stream.getvalue().count("\n") == 1 + KEPT_LINES


def test_lines_of_requests_that_cannot_be_written_are_counted_and_told(caplog):
    with open("/dev/full", "w") as full:
        requests = RequestLog("text", full)
        for _ in range(2):
            requests.note("GET", "/x", 200, 0.0, "::1", "r")
            requests.flush()
        assert caplog.messages == []
        requests._stream = io.StringIO()
        requests.note("GET", "/x", 200, 0.0, "::1", "r")
        requests.flush()
        assert caplog.messages == ["2 lines of the request log could not be written"]
        with pytest.raises(OSError, match="No space"):
            full.close()


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/logs", "/logs"),
        ("/" + "a" * 60_000, "/" + "a" * 199 + "..."),
        ("/a\x9b31m", "'/a\\x9b31m'"),
        ("/" + "\x1b" * 300, "'/" + "\\x1b" * 199 + "...'"),
    ],
)
def test_a_path_is_written_as_far_as_a_line_has_room_and_for_no_terminal_to_act_on(path, written):
    assert serverlog.shown(path) == written


@pytest.mark.gen_test
async def test_a_path_of_any_length_makes_a_short_line_and_a_short_answer(fetch, written):
    response = await fetch("/" + "a" * 60_000)
    assert response.code == 404
    assert len(written()[-1]) < 300
    assert len(response.body) < 500


@pytest.mark.gen_test
async def test_a_path_that_is_none_is_told_as_it_was_sent(fetch):
    response = await fetch("/a%20b%s")
    assert (response.code, json.loads(response.body)["detail"]) == (404, "no such path: /a%20b%s")


def test_what_is_logged_goes_to_standard_error_in_the_form_that_was_chosen(monkeypatch):
    seen = {}
    monkeypatch.setattr(logging, "basicConfig", lambda **more: seen.update(more))
    monkeypatch.setattr(logging.getLogger(wirelog.LOGGER), "addFilter", lambda found: None)
    for form, formatter in (("json", JsonFormatter), ("text", TextFormatter)):
        serverlog.set_up("warning", form)
        assert type(seen["handlers"][0].formatter) is formatter
        assert (seen["handlers"][0].stream, seen["level"]) == (sys.stderr, "WARNING")
