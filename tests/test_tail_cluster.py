"""Two servers as people run them, on one MongoDB that has change streams, and a watcher that outlives them."""

import contextlib
import signal

import pytest

from tests.conftest import Servers
from tests.process import eventually, running
from tests.tails import Tail


@pytest.fixture
def cluster(tmp_path):
    """A replica set of one and a Valkey of this test alone."""
    started = Servers(tmp_path, oplog=True)
    started.start(started.mongo, started.redis)
    yield started
    started.close()


@pytest.fixture
def server(cluster, tmp_path):
    """``server(name)``: that server, in the block; started again, it goes on on its data."""

    def server(name):
        return running(
            f"--mongo_url={cluster.mongo_url}",
            f"--redis_url={cluster.redis_url}",
            f"--data_dir={tmp_path / name}",
            f"--instance={name}",
            "--port=0",
            "--flush_interval_ms=200",
            log=tmp_path / f"{name}.log",
        )

    return server


def post(server, count=1):
    return [server.post("/add-job?ack=stored", b'{"n":%d}' % n)["id"] for n in range(count)]


@contextlib.contextmanager
def watching(server, last_id=""):
    tail = Tail(server.url, last_id=last_id)
    try:
        assert tail.head.status == 200
        yield tail
    finally:
        tail.close()


def test_a_watcher_sees_both_servers_over_a_kill_of_each_and_of_mongodb(server, cluster):
    with server("b") as b:
        with server("a") as a, watching(a) as first:
            # The first of the other's records that is seen shows that MongoDB tells of them.
            ids = post(a)
            eventually(lambda: ids[-1] in first.ids, "its own record is shown")
            eventually(lambda: set(post(b)) and len(first.ids) > 1, "the other's records are shown")
            cluster.kill(cluster.mongo)
            cluster.start(cluster.mongo)
            last = post(b, 3) + post(a)
            eventually(lambda: set(last) <= set(first.ids), "what is stored after MongoDB's fall is shown")
            assert len(first.ids) == len(set(first.ids))
            a.stop(signal.SIGKILL)
        meanwhile = post(b, 5)
        # Back at the one that was killed: each record once.
        with server("a") as a, watching(a, first.last_id) as second:
            new = post(b)
            eventually(lambda: new[0] in second.ids, "the stream goes on")
            assert second.ids == meanwhile + new
            assert second.of("missed") == []
            a.stop(signal.SIGKILL)
        meanwhile = post(b, 5)
        # And at the other, where nobody has watched: none is missing.
        with watching(b, second.last_id) as third:
            new = post(b)
            eventually(lambda: {*meanwhile, *new} <= set(third.ids), "the other server has what was missed")
            assert len(third.ids) == len(set(third.ids))
