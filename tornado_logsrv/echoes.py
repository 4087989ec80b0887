"""Which of the records that MongoDB tells of are shown by this server anyway: those that it took itself.

Most of them are known by their ids, which are of this process's making. The others (ids that are derived from a
client's key, records of other processes that were read back) are noted until MongoDB has told of them.
"""

from collections.abc import Collection, Iterable

from .records import Ids

#: Ids noted at the most. When more such records wait to be stored, MongoDB's word of the oldest ones is taken for news.
MAX_COUNT = 1 << 18


class Echoes:
    """Knows the records in this server's order that a change stream will still bring, or brings again."""

    def __init__(self, ids: Ids) -> None:
        """``ids`` makes the ids of this process."""
        self._ids = ids
        self._own_from = b""
        self._expected: dict[bytes, None] = {}
        self._before: set[bytes] = set()

    def begin(self, unsettled: Collection[bytes], back: bool) -> None:
        """From now on all that is taken is in the order, as are the ``unsettled``.

        ``back``: the change stream begins earlier, and brings also what was taken and stored before.
        """
        self._expected = {}
        self._own_from = self._ids.next() if back else b""
        self.expect(unsettled)

    def resume(self, ids: Iterable[bytes]) -> None:
        """A process before had these in the order: the change stream, which begins where it left off, brings some."""
        self._before = {*ids}

    def was_before(self, record_id: bytes) -> bool:
        """Whether a process before had ``record_id`` in the order."""
        return record_id in self._before

    def caught_up(self) -> None:
        """The change stream has brought all that it brings again."""
        self._before = set()

    def expect(self, ids: Iterable[bytes]) -> None:
        """These are in the order, and not stored yet."""
        for record_id in ids:
            if not self._is_own(record_id):
                self._expected[record_id] = None
                if len(self._expected) > MAX_COUNT:
                    del self._expected[next(iter(self._expected))]

    def give_up(self, record_id: bytes) -> None:
        """``record_id`` will never be stored."""
        self._expected.pop(record_id, None)

    def heard(self, record_id: bytes) -> bool:
        """Whether ``record_id``, of which MongoDB tells, is in the order already."""
        if self._is_own(record_id) or record_id in self._before:
            return True
        return self._expected.pop(record_id, record_id) is None

    def _is_own(self, record_id: bytes) -> bool:
        return record_id[4:9] == self._ids.process and record_id >= self._own_from
