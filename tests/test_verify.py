"""``python -m tornado_logsrv.verify``: that it finds the promise kept, and that it would find it broken."""

import asyncio
import csv
import datetime
import functools
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tornado_logsrv.verify.__main__ import main, parse
from tornado_logsrv.verify.balance import COLUMNS, EXAMPLES, Found, Life, Row, Sent, State, balance, table
from tornado_logsrv.verify.faults import Faults
from tornado_logsrv.verify.found import Places, ranges
from tornado_logsrv.verify.progress import Progress
from tornado_logsrv.verify.requests import STEP, data_of, requests, token_of
from tornado_logsrv.verify.samples import Sample, courses, slope
from tornado_logsrv.verify.samples import table as courses_table

from .process import PATIENCE, eventually

pytestmark = pytest.mark.long

ID, OTHER = b"1" * 12, b"2" * 12


def acknowledged(level="journal", *, first=7, count=1, **more):
    return Sent(first, count, state=State.ACKNOWLEDGED, detail=level, lives=(Life("one"),), **more)


def refused(surely=True):
    return Sent(7, 1, state=State.REFUSED, detail="refused: 503 queue-full", surely=surely)


def killed():
    sent = acknowledged("memory")
    sent.lives[0].killed = True
    return sent


def counts(result):
    """All of the sum that is not 0."""
    return {column: getattr(result.total, column) for column in COLUMNS if getattr(result.total, column)}


class TestBalance:
    @pytest.mark.parametrize(
        ("sent", "stored", "quarantined"),
        [
            (acknowledged(), [Found(7, ID)], []),
            (acknowledged(id=ID), [Found(7, ID)], []),
            (acknowledged("stored", refusable=frozenset({0})), [], [Found(7, ID)]),
            (acknowledged(count=2), [Found(7, ID), Found(8, OTHER)], []),
            (acknowledged("memory"), [Found(7, ID)], []),
            (killed(), [], []),
            (killed(), [Found(7, ID)], []),
            (Sent(7, 1, state=State.UNKNOWN), [], []),
            (Sent(7, 1, state=State.UNKNOWN), [Found(7, ID)], []),
            (refused(), [], []),
            (refused(surely=False), [Found(7, ID)], []),
        ],
    )
    def test_a_promise_that_was_kept(self, sent, stored, quarantined):
        result = balance([sent], stored, quarantined)
        assert (result.faults, result.fault_count) == ([], 0)
        assert result.total.stored + result.total.quarantined + result.total.absent == sent.count

    @pytest.mark.parametrize(
        ("sent", "stored", "quarantined", "problem"),
        [
            (acknowledged(), [], [], "lost"),
            (acknowledged("stored"), [], [], "lost"),
            (acknowledged("memory"), [], [], "lost"),
            (acknowledged(refusable=frozenset({0})), [], [], "lost"),
            (acknowledged(), [Found(7, ID), Found(7, OTHER)], [], "duplicated"),
            (acknowledged(refusable=frozenset({0})), [], [Found(7, ID), Found(7, OTHER)], "duplicated"),
            (killed(), [Found(7, ID), Found(7, OTHER)], [], "duplicated"),
            (Sent(7, 1, state=State.UNKNOWN), [Found(7, ID), Found(7, OTHER)], [], "duplicated"),
            (refused(), [Found(7, ID)], [], "wrong"),
            (acknowledged(id=OTHER), [Found(7, ID)], [], "wrong"),
            (acknowledged(), [Found(7, ID, intact=False)], [], "wrong"),
            (acknowledged(), [], [Found(7, ID)], "wrong"),
            (acknowledged(refusable=frozenset({0})), [Found(7, ID)], [], "wrong"),
        ],
    )
    def test_a_promise_that_was_broken(self, sent, stored, quarantined, problem):
        result = balance([sent], stored, quarantined)
        assert counts(result)[problem] == 1
        assert result.fault_count == 1
        assert re.match(rf"token 7 \({sent.level}.* is {problem}: ", result.faults[0])

    def test_of_several_processes_that_acknowledged_one_that_was_not_killed_counts(self):
        sent = killed()
        sent.lives += (Life("two"),)
        assert (sent.level, sent.must_be_there) == ("memory", True)

    def test_what_nobody_sent_is_a_fault(self):
        result = balance([], [Found(-1, ID)], [])
        assert result.faults == ["token -1 is stored and was never sent"]

    def test_the_first_faults_are_told_and_all_are_counted(self):
        result = balance([acknowledged(count=EXAMPLES + 5)], [], [])
        assert (len(result.faults), result.fault_count, result.total.lost) == (EXAMPLES, EXAMPLES + 5, EXAMPLES + 5)

    def test_its_table_is_aligned_and_sums_up(self):
        result = balance([acknowledged(count=2), refused(), killed()], [Found(7, ID)], [Found(8, OTHER)])
        head, *rows = (line.rstrip() for line in table(result.rows, result.total).splitlines())
        assert head.split() == ["acknowledged", *COLUMNS]
        assert len({len(line) for line in (head, *rows)}) == 1
        assert [re.split(r"  +", row)[0] for row in rows] == [
            "journal", "memory, then killed", "refused: 503 queue-full", "all",
        ]  # fmt: skip
        assert result.total == Row(records=4, stored=1, quarantined=1, absent=2, duplicated=0, wrong=1)


class TestRequests:
    def test_the_same_seed_makes_the_same_requests(self):
        first, second = (
            [(r.path, r.headers, r.sent.first, r.sent.refusable) for r in itertools.islice(self.some(), 50)]
            for _ in range(2)
        )
        assert first == second

    def some(self):
        return requests(random.Random(5), itertools.count(0, STEP), "run")

    def test_there_is_some_of_everything_and_no_token_twice(self):
        made = list(itertools.islice(self.some(), 2000))
        assert {r.path.partition("?ack=")[2] for r in made} == {"", "memory", "journal", "stored"}
        assert any(r.bad_lines for r in made)
        assert any(r.key for r in made)
        assert any(not r.readable for r in made)
        assert any("Content-Encoding" in r.headers for r in made)
        assert all(r.sent.count <= STEP for r in made)

    def test_what_is_stored_is_looked_for_at_all_times(self):
        times = [datetime.datetime.fromtimestamp(1_700_000_000 + 10 * n, datetime.UTC) for n in range(4)]
        ended = times[2] + datetime.timedelta(seconds=5)
        spans = [{"$gte": low, "$lt": high} for low, high in itertools.pairwise(times)]
        assert [*ranges(times[0], ended)] == [{"$lt": times[0]}, *spans, {"$gte": times[3]}]

    def test_a_token_is_found_in_what_is_no_json(self):
        assert token_of(json.dumps(data_of(123, False)).encode()[:-1]) == 123
        assert token_of(b"{") == -1


class TestProgress:
    class Stream:
        def __init__(self, terminal):
            self.terminal, self.text = terminal, ""

        def isatty(self):
            return self.terminal

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    @pytest.mark.parametrize(
        ("terminal", "line"),
        [(True, f"[{'#' * 15}{'.' * 15}]  50%  0:30 of 1:00  kills 3"), (False, " 50%  0:30 of 1:00  kills 3")],
    )
    def test_it_is_a_bar_on_a_terminal_alone(self, terminal, line):
        stream = self.Stream(terminal)
        progress = Progress(60, lambda: "kills 3", stream)
        assert progress.line(30) == line
        progress.show()
        assert stream.text.startswith("\r") == terminal
        assert stream.text.endswith("\n") == (not terminal)


class TestSamples:
    def test_a_slope_is_that_of_least_squares(self):
        assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
        assert slope([(0, 1), (1, 5), (2, 3)]) == pytest.approx(1)
        assert slope([(1, 4), (1, 6)]) == 0

    def life(self, name, seconds, resident):
        return [Sample(name, at, int(resident(at) * 2**20), 20, at, at / 1000) for at in range(0, seconds + 1, 5)]

    def test_a_leak_is_seen_and_what_warms_up_is_not(self):
        warm = self.life("warm", 600, lambda at: 50 + min(at, 300) / 10)
        leak = self.life("leak", 600, lambda at: 50 + at / 60)
        short = self.life("short", 50, lambda at: 50)
        found = {course.life: course for course in courses([*warm, *leak, *short])}
        assert list(found) == ["warm", "leak"]
        assert found["warm"].slope == pytest.approx(0, abs=0.01)
        assert found["leak"].slope == pytest.approx(60, rel=0.01)
        assert (found["leak"].minutes, found["leak"].first, found["leak"].last, found["leak"].most) == (10, 50, 60, 60)
        assert (found["leak"].files, found["leak"].lag_ms) == (20, 600)

    def test_its_table_is_aligned(self):
        head, row = courses_table(courses(self.life("one#1", 120, lambda at: 50))).splitlines()
        assert len(head) == len(row)
        assert row.split() == ["one#1", "2.0", "50.0", "50.0", "50.0", "0.0", "20", "0.0", "120.0"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tornado_logsrv.verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=5 * PATIENCE)


def rows(output: str) -> dict[str, dict[str, int]]:
    """The table, by its rows' names."""
    found = re.findall(rf"^(\S.*?)((?: +\d+){{{len(COLUMNS)}}})$", output, re.MULTILINE)
    return {name: dict(zip(COLUMNS, map(int, numbers.split()), strict=True)) for name, numbers in found}


def test_the_promise_is_kept_whatever_is_killed():
    done = run("--seconds=15", "--seed=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("seed 1\n")
    assert "the promise was kept" in done.stdout
    found = rows(done.stdout)
    for level in ("journal", "stored", "memory, then killed", "refused: 400 unreadable", "all"):
        assert found[level]["records"] > 0
    for level in ("journal", "stored"):
        assert found[level]["stored"] + found[level]["quarantined"] == found[level]["records"]
    assert [found["all"][column] for column in ("lost", "duplicated", "wrong")] == [0, 0, 0]
    assert int(re.search(r"^ +(\d+)  log server killed$", done.stdout, re.MULTILINE)[1]) > 0
    assert re.search(r"^ \d\d%  0:1\d of 0:15  acknowledged \d+  kills \d+$", done.stderr, re.MULTILINE)
    assert "\r" not in done.stderr


def test_it_says_so_when_a_record_is_lost(monkeypatch, capsys):
    everything = Places.stored
    monkeypatch.setattr(Places, "stored", lambda places: itertools.islice(everything(places), 1, None))
    # Only ack=memory is left to be absent, and no server is killed in so short a time.
    assert main(["--seconds=0.2", "--seed=2", "--instances=1"]) == 1
    output = capsys.readouterr().out
    assert rows(output)["all"]["lost"] == 1
    assert "the promise was broken, 1 times:\n  token " in output
    assert output.rstrip().endswith("is lost: nowhere")


def test_a_soak_spares_one_server_and_shows_what_it_takes(tmp_path):
    samples = tmp_path / "samples.csv"
    done = run("--seconds=12", "--seed=3", "--rate=300", "--fault_every=2", f"--samples={samples}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(map(int, re.findall(r"^ +(\d+)  ", done.stdout, re.MULTILINE))) >= 3
    with samples.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    spared = [row for row in rows if row["life"].startswith("verify-1#")]
    assert len(spared) >= 2
    assert {row["life"] for row in spared} == {"verify-1#1"}
    assert all(int(row["resident"]) > 2**24 and int(row["files"]) > 3 for row in rows)


def test_a_fault_comes_each_so_often_and_each_has_its_turn(tmp_path):
    servers = [object(), object(), object()]
    faults = Faults(random.Random(1), servers, Nothing(), tmp_path / "log", every=0.01)
    done = []

    async def trial():
        for name in ("_kill", "_stop", "_kill_at_start", "_kill_at_stop", "_leave"):
            setattr(faults, name, functools.partial(note, name))
        running = asyncio.ensure_future(faults.run())
        await asyncio.sleep(0)
        while len(done) < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        faults.over.set()
        await running

    async def note(name):
        done.append(name)
        assert faults._one() is not servers[0]

    asyncio.run(trial())
    assert sorted(done[:5]) == sorted(done[5:10]) == sorted({*done})


class Nothing:
    """No MongoDB and no Redis of the trial's own."""

    mongo = redis = None


def test_servers_that_are_given_are_used_and_left_as_they_were(servers, mongo, redis_client):
    before = mongo.list_database_names(), sorted(redis_client.keys())
    given = [f"--mongo_url={servers.mongo_url}", f"--redis_url={servers.redis_url}"]
    assert main(["--seconds=2", "--seed=3", "--rate=200", *given]) == 0
    assert (mongo.list_database_names(), sorted(redis_client.keys())) == before


def test_a_server_that_does_not_start_is_told(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["--seconds=1"]) == 2
    assert "tornado_logsrv[embedded]" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_and_no_file_behind(number, tmp_path):
    command = [sys.executable, "-m", "tornado_logsrv.verify", "--seed=4"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}, text=True
    )
    eventually(lambda: list(tmp_path.glob("*/verify-1")), "its servers start")
    time.sleep(1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (130, "verify: interrupted\n")
    assert list(tmp_path.iterdir()) == []
    eventually(lambda: not processes_of(tmp_path), "all its processes have ended")


def processes_of(directory: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if str(directory).encode() in path.read_bytes() else []
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "wrong", ["--seconds=0", "--connections=0", "--instances=-1", "--seed=x", "--fault_every=-1", "--colour=red"]
)
def test_a_wrong_option_is_told(wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse([wrong])
    assert wrong.partition("=")[0] in capsys.readouterr().err


def test_help_explains_the_table_and_the_status(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    text = capsys.readouterr().out
    assert [word for word in ("exit status", "absent", "duplicated", "--seed", "--keep") if word not in text] == []
