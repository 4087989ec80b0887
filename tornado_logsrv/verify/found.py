"""What MongoDB and Redis hold of a trial."""

import datetime
from collections.abc import Iterator
from typing import Any

import bson
import redis
from bson import ObjectId
from pymongo import MongoClient

from .balance import Found
from .requests import VALIDATOR, data_of, token_of

COLLECTION = "logs"
#: So much of a trial is read at once.
_RANGE = datetime.timedelta(seconds=10)


class Places:
    """The database and the keys of one trial. Methods block, and raise what pymongo and redis-py raise."""

    def __init__(self, mongo_url: str, redis_url: str, database: str, prefix: str) -> None:
        """Connects to nothing yet."""
        self._mongo: MongoClient[dict[str, Any]] = MongoClient(mongo_url, serverSelectionTimeoutMS=10_000)
        self._redis: Any = redis.Redis.from_url(redis_url)
        self._database = self._mongo[database]
        self._prefix = prefix
        self._began = datetime.datetime.now(datetime.UTC)

    def prepare(self) -> None:
        """Make the collection, which refuses what is poison."""
        self._database.create_collection(COLLECTION, validator=VALIDATOR)

    def stored(self) -> Iterator[Found]:
        """All records that are stored.

        By ranges of their times: SecantusDB reads a whole range before it answers, and all of an hour at once takes
        gigabytes, and longer than the driver waits.
        """
        for times in ranges(self._began, datetime.datetime.now(datetime.UTC)):
            for record in self._database[COLLECTION].find({"timestamp": times}, {"data": 1}):
                yield _found(record)

    def quarantined(self) -> Iterator[Found]:
        """All that is in quarantine."""
        for kept in self._database[f"{COLLECTION}_quarantine"].find({}):
            if kept["form"] == "bson":
                yield _found(bson.decode(kept["original"]))
            else:
                yield Found(token_of(kept["original"]), kept["_id"].binary)

    def entries(self) -> int:
        """How many entries the backups of all servers still have."""
        return sum(int(self._redis.xlen(key)) for key in self._keys("backup:*"))

    def damaged(self) -> list[str]:
        """The streams of entries that could not be read."""
        return [key.decode() for key in self._keys("backup:*:damaged")]

    def _keys(self, pattern: str) -> Iterator[bytes]:
        return iter(list(self._redis.scan_iter(f"{self._prefix}:{pattern}")))

    def remove(self) -> None:
        """Leave nothing behind on servers that are somebody's."""
        self._mongo.drop_database(self._database.name)
        for key in self._keys("*"):
            self._redis.delete(key)

    def close(self) -> None:
        """Close the connections."""
        self._mongo.close()
        self._redis.close()


def _found(record: dict[str, Any]) -> Found:
    data, record_id = record.get("data"), record["_id"]
    if not isinstance(data, dict) or not isinstance(data.get("token"), int) or not isinstance(record_id, ObjectId):
        return Found(-1, str(record_id).encode(), False)
    token = data["token"]
    return Found(token, record_id.binary, bool(data == data_of(token, "poison" in data)))


def ranges(began: datetime.datetime, ended: datetime.datetime) -> Iterator[dict[str, datetime.datetime]]:
    """Conditions on a time that together cover all times, one at a time."""
    yield {"$lt": began}
    while began < ended:
        yield {"$gte": began, "$lt": began + _RANGE}
        began += _RANGE
    yield {"$gte": began}
