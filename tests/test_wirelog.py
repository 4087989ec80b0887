"""wirelog.py: what a client sends that is no request is in no log, and does not fill one."""

import asyncio
import dataclasses
import logging

import pytest
from tornado.httputil import HTTPInputError

from tornado_logsrv import server as server_module
from tornado_logsrv import serverlog
from tornado_logsrv.burst import AT_ONCE
from tornado_logsrv.wirelog import LOGGER, WireFilter

SECRET = "hunter2-secret"
#: Heads that cannot be read, with the secret where, or behind what, is wrong.
HEADS = [
    f"GET /logs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\r\n\r\n",
    f"GET /logs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\x00\r\n\r\n",
    f"GET /logs HTTP/1.1\r\nHost: localhost\r\nAuthorization Bearer {SECRET}\r\n\r\n",
    f"GET /logs HTTP/1.1\r\nHost: localhost\r\nBearer {SECRET}: x\r\n\r\n",
    f"GET /logs HTTP/1.1\r\nHost: localhost\r\nX: a\r\n Authorization: {SECRET}\r\n\r\n",
    f"GET /logs HTTP/1.1\r\nHost: {SECRET}@localhost\r\n\r\n",
    f"GET /logs HTTP/1.1\r\nHost: localhost\r\nHost: {SECRET}\r\n\r\n",
    f"GET /logs?q={SECRET} x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    f"GET /logs?q={SECRET}\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    f"GET /logs HTTP/{SECRET}\r\nHost: localhost\r\n\r\n",
    f"POST /add-job HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SECRET}\r\n\r\n",
    f"POST /add-job HTTP/1.1\r\nHost: localhost\r\nContent-Length: {'9' * 5000}\r\nX: {SECRET}\r\n\r\n",
    f"POST /add-job HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1, {SECRET}\r\n\r\n",
    f"POST /add-job HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: {SECRET}\r\n\r\n",
    f"POST /add-job HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n",
    f"GET /logs HTTP/1.1\r\nHost: localhost\r\nX: {'x' * 70_000} {SECRET}\r\n\r\n",
    f"{SECRET}\r\n\r\n",
]


@pytest.fixture
def logged(caplog, monkeypatch):
    """What is logged, with the filter of one server, for which no time passes; caplog sees what passes it."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(logging.getLogger(LOGGER), "filters", [WireFilter(lambda: 0.0)])
    return lambda: [record.getMessage() for record in caplog.records if record.name == LOGGER]


async def send(address, head):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(head.encode("latin-1"))
    answer = await reader.read(65536)
    writer.close()
    return answer


@pytest.mark.parametrize("transport", ["httptools", "tornado"])
@pytest.mark.gen_test
async def test_a_head_that_cannot_be_read_is_told_without_a_word_of_it(app, monkeypatch, logged, caplog, transport):
    monkeypatch.setattr(app, "options", dataclasses.replace(app.options, transport=transport))
    server = server_module.http_server(app)
    server.listen(0, "127.0.0.1")
    answers = [await send(server.sockets[0].getsockname(), head) for head in HEADS]
    # Tornado's transport closes on a head that is too large.
    assert {answer[9:10] for answer in answers} <= {b"4", b""}
    server.stop()
    await server.close_all_connections()
    assert len(logged()) >= len(HEADS) - 2
    assert {record.levelname for record in caplog.records} == {"INFO"}
    assert "Malformed HTTP message from 127.0.0.1: Invalid header value" in logged()
    assert SECRET not in caplog.text
    assert max(map(len, caplog.messages)) < 300


@pytest.mark.gen_test
async def test_a_flood_of_them_is_counted_and_of_another_kind_still_told(http_server, http_port, logged):
    for _ in range(AT_ONCE + 5):
        await send(("127.0.0.1", http_port), "x\r\n\r\n")
    assert len(logged()) == AT_ONCE
    logging.getLogger(LOGGER).warning("SSL Error on %s: %s", 7, "of another kind")
    assert logged()[-1] == "SSL Error on 7: of another kind"


def passed(found, message, *arguments, level=logging.INFO):
    record = logging.LogRecord(LOGGER, level, __file__, 1, message, arguments, None)
    return record.getMessage() if found.filter(record) else None


def test_the_next_that_is_told_says_how_many_were_not():
    now = [0.0]
    found = WireFilter(lambda: now[0])
    for number in range(AT_ONCE + 4):
        assert (passed(found, "from %s", number) is None) == (number >= AT_ONCE)
    now[0] = 2
    assert passed(found, "from %s", "x") == "from x (4 others like it are not in this log)"


def test_what_tornado_may_say_in_a_later_version_is_not_trusted():
    assert passed(WireFilter(), "%s", HTTPInputError(f"Novel fault {SECRET}")) == "it cannot be read"


def test_a_fault_of_the_server_is_always_written():
    found = WireFilter()
    told = [passed(found, "Uncaught exception", level=logging.ERROR) for _ in range(AT_ONCE + 5)]
    assert told == ["Uncaught exception"] * (AT_ONCE + 5)


def test_with_the_level_debug_all_are_written(caplog):
    caplog.set_level(logging.DEBUG, LOGGER)
    found = WireFilter()
    told = [passed(found, "from %s: %s", 1, HTTPInputError(f"Invalid header value {SECRET}")) for _ in range(100)]
    assert set(told) == {"from 1: Invalid header value"}


def test_a_server_has_it(monkeypatch):
    added = []
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(logging.getLogger(LOGGER), "addFilter", added.append)
    serverlog.set_up("info", "text")
    assert [type(each) for each in added] == [WireFilter]
