"""The fast lane: plain requests of a hot route, answered without a handler, a header object or a task.

It decides nothing of its own. The route's collector, the intake and the table of problems are those of the handler;
whatever is not plain (a coding, a key, a parameter other than ``ack``) or cannot be read is left to the handler, which
gets the same bytes.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from . import errors, problems
from .answers import Answers
from .collector import Collector, JointCollector
from .deferred import Deferred
from .framing import Headers
from .handler import check_media_type
from .intake import ACKS, Receipt
from .joint import JOINT_ACKS, JointLane

if TYPE_CHECKING:
    from .application import LogApplication

_REQUEST_ID = problems.REQUEST_ID.encode()
_FORWARDED = b"X-Forwarded-For"
#: Pairs of an ack and an Authorization value for which requests are put together.
_MOST_KINDS = 1024
#: Fields that the handler has to see.
_HANDLERS_OWN = frozenset((b"content-encoding", b"idempotency-key", b"cookie", b"origin", b"sec-fetch-site"))


class Lane:
    """Answers ``POST`` on one path. Called by the transport; None sends the request to the handler."""

    def __init__(self, application: "LogApplication", path: str, collect: Callable[..., Collector]) -> None:
        """``collect`` makes the collector of a request, from a source of ids and the time in milliseconds.

        If it has ``together``, that makes a JointCollector of the bodies of several, from the same.
        """
        self._application = application
        self._accept = application.intake.accept
        self._ids = application.new_ids
        self._collect = collect
        self._collect_jointly: Callable[..., JointCollector] | None = getattr(collect, "together", None)
        self._knows_host = application.gate.origins.knows_host
        self._proxies = application.gate.proxies
        self._writers = application.gate.writers
        self._most = application.options.max_body_bytes
        self._path = path
        self._log = application.request_log
        self._answers = Answers(application, path)
        self._joint: dict[tuple[str, bytes], JointLane] = {}
        default = {path.encode(): application.options.ack}
        self._acks = default | {f"{path}?ack={ack}".encode(): ack for ack in ACKS}

    def __call__(self, target: bytes, headers: Headers, body: bytes, context: Any) -> bytes | Awaitable[bytes] | None:
        """One answer, or an awaitable of it."""
        began = time.time()
        ack = self._acks.get(target)
        if ack is None or len(body) > self._most or self._application.stopping:
            return None
        authorization = self._authorization(headers)
        token = None if authorization is None else self._writers.get(authorization)
        if token is None or token.is_over:
            return None
        collector, origin = self._collect(self._ids, int(began * 1000)), ""
        try:
            collector.take(body)
            records = collector.end()
            if token.is_bound:
                records = list(token.binding.records(records))
                origin = token.binding.origin(collector.source)
        except errors.Refused:
            # Nothing has been taken or counted: the handler says what is wrong.
            return None
        try:
            receipt = self._accept(records, ack, origin or collector.source)
        except errors.Unavailable as error:
            return self._refused(error, began, headers, context)
        if type(receipt) is Receipt:
            if token.is_limited:
                token.spend(records)
            return self._taken(collector.answer(receipt), began, headers, context)
        spend = functools.partial(token.spend, records) if token.is_limited else None
        told: Any = receipt if isinstance(receipt, Deferred) else asyncio.ensure_future(receipt)  # type: ignore[arg-type]
        return self._later(collector, told, spend, began, headers, context)

    def _taken(self, value: Any, began: float, headers: Headers, context: Any) -> bytes:
        seconds = self._answers.took(began)
        if self._log is not None:
            self._note(202, seconds, _field(headers, _REQUEST_ID), headers, context)
        return self._answers.taken(value)

    def _refused(self, error: errors.Unavailable, began: float, headers: Headers, context: Any) -> bytes:
        name = problems.request_id(_field(headers, _REQUEST_ID))
        answer, status, seconds = self._answers.refused(error, began, name)
        if self._log is not None:
            self._note(status, seconds, name, headers, context)
        return answer

    def _note(self, status: int, seconds: float, name: str, headers: Headers, context: Any) -> None:
        assert self._log is not None
        client = self._proxies.client(str(context.remote_ip), _field(headers, _FORWARDED))
        self._log.note("POST", self._path, status, seconds, client, problems.sane(name))

    def _authorization(self, headers: Headers) -> bytes | None:
        """Who sends a plain request, as the gate knows them; None: it is for the handler."""
        authorization = b""
        for name, value in headers:
            name = name.lower()
            if name == b"host":
                if not self._knows_host(value):
                    return None
            elif name == b"authorization":
                authorization = value
            elif name in _HANDLERS_OWN or (name == b"content-type" and not _is_json(value)):
                return None
        return authorization

    def together(self, target: bytes, headers: Headers) -> JointLane | None:
        """What answers requests with this head that come together; None when each is to be answered alone."""
        ack, authorization = self._acks.get(target), self._authorization(headers)
        if ack is None or authorization is None or authorization not in self._writers:
            return None
        if ack not in JOINT_ACKS or self._collect_jointly is None:
            return None
        # What is logged, or named, one by one is answered so.
        if self._log is not None or _field(headers, _REQUEST_ID):
            return None
        if len(self._joint) >= _MOST_KINDS:
            self._joint.clear()
        kind = ack, authorization
        if kind not in self._joint:
            self._joint[kind] = JointLane(self._application, self._answers, self._collect_jointly, *kind)
        return self._joint[kind]

    def _later(
        self,
        collector: Collector,
        receipt: Any,
        spend: Callable[[], None] | None,
        *request: *tuple[float, Headers, Any],
    ) -> Deferred[bytes]:
        answer: Deferred[bytes] = Deferred()
        self._application.request_began(answer)
        receipt.add_done_callback(functools.partial(self._answered, collector, answer, spend, request))
        return answer

    def _answered(
        self,
        collector: Collector,
        answer: Deferred[bytes],
        spend: Callable[[], None] | None,
        request: tuple[float, Headers, Any],
        receipt: Any,
    ) -> None:
        self._application.request_ended(answer)
        try:
            value = collector.answer(receipt.result())
            if spend is not None:
                spend()
            made = self._taken(value, *request)
        except errors.Unavailable as error:
            made = self._refused(error, *request)
        except (Exception, asyncio.CancelledError) as error:
            answer.set_exception(error)
            return
        answer.set_result(made)


def _field(headers: Headers, wanted: bytes) -> str:
    return b",".join(value for name, value in headers if name.lower() == wanted.lower()).decode("latin1")


@functools.lru_cache(maxsize=64)
def _is_json(content_type: bytes) -> bool:
    try:
        check_media_type(content_type.decode("latin1"), ("application/json",))
    except errors.UnsupportedMedia:
        return False
    return True
