"""Tails of tenants that show what other servers store of theirs, and of nobody else: where there are change streams."""

import asyncio
import dataclasses
import time

import bson
import pytest

from tests.failpoints import failing
from tests.readers.test_tail_others import servers  # noqa: F401
from tests.tails import Tail, until
from tornado_logsrv import auth, records
from tornado_logsrv.store import RecordStore

TENANTS = {"all": "", "acme": "acme", "beta": "beta"}
#: A tenant for whom a token comes later.
LATER = {"late": "late"}
SECRETS = {name: auth.new_secret() for name in TENANTS | LATER}


def write_tokens(path, names):
    lines = []
    for name in names:
        lines += ["[[token]]", f'name = "{name}"', f'sha256 = "{auth.digest_of(SECRETS[name])}"', 'scopes = ["read"]']
        lines += [f'tenant = "{tenant}"' for tenant in [(TENANTS | LATER)[name]] if tenant]
    path.write_text("\n".join(lines))


@pytest.fixture
def options(options, tmp_path):
    write_tokens(tmp_path / "tokens.toml", TENANTS)
    return dataclasses.replace(options, tokens_file=str(tmp_path / "tokens.toml"))


@pytest.fixture
def other(servers, database, io_loop):  # noqa: F811
    """``await other(tenant, count)``: another server stores so many records of the tenant's; their ids."""
    store = RecordStore(servers.mongo_url, database.name, "logs")
    ids = records.Ids()

    async def other(tenant, count=1):
        jobs = [records.encode_job({"of": tenant}, [], ids.next(), time.time_ns() // 1_000_000) for _ in range(count)]
        outcome = await store.write(records.bound(jobs, tenant, ""))
        assert not outcome.unwritten
        return [records.id_of(each).hex() for each in jobs]

    yield other
    io_loop.run_sync(store.close)


@pytest.fixture
def follow(app, http_server, base_url):
    """``await follow(name)``: a watcher with that token, and MongoDB tells what others store."""
    opened = []

    async def follow(name, query="", last_id=""):
        headers = {"Authorization": f"Bearer {SECRETS[name]}"}
        opened.append(Tail(base_url, f"/logs/tail?{query}", last_id, headers=headers))
        await until(lambda: opened[-1].response)
        assert opened[-1].response.status == 200
        await until(lambda: sum(len(group.watchers) for group in app.watch.groups) == len(app.watch.watchers))
        await until(lambda: app.watch.others.follows)
        return opened[-1]

    yield follow
    for each in opened:
        each.close()


@pytest.mark.gen_test(timeout=60)
async def test_each_is_shown_what_others_store_of_its_own_alone(follow, other):
    tails = {name: await follow(name) for name in TENANTS}
    ids = {name: await other(tenant, 3) for name, tenant in TENANTS.items()}
    for name, tenant in TENANTS.items():
        ids[name] += await other(tenant)
    for tail in tails.values():
        await until(lambda tail=tail: len(tail.ids) >= 4)
    assert {name: tail.ids for name, tail in tails.items()} == ids
    assert {record["state"] for tail in tails.values() for record in tail.of("record")} == {"stored"}


@pytest.mark.gen_test(timeout=60)
async def test_a_tenant_that_nobody_here_has_a_token_of_is_not_followed(follow, other, app):
    tails = [await follow(name) for name in TENANTS]
    await other("gamma", 3)
    last = await other("")
    await until(lambda: last[0] in tails[0].ids)
    assert [tail.ids for tail in tails] == [last, [], []]
    assert app.watch.order.end == 1


@pytest.mark.gen_test(timeout=60)
async def test_what_does_not_say_that_it_is_of_whose_collection_it_is_in_is_shown_to_nobody(follow, other, database):
    tails = {name: await follow(name) for name in TENANTS}
    at = bson.DatetimeMS(time.time_ns() // 1_000_000)
    for collection in ("logs", "logs_acme", "logs_beta"):
        for tenant in ("acme", "beta", ["acme"], None):
            if collection != f"logs_{tenant}":
                database[collection].insert_one({"_id": bson.ObjectId(), "tenant": tenant, "timestamp": at})
    for collection in ("logs_acme", "logs_beta", "logs_gamma", "logs_acme_x"):
        database[collection].insert_one({"_id": bson.ObjectId(), "message": "", "timestamp": at})
    ids = {name: await other(tenant) for name, tenant in TENANTS.items()}
    for name, tail in tails.items():
        await until(lambda name=name, tail=tail: ids[name][0] in tail.ids)
    assert {name: tail.ids for name, tail in tails.items()} == ids


@pytest.mark.gen_test(timeout=60)
async def test_who_comes_back_is_shown_what_others_stored_of_its_own_meanwhile(follow, other, app):
    tail = await follow("acme")
    first = await other("acme")
    await until(lambda: tail.ids)
    tail.close()
    await until(lambda: not app.watch.watchers)
    missed = [*await other("acme", 2), *await other("acme")]
    await other("beta", 2)
    await until(lambda: app.watch.order.end == 6)
    again = await follow("acme", last_id=tail.last_id)
    new = await other("acme")
    await until(lambda: new[0] in again.ids)
    assert (tail.ids, again.ids, again.of("missed")) == (first, missed + new, [])


@pytest.mark.gen_test(timeout=60)
async def test_who_comes_from_another_server_is_shown_what_is_stored_since(follow, other, app, database):
    tail = await follow("acme")
    # As one that has followed for a minute.
    app.watch.others._moments.clear()
    app.watch.others._moments.add(int(time.time()) - 60, 0)
    before = await other("acme", 3)
    await other("beta")
    await until(lambda: len(tail.ids) == 3)
    # What has a time of long ago is found by when it was stored.
    late = bson.ObjectId()
    database.logs_acme.insert_one({"_id": late, "tenant": "acme", "timestamp": bson.DatetimeMS(0)})
    await until(lambda: late.binary.hex() in tail.ids)
    again = await follow("acme", last_id="abcdef01234567" + tail.last_id[14:])
    new = await other("acme")
    await until(lambda: new[0] in again.ids)
    assert again.ids == [*before, late.binary.hex(), *new]


@pytest.mark.gen_test(timeout=60)
async def test_a_tenant_who_gets_a_token_is_followed_from_then_on_and_nobody_misses_anything(
    follow, other, app, tmp_path
):
    tails = {name: await follow(name) for name in TENANTS}
    ids = {name: await other(tenant, 2) for name, tenant in TENANTS.items()}
    storing = asyncio.ensure_future(other("", 300))
    write_tokens(tmp_path / "tokens.toml", TENANTS | LATER)
    app.gate.reload()
    ids["all"] += await storing
    tails["late"] = await follow("late")
    await until(lambda: app.watch.others.covers("late"))
    ids["late"] = await other("late", 2)
    for name, tenant in TENANTS.items():
        ids[name] += await other(tenant)
    for name, tail in tails.items():
        await until(lambda name=name, tail=tail: len(tail.ids) >= len(ids[name]))
    assert {name: tail.ids for name, tail in tails.items()} == ids
    assert [tail.of("missed") for tail in tails.values()] == [[]] * 4


@pytest.mark.gen_test(timeout=60)
async def test_who_may_not_follow_the_database_follows_the_one_collection(follow, other, mongo, app, caplog):
    with failing(mongo, {"times": 1}, failCommands=["aggregate"], errorCode=13):
        everything, acme = await follow("all"), await follow("acme")
    assert [app.watch.others.covers(tenant) for tenant in ("", "acme")] == [True, False]
    await other("acme")
    ids = await other("")
    await until(lambda: everything.ids == ids)
    assert acme.ids == []
    assert "tails of tenants do not show what other servers store" in caplog.text
    # By the time of the record, it is.
    now_ms = time.time_ns() // 1_000_000
    again = await follow("acme", last_id=f"abcdef01234567.7.{now_ms}")
    await until(lambda: again.ids)


class TestTheFirst:
    """There are no tenants at first."""

    @pytest.fixture
    def options(self, options, tmp_path):
        write_tokens(tmp_path / "tokens.toml", ["all"])
        return options

    @pytest.mark.gen_test(timeout=60)
    async def test_the_stream_of_the_collection_goes_on_as_one_of_the_database(self, follow, other, app, tmp_path):
        everything = await follow("all")
        ids = await other("", 3)
        await until(lambda: len(everything.ids) == 3)
        storing = asyncio.ensure_future(other("", 300))
        write_tokens(tmp_path / "tokens.toml", TENANTS)
        app.gate.reload()
        ids += await storing
        await until(lambda: app.watch.others.covers("acme"))
        acme = await follow("acme")
        own = await other("acme", 3)
        ids += await other("")
        await until(lambda: ids[-1] in everything.ids and len(acme.ids) >= 3)
        assert (everything.ids, acme.ids) == (ids, own)
        assert everything.of("missed") == acme.of("missed") == []
        # And back, as after a restart without tokens of tenants: by the time that the place has.
        app.store.changes._tenants = frozenset()
        write_tokens(tmp_path / "tokens.toml", ["all"])
        app.gate.reload()
        await until(lambda: not app.watch.others.covers("acme"))
        last = await other("", 2)
        await until(lambda: last[-1] in everything.ids)
        assert everything.ids == ids + last
