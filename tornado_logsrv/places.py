"""Where in all that is stored a change stream is, as it can be kept in a file."""

import dataclasses
from typing import Any

import bson
from bson import Timestamp


@dataclasses.dataclass(frozen=True)
class Place:
    """Behind the event that has ``token``, or at ``time`` of MongoDB's clock; that is its time in any case."""

    time: Timestamp
    token: dict[str, Any] | None = None

    def options(self) -> dict[str, Any]:
        """What $changeStream takes to begin there."""
        return {"startAtOperationTime": self.time} if self.token is None else {"resumeAfter": self.token}

    def encode(self) -> bytes:
        """For a file."""
        return bson.encode({"time": self.time, "token": self.token})


def decode(data: bytes) -> Place:
    """The place that ``encode`` has given. Raises bson.errors.InvalidBSON, or KeyError, when it is none."""
    kept = bson.decode(data)
    return Place(kept["time"], kept["token"])


def since(second: int) -> Place:
    """A second of MongoDB's clock."""
    return Place(Timestamp(second, 1))
