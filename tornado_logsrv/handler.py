"""What all handlers share: the body and its limits, and how an error becomes an answer."""

import functools
import logging
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import tornado.web

from . import errors

if TYPE_CHECKING:
    from .application import LogApplication

log = logging.getLogger("logsrv.http")

#: Error class → status, last part of the problem's ``type``, title. The first class that fits decides.
PROBLEMS: tuple[tuple[type[errors.Refused], int, str, str], ...] = (
    (errors.Unreadable, 400, "unreadable", "The body cannot be read"),
    (errors.BadParameter, 400, "bad-parameter", "A query parameter is wrong"),
    (errors.TooLarge, 413, "too-large", "Too large"),
    (errors.UnsupportedMedia, 415, "unsupported-media", "Unsupported media type or coding"),
    (errors.QueueFull, 503, "queue-full", "The queue is full"),
    (errors.StoreUnavailable, 503, "store-unavailable", "MongoDB cannot be used now"),
    (errors.Unavailable, 503, "unavailable", "Not now"),
)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class BaseHandler(tornado.web.RequestHandler):
    """Answers JSON, and every error as RFC 9457 ``application/problem+json``.

    No body is kept here, whatever its size; BodyHandler is for routes that want one.
    """

    application: "LogApplication"
    _stream_request_body = True

    def set_default_headers(self) -> None:
        """No word of the software's version; and no next request on this connection once the server stops."""
        self.clear_header("Server")
        if self.application.stopping:
            self.set_header("Connection", "close")

    def prepare(self) -> None:
        """The request is in progress: a stop waits for it."""
        self.application.request_began(self)

    def on_finish(self) -> None:
        """The request has been answered."""
        self.application.request_ended(self)

    def on_connection_close(self) -> None:
        """The client has gone, before its answer."""
        self.application.request_ended(self)

    def data_received(self, chunk: bytes) -> None:
        """A body where none is wanted is read past."""

    def compute_etag(self) -> None:
        """Answers change with every record: hashing them would be work for nothing."""

    def answer(self, status: int, value: Any) -> None:
        """Answer ``value`` as JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer the exception that ended the request."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        problem = self._problem(status_code, error)
        if isinstance(error, errors.Unavailable):
            self.set_header("Retry-After", str(error.retry_after))
        if problem["status"] == 405:
            self.set_header("Allow", ", ".join(self.allowed_methods()))
        self.set_status(problem["status"])
        self.set_header("Content-Type", "application/problem+json")
        self.finish(msgspec.json.encode(problem))

    def _problem(self, status: int, error: BaseException | None) -> dict[str, Any]:
        for kind, known, slug, title in PROBLEMS:
            if isinstance(error, kind):
                problem = {"type": f"urn:logsrv:problem:{slug}", "title": title, "status": known, "detail": str(error)}
                return problem | ({"parameter": error.name} if isinstance(error, errors.BadParameter) else {})
        detail = error.log_message if isinstance(error, tornado.web.HTTPError) and status < 500 else None
        return {"type": "about:blank", "title": self._reason, "status": status} | ({"detail": detail} if detail else {})

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """A refusal is the client's affair; only what nobody foresaw is logged, with its traceback."""
        if not isinstance(value, (errors.Refused, tornado.web.HTTPError)):
            log.error("%s %s failed", self.request.method, self.request.path, exc_info=(typ, value, tb))  # type: ignore[arg-type]

    def allowed_methods(self) -> list[str]:
        """The methods that this route has."""
        return [
            m for m in _METHODS if getattr(type(self), m.lower()) is not getattr(tornado.web.RequestHandler, m.lower())
        ]


class NotFoundHandler(BaseHandler):
    """The answer on every path that is no route."""

    def prepare(self) -> NoReturn:
        """Raises HTTPError 404."""
        super().prepare()
        raise tornado.web.HTTPError(404, f"no such path: {self.request.path}")


class BodyHandler(BaseHandler):
    """A route that takes a body, whole: ``self.body`` when the method runs.

    Content-Length is a claim: what arrives is counted. A body that is too large is read past up to twice the limit,
    so that its sender gets to read the answer; one that is larger still is answered at once and cut off.
    """

    media_types: tuple[str, ...] = ("application/json",)

    def prepare(self) -> None:
        """Raises TooLarge and UnsupportedMedia before any of the body is read."""
        super().prepare()
        self._chunks: list[bytes] = []
        self._received = 0
        self._limit = self.application.options.max_body_bytes
        headers = self.request.headers
        if self.request.method in ("POST", "PUT"):
            check_media_type(headers.get("Content-Type", ""), self.media_types)
            check_coding(headers.get("Content-Encoding", ""))
        claimed = int(headers.get("Content-Length", 0))
        if claimed > 2 * self._limit or (claimed > self._limit and "Expect" in headers):
            raise self._too_large()

    def data_received(self, chunk: bytes) -> None:
        """Keep ``chunk``, within the limit."""
        self._received += len(chunk)
        if self._received <= self._limit:
            self._chunks.append(chunk)
        elif self._received > 2 * self._limit and not self._finished:
            self._answer_too_large()
        else:
            self._chunks.clear()

    def _answer_too_large(self) -> None:
        error = self._too_large()
        self.send_error(413, exc_info=(type(error), error, None))

    def _too_large(self) -> errors.TooLarge:
        return errors.TooLarge(f"the body is over {self._limit} bytes (--max_body_bytes)")

    @property
    def body(self) -> bytes:
        """The body. Raises TooLarge when more was sent than is allowed."""
        if self._received > self._limit:
            raise self._too_large()
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)


@functools.lru_cache(maxsize=256)
def check_media_type(content_type: str, allowed: tuple[str, ...]) -> None:
    """Raises UnsupportedMedia unless ``content_type`` is empty, one of ``allowed`` or ``…+json``, in UTF-8."""
    media_type, _, parameters = content_type.partition(";")
    media_type = media_type.strip().lower()
    if media_type and media_type not in allowed and not media_type.endswith("+json"):
        raise errors.UnsupportedMedia(f"{media_type[:80]} is not read here; send {' or '.join(allowed)}")
    for parameter in parameters.lower().split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise errors.UnsupportedMedia(f"charset {value[:80]} is not read here; send utf-8")


def check_coding(coding: str) -> None:
    """Raises UnsupportedMedia for a Content-Encoding that this server does not undo."""
    if coding.strip().lower() not in ("", "identity"):
        raise errors.UnsupportedMedia(f"Content-Encoding {coding[:80]} is not read here; send the body as it is")
