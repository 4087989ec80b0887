"""primary.py: the Redis server to write to, found by real Sentinels and on a real cluster."""

import asyncio
import contextlib
import signal

import bson
import pytest
from bson import ObjectId
from redis.exceptions import ResponseError

from tornado_logsrv.errors import StartError
from tornado_logsrv.leases import Leases
from tornado_logsrv.primary import PrimaryPool
from tornado_logsrv.streams import FAILURES, RecordStream, connect

from .process import eventually
from .redises import SERVICE, Cluster, Watched


@pytest.mark.parametrize(
    ("url", "prefix", "problem"),
    [
        ("redis+sentinel://one:1,two:2", "logsrv", "must end with /service or /service/db"),
        ("redis+sentinel://one:1/service/none", "logsrv", "must end with /service or /service/db"),
        ("redis+sentinel:///service", "logsrv", "must name a host"),
        ("redis+sentinel://one,,two/service", "logsrv", "must name a host"),
        ("redis+sentinel://one:port/service", "logsrv", "Port could not be cast"),
        ("redis+cluster://one/0", "{logsrv}", "must have no path"),
        ("redis+cluster://one", "logsrv", r"a hash tag in --redis_prefix, such as {logsrv}"),
        ("redis+cluster://one", "{}logsrv", "a hash tag"),
        ("redis+cluster://one", "{logsrv", "a hash tag"),
    ],
)
def test_a_url_that_cannot_be_one_is_told_at_the_start(url, prefix, problem):
    with pytest.raises(StartError, match=f"^--redis_url: .*{problem}"):
        connect(url, prefix)


def test_a_url_says_who_is_asked_and_how_the_primary_is_spoken_to():
    url = "rediss+sentinel://user:pass%2Fword@one,[::1]:7/our%20service/3?sentinel_password=other&ssl_cert_reqs=none"
    pool = PrimaryPool(url, "logsrv", socket_timeout=9)
    given = pool.connection_kwargs
    assert pool.service_name == "our service"
    assert {name: given[name] for name in ("username", "password", "db", "socket_timeout")} == {
        "username": "user", "password": "pass/word", "db": 3, "socket_timeout": 9,
    }  # fmt: skip
    asked = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    assert [(each["host"], each["port"], each["password"]) for each in asked] == [
        ("one", 26379, "other"), ("::1", 7, "other"),
    ]  # fmt: skip
    assert all(each["ssl_cert_reqs"] == "none" and not each.get("username") for each in asked)
    # A connection can be made of it.
    assert pool.make_connection().password == "pass/word"


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    with contextlib.closing(Watched(tmp_path_factory.mktemp("watched"))) as found:
        yield found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with contextlib.closing(Cluster(tmp_path_factory.mktemp("cluster"))) as found:
        yield found


@contextlib.asynccontextmanager
async def client(url, prefix):
    """A client; what it leaves open is a warning, and those are errors."""
    found = connect(url, prefix)
    try:
        yield found
    finally:
        await found.aclose()


async def until_done(work):
    """Try again as the server does: what Redis cannot do now is tried later."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await work()
            except FAILURES:
                await asyncio.sleep(0.1)


def record(number):
    return bson.encode({"_id": ObjectId(), "n": number})


class TestSentinels:
    def test_what_is_appended_goes_to_the_new_primary_after_a_failover(self, watched):
        async def scenario():
            async with client(watched.url, "logsrv") as redis:
                stream = RecordStream(redis, "logsrv", "one")
                await stream.append([[record(1)]])
                await asyncio.to_thread(eventually, lambda: replicated(watched, stream.key, 1), "it is replicated")
                old = watched.primary
                await asyncio.to_thread(watched.fail_over)
                await until_done(lambda: stream.append([[record(2)], [record(3)]]))
                assert watched.primary.client.xlen(stream.key) == await stream.length() == 3
                old.start()

        asyncio.run(scenario())

    def test_a_primary_that_was_demoted_while_it_lives_is_left(self, watched):
        async def scenario():
            async with client(watched.url, "logsrv") as redis:
                stream = RecordStream(redis, "logsrv", "two")
                await until_done(lambda: stream.append([[record(1)]]))
                old = watched.primary
                await asyncio.to_thread(eventually, lambda: demote(watched, old), "another is primary")
                await until_done(lambda: stream.append([[record(2)]]))
                assert watched.primary is not old
                assert watched.primary.client.xlen(stream.key) >= 1

        asyncio.run(scenario())

    def test_one_sentinel_that_answers_is_enough(self, watched):
        async def scenario():
            async with client(watched.url, "logsrv") as redis:
                await until_done(redis.ping)

        for sentinel in watched.sentinels[:2]:
            sentinel.send(signal.SIGSTOP)
        try:
            asyncio.run(scenario())
        finally:
            for sentinel in watched.sentinels[:2]:
                sentinel.send(signal.SIGCONT)

    def test_a_service_that_they_do_not_know_is_a_failure_like_any(self, watched):
        async def scenario():
            async with client(watched.url.replace(SERVICE, "other"), "logsrv") as redis:
                with pytest.raises(FAILURES, match="No master found for 'other'"):
                    await redis.ping()

        asyncio.run(scenario())


def replicated(watched, key, count):
    return all(node.client.xlen(key) == count for node in watched.nodes)


def demote(watched, old):
    """Ask for another primary; they refuse it as long as they are not ready after the failover before."""
    if watched.primary is old:
        with contextlib.suppress(ResponseError):
            watched.sentinels[0].client.execute_command("SENTINEL", "FAILOVER", SERVICE)
    return watched.primary is not old and old.client.info("replication")["role"] == "slave"


class TestCluster:
    PREFIX = "{logsrv-test}"

    def test_every_command_and_script_runs_on_the_node_that_has_the_tag(self, cluster):
        async def scenario():
            async with client(cluster.url, self.PREFIX) as redis:
                stream = RecordStream(redis, self.PREFIX, "gone")
                sent = [[record(1)], [record(2), record(3)]]
                await stream.append(sent)
                last = await stream.last_id()
                assert [found for _, found in await stream.read(None, last, 10)] == sent
                mine, gone = (Leases(redis, self.PREFIX, name, name, "process") for name in ("mine", "gone"))
                await gone.acquire()
                await mine.acquire()
                assert await mine.orphans() == []
                await gone.release()
                assert await mine.orphans() == ["gone"]
                assert await mine.adopt("gone")
                await stream.trim(last)
                assert await stream.drop_if_empty()
                await mine.adopted("gone", forget=True)
                assert await mine.orphans() == []
                await mine.release()

        asyncio.run(scenario())
        sizes = sorted(node.client.dbsize() for node in cluster.nodes)
        assert sizes == [0, 0, 1]  # the set of names

    def test_a_slot_that_has_moved_is_found_again(self, cluster):
        async def scenario():
            async with client(cluster.url, "{moving}") as redis:
                stream = RecordStream(redis, "{moving}", "one")
                await stream.append([[record(1)]])
                move(cluster, "{moving}", stream.key)
                await until_done(lambda: stream.append([[record(2)]]))
                assert await stream.length() == 2

        asyncio.run(scenario())

    def test_a_node_that_is_gone_is_not_asked_in_vain(self, cluster):
        async def scenario():
            url = cluster.url.replace("redis+cluster://", "redis+cluster://127.0.0.1:1,")
            async with client(url, "{a}") as redis:
                assert await redis.ping()

        asyncio.run(scenario())


def move(cluster, tag, key):
    """Give a slot, and the key in it, to another node, step by step as redis-cli does."""
    slot = cluster.nodes[0].client.execute_command("CLUSTER", "KEYSLOT", tag)
    ids = [node.client.execute_command("CLUSTER", "MYID").decode() for node in cluster.nodes]
    source = next(i for i, node in enumerate(cluster.nodes) if node.client.dbsize() and has(node, key))
    target = (source + 1) % len(cluster.nodes)
    cluster.nodes[target].client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    cluster.nodes[source].client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    cluster.nodes[source].client.execute_command("MIGRATE", "127.0.0.1", cluster.nodes[target].port, key, 0, 5000)
    for index in (target, source, (source + 2) % 3):
        cluster.nodes[index].client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])


def has(node, key):
    with contextlib.suppress(ResponseError):
        return node.client.exists(key)
    return False
