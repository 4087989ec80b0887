"""What a full queue overflows to: files, in the order of acceptance, read back as the queue empties."""

import collections
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .errors import QueueFull
from .segments import SEGMENT_BYTES, Segments


class Portion(NamedTuple):
    """Some records of one file, whether the file ends with them, and whether this process has written it."""

    path: Path
    records: list[bytes]
    ends: bool
    own: bool


class Spool:
    """The files that wait to be read back, and the one that is written to.

        append → [newest, open] [ … ] [oldest] → next_portion

    ``max_bytes`` bounds what may be appended; 0 takes nothing, but what lies there is still read back.
    """

    def __init__(self, segments: Segments, max_bytes: int) -> None:
        """Raises OSError when the directory cannot be read."""
        self._segments = segments
        self._max_bytes = max_bytes
        self._waiting = collections.deque((path, path.stat().st_size) for path in segments.paths())
        self._reading: tuple[Path, int, Iterator[list[bytes]]] | None = None
        self._open: tuple[Path, BinaryIO] | None = None
        self._open_bytes = 0
        self._own: set[Path] = set()
        self._count = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the files that are not yet read back to their end."""
        reading = self._reading[1] if self._reading else 0
        return sum(size for _, size in self._waiting) + self._open_bytes + reading

    @property
    def count(self) -> int:
        """Records that this process has appended and that are not read back yet."""
        return self._count

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be read back."""
        return not (self._waiting or self._reading or self._open)

    @property
    def enabled(self) -> bool:
        """Whether it takes anything."""
        return self._max_bytes > 0

    def check(self, size: int) -> None:
        """Raises QueueFull when ``size`` bytes would pass the bound."""
        if self.size_bytes + size > self._max_bytes:
            raise QueueFull(f"the queue and the spool are full ({self.size_bytes} of {self._max_bytes} bytes)")

    def append(self, records: Sequence[bytes], bounded: bool = True) -> None:
        """Write ``records``, all or none. Raises QueueFull when they would pass the bound or the disk is full."""
        size = sum(map(len, records))
        if bounded:
            self.check(size)
        try:
            self._write(b"".join(records))
        except OSError as error:
            raise QueueFull(f"the queue is full and the spool cannot be written: {error.strerror}") from error
        self._open_bytes += size
        self._count += len(records)
        if self._open_bytes >= SEGMENT_BYTES:
            self._close()

    def _write(self, data: bytes) -> None:
        if self._open is None:
            self._open = self._segments.open_spool()
            self._own.add(self._open[0])
            self._open_bytes = 0
        file = self._open[1]
        written = 0
        try:
            while written < len(data):
                written += file.write(data[written:])
        except OSError:
            # A record cut in the middle would hide all that come after it.
            with contextlib.suppress(OSError):
                file.truncate(self._open_bytes)
                file.seek(self._open_bytes)
            raise

    def _close(self) -> None:
        if self._open is not None:
            path, file = self._open
            file.close()
            self._waiting.append((path, self._open_bytes))
            self._open, self._open_bytes = None, 0

    def next_portion(self) -> Portion | None:
        """The oldest records not yet read back; None when there are none. Raises OSError."""
        if self._reading is None:
            if not self._waiting:
                self._close()
            if not self._waiting:
                return None
            path, size = self._waiting.popleft()
            self._reading = (path, size, self._segments.read(path))
        path, _, batches = self._reading
        try:
            batch = next(batches, None)
        except OSError:
            self._reading = None
            raise
        own = path in self._own
        if batch is None:
            self._reading = None
            self._own.discard(path)
        elif own:
            self._count -= len(batch)
        return Portion(path, batch or [], batch is None, own)

    def portions(self) -> Iterator[list[bytes]]:
        """The records in all files that are not yet read back to their end, for who only looks. Raises OSError."""
        reading = [self._reading[0]] if self._reading else []
        opened = [self._open[0]] if self._open else []
        for path in [*reading, *(path for path, _ in self._waiting), *opened]:
            # One that has been read back and stored meanwhile is no more.
            with contextlib.suppress(FileNotFoundError):
                yield from self._segments.read(path)

    def close(self) -> None:
        """Close the file that is written to; all stays for the next start."""
        self._close()
