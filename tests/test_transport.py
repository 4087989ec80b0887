"""What the transport does on the wire, each over a real socket, on asyncio and on uvloop."""

import asyncio
import contextlib
import inspect
import logging
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import tornado.test
import uvloop
from tornado import httputil, netutil, web
from tornado.iostream import StreamClosedError

from tornado_logsrv import connection, fastroutes, transport
from tornado_logsrv.deferred import Deferred
from tornado_logsrv.transport import HTTPServer

MiB = 1024 * 1024
ECHO = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
CERTIFICATES = Path(tornado.test.__file__).parent
LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Any:
    """Run an async test on each loop. pytest finds its fixtures and parameters by signature and marks."""

    def run(new_loop: Callable[[], asyncio.AbstractEventLoop], **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(asyncio.wait_for(test(**arguments), 30))

    loop = inspect.Parameter("new_loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [loop, *inspect.signature(test).parameters.values()]
    )
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.pytestmark = getattr(test, "pytestmark", [])  # type: ignore[attr-defined]
    return LOOPS(run)


# An application to serve


class Echo(web.RequestHandler):
    def get(self) -> None:
        self.finish(self.get_argument("say", "hello"))

    head = get

    def post(self) -> None:
        self.finish(self.request.body)


class Status(web.RequestHandler):
    def get(self, code: str) -> None:
        self.set_status(int(code))


class Later(web.RequestHandler):
    async def get(self) -> None:
        await asyncio.sleep(0.01)
        self.finish("later")


class Stream(web.RequestHandler):
    """Writes ``pieces`` of 64 KiB, waiting for room before each; the class knows how far it got."""

    written = 0

    async def get(self) -> None:
        Stream.written = 0
        with contextlib.suppress(StreamClosedError):
            for _ in range(int(self.get_argument("pieces"))):
                self.write(b"x" * 65536)
                await self.flush()
                Stream.written += 1


@web.stream_request_body
class Upload(web.RequestHandler):
    """Counts the body; with ?gate waits for the gate at each piece; with ?refuse answers 413 unread."""

    gate: asyncio.Event
    closed: asyncio.Event

    async def prepare(self) -> None:
        self.size = 0
        if self.get_argument("refuse", ""):
            await asyncio.sleep(0)
            self.set_status(413)
            self.finish("too much")
        if limit := self.get_argument("limit", ""):
            self.request.connection.set_max_body_size(int(limit))  # type: ignore[union-attr]

    async def data_received(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.get_argument("gate", ""):
            await self.gate.wait()

    def post(self) -> None:
        self.finish(str(self.size))

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self.closed.set()


class Hanging(web.RequestHandler):
    """Answers once the client has gone, or half gone."""

    closed: asyncio.Event

    async def get(self) -> None:
        await self.closed.wait()
        self.finish("goodbye")

    def on_connection_close(self) -> None:
        self.closed.set()


class About(web.RequestHandler):
    def get(self) -> None:
        certificate = self.request.get_ssl_certificate() if self.request.protocol == "https" else None
        self.finish({"ip": self.request.remote_ip, "protocol": self.request.protocol, "peer": certificate})


def application() -> web.Application:
    Upload.gate, Upload.closed, Hanging.closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    routes: list[Any] = [
        ("/echo", Echo),
        ("/status/(.*)", Status),
        ("/later", Later),
        ("/stream", Stream),
        ("/upload", Upload),
        ("/hanging", Hanging),
        ("/about", About),
    ]
    return web.Application(routes, log_function=lambda handler: None)


@contextlib.asynccontextmanager
async def serving(app: Any = None, **options: Any) -> AsyncIterator[int]:
    server = HTTPServer(app or application(), **options)
    server.listen(0, "127.0.0.1", socket.AF_INET)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, httputil.HTTPHeaders]:
        line, _, fields = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin1").partition("\r\n")
        return int(line.split()[1]), httputil.HTTPHeaders.parse(fields)

    async def answer(self, bodiless: bool = False) -> tuple[int, bytes]:
        status, headers = await self.head()
        if bodiless or status in (204, 304):
            return status, b""
        if headers.get("Transfer-Encoding") == "chunked":
            return status, await self.chunks()
        return status, await self.reader.readexactly(int(headers["Content-Length"]))

    async def chunks(self) -> bytes:
        chunks = []
        while size := int(await self.reader.readline(), 16):
            chunks.append((await self.reader.readexactly(size + 2))[:-2])
        await self.reader.readexactly(2)
        return b"".join(chunks)

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        self.send(data)
        return await self.answer()

    async def rest(self) -> bytes:
        return await self.reader.read()

    async def trickle(self, data: bytes) -> None:
        """Send a little now and then, until the server closes without an answer."""
        with contextlib.suppress(ConnectionError, RuntimeError):  # uvloop raises the second of a closed one
            while not self.reader.at_eof():
                self.send(data)
                await self.writer.drain()
                await asyncio.sleep(0.005)
            assert await self.rest() == b""


@contextlib.asynccontextmanager
async def connected(port: int, **options: Any) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def client(app: Any = None, **options: Any) -> AsyncIterator[Client]:
    async with serving(app, **options) as port, connected(port) as one:
        yield one


def get(target: str, *fields: str, version: str = "1.1", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: a", *fields, "", ""]).encode()


def post(target: str, body: bytes, *fields: str) -> bytes:
    return get(target, f"Content-Length: {len(body)}", *fields, method="POST") + body


def chunked(target: str, *chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return get(target, "Transfer-Encoding: chunked", method="POST") + body + b"0\r\n\r\n"


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def settled(value: Callable[[], Any]) -> Any:
    """The value once it no longer changes."""
    before = object()
    while before != (now := value()):
        before = now
        await asyncio.sleep(0.1)
    return now


# Requests and answers, one after the other


@on_both_loops
async def test_connection_is_kept_for_the_next_request() -> None:
    async with client() as one:
        for word in (b"one", b"two", b""):
            assert await one.ask(post("/echo", word)) == (200, word)


@on_both_loops
async def test_connection_close_is_honoured_and_announced() -> None:
    async with client() as one:
        one.send(get("/echo", "Connection: close"))
        status, headers = await one.head()
        assert (status, headers["Connection"]) == (200, "close")
        assert await one.rest() == b"hello"


@on_both_loops
async def test_close_among_other_connection_options_is_honoured() -> None:
    async with client() as one:
        one.send(get("/echo", "Connection: keep-alive, close") + get("/echo"))
        assert await one.answer() == (200, b"hello")
        assert await one.rest() == b""


@on_both_loops
async def test_no_keep_alive_closes_after_each() -> None:
    async with client(no_keep_alive=True) as one:
        assert await one.ask(get("/echo")) == (200, b"hello")
        assert await one.rest() == b""


@on_both_loops
async def test_pipelined_requests_are_answered_in_order() -> None:
    async with client() as one:
        one.send(get("/later") + post("/echo", b"2") + chunked("/echo", b"3") + get("/later") + get("/echo?say=5"))
        answers = [await one.answer() for _ in range(5)]
        assert answers == [(200, word) for word in (b"later", b"2", b"3", b"later", b"5")]


@on_both_loops
async def test_request_may_come_byte_by_byte() -> None:
    async with client() as one:
        for byte in post("/echo", b"body") + chunked("/echo", b"ab", b"c"):
            one.send(bytes([byte]))
            await one.writer.drain()
            await asyncio.sleep(0)
        assert await one.answer() == (200, b"body")
        assert await one.answer() == (200, b"abc")


@on_both_loops
async def test_empty_lines_between_requests_are_skipped() -> None:
    async with client() as one:
        one.send(b"\r\n\r\n" + get("/echo") + b"\r\n" + get("/echo"))
        assert [await one.answer(), await one.answer()] == [(200, b"hello")] * 2


@on_both_loops
async def test_head_has_the_length_and_no_body() -> None:
    async with client() as one:
        one.send(get("/echo", method="HEAD") + get("/echo"))
        status, headers = await one.head()
        assert (status, headers["Content-Length"]) == (200, "5")
        assert await one.answer() == (200, b"hello")


@on_both_loops
@pytest.mark.parametrize("code", [204, 304])
async def test_bodiless_answer_is_not_chunked(code: int) -> None:
    async with client() as one:
        one.send(get(f"/status/{code}") + get("/echo"))
        status, headers = await one.head()
        assert status == code
        assert "Transfer-Encoding" not in headers
        assert "Content-Length" not in headers
        assert await one.answer() == (200, b"hello")


@on_both_loops
async def test_expect_is_answered_before_the_body() -> None:
    async with client() as one:
        one.send(ECHO + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await one.head())[0] == 100
        assert await one.ask(b"ok") == (200, b"ok")


@on_both_loops
async def test_a_body_that_will_be_refused_is_not_asked_for() -> None:
    async with client(max_body_size=10) as one:
        one.send(ECHO + b"Expect: 100-continue\r\nContent-Length: 11\r\n\r\n")
        assert (await one.head())[0] == 400


@on_both_loops
async def test_http10_closes_unless_asked_not_to() -> None:
    async with serving() as port:
        async with connected(port) as one:
            assert await one.ask(get("/echo", version="1.0")) == (200, b"hello")
            assert await one.rest() == b""
        async with connected(port) as one:
            for _ in range(2):
                one.send(get("/echo", "Connection: keep-alive", version="1.0"))
                assert (await one.head())[1]["Connection"] == "Keep-Alive"
                assert await one.reader.readexactly(5) == b"hello"


@on_both_loops
async def test_http10_answer_of_unknown_length_ends_with_the_connection() -> None:
    async with client() as one:
        one.send(get("/stream?pieces=2", "Connection: keep-alive", version="1.0"))
        _, headers = await one.head()
        assert "Transfer-Encoding" not in headers
        assert "Connection" not in headers
        assert len(await one.rest()) == 2 * 65536


@on_both_loops
async def test_chunks_go_both_ways() -> None:
    async with client() as one:
        assert await one.ask(chunked("/echo", b"a" * 70000, b"b", b"c" * 10)) == (
            200,
            b"a" * 70000 + b"b" + b"c" * 10,
        )
        status, body = await one.ask(get("/stream?pieces=3"))
        assert (status, len(body)) == (200, 3 * 65536)


@on_both_loops
async def test_unknown_method_reaches_the_application() -> None:
    async with client() as one:
        assert (await one.ask(get("/echo", method="BREW")))[0] == 405
        assert (await one.ask(get("/echo", method="get")))[0] == 405
        assert await one.ask(get("/echo")) == (200, b"hello")


@on_both_loops
async def test_offer_to_upgrade_changes_nothing() -> None:
    async with client() as one:
        offer = ("Connection: Upgrade", "Upgrade: websocket")
        one.send(post("/echo", get("/hidden"), *offer) + post("/echo", b"next") + get("/echo", *offer))
        assert await one.answer() == (200, get("/hidden"))
        assert await one.answer() == (200, b"next")
        assert await one.answer() == (200, b"hello")


@on_both_loops
async def test_detach_is_refused_by_name(caplog: pytest.LogCaptureFixture) -> None:
    class Detaching(web.RequestHandler):
        def get(self) -> None:
            self.detach()

    async with client(web.Application([("/", Detaching)], log_function=lambda handler: None)) as one:
        one.send(get("/"))
        assert await one.rest() == b""
    assert "NotImplementedError" in caplog.text


@on_both_loops
async def test_plain_callable_and_gzip_bodies_are_served() -> None:
    import gzip

    def hello(request: httputil.HTTPServerRequest) -> None:
        headers = httputil.HTTPHeaders({"Content-Length": str(len(request.body))})
        request.connection.write_headers(httputil.ResponseStartLine("", 200, "OK"), headers, request.body)
        request.connection.finish()

    async with client(hello, decompress_request=True) as one:
        assert await one.ask(post("/", gzip.compress(b"text"), "Content-Encoding: gzip")) == (200, b"text")


# What handlers are told


@on_both_loops
async def test_handler_is_told_that_the_client_has_gone() -> None:
    async with serving() as port:
        async with connected(port) as one:
            one.send(get("/hanging"))
            await one.writer.drain()
            one.writer.transport.abort()
        await Hanging.closed.wait()


@on_both_loops
async def test_client_that_closed_its_half_gets_its_answers() -> None:
    async with client() as one:
        one.send(get("/later") + post("/echo", b"2") + get("/hanging"))
        one.writer.write_eof()
        assert [(await one.answer())[1] for _ in range(3)] == [b"later", b"2", b"goodbye"]
        assert await one.rest() == b""


@on_both_loops
@pytest.mark.parametrize("part", [ECHO, ECHO + b"Content-Length: 9\r\n\r\nbody"])
async def test_request_cut_short_is_not_answered(part: bytes) -> None:
    async with client() as one:
        one.send(part)
        one.writer.write_eof()
        assert await one.rest() == b""


@on_both_loops
async def test_streaming_handler_is_told_of_a_body_cut_short() -> None:
    async with client() as one:
        one.send(get("/upload", "Content-Length: 100", method="POST") + b"some")
        one.writer.write_eof()
        await Upload.closed.wait()


@on_both_loops
async def test_failing_delegate_costs_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(httputil.HTTPMessageDelegate):
        def headers_received(self, start_line: Any, headers: Any) -> None:
            raise RuntimeError("delegate failed")

    class App(httputil.HTTPServerConnectionDelegate):
        def start_request(self, server_conn: object, request_conn: Any) -> httputil.HTTPMessageDelegate:
            return Failing()

    async with serving(App()) as port:
        for _ in range(2):
            async with connected(port) as one:
                one.send(get("/"))
                assert await one.rest() == b""
    assert caplog.text.count("RuntimeError: delegate failed") == 2


@on_both_loops
async def test_answer_that_breaks_its_length_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    def lying(request: httputil.HTTPServerRequest) -> None:
        headers = httputil.HTTPHeaders({"Content-Length": request.path[1:]})
        request.connection.write_headers(httputil.ResponseStartLine("", 200, "OK"), headers, b"12345")
        request.connection.finish()

    async with serving(lying) as port:
        for length in ("4", "6", "+5", "x"):
            async with connected(port) as one:
                one.send(get("/" + length))
                await one.rest()
    assert caplog.text.count("Uncaught exception") == 4


@on_both_loops
@pytest.mark.parametrize("text", ["a\r\nX-Injected: b", "a\nb", "a\rb"])
async def test_line_break_in_an_answers_header_is_refused(text: str, caplog: pytest.LogCaptureFixture) -> None:
    def splitting(request: httputil.HTTPServerRequest) -> None:
        headers = httputil.HTTPHeaders({"Content-Length": "0"})
        headers["X"] = text
        request.connection.write_headers(httputil.ResponseStartLine("", 200, "OK"), headers)

    async with client(splitting) as one:
        one.send(get("/"))
        assert await one.rest() == b""
    assert "Illegal characters" in caplog.text


@on_both_loops
async def test_handler_that_writes_on_after_a_refusal_learns_that_nobody_listens() -> None:
    learned = asyncio.Event()

    @web.stream_request_body
    class Talking(web.RequestHandler):
        async def prepare(self) -> None:
            self.write("begun")
            await self.flush()
            asyncio.get_running_loop().create_task(self.talk())

        def data_received(self, chunk: bytes) -> None: ...

        async def talk(self) -> None:
            try:
                while True:
                    self.write("on and on")
                    await self.flush()
                    await asyncio.sleep(0)
            except StreamClosedError:
                learned.set()

    app = web.Application([("/", Talking), ("/echo", Echo)], log_function=lambda handler: None)
    async with serving(app) as port, connected(port) as one, connected(port) as other:
        one.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        assert (await one.head())[0] == 200
        one.send(b"bad chunk\r\n")
        await one.rest()
        await learned.wait()
        assert await other.ask(get("/echo")) == (200, b"hello")


# Back pressure


@on_both_loops
async def test_slow_reader_of_a_large_answer_holds_its_handler() -> None:
    pieces = 1024
    async with client() as one:
        one.writer.transport.pause_reading()
        one.send(get(f"/stream?pieces={pieces}"))
        written = await settled(lambda: Stream.written)
        assert 0 < written < pieces / 2
        one.writer.transport.resume_reading()
        _status, _headers = await one.head()
        assert len(await one.chunks()) == pieces * 65536


@on_both_loops
async def test_fast_sender_waits_for_a_slow_handler() -> None:
    size = 64 * MiB
    async with client() as one:
        one.send(get("/upload?gate=1&limit=100000000", f"Content-Length: {size}", method="POST"))
        one.send(bytes(size))
        left = await settled(one.writer.transport.get_write_buffer_size)
        assert left > size / 2
        Upload.gate.set()
        assert await one.answer() == (200, str(size).encode())


@on_both_loops
async def test_client_that_does_not_read_its_answers_gets_no_more_of_them() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + bytes(10000)
    calls = 0

    def fast(*request: Any) -> bytes:
        nonlocal calls
        calls += 1
        return answer

    count = 20000
    async with client(fast_routes={(b"GET", b"/fast"): fast}) as one:
        one.writer.transport.pause_reading()
        one.send(get("/fast") * count)
        assert await settled(lambda: calls) < count / 2
        one.writer.transport.resume_reading()
        for _ in range(count):
            await one.reader.readexactly(len(answer))


# Limits


@on_both_loops
@pytest.mark.parametrize(
    "head",
    [
        get("/echo", "X: " + "a" * 2000),
        get("/echo", "X: " + "a" * 2000)[:-4],
        get("/echo", *["X: a"] * 21),
        get("/" + "a" * 2000),
    ],
    ids=["size", "size before its end", "count", "target"],
)
async def test_head_beyond_the_limits_is_refused(head: bytes) -> None:
    async with client(max_header_size=1000, max_header_count=20) as one:
        one.send(head)
        assert (await one.head())[0] == 431
        assert await one.rest() == b""


@on_both_loops
async def test_body_beyond_the_limit_is_refused() -> None:
    async with serving(max_body_size=100) as port:
        for request in (post("/echo", bytes(101)), chunked("/echo", bytes(60), bytes(41))):
            async with connected(port) as one:
                one.send(request)
                assert await one.rest() == b"HTTP/1.1 400 Bad Request\r\n\r\n"


@on_both_loops
async def test_handler_may_move_the_limit_of_its_request() -> None:
    async with client(max_body_size=100) as one:
        assert await one.ask(post("/upload?limit=200", bytes(150))) == (200, b"150")
        assert await one.ask(chunked("/upload?limit=200", bytes(150))) == (200, b"150")
        one.send(post("/upload", bytes(150)))
        assert (await one.head())[0] == 400


@on_both_loops
async def test_refusal_reaches_a_client_that_sends_everything_first() -> None:
    """413 from prepare(), while 16 MiB are still on their way: the answer must outlive the close."""
    async with serving() as port:
        async with connected(port, limit=2**16) as one:
            one.writer.transport.pause_reading()
            one.send(post("/upload?refuse=1", bytes(16 * MiB)))
            await one.writer.drain()
            await settled(one.writer.transport.get_write_buffer_size)
            one.writer.transport.resume_reading()
            assert await one.answer() == (413, b"too much")
            assert await one.rest() == b""
        await Upload.closed.wait()


@on_both_loops
async def test_client_that_never_stops_sending_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_DISCARD_BYTES", MiB)
    async with client() as one:
        one.send(get("/upload?refuse=1", "Transfer-Encoding: chunked", method="POST"))
        with pytest.raises(ConnectionError):  # noqa: PT012
            while True:
                one.send(bytes(65536))
                await one.writer.drain()


@on_both_loops
async def test_client_that_stays_after_a_refusal_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_DISCARD_SECONDS", 0.05)
    closed = asyncio.Event()
    monkeypatch.setattr(HTTPServer, "on_close", lambda self, conn: (self._connections.discard(conn), closed.set()))
    async with client() as one:
        assert (await one.ask(get("/upload?refuse=1", "Content-Length: 9", method="POST")))[0] == 413
        await closed.wait()


@on_both_loops
@pytest.mark.parametrize("start", [b"", b"\r\n", b"GET / HT", ECHO])
async def test_slow_head_runs_out_of_time(start: bytes) -> None:
    async with client(idle_connection_timeout=0.05) as one:
        one.send(start)
        await one.trickle(b"\r\n" if start == b"\r\n" else b"x")  # does not buy time


@on_both_loops
async def test_idle_connection_is_closed_also_after_use() -> None:
    async with client(idle_connection_timeout=0.05) as one:
        assert await one.ask(get("/echo")) == (200, b"hello")
        assert await one.rest() == b""


@on_both_loops
@pytest.mark.parametrize("fast", [False, True])
async def test_slow_body_runs_out_of_time(fast: bool) -> None:
    routes: Any = {(b"POST", b"/echo"): lambda *request: b""} if fast else None
    async with client(body_timeout=0.05, fast_routes=routes) as one:
        one.send(ECHO + b"Content-Length: 1000000\r\n\r\n")
        await one.trickle(b"x")


@on_both_loops
async def test_handler_is_not_hurried_by_the_idle_timeout() -> None:
    class Slow(web.RequestHandler):
        async def get(self) -> None:
            await asyncio.sleep(0.1)

    app = web.Application([("/", Slow)], log_function=lambda handler: None)
    async with client(app, idle_connection_timeout=0.02) as one:
        assert await one.ask(get("/")) == (200, b"")


@on_both_loops
async def test_half_closed_connection_whose_handler_hangs_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_HALF_CLOSED_SECONDS", 0.05)
    monkeypatch.setattr(Hanging, "on_connection_close", lambda self: None)
    async with client() as one:
        one.send(get("/hanging"))
        one.writer.write_eof()
        assert await one.rest() == b""


# Requests that could be read in two ways

SMUGGLING = {
    "both lengths": ECHO + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, turned": ECHO + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": ECHO + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two unequal lengths": ECHO + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "list of lengths": ECHO + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": ECHO + b"Content-Length: +3\r\n\r\nabc",
    "negative length": ECHO + b"Content-Length: -3\r\n\r\nabc",
    "length with underscore": ECHO + b"Content-Length: 1_0\r\n\r\n0123456789",
    "hexadecimal length": ECHO + b"Content-Length: 0x3\r\n\r\nabc",
    "empty length": ECHO + b"Content-Length:\r\n\r\n",
    "other digits": ECHO + "Content-Length: \u0663\r\n\r\nabc".encode(),
    "endless length": ECHO + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "other coding": ECHO + b"Transfer-Encoding: gzip\r\n\r\n",
    "several codings": ECHO + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": ECHO + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding after comma": ECHO + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "coding after vertical tab": ECHO + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "coding that starts alike": ECHO + b"Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n",
    "empty coding": ECHO + b"Transfer-Encoding:\r\n\r\n",
    "folded line": ECHO + b"X: a\r\n b\r\n\r\n",
    "folded length": ECHO + b"Content-Length:\r\n 3\r\n\r\nabc",
    "folded first line": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "bare CR": ECHO + b"X: a\rContent-Length: 3\r\n\r\nabc",
    "bare LF": ECHO + b"X: a\nContent-Length: 3\r\n\r\nabc",
    "bare LF throughout": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF ends the head": b"GET / HTTP/1.1\r\nHost: a\r\n\nGET /",
    "NUL": ECHO + b"X: a\0b\r\n\r\n",
    "space before the colon": ECHO + b"Content-Length : 3\r\n\r\nabc",
    "space in a name": ECHO + b"Content Length: 3\r\n\r\nabc",
    "no colon": ECHO + b"Content-Length\r\n\r\n",
    "no name": ECHO + b": 3\r\n\r\n",
    "two spaces": b"GET  /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab for a space": b"GET\t/echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "space at the end": b"GET /echo HTTP/1.1 \r\nHost: a\r\n\r\n",
    "no version": b"GET /echo\r\n\r\n",
    "other protocol": b"GET /echo RTSP/1.0\r\nHost: a\r\n\r\n",
    "other version": b"GET /echo HTTP/2.0\r\nHost: a\r\n\r\n",
    "method is no token": b"G(T /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET /echo HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "host with a space": b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n",
    "host with a slash": b"GET /echo HTTP/1.1\r\nHost: a/b\r\n\r\n",
}
BAD_CHUNKS = {
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "signed size": b"+3\r\nabc\r\n0\r\n\r\n",
    "prefixed size": b"0x3\r\nabc\r\n0\r\n\r\n",
    "size with underscore": b"0_3\r\nabc\r\n0\r\n\r\n",
    "size after a space": b" 3\r\nabc\r\n0\r\n\r\n",
    "size before a space": b"3 \r\nabc\r\n0\r\n\r\n",
    "extension": b"3;a=b\r\nabc\r\n0\r\n\r\n",
    "bare LF after size": b"3\nabc\r\n0\r\n\r\n",
    "bare LF after chunk": b"3\r\nabc\n0\r\n\r\n",
    "chunk too long": b"3\r\nabcd\r\n0\r\n\r\n",
    "chunk without end": b"3\r\nabc0\r\n\r\n",
    "trailer": b"3\r\nabc\r\n0\r\nX: a\r\n\r\n",
    "bare LF at the end": b"3\r\nabc\r\n0\r\n\n\n",
    "endless size": b"0" * 100 + b"3\r\nabc\r\n0\r\n\r\n",
    "enormous size": b"f" * 20 + b"\r\nabc",
}
SMUGGLING |= {name: ECHO + b"Transfer-Encoding: chunked\r\n\r\n" + body for name, body in BAD_CHUNKS.items()}


@on_both_loops
@pytest.mark.parametrize("fast", [False, True], ids=["ordinary", "fast"])
@pytest.mark.parametrize("name", SMUGGLING)
async def test_ambiguous_request_is_refused_with_all_that_follows(name: str, fast: bool) -> None:
    routes: Any = dict.fromkeys([(b"POST", b"/echo"), (b"GET", b"/echo"), (b"GET", b"/")], lambda *request: b"fast")
    async with client(fast_routes=routes if fast else None) as one:
        one.send(SMUGGLING[name] + get("/echo"))
        assert await one.rest() == b"HTTP/1.1 400 Bad Request\r\n\r\n"


# Fast routes

DONE = b"HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\n\r\ndone"


class Fast:
    """A fast route that notes what it is called with, and answers what it is told to."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.seen: list[Any] = []

    def __call__(self, target: bytes, headers: Any, body: bytes, context: Any) -> Any:
        self.seen.append((target, headers, body, context.remote_ip))
        answer = self.answers.pop(0) if self.answers else DONE
        if isinstance(answer, Exception):
            raise answer
        return answer


@on_both_loops
async def test_fast_route_sees_the_request_as_sent() -> None:
    fast = Fast()
    async with client(fast_routes={(b"POST", b"/echo"): fast}) as one:
        assert await one.ask(post("/echo?ack=memory", b"body", "x-Odd: \tA \t", "X-Odd: B")) == (202, b"done")
    headers = [(b"Host", b"a"), (b"Content-Length", b"4"), (b"x-Odd", b"A"), (b"X-Odd", b"B")]
    assert fast.seen == [(b"/echo?ack=memory", headers, b"body", "127.0.0.1")]


@on_both_loops
async def test_fast_route_that_declines_leaves_the_request_as_it_was() -> None:
    fast = Fast(None, DONE, None)
    async with client(fast_routes={(b"POST", b"/echo"): fast}) as one:
        one.send(post("/echo", b"1") + post("/echo", b"2") + post("/echo", b"3"))
        assert [await one.answer() for _ in range(3)] == [(200, b"1"), (202, b"done"), (200, b"3")]


@on_both_loops
async def test_fast_route_may_answer_later_and_in_order() -> None:
    async def coroutine() -> bytes:
        await asyncio.sleep(0.01)
        return DONE.replace(b"done", b"slow")

    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    fast = Fast(coroutine(), DONE, future)
    async with client(fast_routes={(b"POST", b"/echo"): fast}) as one:
        one.send(post("/echo", b"1") * 2 + get("/later") + post("/echo", b"3") + get("/echo"))
        assert [(await one.answer())[1] for _ in range(3)] == [b"slow", b"done", b"later"]
        await until(lambda: len(fast.seen) == 3)
        future.set_result(DONE)
        assert [(await one.answer())[1] for _ in range(2)] == [b"done", b"hello"]


@on_both_loops
async def test_fast_route_waits_for_the_whole_body() -> None:
    fast = Fast()
    body = bytes(range(256)) * 2000
    async with client(fast_routes={(b"POST", b"/echo"): fast}) as one:
        request = post("/echo", body)
        for start in range(0, len(request), 100_000):
            one.send(request[start : start + 100_000])
            await asyncio.sleep(0)
        assert await one.answer() == (202, b"done")
    assert fast.seen[0][2] == body


@on_both_loops
@pytest.mark.parametrize(
    "request_",
    [
        chunked("/echo", b"body"),
        post("/echo", b"body", "Expect: 100-continue"),
        post("/echo", b"body", "Connection: close"),
        post("/echo", b"body", "Connection: Upgrade", "Upgrade: websocket"),
        post("/echo", b"body").replace(b"HTTP/1.1", b"HTTP/1.0"),
        post("/echo", b"body").replace(b"Host: a", b"Host: a%20"),
        post("/other/../echo", b""),
        post("/echo", bytes(connection.FAST_BODY + 1)),
        get("/echo"),
    ],
    ids=["chunked", "expect", "close", "upgrade", "HTTP/1.0", "host", "path", "size", "method"],
)
async def test_request_that_is_not_plain_takes_the_ordinary_path(request_: bytes) -> None:
    fast = Fast()
    async with client(fast_routes={(b"POST", b"/echo"): fast}) as one:
        one.send(request_)
        status, _ = await one.head()
        assert status in (100, 200, 404)
        assert not fast.seen


@on_both_loops
async def test_fast_route_that_fails_is_answered_500(caplog: pytest.LogCaptureFixture) -> None:
    async def failing() -> bytes:
        raise RuntimeError("later")

    async with serving(fast_routes={(b"POST", b"/echo"): Fast(RuntimeError("at once"), failing())}) as port:
        for _ in range(2):
            async with connected(port) as one:
                one.send(post("/echo", b"1") * 2)
                assert (await one.answer())[0] == 500
                assert await one.rest() == b""
    assert "at once" in caplog.text
    assert "later" in caplog.text


@on_both_loops
async def test_fast_route_sees_a_head_that_is_known_as_before() -> None:
    a, b = post("/echo", b"12"), post("/echo", b"34")
    pieces = [
        [a],  # read, and remembered
        [b],
        [a[:-1], a[-1:]],  # cut in the body, in the head, behind it
        [a[:20], a[20:]],
        [a[:-2], a[-2:]],
        [a + b],  # two in one piece
        [b + a[:20], a[20:]],
        [post("/echo", b"56", "A: b")],  # another head
        [b"\r\n" + b],
        [a],
    ]
    fast = Fast(*[DONE] * 3, None, *[DONE] * 20)
    async with client(fast_routes={(b"POST", b"/echo"): fast}) as one:
        for number, several in enumerate(pieces):
            for piece in several:
                one.send(piece)
                await asyncio.sleep(0.01)
            for _ in range(2 if number in (5, 6) else 1):
                assert await one.answer() in ((202, b"done"), (200, b"12"))
    assert b"".join(body for _, _, body, _ in fast.seen) == b"12341212121234341256" + b"34" + b"12"
    headers = [(b"Host", b"a"), (b"Content-Length", b"2")]
    assert [seen[1] for seen in fast.seen if len(seen[1]) == 2] == [headers] * (len(fast.seen) - 1)


@on_both_loops
async def test_fast_route_may_decline_fail_and_answer_later_to_a_head_that_is_known() -> None:
    async def coroutine() -> bytes:
        return DONE.replace(b"done", b"slow")

    fast = Fast(DONE, None, coroutine(), DONE, RuntimeError("known"))
    async with client(fast_routes={(b"POST", b"/echo"): fast}) as one:
        assert [await one.ask(post("/echo", b"1")) for _ in range(4)] == [
            (202, b"done"), (200, b"1"), (202, b"slow"), (202, b"done")
        ]  # fmt: skip
        assert (await one.ask(post("/echo", b"1")))[0] == 500
        assert await one.rest() == b""


@on_both_loops
async def test_fast_route_may_have_answered_already() -> None:
    def done() -> Deferred[bytes]:
        deferred: Deferred[bytes] = Deferred()
        deferred.set_result(DONE)
        return deferred

    async with client(fast_routes={(b"POST", b"/echo"): Fast(*[done() for _ in range(4)])}) as one:
        one.send(post("/echo", b"1") * 2 + get("/echo"))
        assert [await one.answer() for _ in range(3)] == [(202, b"done")] * 2 + [(200, b"hello")]
        assert await one.ask(post("/echo", b"1")) == (202, b"done")
        one.send(post("/echo", b"1") + get("/echo"))
        assert [await one.answer() for _ in range(2)] == [(202, b"done"), (200, b"hello")]


@on_both_loops
async def test_no_more_heads_are_known_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastroutes, "_KNOWN_HEADS", 3)
    known = fastroutes.KnownHeads()
    monkeypatch.setattr(transport, "KnownHeads", lambda: known)
    async with client(fast_routes={(b"POST", b"/echo"): Fast()}) as one:
        for number in range(10):
            assert await one.ask(post("/echo", b"1", f"A: {number}")) == (202, b"done")
            assert 1 <= len(known) <= 3
        assert await one.ask(post("/echo", b"1", f"A: {'x' * 1024}")) == (202, b"done")
    assert max(map(len, known)) < 100


@on_both_loops
async def test_fast_route_goes_on_without_its_client() -> None:
    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    fast = Fast(future)
    async with serving(fast_routes={(b"POST", b"/echo"): fast}) as port:
        async with connected(port) as one:
            one.send(post("/echo", b"1"))
            await until(lambda: fast.seen)
            one.writer.transport.abort()
        await asyncio.sleep(0.01)
        assert not future.cancelled()
        future.set_result(DONE)


@on_both_loops
async def test_fast_route_knows_the_client_behind_a_proxy() -> None:
    fast = Fast()
    options: Any = {"xheaders": True, "trusted_downstream": ["5.5.5.5"]}
    async with client(fast_routes={(b"POST", b"/echo"): fast}, **options) as one:
        await one.ask(post("/echo", b"", "X-Forwarded-For: 4.4.4.4", "X-Forwarded-For: 5.5.5.5"))
        await one.ask(post("/echo", b""))
        await one.ask(post("/echo", b"", "X-Forwarded-For: 4.4.4.4", "X-Forwarded-For: 5.5.5.5"))
    assert [seen[3] for seen in fast.seen] == ["4.4.4.4", "127.0.0.1", "4.4.4.4"]


class Joining(Fast):
    """A fast route that answers bodies alike together; what it does with the next ones is told."""

    def __init__(self, *joint: Any, alone: Any = ()) -> None:
        super().__init__(*alone)
        self.joint = list(joint)
        self.groups: list[list[bytes]] = []

    def together(self, target: bytes, headers: Any) -> Any:
        return self._answer if target == b"/echo" else None

    def _answer(self, bodies: list[bytes]) -> Any:
        self.groups.append(bodies)
        answer = self.joint.pop(0) if self.joint else [named(body) for body in bodies]
        if isinstance(answer, Exception):
            raise answer
        return answer


def named(body: bytes) -> bytes:
    return DONE.replace(b"done", b"%-4b" % body)


@contextlib.asynccontextmanager
async def clients(route: Fast, count: int) -> AsyncIterator[list[Client]]:
    """Connections whose next request to /echo with a byte of body has a head that is known."""
    async with serving(fast_routes={(b"POST", b"/echo"): route}) as port, contextlib.AsyncExitStack() as stack:
        several = [await stack.enter_async_context(connected(port)) for _ in range(count)]
        assert (await several[0].ask(post("/echo", b"0")))[0] == 202
        route.seen.clear()
        yield several


async def ask_all(several: list[Client]) -> list[tuple[int, bytes]]:
    """The answers to requests that arrive in one turn of the loop, with the clients' numbers as bodies."""
    for number, one in enumerate(several):
        one.send(post("/echo", b"%d" % number))
    return [await one.answer() for one in several]


@on_both_loops
async def test_known_requests_of_one_turn_are_answered_together() -> None:
    route = Joining()
    async with clients(route, 5) as several:
        for _ in range(3):
            assert await ask_all(several) == [(202, b"%d   " % number) for number in range(5)]
        assert (await several[0].ask(post("/echo", b"7"))) == (202, b"done")  # one alone need not wait for others
    assert route.groups == [[b"0", b"1", b"2", b"3", b"4"]] * 3
    assert [body for _, _, body, _ in route.seen] == [b"7"]


@on_both_loops
async def test_only_requests_that_may_be_mixed_are_answered_together() -> None:
    route = Joining()
    async with clients(route, 3) as several:
        other = post("/echo?a=b", b"1")
        assert await several[0].ask(other) == (202, b"done")
        several[0].send(post("/echo", b"0"))
        several[1].send(other)
        several[2].send(post("/echo", b"2"))
        assert [await one.answer() for one in several] == [(202, b"0   "), (202, b"done"), (202, b"2   ")]
    assert route.groups == [[b"0", b"2"]]


@on_both_loops
@pytest.mark.parametrize("joint", [None, [DONE, None, None]], ids=["all", "two"])
async def test_those_that_are_left_out_are_asked_alone_and_may_take_the_ordinary_path(joint: Any) -> None:
    route = Joining(joint, alone=[DONE, *([DONE] if joint is None else []), None, DONE])
    async with clients(route, 3) as several:
        assert await ask_all(several) == [(202, b"done"), (200, b"1"), (202, b"done")]
        assert await several[1].ask(post("/echo", b"4")) == (202, b"done")


@on_both_loops
async def test_requests_together_may_be_answered_later_with_what_follows_them_in_order() -> None:
    answers: Deferred[Any] = Deferred()
    route = Joining(answers)
    async with clients(route, 3) as several:
        for number, one in enumerate(several):
            one.send(post("/echo", b"%d" % number))
        await until(lambda: route.groups)
        several[0].send(get("/echo") + post("/echo", b"5"))
        several[1].writer.write_eof()
        several[2].writer.transport.abort()
        await asyncio.sleep(0.01)
        answers.set_result([named(b"a"), named(b"b"), named(b"c")])
        assert [await several[0].answer() for _ in range(3)] == [(202, b"a   "), (200, b"hello"), (202, b"done")]
        assert await several[1].answer() == (202, b"b   ")
        assert await several[1].rest() == b""


@on_both_loops
@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_requests_together_that_fail_are_answered_500_each(later: bool, caplog: pytest.LogCaptureFixture) -> None:
    failing: Deferred[Any] = Deferred()
    if later:
        failing.set_exception(RuntimeError("together"))
    route = Joining(failing if later else RuntimeError("together"))
    async with clients(route, 2) as several:
        assert [status for status, _ in await ask_all(several)] == [500, 500]
        assert [await one.rest() for one in several] == [b"", b""]
    assert "together" in caplog.text


@on_both_loops
async def test_pipelined_fast_answers_leave_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    flush = connection.Connection.flush
    monkeypatch.setattr(
        connection.Connection, "flush", lambda self: (self._unsent and writes.append(1), flush(self))[1]
    )
    async with client(fast_routes={(b"POST", b"/echo"): Fast()}) as one:
        one.send(post("/echo", b"1") * 100)
        assert [await one.answer() for _ in range(100)] == [(202, b"done")] * 100
    assert len(writes) < 10


# The server


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "test.crt", CERTIFICATES / "test.key")
    return context


@on_both_loops
@pytest.mark.parametrize("as_dict", [False, True])
async def test_tls(as_dict: bool) -> None:
    files = {"certfile": str(CERTIFICATES / "test.crt"), "keyfile": str(CERTIFICATES / "test.key")}
    mine = ssl.create_default_context(cafile=str(CERTIFICATES / "test.crt"))
    mine.check_hostname = False
    async with (
        serving(ssl_options=files if as_dict else server_context()) as port,
        connected(port, ssl=mine) as one,
    ):
        assert await one.ask(get("/about")) == (
            200,
            b'{"ip": "127.0.0.1", "protocol": "https", "peer": null}',
        )
        assert (await one.ask(post("/echo", bytes(MiB))))[0] == 200
        _status, body = await one.ask(get("/stream?pieces=100"))
        assert len(body) == 100 * 65536


@on_both_loops
async def test_client_that_speaks_no_tls_is_dropped() -> None:
    async with client(ssl_options=server_context()) as one:
        one.send(get("/echo"))
        with contextlib.suppress(ConnectionError):
            assert b"HTTP" not in await one.rest()


@on_both_loops
async def test_unix_socket(tmp_path: Path) -> None:
    server = HTTPServer(application())
    server.add_socket(netutil.bind_unix_socket(str(tmp_path / "socket")))
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "socket"))
    assert await Client(reader, writer).ask(get("/about")) == (
        200,
        b'{"ip": "0.0.0.0", "protocol": "http", "peer": null}',
    )
    writer.close()
    await writer.wait_closed()
    server.stop()
    await server.close_all_connections()


@on_both_loops
async def test_forwarded_address_counts_with_xheaders_only() -> None:
    fields = ("X-Real-Ip: 4.4.4.4", "X-Scheme: https")
    async with client(xheaders=True, ssl_options=None) as one:
        assert b'"ip": "4.4.4.4"' in (await one.ask(get("/about", "X-Real-Ip: 4.4.4.4")))[1]
        assert b'"ip": "127.0.0.1"' in (await one.ask(get("/about")))[1]
    async with client() as one:
        assert b'"ip": "127.0.0.1", "protocol": "http"' in (await one.ask(get("/about", *fields)))[1]


@on_both_loops
async def test_stop_takes_no_more_and_lets_those_there_finish() -> None:
    server = HTTPServer(application())
    server.listen(0, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    async with connected(port) as one:
        assert await one.ask(get("/echo")) == (200, b"hello")
        one.send(get("/later"))
        server.stop()
        server.stop()
        assert await one.answer() == (200, b"later")
        with pytest.raises(OSError):  # noqa: PT011
            await asyncio.open_connection("127.0.0.1", port)
        await server.close_all_connections()
        assert await one.rest() == b""


@on_both_loops
async def test_stop_before_the_loop_has_turned() -> None:
    server = HTTPServer(application())
    server.listen(0, "127.0.0.1")
    server.stop()
    await asyncio.sleep(0)


@on_both_loops
async def test_closing_all_connections_tells_their_handlers() -> None:
    server = HTTPServer(application())
    server.listen(0, "127.0.0.1")
    async with connected(server.sockets[0].getsockname()[1]) as one:
        one.send(get("/hanging"))
        await until(lambda: any(connection._exchange for connection in server._connections))
        server.stop()
        await server.close_all_connections()
        assert Hanging.closed.is_set()
        assert not server._connections


@on_both_loops
async def test_backlog_holds_a_burst() -> None:
    sockets = []
    async with serving() as port:
        await asyncio.sleep(0.01)
        for _ in range(500):  # the loop does not turn, so nobody accepts
            sock = socket.socket()
            sock.settimeout(1)
            sock.connect(("127.0.0.1", port))
            sockets.append(sock)
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


@on_both_loops
async def test_malformed_requests_are_logged_once_at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with client() as one:
        one.send(b"nonsense\r\n\r\n")
        await one.rest()
    messages = [record.getMessage() for record in caplog.records if record.name == "tornado.general"]
    assert messages == ["Malformed HTTP message from 127.0.0.1: Malformed HTTP request line"]


def test_options_are_checked_when_the_server_is_made() -> None:
    with pytest.raises(KeyError):
        HTTPServer(application, ssl_options={"keyfile": "a"})
    with pytest.raises(ValueError):  # noqa: PT011
        HTTPServer(application, ssl_options={"certfile": os.devnull + "/nowhere"})
