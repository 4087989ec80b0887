"""What all handlers share: the body and its limits, and how an error becomes an answer."""

import functools
import logging
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import tornado.web
from tornado.ioloop import IOLoop

from . import codings, errors, operations, problems
from .auth import Scope, Token
from .binding import UNBOUND, Binding
from .collector import Collector, IdOf
from .intake import ACKS, Receipt
from .operations import NOTHING, Content, Schema, joined, operation
from .quarantine import Quarantine
from .reading import RecordReader
from .records import JOB_SOURCE, DerivedIds, NewIds
from .room import FREE, Share
from .serverlog import shown

if TYPE_CHECKING:
    from .application import LogApplication

log = logging.getLogger("logsrv.http")
#: A line for every refusal and for every act of an administrator.
audit = logging.getLogger("logsrv.audit")

MAX_KEY = 255
#: The acknowledgement that was given, in the answers of protocols whose bodies have no place for it.
ACK = "X-Logsrv-Ack"
Refusals = tuple[type[errors.Refused], ...]
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class BaseHandler(tornado.web.RequestHandler):
    """Answers JSON, and every error as RFC 9457 ``application/problem+json``.

    No body is kept here, whatever its size; BodyHandler is for routes that want one.
    """

    application: "LogApplication"
    _stream_request_body = True

    #: What a token needs for this route; by method, where that makes a difference.
    scope: Scope | Mapping[str, Scope]
    #: What a request may be refused for, beside what its token may not.
    refusals: Refusals = ()
    #: How errors are answered, where that is not as problem details.
    problem_content: Content | None = None
    #: Fields of the request's head, and parameters of its query, that are read whatever the method.
    request_fields: Mapping[str, Schema] = joined({problems.REQUEST_ID: operations.TEXT})
    parameters: Mapping[str, Schema] = NOTHING
    #: Fields of the head of a success.
    answer_fields: Mapping[str, Schema] = NOTHING
    #: Whether the route keeps to what a token is bound to. One that does not say so refuses a token that is.
    keeps_bounds = False
    #: How a client is asked for a token (RFC 9110, section 11.6.1).
    challenge = 'Bearer realm="logsrv"'
    #: Whether a large answer may be refused for want of memory.
    answer_is_counted = True
    #: Whose request it is, once it is admitted.
    token: Token | None = None

    def set_default_headers(self) -> None:
        """No word of the software's version; and no next request on this connection once the server stops."""
        self.clear_header("Server")
        if self.application.stopping:
            self.set_header("Connection", "close")
        for name, value in self.application.gate.origins.headers(self.request.headers.get("Origin")).items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """The request is in progress: a stop waits for it. Raises Denied and RateLimited for one that may not be."""
        self.application.request_began(self)
        gate, scope = self.application.gate, self.needed_scope
        gate.proxies.apply(self.request)
        gate.check_origin(self.request, scope)
        token = gate.admit(self.request, scope)
        if token.is_bound and not self.keeps_bounds:
            raise errors.Forbidden(f"the token {token.name} is bound to a part of the records, and this is about all")
        self.token = token

    @property
    def still_may(self) -> bool:
        """Whether the request, which goes on for long, would be admitted now."""
        assert self.token is not None
        return self.application.gate.still_admits(self.request, self.token, self.needed_scope)

    @property
    def binding(self) -> Binding:
        """Whose records the request is about."""
        assert self.token is not None
        return self.token.binding

    @property
    def reader(self) -> RecordReader:
        """The stored records that the request may see."""
        tenant, source = self.binding
        return self.application.store.of(tenant).reader.only(source)

    @property
    def quarantine(self) -> Quarantine:
        """The part of the quarantine that the request may see."""
        tenant, source = self.binding
        return self.application.store.of(tenant).quarantine.only(source)

    @property
    def needed_scope(self) -> Scope:
        """What a token needs for this request."""
        return self.scope_of(self.request.method or "")

    @classmethod
    def scope_of(cls, method: str) -> Scope:
        """What a token needs for ``method``."""
        if isinstance(cls.scope, Scope):
            return cls.scope
        # A method that is not there is answered with 405, and to nobody else than one that is.
        return cls.scope.get(method, Scope.ADMIN)

    @operation({204: {}})
    def options(self, **path: str) -> None:
        """204 with the methods there are: browsers ask so on behalf of a page from elsewhere (CORS)."""
        self.set_status(204)
        self.set_header("Allow", ", ".join(self.allowed_methods()))

    def on_finish(self) -> None:
        """The request has been answered."""
        self.application.request_ended(self)
        if self.token is not None and self.needed_scope is Scope.ADMIN:
            audit.info("%d %s", self.get_status(), self._about)

    @property
    def _about(self) -> str:
        """The request, fit for a log: without its query and its secrets."""
        request, name = self.request, self.token.name if self.token else ""
        return f"{request.method} {shown(request.path)!r} from {request.remote_ip}" + (f" by {name}" if name else "")

    def on_connection_close(self) -> None:
        """The client has gone, before its answer."""
        self.application.request_ended(self)
        self.share.close()

    @functools.cached_property
    def share(self) -> Share:
        """What this request has of the memory for what is on its way."""
        return Share(self.application.room)

    def finish(self, chunk: Any = None) -> Any:
        """End the answer with ``chunk``. Raises Overloaded when there is no memory for so much."""
        share = self.share
        if self.answer_is_counted and chunk is not None and len(chunk) > FREE:
            share.take(len(chunk))
        sent = super().finish(chunk)
        if share.counted:
            # All of it is on its way until the client, who may be slow, has taken it.
            sent.add_done_callback(lambda _: share.close())
        return sent

    def data_received(self, chunk: bytes) -> None:
        """A body where none is wanted is read past."""

    def compute_etag(self) -> None:
        """Answers change with every record: hashing them would be work for nothing."""

    def answer(self, status: int, value: Any) -> None:
        """Answer ``value`` as JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(value))

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer an error; that to a wrong secret waits, longer each time."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if isinstance(error, errors.Unauthenticated) and error.delay:
            IOLoop.current().call_later(error.delay, super().send_error, status_code, **kwargs)
        else:
            super().send_error(status_code, **kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer the exception that ended the request."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        problem = self._problem(status_code, error) | problems.occurrence(self.request_id)
        if isinstance(error, errors.Unauthenticated):
            self.set_header("WWW-Authenticate", self.challenge)
        if isinstance(error, errors.Unavailable):
            self.set_header("Retry-After", str(error.retry_after))
        if problem["status"] == 405:
            self.set_header("Allow", ", ".join(self.allowed_methods()))
        self.set_header(problems.REQUEST_ID, self.request_id)
        if isinstance(error, (errors.Denied, errors.RateLimited)):
            audit.warning(
                "%d %s: %s, request %s", problem["status"], self._about, error, self.request_id,
                extra={"fields": {"request": self.request_id}},
            )  # fmt: skip
        elif not _is_unforeseen(error):
            why = str(error) if isinstance(error, errors.Refused) else ""
            self.application.refusals.note(str(self.request.method), self.request.path, problem, self.request_id, why)
        self.write_problem(problem, error)

    @functools.cached_property
    def request_id(self) -> str:
        """What the request is called by in its answer, when that is an error, and in the log."""
        return problems.request_id(self.request.headers.get(problems.REQUEST_ID, ""))

    def write_problem(self, problem: dict[str, Any], error: BaseException | None) -> None:
        """Answer ``problem`` (members of RFC 9457), come of ``error``; a protocol's own error body goes here."""
        self.set_status(problem["status"])
        self.set_header("Content-Type", problems.CONTENT_TYPE)
        self.finish(msgspec.json.encode(problem))

    def _problem(self, status: int, error: BaseException | None) -> dict[str, Any]:
        if isinstance(error, errors.Refused):
            return problems.describe(error)
        detail = _detail(error) if isinstance(error, tornado.web.HTTPError) and status < 500 else None
        return {"type": "about:blank", "title": self._reason, "status": status} | ({"detail": detail} if detail else {})

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """What nobody foresaw is logged with its traceback; refusals are when they are answered."""
        if _is_unforeseen(value):
            log.error(
                "%s %s failed, request %s", self.request.method, shown(self.request.path), self.request_id,
                exc_info=(typ, value, tb),  # type: ignore[arg-type]
                extra={"fields": {"request": self.request_id}},
            )  # fmt: skip

    def allowed_methods(self) -> list[str]:
        """The methods that this route has."""
        return methods(type(self))


def methods(handler: type[tornado.web.RequestHandler]) -> list[str]:
    """The methods that a handler has."""
    return [m for m in _METHODS if getattr(handler, m.lower()) is not getattr(tornado.web.RequestHandler, m.lower())]


def _is_unforeseen(error: BaseException | None) -> bool:
    return error is not None and not isinstance(error, (errors.Refused, tornado.web.HTTPError))


def _detail(error: tornado.web.HTTPError) -> str | None:
    # A format even where there is nothing to put in: its percent signs are doubled.
    return error.log_message and error.log_message % error.args


class NotFoundHandler(BaseHandler):
    """The answer on every path that is no route."""

    scope = Scope.OPEN

    def prepare(self) -> NoReturn:
        """Raises HTTPError 404."""
        super().prepare()
        raise tornado.web.HTTPError(404, f"no such path: {shown(self.request.path)}")


class BodyHandler(BaseHandler):
    """A route that takes a body; ``take`` gets it decoded, piece by piece.

    Content-Length is a claim: what arrives is counted. A body that is refused is read past up to twice the limit, so
    that its sender gets to read the answer; one that is larger still is answered at once and cut off.
    """

    refusals: Refusals = (errors.Unreadable, errors.TooLarge, errors.UnsupportedMedia)
    request_fields: Mapping[str, Schema] = joined(
        BaseHandler.request_fields, {"Content-Encoding": operations.one_of(*codings.SUPPORTED)}
    )
    media_types: tuple[str, ...] = ("application/json",)
    #: What is wanted of a body, by its media type; anything where nothing is said.
    bodies: Content = NOTHING
    body_required = True
    #: Bytes of a body at the most, where --max_body_bytes is more than anybody needs.
    most_bytes: int | None = None

    def prepare(self) -> None:
        """Raises TooLarge and UnsupportedMedia before any of the body is read."""
        super().prepare()
        self._pieces: list[bytes] = []
        self._received = 0
        self._refusal: errors.Refused | None = None
        self._limit = self.most_bytes or self.application.options.max_body_bytes
        headers = self.request.headers
        if self.request.method in ("POST", "PUT"):
            check_media_type(headers.get("Content-Type", ""), self.media_types)
        self._decoder = codings.decoder(headers.get("Content-Encoding", ""), self._limit)
        claimed = _length(headers.get("Content-Length", ""))
        if claimed > 2 * self._limit or (claimed > self._limit and "Expect" in headers):
            raise self._too_large()

    def data_received(self, chunk: bytes) -> None:
        """Decode ``chunk`` and take it, unless the body is refused already."""
        if self.token is None:
            return
        self._received += len(chunk)
        if self._received > 2 * self._limit:
            self._cut_off()
        elif self._refusal is None:
            try:
                if self._decoder.keeps:
                    self.share.take(len(chunk))
                self._take_all(self._decoder.feed(chunk))
            except errors.Refused as error:
                self._refusal = error
                self._pieces.clear()
                self.share.close()

    def _take_all(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.share.take(len(piece))
            self.take(piece)

    def _cut_off(self) -> None:
        if not self._finished:
            error = self._too_large()
            self.send_error(413, exc_info=(type(error), error, None))

    def _too_large(self) -> errors.TooLarge:
        option = "" if self.most_bytes else " (--max_body_bytes)"
        return errors.TooLarge(f"the body is over {self._limit} bytes{option}")

    def take(self, piece: bytes) -> None:
        """Keep a piece of the decoded body. Raises Refused."""
        self._pieces.append(piece)

    def end_body(self) -> None:
        """The body is there. Raises Refused when it is not whole, or was refused as it came."""
        if self._refusal is not None:
            raise self._refusal
        self._take_all(self._decoder.end())

    @property
    def body(self) -> bytes:
        """The decoded body, where ``take`` has kept it. Raises Refused."""
        self.end_body()
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


class ReceiverHandler(BodyHandler):
    """A route that takes records."""

    scope = Scope.WRITE
    keeps_bounds = True
    source = JOB_SOURCE
    #: Records that are taken cannot be refused any more.
    answer_is_counted = False
    #: Whether callers know that a 504 is of records that were taken. Log shippers do not, and send them again.
    knows_stored_timeout = False
    refusals = (
        *BodyHandler.refusals,
        errors.BadParameter,
        errors.QueueFull,
        errors.JournalUnavailable,
        errors.StoredTimeout,
        errors.Unavailable,
    )
    request_fields: Mapping[str, Schema] = {
        **BodyHandler.request_fields,
        "Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": MAX_KEY},
    }
    parameters: Mapping[str, Schema] = joined({"ack": operations.one_of(*ACKS)})
    answer_fields: Mapping[str, Schema] = joined({ACK: operations.one_of(*ACKS)})

    def prepare(self) -> None:
        """Raises BadParameter for an ``ack`` that there is not."""
        super().prepare()
        self.source = self.binding.source or self.source
        self._ack = self.get_query_argument("ack", self.application.options.ack)
        if self._ack not in ACKS:
            raise errors.BadParameter("ack", f"must be one of {', '.join(ACKS)}")
        self._key = idempotency_key(self.request.headers.get("Idempotency-Key"))

    def record_id(self, index: int = 0) -> bytes:
        """The id of the request's ``index``-th record: the same for a resend, where the client names the request."""
        return self.record_ids(index)

    @property
    def record_ids(self) -> IdOf:
        """The source of the request's record ids."""
        of_whom = self.binding.of_whom
        if self._key is not None:
            return DerivedIds(self._key, of_whom)
        return NewIds(self.application.ids, of_whom) if of_whom else self.application.new_ids

    async def accept(self, records: Sequence[bytes]) -> Receipt:
        """Take ``records``, all or none, at the level that was asked for. Raises Unavailable.

        What Redis has and MongoDB has not confirmed in time is acknowledged as ``journal``, and the answer's head says
        so, unless the caller knows what StoredTimeout means.
        """
        if self.knows_stored_timeout:
            return await self._accept(records)
        try:
            receipt = await self._accept(records)
        except errors.StoredTimeout as error:
            if not error.journaled:
                raise
            receipt = Receipt("journal")
        self.set_header(ACK, receipt.ack)
        return receipt

    async def _accept(self, records: Sequence[bytes]) -> Receipt:
        assert self.token is not None
        records = self.binding.records(records)
        receipt = self.application.intake.accept(records, self._ack, self.binding.origin(self.source))
        self.token.took(records)
        return receipt if isinstance(receipt, Receipt) else await receipt

    def refuse(self, count: int) -> None:
        """``count`` records were refused before they were whole."""
        binding = UNBOUND if self.token is None else self.binding
        self.application.intake.refuse(binding.origin(self.source), count)

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """What cannot be read or is not allowed is counted as one record refused."""
        if isinstance(value, errors.Refused) and not isinstance(value, (errors.Unavailable, errors.Denied)):
            self.refuse(1)
        super().log_exception(typ, value, tb)


class CollectingHandler(ReceiverHandler):
    """A receiver that is its collector: what it does with a body, the fast lane does as well."""

    knows_stored_timeout = True
    answer_fields = NOTHING

    def prepare(self) -> None:
        """Raises what ReceiverHandler does."""
        super().prepare()
        self._collector = self.collector()

    @abstractmethod
    def collector(self) -> Collector:
        """A new collector for this request. Raises BadParameter."""

    def take(self, piece: bytes) -> None:
        """Give the collector a piece of the body. Raises Refused."""
        self._collector.take(piece)

    async def post(self) -> None:
        """202, with what the collector makes of the receipt."""
        self.end_body()
        receipt = await self.accept(self._collector.end())
        self.answer(202, self._collector.answer(receipt))


def _length(given: str) -> int:
    """What a Content-Length claims. One that is no length is the transport's to refuse; Tornado's looks at it later."""
    return int(given) if re.fullmatch("[0-9]{1,18}", given) else 0


def idempotency_key(given: str | None) -> str | None:
    """The key of an Idempotency-Key field, quoted (draft-ietf-httpapi-idempotency-key-header) or bare, as most send it.

    Raises BadParameter.
    """
    if given is None:
        return None
    key = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        raise errors.BadParameter("Idempotency-Key", f"must be 1 to {MAX_KEY} printable characters")
    return key


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
