"""A server as people run it: ``python -m tornado_logsrv`` in a process of its own, over HTTP and by signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 60.0
TRANSPORT = os.environ.get("LOGSRV_TEST_TRANSPORT", "httptools")


class Process:
    """One running server. ``log`` is what it wrote to standard error so far."""

    def __init__(
        self, *arguments: str, log: Path, environ: dict[str, str] | None = None, under: Sequence[str] = ()
    ) -> None:
        """``under`` is a command, such as prlimit, that becomes the server."""
        self._log = log
        self.environ = environ
        with log.open("ab") as errors:
            self._popen = subprocess.Popen(
                [*under, sys.executable, "-m", "tornado_logsrv", f"--transport={TRANSPORT}", *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**{k: v for k, v in os.environ.items() if not k.startswith("LOGSRV_")}, **(environ or {})},
                text=True,
            )
        self.banner = self._read_banner()
        self.url = self._find(r"listens on (\S+)")
        self.pid = self._popen.pid

    def _read_banner(self) -> str:
        assert self._popen.stdout is not None
        lines = []
        for line in self._popen.stdout:
            lines.append(line)
            if line.lstrip().startswith("try "):
                return "".join(lines)
        self._popen.stdout.close()
        raise AssertionError(f"it did not start (status {self._popen.wait()}): {self.log}")

    def _find(self, pattern: str) -> str:
        match = re.search(pattern, self.banner)
        assert match is not None, self.banner
        return match[1]

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def post(self, path: str, body: bytes, **headers: str) -> Any:
        """The answer's JSON; raises urllib.error.HTTPError for an error status."""
        return self._open(path, body, {"Content-Type": "application/json", **headers})

    def get(self, path: str, **headers: str) -> Any:
        return self._open(path, None, headers)

    def _open(self, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return json.loads(response.read())

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url.partition("//")[2].rpartition(":")
        return host, int(port)

    @property
    def memory(self) -> int:
        """Bytes of its resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE")

    @property
    def cpu_seconds(self) -> float:
        """Processor time that it has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send_signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self) -> int:
        """The exit status."""
        return self._popen.wait(PATIENCE)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit status."""
        self.send_signal(number)
        return self.wait()

    def close(self) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()
        assert self._popen.stdout is not None
        self._popen.stdout.close()


@contextmanager
def running(
    *arguments: str, log: Path, environ: dict[str, str] | None = None, under: Sequence[str] = ()
) -> Iterator[Process]:
    """A server that ends with the block, one way or the other."""
    process = Process(*arguments, log=log, environ=environ, under=under)
    try:
        yield process
    finally:
        process.close()


def eventually(condition: Any, what: str) -> Any:
    """Wait until ``condition()`` is true; what it gave."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"it did not come to pass: {what}")
