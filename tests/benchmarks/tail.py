"""The live tail: how soon a record is shown, what watching costs, and whether it slows the writer."""

import dataclasses
import json
import re
import subprocess
import sys
import time
import urllib.request
from typing import Any

from . import load, machine, samples
from .processes import ROOT
from .rows import Row, alone, at_most, compared
from .scale import Scale
from .servers import Backing, LogServer, backing
from .watchers import Plan

#: Milliseconds in which a record is to be shown.
SHOWN = 250
_DEAF = 10


@dataclasses.dataclass(frozen=True)
class Case:
    """So many watchers at so many records a second."""

    id: str
    name: str
    plan: Plan


def _cases(seconds: int, many: int) -> tuple[Case, ...]:
    return (
        Case("tail-1", "1 watcher, 200 records/s", Plan(1, 200, seconds)),
        Case("tail-500", f"{many} watchers, 200 records/s", Plan(many, 200, seconds)),
        Case("tail-500-1000", f"{many} watchers, 1000 records/s", Plan(many, 1000, seconds)),
        Case("tail-500-queries", f"{many} watchers with {many} queries, 50 records/s", Plan(many, 50, seconds, True)),
    )


def measure(scale: Scale) -> list[Row]:
    """For each case the time from an answer to its event, and processor and memory; then the writer with watchers."""
    with backing() as servers:
        rows = [row for case in _cases(scale.seconds, scale.watchers) for row in _shown(servers, case)]
        return [*rows, _written(scale, servers)]


def _shown(servers: Backing, case: Case) -> list[Row]:
    with LogServer(servers, servers.new_name(), servers.mongo_url, max_watchers=2 * case.plan.watchers) as server:
        load.of_count(f"{server.url}/add-job", 100)
        rss, processor, began = server.rss(), server.processor_seconds(), time.perf_counter()
        found = _watch(server.url, case.plan)
        share = (server.processor_seconds() - processor) / (time.perf_counter() - began)
        memory = (server.rss() - rss) / case.plan.watchers
    times: list[float] = found["times"]
    note = (
        f"from the answer to a record to its event at {min(case.plan.timed, case.plan.watchers)} of the watchers; "
        f"ack=memory; the server alone on its core, watchers and sender on the other; sent {found['sent']}, "
        f"not seen {found['unseen']}, missed told {found['missed']} times"
    )
    bar = at_most(1.0)
    p99 = _percentile(times, 99)
    return [
        alone(f"{case.id}-p50", f"shown, p50: {case.name}", "ms", [_percentile(times, 50)], note),
        compared(f"{case.id}-p99", f"shown, p99, beside {SHOWN} ms: {case.name}", "ms", [p99], [SHOWN], bar, note),
        alone(f"{case.id}-cpu", f"processor while watched: {case.name}", "of a core", [share], note),
        alone(f"{case.id}-memory", f"memory a watcher, at the end: {case.name}", "bytes", [memory], note),
    ]


def _percentile(times: list[float], share: int) -> float:
    return times[min(len(times) - 1, len(times) * share // 100)] if times else float("inf")


def _watch(url: str, plan: Plan) -> dict[str, Any]:
    command = [sys.executable, "-m", f"{__package__}.watchers", url, json.dumps(dataclasses.asdict(plan))]
    with machine.on(machine.REST):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the watchers failed: {done.stderr[-1000:]!r}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _written(scale: Scale, servers: Backing) -> Row:
    """Records stored a second while many watch beside nobody watching."""
    watched = [_drain(scale, servers, watchers) for watchers in (scale.watchers, 0) * scale.long_rounds]
    note = (
        f"posted by the thousand until all is stored; {_DEAF} of the {scale.watchers} watchers do not read; all share "
        "the other core with MongoDB; no bar: what is shown is work, too"
    )
    name = f"stored, {scale.watchers} watchers beside none"
    return compared("tail-stored", name, "records/s", watched[::2], watched[1::2], None, note)


def _drain(scale: Scale, servers: Backing, watchers: int) -> float:
    count = max(1, scale.stored // 10 // samples.BATCH)
    most = 2 * scale.watchers
    with LogServer(servers, servers.new_name(), servers.mongo_url, ack="memory", max_watchers=most) as server:
        plan = Plan(watchers, 0, 3600, deaf=_DEAF if watchers else 0)
        command = [sys.executable, "-m", f"{__package__}.watchers", server.url, json.dumps(dataclasses.asdict(plan))]
        with machine.on(machine.REST):
            watching = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            while watchers and _watching(server) < watchers:
                time.sleep(0.05)
            began = time.perf_counter()
            load.of_count(f"{server.url}/add-jobs", count, body=samples.BATCH_BODY)
            return count * samples.BATCH / (server.drained() - began)
        finally:
            watching.kill()
            watching.wait()


def _watching(server: LogServer) -> int:
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        found = re.search(rb"^logsrv_tail_watchers ([0-9.]+)$", response.read(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))
