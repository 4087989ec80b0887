"""``POST /add-job``: one JSON body, any JSON value, one record. ``POST /add-jobs``: many, as an array or NDJSON."""

from collections.abc import Sequence
from typing import Any

from .. import jsontext, records
from ..collector import Collector, IdOf
from ..errors import BadParameter, TooLarge, Unreadable
from ..handler import CollectingHandler, idempotency_key
from ..intake import ACKS, Receipt
from ..jsonlines import BadLine, Block, ValuesReader
from ..operations import COUNT, OBJECT_ID, TEXT, joined, named, object_of, one_of

#: One request's jobs at the most: one may be two bytes of body, and takes a hundred of memory.
MAX_JOBS = 500_000

NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")

ADDED = named(
    "JobAdded",
    object_of({"reason": TEXT}, message=one_of("Job added", "Job quarantined"), id=OBJECT_ID, ack=one_of(*ACKS)),
)
MANY_ADDED = named(
    "JobsAdded",
    object_of(message=one_of("Jobs added"), accepted=COUNT, quarantined=COUNT, ack=one_of(*ACKS)),
)


class Job:
    """The record of a request that is one job."""

    source = records.JOB_SOURCE

    def __init__(self, id_of: IdOf, now_ms: int) -> None:
        self._id = id_of(0)
        self._now_ms = now_ms
        self._pieces: list[bytes] = []

    def take(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        self._pieces.append(piece)

    def end(self) -> list[bytes]:
        """The one record. Raises Unreadable and TooLarge."""
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        value, notes = jsontext.read(body)
        return [records.encode_job(value, notes, self._id, self._now_ms)]

    def answer(self, receipt: Receipt) -> dict[str, Any]:
        """The record's id and how it was acknowledged."""
        answer = _added(self._id, receipt)
        if receipt.quarantined:
            answer |= {"message": "Job quarantined", "reason": receipt.quarantined[0]}
        return answer

    @classmethod
    def together(cls, bodies: Sequence[bytes], id_of: IdOf, now_ms: int) -> "JobsTogether":
        """The records of requests that came at the same time."""
        return JobsTogether(bodies, id_of, now_ms)


def _added(record_id: bytes, receipt: Receipt) -> dict[str, Any]:
    return {"message": "Job added", "id": record_id.hex(), "ack": receipt.ack}


class JobsTogether:
    """The records of many requests, each of which is one plain job: encoded in one go, each costs a third."""

    source = records.JOB_SOURCE

    def __init__(self, bodies: Sequence[bytes], id_of: IdOf, now_ms: int) -> None:
        """Whatever is no plain object, or cannot be read, is left to be looked at alone."""
        values = [_plain_object(body) for body in bodies]
        self.indexes = [index for index, value in enumerate(values) if value is not None]
        self._ids = id_of.of(self.indexes)
        self.records = records.encode_jobs([value for value in values if value is not None], self._ids, now_ms)

    def answers(self, receipt: Receipt) -> list[dict[str, Any]]:
        """What Job.answer gives, for each record."""
        return [_added(record_id, receipt) for record_id in self._ids]


def _plain_object(body: bytes) -> dict[str, Any] | None:
    try:
        value, plain = jsontext.decode(body)
    except (Unreadable, TooLarge):
        return None
    return value if plain and type(value) is dict else None


class Jobs:
    """The records of a request that is many jobs, encoded as they arrive: of the body only a piece is held."""

    source = records.JOB_SOURCE

    def __init__(self, id_of: IdOf, now_ms: int, ndjson: bool | None = None, key_field: str | None = None) -> None:
        """``ndjson``: None when the body tells. ``key_field``: the member that holds a record's key, if any does."""
        self._id_of = id_of
        self._now_ms = now_ms
        self._key_field = key_field
        self._reader = ValuesReader(ndjson=ndjson)
        self._records: list[bytes] = []
        self._bad = 0
        self._first_reason = ""

    def take(self, piece: bytes) -> None:
        """Encode what values ``piece`` completes. Raises Refused."""
        for block in self._reader.feed(piece):
            self._encode(block)

    def _encode(self, block: Block) -> None:
        if len(self._records) + block.count > MAX_JOBS:
            raise TooLarge(f"the body has more than {MAX_JOBS} jobs, the most that one request can have")
        if self._key_field is None and not block.notes and {*map(type, block.values)} <= {dict}:
            self._records += records.encode_jobs(block.values, self._id_of.of(block.indexes), self._now_ms)
        else:
            self._encode_one_by_one(block)
        for bad in block.bad:
            self._add_bad(bad)

    def _encode_one_by_one(self, block: Block) -> None:
        now_ms, encode, keep = self._now_ms, records.encode_job, self._records.append
        for number, (index, value) in enumerate(zip(block.indexes, block.values, strict=True)):
            record_id = self._id_of(index) if self._key_field is None else self._keyed_id(index, value)
            keep(encode(value, block.notes.get(number, []), record_id, now_ms))

    def _add_bad(self, bad: BadLine) -> None:
        reason = f"line {bad.line}: {bad.reason}"
        record_id = self._id_of(bad.index)
        self._records.append(records.encode_bad(bad.raw, "unreadable", reason, self.source, record_id, self._now_ms))
        self._first_reason = self._first_reason or reason
        self._bad += 1

    def _keyed_id(self, index: int, value: Any) -> bytes:
        key = value.get(self._key_field) if isinstance(value, dict) else None
        if key is None:
            return self._id_of(index)
        if not isinstance(key, (str, int)):
            raise BadParameter("key_field", f"record {index}: a key must be a text or a whole number")
        named = idempotency_key(str(key))
        assert named is not None
        return self._id_of.named(named)

    def end(self) -> list[bytes]:
        """All records. Raises Unreadable when not one line could be read."""
        for block in self._reader.end():
            self._encode(block)
        self._ended()
        if self._bad and self._bad == len(self._records):
            raise Unreadable(f"not one of them can be read: {self._first_reason}")
        return self._records

    def _ended(self) -> None:
        """All that is in the body has been encoded."""

    def answer(self, receipt: Receipt) -> dict[str, Any]:
        """How many were accepted, how many are in quarantine, and how it was acknowledged."""
        quarantined = max(self._bad, len(receipt.quarantined))
        accepted = len(self._records) - quarantined
        return {"message": "Jobs added", "accepted": accepted, "quarantined": quarantined, "ack": receipt.ack}


class JobHandler(CollectingHandler):
    """Takes one job."""

    def collector(self) -> Collector:
        """One record."""
        return Job(self.record_ids, self.application.now_ms())


class JobsHandler(CollectingHandler):
    """Takes many jobs."""

    media_types: tuple[str, ...] = ("application/json", *NDJSON_TYPES)
    collect: type[Jobs] = Jobs
    parameters = joined(CollectingHandler.parameters, {"key_field": TEXT})

    def collector(self) -> Collector:
        """As many records as there are."""
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        ndjson = True if media_type in NDJSON_TYPES else None
        key_field = self.get_query_argument("key_field", None)
        return self.collect(self.record_ids, self.application.now_ms(), ndjson, key_field)
