"""What a receiver makes of a body, by whichever way it came: in one piece or many, to a handler or the fast lane."""

from collections.abc import Sequence
from typing import Any, Protocol

from .intake import Receipt


class IdOf(Protocol):
    """Gives the ids of a request's records, by their indexes."""

    def __call__(self, index: int, /) -> bytes:
        """The id of one."""

    def of(self, indexes: Sequence[int], /) -> list[bytes]:
        """The ids of many."""

    def named(self, key: str, /) -> bytes:
        """The id of one that its client has named itself."""


class Collector(Protocol):
    """The records of one request."""

    source: str

    def take(self, piece: bytes) -> None:
        """Take in a piece of the decoded body. Raises Refused."""

    def end(self) -> list[bytes]:
        """The records, when the body is there. Raises Refused."""

    def answer(self, receipt: Receipt) -> Any:
        """The value of the answer 202, once the records have been accepted."""


class JointCollector(Protocol):
    """The records of many requests, each of which has one: ``indexes`` says which; the others are collected alone."""

    source: str
    indexes: Sequence[int]
    records: Sequence[bytes]

    def answers(self, receipt: Receipt) -> Sequence[Any]:
        """The value of the answer 202 to each of ``records``, once they have been accepted."""
