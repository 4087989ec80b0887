"""Embedded servers that take long to start, with a program in their place that answers when it is told to."""

import asyncio
import logging
import os
import signal
import socket
import sys

import pytest

from tornado_logsrv import embedded
from tornado_logsrv.errors import StartError

from .process import PATIENCE

_PROGRAM = """
import pathlib, socket, sys, time
while not pathlib.Path("go").exists():
    time.sleep(0.01)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    server.accept()[0].close()
"""


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def child_of(tmp_path, port, program=_PROGRAM):
    return embedded.Child("mongodb", tmp_path, [sys.executable, "-c", program, str(port)], ("127.0.0.1", port))


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110  # a process tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.gen_test
async def test_one_that_has_much_to_read_is_away_until_it_answers(tmp_path, port, caplog):
    child = child_of(tmp_path, port)

    async def answers():
        return await embedded._answers(("127.0.0.1", port))

    async def is_another():
        return child.pid != first

    with caplog.at_level(logging.WARNING, "logsrv.embedded"):
        await child.start(patience=0)
    first = child.pid
    assert f"the embedded mongodb does not answer yet; it is away until it does (see {tmp_path}" in caplog.text
    try:
        # It is watched meanwhile.
        os.kill(first, signal.SIGKILL)
        await until(is_another)
        assert not await answers()
        (tmp_path / "go").touch()
        await until(answers)
    finally:
        await child.stop()
    assert not await answers()


@pytest.mark.gen_test
async def test_one_that_ends_in_place_of_answering_is_no_start(tmp_path, port):
    child = child_of(tmp_path, port, "import sys; sys.exit('no room')")
    with pytest.raises(StartError, match=r"the embedded mongodb did not start: no room \(see .*mongodb.log\)"):
        await child.start()
    await child.stop()
