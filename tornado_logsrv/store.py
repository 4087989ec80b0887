"""MongoDB: the only module that imports motor."""

import asyncio
import contextlib
import copy
import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pymongo.uri_parser
from bson import CodecOptions, DatetimeMS, Int64
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from motor.motor_tornado import MotorClient
from pymongo import ASCENDING, InsertOne, ReadPreference, WriteConcern
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

from . import indexes, sharding
from .changes import Changes
from .errors import StartError
from .occupancy import HOUR_MS, Occupancy
from .outcome import Outcome
from .quarantine import Quarantine, Refusal, reason_of
from .reading import RecordReader, reason
from .records import apart, is_bad, timestamp_of
from .retention import Retention
from .room import Room
from .shares import Held, joined, share_out

log = logging.getLogger("logsrv.store")

#: Used where the URL does not say otherwise: a server that is away is noticed in seconds, not half a minute.
_URL_DEFAULTS = {
    "serverSelectionTimeoutMS": 5000,
    "connectTimeoutMS": 5000,
    "heartbeatFrequencyMS": 2000,
}
_DUPLICATE_KEY = 11000
_INTERNAL_ERROR = 1
#: The server's codes (mongodb/mongo, src/mongo/base/error_codes.yml) that say of a document that it will never do.
#: Any other may pass, so the record is kept and tried again.
_REFUSED_FOR_GOOD = frozenset(
    {
        2,  # BadValue
        9,  # FailedToParse
        14,  # TypeMismatch
        15,  # Overflow: nested too deep
        22,  # InvalidBSON
        52,  # DollarPrefixedFieldName
        55,  # InvalidDBRef
        56,  # EmptyFieldName
        57,  # DottedFieldName
        121,  # DocumentValidationFailure
        171,  # CannotIndexParallelArrays
        10334,  # BSONObjectTooLarge
        11000,  # DuplicateKey, of another index than _id
        16755,  # cannot extract geo keys
        17280,  # KeyTooLong
        17419,  # the document would be too large
    }
)
#: What the driver raises of a document it cannot send. None of these is a fault of the server or the network.
_CLIENT_REFUSALS = (BSONError, OverflowError, UnicodeError, RecursionError)

Document = dict[str, Any]


@dataclasses.dataclass
class _Inserted:
    """What of an insert is not stored: ``unwritten`` because of ``problem``, ``refused`` for good."""

    unwritten: list[int] = dataclasses.field(default_factory=list)
    refused: dict[int, Refusal] = dataclasses.field(default_factory=dict)
    problem: str = ""

    def __add__(self, other: "_Inserted") -> "_Inserted":
        return _Inserted(
            [*self.unwritten, *other.unwritten], self.refused | other.refused, self.problem or other.problem
        )


class RecordStore:
    """One collection of records, written in batches and read in pages, and its quarantine."""

    def __init__(self, url: str, database: str, collection: str, query_timeout: float = 30.0) -> None:
        """Connects to nothing yet; ``query_timeout``: seconds for one reading.

        Raises StartError when ``url`` cannot be one.
        """
        try:
            given = {name.lower() for name in pymongo.uri_parser.parse_uri(url)["options"]}
            # The server ends what takes too long, and says so; the socket's end is for a server that says nothing.
            patience = {"socketTimeoutMS": int(1000 * query_timeout) + 30_000}
            defaults = {name: value for name, value in (_URL_DEFAULTS | patience).items() if name.lower() not in given}
            self._client: Any = MotorClient(url, appname="tornado_logsrv", **defaults)  # type: ignore[arg-type]
        # OSError: a file that the URL names.
        except (PyMongoError, ValueError, OSError) as error:
            raise StartError(f"--mongo_url: {error}") from None
        codec: CodecOptions[Document] = CodecOptions(
            tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
        )
        # Confirmed means on a majority and in their journals: without j a server that is killed with -9 loses
        # records it has confirmed (MongoDB manual, "Write Concern").
        safe = WriteConcern("majority", j=True)
        # What has to see all that is confirmed, and whatever decides by what it sees, reads from the primary.
        self._database = self._client.get_database(
            database, codec_options=codec, write_concern=safe, read_preference=ReadPreference.PRIMARY
        )
        self._tenants: dict[str, RecordStore] = {}
        #: Whose records these are; empty: no tenant's.
        self.tenant = ""
        self.held = Held()
        #: What pages may take of memory while they are read.
        self.room = Room()
        self._open(collection, query_timeout)

    def _open(self, collection: str, query_timeout: float) -> None:
        self._records = self._database.get_collection(collection)
        self._hours = self._database.get_collection(f"{collection}_hours", write_concern=WriteConcern())
        self.quarantine = Quarantine(self._database.get_collection(f"{collection}_quarantine"), query_timeout)
        self.retention = Retention(self._records, self._ranges_up, self.find_out)
        # Searches go where the URL says.
        anywhere = self._client[self._database.name][collection]
        self.reader = RecordReader(self._records, anywhere, self.prepare, query_timeout)
        self.reader.room = self.room
        self._query_timeout = query_timeout
        self.changes = Changes(self._client, self._records)
        self._namespace = f"{self._database.name}.{collection}"
        #: What is wrong with the shard key; None where there is no sharded cluster, as far as is known.
        self.shard_problem: str | None = None
        self._prepared = self._known = False
        #: Whether the server said of the last write that something in it is broken, not of the records or the network.
        self.broken = False

    def of(self, tenant: str) -> "RecordStore":
        """The store of a tenant's records, in the same database; this one where ``tenant`` is empty."""
        if not tenant:
            return self
        if tenant not in self._tenants:
            made = self._tenants[tenant] = copy.copy(self)
            made._tenants = {}
            made.tenant = tenant
            made._open(f"{self._records.name}_{tenant}", self._query_timeout)
        return self._tenants[tenant]

    @property
    def all(self) -> list["RecordStore"]:
        """This one, and those of all tenants that have been asked for."""
        return [self, *self._tenants.values()]

    @property
    def name(self) -> str:
        """That of the collection."""
        return str(self._records.name)

    async def prepare(self) -> None:
        """Make the index of the reading order, and find out what the server is. Raises PyMongoError."""
        if self._prepared:
            return
        await self._records.create_index([("timestamp", ASCENDING), ("_id", ASCENDING)])
        await self.quarantine.prepare()
        await self.find_out()
        self._prepared = True

    async def find_out(self) -> None:
        """Find out what the server is, and where records are. Raises PyMongoError."""
        if self._known:
            return
        build = await self._client.admin.command("buildInfo")
        if "secantusVersion" in build:
            self.reader.occupancy = await self._load_occupancy()
        self._note_indexes(await self._indexes())
        self.shard_problem = await sharding.problem(self._client, self._namespace)
        if self.shard_problem:
            log.warning("%s", self.shard_problem)
        self._known = True

    async def make_index(self, path: str) -> bool:
        """Make an index for a field, unless there is one with its keys, whoever made it; whether one was made.

        Raises PyMongoError, also for one that takes longer than the driver waits: it is made all the same.
        """
        await self.prepare()
        missing = indexes.keys(path) not in await self._indexes()
        if missing:
            await self._records.create_index(indexes.keys(path), name=indexes.name(path))
        self._note_indexes(await self._indexes())
        return missing

    async def _indexes(self) -> list[list[tuple[str, Any]]]:
        return [list(index["key"].items()) async for index in self._records.list_indexes()]

    def _note_indexes(self, found: Sequence[Sequence[tuple[str, Any]]]) -> None:
        # Ours, and those that somebody else has made.
        self.reader.indexed = frozenset(keys[0][0] for keys in found)

    async def _load_occupancy(self) -> Occupancy:
        occupancy = Occupancy()
        async for hour in self._hours.find({}):
            crowds = hour.get("crowds", {})
            for minute, seconds in hour["seconds"].items():
                start_ms = int(hour["_id"].timestamp() * 1000)
                occupancy.load(start_ms, int(minute), seconds, crowds.get(minute, 0))
        return occupancy

    # Writing

    async def write(self, records: Sequence[bytes]) -> Outcome:
        """Store ``records``; one that is there already is stored. What MongoDB refuses for good goes to quarantine.

        Stored means confirmed, in the journals of a majority. Raises nothing that is foreseen.
        """
        marked = apart(records)
        shares = share_out(records, marked)
        return await self._write(records, marked) if shares is None else await self._write_shares(records, shares)

    async def _write_shares(self, records: Sequence[bytes], shares: Mapping[str, Sequence[int]]) -> Outcome:
        """Write each tenant's records into its own collection; one that cannot be written stops no other."""
        outcomes = [
            self.of(tenant)._write(
                share := [records[index] for index in indexes], [i for i, r in enumerate(share) if is_bad(r)]
            )
            for tenant, indexes in shares.items()
        ]
        found = await asyncio.gather(*outcomes)
        for tenant, outcome in zip(shares, found, strict=True):
            if tenant and self.held.see(tenant, outcome):
                name = self.of(tenant).name
                log.warning("cannot write to %s, its records are kept and tried again: %s", name, outcome.problem)
        return joined(shares.values(), found)

    async def _write(self, records: Sequence[bytes], bad: Sequence[int]) -> Outcome:
        good = sorted({*range(len(records))} - {*bad}) if bad else range(len(records))
        try:
            await self.prepare()
            inserted = await self._insert(records, good)
        except PyMongoError as error:
            _let_go(error)
            self.broken = isinstance(error, OperationFailure) and error.code == _INTERNAL_ERROR
            # Where the collection of all others cannot be written, all wait.
            own_fault = bool(self.tenant) and isinstance(error, OperationFailure)
            return Outcome(range(len(records)), problem=reason(error), own_fault=own_fault)
        self.broken = False
        await self._note_seconds(records)
        if not bad and not inserted.refused:
            return Outcome(inserted.unwritten, problem=inserted.problem)
        return await self._keep_refused(records, inserted, {**dict.fromkeys(bad), **inserted.refused})

    async def _keep_refused(
        self, records: Sequence[bytes], inserted: _Inserted, refused: Mapping[int, Refusal | None]
    ) -> Outcome:
        try:
            await self.quarantine.add([(records[index], refusal) for index, refusal in refused.items()])
        except PyMongoError as error:
            # They are nowhere else: they stay on the queue until they are.
            unwritten = sorted({*inserted.unwritten, *refused})
            return Outcome(unwritten, problem=f"the quarantine cannot be written: {reason(error)}")
        reasons = {index: reason_of(records[index], refusal) for index, refusal in refused.items()}
        return Outcome(inserted.unwritten, reasons, inserted.problem)

    async def _insert(self, records: Sequence[bytes], indexes: Sequence[int]) -> _Inserted:
        """Insert the records at ``indexes``. When the driver or the server refuses all for one, that one is found.

        Raises PyMongoError when nothing of it is confirmed.
        """
        if not indexes:
            return _Inserted()
        try:
            await self._records.bulk_write([InsertOne(RawBSONDocument(records[i])) for i in indexes], ordered=False)
            return _Inserted()
        except BulkWriteError as error:
            _let_go(error)
            return _examine(dict(error.details), indexes)
        except OperationFailure as error:
            if error.code not in _REFUSED_FOR_GOOD:
                raise
            _let_go(error)
            refusal = Refusal(error.code or "", str(error.details and error.details.get("errmsg")))
        except _CLIENT_REFUSALS as error:
            _let_go(error)
            refusal = Refusal(type(error).__name__, str(error))
        if len(indexes) == 1:
            return _Inserted(refused={indexes[0]: refusal})
        half = len(indexes) // 2
        return await self._insert(records, indexes[:half]) + await self._insert(records, indexes[half:])

    async def _note_seconds(self, records: Sequence[bytes]) -> None:
        occupancy = self.reader.occupancy
        if occupancy is None:
            return
        occupancy.note(map(timestamp_of, records))
        self.reader.frequency.note(records)
        # A hint: it holds in this process anyway, and what cannot be saved now is saved with a later batch.
        with contextlib.suppress(PyMongoError):
            for hour_ms, minute, seconds, crowds in occupancy.unsaved():
                masks = {f"seconds.{minute}": {"or": Int64(seconds)}, f"crowds.{minute}": {"or": Int64(crowds)}}
                await self._hours.update_one({"_id": DatetimeMS(hour_ms)}, {"$bit": masks}, upsert=True)
            occupancy.saved()

    # Deleting

    def _ranges_up(self, low: int | None, high: int) -> Iterable[tuple[int | None, int | None]]:
        occupancy = self.reader.occupancy
        return ((low, high),) if occupancy is None else occupancy.ranges_up(low, high)

    async def now_ms(self) -> int:
        """MongoDB's clock, in milliseconds since 1970. Raises PyMongoError."""
        hello = await self._client.admin.command("hello")
        return int(hello["localTime"].timestamp() * 1000)

    async def forget(self, before_ms: int) -> None:
        """There are no records from before this time. Raises PyMongoError."""
        if self.reader.occupancy is not None:
            self.reader.frequency.scale(self.reader.occupancy.forget(before_ms))
            await self._hours.delete_many({"_id": {"$lt": DatetimeMS(before_ms - HOUR_MS)}})

    async def count_quarantined(self) -> int:
        """How many documents there are in quarantine, in that of every tenant. Raises PyMongoError."""
        return sum(await asyncio.gather(*(store.quarantine.count() for store in self.all)))

    async def close(self) -> None:
        """Close every connection."""
        self._client.close()


def _let_go(error: BaseException) -> None:
    """Forget where ``error`` came about: the driver's frames hold the batch, and one of them holds the error.

    As long as nobody looked for that cycle, the records would stay in memory, stored or not.
    """
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__context__


def _examine(details: Document, indexes: Sequence[int]) -> _Inserted:
    """What a partly failed bulk write of the records at ``indexes`` left unconfirmed or refused."""
    concerns = details.get("writeConcernErrors") or []
    if concerns:
        # Written somewhere, but not on a majority: nothing of it counts. Written again, it is a duplicate.
        return _Inserted(list(indexes), problem=f"write concern not met: {concerns[0].get('errmsg')}")
    result = _Inserted()
    for error in sorted(details.get("writeErrors", ()), key=lambda error: error["index"]):
        index = indexes[error["index"]]
        if _is_stored(error):
            continue
        if error.get("code") in _REFUSED_FOR_GOOD:
            result.refused[index] = Refusal(error["code"], str(error.get("errmsg")))
        else:
            result.unwritten.append(index)
            result.problem = f"code {error.get('code')}: {error.get('errmsg')}"
    return result


def _is_stored(error: Document) -> bool:
    """Whether a write error says that the record is there already: its own ``_id``, given at acceptance, is taken."""
    if error.get("code") != _DUPLICATE_KEY:
        return False
    pattern = error.get("keyPattern")
    return list(pattern) == ["_id"] if pattern else " index: _id_ " in error.get("errmsg", "")
