"""A batch cut into what belongs to each tenant, and what became of it all put together again."""

import collections
import time
from collections.abc import Iterable, Mapping, Sequence

from .outcome import Outcome
from .records import Clock, tenant_of

#: A collection that cannot be written is tried again after so many seconds, and while that lasts after ever more.
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0


def share_out(found: Sequence[bytes], marked: Sequence[int]) -> Mapping[str, Sequence[int]] | None:
    """Tenants, and the indexes of their records, all of which are ``marked``; None when no record is a tenant's."""
    shares: dict[str, list[int]] = collections.defaultdict(list)
    for index in marked:
        shares[tenant_of(found[index])].append(index)
    if not shares.keys() - {""}:
        return None
    rest = sorted({*range(len(found))} - {*marked} | {*shares.pop("", ())})
    return {"": rest, **shares} if rest else shares


def joined(shares: Iterable[Sequence[int]], outcomes: Sequence[Outcome]) -> Outcome:
    """What became of a batch, from what became of each share of it."""
    unwritten: list[int] = []
    quarantined: dict[int, str] = {}
    problem = ""
    for indexes, outcome in zip(shares, outcomes, strict=True):
        unwritten += [indexes[index] for index in outcome.unwritten]
        quarantined |= {indexes[index]: reason for index, reason in outcome.quarantined.items()}
        problem = problem or outcome.problem
    faults = [outcome.own_fault for outcome in outcomes if outcome.unwritten]
    return Outcome(sorted(unwritten), quarantined, problem, bool(faults) and all(faults))


class Held:
    """Whose collections could not be written lately, though MongoDB could be used."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        #: By tenant: when it is tried again, and how long it waits after the next failure.
        self._until: dict[str, tuple[float, float]] = {}

    def see(self, tenant: str, outcome: Outcome) -> bool:
        """Note what became of a tenant's records; whether its collection could be written before, and now cannot."""
        if not outcome.own_fault:
            self._until.pop(tenant, None)
            return False
        _, pause = self._until.get(tenant, (0.0, FIRST_SECONDS))
        began = tenant not in self._until
        self._until[tenant] = (self._clock() + pause, min(2 * pause, LONGEST_SECONDS))
        return began

    def is_held(self, tenant: str) -> bool:
        """Whether it is not to be tried now."""
        return tenant in self._until and self._clock() < self._until[tenant][0]

    def indexes(self, found: Sequence[bytes]) -> list[int]:
        """Which of these records wait for that."""
        held = {tenant for tenant in self._until if self.is_held(tenant)}
        return [index for index, record in enumerate(found) if tenant_of(record) in held] if held else []
