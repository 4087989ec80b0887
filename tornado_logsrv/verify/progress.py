"""How far a trial is: a bar on a terminal, else a line now and then."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import TextIO

_BAR_SECONDS = 0.5
_LINE_SECONDS = 10.0
_WIDTH = 30


class Progress:
    """Shows the time that has passed, and what ``tell`` says, until it is cancelled."""

    def __init__(self, seconds: float, tell: Callable[[], str], stream: TextIO = sys.stderr) -> None:
        self._seconds = seconds
        self._tell = tell
        self._stream = stream
        self._began = time.monotonic()
        self._on_terminal = stream.isatty()

    async def run(self) -> None:
        """Show it again and again."""
        try:
            while True:
                await asyncio.sleep(_BAR_SECONDS if self._on_terminal else _LINE_SECONDS)
                self.show()
        finally:
            if self._on_terminal:
                self._stream.write("\r\x1b[K")

    def show(self) -> None:
        """Show it once."""
        line = self.line(time.monotonic() - self._began)
        self._stream.write(f"\r\x1b[K{line}" if self._on_terminal else f"{line}\n")
        self._stream.flush()

    def line(self, elapsed: float) -> str:
        """What is shown ``elapsed`` seconds after the beginning."""
        part = min(1.0, elapsed / self._seconds)
        filled = round(part * _WIDTH)
        bar = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] " if self._on_terminal else ""
        return f"{bar}{part:4.0%}  {_clock(elapsed)} of {_clock(self._seconds)}  {self._tell()}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
