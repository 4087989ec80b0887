"""Files of records: plain BSON documents one after the other, which bsondump and mongorestore read too."""

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import records

log = logging.getLogger("logsrv.backup")

_READ_BYTES = 1 << 20
_UNFINISHED = ".part"


class Segments:
    """The backup files ``backup-<instance>-<time>.bson`` of one directory."""

    def __init__(self, directory: Path, instance: str) -> None:
        self._directory = directory
        self._instance = re.sub(r"[^A-Za-z0-9._-]", "_", instance)

    def append(self, batches: Iterable[list[bytes]]) -> Path:
        """Write every record of ``batches`` to a new file, which has its name only once it is whole and on disk.

        Raises OSError.
        """
        path = self._directory / f"backup-{self._instance}-{time.time_ns()}.bson"
        part = path.with_name(path.name + _UNFINISHED)
        with open(part, "xb") as file:
            os.fchmod(file.fileno(), 0o600)
            for batch in batches:
                file.write(b"".join(batch))
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
        self._sync_directory()
        return path

    def recover(self) -> Iterator[tuple[Path, Iterator[list[bytes]]]]:
        """Every file, oldest first, of whatever instance, with its records in lists.

        A file that a crash left unfinished gives the records that it has whole. What cannot be read is left in a
        file ``….damaged`` and logged.
        """
        for path in sorted(self._directory.glob("backup-*.bson*"), key=_time_of):
            if path.suffix in (".bson", _UNFINISHED):
                yield path, self._read(path)

    def _read(self, path: Path) -> Iterator[list[bytes]]:
        rest = b""
        with open(path, "rb") as file:
            while block := file.read(_READ_BYTES):
                batch, rest, problem = records.split(rest + block)
                yield batch
                if problem:
                    self._keep_damaged(path, problem)
                    return
        if rest and path.suffix != _UNFINISHED:
            self._keep_damaged(path, f"{len(rest)} bytes at the end are no whole record")

    def _keep_damaged(self, path: Path, problem: str) -> None:
        damaged = path.with_name(path.name + ".damaged")
        damaged.unlink(missing_ok=True)
        os.link(path, damaged)
        log.error(
            "%s is damaged (%s); the records before that are read back, the file stays as %s", path, problem, damaged
        )

    def remove(self, path: Path) -> None:
        """Forget a file whose records are stored."""
        path.unlink(missing_ok=True)

    def _sync_directory(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _time_of(path: Path) -> tuple[int, str]:
    match = re.search(r"-(\d+)\.bson", path.name)
    return (int(match[1]) if match else 0), path.name
