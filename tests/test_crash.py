"""kill -9 of anything, and what becomes of a dead instance's records."""

import concurrent.futures
import contextlib
import http.client
import signal
import time

import pymongo
import pytest
import redis

from tornado_logsrv import auth

from .process import Process, eventually, running

pytestmark = pytest.mark.long

NDJSON = "application/x-ndjson"


@pytest.fixture
def start(own_servers, tmp_path):
    """``with start(name, **options) as process``: a server on servers that this test may kill."""

    def start(name="one", **given):
        options = {
            "port": 0,
            "instance": name,
            "data_dir": tmp_path / f"data-{name}",
            "mongo_url": f"{own_servers.mongo_url}&serverSelectionTimeoutMS=300",
            "redis_url": own_servers.redis_url,
            "flush_interval_ms": 50,
        } | given
        return running(*(f"--{option}={value}" for option, value in options.items()), log=tmp_path / f"log-{name}")

    return start


@pytest.fixture
def logs(own_servers):
    with pymongo.MongoClient(own_servers.mongo_url) as client:
        yield client["logsrv"]["logs"]


def stored(logs) -> list[str]:
    return sorted(str(document["_id"]) for document in logs.find({}, {"_id": 1}))


def drained(process: Process) -> None:
    eventually(lambda: process.get("/queue-size")["queueSize"] == 0, "the queue is empty")
    eventually(lambda: "logsrv_ledger_balance 0.0" in metrics(process), "the ledger balances")


def metrics(process: Process) -> str:
    connection = http.client.HTTPConnection(process.url.removeprefix("http://"))
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


class Load:
    """Posts from several connections until it is stopped; keeps what was acknowledged, by level."""

    def __init__(self, url: str) -> None:
        self._address = url.removeprefix("http://")
        self._going = True
        self._pool = concurrent.futures.ThreadPoolExecutor(6)
        self._parts = [self._pool.submit(self._post_all, ack) for ack in ("memory", "journal", "stored") * 2]

    def _post_all(self, ack: str) -> tuple[str, list[str]]:
        ids: list[str] = []
        while self._going:
            connection = http.client.HTTPConnection(self._address, timeout=10)
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                while self._going:
                    connection.request("POST", f"/add-job?ack={ack}", b'{"a":1}', {"Content-Type": "application/json"})
                    response = connection.getresponse()
                    body = response.read().decode()
                    if response.status == 202:
                        ids.append(body.partition('"id":"')[2][:24])
                    else:
                        time.sleep(0.01)
            time.sleep(0.01)
        return ack, ids

    def stop(self) -> dict[str, list[str]]:
        self._going = False
        acknowledged: dict[str, list[str]] = {"memory": [], "journal": [], "stored": []}
        for part in self._parts:
            ack, ids = part.result()
            acknowledged[ack] += ids
        self._pool.shutdown()
        return acknowledged


def test_kill_under_load_keeps_what_journal_and_stored_have_acknowledged(start, logs):
    acknowledged: dict[str, list[str]] = {"memory": [], "journal": [], "stored": []}
    for _ in range(3):
        with start() as process:
            load = Load(process.url)
            time.sleep(0.7)
            process.send_signal(signal.SIGKILL)
            for ack, ids in load.stop().items():
                acknowledged[ack] += ids
            process.wait()
    with start() as process:
        drained(process)
    found = stored(logs)
    assert acknowledged["journal"]
    assert {*acknowledged["journal"], *acknowledged["stored"]} <= set(found)
    assert len(found) == len(set(found))


def test_mongodb_and_redis_killed_under_load_lose_nothing(start, own_servers, logs):
    with start() as process:
        load = Load(process.url)
        for child in (own_servers.mongo, own_servers.redis):
            time.sleep(0.5)
            own_servers.kill(child)
            time.sleep(0.3)
            own_servers.start(child)
        time.sleep(1.5)
        acknowledged = load.stop()
        drained(process)
        found = stored(logs)
        for ids in acknowledged.values():
            assert ids
            assert set(ids) <= set(found)


def entries(own_servers, name):
    with redis.Redis.from_url(own_servers.redis_url) as client:
        return client.xlen(f"logsrv:backup:{name}")


def test_the_stream_holds_what_is_unstored_and_no_more(start, own_servers, logs):
    with start(ack="journal") as process:
        for n in range(200):
            process.post("/add-job", b"%d" % n)
        drained(process)
        eventually(lambda: entries(own_servers, "one") == 0, "the stream is empty")


def end_lease(own_servers, name):
    with redis.Redis.from_url(own_servers.redis_url) as client:
        client.delete(f"logsrv:lease:{name}")


def test_a_live_instance_stores_what_a_dead_one_has_left_exactly_once(start, own_servers, logs):
    away = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
    with start("dead", mongo_url=away) as dead:
        ids = [dead.post("/add-job", b"%d" % n)["id"] for n in range(100)]
        dead.stop(signal.SIGKILL)
    with start("b") as b, start("c") as c:
        end_lease(own_servers, "dead")
        eventually(lambda: len(stored(logs)) == 100, "they are stored")
        assert stored(logs) == sorted(ids)
        eventually(lambda: (b.log + c.log).count("the server dead is gone") == 1, "one has adopted them")
        eventually(lambda: entries(own_servers, "dead") == 0, "the stream is gone")
        drained(b)
        drained(c)


def test_what_an_orderly_stop_has_left_is_adopted_too(start, own_servers, logs):
    away = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
    with start("gone", mongo_url=away, ack="memory") as gone:
        ids = [gone.post("/add-job", b"%d" % n)["id"] for n in range(10)]
        assert gone.stop() == 0
    with start("stays"):
        eventually(lambda: stored(logs) == sorted(ids), "they are stored by another")


def test_two_with_one_name_the_second_refuses_and_says_why(start, tmp_path):
    second = start("same", data_dir=tmp_path / "other")
    with start("same"), pytest.raises(AssertionError, match="status 2") as refused, second:
        raise AssertionError("it started")
    assert "another server named 'same' is running" in str(refused.value)


def test_the_spool_is_read_back_after_a_kill(start, own_servers, logs):
    away = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
    small = {"queue_max_bytes": "4kB", "spool_max_bytes": "1MB"}
    with start(mongo_url=away, **small) as process:
        ids = [process.post("/add-job", b'{"n":%d}' % n)["id"] for n in range(300)]
        process.stop(signal.SIGKILL)
    with start(**small) as process:
        drained(process)
        eventually(lambda: stored(logs) == sorted(ids), "all are stored")
        eventually(lambda: entries(own_servers, "one") == 0, "the stream is empty")


def test_a_lease_that_is_lost_ends_the_server_without_a_loss(start, own_servers, logs):
    away = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
    with start(mongo_url=away, ack="memory") as process:
        ids = [process.post("/add-job", b"1")["id"] for _ in range(5)]
        with redis.Redis.from_url(own_servers.redis_url) as client:
            client.set("logsrv:lease:one", "somebody/else")
        assert process.wait() == 2
        assert "another server named 'one' is running; give this one another --instance; stopping" in process.log
        assert "5 records are kept in" in process.log
    end_lease(own_servers, "one")
    with start() as process:
        drained(process)
        assert stored(logs) == sorted(ids)


def as_tenant(tmp_path, tenant):
    """A tokens file with a token of a tenant and one of nobody's, and the headers that show them."""
    secrets = {name: auth.new_secret() for name in ("", tenant)}
    path = tmp_path / "tokens.toml"
    path.write_text(
        "".join(
            f'[[token]]\nname = "t{name}"\nsha256 = "{auth.digest_of(secret)}"\nscopes = ["write", "read"]\n'
            + (f'tenant = "{name}"\n' if name else "")
            for name, secret in secrets.items()
        )
    )
    return str(path), [{"Authorization": f"Bearer {secret}"} for secret in secrets.values()]


@pytest.mark.parametrize(
    ("way", "ack", "given"),
    [
        ("adopted", "journal", {}),
        ("spooled", "journal", {"queue_max_bytes": "1kB", "spool_max_bytes": "1MB"}),
        ("without Redis", "memory", {"redis_url": "redis://127.0.0.1:9/"}),
    ],
)
def test_a_tenants_records_get_into_its_collection_by_every_way_out_of_a_process(
    start, own_servers, logs, tmp_path, way, ack, given
):
    tokens, (all_, acme) = as_tenant(tmp_path, "acme")
    away = {"mongo_url": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100", "tokens_file": tokens, "ack": ack}
    ids = {"": [], "acme": []}
    with start("first", **away | given) as first:
        for n in range(20):
            for tenant, headers in (("", all_), ("acme", acme)):
                lines = first.post("/add-jobs", b'{"n":%d}\n{"n":' % n, **headers, **{"Content-Type": NDJSON})
                assert lines["accepted"] == lines["quarantined"] == 1
                ids[tenant].append(first.post("/add-job", b"%d" % n, **headers)["id"])
        first.stop(signal.SIGTERM if ack == "memory" else signal.SIGKILL)
    name = "other" if way == "adopted" else "first"
    with start(name, tokens_file=tokens) as second:
        if way == "adopted":
            end_lease(own_servers, "first")
        found = {"": logs, "acme": logs.database["logs_acme"]}
        for tenant, collection in found.items():
            eventually(lambda each=collection: each.count_documents({}) == 40, "all are stored")
            assert set(ids[tenant]) <= set(stored(collection))
            assert {document.get("tenant", "") for document in collection.find()} == {tenant}
            quarantine = collection.database[f"{collection.name}_quarantine"]
            eventually(lambda each=quarantine: each.count_documents({}) == 20, "all are in quarantine")
        eventually(lambda: second.get("/ledger", **acme)["total"]["queued"] == 0, "none of them waits")
        rows = second.get("/ledger", **acme)["sources"]
        # What was in a file and in Redis is stored twice, as one.
        assert (set(rows), rows["jobs"]["stored"] >= 40) == ({"jobs"}, True)
        assert second.get("/ledger", **all_)["balanced"]
        if ack == "journal":
            eventually(lambda: entries(own_servers, "first") == 0, "the stream is empty")
