"""sharding.py: what is said of a shard key that does not keep ``_id`` unique.

The collection of shard keys, ``config.collections``, is real; that the server is a mongos is not: there is
none to be had.
"""

import logging

import pytest
from motor.motor_tornado import MotorClient
from pymongo.errors import OperationFailure

from tornado_logsrv import sharding


class Mongos:
    """A client of a server that says of itself that it is a mongos, and has no rights where ``refuses`` says so."""

    def __init__(self, client, refuses=False):
        self._client = client
        self._refuses = refuses
        self.admin = self

    async def command(self, name):
        return {**await self._client.admin.command(name), "msg": "isdbgrid"}

    def __getitem__(self, name):
        return {"collections": self} if self._refuses else self._client[name]

    async def find_one(self, query):
        raise OperationFailure("not authorized on config", 13)


@pytest.fixture
def client(servers, io_loop):
    made = MotorClient(servers.mongo_url, io_loop=io_loop)
    yield made
    made.close()


@pytest.fixture
def namespace(database, mongo):
    yield f"{database.name}.logs"
    mongo["config"]["collections"].delete_one({"_id": f"{database.name}.logs"})


def shard(mongo, namespace, **key):
    mongo["config"]["collections"].insert_one({"_id": namespace, "key": key, "unique": False})


@pytest.mark.gen_test
async def test_a_server_that_is_no_mongos_has_no_shard_key(client, mongo, namespace):
    shard(mongo, namespace, timestamp=1)
    assert await sharding.problem(client, namespace) is None


@pytest.mark.parametrize("key", [{"_id": "hashed"}, {"_id": 1}])
@pytest.mark.gen_test
async def test_a_shard_key_of_the_id_alone_is_well(client, mongo, namespace, key):
    shard(mongo, namespace, **key)
    assert await sharding.problem(Mongos(client), namespace) == ""


@pytest.mark.gen_test
async def test_so_is_a_collection_that_is_not_sharded_and_one_that_may_not_be_asked_for(client, namespace):
    assert await sharding.problem(Mongos(client), namespace) == ""
    assert await sharding.problem(Mongos(client, refuses=True), namespace) == ""


@pytest.mark.parametrize("key", [{"timestamp": 1}, {"timestamp": 1, "_id": 1}, {"data.service": 1, "timestamp": 1}])
@pytest.mark.gen_test
async def test_any_other_is_told_with_what_to_do(client, mongo, namespace, key):
    shard(mongo, namespace, **key)
    problem = await sharding.problem(Mongos(client), namespace)
    assert problem.startswith(f"{namespace} is sharded by {', '.join(key)}: ")
    assert '{"_id": "hashed"}' in problem


@pytest.mark.gen_test
async def test_it_is_logged_and_among_the_checks_and_refuses_nothing(app, fetch, mongo, namespace, monkeypatch, caplog):
    shard(mongo, namespace, timestamp=1)
    app.store._client = Mongos(app.store._client)
    caplog.set_level(logging.WARNING, "logsrv.store")
    await app.store.prepare()
    app.store._client = app.store._client._client
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        f"{namespace} is sharded by timestamp"
    ]
    answer = await fetch("/readyz")
    assert (answer.code, answer.body.count(b"shard_key")) == (200, 1)


@pytest.mark.gen_test
async def test_without_a_cluster_there_is_no_such_check(app, fetch):
    await app.store.prepare()
    assert b"shard_key" not in (await fetch("/readyz")).body
