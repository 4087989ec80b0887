"""The records that were shown last, or will be next: for short gaps, and to know what was shown to whom."""

import collections
import dataclasses
from collections.abc import Collection, Sequence

from .watchers import Group

MAX_BYTES = 16 << 20
MAX_COUNT = 100_000
#: What it takes to remember of one group that a record was shown to it.
_SHOWN_BYTES = 8


@dataclasses.dataclass(slots=True, eq=False)
class Entry:
    """One record that is or will be shown, and to which groups it was. ``reason``: why it is in quarantine."""

    id: bytes
    record: bytes
    stored: bool
    told: bool = False
    reason: str | None = None
    groups: list[Group] = dataclasses.field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether it is stored or in quarantine."""
        return self.stored or self.reason is not None

    def settle(self, reason: str | None) -> None:
        """It is stored or, for a ``reason``, in quarantine."""
        self.stored, self.reason = reason is None, reason


class Recent:
    """Entries by their ids; the oldest ones that have been told leave when there are too many."""

    def __init__(self) -> None:
        self._entries: collections.OrderedDict[bytes, Entry] = collections.OrderedDict()
        self._bytes = 0
        self._unsettled = 0
        #: Whether records that are not settled have left: whom they were shown to is not known then.
        self.forgetful = False

    def __contains__(self, record_id: bytes) -> bool:
        return record_id in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, record_id: bytes) -> Entry | None:
        """The entry of ``record_id``, if it is here."""
        return self._entries.get(record_id)

    def at_hand(self, ids: Collection[bytes]) -> dict[bytes, Entry]:
        """The entries of those of ``ids`` that are here."""
        return {record_id: self._entries[record_id] for record_id in ids if record_id in self._entries}

    def add(self, entry: Entry) -> None:
        """Remember ``entry``, and forget others for it."""
        self._entries[entry.id] = entry
        self._bytes += len(entry.record)
        self._unsettled += not entry.settled
        self._make_room()

    def show(self, entry: Entry, groups: Sequence[Group]) -> None:
        """``entry``, which is not settled, has been shown to ``groups``; others may be forgotten for that."""
        if self._entries.get(entry.id) is entry:
            entry.groups.extend(groups)
            self._bytes += _SHOWN_BYTES * len(groups)
            self._make_room()

    def _make_room(self) -> None:
        while self._bytes > MAX_BYTES or len(self._entries) > MAX_COUNT:
            oldest = next(iter(self._entries.values()))
            if not oldest.told:
                break
            self._forget(oldest)

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.id]
        self._bytes -= len(entry.record) + _SHOWN_BYTES * len(entry.groups)
        if not entry.settled:
            self._unsettled -= 1
            self.forgetful = True

    def settle(self, entry: Entry, reason: str | None) -> list[Group]:
        """``entry``, which was not, is stored or, for a ``reason``, in quarantine; the groups that it was shown to."""
        entry.settle(reason)
        self._unsettled -= 1
        # Nothing more becomes of it, and many groups take more memory than the record.
        groups, entry.groups = entry.groups, []
        self._bytes -= _SHOWN_BYTES * len(groups)
        return groups

    def look_again(self) -> None:
        """What has left is settled by now, when all that is here is: it was older."""
        self.forgetful = self.forgetful and self._unsettled > 0

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self._bytes = self._unsettled = 0
        self.forgetful = False
