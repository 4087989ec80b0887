"""What a token is bound to is written into records, wherever they come from, and read from their bytes."""

import collections

import bson
import pytest
from bson import ObjectId

from tornado_logsrv import records
from tornado_logsrv.binding import UNBOUND, Binding
from tornado_logsrv.errors import TooLarge
from tornado_logsrv.outcome import Outcome
from tornado_logsrv.shares import joined, share_out

ID = b"0123456789ab"
LONGEST = "x" * 15
JOB = records.encode_job({"source": "a", "tenant": "b", "n": 1}, [], ID, 5)
ROW = records.encode({"source": "opentelemetry15", "message": "m"}, {"n": 1}, [], ID, 5)
BAD = records.encode_bad(b"{", "unreadable", "why", "otlp", ID, 5)
BINDINGS = [
    Binding(),
    Binding("acme"),
    Binding("", "till"),
    Binding("acme", "till"),
    Binding(LONGEST, LONGEST),
    Binding("acme", "jobs"),
    Binding("", "jobs"),
]


def sources(record):
    return {JOB: "jobs", ROW: "opentelemetry15", BAD: "otlp"}[record]


@pytest.mark.parametrize("record", [JOB, ROW, BAD])
@pytest.mark.parametrize("binding", BINDINGS)
def test_a_bound_record_is_the_record_with_its_tenant_and_source(record, binding):
    (made,) = binding.records([record])
    before, after = bson.decode(record), bson.decode(made)
    name = "bad" if record == BAD else "source"
    source = binding.source or sources(record)
    head = {"_id": ObjectId(ID)} | ({"tenant": binding.tenant} if binding.tenant else {})
    if record == BAD or source != "jobs":
        head[name] = source
    rest = {key: value for key, value in before.items() if key not in ("_id", name)}
    assert list(after.items()) == [*head.items(), *rest.items()]
    assert (records.tenant_of(made), records.source_of(made)) == (binding.tenant, source)
    assert (records.is_bad(made), records.id_of(made), records.timestamp_of(made)) == (record == BAD, ID, 5)
    assert records.split(made) == ([made], b"", "")


@pytest.mark.parametrize("record", [JOB, ROW, BAD])
@pytest.mark.parametrize("binding", BINDINGS)
def test_bound_again_it_stays_as_it_is_and_bound_to_others_it_is_theirs(record, binding):
    (once,) = binding.records([record])
    assert binding.records([once]) == [once]
    (theirs,) = Binding("other", "others").records([once])
    assert (records.tenant_of(theirs), records.source_of(theirs)) == ("other", "others")


@pytest.mark.parametrize("record", [JOB, ROW, BAD])
@pytest.mark.parametrize("writer", BINDINGS)
@pytest.mark.parametrize("reader", BINDINGS)
def test_who_sees_it_is_of_the_same_tenant_and_of_its_source_or_of_none(record, writer, reader):
    (made,) = writer.records([record])
    own = writer.tenant == reader.tenant
    assert reader.sees(made) == (own and reader.source in ("", writer.source or sources(record)))


def test_they_are_counted_by_tenant_and_source():
    found = [record for binding in BINDINGS for record in binding.records([JOB, ROW, BAD, JOB])]
    origins = [binding.origin(sources(record)) for binding in BINDINGS for record in (JOB, ROW, BAD, JOB)]
    assert records.count_origins(found) == collections.Counter(origins)
    assert "acme/till" in origins
    assert Binding("acme").sources(origins)[:3] == ["jobs", "opentelemetry15", "otlp"]
    assert {*Binding("", "till").sources(origins)} == {*Binding("acme", "till").sources(origins)} == {"till"}
    assert {*UNBOUND.sources(origins)} == {"jobs", "opentelemetry15", "otlp", "till"}


def test_a_record_that_is_too_large_with_them_is_refused():
    room = records.MAX_RECORD_BYTES - len(records.encode_job("", [], ID, 5))
    largest = records.encode_job("x" * room, [], ID, 5)
    with pytest.raises(TooLarge):
        Binding(LONGEST, LONGEST).records([largest])
    assert UNBOUND.records([largest]) == [largest]


def test_names_of_one_are_no_names_of_another():
    for ids in (records.NewIds, lambda _, of_whom: records.DerivedIds("k", of_whom)):
        named = {ids(records.Ids(), binding.of_whom).named("a") for binding in BINDINGS}
        assert len(named) == len(BINDINGS)
    derived = {records.DerivedIds("k", binding.of_whom)(0) for binding in BINDINGS}
    assert derived >= {records.derived_id("k", 0)}
    assert len(derived) == len(BINDINGS)


def test_a_batch_is_shared_out_by_tenant_and_its_outcomes_are_put_together():
    acme, beta = Binding("acme"), Binding("beta")
    found = [JOB, *acme.records([JOB, BAD]), BAD, *beta.records([JOB]), ROW, *acme.records([ROW])]
    shares = share_out(found, records.apart(found))
    assert shares == {"": [0, 3, 5], "acme": [1, 2, 6], "beta": [4]}
    outcomes = {"": Outcome([2], {1: "bad"}, "late"), "acme": Outcome(), "beta": Outcome([0], {}, "away")}
    made = joined(shares.values(), [outcomes[tenant] for tenant in shares])
    assert (list(made.unwritten), made.quarantined, made.problem) == ([4, 5], {3: "bad"}, "late")


def test_a_batch_without_tenants_is_not_shared_out():
    found = [JOB, BAD, ROW]
    assert records.apart(found) == [1]
    assert share_out(found, [1]) is None
    assert share_out(found, []) is None
