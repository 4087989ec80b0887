"""Whether a sharded collection keeps the promise that a record is stored once.

MongoDB keeps ``_id`` unique on each shard, by an index; across shards, only what always sends one ``_id`` to one shard
does (MongoDB manual, "Unique Indexes": sharded clusters). That is a shard key of ``_id`` alone, hashed or not: a record
that is sent again has the same ``_id``, but may have another time.
"""

from typing import Any

from pymongo.errors import OperationFailure

#: What a mongos, and nobody else, says of itself in its answer to ``hello``.
_MONGOS = "isdbgrid"


async def problem(client: Any, namespace: str) -> str | None:
    """What is wrong with the shard key of a collection; None where there is no cluster. Raises PyMongoError.

    Empty: nothing is wrong, or it is not sharded, or this user may not know.
    """
    if (await client.admin.command("hello")).get("msg") != _MONGOS:
        return None
    try:
        sharded = await client["config"]["collections"].find_one({"_id": namespace})
    except OperationFailure:
        return ""
    key = list((sharded or {}).get("key", {"_id": 1}))
    if key == ["_id"]:
        return ""
    return (
        f"{namespace} is sharded by {', '.join(key)}: a record that is sent again may be stored on another shard, too; "
        'shard it by {"_id": "hashed"}'
    )
