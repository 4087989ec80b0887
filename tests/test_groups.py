"""Which groups of watchers a record is for."""

import dataclasses
import time

import pytest
from bson import Code

from tornado_logsrv import events, records
from tornado_logsrv.binding import UNBOUND, Binding
from tornado_logsrv.groups import Groups
from tornado_logsrv.query import parse
from tornado_logsrv.watchers import Wanted

IDS = records.Ids()
BINDINGS = [
    UNBOUND,
    Binding("acme"),
    Binding("beta"),
    Binding("acme", "otlp"),
    Binding("", "otlp"),
    Binding("", "jobs"),
]
QUERIES = ["", "level:error", "NOT level:error", "tenant:acme", "source:otlp"]
WANTED = [Wanted(parse(query), binding) for binding in BINDINGS for query in QUERIES]


def job(tenant: str = "", source: str = "", **data: object) -> bytes:
    (record,) = records.bound([records.encode_job(data, [], IDS.next(), time.time_ns() // 1_000_000)], tenant, source)
    return record


RECORDS = [
    job(tenant, source, level=level)
    for tenant in ("", "acme", "beta")
    for source in ("", "otlp", "loki")
    for level in ("error", "info")
]


@pytest.fixture
def groups() -> Groups:
    """A group for each binding and query."""
    found = Groups()
    for wanted in WANTED:
        found.of(wanted)
    return found


def test_a_record_is_for_those_who_may_see_it_and_whose_queries_select_it(groups: Groups) -> None:
    for record in RECORDS:
        document = events.decode(record)
        wanting = {group.query.text for group in groups.wanting(document, 0)}
        assert wanting == {wanted.text for wanted in WANTED if wanted.matches(document, 0)}


def test_those_are_counted_who_may_see_it(groups: Groups) -> None:
    seen = {group.query.text: count for group, count in groups.seeing(RECORDS).items()}
    counts = {wanted.text: sum(map(wanted.sees, RECORDS)) for wanted in WANTED}
    assert seen == {text: count for text, count in counts.items() if count}
    assert len(seen) == len(WANTED)


@pytest.mark.parametrize("field", ["tenant", "source"])
@pytest.mark.parametrize("value", [["acme"], {"acme": 1}, Code("acme"), 7, None])
def test_what_another_program_has_stored_is_seen_by_nobody_whose_it_is_not(
    groups: Groups, field: str, value: object
) -> None:
    document = {**events.decode(job()), field: value}
    wanting = {group.query.text for group in groups.wanting(document, 0)}
    assert wanting == {wanted.text for wanted in WANTED if wanted.matches(document, 0)}


def test_a_group_is_one_for_all_who_want_the_same(groups: Groups) -> None:
    for wanted in WANTED:
        assert groups.of(dataclasses.replace(wanted)) is groups.of(wanted)
    assert len(groups) == len(list(groups)) == len(WANTED)


def test_a_group_without_members_is_asked_no_more(groups: Groups) -> None:
    for group in groups:
        groups.remove(group)
    assert (len(groups), groups._crowds) == (0, {})
    assert groups.wanting(events.decode(RECORDS[0]), 0) == []
