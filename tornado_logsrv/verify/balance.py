"""What was sent against what is there: the verdict, and its table. Nothing here knows HTTP or MongoDB."""

import collections
import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence

#: So many tokens are named when the promise is broken.
EXAMPLES = 20


class State(enum.IntEnum):
    """What a client knows of a request: of all its resends the highest counts."""

    UNSENT = 0
    REFUSED = 1
    UNKNOWN = 2
    ACKNOWLEDGED = 3


@dataclasses.dataclass(eq=False)
class Life:
    """One process of a log server, from its start to its end; ``url`` once it listens."""

    name: str
    url: str = ""
    killed: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class Sent:
    """One request and all its resends: records with the tokens from ``first`` on, ``count`` of them.

    ``refusable``: the offsets of those that belong in quarantine. ``detail``: the level of an acknowledgement, or the
    reason of a refusal. ``surely``: a refusal that says that nothing was taken. ``lives``: who acknowledged it.
    """

    first: int
    count: int
    refusable: frozenset[int] = frozenset()
    state: State = State.UNSENT
    detail: str = ""
    surely: bool = True
    lives: tuple[Life, ...] = ()
    id: bytes = b""

    @property
    def level(self) -> str:
        """The row of the table."""
        if self.state is State.ACKNOWLEDGED and self.detail == "memory":
            return "memory, then killed" if all(life.killed for life in self.lives) else "memory"
        return {State.UNSENT: "not sent", State.UNKNOWN: "no answer"}.get(self.state, self.detail)

    @property
    def must_be_there(self) -> bool:
        """Whether it was acknowledged and nothing has happened since that its level does not survive."""
        return self.state is State.ACKNOWLEDGED and self.level != "memory, then killed"

    @property
    def must_not_be_there(self) -> bool:
        """Whether it was said that nothing was taken."""
        return self.state is State.UNSENT or (self.state is State.REFUSED and self.surely)


@dataclasses.dataclass(slots=True, frozen=True)
class Found:
    """A record that is there: its token, its ``_id``, and whether its data are what was sent."""

    token: int
    id: bytes
    intact: bool = True


@dataclasses.dataclass
class Row:
    """The counts of all records of one level."""

    records: int = 0
    stored: int = 0
    quarantined: int = 0
    absent: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


@dataclasses.dataclass
class Balance:
    """The verdict. ``faults`` are sentences, the first EXAMPLES of them; none when the promise was kept."""

    rows: dict[str, Row]
    faults: list[str]
    fault_count: int = 0

    @property
    def total(self) -> Row:
        """The sum of all rows."""
        return Row(*(sum(getattr(row, column) for row in self.rows.values()) for column in COLUMNS))

    def fault(self, sentence: str) -> None:
        """Something is not as it was promised."""
        self.fault_count += 1
        if len(self.faults) < EXAMPLES:
            self.faults.append(sentence)


def balance(sent: Iterable[Sent], stored: Iterable[Found], quarantined: Iterable[Found]) -> Balance:
    """Every token that was sent, looked for among what is there."""
    result = Balance(collections.defaultdict(Row), [])
    places = _by_token(stored), _by_token(quarantined)
    for request in sent:
        for offset in range(request.count):
            _judge(request, offset, places, result)
    for place, name in zip(places, ("stored", "in quarantine"), strict=True):
        for token in place:
            result.fault(f"token {token} is {name} and was never sent")
    result.rows = dict(sorted(result.rows.items(), key=lambda item: _place_in_table(item[0])))
    return result


_Places = tuple[dict[int, list[Found]], dict[int, list[Found]]]


def _by_token(found: Iterable[Found]) -> dict[int, list[Found]]:
    tokens: dict[int, list[Found]] = {}
    for each in found:
        tokens.setdefault(each.token, []).append(each)
    return tokens


def _judge(request: Sent, offset: int, places: _Places, result: Balance) -> None:
    """Count one record; what has been judged leaves ``places``."""
    row, token = result.rows[request.level], request.first + offset
    stored, quarantined = (place.pop(token, []) for place in places)
    there = [*stored, *quarantined]
    row.records += 1
    row.stored += len(stored)
    row.quarantined += len(quarantined)
    row.absent += not there
    for problem, count in _problems(request, offset, stored, quarantined):
        setattr(row, problem, getattr(row, problem) + count)
        result.fault(f"token {token} ({_story(request)}) is {problem}: {_ids(there)}")


def _story(request: Sent) -> str:
    by = f" by {' and '.join(life.name for life in request.lives)}" if request.lives else ""
    return f"{request.level}{by}{f' as {request.id.hex()}' if request.id else ''}"


def _ids(there: Sequence[Found]) -> str:
    return ", ".join(each.id.hex() for each in there) or "nowhere"


def _problems(
    request: Sent, offset: int, stored: Sequence[Found], quarantined: Sequence[Found]
) -> Iterable[tuple[str, int]]:
    """What is wrong with one record, and how often: ``lost``, ``duplicated`` or ``wrong``."""
    there = [*stored, *quarantined]
    if not there and request.must_be_there:
        yield "lost", 1
    if len(there) > 1:
        yield "duplicated", len(there) - 1
    misplaced = stored if offset in request.refusable else quarantined
    other_id = request.id and any(each.id != request.id for each in there)
    altered = not all(each.intact for each in there)
    if misplaced or other_id or altered or (there and request.must_not_be_there):
        yield "wrong", 1


_ORDER = ("journal", "stored", "memory", "memory, then killed", "no answer", "not sent")


def _place_in_table(level: str) -> tuple[int, str]:
    return (_ORDER.index(level) if level in _ORDER else len(_ORDER), level)


def table(rows: Mapping[str, Row], total: Row) -> str:
    """The rows, aligned, with their sum below."""
    lines = [["acknowledged", *COLUMNS]]
    lines += [[level, *_cells(row)] for level, row in [*rows.items(), ("all", total)]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths) for cells in lines)


def _cells(row: Row) -> list[str]:
    return [str(getattr(row, column)) for column in COLUMNS]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    numbers = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([cells[0].ljust(widths[0]), *numbers])
