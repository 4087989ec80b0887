"""Several real servers on one MongoDB and one Redis by Sentinel, and what becomes of records when all of it fails.

Clients send each record with a key until it is acknowledged, so in the end MongoDB has to hold exactly what was sent.
The ledgers of servers that were killed are gone with them: what they had taken and not stored is in their successor's,
as received.
"""

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import signal
import time
import urllib.error
from collections.abc import Sequence
from typing import Any

import pymongo
import pytest

from .conftest import Servers
from .process import PATIENCE, Process, eventually, running
from .redises import Node, Watched

pytestmark = pytest.mark.long

AWAY = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"


@pytest.fixture
def watched(tmp_path):
    (tmp_path / "redis").mkdir()
    with contextlib.closing(Watched(tmp_path / "redis")) as found:
        yield found


@pytest.fixture
def mongodb(tmp_path):
    """A replica set of one, which can be told to step down."""
    (tmp_path / "mongo").mkdir()
    own = Servers(tmp_path / "mongo", oplog=True)
    own.start(own.mongo)
    own.mongo_url = own.mongo_url.replace("directConnection=true", "replicaSet=secantus")
    yield own
    own.close()


@pytest.fixture
def logs(mongodb):
    with pymongo.MongoClient(mongodb.mongo_url) as client:
        yield client["logsrv"]["logs"]


@pytest.fixture
def start(mongodb, watched, tmp_path):
    def start(name, **given):
        options = {
            "port": 0, "instance": name, "data_dir": tmp_path / name, "redis_url": watched.url,
            "mongo_url": f"{mongodb.mongo_url}&serverSelectionTimeoutMS=500", "flush_interval_ms": 100,
        } | given  # fmt: skip
        return running(*(f"--{option}={value}" for option, value in options.items()), log=tmp_path / f"{name}.log")

    return start


def started(undo: contextlib.ExitStack, *contexts: Any) -> tuple[Process, ...]:
    """All of them, started at the same time, until ``undo``."""
    with concurrent.futures.ThreadPoolExecutor(len(contexts)) as pool:
        return tuple(pool.map(undo.enter_context, contexts))


class Clients:
    """Each sends records, one by one, to any server that takes them, again and again until one is acknowledged."""

    def __init__(self, servers: Sequence[Process], count: int = 8) -> None:
        self._addresses = [server.url.removeprefix("http://") for server in servers]
        self._going = True
        self._numbers = itertools.count()
        self.acknowledged: list[str] = []
        self._pool = concurrent.futures.ThreadPoolExecutor(count)
        self._parts = [self._pool.submit(self._send_all, number) for number in range(count)]

    def _send_all(self, number: int) -> None:
        ack, places = (
            ("journal", "stored")[number % 2],
            itertools.cycle(self._addresses[number % 4 :] + self._addresses),
        )
        address = next(places)
        while self._going:
            connection = http.client.HTTPConnection(address, timeout=10)
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                while self._going:
                    key = f"{number}/{next(self._numbers)}"
                    address = self._send(connection, key, ack, places)
                    # As fast as they could, they would take the processor from the Sentinels, which then see ghosts.
                    time.sleep(0.005)

    def _send(self, connection, key, ack, places) -> str:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        while True:
            try:
                connection.request("POST", f"/add-job?ack={ack}", json.dumps({"key": key}).encode(), headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status == 202:
                    self.acknowledged.append(key)
                    return f"{connection.host}:{connection.port}"
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.05)
            connection.close()
            host, _, port = next(places).partition(":")
            connection.host, connection.port = host, int(port)

    def more(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        wanted = len(self.acknowledged) + count
        eventually(lambda: len(self.acknowledged) >= wanted, f"{count} more are acknowledged")

    def stop(self) -> list[str]:
        self._going = False
        for part in self._parts:
            part.result(PATIENCE)
        return sorted(self.acknowledged)


def stored(logs) -> list[str]:
    return sorted(document["data"]["key"] for document in logs.find({}, {"data.key": 1}))


def left(watched) -> dict[bytes, int]:
    """The streams that still have entries."""
    client = watched.primary.client
    lengths = {key: client.xlen(key) for key in client.scan_iter("logsrv:backup:*")}
    return {key: length for key, length in lengths.items() if length}


def test_whoever_fails_what_was_acknowledged_is_stored_once_and_the_ledgers_balance(
    start, mongodb, watched, logs, tmp_path
):
    with contextlib.ExitStack() as undo:
        names = ("killed-1", "killed-2", "stopped", "stays")
        servers = first, second, stopped, stays = started(undo, *(start(name, journal_replicas=1) for name in names))
        clients = Clients(servers)
        clients.more(200)
        first.stop(signal.SIGKILL)
        clients.more(100)
        logs.database.client.admin.command({"replSetStepDown": 2, "force": True})
        clients.more(20)
        # Both at once: what only the primary of Redis had beside the server would be lost now.
        old = watched.primary
        old.kill()
        second.stop(signal.SIGKILL)
        eventually(lambda: watched.primary is not old, "another Redis is primary")
        clients.more(100)
        of_stopped = stopped.get("/ledger")
        assert stopped.stop() == 0
        clients.more(100)
        acknowledged = clients.stop()
        if [*(tmp_path / "stopped").glob("*.bson")]:
            # Redis had too few replicas when it stopped: what it had to keep then is for its next start.
            undo.enter_context(start("stopped", journal_replicas=1))
        # Their leases run out after 15 s; that this is so is tested elsewhere.
        watched.primary.client.delete(*(f"logsrv:lease:{name}" for name in names[:2]))
        eventually(lambda: set(acknowledged) <= set(stored(logs)), "all that was acknowledged is stored")
        assert stored(logs) == acknowledged
        eventually(lambda: left(watched) == {}, "Redis holds nothing more")
        eventually(lambda: stays.get("/queue-size")["queueSize"] == 0, "the queue is empty")
        of_stays = stays.get("/ledger")
        assert [of_stopped["balanced"], of_stays["balanced"], of_stays["total"]["queued"]] == [True, True, 0]


def test_what_a_new_primary_has_not_got_is_appended_again_or_kept_in_a_file(start, watched, logs):
    with start("killed", mongo_url=AWAY) as killed, start("stopped", mongo_url=AWAY) as stopped:
        ids = held_by_the_primary_alone(watched, killed, stopped)
        # At once: what it knows by now is that Redis does not answer.
        assert stopped.stop() == 0
        assert "20 records are kept" in stopped.log
        eventually(lambda: "20 records are appended again" in killed.log, "they are appended again")
        # Sentinels may change their mind more than once; then it is appended as often.
        eventually(lambda: all_have(watched.nodes[1:], "logsrv:backup:killed"), "all of Redis has them")
        killed.stop(signal.SIGKILL)
    with start("killed"), start("stopped"):
        eventually(lambda: sorted(str(record["_id"]) for record in logs.find()) == sorted(ids), "all are stored")


def all_have(nodes: list[Node], key: str) -> bool:
    """Whether one of ``nodes`` is the primary and the others follow it, and all have entries under ``key``."""
    roles = sorted(node.client.info("replication")["role"] for node in nodes)
    return roles == ["master", "slave"] and all(node.client.xlen(key) for node in nodes)


def held_by_the_primary_alone(watched: Watched, *servers: Process) -> list[str]:
    """Twenty records of each of ``servers`` that no replica has got when the primary is killed."""
    primary, *replicas = watched.nodes
    for node in replicas:
        node.send(signal.SIGSTOP)
    # Else the kernel would keep for them what is sent.
    primary.client.client_kill_filter(_type="replica")
    ids = [str(server.post("/add-job", b"1")["id"]) for server in servers for _ in range(20)]
    primary.kill()
    for node in replicas:
        node.send(signal.SIGCONT)
    return ids


def test_with_journal_replicas_nothing_is_acknowledged_that_only_the_primary_has(tmp_path):
    with contextlib.ExitStack() as undo:
        primary = undo.enter_context(contextlib.closing(Node(tmp_path / "primary", "--repl-diskless-sync-delay", "0")))
        follow = ("--replicaof", f"127.0.0.1 {primary.port}")
        replica = undo.enter_context(contextlib.closing(Node(tmp_path / "replica", *follow)))
        options = {
            "port": 0, "instance": "one", "data_dir": tmp_path / "one", "mongo_url": AWAY, "journal_replicas": 1,
            "redis_url": f"redis://127.0.0.1:{primary.port}",
        }  # fmt: skip
        given = [f"--{option}={value}" for option, value in options.items()]
        server = undo.enter_context(running(*given, log=tmp_path / "log"))
        eventually(lambda: takes(server), "the replica follows")
        before = server.get("/queue-size")["queueSize"]
        replica.send(signal.SIGSTOP)
        assert not takes(server)
        assert "0 replicas have what was appended, not 1 (--journal_replicas)" in server.log
        assert server.get("/queue-size")["queueSize"] == before
        replica.send(signal.SIGCONT)
        eventually(lambda: takes(server), "it takes records again")


def takes(server: Process) -> bool:
    with contextlib.suppress(urllib.error.HTTPError):
        return bool(server.post("/add-job", b"3"))
    return False


def test_searches_go_where_the_url_allows_and_receipts_to_the_primary_alone(mongodb, servers, prefix, logs, tmp_path):
    options = {
        "port": 0, "instance": "one", "data_dir": tmp_path / "one",
        "redis_url": servers.redis_url, "redis_prefix": prefix,
        "mongo_url": f"{mongodb.mongo_url}&readPreference=secondaryPreferred&serverSelectionTimeoutMS=300",
    }  # fmt: skip
    with running(*(f"--{option}={value}" for option, value in options.items()), log=tmp_path / "log") as server:
        record_id = server.post("/add-job?ack=stored", b'{"key":"1"}')["id"]
        assert receipt(server, record_id) == "stored"
        logs.database.client.admin.command({"replSetStepDown": 30, "force": True})
        # The one member there is is a secondary now.
        eventually(lambda: receipt(server, record_id) == "", "there is no primary")
        assert [record["_id"] for record in server.get("/logs")] == [record_id]


def receipt(server: Process, record_id: str) -> str:
    with contextlib.suppress(urllib.error.HTTPError):
        return str(server.get(f"/logs/{record_id}")["state"])
    return ""
