"""What a token is bound to: a tenant, whose records are in a collection of their own, a source, both or nothing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from . import records


class Binding(NamedTuple):
    """Whose records somebody writes and reads; empty: no tenant's, and every source's."""

    tenant: str = ""
    source: str = ""

    def records(self, found: Sequence[bytes]) -> Sequence[bytes]:
        """``found`` as it is to be written. Raises TooLarge when MongoDB could not hold one of them then."""
        return records.bound(found, *self) if any(self) else found

    def sees(self, record: bytes) -> bool:
        """Whether this record may be read."""
        if records.tenant_of(record) != self.tenant:
            return False
        return not self.source or records.source_of(record) == self.source

    def sees_document(self, document: Mapping[str, Any]) -> bool:
        """Whether this record, decoded, may be read."""
        if document.get("tenant", "") != self.tenant:
            return False
        return not self.source or document.get("source", records.JOB_SOURCE) == self.source

    def origin(self, source: str) -> str:
        """What the ledger counts records under that a receiver takes as ``source``'s."""
        return records.origin(self.tenant, self.source or source)

    def sources(self, origins: Iterable[str]) -> list[str]:
        """The sources of those ``origins`` that may be read."""
        found = (name.rpartition("/")[::2] for name in origins)
        return [source for tenant, source in found if tenant == self.tenant and self.source in ("", source)]

    @property
    def of_whom(self) -> str:
        """What tells the names that clients give from the same names of others.

        It is empty without a binding, and else begins with NUL, as no name does that can be sent.
        """
        return f"\0{self.tenant}\0{self.source}\0" if any(self) else ""


UNBOUND = Binding()
