"""Which records are kept for how long, as ``--retention`` says it: ``level=debug:3,source=otlp:7``."""

import dataclasses
import re

FIELDS = ("level", "source")
#: A TTL index counts in seconds, in 31 bits.
MAX_DAYS = 24_000
_RULE = re.compile(r"(\w+)=([^,:=\s]{1,100}):([0-9]{1,5})")


@dataclasses.dataclass(frozen=True)
class Rule:
    """Records whose ``field`` (one of FIELDS) is ``value`` are kept for ``days``; all records, without a field."""

    field: str
    value: str
    days: int

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.field}={self.value}" if self.field else "all"


def parse(text: str) -> tuple[Rule, ...]:
    """The rules of ``text``, with commas between them. Raises ValueError."""
    rules: dict[str, Rule] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        match = _RULE.fullmatch(part)
        if match is None or match[1] not in FIELDS or not 1 <= int(match[3]) <= MAX_DAYS:
            raise ValueError(f"must be like level=debug:3,source=otlp:7, with 1 to {MAX_DAYS} days")
        rule = Rule(match[1], match[2], int(match[3]))
        if rule.name in rules:
            raise ValueError(f"has {rule.name} twice")
        rules[rule.name] = rule
    return tuple(rules.values())
