"""The same bytes to this transport and to Tornado's own: the same requests must be seen, the same ends made.

Where they differ, ours must be the stricter one, and the bytes must be of a kind listed in INTENDED.
"""

import asyncio
import contextlib
import functools
import itertools
import os
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import uvloop
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tornado import httpserver, httputil

from tornado_logsrv import fastroutes, framing, transport

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "800"))
QUIET_TURNS = 12  # of the loop with nothing new, after which nothing more will come

INTENDED = {  # where ours is stricter, and the bytes that show it
    "lines end in CRLF: no bare LF, no second CR": rb"(?<!\r)\n|\r\r\n",
    "several lengths are refused even when they are equal": (
        rb"(?is)content-length:[^\r\n]*,|content-length:[^\r\n]*\r\n.*content-length:"
    ),
    "a target is a path, a URL or *, and ASCII": (
        rb"(?m)^[^ \r\n]+ (?!(/|https?://a/b|\*) )[^ \r\n]* HTTP|^[^\r\n]*[\x80-\xff][^\r\n]* HTTP"
    ),
    "the versions are 1.0 and 1.1": rb"HTTP/1\.[2-9]",
    "close closes also among other Connection options": (
        rb"(?is)connection:[^\r\n]*close[^\r\n]*,|connection:[^\r\n]*,[^\r\n]*close"
        rb"|connection:[^\r\n]*\r\n.*connection:"
    ),
    "what comes after a request that closes is not served": rb"HTTP/1\.0|(?i:connection:[^\r\n]*close)",
    "only whole empty lines may come before a request": rb"(^|\r\n|abc)\r(?!\n)",
}


SIZED = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"


class Outcome(NamedTuple):
    """The requests that reached the application whole, and whether the server closed."""

    seen: list[tuple[str, str, str, list[tuple[str, str]], bytes]]
    closed: bool


class Side:
    """A server with an application that notes what it sees."""

    def __init__(self, server_class: type[httpserver.HTTPServer], **options: Any) -> None:
        self.seen: list[tuple[str, str, str, list[tuple[str, str]], bytes]] = []
        self.server = server_class(self.note, max_body_size=1000, max_header_size=4000, **options)
        self.server.listen(0, "127.0.0.1", socket.AF_INET)
        sockets = getattr(self.server, "sockets", None) or self.server._sockets.values()
        self.address = next(iter(sockets)).getsockname()

    def note(self, request: httputil.HTTPServerRequest) -> None:
        headers = sorted(request.headers.get_all())
        self.seen.append((request.method, request.uri, request.version, headers, request.body))
        answer = httputil.HTTPHeaders({"Content-Length": "0"})
        request.connection.write_headers(httputil.ResponseStartLine("", 200, "OK"), answer)
        request.connection.finish()

    async def outcome(self, pieces: list[bytes]) -> Outcome:
        """Send the pieces, each when nothing more comes of the one before."""
        loop = asyncio.get_running_loop()
        self.seen = []
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each piece leaves when it is sent
            await loop.sock_connect(sock, self.address)
            closed = False
            for piece in pieces:
                if not closed:
                    try:
                        sock.send(piece)
                    except ConnectionError:
                        closed = True
                    closed = await self.settle(sock) or closed
            return Outcome(self.seen, closed)

    async def settle(self, sock: socket.socket) -> bool:
        """Let the server work until nothing changes any more. Returns whether it has closed."""
        quiet, before = 0, -1
        closed = False
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            try:
                closed = closed or not sock.recv(65536)
            except BlockingIOError:
                pass
            except ConnectionError:
                closed = True
            quiet = quiet + 1 if len(self.seen) == before else 0
            before = len(self.seen)
        return closed

    async def close(self) -> None:
        self.server.stop()
        await self.server.close_all_connections()


# Requests, mostly right

METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"FOO", b"get", b"CONNECT", b"PRI", b"G@T", b""])
TARGETS = st.sampled_from(
    [b"/", b"/a?b=c", b"/%41", b"*", b"http://a/b", b"a:80", b"x", b"/\xe9", b"/a b", b"/\\", b"/#f", b""]
)
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"RTSP/1.0", b""])
LINES = st.sampled_from(
    [
        b"Host: a",
        b"Host: b",
        b"Host: a b",
        b"Host:",
        b"X: a",
        b"X: b",
        b"x-y:\ta \t",
        b"X: \xe9",
        b"X: a\x00",
        b"X : a",
        b"X",
        b": a",
        b" folded",
        b"X\xe9: a",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Connection: x, close",
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Expect: 100-continue",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: Chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer_Encoding: chunked",
        b"Content-Length: 0",
        b"Content-Length: 3",
        b"Content-Length: 3 ",
        b"Content-Length: 03",
        b"Content-Length: 3, 3",
        b"Content-Length: 3, 4",
        b"Content-Length: +3",
        b"Content-Length: 0x3",
        b"Content-Length: 1_0",
        b"Content-Length: \xb2",
        b"Content-Length: 1001",
        b"Content-Length: 99999999999999999999",
        b"Content-Length:",
    ]
)
ENDS = st.sampled_from([b"\r\n"] * 30 + [b"\n", b"\r", b"\r\r\n", b"\n\r"])
SIZES = st.sampled_from(
    [b"3", b"03", b"3", b"3;x", b"3 ", b" 3", b"+3", b"0x3", b"g", b"", b"4", b"ffffffffffffffffff"]
)


GOOD_LINES = st.sampled_from(
    [
        b"X: a",
        b"x-y:\ta \t",
        b"X: \xe9",
        b"Connection: keep-alive",
        b"Upgrade: x",
        b"Expect: 100-continue",
        b"E:",
    ]
)
FRAMINGS = st.sampled_from([b"", b"Content-Length: 3", b"Transfer-Encoding: chunked"])
CRLF = st.just(b"\r\n")


@st.composite
def chunked_bodies(draw: st.DrawFn, sizes: st.SearchStrategy[bytes], ends: st.SearchStrategy[bytes]) -> bytes:
    body = b""
    for _ in range(draw(st.integers(0, 2))):
        body += draw(sizes) + draw(ends) + b"abc" + draw(ends)
    return body + b"0" + draw(ends) + draw(st.sampled_from([b""] * 9 + [b"T: a\r\n"])) + draw(ends)


@st.composite
def good_requests(draw: st.DrawFn) -> bytes:
    framing = draw(FRAMINGS)
    body = {b"": b"", b"Content-Length: 3": b"abc"}.get(framing)
    lines = [
        draw(st.sampled_from([b"GET / HTTP/1.1", b"POST /a?b=c HTTP/1.1", b"FOO /\\ HTTP/1.1"])),
        b"Host: a",
    ]
    lines += [line for line in [framing, *draw(st.lists(GOOD_LINES, max_size=3))] if line]
    head = b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    return head + (draw(chunked_bodies(st.sampled_from([b"3", b"03"]), CRLF)) if body is None else body)


@st.composite
def odd_requests(draw: st.DrawFn) -> bytes:
    """A request with something wrong here and there."""
    bodies = st.one_of(st.sampled_from([b"", b"abc"]), chunked_bodies(SIZES, ENDS))
    first = [draw(st.sampled_from([b"POST", draw(METHODS)])), draw(st.sampled_from([b"/", draw(TARGETS)]))]
    lines = [
        b" ".join([*first, draw(VERSIONS)]),
        draw(st.sampled_from([b"Host: a", b"Host: a", draw(LINES)])),
    ]
    lines += [line for line in [draw(FRAMINGS), *draw(st.lists(LINES, max_size=2))] if line]
    head = b"".join(line + draw(ENDS) for line in lines) + draw(ENDS)
    return draw(st.sampled_from([b"", b"", b"", b"\r\n", b"\n", b"\r"])) + head + draw(bodies)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """A few requests on one connection, perhaps damaged, cut into pieces anywhere."""
    data = bytearray(b"".join(draw(st.lists(good_requests() | odd_requests(), min_size=1, max_size=3))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    cuts = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=2))})
    return [bytes(data[start:end]) for start, end in itertools.pairwise(cuts)]


class EveryRoute(dict[tuple[bytes, bytes], fastroutes.FastRoute]):
    """Fast routes that take whatever they are offered, and note it as an application would."""

    side: Side
    taken = 0

    def get(self, key: tuple[bytes, bytes], default: Any = None) -> Any:
        return functools.partial(self.note, key[0].decode("latin1"))

    def note(self, method: str, target: bytes, headers: framing.Headers, body: bytes, _: object) -> bytes:
        fields = httputil.HTTPHeaders()
        for name, value in headers:
            fields.add(name.decode("latin1"), value.decode("latin1"))
        self.taken += 1
        self.side.seen.append((method, target.decode("latin1"), "HTTP/1.1", sorted(fields.get_all()), body))
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@contextlib.contextmanager
def two_sides(new_loop: Any, *options: dict[str, Any]) -> Iterator[list[Callable[[list[bytes]], Outcome]]]:
    """Two servers on one loop, as functions from the pieces sent to what came of them."""

    async def start() -> list[Side]:
        return [Side(**each) for each in options]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        sides = runner.run(start())
        try:
            yield [lambda pieces, side=side: runner.run(side.outcome(pieces)) for side in sides]
        finally:
            for side in sides:
                runner.run(side.close())


LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
STOCK = {"server_class": httpserver.HTTPServer}
OURS = {"server_class": transport.HTTPServer}


@LOOPS
def test_both_see_the_same_but_where_ours_is_meant_to_be_stricter(new_loop: Any) -> None:
    tally: Counter[tuple[str, bool]] = Counter()
    with two_sides(new_loop, STOCK, OURS) as (stock, ours):

        @fuzz
        @given(streams())
        @example([SIZED + b"abc" + SIZED + b"abc"])
        @example([SIZED[:-2] + b"Upgrade: x\r\nConnection: Upgrade\r\n\r\nabc" + SIZED])
        def compare(pieces: list[bytes]) -> None:
            theirs, mine = stock(pieces), ours(pieces)
            tally["seen" if mine.seen else "unseen", mine == theirs] += 1
            if mine != theirs:
                kinds = [kind for kind, pattern in INTENDED.items() if re.search(pattern, b"".join(pieces))]
                assert kinds, (theirs, mine)
                assert mine.closed
                assert theirs.seen[: len(mine.seen)] == mine.seen, (theirs, mine)

        compare()
    assert tally["seen", True] > EXAMPLES / 10, tally  # else nothing much was compared
    assert tally["unseen", True] > EXAMPLES / 10, tally


@LOOPS
def test_fast_routes_see_what_the_ordinary_path_sees(new_loop: Any) -> None:
    routes = EveryRoute({(b"", b""): Any})  # not empty, or there would be no fast lane
    with two_sides(new_loop, OURS, {**OURS, "fast_routes": routes}) as (ordinary, fast):
        routes.side = fast.__defaults__[0]  # type: ignore[attr-defined]

        @fuzz
        @given(streams())
        def compare(pieces: list[bytes]) -> None:
            # The second time, the heads are known.
            assert ordinary(pieces) == fast(pieces) == fast(pieces)

        compare()
    assert routes.taken > EXAMPLES / 10
