"""Rows: what a receiver's ``parse`` finds in a body; and their way to records.

A receiver that finds many at once may give them as ``Rows``, in columns: what is done for each of them is what takes
the time. Then it decides for all of them together whether they are plain; if not, it gives each as a ``Row``.

An item that cannot be a record costs none of its neighbours: it goes to quarantine with its bytes. What one request may
cost is bounded here for all receivers: how many records it makes, how many of them are bad, how long the server looks
after it alone, and how many bytes its records are.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import bson
import msgspec
from bson.raw_bson import RawBSONDocument

from .. import jsontext, records
from ..errors import Refused, TooLarge, Unreadable
from ..handler import ReceiverHandler
from .fields import own_time, own_times

#: One request's records at the most: a record may be two bytes of body, and takes a hundred of memory.
MAX_ROWS = 250_000
#: Of them, those that cannot be read: each takes some ten times as long as one that can.
MAX_BAD = 10_000
#: What holds records (resources, scopes, streams) in one request at the most: each takes two bytes, and time to read.
MAX_GROUPS = 50_000
#: Members of one object or array at the most; MongoDB could not hold many more, and an empty one takes two bytes.
MAX_MEMBERS = 65_536
#: Rows that are encoded together, at the most.
CHUNK = 128
#: Items that are made Rows of, at the most, and about how many bytes of them: others wait no longer than they take.
PORTION = 1000
PORTION_BYTES = 1 << 18
#: Seconds after which the server turns to its other clients for a moment.
BREATH = 0.01
#: What many rows share is looked at level by level when it has more containers than this.
_PLAINLY_FLAT = 50


class Row(msgspec.Struct, gc=False):
    """One record: ``time`` its own in nanoseconds since 1970, if it has one; ``raw`` what it was read from.

    ``shared`` are more members of ``data``, as shared encodes them; ``id`` is its ``_id``, if its sender has named it.
    """

    message: str
    data: dict[str, Any]
    notes: jsontext.Notes
    time: int | None
    raw: Any
    shared: bytes = b""
    id: bytes = b""

    @property
    def members(self) -> dict[str, Any]:
        """All of ``data``; those that are shared are still encoded in themselves."""
        return self.data | unshared(self.shared) if self.shared else self.data


class Rows(msgspec.Struct, gc=False):
    """Rows that are plain, in columns: none has notes, none has been named by its sender, and all share ``shared``."""

    messages: Sequence[str]
    data: Sequence[dict[str, Any]]
    times: Sequence[int | None]
    raws: Sequence[Any]
    shared: bytes = b""

    def __iter__(self) -> Iterator[Row]:
        """Each by itself."""
        for message, data, nanoseconds, raw in zip(self.messages, self.data, self.times, self.raws, strict=True):
            yield Row(message, data, [], nanoseconds, raw, self.shared)


class Bad(msgspec.Struct, gc=False):
    """An item that cannot be a record: its bytes, and why."""

    raw: bytes
    reason: str


class Groups:
    """Counts what holds records in one request."""

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

    ``records`` has those for the store and, as records.encode_bad makes them, those for quarantine, and ``ids`` the id
    of every row; ``rejected`` the reasons of the bad ones by their place among the rows, and ``lost`` which of them are
    too large even for quarantine.
    """

    def __init__(self, handler: ReceiverHandler) -> None:
        self._source, self._new_ids, self._is_bound = handler.source, handler.record_ids, any(handler.binding)
        self._now_ms = handler.application.now_ms()
        self._room = handler.application.options.queue_max_bytes
        self.records: list[bytes] = []
        self.ids: list[bytes] = []
        self.rejected: dict[int, str] = {}
        self.lost: set[int] = set()

    async def encode(self, rows: Iterable[Row | Rows | Bad | None]) -> None:
        """Encode ``rows``; ids count through good and bad alike. None is no row, but a place to give others their turn.

        Raises what ``rows`` raises; TooLarge when they are more than MAX_ROWS or the queue could never hold them, and
        Unreadable when more than MAX_BAD are bad.
        """
        began = time.monotonic()
        chunk: list[Row | Bad] = []
        for row in self._each(rows, chunk):
            if row is not None:
                chunk.append(row)
            # One row can take as long as thousands of others.
            if len(chunk) < CHUNK and time.monotonic() <= began + BREATH:
                continue
            self._encode_some(chunk)
            chunk.clear()
            if time.monotonic() > began + BREATH:
                await asyncio.sleep(0)
                began = time.monotonic()
        self._encode_some(chunk)

    def _each(self, rows: Iterable[Row | Rows | Bad | None], chunk: list[Row | Bad]) -> Iterator[Row | Bad | None]:
        """``rows``, of which those in columns are encoded behind ``chunk``, unless they have to be looked at."""
        for row in rows:
            if type(row) is not Rows:
                yield row  # type: ignore[misc]  # a Row, Bad or None
                continue
            self._encode_some(chunk)
            chunk.clear()
            if self._encode_together(row):
                self._check_count()
                yield None
            else:
                yield from row

    def _encode_some(self, chunk: Sequence[Row | Bad]) -> None:
        if chunk:
            self._encode(chunk)
            self._check_count()

    def _check_count(self) -> None:
        if len(self.ids) > MAX_ROWS:
            raise TooLarge(f"the body has more than {MAX_ROWS} records, the most that one request can have")
        if len(self.rejected) > MAX_BAD:
            raise Unreadable(f"more than {MAX_BAD} records cannot be read; the last: {self.reasons[-1]}")

    @property
    def reasons(self) -> list[str]:
        """What was rejected, and why."""
        return list(self.rejected.values())

    @property
    def all_bad(self) -> bool:
        """Whether not one row is a record for the store."""
        return len(self.rejected) == len(self.ids)

    def _encode_together(self, rows: Rows) -> bool:
        """Whether ``rows`` could be encoded as they are: nothing is to be noted, and MongoDB holds them all."""
        times = own_times(rows.times, self._now_ms)
        if times is None:
            return False
        count, first = len(times), len(self.ids)
        self._check_room(count * len(rows.shared))
        ids = self._new_ids.of(range(first, first + count))
        shared = [rows.shared] * count
        encoded = records.encode_rows(self._source, rows.messages, rows.data, shared, ids, times)
        if encoded is None:
            return False
        self.ids += ids
        self._add(encoded)
        return True

    def _encode(self, chunk: Sequence[Row | Bad]) -> None:
        first = len(self.ids)
        ids = self._new_ids.of(range(first, first + len(chunk)))
        good = [row for row in chunk if type(row) is Row]
        if self._is_bound:
            # Their senders have named them without knowing of others.
            for row in good:
                row.id = row.id and self._new_ids.named(row.id.hex())
        times = [own_time(row.time, self._now_ms, row.notes) for row in good]
        shared = [row.shared for row in good]
        # What rows share makes more of them than was sent: a few bytes each, and the same megabyte in every one.
        self._check_room(sum(map(len, shared)))
        if len(good) == len(chunk):
            ids = [row.id or new for row, new in zip(good, ids, strict=True)]
            self.ids += ids
            if not any(row.notes for row in good):
                messages, data = [row.message for row in good], [row.data for row in good]
                encoded = records.encode_rows(self._source, messages, data, shared, ids, times)
                if encoded is not None:
                    self._add(encoded)
                    return
        else:
            self.ids += [(type(row) is Row and row.id) or new for row, new in zip(chunk, ids, strict=True)]
        self._encode_one_by_one(chunk, iter(times), first)

    def _encode_one_by_one(self, chunk: Sequence[Row | Bad], times: Iterator[int], first: int) -> None:
        for place, row in enumerate(chunk, first):
            if isinstance(row, Bad):
                self._reject(row.raw, row.reason, place)
                continue
            timestamp = next(times)
            try:
                head = {"source": self._source, "message": row.message}
                record = records.encode(head, row.members, row.notes, self.ids[place], timestamp)
            except Refused as error:
                self._reject(
                    bytes(row.raw), str(error), place, "too-large" if isinstance(error, TooLarge) else "unreadable"
                )
            else:
                self._add([record])

    def _reject(self, raw: bytes, reason: str, place: int, code: str = "unreadable") -> None:
        self.rejected[place] = reason = f"record {place}: {reason}"
        try:
            bad = records.encode_bad(raw, code, reason, self._source, self.ids[place], self._now_ms)
        except TooLarge:
            self.lost.add(place)
        else:
            self._add([bad])

    def _add(self, found: list[bytes]) -> None:
        size = sum(map(len, found))
        self._check_room(size)
        self._room -= size
        self.records += found

    def _check_room(self, size: int) -> None:
        if size > self._room:
            raise TooLarge("the body's records are more than the whole queue can hold (--queue_max_bytes)")


def apart(found: Iterable[Row | Rows | Bad | None]) -> Iterator[Row | Bad | None]:
    """``found``, each by itself."""
    for each in found:
        if type(each) is Rows:
            yield from each
        else:
            yield each  # type: ignore[misc]  # a Row, Bad or None


def objects(count: int, columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """``count`` objects, each with the members that are not empty at its place in ``columns``, in their order."""
    found: list[dict[str, Any]] = [{} for _ in range(count)]
    # Member by member takes half as long as object by object.
    for name, column in columns.items():
        if all(column):
            for each, value in zip(found, column, strict=True):
                each[name] = value
        else:
            for each, value in zip(found, column, strict=True):
                if value:
                    each[name] = value
    return found


def portions(found: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """``found``, bytes or Raw, in parts that may be read at once: of PORTION items and PORTION_BYTES, or one item."""
    start = 0
    while start < len(found):
        count = PORTION
        while (part := found[start : start + count]) and count > 1 and sum(map(len, part)) > PORTION_BYTES:
            count = min(count, len(part)) // 2
        yield part
        start += count


def shared(name: str, value: Any, plain: bool) -> tuple[bytes, jsontext.Notes]:
    """The member ``name`` of the data of many rows, encoded once, and the notes of what was changed in it.

    ``plain`` is False where jsontext.decode says so. Raises TooLarge when there would be too many notes.
    """
    with contextlib.suppress(*records.UNENCODABLE):
        encoded = bson.encode({name: value})[4:-1]
        if plain and encoded.count(b"\x03") + encoded.count(b"\x04") < _PLAINLY_FLAT:
            return encoded, []
    stored, notes = jsontext.storable({name: value})
    return bson.encode(stored)[4:-1], notes


def unshared(members: bytes) -> dict[str, Any]:
    """The members that ``shared`` has encoded, each still encoded in itself."""
    return dict(RawBSONDocument(b"%b%b\0" % ((len(members) + 5).to_bytes(4, "little"), members)))


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
