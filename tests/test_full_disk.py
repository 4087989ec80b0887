"""A disk that is full: a small file system of its own, with real servers on it, and room again after a while."""

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.error
from pathlib import Path

import pymongo
import pytest

from tornado_logsrv import auth

from .process import PATIENCE, eventually, running

MiB = 1024 * 1024
AWAY_MONGO = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=200"
AWAY_REDIS = "redis://127.0.0.1:9"


class Disk:
    """A file system of some MiB that can be filled, and have room again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, but: int = 0) -> None:
        """Leave no more than ``but`` bytes."""
        free = os.statvfs(self.path)
        with open(self.path / "padding", "wb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(free.f_bavail * free.f_frsize - but, 1))

    def empty(self) -> None:
        (self.path / "padding").unlink()


@pytest.fixture
def disk(tmp_path):
    """A file system of 64 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", path], capture_output=True, text=True
    )
    if mounted.returncode:
        reason = f"a file system that can be full needs the right to mount one: {mounted.stderr.strip()}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    yield Disk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def start(servers, database, prefix, disk, tmp_path):
    """``with start(**options) as process``: a server with its data on the disk, and MongoDB and Redis elsewhere."""

    def start(log=tmp_path / "log", **given):
        options = {
            "port": 0, "instance": "one", "data_dir": disk.path / "data", "mongo_url": servers.mongo_url,
            "mongo_db": database.name, "redis_url": servers.redis_url, "redis_prefix": prefix,
            "flush_interval_ms": 50, "ack": "memory", **given,
        }  # fmt: skip
        return running(*(f"--{name}={value}" for name, value in options.items() if value != ""), log=log)

    return start


def add(process, number, ack, count=20):
    """Post ``count`` records of 1 KiB with this number; the status."""
    try:
        process.post(f"/add-jobs?ack={ack}", json.dumps([{"number": number, "pad": "x" * 1000}] * count).encode())
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return 202


def numbers(collection):
    """How many records of each number are stored."""
    return {
        d["_id"]: d["count"] for d in collection.aggregate([{"$group": {"_id": "$data.number", "count": {"$sum": 1}}}])
    }


def empty(process):
    return process.get("/queue-size")["queueSize"] == 0


def test_the_embedded_servers_lose_nothing_and_go_on_when_there_is_room(start, disk):
    with start(mongo_url="", redis_url="", mongo_db="logsrv") as process:
        assert add(process, 0, "journal") == 202
        eventually(lambda: empty(process), "it is stored")
        disk.fill(but=2 * MiB)
        taken, numbered = [0], iter(range(1, 1_000_000))

        def refused(ack):
            if (status := add(process, number := next(numbered), ack)) == 202:
                taken.append(number)
            return status == 503

        eventually(lambda: refused("journal"), "Valkey has no room, and says so")
        eventually(lambda: refused("memory") or "mongodb is ended" in process.log, "SecantusDB has none, and is broken")
        assert not empty(process)
        disk.empty()
        eventually(lambda: not refused("journal"), "Valkey takes records again")
        eventually(lambda: empty(process), "all is stored")
        url, password = re.search(r"mongodb://\S+", process.banner)[0], disk.path / "data" / "mongodb.password"
        with pymongo.MongoClient(url.replace("***", password.read_text())) as client:
            assert numbers(client.logsrv.logs) == dict.fromkeys(taken, 20)
        assert process.stop() == 0


def test_a_spool_without_room_is_a_full_queue_and_keeps_what_it_has(start, disk, collection):
    full = {"queue_max_bytes": "100KiB", "spool_max_bytes": "1GiB", "mongo_url": AWAY_MONGO}
    with start(**full) as process:
        disk.fill(but=MiB)
        statuses = {number: add(process, number, "memory") for number in range(100)}
        assert {*statuses.values()} == {202, 503}
        assert statuses[99] == 503
        disk.empty()
        statuses |= {number: add(process, number, "memory") for number in range(100, 110)}
        assert statuses[109] == 202
        assert process.get("/ledger")["balanced"]
        assert process.stop() == 0
    taken = [number for number, status in statuses.items() if status == 202]
    with start() as process:
        eventually(lambda: numbers(collection) == dict.fromkeys(taken, 20), "what was taken is stored, once")
        assert [*disk.path.glob("data/*.bson*")] == []


@pytest.mark.parametrize("signals", [1, 2])
def test_a_stop_that_can_keep_nothing_says_how_many_are_lost(start, disk, signals):
    with start(mongo_url=AWAY_MONGO, redis_url=AWAY_REDIS) as process:
        assert add(process, 1, "memory", count=500) == 202
        disk.fill()
        for _ in range(signals):
            process.send_signal(15)
        assert process.wait() == 1
        assert "500 records are lost: neither Redis nor a file takes them: [Errno 28]" in process.log


def test_a_tail_goes_on_where_its_ids_cannot_be_kept(start, disk):
    with start() as process:
        host, port = process.address
        curl = subprocess.Popen(["curl", "-sN", f"http://{host}:{port}/logs/tail"], stdout=subprocess.PIPE)
        try:
            assert curl.stdout.readline().startswith(b"retry")
            disk.fill()
            assert add(process, 7, "memory", count=1) == 202
            assert any(b'"number":7' in line for line in curl.stdout)
            assert process.log.count("the tail's order cannot be written") == 1
        finally:
            curl.kill()
            curl.communicate()


def test_a_start_without_room_says_so(disk, servers, tmp_path):
    disk.fill()
    done = subprocess.run(
        [sys.executable, "-m", "tornado_logsrv", "--port=0", f"--data_dir={disk.path / 'data'}"],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--data_dir" in done.stderr
    assert "No space left on device" in done.stderr


def test_without_room_for_the_key_of_sign_ins_a_start_says_so_and_the_next_makes_a_whole_one(start, disk, tmp_path):
    secret = auth.new_secret()
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[token]]\nname = "a"\nsha256 = "{auth.digest_of(secret)}"\nscopes = ["read"]\n')
    with start() as process:
        assert process.stop() == 0
    disk.fill()
    with pytest.raises(AssertionError, match=r"(?s)status 2.*session-key cannot be used: .*No space left on device"):
        start(tokens_file=tokens).__enter__()
    assert not (disk.path / "data" / "session-key").exists()
    disk.empty()
    with start(tokens_file=tokens) as process:
        assert len((disk.path / "data" / "session-key").read_text()) == 64
        assert process.post("/sign-in", json.dumps({"token": secret}).encode())["name"] == "a"


def test_a_log_that_cannot_be_written_stops_nothing(start, collection):
    with start(log=Path("/dev/full"), request_log="yes") as process:
        for number in range(3):
            assert add(process, number, "journal") == 202
            with pytest.raises(urllib.error.HTTPError) as error:
                process.post("/add-job", b"{")
            error.value.close()
        for _ in range(600):
            process.get("/queue-size")
        eventually(lambda: numbers(collection) == {0: 20, 1: 20, 2: 20}, "all is stored")
        assert process.stop() == 0
