"""The ledger: what became of every record, counted where it happens.

    received = stored + queued + quarantined + refused        at all times, for every source

``received`` is counted when it is known what becomes of a record: taken (queued) or refused. What is read back at a
start, from the spool's files or from the stream of an instance that is no more, is received again by this process.
``queued`` is not kept here: it is counted from the queue, so that the balance can be wrong, and tells.
"""

import collections
from collections.abc import Mapping, Sequence

from . import records

COLUMNS = ("received", "stored", "quarantined", "refused")


class Ledger:
    """Counts of records by source, since the start of this process."""

    def __init__(self) -> None:
        self._counts = {column: collections.Counter[str]() for column in COLUMNS}
        self._queued: collections.Counter[str] = collections.Counter()
        self.duplicates = 0

    def accepted(self, source: str, count: int) -> None:
        """``count`` records were put on the queue, or into the spool."""
        self._counts["received"][source] += count
        self._queued[source] += count

    def refused(self, source: str, count: int) -> None:
        """A request with ``count`` records was refused."""
        self._counts["received"][source] += count
        self._counts["refused"][source] += count

    def recovered(self, found: Sequence[bytes]) -> None:
        """Records of an earlier process were put on the queue."""
        for source, count in records.count_origins(found).items():
            self.accepted(source, count)

    def settled(self, stored: Sequence[bytes], quarantined: Sequence[bytes]) -> None:
        """Records left the queue."""
        for column, found in (("stored", stored), ("quarantined", quarantined)):
            for source, count in records.count_origins(found).items():
                self._counts[column][source] += count
                self._queued[source] -= count

    @property
    def sources(self) -> list[str]:
        """Every source there has been anything from."""
        return sorted(set(self._counts["received"]) | set(self._queued))

    def row(self, source: str) -> Mapping[str, int]:
        """The counts of one source."""
        return {column: self._counts[column][source] for column in COLUMNS} | {"queued": self._queued[source]}

    def total(self, column: str) -> int:
        """One count, over all sources."""
        return (self._queued if column == "queued" else self._counts[column]).total()

    def balance(self, queued: int) -> int:
        """0, when nothing is lost or counted twice; ``queued`` is how many records there really are unsettled."""
        return self.total("received") - sum(self.total(c) for c in ("stored", "quarantined", "refused")) - queued
