"""Redis as it is run where one server is not enough: with replicas and Sentinels, and as a cluster; real processes."""

import contextlib
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import redis

from .needs import needed
from .process import eventually

SERVICE = "logsrv"
#: How much higher than a node's port that of its bus is (redis.conf, cluster-port).
_BUS = 10_000


class Node:
    """One process of Redis on a loopback port, with its data and log in a directory of its own."""

    def __init__(self, directory: Path, *options: str, port: int = 0, program: str = "redis-server") -> None:
        directory.mkdir()
        self.port = port or free_port()
        self.directory = directory
        self._command = [_program(program), *options, *_flags(port=self.port, dir=directory, bind="127.0.0.1")]
        self.client = redis.Redis("127.0.0.1", self.port, socket_timeout=5)
        self.start()

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        try:
            eventually(self.answers, f"{self._command[0]} answers")
        except AssertionError:
            self.close()
            raise

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """As by kill -9."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.send(signal.SIGCONT)
        self.kill()
        self.client.close()


def _program(name: str) -> str:
    return needed(name, shutil.which(name))


def _flags(**values: object) -> Iterator[str]:
    for name, value in values.items():
        yield from (f"--{name.replace('_', '-')}", str(value))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_ports() -> int:
    """One for a node of a cluster, whose bus has the port 10,000 higher: neither is one that a client may be given."""
    while True:
        port = random.randrange(10_000, 22_000)
        with socket.socket() as clients, socket.socket() as bus, contextlib.suppress(OSError):
            clients.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + _BUS))
            return port


#: No delay: a primary waits 5 s for further replicas before it sends what it has.
_DURABLE = tuple(_flags(appendonly="yes", appendfsync="everysec", save="", repl_diskless_sync_delay=0))
_CLUSTER = (*_DURABLE, "--cluster-enabled", "yes")


class Watched:
    """A primary, replicas and three Sentinels, which notice within a second that the primary is gone."""

    def __init__(self, directory: Path, replicas: int = 2) -> None:
        with contextlib.ExitStack() as undo:
            self.nodes = [undo.enter_context(contextlib.closing(Node(directory / "0", *_DURABLE)))]
            follow = ("--replicaof", f"127.0.0.1 {self.nodes[0].port}")
            for number in range(1, replicas + 1):
                node = Node(directory / str(number), *_DURABLE, *follow)
                self.nodes.append(undo.enter_context(contextlib.closing(node)))
            eventually(lambda: self._followers() == replicas, "the replicas follow")
            self.sentinels = [
                undo.enter_context(contextlib.closing(self._sentinel(directory, number))) for number in range(3)
            ]
            eventually(self._know_one_another, "the Sentinels know one another and the replicas")
            self._undo = undo.pop_all()

    def _sentinel(self, directory: Path, number: int) -> Node:
        config = directory / f"sentinel-{number}.conf"
        config.write_text(
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.nodes[0].port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 800\n"
            f"sentinel failover-timeout {SERVICE} 5000\n",
            encoding="ascii",
        )
        return Node(directory / f"sentinel-{number}", str(config), program="redis-sentinel")

    def _followers(self) -> int:
        found = self.nodes[0].client.info("replication")
        return sum(found[f"slave{i}"]["state"] == "online" for i in range(found["connected_slaves"]))

    def _know_one_another(self) -> bool:
        states = [sentinel.client.sentinel_master(SERVICE) for sentinel in self.sentinels]
        return all(
            state["num-other-sentinels"] == 2 and state["num-slaves"] == len(self.nodes) - 1 for state in states
        )  # fmt: skip

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    @property
    def primary(self) -> Node:
        """The one that the Sentinels name now."""
        state = self.sentinels[0].client.sentinel_master(SERVICE)
        return next(node for node in self.nodes if node.port == state["port"])

    def fail_over(self) -> None:
        """Kill the primary with -9, and wait until another is one."""
        old = self.primary
        old.kill()
        eventually(lambda: self.primary is not old and _is_primary(self.primary), "another is primary")

    def close(self) -> None:
        self._undo.close()


def _is_primary(node: Node) -> bool:
    with contextlib.suppress(redis.RedisError):
        return node.client.info("replication")["role"] == "master"
    return False


class Cluster:
    """Three primaries, each with a third of the slots, and no replicas."""

    def __init__(self, directory: Path) -> None:
        with contextlib.ExitStack() as undo:
            self.nodes = [
                undo.enter_context(contextlib.closing(Node(directory / str(number), *_CLUSTER, port=free_ports())))
                for number in range(3)
            ]
            for number, node in enumerate(self.nodes):
                slots = (number * 5462, min(16_383, number * 5462 + 5461))
                node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
                self.nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
            eventually(self._is_up, "the cluster is up")
            self._undo = undo.pop_all()

    def _is_up(self) -> bool:
        infos = [node.client.execute_command("CLUSTER", "INFO") for node in self.nodes]
        return all(b"cluster_state:ok" in info for info in infos)

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def close(self) -> None:
        self._undo.close()
