"""Records: their identity, and their one encoding.

A record is carried as its BSON document, encoded once at acceptance:

    {"_id": ObjectId, "message": str, "data": any, "notes": [...] (when there are any), "timestamp": Date}

``_id`` comes first and ``timestamp`` last, so both can be read from the bytes without decoding them.
"""

import collections
import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import bson
from bson.errors import BSONError

from . import jsontext
from .errors import TooLarge

#: MongoDB's limit of one document, in bytes.
MAX_RECORD_BYTES = 16 * 1024 * 1024
#: The `message` of every record from /add-job and /add-jobs.
JOB_MESSAGE = "Job processed"

#: A document that holds an ObjectId and nothing else.
MIN_RECORD_BYTES = 22

#: The source of records from /add-job and /add-jobs, which do not name one in the document.
JOB_SOURCE = "jobs"

_BAD = b"\x02bad\x00"
_SOURCE = b"\x02source\x00"
#: A record names its source right behind its id, in at most 15 characters: it is counted by slices, not decoded.
_SOURCE_END = 21 + len(_SOURCE) + 4 + 16
_ID = b"\x07_id\x00"
_TIMESTAMP = struct.Struct("<11sqB")
_TIMESTAMP_NAME = b"\x09timestamp\x00"
_LENGTH = struct.Struct("<i")
_MILLISECONDS = struct.Struct("<q")
_JOB_HEAD = bson.encode({"message": JOB_MESSAGE})[4:-1]
_UNENCODABLE = (OverflowError, UnicodeEncodeError, BSONError, RecursionError)

Clock = Callable[[], float]


class Ids:
    """ObjectIds as 12 bytes, ascending for the life of the process, also when the clock steps back.

    The form is that of the ObjectId specification: seconds, five random bytes, a counter of three bytes. Counting
    up costs a tenth of ``ObjectId()``.
    """

    def __init__(self, clock: Clock = time.time, process: bytes | None = None) -> None:
        self._clock = clock
        self._process = os.urandom(5) if process is None else process
        self._second = 0
        self._prefix = b""
        self._count = 0

    def take(self, count: int) -> Iterator[bytes]:
        """``count`` new ids, in ascending order."""
        for _ in range(count):
            yield self.next()

    def next(self) -> bytes:
        """One new id."""
        now = int(self._clock())
        if now > self._second or self._count > 0xFFFFFF:
            self._start_second(max(now, self._second + 1 if self._count > 0xFFFFFF else self._second))
        count = self._count
        self._count = count + 1
        return self._prefix + count.to_bytes(3, "big")

    def _start_second(self, second: int) -> None:
        self._second = second
        self._prefix = second.to_bytes(4, "big") + self._process
        self._count = 0


def encode_job(value: Any, notes: jsontext.Notes, record_id: bytes, timestamp_ms: int) -> bytes:
    """The record of one job: ``value`` and ``notes`` as jsontext.read gives them, received at ``timestamp_ms``.

    Raises TooLarge when MongoDB could not hold it.
    """
    return _envelope(record_id, _JOB_HEAD + _data_elements(value, notes), timestamp_ms)


def encode(head: Mapping[str, Any], value: Any, notes: jsontext.Notes, record_id: bytes, timestamp_ms: int) -> bytes:
    """A record with the fields ``head`` (``source``, if any, first; then ``message``) before its data.

    Raises TooLarge when MongoDB could not hold it.
    """
    return _envelope(record_id, bson.encode(head)[4:-1] + _data_elements(value, notes), timestamp_ms)


def _data_elements(value: Any, notes: jsontext.Notes) -> bytes:
    try:
        elements = bson.encode({"data": value, "notes": notes} if notes else {"data": value})[4:-1]
    except _UNENCODABLE:
        return _changed_elements(value)
    # A container is element type 3 or 4, so there are at most as many levels as such bytes: what may be too deep
    # is found for the price of two counts.
    if not notes and elements.count(b"\x03") + elements.count(b"\x04") > jsontext.MAX_DEPTH:
        return _changed_elements(value)
    return elements


def _changed_elements(value: Any) -> bytes:
    data, notes = jsontext.storable(value)
    return bson.encode({"data": data, "notes": notes} if notes else {"data": data})[4:-1]


def _envelope(record_id: bytes, elements: bytes, timestamp_ms: int) -> bytes:
    size = 4 + len(_ID) + 12 + len(elements) + _TIMESTAMP.size
    if size > MAX_RECORD_BYTES:
        raise TooLarge(f"the record takes {size} bytes as BSON; MongoDB holds at most {MAX_RECORD_BYTES}")
    tail = _TIMESTAMP.pack(_TIMESTAMP_NAME, timestamp_ms, 0)
    return b"".join((_LENGTH.pack(size), _ID, record_id, elements, tail))


def encode_bad(original: bytes, code: str, reason: str, source: str, record_id: bytes, timestamp_ms: int) -> bytes:
    """Bytes that are no record, on their way to quarantine as every record is on its way to the store.

    They go by the same queue and backup, so they are as safe; ``is_bad`` tells them from records.
    """
    elements = bson.encode({"bad": source, "code": code, "reason": reason, "original": original})[4:-1]
    return _envelope(record_id, elements, timestamp_ms)


def is_bad(record: bytes) -> bool:
    """Whether ``record`` is what encode_bad gives."""
    return record.startswith(_BAD, 21)


def derived_id(key: str, index: int) -> bytes:
    """The id of the ``index``-th record of a request that a client has named ``key``: the same on every instance.

    96 bits of a SHA-256, so that two keys have the same id as often as two random ObjectIds.
    """
    return hashlib.sha256(b"%d:%b" % (index, key.encode())).digest()[:12]


def count_sources(found: Iterable[bytes]) -> dict[str, int]:
    """How many of the records are of each source."""
    counts: dict[str, int] = {}
    for head, count in collections.Counter([record[21:_SOURCE_END] for record in found]).items():
        source = _source(head)
        counts[source] = counts.get(source, 0) + count
    return counts


def _source(head: bytes) -> str:
    if head.startswith(_BAD):
        return _text_at(head, len(_BAD))
    return _text_at(head, len(_SOURCE)) if head.startswith(_SOURCE) else JOB_SOURCE


def _text_at(head: bytes, at: int) -> str:
    size = _LENGTH.unpack_from(head, at)[0]
    return head[at + 4 : at + 3 + size].decode()


def id_of(record: bytes) -> bytes:
    """The 12 bytes of a record's ``_id``."""
    return record[9:21]


def timestamp_of(record: bytes) -> int:
    """A record's ``timestamp``, in milliseconds since 1970."""
    return int(_MILLISECONDS.unpack_from(record, len(record) - 9)[0])


class Split(NamedTuple):
    """What a string of BSON documents holds: its ``records``, what is left behind them, and what is wrong with that.

    Without a ``problem``, ``rest`` is empty or the beginning of a record that is cut off.
    """

    records: list[bytes]
    rest: bytes
    problem: str


def split(documents: bytes) -> Split:
    """The records of BSON documents that stand one after the other, as backup entries and files hold them."""
    records = []
    start, end, problem = 0, len(documents), ""
    while end - start >= 4 and not problem:
        size = _LENGTH.unpack_from(documents, start)[0]
        stop = start + size
        if not MIN_RECORD_BYTES <= size <= MAX_RECORD_BYTES:
            problem = f"no record at byte {start} of {end}"
        elif stop > end:
            break
        elif documents[stop - 1] != 0:
            problem = f"the record at byte {start} of {end} has no end"
        else:
            records.append(documents[start:stop])
            start = stop
    return Split(records, documents[start:], problem)


def chunks(records: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """``records`` in lists of about ``size`` bytes and at least one record each."""
    chunk: list[bytes] = []
    filled = 0
    for record in records:
        chunk.append(record)
        filled += len(record)
        if filled >= size:
            yield chunk
            chunk, filled = [], 0
    if chunk:
        yield chunk
