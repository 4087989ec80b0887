import json
import socket
import time

import bson
import pytest

from tornado_logsrv.config import Options


@pytest.mark.gen_test
async def test_a_job_is_acknowledged_queued_and_stored(fetch, app, collection):
    before = time.time()
    response = await fetch("/add-job", b'{"hello": ["w\xc3\xb6rld", 1.5]}')
    assert response.code == 202
    assert response.headers["Content-Type"] == "application/json"
    answer = json.loads(response.body)
    assert answer == {"message": "Job added", "id": answer["id"], "ack": "memory"}
    assert len(app.records) == 1
    await app.writer.flush()
    document = collection.find_one()
    assert str(document["_id"]) == answer["id"]
    assert (document["message"], document["data"]) == ("Job processed", {"hello": ["wörld", 1.5]})
    assert before - 0.001 <= document["timestamp"].timestamp() <= time.time()
    assert list(document) == ["_id", "message", "data", "timestamp"]


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=UTF-8", "application/x+json", ""]
)
@pytest.mark.gen_test
async def test_json_is_read_under_its_names_and_under_none(fetch, app, content_type):
    response = await fetch("/add-job", b"1", headers={"Content-Type": content_type})
    assert response.code == 202


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({"Content-Type": "text/plain"}, "text/plain"),
        ({"Content-Type": "multipart/form-data"}, "application/json"),
        ({"Content-Type": "application/json; charset=utf-16"}, "utf-16"),
        ({"Content-Encoding": "br"}, "br"),
    ],
)
@pytest.mark.gen_test
async def test_other_media_are_415(fetch, app, headers, detail):
    response = await fetch("/add-job", b'{"a":1}', headers=headers)
    assert response.code == 415
    assert detail in json.loads(response.body)["detail"]
    assert not app.records


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "empty"),
        (b'{"a":1', "line 1 column 7"),
        (b'"\xc3\x28"', "byte 1 (0xc3)"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
    ],
)
@pytest.mark.gen_test
async def test_what_is_not_json_is_a_400_that_says_where(fetch, app, caplog, body, detail):
    response = await fetch("/add-job", body)
    assert response.code == 400
    problem = json.loads(response.body)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert problem["type"] == "urn:logsrv:problem:unreadable"
    assert (problem["status"], detail in problem["detail"]) == (400, True)
    assert not app.records
    assert not caplog.records


HOSTILE = rb"""{"big": 123456789012345678901234567890, "nan": NaN, "inf": -Infinity, "half": "\ud83d", "n\u0000l": 1,
  "$where": "sleep(9)", "a.b": 1, "": 2, "twice": 1, "twice": 2, "_id": 5, "deep": %b}""" % (b"[" * 200 + b"]" * 200)


@pytest.mark.gen_test
async def test_what_json_allows_and_bson_does_not_is_stored_with_notes_and_read_again(fetch, app):
    assert (await fetch("/add-job", HOSTILE)).code == 202
    await app.writer.flush()
    (document,) = json.loads((await fetch("/logs")).body)
    data = document["data"]
    assert data["big"] == 123456789012345678901234567890
    assert (data["nan"], data["inf"], data["half"], data["n\\u0000l"]) == ("NaN", "-Infinity", "\\ud83d", 1)
    assert (data["$where"], data["a.b"], data[""], data["_id"]) == ("sleep(9)", 1, 2, 5)
    assert (data["twice#1"], data["twice"]) == (1, 2)
    noted = {note["path"] for note in document["notes"]}
    assert {"/data/big", "/data/nan", "/data/inf", "/data/half", "/data/n\\u0000l", "/data/twice"} < noted
    assert any(path.startswith("/data/deep/0") for path in noted)


@pytest.mark.parametrize("method", ["DELETE", "PATCH"])
@pytest.mark.gen_test
async def test_another_method_is_405_with_allow(fetch, method):
    response = await fetch("/add-job", method=method, allow_nonstandard_methods=True)
    assert (response.code, response.headers["Allow"]) == (405, "GET, HEAD, POST, PUT, OPTIONS")


@pytest.mark.gen_test
async def test_an_unknown_path_is_a_problem_answer(fetch, caplog):
    response = await fetch("/nowhere", b"{}")
    assert (response.code, json.loads(response.body)["status"]) == (404, 404)
    assert not caplog.records


class TestSize:
    """--max_body_bytes, whatever the request claims."""

    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "max_body_bytes": 1000})

    @pytest.mark.gen_test
    async def test_up_to_the_limit_is_taken(self, fetch):
        assert (await fetch("/add-job", b'"%b"' % (b"x" * 998))).code == 202

    @pytest.mark.parametrize("size", [1001, 1999, 5000, 100_000])
    @pytest.mark.gen_test
    async def test_over_it_is_413_by_content_length_and_chunked(self, fetch, app, http_port, size, io_loop):
        body = b'"%b"' % (b"x" * (size - 2))
        by_length = await fetch("/add-job", body)
        assert (by_length.code, json.loads(by_length.body)["status"]) == (413, 413)
        chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:700], body[700:])) + b"0\r\n\r\n"
        head = b"POST /add-job HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = await io_loop.run_in_executor(None, raw, http_port, head + chunked)
        assert answer.startswith(b"HTTP/1.1 413")
        assert not app.records

    @pytest.mark.gen_test
    async def test_a_claim_over_it_is_answered_before_the_body_is_sent(self, http_server, http_port, io_loop):
        head = b"POST /add-job HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
        answer = await io_loop.run_in_executor(None, raw, http_port, head)
        assert answer.startswith(b"HTTP/1.1 413")

    @pytest.mark.gen_test
    async def test_a_body_shorter_than_its_claim_is_not_taken(self, http_server, http_port, io_loop, app):
        head = b"POST /add-job HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n1"
        assert await io_loop.run_in_executor(None, raw, http_port, head, True) == b""
        assert not app.records

    @pytest.mark.gen_test
    async def test_a_route_without_a_body_keeps_none(self, fetch):
        assert (await fetch("/nowhere", b"x" * 1_000_000)).code == 404


def raw(port: int, request: bytes, leave: bool = False) -> bytes:
    """What the server answers to these bytes, up to its closing or the end of one answer's head."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request)
        if leave:
            connection.shutdown(socket.SHUT_WR)
        return connection.recv(65536)


class TestFull:
    """A queue with room for one."""

    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "queue_max_bytes": 120})

    @pytest.mark.gen_test
    async def test_a_full_queue_is_503_with_retry_after_and_takes_nothing(self, fetch, app):
        assert (await fetch("/add-job", b'{"a":1}')).code == 202
        response = await fetch("/add-job", b'{"a":2}')
        assert response.code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert json.loads(response.body)["type"] == "urn:logsrv:problem:queue-full"
        assert [bson.decode(record)["data"] for record in app.records] == [{"a": 1}]
