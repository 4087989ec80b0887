"""The balancer of docker-compose.yml's profile "scale": its own configuration, run by HAProxy before real servers."""

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tornado_logsrv import config
from tornado_logsrv.watch import HEARTBEAT_SECONDS

from .needs import needed
from .process import PATIENCE, Process, eventually, running
from .redises import free_port

COMPOSE = yaml.safe_load((Path(__file__).parent.parent / "docker-compose.yml").read_text(encoding="utf-8"))
BALANCER = COMPOSE["configs"]["haproxy.cfg"]["content"]
NAMES = [name for name in COMPOSE["services"] if name.startswith("logsrv-")]
#: Programs that Debian installs for root are not on everybody's path.
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


class Balancer:
    """HAProxy with the configuration of the compose file, but for addresses and the port."""

    def __init__(self, servers: dict[str, Process], directory: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        text, bound = re.subn(r"(?m)bind :3001$", f"bind {self.address}", BALANCER)
        assert bound == 1
        for name, process in servers.items():
            text, named = re.subn(rf"\b{name}:3000\b", process.url.removeprefix("http://"), text)
            assert named == 1
        path = directory / "haproxy.cfg"
        path.write_text(text, encoding="ascii")
        program = needed("haproxy", shutil.which("haproxy", path=_PATH))
        checked = subprocess.run([program, "-c", "-f", path], capture_output=True, text=True)
        assert (checked.returncode, re.findall(r"WARNING|ALERT", checked.stderr)) == (0, []), checked.stderr
        self._log = directory / "haproxy.log"
        with self._log.open("wb") as log:
            self._popen = subprocess.Popen([program, "-db", "-f", path], stdout=log, stderr=log)
        eventually(lambda: self.get("/healthz"), "the balancer answers")

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def get(self, path: str) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException), self.connection() as connection:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        return False

    @contextlib.contextmanager
    def connection(self, source: str = "127.0.0.1") -> Iterator[http.client.HTTPConnection]:
        made = http.client.HTTPConnection(self.address, timeout=PATIENCE, source_address=(source, 0))
        with contextlib.closing(made):
            yield made

    def close(self) -> None:
        self._popen.kill()
        self._popen.wait()


@pytest.fixture
def servers(servers, database, prefix, tmp_path):
    """A server for each of the compose file, with its options, on the servers of the tests."""
    ours = {
        "ADDRESS": "127.0.0.1", "PORT": "0", "MONGO_URL": servers.mongo_url, "MONGO_DB": database.name,
        "REDIS_URL": servers.redis_url, "REDIS_PREFIX": prefix, "TRUSTED_PROXIES": "127.0.0.1",
        "FLUSH_INTERVAL_MS": "50", "REQUEST_LOG": "yes",
    }  # fmt: skip
    with contextlib.ExitStack() as undo:
        started = {}
        for name in NAMES:
            environ = COMPOSE["services"][name]["environment"] | {f"LOGSRV_{key}": value for key, value in ours.items()}
            environ["LOGSRV_DATA_DIR"] = str(tmp_path / name)
            started[name] = undo.enter_context(running(log=tmp_path / f"{name}.log", environ=environ))
        yield started


@pytest.fixture
def balancer(servers, tmp_path):
    with contextlib.closing(Balancer(servers, tmp_path)) as started:
        yield started


class Clients:
    """Post records, each with a key, and post again what was not answered; ``failures`` are answers that they saw."""

    def __init__(self, balancer: Balancer, count: int = 6) -> None:
        self._balancer = balancer
        self._going = True
        self.failures: list[str] = []
        self._pool = concurrent.futures.ThreadPoolExecutor(count)
        self._parts = [self._pool.submit(self._post_all) for _ in range(count)]

    def _post_all(self) -> list[str]:
        ids: list[str] = []
        while self._going:
            with self._balancer.connection() as connection, contextlib.suppress(OSError, http.client.HTTPException):
                while self._going:
                    ids.append(self._post(connection, uuid.uuid4().hex))
        return ids

    def _post(self, connection: http.client.HTTPConnection, key: str) -> str:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        while True:
            try:
                connection.request("POST", "/add-job", json.dumps({"key": key}).encode(), headers)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            if answer.status == 202:
                return str(json.loads(body)["id"])
            self.failures.append(f"{answer.status} {body!r}")

    def stop(self) -> list[str]:
        self._going = False
        ids = [record_id for part in self._parts for record_id in part.result(PATIENCE)]
        self._pool.shutdown()
        return ids


def received(process: Process) -> int:
    return int(process.get("/ledger")["total"]["received"])


def stored(collection) -> list[str]:
    return sorted(str(document["_id"]) for document in collection.find({}, {"_id": 1}))


def test_requests_are_spread_over_the_servers_and_each_gets_its_answer(balancer, servers, collection):
    clients = Clients(balancer)
    eventually(lambda: min(map(received, servers.values())) >= 50, "each server has its share")
    ids = clients.stop()
    assert clients.failures == []
    assert sum(map(received, servers.values())) == len(ids)
    eventually(lambda: stored(collection) == sorted(ids), "all are stored, once")


def test_a_server_that_is_stopped_gets_no_more_and_no_request_fails(balancer, servers, collection):
    clients = Clients(balancer)
    first, *others = servers.values()
    eventually(lambda: received(first) >= 50, "it has its share")
    assert first.stop() == 0
    before = [received(process) for process in others]
    eventually(lambda: all(received(p) >= n + 50 for p, n in zip(others, before, strict=True)), "the others go on")
    ids = clients.stop()
    assert clients.failures == []
    eventually(lambda: set(ids) == set(stored(collection)), "all are stored")
    eventually(lambda: "Server servers/logsrv-1 is DOWN" in balancer.log, "it is seen to be gone")


def test_a_kill_costs_no_acknowledged_record_and_doubles_none(balancer, servers, collection, tmp_path):
    clients = Clients(balancer)
    first, *others = servers.values()
    eventually(lambda: received(first) >= 50, "it has its share")
    first.stop(signal.SIGKILL)
    before = [received(process) for process in others]
    eventually(lambda: all(received(p) >= n + 50 for p, n in zip(others, before, strict=True)), "the others go on")
    ids = clients.stop()
    # Another one takes its stream over when its lease runs out, which is longer than a test should take.
    with running(log=tmp_path / "again.log", environ=first.environ):
        eventually(lambda: set(ids) <= set(stored(collection)), "all that was acknowledged is stored")
    keys = [document["data"]["key"] for document in collection.find({}, {"data": 1})]
    assert len(keys) == len(set(keys)) >= len(ids)


def test_a_server_that_does_not_answer_is_left_alone_until_it_does(balancer, servers):
    first, *_ = servers.values()
    first.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: "Server servers/logsrv-1 is DOWN" in balancer.log, "it is seen to be gone")
        assert all(balancer.get("/healthz") for _ in range(10))
    finally:
        first.send_signal(signal.SIGCONT)
    eventually(lambda: "Server servers/logsrv-1 is UP" in balancer.log, "it is back")


def test_a_tail_passes_event_by_event(balancer, servers):
    with balancer.connection() as tail:
        tail.request("GET", "/logs/tail")
        events = tail.getresponse()
        assert events.status == 200
        # To each of them: the balancer has chosen the one that shows what it takes.
        for process in servers.values():
            process.post("/add-job", b'{"seen":1}')
        assert any(b'"seen":1' in line for line in itertools.islice(iter(events.readline, b""), 20))


def test_a_silent_tail_and_a_slow_answer_are_waited_for():
    bounds = {name: config.duration(value) for name, value in re.findall(r"timeout (client|server) +(\w+)", BALANCER)}
    options = config.load([], COMPOSE["services"][NAMES[0]]["environment"])
    longest = max(2 * HEARTBEAT_SECONDS, options.stored_timeout, options.query_timeout)
    assert {name: value > longest for name, value in bounds.items()} == {"client": True, "server": True}


def test_the_servers_know_the_client_by_its_own_address_whatever_it_says(balancer, servers):
    with balancer.connection("127.0.0.9") as connection:
        connection.request("GET", "/queue-size?who", headers={"X-Forwarded-For": "6.6.6.6"})
        assert connection.getresponse().status == 200
    eventually(lambda: any("127.0.0.9 GET /queue-size 200" in p.log for p in servers.values()), "it is in a log")
    assert not any("6.6.6.6" in process.log for process in servers.values())
