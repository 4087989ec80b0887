"""A batch cut into what belongs to each tenant, and what became of it all put together again."""

import collections
from collections.abc import Iterable, Mapping, Sequence

from .outcome import Outcome
from .records import tenant_of


def share_out(found: Sequence[bytes], marked: Sequence[int]) -> Mapping[str, Sequence[int]] | None:
    """Tenants, and the indexes of their records, all of which are ``marked``; None when no record is a tenant's."""
    shares: dict[str, list[int]] = collections.defaultdict(list)
    for index in marked:
        shares[tenant_of(found[index])].append(index)
    if not shares.keys() - {""}:
        return None
    rest = sorted({*range(len(found))} - {*marked} | {*shares.pop("", ())})
    return {"": rest, **shares} if rest else shares


def joined(shares: Iterable[Sequence[int]], outcomes: Iterable[Outcome]) -> Outcome:
    """What became of a batch, from what became of each share of it."""
    unwritten: list[int] = []
    quarantined: dict[int, str] = {}
    problem = ""
    for indexes, outcome in zip(shares, outcomes, strict=True):
        unwritten += [indexes[index] for index in outcome.unwritten]
        quarantined |= {indexes[index]: reason for index, reason in outcome.quarantined.items()}
        problem = problem or outcome.problem
    return Outcome(sorted(unwritten), quarantined, problem)
