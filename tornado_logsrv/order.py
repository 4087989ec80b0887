"""The order in which this server has shown records to those who watch: their ids, numbered, in memory and in files.

    <data_dir>/tail-<name>-<number of the first>.ids      12 bytes an id, one after the other
    <data_dir>/tail-<name>.place                          how far what other servers store has got into it

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

from bson.errors import BSONError

from . import places
from .places import Place

log = logging.getLogger("logsrv.tail")

#: Ids of one file. There are two: one that is full, and the one that is written to.
KEEP = 1 << 19
#: An order that nobody has needed for so many seconds is forgotten.
FORGET_SECONDS = 3600
#: In place of an id: here an unknown number of records is missing.
HOLE = bytes(12)
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
        #: All that other servers have stored before it is in the order; None when nothing is known of them.
        self.place: Place | None = None
        self._kept_place: Place | None = None

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
            self._read_place()
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

    def _read_place(self) -> None:
        try:
            self.place = self._kept_place = places.decode(self._place_path.read_bytes())
        except (FileNotFoundError, BSONError, KeyError):
            self.place = None

    @property
    def _place_path(self) -> Path:
        return self._directory / f"tail-{self.name}.place"

    def keep_place(self) -> None:
        """Write down ``place``, behind the ids that are before it."""
        if self._file is None or self.place is None or self.place == self._kept_place:
            return
        try:
            replaced = self._place_path.with_suffix(".new")
            with open(replaced, "wb", opener=_private) as file:
                file.write(self.place.encode())
            # Whole, or as it was before.
            os.replace(replaced, self._place_path)
            self._kept_place = self.place
        except OSError as error:
            self._do_without(error)

    def append(self, ids: Collection[bytes]) -> None:
        """Number ``ids``. A disk that takes no more is logged: the order is then good for this process only."""
        data = b"".join(ids)
        try:
            if self._on_disk:
                self._write(data)
        except OSError as error:
            self._do_without(error)
        self._ids += data
        if self.end - self._starts[-1] >= self._keep:
            self._turn()

    def _do_without(self, error: OSError) -> None:
        log.warning("the tail's order cannot be written; watchers cannot go on after a restart: %s", error)
        self._end_file()
        self._remove()
        self._on_disk = False

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = open(self._path(self._starts[-1]), "ab", buffering=0, opener=_private)  # noqa: SIM115
        while data:
            data = data[self._file.write(data) :]

    def _path(self, start: int) -> Path:
        return self._directory / f"tail-{self.name}-{start:018}.ids"

    def _turn(self) -> None:
        """Begin the next file, and forget the last but one."""
        self._end_file()
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

    def find(self, record_id: bytes, number: int = 0) -> int:
        """The number of ``record_id``, looked for from ``number`` on; where it is not known, the lowest there is."""
        start = max(number - self.first, 0) * _ID_BYTES
        at = self._ids.find(record_id, start)
        while at % _ID_BYTES and at >= 0:
            at = self._ids.find(record_id, at + 1)
        if at < 0 and start:
            return self.find(record_id)
        return self.first + max(at, 0) // _ID_BYTES

    def touch(self) -> None:
        """Somebody watches: the order is needed, though nothing may be added."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.utime(self._file.fileno())

    def forget(self) -> None:
        """Begin anew: numbers given so far mean nothing from here on."""
        self._end_file()
        self._remove()
        self._begin()

    def _remove(self) -> None:
        for path in [*(path for path, _, _ in self._found()), *self._directory.glob("tail-*.place")]:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files; all stays for the next process."""
        self.keep_place()
        self._end_file()

    def _end_file(self) -> None:
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
