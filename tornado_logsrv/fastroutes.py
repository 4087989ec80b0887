"""What answers plain requests without the ordinary path, one by one or those of one turn of the loop together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from .deferred import Deferred
from .framing import Head, Headers

if TYPE_CHECKING:
    from .connection import Connection

#: The largest body, in bytes, that is answered together with others.
_TOGETHER_BODY = 16 * 1024

#: Heads that are known again, and the most bytes that one may have.
_KNOWN_HEADS = 1024
_KNOWN_HEAD_BYTES = 1024


class FastRoute(Protocol):
    """What answers a plain request without the ordinary path.

    Called with the request target, the header fields in the order and spelling sent, the whole body, and the
    connection's context (``remote_ip``, ``protocol``). Returns the bytes of one complete response, which
    keeps the connection open; or an awaitable of them; or None: the request then takes the ordinary path. An
    exception is logged and answered 500. An awaitable goes on when the client leaves: what was accepted stays
    accepted.
    """

    def __call__(
        self, target: bytes, headers: Headers, body: bytes, context: Any, /
    ) -> bytes | Awaitable[bytes] | None: ...


class JoiningRoute(FastRoute, Protocol):
    """A fast route for which requests that come at the same time are less work together than one by one."""

    def together(self, target: bytes, headers: Headers, /) -> "Together | None":
        """What answers requests with this head in one go; equal for those that may be mixed, None when none may."""


#: Answers plain requests with the bodies given, in their order: the bytes of a complete response each, or None where
#: the fast route has to be asked alone. None or a Deferred for all of them together. An exception is as a fast route's.
Together = Callable[[list[bytes]], "Answers | Deferred[Answers] | None"]
Answers = Sequence[bytes | None]


class KnownHead(NamedTuple):
    """A head that was read before: what it asks for, and how many bytes follow it."""

    length: int
    target: bytes
    headers: Headers
    route: FastRoute
    together: Together | None


class KnownHeads(dict[bytes, KnownHead]):
    """Heads of requests that fast routes have answered, as they were sent."""

    def remember(self, text: bytes, head: Head, route: FastRoute) -> None:
        """``text`` was read as this head, and the request, which ``route`` has answered, ended where it says."""
        if len(text) > _KNOWN_HEAD_BYTES:
            return
        if len(self) >= _KNOWN_HEADS:
            self.clear()
        join = getattr(route, "together", None) if head.length <= _TOGETHER_BODY else None
        together = join(head.target, head.headers) if join else None
        self[text] = KnownHead(head.length, head.target, head.headers, route, together)


#: A request of this turn of the loop that is answered together with others: whose it is, its head, all of it, its body.
Asking = tuple["Connection", KnownHead, bytes, bytes]


class Turn:
    """The requests of one turn of the loop that are answered together when it is done."""

    def __init__(self) -> None:
        self._asking: list[Asking] = []

    def answer(self, asking: Asking) -> None:
        """Answer a request, with all others like it, when this turn of the loop is done.

        With 32 clients a request costs 9.7 us of processor time in place of 13.4; with ack=journal 15 in place of 22.
        """
        if not self._asking:
            asking[0].loop.call_soon(self._answer_all)
        self._asking.append(asking)

    def _answer_all(self) -> None:
        groups: dict[Together | None, list[Asking]] = {}
        for asking in self._asking:
            groups.setdefault(asking[1].together, []).append(asking)
        self._asking = []
        for together, group in groups.items():
            self._answer_group(cast(Together, together), group)

    def _answer_group(self, together: Together, group: list[Asking]) -> None:
        try:
            # One alone need not be put together.
            answers = together([body for _, _, _, body in group]) if len(group) > 1 else None
        except Exception:
            self._fail_group(group)
            return
        if isinstance(answers, Deferred):
            answers.add_done_callback(partial(self._group_done, group))
        else:
            self._end_group(group, answers or [None] * len(group))

    def _group_done(self, group: list[Asking], answers: Deferred[Answers]) -> None:
        try:
            found = answers.result()
        except (Exception, asyncio.CancelledError):
            self._fail_group(group)
        else:
            self._end_group(group, found)

    def _end_group(self, group: list[Asking], answers: Answers) -> None:
        for (connection, known, text, body), answer in zip(group, answers, strict=True):
            connection.end_waiting(known, text, body, answer)

    def _fail_group(self, group: list[Asking]) -> None:
        for connection, *_ in group:
            connection.fail_waiting()
