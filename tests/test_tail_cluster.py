"""Two servers as people run them, on one MongoDB that has change streams, and watchers that outlive them."""

import contextlib
import signal

import pytest

from tests.conftest import Servers
from tests.process import eventually, running
from tests.tails import Tail
from tornado_logsrv import auth


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

    def server(name, *more):
        return running(
            *more,
            f"--mongo_url={cluster.mongo_url}",
            f"--redis_url={cluster.redis_url}",
            f"--data_dir={tmp_path / name}",
            f"--instance={name}",
            "--port=0",
            "--flush_interval_ms=200",
            log=tmp_path / f"{name}.log",
        )

    return server


def post(server, count=1, **headers):
    return [server.post("/add-job?ack=stored", b'{"n":%d}' % n, **headers)["id"] for n in range(count)]


@contextlib.contextmanager
def watching(server, last_id="", **headers):
    tail = Tail(server.url, last_id=last_id, headers=headers)
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


#: By the names of their tokens.
TENANTS = {"all": "", "acme": "acme", "beta": "beta"}


@pytest.fixture
def bearers(tmp_path):
    """What each sends to be known; ``--tokens_file`` is ``tokens.toml``."""
    secrets = {name: auth.new_secret() for name in TENANTS}
    entries = [
        f'[[token]]\nname = "{name}"\nsha256 = "{auth.digest_of(secret)}"\nscopes = ["write", "read"]\n'
        + (f'tenant = "{TENANTS[name]}"\n' if TENANTS[name] else "")
        for name, secret in secrets.items()
    ]
    (tmp_path / "tokens.toml").write_text("".join(entries))
    return {name: {"Authorization": f"Bearer {secret}"} for name, secret in secrets.items()}


def test_a_tenant_sees_its_own_records_on_both_servers_and_nobody_elses(server, cluster, bearers, tmp_path):
    tokens = f"--tokens_file={tmp_path / 'tokens.toml'}"
    with server("b", tokens) as b:
        posted = {name: [] for name in TENANTS}

        def post_all(to, count=1):
            for name, bearer in bearers.items():
                posted[name] += post(to, count, **bearer)

        with server("a", tokens) as a, contextlib.ExitStack() as stack:
            first = {name: stack.enter_context(watching(a, **bearer)) for name, bearer in bearers.items()}
            post_all(a)
            eventually(
                lambda: post_all(b) or all(len(tail.ids) > 2 for tail in first.values()), "the others' are shown"
            )
            cluster.kill(cluster.mongo)
            cluster.start(cluster.mongo)
            post_all(b, 3)
            for name, tail in first.items():
                eventually(lambda name=name, tail=tail: {*posted[name]} == {*tail.ids}, f"all of {name}'s is shown")
                assert len(tail.ids) == len(posted[name])
            a.stop(signal.SIGKILL)
        seen, last_ids = {name: len(posted[name]) for name in TENANTS}, {name: first[name].last_id for name in TENANTS}
        post_all(b, 5)
        with server("a", tokens) as a, contextlib.ExitStack() as stack:
            # Back at the one that was killed: each record once.
            second = {
                name: stack.enter_context(watching(a, last_ids[name], **bearer)) for name, bearer in bearers.items()
            }
            post_all(b)
            for name, tail in second.items():
                new = posted[name][seen[name] :]
                eventually(lambda tail=tail, new=new: len(tail.ids) >= len(new), f"what {name} missed is shown")
                assert (tail.ids, tail.of("missed")) == (new, [])
            last_ids = {name: tail.last_id for name, tail in second.items()}
        seen = {name: len(posted[name]) for name in TENANTS}
        post_all(b, 3)
        with contextlib.ExitStack() as stack:
            # And at the other, where nobody has watched: none is missing, and none is another's.
            third = {
                name: stack.enter_context(watching(b, last_ids[name], **bearer)) for name, bearer in bearers.items()
            }
            for name, tail in third.items():
                new = posted[name][seen[name] :]
                eventually(lambda tail=tail, new=new: {*new} <= {*tail.ids}, f"the other server has what {name} missed")
                assert {*tail.ids} <= {*posted[name]}
                assert len(tail.ids) == len(set(tail.ids))
