"""Deferred: told at once, awaited like any awaitable."""

import asyncio

import pytest

from tornado_logsrv.deferred import Deferred


def test_the_callback_is_called_at_once():
    told, deferred = [], Deferred()
    deferred.add_done_callback(lambda each: told.append(each.result()))
    assert (told, deferred.done) == ([], False)
    deferred.set_result(1)
    assert (told, deferred.done) == ([1], True)


def test_a_callback_that_comes_too_late_is_called_too():
    told, deferred = [], Deferred()
    deferred.set_exception(KeyError("x"))
    deferred.add_done_callback(told.append)
    assert told == [deferred]
    with pytest.raises(KeyError):
        deferred.result()


@pytest.mark.gen_test
async def test_it_can_be_awaited_before_and_after_it_is_done():
    deferred = Deferred()
    asyncio.get_running_loop().call_soon(deferred.set_result, 1)
    assert (await deferred, await deferred) == (1, 1)
    failed = Deferred()
    asyncio.get_running_loop().call_soon(failed.set_exception, KeyError("x"))
    with pytest.raises(KeyError):
        await failed


@pytest.mark.gen_test
async def test_a_waiter_that_is_cancelled_is_not_told():
    deferred = Deferred()

    async def wait():
        return await deferred

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    deferred.set_result(1)
    with pytest.raises(asyncio.CancelledError):
        await waiting
