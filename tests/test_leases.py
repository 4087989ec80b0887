"""Leases on the real Redis server: who lives, and who adopts whom."""

import asyncio

import pytest

from tornado_logsrv.errors import LeaseHeld
from tornado_logsrv.leases import LEASE_SECONDS, Leases
from tornado_logsrv.streams import connect


@pytest.fixture
def leases(servers, prefix, io_loop):
    clients = []

    def leases(instance, directory="d1", process="p1"):
        clients.append(connect(servers.redis_url))
        return Leases(clients[-1], prefix, instance, directory, process)

    yield leases
    for client in clients:
        io_loop.run_sync(client.aclose)


@pytest.mark.gen_test
async def test_a_name_has_one_owner_and_a_lease_that_runs_out(leases, redis_client, prefix):
    await leases("a").acquire()
    with pytest.raises(LeaseHeld, match="'a'") as held:
        await leases("a", directory="d2").acquire()
    assert LEASE_SECONDS - 2 < held.value.seconds <= LEASE_SECONDS
    await leases("a").acquire()
    redis_client.delete(f"{prefix}:lease:a")
    await leases("a", directory="d2").acquire()


@pytest.mark.gen_test
async def test_who_has_the_data_directory_takes_over_from_the_dead_process_before(leases):
    await leases("a", process="killed").acquire()
    await leases("a", process="next").acquire()
    with pytest.raises(LeaseHeld):
        await leases("a", directory="d", process="1").acquire()


@pytest.mark.gen_test
async def test_release_gives_up_only_what_is_ones_own(leases):
    await leases("a").acquire()
    await leases("a", directory="d2").release()
    with pytest.raises(LeaseHeld):
        await leases("a", directory="d2").acquire()
    await leases("a").release()
    await leases("a", directory="d2").acquire()


@pytest.mark.gen_test
async def test_one_adopts_when_many_try_and_none_while_the_instance_lives(leases, redis_client, prefix):
    await leases("dead").acquire()
    heirs = [leases(name, directory=name) for name in "bcdefgh"]
    for heir in heirs:
        await heir.acquire()
    assert not any(await asyncio.gather(*(heir.adopt("dead") for heir in heirs)))
    assert await heirs[0].orphans() == []
    redis_client.delete(f"{prefix}:lease:dead")
    assert await heirs[0].orphans() == ["dead"]
    won = await asyncio.gather(*(heir.adopt("dead") for heir in heirs))
    assert won.count(True) == 1
    winner = heirs[won.index(True)]
    assert await winner.adopt("dead")
    await winner.adopted("dead", forget=True)
    assert await winner.orphans() == []


@pytest.mark.gen_test
async def test_an_instance_that_came_back_during_its_adoption_is_not_forgotten(leases, redis_client, prefix):
    back, heir = leases("a", directory="a"), leases("b", directory="b")
    await back.acquire()
    await back.release()
    assert await heir.adopt("a")
    await back.acquire()
    await heir.adopted("a", forget=True)
    await back.release()
    assert await heir.orphans() == ["a"]
