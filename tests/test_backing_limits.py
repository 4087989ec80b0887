"""MongoDB and Redis that have reached a limit of their own, and a process that was not run for a while."""

import signal
import time
import urllib.error
import urllib.request

import pymongo
import pytest
import redis

from .process import eventually, running


@pytest.fixture
def start(own_servers, database, prefix, tmp_path):
    """``with start(**options) as process``: a server on a MongoDB and a Redis of this test alone."""

    def start(**given):
        options = {
            "port": 0, "instance": "one", "data_dir": tmp_path / "own", "mongo_url": own_servers.mongo_url,
            "mongo_db": database.name, "redis_url": own_servers.redis_url, "redis_prefix": prefix,
            "flush_interval_ms": 50, **given,
        }  # fmt: skip
        return running(*(f"--{name}={value}" for name, value in options.items()), log=tmp_path / "log")

    return start


@pytest.fixture
def database(own_servers):
    with pymongo.MongoClient(own_servers.mongo_url) as client:
        yield client["limits"]


def add(process, ack):
    """The status of a record's answer, and its id where it was taken."""
    try:
        return 202, process.post(f"/add-job?ack={ack}", b'{"pad":"%s"}' % (b"x" * 10_000))["id"]
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, None


def stored(collection):
    return {str(document["_id"]) for document in collection.find({}, {"_id": 1})}


def test_a_redis_without_memory_refuses_the_journal_alone(start, own_servers, database):
    with start() as process, redis.Redis.from_url(own_servers.redis_url) as client:
        client.config_set("maxmemory", 1)
        assert add(process, "journal") == (503, None)
        taken = [add(process, "memory"), add(process, "stored")]
        assert [status for status, _ in taken] == [202, 202]
        eventually(lambda: "used memory > 'maxmemory'" in process.log, "it is told why")
        client.config_set("maxmemory", 0)
        eventually(lambda: add(process, "journal")[0] == 202, "the journal goes on")
        eventually(lambda: {record_id for _, record_id in taken} <= stored(database.logs), "all is stored")


@pytest.mark.parametrize("code", [14031, 10107], ids=["OutOfDiskSpace", "NotWritablePrimary"])
def test_a_mongodb_that_cannot_write_keeps_nobody_from_sending(start, database, code):
    with start(ack="journal") as process:
        fail = {"failCommands": ["insert"], "errorCode": code}
        database.client.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": fail})
        taken = [add(process, "journal")[1] for _ in range(20)]
        eventually(lambda: "cannot write to MongoDB" in process.log, "it is told")
        assert None not in taken
        assert process.get("/queue-size")["queueSize"] == 20
        database.client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        eventually(lambda: stored(database.logs) == {*taken}, "all is stored")
        assert process.get("/quarantine") == []
        assert process.log.count("cannot write to MongoDB") == 1


def test_a_process_that_was_not_run_for_a_second_measures_and_tells_it(start):
    with start() as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        process.send_signal(signal.SIGCONT)
        eventually(lambda: "the event loop did nothing for 1." in process.log, "it is told")
        with urllib.request.urlopen(process.url + "/metrics") as answer:
            lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
        assert float(lines["logsrv_event_loop_lag_seconds"]) > 1
        assert float(lines["logsrv_event_loop_blocked_seconds_total"]) > 1
        assert add(process, "journal")[0] == 202
