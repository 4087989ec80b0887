"""What became of a batch that was given to the store."""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a batch.

    ``unwritten``: indexes, ascending, of what is not confirmed and has to be written again, because of ``problem``.
    ``own_fault``: that is so of this collection, while MongoDB can be used.
    ``quarantined``: index → reason of what was refused for good, and is in quarantine. All else is stored.
    """

    unwritten: Sequence[int] = ()
    quarantined: Mapping[int, str] = dataclasses.field(default_factory=dict)
    problem: str = ""
    own_fault: bool = False
