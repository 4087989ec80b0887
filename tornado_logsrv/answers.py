"""Whole answers as bytes, for requests that no handler sees: those of one route, counted and with its problems."""

import functools
import http.client
import time
from typing import TYPE_CHECKING, Any

import msgspec
from tornado.httputil import format_timestamp

from . import errors, problems

if TYPE_CHECKING:
    from .application import LogApplication

_REQUEST_ID = problems.REQUEST_ID.encode()
_encode = msgspec.json.Encoder().encode


class Answers:
    """Makes the answers to ``POST`` on one path."""

    def __init__(self, application: "LogApplication", path: str) -> None:
        self._application = application
        self._path = path
        self._taken = application.requests.of("POST", path, 202).observe

    def took(self, began: float, count: int = 1) -> float:
        """``count`` requests that began at this time, in seconds since 1970, are answered 202 now; how long it took."""
        # By the clock on the wall, which may be set back.
        seconds = max(0.0, time.time() - began)
        self._taken(seconds, count)
        return seconds

    def taken(self, value: Any) -> bytes:
        """202 with ``value``."""
        body = _encode(value)
        return b"%bContent-Length: %d\r\n\r\n%b" % (_head(202, "application/json", int(time.time())), len(body), body)

    def all_taken(self, values: Any) -> list[bytes | None]:
        """202 with each of ``values``."""
        head = _head(202, "application/json", int(time.time())) + b"Content-Length: "
        return [b"%b%d\r\n\r\n%b" % (head, len(body), body) for body in map(_encode, values)]

    def refused(self, error: errors.Unavailable, began: float, name: str) -> tuple[bytes, int, float]:
        """The problem that ``error`` is, for the request called ``name``; its status, and how long it took."""
        problem = problems.describe(error) | problems.occurrence(name)
        status, body, ended = problem["status"], _encode(problem), time.time()
        seconds = max(0.0, ended - began)
        self._application.requests.of("POST", self._path, status).observe(seconds)
        self._application.refusals.note("POST", self._path, problem, name)
        head = _head(status, problems.CONTENT_TYPE, int(ended), error.retry_after)
        answer = b"%b%b: %b\r\nContent-Length: %d\r\n\r\n%b" % (head, _REQUEST_ID, name.encode(), len(body), body)
        return answer, status, seconds


@functools.lru_cache(maxsize=16)
def _head(status: int, content_type: str, second: int, retry_after: int | None = None) -> bytes:
    """The head of an answer but for its length: made once a second."""
    lines = [f"HTTP/1.1 {status} {http.client.responses[status]}", f"Content-Type: {content_type}"]
    lines.append(f"Date: {format_timestamp(second)}")
    if retry_after is not None:
        lines.append(f"Retry-After: {retry_after}")
    return "\r\n".join([*lines, ""]).encode()
