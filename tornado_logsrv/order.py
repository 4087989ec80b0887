"""The order in which this server has shown records to those who watch: their ids, numbered, in memory and in files.

    <data_dir>/tail-<name>-<number of the first>.ids      12 bytes an id, one after the other

A number, with the name of the order, says exactly what a watcher has seen, also to the next process on the same data
directory: an id is in the file before anybody is shown its record, and before it can be stored. Written, not synced:
that outlives kill -9 of this process, but not the fall of the machine, so the name holds for one boot of it. The last
``KEEP`` ids at least are kept, and twice as many at most.
"""

import contextlib
import logging
import os
import re
import secrets
import time
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger("logsrv.tail")

#: Ids of one file. There are two: one that is full, and the one that is written to.
KEEP = 1 << 19
#: An order that nobody has needed for so many seconds is forgotten.
FORGET_SECONDS = 3600
_ID_BYTES = 12
_FILE = re.compile(r"tail-([0-9a-f]{14})-([0-9]{18})\.ids")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Order:
    """The numbered ids. Numbers go on over a restart, and begin anew, under another name, after ``forget``."""

    def __init__(self, directory: Path, keep: int = KEEP) -> None:
        self._directory = directory
        self._keep = keep
        self._file: BinaryIO | None = None
        self._on_disk = True
        self._boot = _boot()
        self._begin()

    def _begin(self) -> None:
        self.name = self._boot + secrets.token_hex(4)
        self._ids = bytearray()
        #: The numbers of the first id of each file.
        self._starts = [0]

    @property
    def first(self) -> int:
        """The number of the oldest id that is known."""
        return self._starts[0]

    @property
    def end(self) -> int:
        """The number that the next id gets."""
        return self._starts[0] + len(self._ids) // _ID_BYTES

    def resume(self) -> bool:
        """Go on where the last process on this directory ended; False when that is long ago, or there was none."""
        found = self._found()
        try:
            if not found or not found[-1][1].startswith(self._boot) or _age(found[-1][0]) > FORGET_SECONDS:
                return False
            self._read(found)
        except OSError as error:
            log.warning("the tail's order cannot be read, and begins anew: %s", error)
            self._begin()
            return False
        return True

    def _found(self) -> list[tuple[Path, str, int]]:
        """Path, name and first number of every file, in the order of their numbers."""
        matches = [(path, _FILE.fullmatch(path.name)) for path in self._directory.glob("tail-*.ids")]
        return sorted(((path, match[1], int(match[2])) for path, match in matches if match), key=lambda file: file[2])

    def _read(self, found: list[tuple[Path, str, int]]) -> None:
        self.name = found[-1][1]
        self._starts = []
        for path, name, start in found:
            data = path.read_bytes()
            whole = len(data) // _ID_BYTES * _ID_BYTES
            if not self._starts or name != self.name or start != self.end:
                # What does not join what follows is not of this order.
                self._starts, self._ids = [], bytearray()
            self._starts.append(start)
            self._ids += data[:whole]
        os.truncate(found[-1][0], whole)
        self._file = open(found[-1][0], "ab", buffering=0)  # noqa: SIM115

    def append(self, ids: Collection[bytes]) -> None:
        """Number ``ids``. A disk that takes no more is logged: the order is then good for this process only."""
        data = b"".join(ids)
        try:
            if self._on_disk:
                self._write(data)
        except OSError as error:
            log.warning("the tail's order cannot be written; watchers cannot go on after a restart: %s", error)
            self.close()
            self._remove()
            self._on_disk = False
        self._ids += data
        if self.end - self._starts[-1] >= self._keep:
            self._turn()

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = open(self._path(self._starts[-1]), "ab", buffering=0, opener=_private)  # noqa: SIM115
        while data:
            data = data[self._file.write(data) :]

    def _path(self, start: int) -> Path:
        return self._directory / f"tail-{self.name}-{start:018}.ids"

    def _turn(self) -> None:
        """Begin the next file, and forget the last but one."""
        self.close()
        self._starts.append(self.end)
        if len(self._starts) > 2:
            first, second = self._starts[:2]
            del self._ids[: (second - first) * _ID_BYTES]
            del self._starts[0]
            self._path(first).unlink(missing_ok=True)

    def read(self, number: int, count: int) -> list[bytes]:
        """At most ``count`` ids from ``number`` on, as far as they are known."""
        start = (max(number, self.first) - self.first) * _ID_BYTES
        data = bytes(self._ids[start : start + count * _ID_BYTES])
        return [data[at : at + _ID_BYTES] for at in range(0, len(data), _ID_BYTES)]

    def find(self, record_id: bytes) -> int:
        """The number of ``record_id``; where it is not known, the lowest there is."""
        at = self._ids.find(record_id)
        while at % _ID_BYTES and at >= 0:
            at = self._ids.find(record_id, at + 1)
        return self.first + max(at, 0) // _ID_BYTES

    def touch(self) -> None:
        """Somebody watches: the order is needed, though nothing may be added."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.utime(self._file.fileno())

    def forget(self) -> None:
        """Begin anew: numbers given so far mean nothing from here on."""
        self.close()
        self._remove()
        self._begin()

    def _remove(self) -> None:
        for path, _, _ in self._found():
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; all stays for the next process."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _boot() -> str:
    """Six hex digits of this boot of the machine; where it has no name, all boots are one."""
    try:
        return _BOOT_ID.read_text(encoding="ascii")[:6]
    except OSError:
        return "000000"


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
