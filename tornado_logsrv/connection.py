"""One client's connection: its requests read and answered one after the other."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from tornado import gen, httpserver, httputil
from tornado.concurrent import future_set_result_unless_cancelled
from tornado.http1connection import _GzipMessageDelegate
from tornado.iostream import StreamClosedError
from tornado.log import app_log, gen_log

from .exchange import Exchange, Stream
from .fastroutes import FastRoute, KnownHead
from .framing import END_OF_HEAD, ChunkedBody, FixedBody, Head, Headers, HeadTooLarge, explain

if TYPE_CHECKING:
    from .transport import HTTPServer

#: The largest body, in bytes, that is collected for a fast route. Larger ones take the ordinary path.
FAST_BODY = 1024 * 1024
#: Bytes of bodies that are waited for at a time; with more of them underway the ordinary path reads, and counts, them.
FAST_WAITING = 64 * 1024 * 1024

#: Bytes read ahead of a delegate that is not done with those before.
_READ_AHEAD = 64 * 1024

#: Bytes of answers put together before they are written.
_WRITE_TOGETHER = 64 * 1024

#: How many bytes, for how many seconds, are still taken from a client that is told no while it is sending.
_DISCARD_BYTES = 64 * 1024 * 1024
_DISCARD_SECONDS = 10.0
_DISCARD_SECONDS_TLS = 2.0  # here the client cannot see the end of our half, and may wait for the close

#: Seconds a handler may still take once the client has closed its half of the connection.
_HALF_CLOSED_SECONDS = 60.0

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\n\r\n"
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n"
_SERVER_ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Forwarded:
    """Header fields as far as ``_HTTPRequestContext._apply_xheaders`` reads them."""

    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    def get(self, name: str, default: str) -> str:
        wanted = name.lower().encode()
        values = [value.decode("latin1") for name, value in self._headers if name.lower() == wanted]
        return ",".join(values) if values else default


class Connection(asyncio.Protocol):
    """One client's connection: reads requests, has them answered, one after the other.

    It is always in one step, the method ``_step``; a step that got something done returns True and the next
    one is taken, one that has to wait returns False.

        (_answer_known)
             ↓ no
        _read_head → _offer_fast_route → (_wait)
             ↓               ↓
        (headers_received) → _admit_body → _read_body → _await_answer → _read_head
        any of these → _discard: what the client still sends after an early answer, then close
    """

    context: httpserver._HTTPRequestContext
    stream: Stream

    def __init__(self, server: "HTTPServer", loop: asyncio.AbstractEventLoop) -> None:
        params = server.conn_params
        self.no_keep_alive = params.no_keep_alive
        self.body_timeout = params.body_timeout
        self.closed = False
        self._server = server
        self.loop = loop
        self._header_timeout = params.header_timeout or inf
        self._max_header_size = params.max_header_size
        self._max_body_size = server.max_body_size
        self._chunk_size = params.chunk_size
        self._fast_routes = server.fast_routes if not params.no_keep_alive else {}
        self._head = Head(server.max_header_count)
        self._received = bytearray()
        self._between = True  # requests, with nothing received of the next
        self._head_text = b""
        self._declined = False  # has the fast route the request that is read next
        self._scanned = 0  # bytes received in which no end of a head was found
        self._step: Callable[[], bool] = self._read_head
        self._exchange: Exchange | None = None
        self._body: FixedBody | ChunkedBody = FixedBody(0)
        self._route: FastRoute
        self._running = False
        self._starved = False  # the step waits for bytes, not for the delegate
        self._ended = False  # the client has sent its last byte
        self._sent_all = False  # our half is closed, or as good as
        self._discarded = 0
        self._reading_paused = False
        self._writing_paused = False
        self._unsent: list[bytes] = []
        self._unsent_size = self._sent_size = 0
        self._awaited = 0
        self._drained: list[asyncio.Future[None]] = []
        self._done = server.done_future(loop)
        self._lost: asyncio.Future[None] = loop.create_future()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = inf
        self._deadline = inf

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: asyncio.BaseProtocol.connection_made."""
        self._transport = cast(asyncio.Transport, transport)
        self._tls = transport.get_extra_info("sslcontext") is not None
        self.stream = Stream(self._transport)
        server = self._server
        self.context = httpserver._HTTPRequestContext(
            cast(Any, SimpleNamespace(socket=transport.get_extra_info("socket"))),
            transport.get_extra_info("peername"),
            server.protocol or ("https" if self._tls else "http"),
            server.trusted_downstream,
        )
        server.opened(self)
        self._expire_in(self._header_timeout)

    def data_received(self, data: bytes) -> None:
        """Bytes have come, perhaps the whole of a request, or more."""
        if self._between and self._answer_known(data):
            return
        self._between = False
        self._received += data
        self._run()

    def eof_received(self) -> bool:
        """The client may have closed its half only. Who waits is told; an answer that comes is still sent."""
        self._ended = True
        self._run()
        self._tell_half_closed()
        return not self._tls  # TLS has no half-closed connections in asyncio

    def pause_writing(self) -> None:
        """The client does not take what it is sent."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """The client takes more."""
        self._writing_paused = False
        waiting, self._drained = self._drained, []
        for future in waiting:
            future_set_result_unless_cancelled(future, None)
        self._run()

    def connection_lost(self, error: Exception | None) -> None:
        """The end: who waits for the client is told."""
        self.closed = True
        self._deadline = inf
        if self._alarm is not None:
            self._alarm.cancel()
        for future in self._drained:
            _fail(future)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._tell_closed(exchange)
        self._await_no_more()
        self._head.release()
        del self._step  # a method of this object: one more cycle
        self._server.on_close(self)
        self._lost.set_result(None)

    # What exchanges and the server call

    @property
    def is_reading(self) -> bool:
        """Whether a request has been read in part, or waits for a fast route."""
        return not self.closed and (bool(self._received) or self._step in (self._offer_fast_route, self._wait))

    def send(self, data: bytes) -> "asyncio.Future[None]":
        """Send bytes at the end of this turn of the loop.

        The future is done when there is room for more; it fails with StreamClosedError without a client.
        """
        if self.closed or self._sent_all:
            return self.closed_future()
        if not self._unsent:
            self._server.flush_soon(self)
        self._unsent.append(data)
        self._unsent_size += len(data)
        if self._unsent_size > _WRITE_TOGETHER:
            self.flush()  # and see whether the client keeps up
        if not self._writing_paused:
            return self._done
        future = self.loop.create_future()
        self._drained.append(future)
        return future

    def closed_future(self) -> "asyncio.Future[None]":
        """A future that has failed with StreamClosedError."""
        return _fail(self.loop.create_future())

    def flush(self) -> None:
        """Write what there is to send."""
        unsent = self._unsent
        if unsent and not self.closed:
            self._sent_size += self._unsent_size
            self._unsent = []
            self._unsent_size = 0
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def answered(self, exchange: Exchange) -> None:
        """The delegate has finished its answer: go on with the next request, or close."""
        if exchange is not self._exchange:
            return
        if exchange.reading:
            # The rest of the body is for nobody, and only closing the connection spares reading all of it.
            self._dismiss()
        else:
            self._exchange = None
            exchange.release()
            if exchange.close_after:
                self._close()
            else:
                self._next_request()
        self._run()

    def abort(self) -> None:
        """Close at once; what is not yet written is lost."""
        self.closed = True
        self._step = self._wait
        self._transport.abort()

    def sending(self) -> tuple[int, int, Any]:
        """How many bytes the client is sent in all, how many of them the kernel has not taken, and the socket."""
        left = 0 if self.closed else self._transport.get_write_buffer_size()
        return self._sent_size, left, self._transport.get_extra_info("socket")

    async def close(self) -> None:
        """Close at once, and wait until everybody concerned has been told."""
        self.abort()
        await asyncio.shield(self._lost)

    # Steps

    def _answer_known(self, data: bytes) -> bool:
        """Answer one whole request to a fast route whose head was read before, byte for byte; whether it was that.

        Clients that keep a connection send the same head again and again. What llhttp and we have agreed on once
        holds for the same bytes: a third of what a request costs is saved.
        """
        end = data.find(END_OF_HEAD) + len(END_OF_HEAD)
        known = self._server.known_heads.get(data[:end])
        if known is None or len(data) - end != known.length or self._writing_paused or self.closed:
            return False
        self._between = False
        if known.together is None:
            return self._answer_alone(known, data[end:])
        self._deadline = inf
        self._step = self._wait
        self._server.turn.answer((self, known, data, data[end:]))
        return True

    def _answer_alone(self, known: KnownHead, body: bytes) -> bool:
        """Ask a fast route for the answer to a request with a known head; False when it declines."""
        try:
            answer = self._call_fast_route(known.route, known.target, known.headers, body)
        except Exception:
            return self._fast_route_failed()
        if answer is None:
            self._declined = True
            return False
        if type(answer) is bytes:
            self.send(answer)
            self._next_request()
        else:
            self._await_fast_route(cast(Awaitable[bytes], answer))
        return True

    def end_waiting(self, known: KnownHead, text: bytes, body: bytes, answer: bytes | None) -> None:
        """Answer a request that has waited for others; None: it is answered alone after all."""
        if self.closed:
            return
        if answer is not None:
            self.send(answer)
            self._next_request()
        elif not self._answer_alone(known, body):
            self._received[:0] = text
            self._step = self._read_head
        if self._received or self._ended:
            self._run()

    def fail_waiting(self) -> None:
        """A request that has waited for others cannot be answered."""
        if not self.closed:
            self._fast_route_failed()
            self._run()

    def _run(self) -> None:
        """Take steps until one has to wait. Answers given meanwhile are written together."""
        if self._running or self._lost.done():
            return
        self._running = True
        self._starved = False
        try:
            while self._step():
                pass
        except httputil.HTTPInputError as error:
            self._refuse(error)
        except (Exception, asyncio.CancelledError):
            app_log.error("Uncaught exception", exc_info=True)
            self.abort()
        finally:
            self._running = False
            if self._reading_paused or len(self._received) > _READ_AHEAD:
                self._pace()

    def _read_head(self) -> bool:
        received = self._received
        if self._writing_paused:
            return False  # a client that does not read its answers gets no more of them
        if not received:
            return self._starve()
        while received.startswith(b"\r\n"):  # some clients end a body with them: RFC 9112, section 2.2
            del received[:2]
        end = received.find(END_OF_HEAD, self._scanned)
        if end < 0:
            return self._await_head()
        size = end + len(END_OF_HEAD)
        if size > self._max_header_size:
            raise HeadTooLarge("Head too large")
        text = bytes(received[:size])
        del received[:size]
        self._scanned = 0
        head = self._head
        head.read(text)
        declined, self._declined = self._declined, False
        if self._fast_routes and not declined:
            route = self._fast_routes.get((head.method, head.target.partition(b"?")[0]))
            if route and head.is_plain() and head.length <= min(FAST_BODY, self._max_body_size):
                self._route, self._head_text = route, text
                if len(received) < head.length:
                    if self._server.awaited + head.length > FAST_WAITING:
                        return self._begin()
                    self._server.awaited += head.length
                    self._awaited = head.length
                    self._expire_in(inf if self.body_timeout is None else self.body_timeout)
                self._step = self._offer_fast_route
                return True
        return self._begin()

    def _await_head(self) -> bool:
        received, start = self._received, self._scanned
        if len(received) > self._max_header_size:
            raise HeadTooLarge("Head too large")
        if start and received[start - 1 : start + 1] == b"\r\n":
            start += 1  # not in the midst of a line's end
        if received.count(b"\n", start) != received.count(b"\r\n", start):
            # It may never end in an empty line that is one here.
            explain(bytes(received.partition(b"\n\n")[0]))
            raise httputil.HTTPInputError("Line ends in a bare LF")
        self._scanned = max(len(received) - len(END_OF_HEAD) + 1, 0)
        return self._starve()

    def _offer_fast_route(self) -> bool:
        """Call the fast route once the body is whole. Nothing is taken off the bytes before it accepts."""
        head, received = self._head, self._received
        if len(received) < head.length:
            return self._starve()
        self._await_no_more()
        body = bytes(received[: head.length])
        try:
            answer = self._call_fast_route(self._route, head.target, head.headers, body)
        except Exception:
            return self._fast_route_failed()
        if answer is None:
            return self._begin()
        if body:
            del received[: head.length]
            head.follow(body)
        head.confirm_end()
        self._server.known_heads.remember(self._head_text, head, self._route)
        if type(answer) is bytes:
            self.send(answer)
            self._next_request()
            return True
        self._await_fast_route(cast(Awaitable[bytes], answer))
        return self._step != self._wait  # it may have come at once

    def _await_no_more(self) -> None:
        self._server.awaited -= self._awaited
        self._awaited = 0

    def _await_fast_route(self, answer: Awaitable[bytes]) -> None:
        self._deadline = inf
        self._step = self._wait
        # A Deferred has its own way to tell, without a turn of the loop.
        told: Any = answer if hasattr(answer, "add_done_callback") else asyncio.ensure_future(answer)
        told.add_done_callback(self._fast_route_done)

    def _call_fast_route(
        self, route: FastRoute, target: bytes, headers: Headers, body: bytes
    ) -> bytes | Awaitable[bytes] | None:
        context = self.context
        if not self._server.xheaders:
            return route(target, headers, body, context)
        context._apply_xheaders(cast(Any, _Forwarded(headers)))
        try:
            return route(target, headers, body, context)
        finally:
            context._unapply_xheaders()

    def _fast_route_done(self, future: Any) -> None:
        try:
            answer = future.result()
            if self.closed:
                return  # nobody is left to be told
            self.send(answer)
            self._next_request()
        except (Exception, asyncio.CancelledError):
            if self.closed:
                return
            self._fast_route_failed()
        self._run()

    def _fast_route_failed(self) -> bool:
        app_log.error("Uncaught exception in a fast route", exc_info=True)
        self.send(_SERVER_ERROR)
        self._close_gently()
        return True

    def _begin(self) -> bool:
        """Take the ordinary path: make an exchange and give its delegate the head."""
        head, server = self._head, self._server
        self._deadline = inf
        self._exchange = exchange = Exchange(self, head, self._max_body_size)
        delegate = server.start_request(self, exchange)
        if server.conn_params.decompress:
            delegate = _GzipMessageDelegate(delegate, self._chunk_size, self._max_body_size)
        exchange.delegate = delegate
        start_line = httputil.RequestStartLine(head.method.decode("latin1"), head.target.decode("latin1"), head.version)
        self._step = self._admit_body
        return self._deliver(delegate.headers_received(start_line, _http_headers(head.headers)))

    def _admit_body(self) -> bool:
        exchange, head = self._exchange, self._head
        assert exchange is not None
        if head.chunked:
            self._body = ChunkedBody(exchange.max_body_size)
        else:
            if head.length > exchange.max_body_size:
                raise httputil.HTTPInputError("Content-Length too long")
            self._body = FixedBody(head.length)
        if head.fields.get(b"expect", b"").lower() == b"100-continue" and not exchange.answering:
            self.send(_CONTINUE)
        if exchange.body_timeout is not None:
            self._expire_in(exchange.body_timeout)
        self._step = self._read_body
        return self._read_body()

    def _read_body(self) -> bool:
        exchange, body, received = self._exchange, self._body, self._received
        assert exchange is not None
        if body.done:
            return self._end_request(exchange)
        content, taken = body.cut(received, self._chunk_size)
        if taken:
            self._head.follow(content if taken == len(content) else bytes(received[:taken]))
            del received[:taken]
        if content:
            awaitable = exchange.delegate.data_received(content)
            return awaitable is None or self._deliver(awaitable)
        return body.done or self._starve()

    def _end_request(self, exchange: Exchange) -> bool:
        self._head.confirm_end()
        self._deadline = inf
        self._step = self._await_answer
        exchange.reading = False
        try:
            exchange.delegate.finish()
        except BaseException:
            exchange.reading = True  # a delegate that failed to finish is told of the close that follows
            raise
        if self._ended:
            self.loop.call_soon(self._tell_half_closed)
        return True

    def _await_answer(self) -> bool:
        return False

    def _wait(self) -> bool:
        return False

    def _deliver(self, awaitable: Awaitable[None] | None) -> bool:
        """Go on at once if the delegate returned nothing, else when what it returned is done."""
        if awaitable is None:
            return True
        future = gen.convert_yielded(awaitable)
        if future.done():
            future.result()
            return True
        self._step = partial(self._delivered, future, self._step)
        future.add_done_callback(lambda _: self._run())
        return False

    def _delivered(self, future: "asyncio.Future[None]", following: Callable[[], bool]) -> bool:
        if not future.done():
            return False
        self._step = following
        future.result()
        return True

    def _discard(self) -> bool:
        self._discarded += len(self._received)
        self._received.clear()
        if self._discarded > _DISCARD_BYTES:
            self._close()
            return False
        return self._starve()

    def _starve(self) -> bool:
        """Wait for bytes. After the client's last one there is nothing to wait for."""
        self._starved = True
        if self._ended:
            self._close()
        return False

    # Ends

    def _next_request(self) -> None:
        self._step = self._read_head
        self._between = not self._received
        self._expire_in(self._header_timeout)

    def _refuse(self, error: httputil.HTTPInputError) -> None:
        too_large = isinstance(error, HeadTooLarge)
        what = "Unsatisfiable read" if too_large else "Malformed HTTP message"  # as Tornado says it
        gen_log.info("%s from %s: %s", what, self.context, error)
        if self._exchange is None or not self._exchange.answering:
            self.send(_HEAD_TOO_LARGE if too_large else _BAD_REQUEST)
        self._dismiss()

    def _dismiss(self) -> None:
        """Close on a client that may be sending; tell the delegate, but not in the midst of its call."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self.loop.call_soon(self._tell_closed, exchange)
        self._close_gently()

    def _close_gently(self) -> None:
        """Close so that the client can read the answer first.

        A socket closed with bytes unread resets the connection, and the reset destroys an answer that the
        client has not read yet (RFC 9112, section 9.6). So: end our half, discard for a while, close.
        """
        self._step = self._discard
        self.flush()
        self._sent_all = True
        if self._transport.can_write_eof() and not self.closed:
            self._transport.write_eof()
        self._expire_in(_DISCARD_SECONDS_TLS if self._tls else _DISCARD_SECONDS)
        self._discard()

    def _close(self) -> None:
        """Close once all is written."""
        if self._received and not self._ended and self._step != self._discard:
            self._close_gently()
        else:
            self.flush()
            self.closed = True
            self._step = self._wait
            self._transport.close()

    def _tell_half_closed(self) -> None:
        if self._exchange is not None and not self._exchange.reading:
            self._expire_in(_HALF_CLOSED_SECONDS)
            self._tell_closed(self._exchange)

    def _tell_closed(self, exchange: Exchange) -> None:
        try:
            exchange.tell_closed()
        except Exception:
            app_log.error("Uncaught exception", exc_info=True)

    # Pace

    def _pace(self) -> None:
        """Pause a client that sends faster than its requests are dealt with."""
        pause = len(self._received) > _READ_AHEAD and not self._starved
        if pause != self._reading_paused and not self.closed:
            self._reading_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # Time

    def _expire_in(self, seconds: float) -> None:
        """Set when patience ends. The timer is not moved for a later time: it looks again when it is due."""
        self._deadline = deadline = self.loop.time() + seconds
        if deadline < self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_at = deadline
            self._alarm = self.loop.call_at(deadline, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm, self._alarm_at = None, inf
        left = self._deadline - self.loop.time()
        if left <= 0:
            self._expire()
        elif left < inf:
            self._expire_in(left)

    def _expire(self) -> None:
        if self._exchange is not None and self._exchange.reading:
            gen_log.info("Timeout reading body from %s", self.context)
            self.abort()
        else:
            self._step = self._discard
            self._close()


def _http_headers(pairs: Headers) -> httputil.HTTPHeaders:
    """The fields as HTTPHeaders. llhttp has judged names and values; ``add`` would judge them again."""
    headers = httputil.HTTPHeaders()
    for name, value in pairs:
        headers[name.decode("latin1")] = value.decode("latin1")
    if len(headers) < len(pairs):  # a name came twice
        headers.clear()
        for name, value in pairs:
            headers.add(name.decode("latin1"), value.decode("latin1"))
    return headers


def _fail(future: "asyncio.Future[None]") -> "asyncio.Future[None]":
    if not future.done():
        future.set_exception(StreamClosedError())
        future.exception()  # a handler need not await it
    return future
