"""Where in all that is stored a change stream is, as it can be kept in a file."""

import dataclasses
from typing import Any

import bson
from bson import Timestamp


@dataclasses.dataclass(frozen=True)
class Place:
    """Behind the event that has ``token``, or at ``time`` of MongoDB's clock; that is its time in any case.

    ``wide``: the token is one of a stream of the database, not of one collection.
    """

    time: Timestamp
    token: dict[str, Any] | None = None
    wide: bool = False

    def is_exact(self, wide: bool) -> bool:
        """Whether a stream of the database, or of one collection, can begin right behind an event there."""
        return self.token is not None and self.wide == wide

    def options(self, wide: bool) -> dict[str, Any]:
        """What $changeStream takes to begin there."""
        return {"resumeAfter": self.token} if self.is_exact(wide) else {"startAtOperationTime": self.time}

    def encode(self) -> bytes:
        """For a file."""
        return bson.encode({"time": self.time, "token": self.token, "wide": self.wide})


def decode(data: bytes) -> Place:
    """The place that ``encode`` has given. Raises bson.errors.InvalidBSON, or KeyError, when it is none."""
    kept = bson.decode(data)
    return Place(kept["time"], kept["token"], kept.get("wide", False))


def since(second: int) -> Place:
    """A second of MongoDB's clock."""
    return Place(Timestamp(second, 1))
