"""``/quarantine``: what MongoDB has refused, or is no record; to look at, store after all, or forget."""

import datetime
from types import MappingProxyType
from typing import Any

import bson
from bson import ObjectId
from pymongo.errors import PyMongoError

from .. import jsontext, records
from ..auth import Scope
from ..errors import BadParameter, NotFound, StillRefused, StoreUnavailable
from ..handler import BaseHandler, BodyHandler, ReceiverHandler
from ..operations import ANYTHING, MOMENT, OBJECT_ID, TEXT, array_of, json_of, named, object_of, one_of, operation
from ..quarantine import Document
from ..reading import Position, unavailable
from . import paging

PARAMETERS = {"limit": paging.limit_schema(), "cursor": TEXT}
#: What is said of a quarantined record beside the record itself.
WHY = {"code": ANYTHING, "reason": TEXT, "time": MOMENT, "source": TEXT, "form": one_of("bson", "raw")}
QUARANTINED = named("Quarantined", object_of(_id=OBJECT_ID, **WHY, original=ANYTHING))


def describe(document: Document) -> Document:
    """A quarantined document as the answer shows it: its original as the record it is, or as text."""
    shown = {name: document[name] for name in ("_id", "code", "reason", "time", "source", "form")}
    original = document["original"]
    if document["form"] == "bson":
        return {**shown, "original": bson.decode(original, bson.CodecOptions(tz_aware=True))}
    return {**shown, "original": original.decode("utf-8", "backslashreplace")}


class QuarantineHandler(BaseHandler):
    """Answers what is in quarantine."""

    scope = Scope.READ
    refusals = (BadParameter, StoreUnavailable)
    keeps_bounds = True

    @operation({200: json_of(array_of(QUARANTINED))}, PARAMETERS)
    async def get(self) -> None:
        """A JSON array, newest first; the next page, if there is one, in ``Link``."""
        arguments = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        paging.check_names(arguments, PARAMETERS)
        limit, given = paging.limit(arguments), paging.cursor(arguments)
        after = (paging.moment(given.after.timestamp_ms), given.after.id) if given else None
        try:
            found = await self.quarantine.page(after, limit + 1)
        except PyMongoError as error:
            raise unavailable(error) from error
        if len(found) > limit:
            last = found[limit - 1]
            cursor = paging.Cursor("desc", Position(paging.milliseconds(last["time"]), last["_id"]))
            self.set_header("Link", paging.next_link(self.request.path, arguments, cursor))
        self.set_header("Content-Type", "application/json")
        self.finish(jsontext.write([describe(document) for document in found[:limit]]))

    head = get


class OneQuarantinedHandler(BaseHandler):
    """One quarantined record."""

    scope = MappingProxyType({"GET": Scope.READ, "HEAD": Scope.READ, "DELETE": Scope.ADMIN})
    refusals = (NotFound, StoreUnavailable)
    keeps_bounds = True

    @operation({200: json_of(QUARANTINED)})
    async def get(self, record_id: str) -> None:
        """The record and why it is here."""
        document = await find(self, record_id)
        self.set_header("Content-Type", "application/json")
        self.finish(jsontext.write(describe(document)))

    head = get

    @operation({204: {}})
    async def delete(self, record_id: str) -> None:
        """Forget it: 204."""
        try:
            removed = await self.quarantine.remove(ObjectId(record_id))
        except PyMongoError as error:
            raise unavailable(error) from error
        if not removed:
            raise _not_found(record_id)
        self.set_status(204)


class ReplayHandler(BodyHandler):
    """Stores a quarantined record after all."""

    scope = Scope.ADMIN
    refusals = (*ReceiverHandler.refusals, NotFound, StillRefused, StoreUnavailable)
    body_required = False
    keeps_bounds = True

    @operation({200: json_of(object_of(message=one_of("Record stored"), id=OBJECT_ID, ack=one_of("stored")))})
    async def post(self, record_id: str) -> None:
        """200 when it is stored; its data may be corrected by a JSON body. Raises StillRefused."""
        body = self.body
        document = await find(self, record_id)
        record = corrected(document, *jsontext.read(body)) if body.strip() else as_it_was(document)
        # What was no record has no source of its own.
        again = records.bound([record], self.binding.tenant, document["source"])
        origin = self.binding.origin(document["source"])
        receipt = await self.application.intake.accept(again, "stored", origin)  # type: ignore[misc]
        if receipt.quarantined:
            raise StillRefused(f"it is refused again, and still in quarantine: {receipt.quarantined[0]}")
        try:
            await self.quarantine.remove(document["_id"])
        except PyMongoError as error:
            raise unavailable(error) from error
        self.answer(200, {"message": "Record stored", "id": record_id, "ack": receipt.ack})


async def find(handler: BaseHandler, record_id: str) -> Document:
    """The quarantined document. Raises NotFound and StoreUnavailable."""
    try:
        document = await handler.quarantine.get(ObjectId(record_id))
    except PyMongoError as error:
        raise unavailable(error) from error
    if document is None:
        raise _not_found(record_id)
    return document


def _not_found(record_id: str) -> NotFound:
    return NotFound(f"{record_id} is not in quarantine")


def as_it_was(document: Document) -> bytes:
    """The record of a quarantined document. Raises Unreadable when it is none: then it takes a correction."""
    if document["form"] == "bson":
        return bytes(document["original"])
    return corrected(document, *jsontext.read(document["original"]))


def corrected(document: Document, value: Any, notes: jsontext.Notes) -> bytes:
    """The record of a quarantined document with other data; its identity and all else stay."""
    record_id = document["_id"].binary
    if document["form"] == "raw":
        return records.encode_job(value, notes, record_id, paging.milliseconds(document["time"]))
    before: Document = bson.decode(document["original"], bson.CodecOptions(tz_aware=True))
    kept = {name: item for name, item in before.items() if name not in ("_id", "data", "notes", "timestamp")}
    return records.encode(kept, value, notes, record_id, _timestamp_ms(before))


def _timestamp_ms(document: Document) -> int:
    moment = document["timestamp"]
    assert isinstance(moment, datetime.datetime)
    return paging.milliseconds(moment)
