"""One request and its answer, as a delegate sees its connection."""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tornado import httputil
from tornado.escape import native_str, utf8

from .framing import END_OF_HEAD, Head

if TYPE_CHECKING:
    from .connection import Connection


class Stream:
    """The little of an IOStream that handlers reach for through ``request.connection.stream``."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    @property
    def socket(self) -> Any:
        """The socket, or with TLS the object that knows the peer's certificate."""
        return self._transport.get_extra_info("ssl_object") or self._transport.get_extra_info("socket")

    def close(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def closed(self) -> bool:
        """Whether it is closed, or being closed."""
        return self._transport.is_closing()


class Exchange(httputil.HTTPConnection):
    """One request and its answer: what a delegate sees as its connection."""

    delegate: httputil.HTTPMessageDelegate
    reading = True  # the request: until then the delegate is told of a close, after that the callback
    answering = False
    finished = False
    _chunked = False
    _left: int | None = None  # of the Content-Length promised
    _on_close: Callable[[], None] | None = None

    def __init__(self, connection: "Connection", head: Head, max_body_size: int) -> None:
        self.context = connection.context
        self.stream = connection.stream
        self.max_body_size = max_body_size
        self.body_timeout = connection.body_timeout
        self.close_after = not head.keep_alive or connection.no_keep_alive
        self._connection = connection
        self._method = head.method
        self._version = head.version
        self._asks_keep_alive = head.version == "HTTP/1.0" and head.keep_alive

    # What handlers ask for

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Set what is called, once, when the client closes before the answer is finished."""
        self._on_close = callback

    def set_max_body_size(self, max_body_size: int) -> None:
        """Set the most bytes the body of this request may have; counts until headers_received is done."""
        self.max_body_size = max_body_size

    def set_body_timeout(self, timeout: float) -> None:
        """Set the seconds the body of this request may take; counts until headers_received is done."""
        self.body_timeout = timeout

    def detach(self) -> Any:
        """Raises NotImplementedError, and closes: RequestHandler takes the answer for given by then."""
        self._connection.abort()
        raise NotImplementedError("This transport has no stream to hand over: WebSocket needs Tornado's own")

    # The answer

    def write_headers(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
        chunk: bytes | None = None,
    ) -> "asyncio.Future[None]":
        """Send the head of the answer, and a first chunk.

        The future is done when the client has room for more; StreamClosedError in it when it has gone.
        """
        assert isinstance(start_line, httputil.ResponseStartLine)
        self._frame(start_line.code, headers)
        head = _response_head(start_line.code, start_line.reason, headers)
        return self._send(head + self._pack(chunk) if chunk else head)

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        """Send a chunk of the body. The future is that of `write_headers`."""
        return self._send(self._pack(chunk))

    def finish(self) -> None:
        """End the answer. Raises HTTPOutputError when it is shorter than its Content-Length."""
        if self._left and not self._connection.closed:
            self._connection.abort()
            raise httputil.HTTPOutputError(f"Tried to write {self._left} bytes less than Content-Length")
        if self._chunked:
            self._send(b"0\r\n\r\n")
        self.finished = True
        self._on_close = None
        self._connection.answered(self)

    def tell_closed(self) -> None:
        """Tell whoever waits on this exchange, once, that the client has gone."""
        if self.reading:
            self.reading = False
            delegate = self.delegate
            self.release()
            delegate.on_connection_close()
        elif self._on_close is not None:
            callback, self._on_close = self._on_close, None
            callback()

    def release(self) -> None:
        """Forget the delegate, which knows this exchange: a cycle a request would keep the collector busy."""
        del self.delegate

    def _frame(self, code: int, headers: httputil.HTTPHeaders) -> None:
        """Decide how the end of the answer will show: RFC 9112, section 6.3."""
        sized = "Content-Length" in headers
        bodiless = self._method == b"HEAD" or code in (204, 304) or 100 <= code < 200
        self._chunked = self._version == "HTTP/1.1" and not bodiless and not sized
        if self._version == "HTTP/1.0" and not bodiless and not sized:
            self.close_after = True  # nothing else can end it
        if self._chunked:
            headers["Transfer-Encoding"] = "chunked"
        if self.close_after and self._version == "HTTP/1.1":
            headers["Connection"] = "close"
        elif self._asks_keep_alive and not self.close_after:
            headers["Connection"] = "Keep-Alive"
        if self._method == b"HEAD" or code == 304:
            self._left = 0
        elif sized:
            self._left = _content_length(headers["Content-Length"])

    def _pack(self, chunk: bytes) -> bytes:
        if self._left is not None:
            self._left -= len(chunk)
            if self._left < 0:
                self._connection.abort()  # what follows would be read as the next answer
                raise httputil.HTTPOutputError("Tried to write more data than Content-Length")
        if self._chunked and chunk:  # an empty chunk would be the last one
            return b"%x\r\n%b\r\n" % (len(chunk), chunk)
        return chunk

    def _send(self, data: bytes) -> "asyncio.Future[None]":
        self.answering = True
        return self._connection.send(data) if not self.finished else self._connection.closed_future()


def _content_length(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"not a Content-Length: {digits!r}")
    return int(digits)


@lru_cache(256)
def _status_line(code: int, reason: str) -> bytes:
    line = utf8(f"HTTP/1.1 {code} {reason}")
    if b"\r" in line or b"\n" in line:
        raise ValueError(f"Illegal characters (CR or LF) in header: {line!r}")
    return line


def _response_head(code: int, reason: str, headers: httputil.HTTPHeaders) -> bytes:
    """The head of an answer, its empty line included. Raises ValueError for a CR or LF within a line."""
    lines = [f"{name}: {value if value.__class__ is str else native_str(value)}" for name, value in headers.get_all()]
    fields = "\r\n".join(lines).encode("latin1")
    breaks = max(len(lines) - 1, 0)
    if fields.count(b"\n") != breaks or fields.count(b"\r") != breaks:
        raise ValueError(f"Illegal characters (CR or LF) in header: {fields!r}")
    if not lines:
        return _status_line(code, reason) + END_OF_HEAD
    return b"%b\r\n%b\r\n\r\n" % (_status_line(code, reason), fields)
