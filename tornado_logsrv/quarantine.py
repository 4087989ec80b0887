"""Records that MongoDB refuses for good, and bytes that are no records: kept, with the reason, until somebody decides.

    {"_id": the record's own, "time": Date, "code": int or text, "reason": text, "source": text,
     "form": "bson" | "raw", "original": bytes, "parts": int}

``original`` is the record's BSON document, or the bytes that were sent where there is none. One that does not fit a
document goes on in documents ``{"_id": {"of": _id, "part": n}, "original": bytes}``.
"""

import copy
import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import bson
from bson import ObjectId
from pymongo import ASCENDING, DESCENDING, ReplaceOne

from . import records

#: Bytes of an original in one document; MongoDB holds 16 MiB of document, and this leaves room for any reason.
PART_BYTES = 8 * 1024 * 1024
_MAX_REASON = 2000
_COUNT_MS = 5000

Document = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a record cannot be stored: MongoDB's error code, or a word of this server's, and the reason."""

    code: int | str
    reason: str


class Quarantine:
    """One collection of refused records. Methods raise PyMongoError."""

    def __init__(self, collection: Any, timeout: float = 30.0) -> None:
        """``collection`` is motor's, with the write concern of the records; ``timeout``: seconds for one query."""
        self._collection = collection
        self._timeout_ms = int(1000 * timeout) or 1
        self._only: Document = {}

    def only(self, source: str) -> "Quarantine":
        """The part of one source, for who may see and remove no other; with an empty one, all."""
        part = copy.copy(self)
        part._only = {"source": source} if source else {}
        return part

    async def prepare(self) -> None:
        """Make the index of the reading order."""
        await self._collection.create_index([("time", ASCENDING), ("_id", ASCENDING)])

    async def count(self) -> int:
        """How many documents there are: records, and the parts of those that are over PART_BYTES."""
        return int(await self._collection.estimated_document_count(maxTimeMS=_COUNT_MS))

    async def add(self, refused: Iterable[tuple[bytes, Refusal | None]]) -> None:
        """Keep records with their refusals; None for what records.encode_bad made, which says it itself.

        A record that is in quarantine already is replaced.
        """
        now = datetime.datetime.now(datetime.UTC)
        documents = [part for record, refusal in refused for part in _documents(record, refusal, now)]
        for document in documents:
            replace = ReplaceOne({"_id": document["_id"]}, document, upsert=True)
            await self._collection.bulk_write([replace])

    async def page(self, after: tuple[datetime.datetime, ObjectId] | None, limit: int) -> list[Document]:
        """At most ``limit`` documents, newest first, behind ``after`` (time and id), each original whole."""
        found: list[Document] = []
        before: Document = {"$gt": datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)}
        if after is not None:
            found = await self._find({"time": after[0], "_id": {"$lt": after[1]}}, limit)
            before["$lt"] = after[0]
        if len(found) < limit:
            found += await self._find({"time": before}, limit - len(found))
        return [await self._whole(document) for document in found]

    async def _find(self, query: Document, limit: int) -> list[Document]:
        newest_first = [("time", DESCENDING), ("_id", DESCENDING)]
        cursor = self._collection.find(query | self._only, sort=newest_first, limit=limit, max_time_ms=self._timeout_ms)
        found: list[Document] = await cursor.to_list(limit)
        return found

    async def get(self, record_id: ObjectId) -> Document | None:
        """One document with its original whole; None when it is not in quarantine."""
        document = await self._find_one({"_id": record_id} | self._only)
        return None if document is None else await self._whole(document)

    async def _whole(self, document: Document) -> Document:
        parts = [document["original"]]
        for number in range(1, document["parts"]):
            part = await self._find_one({"_id": _part_id(document["_id"], number)})
            parts.append(part["original"])
        return {**document, "original": b"".join(parts)}

    async def _find_one(self, query: Document, *wanted: Document) -> Any:
        return await self._collection.find_one(query, *wanted, max_time_ms=self._timeout_ms)

    async def remove(self, record_id: ObjectId) -> bool:
        """Forget one; whether it was there."""
        document = await self._find_one({"_id": record_id} | self._only, {"parts": 1})
        if document is None:
            return False
        for number in range(1, document["parts"]):
            await self._collection.delete_one({"_id": _part_id(record_id, number)})
        result = await self._collection.delete_one({"_id": record_id})
        return bool(result.deleted_count)


def reason_of(record: bytes, refusal: Refusal | None) -> str:
    """Why ``record`` is in quarantine."""
    return refusal.reason if refusal else str(bson.decode(record)["reason"])


def _part_id(record_id: ObjectId, number: int) -> Document:
    return {"of": record_id, "part": number}


def _documents(record: bytes, refusal: Refusal | None, now: datetime.datetime) -> Iterator[Document]:
    about, original = _about(record, refusal)
    parts = [original[start : start + PART_BYTES] for start in range(0, len(original), PART_BYTES)] or [b""]
    record_id = ObjectId(records.id_of(record))
    # The rest first: whoever finds the document finds all of it.
    for number, part in enumerate(parts[1:], 1):
        yield {"_id": _part_id(record_id, number), "original": part}
    yield {"_id": record_id, "time": now, **about, "original": parts[0], "parts": len(parts)}


def _about(record: bytes, refusal: Refusal | None) -> tuple[Mapping[str, Any], bytes]:
    if refusal is None:
        bad = bson.decode(record)
        about = {"code": bad["code"], "reason": bad["reason"], "source": bad["bad"], "form": "raw"}
        return about, bad["original"]
    about = {"code": refusal.code, "reason": refusal.reason[:_MAX_REASON], "source": records.source_of(record)}
    return {**about, "form": "bson"}, record
