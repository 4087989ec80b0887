"""The groups of those who watch for the same, and which of them a record is for."""

from collections.abc import Iterable, Iterator

from . import events, records
from .binding import Binding
from .query import Sight
from .query.crowd import Crowd
from .watchers import Group, Wanted


class Groups:
    """Every group that has members. Who sees the same records is asked together (query/crowd.py)."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._crowds: dict[Binding, Crowd[Group]] = {}

    def __iter__(self) -> Iterator[Group]:
        """A group may go meanwhile."""
        return iter(list(self._groups.values()))

    def __len__(self) -> int:
        return len(self._groups)

    def of(self, query: Wanted) -> Group:
        """The group that watches for ``query``; where there is none, one is made."""
        group = self._groups.get(query.text)
        if group is None:
            group = self._groups[query.text] = Group(query)
            self._crowds.setdefault(query.binding, Crowd()).add(group, query.query)
        return group

    def remove(self, group: Group) -> None:
        """``group`` has no members any more."""
        del self._groups[group.query.text]
        crowd = self._crowds[group.query.binding]
        crowd.remove(group)
        if not crowd:
            del self._crowds[group.query.binding]

    def wanting(self, document: events.Document, now_ms: int) -> list[Group]:
        """Those that are to be shown this record."""
        sight = Sight(document, now_ms)
        found: list[Group] = []
        for binding in _seeing(document):
            if (crowd := self._crowds.get(binding)) and binding.sees_document(document):
                found += crowd.selecting(sight)
        return found

    def seeing(self, found: Iterable[bytes]) -> dict[Group, int]:
        """The groups that may be shown some of these records, and how many of them."""
        of_tenant: dict[str, list[Binding]] = {}
        for binding in self._crowds:
            of_tenant.setdefault(binding.tenant, []).append(binding)
        counts = dict.fromkeys(self._crowds, 0)
        for record in found:
            for binding in of_tenant.get(records.tenant_of(record), ()):
                counts[binding] += binding.sees(record)
        return {group: count for binding, count in counts.items() if count for group in self._crowds[binding]}


def _seeing(document: events.Document) -> list[Binding]:
    """Who is bound otherwise does not see it. What another program has stored may hold anything in these fields."""
    tenant, source = document.get("tenant", ""), document.get("source", records.JOB_SOURCE)
    if type(tenant) is not str:
        return []
    return [Binding(tenant), Binding(tenant, source)] if type(source) is str else [Binding(tenant)]
