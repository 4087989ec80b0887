"""Load from the other cores, and how it went: wrk where it is installed, else the client of these benchmarks."""

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .. import machine, samples
from ..processes import ROOT

#: Records of a request that has many.
BATCH = 1000
#: So many different records take turns, of as many lengths as there are digits in their numbers.
_DIFFERENT = 32
_SCRIPT = Path(__file__).with_name("post.lua")
_PACKAGE = __package__.rpartition(".")[0]


@dataclasses.dataclass(frozen=True)
class Went:
    """Answers, how many a second, and the milliseconds that half and 99 of 100 of them took at most."""

    answered: int
    rate: float
    p50: float
    p99: float


def _job(number: int) -> bytes:
    job = samples.JOB | {"order": 10 ** (number % 7) + number, "ms": number}
    return json.dumps(job, separators=(",", ":")).encode()


#: The bodies of requests: records of about 100 bytes, one each, and BATCH.
ONE = [_job(number) for number in range(_DIFFERENT)]
MANY = [b"[%b]" % b",".join((ONE * BATCH)[:BATCH])]


def post(url: str, bodies: Sequence[bytes], connections: int, seconds: float) -> Went:
    """Post ``bodies`` to ``url`` in turns, for so long. Raises RuntimeError when one request is not answered 202."""
    with_wrk = shutil.which("wrk") is not None
    went = (_wrk if with_wrk else _client)(url, bodies, connections, max(1, round(seconds)))
    # wrk counts an answer that came late as an error, too; it came.
    if not went["answered"] or went["failed"] > (connections if with_wrk else 0):
        raise RuntimeError(f"not every request was answered 202: {went}")
    return Went(int(went["answered"]), went["answered"] / went["seconds"], went.get("p50", 0.0), went["p99"])


def post_count(url: str, body: bytes, count: int) -> int:
    """Post ``body`` so many times, one at a time; how many. Raises RuntimeError when one is not answered 202."""
    command = [sys.executable, "-m", f"{_PACKAGE}.client", url, "1", str(count), "0"]
    went = _run(command, body)
    if went["failed"] or went["answered"] != count:
        raise RuntimeError(f"not every request was answered 202: {went}")
    return count


def _wrk(url: str, bodies: Sequence[bytes], connections: int, seconds: int) -> dict[str, float]:
    with tempfile.NamedTemporaryFile(prefix="logsrv-bench-") as file:
        # Arguments are shorter (execve(2)).
        file.write(b"\n".join(bodies))
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(_SCRIPT), url]
        return _run([*command, "--", file.name], b"")


def _client(url: str, bodies: Sequence[bytes], connections: int, seconds: int) -> dict[str, float]:
    command = [sys.executable, "-m", f"{_PACKAGE}.client", url, str(connections), "0", str(seconds)]
    return _run(command, bodies[0])


def _run(command: list[str], body: bytes) -> dict[str, float]:
    with machine.on(machine.REST):
        done = subprocess.run(command, cwd=ROOT, input=body, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-1000:]!r} {done.stderr[-1000:]!r}")
    went: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return went
