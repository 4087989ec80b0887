"""The processes of a trial: the log servers, and the servers behind them, each to be ended in any way."""

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import embedded
from ..errors import StartError
from . import samples
from .balance import Life
from .samples import Sample
from .wire import Broken, get

_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_TRIES = 5
#: Below the ports that the kernel gives to clients: a server that is down for a moment finds its port free again.
_PORTS = range(20_000, 32_000)


class LogServer:
    """``python -m tornado_logsrv`` under one name and on one data directory: one process after the other.

    Who ends or starts it holds ``lock``. It may end only in the ways that are asked for here.
    """

    def __init__(
        self, name: str, log_file: Path, options: Callable[[], Sequence[str]], report: Callable[[str], None]
    ) -> None:
        """``options`` gives those of the next process; ``report`` takes what is a fault."""
        self.name = name
        self.lock = asyncio.Lock()
        self.life = Life(name)
        self.lives = 0
        self.balances_read = 0
        self._log_file = log_file
        self._options = options
        self._report = report
        self._process: asyncio.subprocess.Process | None = None

    async def spawn(self) -> None:
        """Begin a process, and do not wait for it."""
        self.lives += 1
        self.life = Life(f"{self.name}#{self.lives}")
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LOGSRV_")}
        with self._log_file.open("ab") as errors:
            errors.write(f"--- {self.life.name}\n".encode())
            errors.flush()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tornado_logsrv", *self._options(),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=errors, env=environ,
                start_new_session=True, preexec_fn=embedded.end_with_parent,
            )  # fmt: skip

    async def start(self) -> None:
        """Begin a process and wait until it listens. Raises StartError."""
        await self.spawn()
        try:
            async with asyncio.timeout(_START_SECONDS):
                self.life.url = await self._url()
        except TimeoutError:
            raise StartError(f"{self.life.name} does not listen: {self._last_line()}") from None

    async def _url(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        url = ""
        async for line in self._process.stdout:
            if match := re.search(rb"listens on (\S+)", line):
                url = match[1].decode()
            if line.lstrip().startswith(b"try "):
                return url
        status = await self._process.wait()
        raise StartError(f"{self.life.name} ended with status {status} at its start: {self._last_line()}")

    def _last_line(self) -> str:
        return self._log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-1]

    async def kill(self) -> None:
        """As by kill -9."""
        self.kill_soon()
        if self._process is not None:
            await self._process.wait()

    def kill_soon(self) -> None:
        """Kill it without waiting for its end."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self.life.killed = True
            self.send(signal.SIGKILL)
        elif self._process.returncode and not self.life.killed:
            status = self._process.returncode
            self._report(f"{self.life.name} ended by itself with status {status}: {self._last_line()}")
            self.life.killed = True

    def terminate(self) -> None:
        """Ask it to stop, and do not wait for its end."""
        self.send(signal.SIGTERM)

    def send(self, number: int) -> None:
        """Send a signal, if it runs."""
        # Process.send_signal() polls first, and takes the status away from asyncio when it has just ended.
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def stop(self) -> None:
        """Stop it as one should; a status other than 0 is a fault."""
        await self.check()
        self.terminate()
        await self.ended()

    async def ended(self) -> None:
        """Wait for the end of a process that was asked to stop."""
        assert self._process is not None
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                status = await self._process.wait()
        except TimeoutError:
            self._report(f"{self.life.name} does not stop")
            await self.kill()
            return
        if status != 0:
            self._report(f"{self.life.name} stopped with status {status}: {self._last_line()}")
            self.life.killed = True

    async def metric(self, name: str) -> float:
        """One of its metrics that has no labels. Raises Broken."""
        answer = await get(self.life.url, "/metrics")
        match = re.search(rf"^{name} (\S+)$", answer.body.decode(), re.MULTILINE)
        if match is None:
            raise Broken(f"/metrics has no {name}")
        return float(match[1])

    async def check(self) -> None:
        """A ledger out of balance is a fault."""
        with contextlib.suppress(Broken):
            balance = await self.metric("logsrv_ledger_balance")
            self.balances_read += 1
            if balance:
                self._report(f"the ledger of {self.life.name} is out of balance by {balance:g}")

    @property
    def pid(self) -> int:
        """The process's id; 0 when none runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def sample(self, elapsed: float) -> Sample | None:
        """What the process takes now; None when it is being started or ended, or does not answer."""
        life, pid = self.life, self.pid
        try:
            queue = await self.metric("logsrv_queue_bytes")
            lag = await self.metric("logsrv_event_loop_lag_seconds")
            resident, files = samples.read(pid)
        except (Broken, OSError):
            return None
        same = self.life is life and self.pid == pid
        return Sample(life.name, elapsed, resident, files, int(queue), lag) if same else None

    async def queue_size(self) -> int:
        """How many records wait in memory or in its spool, in bytes there. Raises Broken."""
        answer = (await get(self.life.url, "/queue-size")).json()
        return int(answer["queueSize"]) + int(await self.metric("logsrv_spool_bytes"))


class Behind:
    """MongoDB and Redis: of this trial alone, or those of the URLs that were given, which are not touched."""

    def __init__(self, directory: Path, mongo_url: str, redis_url: str, rand: random.Random) -> None:
        """Raises StartError when the embedded servers are not installed and needed."""
        self.mongo: embedded.Child | None = None
        self.redis: embedded.Child | None = None
        self.mongo_url, self.redis_url = mongo_url, redis_url
        if not mongo_url:
            self.mongo, self.mongo_url = embedded.mongodb(directory, port=_free_port(rand))
        if not redis_url:
            self.redis, self.redis_url = embedded.redis(directory)

    @property
    def children(self) -> list[embedded.Child]:
        """Those that are of this trial."""
        return [child for child in (self.mongo, self.redis) if child is not None]

    async def start(self, *children: embedded.Child) -> None:
        """Start ``children`` at once. Raises StartError."""
        await asyncio.gather(*map(_start, children))

    async def kill(self, *children: embedded.Child) -> None:
        """As by kill -9."""
        for child in children:
            send(child, signal.SIGKILL)
        await asyncio.gather(*(child.stop() for child in children))

    async def close(self) -> None:
        """End them, in whatever state they are."""
        for child in self.children:
            send(child, signal.SIGCONT)
            await child.stop()


async def _start(child: embedded.Child) -> None:
    for left in reversed(range(_TRIES)):
        try:
            await child.start()
            return
        except StartError:
            await child.stop()
            if not left:
                raise


def send(child: embedded.Child, number: int) -> None:
    """Send a signal to the process of ``child``, if it has one."""
    if child.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)


def _free_port(rand: random.Random) -> int:
    while True:
        port = rand.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
