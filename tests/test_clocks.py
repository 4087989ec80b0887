"""Clocks that jump: by injection, and a real server whose clock is set while it runs."""

import datetime
import json
import logging
import os
import urllib.error
import urllib.request

import pytest

from tornado_logsrv import auth, rules
from tornado_logsrv.clocks import Cautious
from tornado_logsrv.records import Ids
from tornado_logsrv.retention import DAY_MS
from tornado_logsrv.sweeper import Sweeper

from .process import PATIENCE, eventually, running

HOUR_MS = 3_600_000


class Clocks:
    """This machine's, MongoDB's, and the seconds that have passed."""

    def __init__(self, now_ms):
        self.own = self.other = now_ms
        self.passed = 1000.0
        self.cautious = Cautious(lambda: self.own, self.ask, lambda: self.passed)

    async def ask(self):
        return self.other


@pytest.mark.gen_test
async def test_the_earliest_clock_counts_and_a_difference_is_told_once(caplog):
    caplog.set_level(logging.INFO)
    clocks = Clocks(50 * DAY_MS)
    assert await clocks.cautious.now_ms() == 50 * DAY_MS
    clocks.own += 365 * DAY_MS
    assert await clocks.cautious.now_ms() == 50 * DAY_MS
    clocks.other = clocks.own
    clocks.passed += 3600
    assert await clocks.cautious.now_ms() == 50 * DAY_MS + HOUR_MS
    clocks.own = clocks.other = 40 * DAY_MS
    assert await clocks.cautious.now_ms() == 40 * DAY_MS
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    clocks.own = clocks.other = 50 * DAY_MS + HOUR_MS
    assert await clocks.cautious.now_ms() == 50 * DAY_MS + HOUR_MS
    assert caplog.messages[1:] == ["the clocks agree again"]


@pytest.mark.gen_test
async def test_a_jump_ahead_deletes_nothing_that_is_young(fetch, app, collection):
    await fetch("/add-job", b'{"level":"debug"}')
    await app.writer.flush()
    clock = Cautious(app.now_ms, app.store.now_ms)
    clock._now_ms = lambda: app.now_ms() + 365 * DAY_MS
    sweeper = Sweeper(app.store, 0, rules.parse("level=debug:3"), now_ms=clock.now_ms, busy=lambda: False)
    await sweeper.sweep()
    assert collection.count_documents({}) == 1


@pytest.mark.parametrize("second", [0, 1, 1 << 31, 1 << 32, 1 << 40])
def test_ids_ascend_wherever_the_clock_jumps(second):
    now = [1_700_000_000]
    ids = Ids(lambda: now[0])
    taken = [ids.next()]
    now[0] = second
    taken += [ids.next(), *ids.take(3)]
    now[0] = 1_600_000_000
    taken += [ids.next(), *ids.take(3)]
    assert taken == sorted({*taken})
    assert {len(each) for each in taken} == {12}


#: Python's clock on the wall, as a file sets it. Not faketime: threads of the driver die of how that fakes their sleep.
SET_CLOCK = """
import os, pathlib, time
path, clock = pathlib.Path(os.environ["CLOCK"]), time.time_ns
time.time_ns = lambda: clock() + int(path.read_text()) * 86_400_000_000_000
time.time = lambda: time.time_ns() / 1e9
"""


@pytest.fixture
def faked(tmp_path):
    """The environment of a process whose clock is set by days; what has passed since its start cannot be."""
    (tmp_path / "sitecustomize.py").write_text(SET_CLOCK)
    path = tmp_path / "clock"

    def set_clock(days):
        path.with_suffix(".new").write_text(str(days))
        path.with_suffix(".new").rename(path)

    set_clock(0)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "CLOCK": str(path)}, set_clock


def test_sign_ins_and_the_time_to_wait_outlive_a_clock_that_jumps(faked, servers, database, prefix, tmp_path):
    environ, set_clock = faked
    secret = auth.new_secret()
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        f'[[token]]\nname = "a"\nsha256 = "{auth.digest_of(secret)}"\nscopes = ["read", "write"]\n'
        "requests_per_second = 0.01\n"
    )
    options = {
        "port": 0, "data_dir": tmp_path / "data", "mongo_url": servers.mongo_url, "mongo_db": database.name,
        "redis_url": servers.redis_url, "redis_prefix": prefix, "instance": "test", "tokens_file": tokens,
    }  # fmt: skip
    with running(*(f"--{n}={v}" for n, v in options.items()), log=tmp_path / "log", environ=environ) as process:
        url = process.url

        def sign_in():
            with ask(f"{url}/sign-in", json.dumps({"token": secret}).encode()) as answer:
                return answer.headers["Set-Cookie"].partition(";")[0]

        def name(cookie):
            with ask(f"{url}/sign-in", Cookie=cookie) as answer:
                return json.loads(answer.read())["name"]

        def refusal():
            try:
                ask(f"{url}/add-job", b"1", Authorization=f"Bearer {secret}").close()
            except urllib.error.HTTPError as refused:
                refused.close()
                return refused.code, int(refused.headers["Retry-After"])

        first = sign_in()
        assert name(first) == "a"
        refusals = [eventually(refusal, "the rate is spent")]
        set_clock(400)
        # By the clock it is old; a new one is as good as ever.
        assert name(first) is None
        ahead = sign_in()
        assert name(ahead) == "a"
        refusals.append(eventually(refusal, "the rate is spent"))
        set_clock(-400)
        assert name(ahead) is None
        assert name(sign_in()) == "a"
        refusals.append(eventually(refusal, "the rate is spent"))
        set_clock(0)
        assert (name(first), name(ahead)) == ("a", None)
        assert all(code == 429 and 1 <= seconds <= 100 for code, seconds in refusals)
        assert process.stop() == 0


def ask(url, body=None, **headers):
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json", **headers})
    return urllib.request.urlopen(request, timeout=PATIENCE)


def test_a_server_whose_clock_jumps_goes_on(faked, servers, database, prefix, collection, tmp_path):
    environ, set_clock = faked
    options = {
        "port": 0, "data_dir": tmp_path / "data", "mongo_url": servers.mongo_url, "mongo_db": database.name,
        "redis_url": servers.redis_url, "redis_prefix": prefix, "instance": "test", "flush_interval_ms": 50,
    }  # fmt: skip
    with running(*(f"--{n}={v}" for n, v in options.items()), log=tmp_path / "log", environ=environ) as process:
        ids = []
        for days in (0, 400, -400, 0):
            set_clock(days)
            before = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days)
            ids += [process.post("/add-job", json.dumps([days, n]).encode())["id"] for n in range(5)]
            # The timer goes by the time that passes, and so does the lease without which there is no ack=journal.
            eventually(lambda: process.get("/queue-size")["queueSize"] == 0, "it is stored")
            assert collection.count_documents({}) == len(ids)
            found = collection.find_one({"data": [days, 0]})
            assert abs(found["timestamp"] - before) < datetime.timedelta(hours=1)
        assert ids == sorted({*ids})
        with urllib.request.urlopen(process.url + "/metrics") as answer:
            sums = [float(line.split()[-1]) for line in answer.read().decode().splitlines() if "_seconds_sum" in line]
        assert sums
        assert min(sums) >= 0
        assert max(sums) < 100 * 3600
        assert process.stop() == 0
        assert "lease" not in process.log
