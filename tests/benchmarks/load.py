"""Load from another process, on other cores than the server's: wrk where it is installed, else our own client."""

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import machine, samples
from .processes import ROOT

CONNECTIONS = 32
_SCRIPT = Path(__file__).with_name("post.lua")


@dataclasses.dataclass(frozen=True)
class Went:
    """How a load went: answers a second, the milliseconds that 99 of 100 took at most, answers in all."""

    rate: float
    p99_ms: float
    answered: int
    #: When the first request was sent, by ``time.perf_counter()``; 0 where the generator does not say.
    began: float = 0.0


def generator() -> str:
    """What makes the load that ``for_seconds`` measures with."""
    return "wrk" if shutil.which("wrk") else "the client of these benchmarks"


def for_seconds(url: str, seconds: int, connections: int = CONNECTIONS, body: bytes = samples.BODY) -> Went:
    """Post ``body`` to ``url`` again and again. Raises RuntimeError when a request is not answered 202."""
    if shutil.which("wrk"):
        return _judged(_wrk(url, seconds, connections, body))
    return _judged(_client(url, 0, seconds, connections, body))


def of_count(url: str, count: int, connections: int = CONNECTIONS, body: bytes = samples.BODY) -> Went:
    """Post ``body`` to ``url``, ``count`` times. Raises RuntimeError when a request is not answered 202."""
    return _judged(_client(url, count, 0, connections, body))


def of_requests(url: str, count: int, media_type: str, bodies: Sequence[bytes], connections: int = CONNECTIONS) -> Went:
    """Post ``bodies`` to ``url`` in turns, ``count`` requests in all. Raises RuntimeError when one is not a success."""
    sizes = [str(len(body)) for body in bodies]
    return _judged(_client(url, count, 0, connections, b"".join(bodies), [media_type, *sizes]))


def _judged(went: dict[str, float]) -> Went:
    if went["failed"] or not went["answered"]:
        raise RuntimeError(f"not every request was a success: {went}")
    return Went(went["answered"] / went["seconds"], went["p99"], int(went["answered"]), went.get("began", 0.0))


def _wrk(url: str, seconds: int, connections: int, body: bytes) -> dict[str, float]:
    with tempfile.NamedTemporaryFile(prefix="logsrv-bench-") as file:
        # An argument would be cut off: a thousand jobs are more than one may have (execve(2)).
        file.write(body)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(_SCRIPT), url]
        return _run([*command, "--", file.name], b"")


def _client(
    url: str, count: int, seconds: int, connections: int, body: bytes, more: Sequence[str] = ()
) -> dict[str, float]:
    command = [sys.executable, "-m", f"{__package__}.client", url, str(connections), str(count), str(seconds), *more]
    return _run(command, body)


def _run(command: list[str], body: bytes) -> dict[str, float]:
    with machine.on(machine.REST):
        done = subprocess.run(command, cwd=ROOT, input=body, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-1000:]!r} {done.stderr[-1000:]!r}")
    went: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return went
