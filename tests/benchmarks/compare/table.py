"""Rows of what was found: ours beside each other server, each ratio out of one round."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from .. import rows, scale
from ..rows import Bar, Row, at_least, at_most, compared
from . import load, rounds
from .processes import NAMES, OURS
from .rounds import FEW_CONNECTIONS, MANY_CONNECTIONS, Found, Level

#: What the ratios are to be, by row.
BARS: dict[str, Bar] = {
    "peers-one-fastify": at_least(1.4),
    "peers-one-aiohttp": at_least(2.5),
    "peers-one-nestjs": at_least(8),
    "peers-journal-fastify": at_least(0.9),
    "peers-p99-512-fastify": at_most(0.5),
    "peers-many-request-tornado": at_least(80),
    "peers-processor-driver": at_most(0.5),
}
_HOW = (
    "each round on a new process of its own, alone on its core, warmed up for a second; 32 different records of about "
    "100 bytes take turns; the others parse the JSON and append the object to an array, ours gives each record its id "
    "and encodes it to BSON; MongoDB is away"
)


def measure(asked: scale.Scale) -> list[Row]:
    """Rows of everything; those of the Node servers when there are node and npm."""
    counts = rounds.QUICK if asked == scale.QUICK else rounds.FULL
    found = rounds.run(counts)
    others = [name for name in found.one if name not in OURS]
    return _noted_once(
        [
            *_one_rows(found, others),
            *_time_rows(found, others),
            *_many_rows(found, others),
            *_processor_rows(found, others),
            *_growth_rows(found, counts.full_queue),
        ]
    )


def _noted_once(rows_of: Sequence[Row]) -> list[Row]:
    """A note that stands at one row already is not said again."""
    said: dict[str, str] = {}
    return [
        dataclasses.replace(row, note=f"as at {said[row.note]}") if said.setdefault(row.note, row.id) != row.id else row
        for row in rows_of
    ]


def _row(id: str, name: str, unit: str, ours: Sequence[float], theirs: Sequence[float], note: str) -> Row:
    return compared(f"peers-{id}", name, unit, ours, theirs, BARS.get(f"peers-{id}"), note)


def _rates(levels: Sequence[Level], records: int = 1) -> list[float]:
    return [level.went.rate * records for level in levels]


def _one_rows(found: Found, others: Sequence[str]) -> list[Row]:
    note = f"one record a POST, {FEW_CONNECTIONS} connections; {_HOW}"
    return [
        _row(f"{id}-{other}", f"{NAMES[ours]}, beside {NAMES[other]}", "requests/s", _rates(found.one[ours]),
             _rates(found.one[other]), note)
        for id, ours in (("one", "memory"), ("journal", "journal"))
        for other in others
    ]  # fmt: skip


def _time_rows(found: Found, others: Sequence[str]) -> list[Row]:
    return [
        _row(f"{which}-{connections}-{other}", f"{which}, {connections} connections, beside {NAMES[other]}", "ms",
             _times(levels["memory"], which), _times(levels[other], which),
             f"the time to an answer, ack=memory, one record a POST, {connections} connections")
        for levels, connections in ((found.one, FEW_CONNECTIONS), (found.crowd, MANY_CONNECTIONS))
        for which in ("p50", "p99")
        for other in others
        if all(_times(levels[other], which))
    ]  # fmt: skip


def _times(levels: Sequence[Level], which: str) -> list[float]:
    return [getattr(level.went, which) for level in levels]


def _many_rows(found: Found, others: Sequence[str]) -> list[Row]:
    ours = _rates(found.many["memory"], load.BATCH)
    note = f"{load.BATCH} records a POST, a JSON array of which each becomes a record of its own"
    request = _row(
        "many-request-tornado", f"records of {load.BATCH} a POST, beside a request of {NAMES['tornado']}", "a second",
        ours, _rates(found.one["tornado"]), f"{note}: records in the time stock Tornado takes for one of its requests",
    )  # fmt: skip
    beside = [
        _row(f"many-{other}", f"{load.BATCH} a POST, beside {NAMES[other]}", "records/s", ours,
             _rates(found.many[other], load.BATCH), f"{note}; {FEW_CONNECTIONS} connections; {_HOW}")
        for other in others
    ]  # fmt: skip
    return [request, *beside]


def _processor_rows(found: Found, others: Sequence[str]) -> list[Row]:
    note = "processor time of the server, all its threads and the kernel's for it, for one record at ack=memory"
    beside = [
        _row(f"processor-{id}-{other}", f"processor, {what}, beside {NAMES[other]}", "us",
             _processor(levels["memory"]), _processor(levels[other]), note)
        for id, what, levels in (("one", "one a POST", found.one), ("many", f"{load.BATCH} a POST", found.many))
        for other in others
    ]  # fmt: skip
    stored = (
        "processor time of our process for one record, from the first byte of a POST of 1000 to its being stored and "
        "off the queue"
    )
    if not found.driver:
        return [*beside, rows.alone("peers-processor-driver", "processor, first byte to stored", "us", found.stored,
                                    stored)]  # fmt: skip
    driver = (
        f"{stored}; beside the processor time of the official Node driver, warmed up, for a document of bulkWrite of "
        "1000 insertOne alone, into the same server at the same write concern"
    )
    name = "processor, first byte to stored, beside the Node driver's bulkWrite"
    return [*beside, _row("processor-driver", name, "us", found.stored, found.driver, driver)]


def _processor(levels: Sequence[Level]) -> list[float]:
    return [level.processor for level in levels]


def _growth_rows(found: Found, count: int) -> list[Row]:
    ours = found.growth["memory"]
    full = f"with {count:,} records on the queue and more coming, beside an empty one"
    kinds: tuple[tuple[str, str, str, Callable[[Level], Any]], ...] = (
        ("rate", "requests a second", "requests/s", lambda level: level.went.rate),
        ("p99", "p99", "ms", lambda level: level.went.p99),
        ("processor", "processor", "us", lambda level: level.processor),
    )
    grown = [
        _row(f"full-{id}-{name}", f"{what}, full queue beside empty: {NAMES[name]}", unit, [read(each.full)],
             [read(each.empty)], f"{what} {full}; one record a POST, {FEW_CONNECTIONS} connections, one round")
        for id, what, unit, read in kinds
        for name, each in found.growth.items()
    ]  # fmt: skip
    memory = [
        _row(f"memory-{name}", f"memory of a queued record, beside {NAMES[name]}", "bytes", [ours.memory],
             [each.memory], f"growth of resident memory over {count:,} records, posted by the thousand, one round")
        for name, each in found.growth.items()
        if name not in OURS
    ]  # fmt: skip
    return [*grown, *memory]
