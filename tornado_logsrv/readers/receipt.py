"""``GET /logs/{id}``: where a record is."""

import asyncio
import operator
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import bson
from bson import ObjectId
from pymongo.errors import PyMongoError

from .. import jsontext
from ..auth import Scope
from ..binding import UNBOUND, Binding
from ..errors import NotFound, QueryTimeout, StoreUnavailable, Unavailable
from ..handler import BaseHandler
from ..operations import ANYTHING, BOOLEAN, OBJECT_ID, json_of, named, object_of, one_of, operation
from ..reading import unavailable
from ..records import is_bad
from ..spool import Spool
from .quarantine import WHY, describe

if TYPE_CHECKING:
    from ..application import LogApplication

#: Records that are looked at before other requests have their turn: about a millisecond.
SLICE = 10_000
_ID = operator.itemgetter(slice(9, 21))
_CODEC: bson.CodecOptions[dict[str, Any]] = bson.CodecOptions(tz_aware=True)

STATES = ("stored", "in-flight", "queued", "quarantined")
ANSWER = named("Receipt", object_of({"spooled": BOOLEAN, **WHY}, _id=OBJECT_ID, state=one_of(*STATES), record=ANYTHING))

Document = dict[str, Any]


class Whereabouts:
    """Looks for records by ``_id``: in memory, in the spool, in MongoDB and in its quarantine."""

    def __init__(self, application: "LogApplication") -> None:
        self._application = application
        # A full queue takes a tenth of a second of looking: however many ask, the others have most of the time.
        self._one_at_a_time = asyncio.Lock()

    async def find(self, record_id: ObjectId, binding: Binding = UNBOUND) -> Document | None:
        """``_id``, ``state`` and what is known of a record; None when this server knows of none that may be seen.

        Raises Unavailable when it cannot be told now.
        """
        # What comes from the spool onto the queue meanwhile is where has been looked already: then once more.
        for _ in range(1 if self._application.spool.empty else 2):
            if found := await self._unstored(record_id, binding) or await self._settled(record_id, binding):
                return found
        if self._application.health.recovering:
            raise Unavailable("records of before the start are still being read back; it may be among them", 1)
        return None

    async def _unstored(self, record_id: ObjectId, binding: Binding) -> Document | None:
        queue, spool = self._application.queue, self._application.spool
        async with self._one_at_a_time:
            if (record := await _search(queue.newest_first(SLICE), record_id.binary)) is not None:
                state: Document = {"state": "in-flight" if record in queue.taken() else "queued"}
            elif (record := await _search(_readable(spool), record_id.binary)) is not None:
                state = {"state": "queued", "spooled": True}
            else:
                return None
            return {"_id": record_id, **state, **_of_record(record)} if binding.sees(record) else None

    async def _settled(self, record_id: ObjectId, binding: Binding) -> Document | None:
        store = self._application.store.of(binding.tenant)
        if (record := await store.reader.only(binding.source).get(record_id)) is not None:
            return {"_id": record_id, "state": "stored", "record": record}
        try:
            refused = await store.quarantine.only(binding.source).get(record_id)
        except PyMongoError as error:
            raise unavailable(error) from error
        if refused is None:
            return None
        shown = describe(refused)
        return {"_id": record_id, "state": "quarantined", "record": shown.pop("original"), **shown}


def _readable(spool: Spool) -> Iterator[list[bytes]]:
    try:
        yield from spool.portions()
    except OSError as error:
        raise Unavailable(f"the spool cannot be read: {error.strerror}", 5) from error


async def _search(portions: Iterable[list[bytes]], record_id: bytes) -> bytes | None:
    for portion in portions:
        if record_id in map(_ID, portion):
            return next(record for record in portion if _ID(record) == record_id)
        await asyncio.sleep(0)
    return None


def _of_record(record: bytes) -> Document:
    document = bson.decode(record, _CODEC)
    if not is_bad(record):
        return {"record": document}
    # On its way to quarantine.
    original = document["original"].decode("utf-8", "backslashreplace")
    return {"record": original, "code": document["code"], "reason": document["reason"]}


class ReceiptHandler(BaseHandler):
    """Answers where one record is."""

    scope = Scope.READ
    refusals = (NotFound, Unavailable, StoreUnavailable, QueryTimeout)
    keeps_bounds = True

    @operation({200: json_of(ANSWER)})
    async def get(self, record_id: str) -> None:
        """``state`` is stored, queued, in-flight or quarantined. Raises NotFound and Unavailable."""
        found = await self.application.whereabouts.find(ObjectId(record_id), self.binding)
        if found is None:
            raise NotFound(f"{record_id} is not stored, not in quarantine, and does not wait here to be stored")
        self.set_header("Content-Type", "application/json")
        self.finish(jsontext.write(found))

    head = get

    def write_problem(self, problem: Document, error: BaseException | None) -> None:
        """A record that is not found has a state, too: unknown."""
        super().write_problem(problem | ({"state": "unknown"} if isinstance(error, NotFound) else {}), error)
