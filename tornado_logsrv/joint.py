"""Requests of one record each that come in the same turn of the event loop, taken together.

One look at the clock, one encoding, one offer to the queue and, with ack=journal, one thing to wait for. It makes no
difference to what is taken and answered: what is not plain, and what would not all have room, is answered one by one.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from . import errors, problems
from .answers import Answers
from .collector import JointCollector
from .deferred import Deferred
from .intake import Receipt

if TYPE_CHECKING:
    from .application import LogApplication

#: With ack=stored each request waits for its own records.
JOINT_ACKS = ("memory", "journal")

Answered = list[bytes | None]


class JointLane:
    """Answers requests with the same ``ack`` and Authorization. Called with their bodies, as fastroutes.Together is."""

    def __init__(
        self,
        application: "LogApplication",
        answers: Answers,
        collect: Callable[..., JointCollector],
        ack: str,
        authorization: bytes,
    ) -> None:
        """``collect`` makes the joint collector of bodies, from a source of ids and the time in milliseconds."""
        self._application = application
        self._answers = answers
        self._collect = collect
        self._ack = ack
        self._authorization = authorization
        self._writers = application.gate.writers
        self._most = application.options.max_body_bytes

    def __call__(self, bodies: list[bytes]) -> Answered | Deferred[Answered] | None:
        """An answer to each, or None for those to be answered alone; None for all of them."""
        began, token = time.time(), self._writers.get(self._authorization)
        if token is None or token.is_limited or token.is_bound:
            # Their records, or what they may send, are looked at one by one.
            return None
        if self._application.stopping or max(map(len, bodies)) > self._most:
            return None
        joint = self._collect(bodies, self._application.new_ids, int(began * 1000))
        if not self._application.intake.has_room(joint.records):
            return None
        receipt = self._application.intake.accept(joint.records, self._ack, joint.source)
        if type(receipt) is Receipt:
            return self._end(joint, len(bodies), began, receipt)
        answered: Deferred[Answered] = Deferred()
        self._application.request_began(answered)
        told = functools.partial(self._told, joint, len(bodies), began, answered)
        cast(Deferred[Receipt], receipt).add_done_callback(told)
        return answered

    def _end(self, joint: JointCollector, count: int, began: float, receipt: Receipt) -> Answered:
        self._answers.took(began, len(joint.indexes))
        return _spread(self._answers.all_taken(joint.answers(receipt)), joint.indexes, count)

    def _told(
        self,
        joint: JointCollector,
        count: int,
        began: float,
        answered: Deferred[Answered],
        receipt: Deferred[Receipt],
    ) -> None:
        self._application.request_ended(answered)
        try:
            answers = self._end(joint, count, began, receipt.result())
        except errors.Unavailable as error:
            answers = _spread([self._refused(error, began) for _ in joint.indexes], joint.indexes, count)
        except (Exception, asyncio.CancelledError) as error:
            answered.set_exception(error)
            return
        answered.set_result(answers)

    def _refused(self, error: errors.Unavailable, began: float) -> bytes:
        return self._answers.refused(error, began, problems.request_id(""))[0]


def _spread(answers: Answered, indexes: Sequence[int], count: int) -> Answered:
    """``answers`` at their ``indexes`` of ``count``, None at the others."""
    if len(answers) == count:
        return answers
    spread: Answered = [None] * count
    for index, answer in zip(indexes, answers, strict=True):
        spread[index] = answer
    return spread
