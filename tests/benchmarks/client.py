"""A load generator of our own: keep-alive connections that each post one request after the other.

``python -m tests.benchmarks.client URL CONNECTIONS COUNT SECONDS [TYPE SIZE ...]``, body on standard input, or several
bodies of these sizes and this media type, which take turns; ends after COUNT requests or SECONDS, whichever comes first
(0: no such limit), and prints ``{"answered", "failed", "seconds", "p99", "began"}``:
p99 is that of the time to an answer, in milliseconds, and began a reading of ``time.perf_counter()``, the clock of the
machine.
"""

import asyncio
import io
import itertools
import json
import sys
import time
import urllib.parse
from collections.abc import Sequence

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Load:
    """What all connections share: how much is left, and how it went."""

    def __init__(self, requests: Sequence[bytes], count: int, seconds: float) -> None:
        self.requests = itertools.cycle(requests)
        self.answered = 0
        self.failed = 0
        self._times: list[float] = []
        self._left = count or sys.maxsize
        self._until = time.perf_counter() + (seconds or 1e9)

    def more(self) -> bool:
        """Whether one more request is to be sent; counts it."""
        self._left -= 1
        return self._left >= 0 and time.perf_counter() < self._until

    def ended(self, answer: bytes, seconds: float) -> None:
        """An answer has come, after so many seconds."""
        self._times.append(seconds)
        if answer.startswith(b"HTTP/1.1 20"):
            self.answered += 1
        else:
            self.failed += 1

    def p99(self) -> float:
        """Milliseconds that 99 of 100 answers did not take longer than."""
        return 1000 * sorted(self._times)[len(self._times) * 99 // 100] if self._times else 0.0


class Connection(asyncio.Protocol):
    """One keep-alive connection; ``done`` when nothing is left to send, an error when it was cut."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._next()

    def _next(self) -> None:
        if self._load.more():
            self._sent = time.perf_counter()
            self._transport.write(next(self._load.requests))
        else:
            self.done.set_result(None)
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Once the answer is whole, send the next request."""
        self._received += data
        head_end = self._received.find(_HEAD_END)
        if head_end < 0:
            return
        head = self._received[:head_end].lower()
        # 204 has no body, and no length.
        length = int(head.partition(_LENGTH)[2].partition(b"\r\n")[0] or 0)
        if len(self._received) >= head_end + len(_HEAD_END) + length:
            self._load.ended(self._received, time.perf_counter() - self._sent)
            self._received = b""
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        """The server must not close a connection that is in use."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))


async def run(
    url: str, media_type: str, bodies: Sequence[bytes], connections: int, count: int, seconds: float
) -> dict[str, float]:
    """Post ``bodies`` in turns; how it went. Raises OSError."""
    parts = urllib.parse.urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {media_type}\r\n".encode()
    load = Load([b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body) for body in bodies], count, seconds)
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Connection(load), host, port) for _ in range(connections)]
    await asyncio.gather(*(connection.done for _, connection in made))
    seconds = time.perf_counter() - began
    return {
        "answered": load.answered,
        "failed": load.failed,
        "seconds": seconds,
        "p99": load.p99(),
        "began": began,
    }


if __name__ == "__main__":
    target, connections, count, seconds, *more = sys.argv[1:]
    given = io.BytesIO(sys.stdin.buffer.read())
    media_type, *sizes = more or ["application/json", "-1"]
    bodies = [given.read(int(size)) for size in sizes]
    print(json.dumps(asyncio.run(run(target, media_type, bodies, int(connections), int(count), float(seconds)))))
