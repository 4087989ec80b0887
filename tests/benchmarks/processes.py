"""Processes that are measured: started on a core, asked for their memory, ended by their id."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from . import machine

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 120.0
_KIB = 1024


class Process:
    """``python -m module arguments``, on the core of what is measured or on ``cores``; its log goes to ``log``."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path, cores: set[int] = machine.MEASURED) -> None:
        # Options come from the command line here, and from nowhere else.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGSRV_")}
        self._log = log
        with machine.on(cores), open(log, "ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def line(self, pattern: str) -> str:
        """The first group of ``pattern`` in the next line of output that has it. Raises RuntimeError at its end."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if match := re.search(pattern, line):
                return match[1]
        raise RuntimeError(f"{' '.join(self._process.args)} ended: {self._log.read_text(errors='replace')[-2000:]}")  # type: ignore[arg-type]

    def rss(self) -> int:
        """Bytes of memory it holds now."""
        return self._memory("VmRSS")

    def peak(self) -> int:
        """Bytes of memory it has held at most, since it began or since ``forget_peak``."""
        return self._memory("VmHWM")

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
        # A process that has ended, but was not waited for, has no memory.
        return int(found[1]) * _KIB if found else 0

    def processor_seconds(self) -> float:
        """Seconds that it, in all its threads, has kept a core busy. Raises OSError once it has ended."""
        # Its clock, as clock_getcpuclockid(3) names it, counts nanoseconds; proc(5) has ticks of 10 ms, and a quick
        # measurement may end within one.
        return time.clock_gettime((~self._process.pid << 3) | 2)

    def forget_peak(self) -> None:
        """``peak`` begins anew (proc(5), clear_refs)."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5", encoding="ascii")

    def kill(self) -> None:
        """End it with SIGKILL, as kill -9 does."""
        self._process.kill()
        self._process.wait()
        self._close_output()

    def stop(self) -> tuple[float, int]:
        """End it with SIGTERM: the seconds that took, and its peak as last seen."""
        if self._process.poll() is not None:
            return 0.0, 0
        began, peak = time.perf_counter(), 0
        self._process.terminate()
        while self._process.poll() is None:
            peak = max(peak, self.peak())
            if time.perf_counter() - began > _PATIENCE:
                self._process.kill()
            time.sleep(0.003)
        seconds = time.perf_counter() - began
        self._close_output()
        return seconds, peak

    def _close_output(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()
