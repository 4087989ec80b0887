"""One document as queries see it: each field is followed once, however many ask for it."""

import itertools
from collections.abc import Mapping
from typing import Any

from .conditions import Context
from .fields import Field
from .leaves import Leaves

_NUMBERS = itertools.count(1)


class Sight:
    """A document, as bson decodes it, and what has been found in it; ``now_ms`` is when relative times count from."""

    def __init__(self, document: Mapping[str, Any], now_ms: int) -> None:
        #: Like that of no other: to remember which one it was without keeping the document.
        self.number = next(_NUMBERS)
        self.document = document
        self.context = Context(now_ms)
        self._found: dict[str, list[Leaves]] = {}

    def at(self, field: Field) -> list[Leaves]:
        """What ``field`` leads to, by each of the ways to it that leads to something."""
        found = self._found.get(field.name)
        if found is None:
            found = self._found[field.name] = field.leaves(self.document)
        return found
