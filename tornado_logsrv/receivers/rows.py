"""Rows: what a receiver's ``parse`` finds in a body; and their way to records, item by item.

An item that cannot be a record costs none of its neighbours: it goes to quarantine with its bytes.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import bson
import msgspec
from bson.raw_bson import RawBSONDocument

from .. import jsontext, records
from ..errors import Refused, TooLarge
from ..handler import ReceiverHandler

#: One request's items at the most: an item may be two bytes of body, and makes a record of a hundred.
MAX_ROWS = 250_000
#: What holds items (resources, scopes, streams) in one request at the most: each takes two bytes, and time to read.
MAX_GROUPS = 50_000
#: Members of one object or array at the most; MongoDB could not hold many more, and an empty one takes two bytes.
MAX_MEMBERS = 65_536
#: After so many the server turns to its other clients for a moment.
BREATH = 1000
#: What many rows share is looked at level by level when it has more containers than this.
_PLAINLY_FLAT = 50
#: A record's own time is taken when it is at most this far ahead of the clock.
MAX_AHEAD_MS = 24 * 60 * 60 * 1000

TOO_FAR_AHEAD = "more than a day ahead of the server's clock, time of acceptance taken"
BEFORE_1970 = "before 1970, time of acceptance taken"


class Row(msgspec.Struct, gc=False):
    """One record: ``time`` its own in nanoseconds since 1970, if it has one; ``raw`` what it was read from."""

    message: str
    data: dict[str, Any]
    notes: jsontext.Notes
    time: int | None
    raw: Any


class Bad(NamedTuple):
    """An item that cannot be a record: its bytes, and why."""

    raw: bytes
    reason: str


class Groups:
    """Counts what holds items in one request."""

    def __init__(self) -> None:
        self._left = MAX_GROUPS

    def of(self, found: Sequence[Any]) -> Sequence[Any]:
        """``found``, which are some more. Raises TooLarge when there are more than MAX_GROUPS by now."""
        self._left -= len(found)
        if self._left < 0:
            raise TooLarge(f"the body has more than {MAX_GROUPS} groups of records, the most that one request can have")
        return found


class Batch:
    """The rows of one request on their way to records, as of receiving it now.

    ``records`` has those for the store and, as records.encode_bad makes them, those for quarantine; ``rejected`` the
    reasons of the latter and of what is too large even for quarantine, which ``lost`` counts.
    """

    def __init__(self, handler: ReceiverHandler) -> None:
        self._source, self._record_id = handler.source, handler.record_id
        self._now_ms = handler.application.now_ms()
        self._room = handler.application.options.queue_max_bytes
        self.records: list[bytes] = []
        self.rejected: list[str] = []
        self.lost = 0

    async def encode(self, rows: Iterable[Row | Bad]) -> None:
        """Encode ``rows``; ids count through good and bad alike.

        Raises what ``rows`` raises, and TooLarge when they are more than MAX_ROWS or the queue could never hold them.
        """
        for index, row in enumerate(rows):
            if index and index % BREATH == 0:
                if index == MAX_ROWS:
                    raise TooLarge(f"the body has more than {MAX_ROWS} records, the most that one request can have")
                await asyncio.sleep(0)
            if isinstance(row, Row):
                self._encode(row, index)
            else:
                self._reject(row.raw, row.reason, index)

    def _encode(self, row: Row, index: int) -> None:
        try:
            timestamp = self._now_ms if row.time is None else own_time(row.time, self._now_ms, row.notes)
            head = {"source": self._source, "message": row.message}
            record = records.encode(head, row.data, row.notes, self._record_id(index), timestamp)
        except Refused as error:
            self._reject(bytes(row.raw), str(error), index)
        else:
            self._add(record)

    def _reject(self, raw: bytes, reason: str, index: int) -> None:
        reason = f"record {index}: {reason}"
        self.rejected.append(reason)
        try:
            record = records.encode_bad(raw, "unreadable", reason, self._source, self._record_id(index), self._now_ms)
        except TooLarge:
            self.lost += 1
        else:
            self._add(record)

    def _add(self, record: bytes) -> None:
        # What rows share makes more of them than was sent: a few bytes each, and the same megabyte in every one.
        self._room -= len(record)
        if self._room < 0:
            raise TooLarge("the body's records are more than the whole queue can hold (--queue_max_bytes)")
        self.records.append(record)


def own_time(nanoseconds: int, now_ms: int, notes: jsontext.Notes) -> int:
    """A record's timestamp in milliseconds since 1970: its own, or ``now_ms`` and a note when that cannot be."""
    own_ms = nanoseconds // 1_000_000
    if 0 <= own_ms <= now_ms + MAX_AHEAD_MS:
        return own_ms
    change = BEFORE_1970 if own_ms < 0 else TOO_FAR_AHEAD
    notes.append({"path": "/timestamp", "change": change, "original": str(nanoseconds)})
    return now_ms


def shared(name: str, value: dict[str, Any], plain: bool) -> tuple[RawBSONDocument, jsontext.Notes]:
    """The member ``name`` of the data of many rows, encoded once, and the notes of what was changed in it.

    ``plain`` is False where jsontext.decode says so. Raises TooLarge when there would be too many notes.
    """
    with contextlib.suppress(*records.UNENCODABLE):
        encoded = bson.encode(value)
        if plain and encoded.count(b"\x03") + encoded.count(b"\x04") < _PLAINLY_FLAT:
            return RawBSONDocument(encoded), []
    stored, notes = jsontext.storable({name: value})
    return RawBSONDocument(bson.encode(stored[name])), notes


def members(found: Any) -> Any:
    """``found``, the members of an object or array. Raises TooLarge when they are more than MAX_MEMBERS."""
    if len(found) > MAX_MEMBERS:
        raise TooLarge(f"{len(found)} members in one object or array, {MAX_MEMBERS} are the most")
    return found


def text(raw: bytes) -> str:
    """``raw`` as text; bytes that are not UTF-8 become lone surrogates, which a record's encoding writes and notes."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("utf-8", "surrogateescape")
