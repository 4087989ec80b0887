"""The fast lane: plain requests of a hot route, answered without a handler, a header object or a task.

It decides nothing of its own. The route's collector, the intake and the table of problems are those of the handler;
whatever is not plain (a coding, a key, a parameter other than ``ack``) or cannot be read is left to the handler, which
gets the same bytes.
"""

import asyncio
import functools
import http.client
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from tornado.httputil import format_timestamp

from . import errors, problems
from .collector import Collector
from .handler import check_media_type
from .intake import ACKS, Receipt

if TYPE_CHECKING:
    from .application import LogApplication

#: Fields that the handler has to see.
_HANDLERS_OWN = frozenset((b"content-encoding", b"idempotency-key", b"authorization", b"cookie", b"origin"))


class Lane:
    """Answers ``POST`` on one path. Called by the transport; None sends the request to the handler."""

    def __init__(self, application: "LogApplication", path: str, collect: Callable[..., Collector]) -> None:
        """``collect`` makes the collector of a request, from a source of ids and the time in milliseconds."""
        self._application = application
        self._accept = application.intake.accept
        self._ids = application.new_ids
        self._collect = collect
        self._most = application.options.max_body_bytes
        self._path = path
        self._requests = application.requests
        self._took = application.requests.of("POST", path, 202).observe
        default = {path.encode(): application.options.ack}
        self._acks = default | {f"{path}?ack={ack}".encode(): ack for ack in ACKS}

    def __call__(
        self, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes, context: Any
    ) -> bytes | Awaitable[bytes] | None:
        """One answer, or an awaitable of it."""
        began = time.perf_counter()
        ack = self._acks.get(target)
        if ack is None or len(body) > self._most or self._application.stopping or not _is_plain(headers):
            return None
        collector = self._collect(self._ids, self._application.now_ms())
        try:
            collector.take(body)
            records = collector.end()
        except errors.Refused:
            # Nothing has been taken or counted: the handler says what is wrong.
            return None
        try:
            receipt = self._accept(records, ack, collector.source)
        except errors.Unavailable as error:
            return self._refused(error, began)
        if type(receipt) is Receipt:
            self._took(time.perf_counter() - began)
            return _answer(collector, receipt)
        return self._later(collector, began, asyncio.ensure_future(receipt))  # type: ignore[arg-type]

    def _refused(self, error: errors.Unavailable, began: float) -> bytes:
        status, answer = _problem(error)
        self._requests.of("POST", self._path, status).observe(time.perf_counter() - began)
        return answer

    def _later(self, collector: Collector, began: float, receipt: "asyncio.Future[Receipt]") -> "asyncio.Future[bytes]":
        answer: asyncio.Future[bytes] = receipt.get_loop().create_future()
        self._application.request_began(answer)
        receipt.add_done_callback(functools.partial(self._answered, collector, began, answer))
        return answer

    def _answered(
        self,
        collector: Collector,
        began: float,
        answer: "asyncio.Future[bytes]",
        receipt: "asyncio.Future[Receipt]",
    ) -> None:
        self._application.request_ended(answer)
        if answer.done():
            return
        try:
            answer.set_result(_answer(collector, receipt.result()))
            self._took(time.perf_counter() - began)
        except errors.Unavailable as error:
            answer.set_result(self._refused(error, began))
        except Exception as error:
            answer.set_exception(error)


def _is_plain(headers: list[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        name = name.lower()
        if name in _HANDLERS_OWN or (name == b"content-type" and not _is_json(value)):
            return False
    return True


@functools.lru_cache(maxsize=64)
def _is_json(content_type: bytes) -> bool:
    try:
        check_media_type(content_type.decode("latin1"), ("application/json",))
    except errors.UnsupportedMedia:
        return False
    return True


def _answer(collector: Collector, receipt: Receipt) -> bytes:
    body = msgspec.json.encode(collector.answer(receipt))
    return b"%b%d\r\n\r\n%b" % (_head(202, "application/json", int(time.time())), len(body), body)


def _problem(error: errors.Unavailable) -> tuple[int, bytes]:
    problem = problems.describe(error)
    body = msgspec.json.encode(problem)
    head = _head(problem["status"], problems.CONTENT_TYPE, int(time.time()), error.retry_after)
    return problem["status"], b"%b%d\r\n\r\n%b" % (head, len(body), body)


@functools.lru_cache(maxsize=16)
def _head(status: int, content_type: str, second: int, retry_after: int | None = None) -> bytes:
    """The head of an answer up to its length: made once a second."""
    lines = [f"HTTP/1.1 {status} {http.client.responses[status]}", f"Content-Type: {content_type}"]
    lines.append(f"Date: {format_timestamp(second)}")
    if retry_after is not None:
        lines.append(f"Retry-After: {retry_after}")
    return "\r\n".join([*lines, "Content-Length: "]).encode()
