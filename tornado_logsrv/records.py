"""Records: their identity, and their one encoding.

A record is carried as its BSON document, encoded once at acceptance:

    {"_id": ObjectId, "message": str, "data": any, "notes": [...] (when there are any), "timestamp": Date}

``_id`` comes first and ``timestamp`` last, so both can be read from the bytes without decoding them. Where a record has
a ``tenant`` and a ``source``, they stand right behind ``_id``, in this order: it carries them wherever it goes.
"""

import collections
import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
_TENANT = b"\x02tenant\x00"
#: What begins the records that are not simply for the store: those of tenants, and those that are none.
_APART = (_TENANT, _BAD)
#: A record names its source right behind its id, in at most 15 characters: it is counted by slices, not decoded.
_SOURCE_END = 21 + len(_SOURCE) + 4 + 16
_ID = b"\x07_id\x00"
_TIMESTAMP = struct.Struct("<11sqB")
_TIMESTAMP_NAME = b"\x09timestamp\x00"
_LENGTH = struct.Struct("<i")
_MILLISECONDS = struct.Struct("<q")
_JOB_HEAD = bson.encode({"message": JOB_MESSAGE})[4:-1]
#: What stands in a job's record before its data, when that is an object.
_OBJECT_JOB = struct.Struct(f"<i5s12s{len(_JOB_HEAD)}s6s")
_OBJECT = b"\x03data\x00"
#: What stands in a row's record between its message and its data, and behind the members of that.
_DATA = b"\x00" + _OBJECT
_END = b"\x00" + _TIMESTAMP_NAME
_ROW_DATA = struct.Struct("<7si")
_ROW_TAIL = struct.Struct("<12sqB")
#: A level takes 7 bytes at least: the type, an empty name, the length and the end. What is smaller is not too deep.
_SHALLOW_BYTES = 7 * jsontext.MAX_DEPTH
#: An ObjectId counts with three bytes.
_IDS_A_SECOND = 1 << 24
#: It counts seconds with four, until 2106; a clock may jump anywhere.
_LAST_SECOND = (1 << 32) - 1
#: What bson.encode raises of a value that it cannot encode as it is.
UNENCODABLE = (OverflowError, UnicodeEncodeError, BSONError, RecursionError)

Clock = Callable[[], float]


class Ids:
    """ObjectIds as 12 bytes, ascending for the life of the process, also when the clock steps back.

    The form is that of the ObjectId specification: seconds, five random bytes, a counter of three bytes. Counting
    up costs a tenth of ``ObjectId()``.
    """

    def __init__(self, clock: Clock = time.time, process: bytes | None = None) -> None:
        self._clock = clock
        #: The five bytes in the midst of all of them.
        self.process = os.urandom(5) if process is None else process
        self._second = 0
        self._prefix = b""
        self._count = 0

    def take(self, count: int) -> list[bytes]:
        """``count`` new ids, in ascending order. Of many, each costs a third of ``next``."""
        taken: list[bytes] = []
        while len(taken) < count:
            self._look()
            prefix, first = self._prefix, self._count
            self._count = min(first + count - len(taken), _IDS_A_SECOND)
            taken += [prefix + number.to_bytes(3, "big") for number in range(first, self._count)]
        return taken

    def next(self) -> bytes:
        """One new id."""
        self._look()
        count = self._count
        self._count = count + 1
        return self._prefix + count.to_bytes(3, "big")

    def _look(self) -> None:
        """See what second it is."""
        now = min(int(self._clock()), _LAST_SECOND)
        if now > self._second:
            self._start_second(now)
        elif self._count == _IDS_A_SECOND:
            self._start_second(self._second + 1)

    def _start_second(self, second: int) -> None:
        self._second = second
        self._prefix = second.to_bytes(4, "big") + self.process
        self._count = 0


def encode_job(value: Any, notes: jsontext.Notes, record_id: bytes, timestamp_ms: int) -> bytes:
    """The record of one job: ``value`` and ``notes`` as jsontext.read gives them, received at ``timestamp_ms``.

    Raises TooLarge when MongoDB could not hold it.
    """
    return _envelope(record_id, _JOB_HEAD + _data_elements(value, notes), timestamp_ms)


def encode_jobs(values: Sequence[dict[str, Any]], ids: Sequence[bytes], timestamp_ms: int) -> list[bytes]:
    """What encode_job gives for each of ``values``, which have no notes, with the id at its place in ``ids``.

    All are encoded in one call, as an array whose elements are cut out: of many, each costs a third. Raises TooLarge
    when MongoDB could not hold one.
    """
    try:
        array = bson.encode({"": values})
    except UNENCODABLE:
        return [encode_job(value, [], record_id, timestamp_ms) for value, record_id in zip(values, ids, strict=True)]
    pack, size_at = _OBJECT_JOB.pack, _LENGTH.unpack_from
    tail = _TIMESTAMP.pack(_TIMESTAMP_NAME, timestamp_ms, 0)
    around = _OBJECT_JOB.size + len(tail)
    encoded: list[bytes] = []
    # Before the first element: the length, the array's type, its name, its length. Before each: type, index, NUL.
    end, digits, digits_end = 10, 1, 10
    for number, record_id in enumerate(ids):
        if number == digits_end:
            digits, digits_end = digits + 1, digits_end * 10
        start = end + digits + 2
        size = size_at(array, start)[0]
        end = start + size
        if size <= _SHALLOW_BYTES:
            encoded.append(pack(around + size, _ID, record_id, _JOB_HEAD, _OBJECT) + array[start:end] + tail)
        else:
            encoded.append(encode_job(values[number], [], record_id, timestamp_ms))
    return encoded


def encode(head: Mapping[str, Any], value: Any, notes: jsontext.Notes, record_id: bytes, timestamp_ms: int) -> bytes:
    """A record with the fields ``head`` (``source``, if any, first; then ``message``) before its data.

    Raises TooLarge when MongoDB could not hold it.
    """
    return _envelope(record_id, _elements(head, value, notes), timestamp_ms)


def encode_rows(
    source: str,
    messages: Sequence[str],
    data: Sequence[dict[str, Any]],
    shared: Sequence[bytes],
    ids: Sequence[bytes],
    timestamps_ms: Sequence[int],
) -> list[bytes] | None:
    """The records of rows that have no notes, in columns; ``shared`` are more members of ``data``, encoded.

    All are encoded in one call: of many, each costs a third of ``encode``. None when one of them has to be looked at.
    """
    try:
        array = bson.encode({"": data})
        texts = list(map(str.encode, messages))
    except UNENCODABLE:
        return None
    before = bson.encode({"source": source})[4:-1] + b"\x02message\x00"
    head = struct.Struct(f"<i5s12s{len(before)}si")
    pack_head, pack_data, pack_tail, size_at = head.pack, _ROW_DATA.pack, _ROW_TAIL.pack, _LENGTH.unpack_from
    around = head.size + _ROW_DATA.size + _ROW_TAIL.size - 5
    encoded: list[bytes] = []
    # Before the first element: the length, the array's type, its name, its length. Before each: type, index, NUL.
    end, digits, digits_end = 10, 1, 10
    for number, (text, more, record_id, timestamp_ms) in enumerate(zip(texts, shared, ids, timestamps_ms, strict=True)):
        if number == digits_end:
            digits, digits_end = digits + 1, digits_end * 10
        start = end + digits + 2
        end = start + size_at(array, start)[0]
        own = array[start + 4 : end - 1]
        length, data_size = len(text), end - start + len(more)
        size = around + length + data_size
        if size > _SHALLOW_BYTES and (size > MAX_RECORD_BYTES or _may_be_too_deep(own, 0)):
            return None
        first = pack_head(size, _ID, record_id, before, length + 1)
        last = pack_tail(_END, timestamp_ms, 0)
        encoded.append(b"".join((first, text, pack_data(_DATA, data_size), own, more, last)))
    return encoded


def _data_elements(value: Any, notes: jsontext.Notes) -> bytes:
    return _elements({}, value, notes)


def _elements(head: Mapping[str, Any], value: Any, notes: jsontext.Notes) -> bytes:
    fields = {**head, "data": value, "notes": notes} if notes else {**head, "data": value}
    try:
        elements = bson.encode(fields)[4:-1]
    except UNENCODABLE:
        return _changed_elements(head, value, notes)
    return _changed_elements(head, value, notes) if _may_be_too_deep(elements, len(notes)) else elements


def _may_be_too_deep(elements: bytes, notes: int) -> bool:
    # A level takes seven bytes or more: type, an empty name, length, end. And a container is element type 3 or 4, so
    # there are at most as many levels as such bytes: what may be too deep is found for the price of two counts.
    if len(elements) < 7 * jsontext.MAX_DEPTH:
        return False
    return elements.count(b"\x03") + elements.count(b"\x04") - notes > jsontext.MAX_DEPTH


def _changed_elements(head: Mapping[str, Any], value: Any, notes: jsontext.Notes) -> bytes:
    head, of_head = jsontext.storable(head, "")
    data, of_data = jsontext.storable(value)
    # A value that has been changed already is changed no more, but what is only noted would be so twice.
    notes = [*notes, *(note for note in of_head + of_data if note not in notes)]
    return bson.encode({**head, "data": data, "notes": notes} if notes else {**head, "data": data})[4:-1]


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
    return record.startswith(_BAD, _after_tenant(record))


def apart(found: Sequence[bytes]) -> list[int]:
    """The indexes of tenants' records, and of what encode_bad gives: one look at each record for both."""
    return [index for index, record in enumerate(found) if record.startswith(_APART, 21)]


def tenant_of(record: bytes) -> str:
    """Whose record it is; empty when it is no tenant's."""
    return _text_at(record, 21 + len(_TENANT)) if record.startswith(_TENANT, 21) else ""


def is_of(document: bytes, tenant: str) -> bool:
    """Whether a document, be it a record or not, is the tenant's; nobody's where ``tenant`` is empty."""
    if tenant:
        return document.startswith(_text_element("tenant", tenant), 21)
    return not document.startswith(_TENANT, 21)


def source_of(record: bytes) -> str:
    """What a record is from."""
    at = _after_tenant(record)
    return _source(record[at : at + _SOURCE_END - 21])


def _after_tenant(record: bytes) -> int:
    return _after(record, 21) if record.startswith(_TENANT, 21) else 21


def _after(record: bytes, at: int) -> int:
    """Behind the text at ``at``, whose name has six letters."""
    at += len(_TENANT)
    return at + 4 + int(_LENGTH.unpack_from(record, at)[0])


def bound(found: Sequence[bytes], tenant: str, source: str) -> list[bytes]:
    """``found`` as the records of a tenant, and of a source; each unless it is empty.

    Raises TooLarge when MongoDB could not hold one of them then.
    """
    of_tenant = _text_element("tenant", tenant) if tenant else b""
    of_source = _text_element("source", source) if source != JOB_SOURCE else b""
    return [_bound(record, of_tenant, source, of_source) for record in found]


def _bound(record: bytes, of_tenant: bytes, source: str, of_source: bytes) -> bytes:
    at = _after_tenant(record)
    head = of_tenant
    if source and record.startswith(_BAD, at):
        head += _text_element("bad", source)
        at += len(_BAD) + 4 + _LENGTH.unpack_from(record, at + len(_BAD))[0]
    elif source:
        head += of_source
        at = _after(record, at) if record.startswith(_SOURCE, at) else at
    size = 21 + len(head) + len(record) - at
    if size > MAX_RECORD_BYTES:
        raise TooLarge(f"the record takes {size} bytes as BSON; MongoDB holds at most {MAX_RECORD_BYTES}")
    return b"".join((_LENGTH.pack(size), record[4:21], head, record[at:]))


def _text_element(name: str, text: str) -> bytes:
    return bson.encode({name: text})[4:-1]


def derived_id(key: str, index: int) -> bytes:
    """The id of the ``index``-th record of a request that a client has named ``key``: the same on every instance.

    96 bits of a SHA-256, so that two keys have the same id as often as two random ObjectIds.
    """
    return hashlib.sha256(b"%d:%b" % (index, key.encode())).digest()[:12]


class NewIds:
    """New ids for the records of a request, whatever their indexes; ``of_whom`` tells its keys from those of others."""

    def __init__(self, ids: Ids, of_whom: str = "") -> None:
        self._ids = ids
        self._of_whom = of_whom

    def __call__(self, index: int) -> bytes:
        """The id of one record."""
        return self._ids.next()

    def of(self, indexes: Sequence[int]) -> list[bytes]:
        """The ids of many."""
        return self._ids.take(len(indexes))

    def named(self, key: str) -> bytes:
        """The id of a record that its client has named itself."""
        return derived_id(self._of_whom + key, 0)


class DerivedIds:
    """The ids of the records of a request that its client, one of ``of_whom``, has named ``key``."""

    def __init__(self, key: str, of_whom: str = "") -> None:
        self._key = of_whom + key
        self._of_whom = of_whom

    def __call__(self, index: int) -> bytes:
        """The id of one record."""
        return derived_id(self._key, index)

    def of(self, indexes: Sequence[int]) -> list[bytes]:
        """The ids of many."""
        return [derived_id(self._key, index) for index in indexes]

    def named(self, key: str) -> bytes:
        """The id of a record that its client has named itself."""
        return derived_id(self._of_whom + key, 0)


def origin(tenant: str, source: str) -> str:
    """What records of a tenant's source are counted under; without a tenant that is the source."""
    return f"{tenant}/{source}" if tenant else source


def count_origins(found: Sequence[bytes]) -> dict[str, int]:
    """How many of the records are of each source, those of tenants by ``tenant/source``."""
    counts: collections.Counter[str] = collections.Counter()
    of_tenants = False
    for head, count in collections.Counter([record[21:_SOURCE_END] for record in found]).items():
        if head.startswith(_TENANT):
            of_tenants = True
        else:
            counts[_source(head)] += count
    if of_tenants:
        for record in found:
            if tenant := tenant_of(record):
                counts[origin(tenant, source_of(record))] += 1
    return dict(counts)


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
