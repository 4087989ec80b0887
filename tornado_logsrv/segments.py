"""Files of records: plain BSON documents one after the other, which bsondump and mongorestore read too.

    backup-<instance>-<time>.bson    what a stop could not give to Redis
    spool-<instance>-<time>.bson     what a full queue overflowed to

All are read back oldest first, whatever instance wrote them: who holds the directory's lock is their heir.
"""

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from . import records

log = logging.getLogger("logsrv.backup")

#: A spool is cut into files of about this size, so that what is stored can be removed.
SEGMENT_BYTES = 16 * 1024 * 1024
_READ_BYTES = 1 << 20
_UNFINISHED = ".part"


class Segments:
    """The record files of one directory."""

    def __init__(self, directory: Path, instance: str) -> None:
        self._directory = directory
        self._instance = re.sub(r"[^A-Za-z0-9._-]", "_", instance)
        self._last_time = 0

    def _new_path(self, kind: str) -> Path:
        self._last_time = max(time.time_ns(), self._last_time + 1)
        return self._directory / f"{kind}-{self._instance}-{self._last_time}.bson"

    def write(self, batches: Iterable[list[bytes]]) -> tuple[Path, int]:
        """Write every record of ``batches`` to a new file, which has its name only once it is whole and on disk.

        The file, and how many records it holds. Raises OSError.
        """
        path = self._new_path("backup")
        part = path.with_name(path.name + _UNFINISHED)
        with open(part, "xb", opener=_private) as file:
            count = 0
            for batch in batches:
                file.write(b"".join(batch))
                count += len(batch)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
        self._sync_directory()
        return path, count

    def open_spool(self) -> tuple[Path, BinaryIO]:
        """A new file to append to, unbuffered. Raises OSError."""
        path = self._new_path("spool")
        return path, open(path, "xb", buffering=0, opener=_private)

    def paths(self) -> list[Path]:
        """Every file there is, oldest first."""
        found = [path for path in self._directory.glob("*.bson*") if path.name.startswith(("backup-", "spool-"))]
        return sorted((path for path in found if path.suffix in (".bson", _UNFINISHED)), key=_time_of)

    def read(self, path: Path) -> Iterator[list[bytes]]:
        """The records of a file, in lists. Raises OSError.

        A file that a crash has cut off gives the records that it has whole. What cannot be read is left in a file
        ``….damaged`` and logged.
        """
        rest = b""
        with open(path, "rb") as file:
            while block := file.read(_READ_BYTES):
                batch, rest, problem = records.split(rest + block)
                yield batch
                if problem:
                    self._keep_damaged(path, problem)
                    return
        if rest and path.name.startswith("backup-") and path.suffix != _UNFINISHED:
            self._keep_damaged(path, f"{len(rest)} bytes at the end are no whole record")

    def _keep_damaged(self, path: Path, problem: str) -> None:
        damaged = path.with_name(path.name + ".damaged")
        damaged.unlink(missing_ok=True)
        os.link(path, damaged)
        log.error("%s is damaged (%s); what stands before that is read, the file stays as %s", path, problem, damaged)

    def remove(self, path: Path) -> None:
        """Forget a file whose records are stored."""
        path.unlink(missing_ok=True)

    def _sync_directory(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _time_of(path: Path) -> tuple[int, str]:
    match = re.search(r"-(\d+)\.bson", path.name)
    return (int(match[1]) if match else 0), path.name
