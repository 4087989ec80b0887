"""fullness.py: a full queue is a line in the log when it begins and when it ends."""

import logging

import pytest

from tornado_logsrv.fullness import Fullness

FULL = "the queue is full, requests with records get 503; 9 records wait"
ROOM = "there is room for records again; 9 wait"
OVERFLOWS = "the queue overflows to files in --data_dir; 9 records wait"
READ_BACK = "the files that the queue had overflowed to are read back; 9 records wait"


@pytest.fixture
def told(caplog):
    """``told((share, is_full, spooled), …)``: the lines of looks at these states, one after the other."""
    caplog.set_level(logging.INFO, "logsrv.queue")

    def told(*states):
        fullness = Fullness()
        for share, is_full, spooled in states:
            fullness.look(share=share, is_full=is_full, spooled=spooled, waiting=9)
        return caplog.messages

    return told


def test_a_queue_with_room_is_no_news(told):
    assert told((0, False, 0), (0.98, False, 0), (0, False, 0)) == []


def test_a_full_one_is_told_once_and_again_when_there_is_room(told):
    full, nearly, room = (1.0, True, 0), (0.95, False, 0), (0.5, False, 0)
    assert told(full, full, nearly, full, nearly, full, room, room) == [FULL, ROOM]


def test_so_is_what_overflows(told):
    assert told((1.0, False, 0), (1.0, False, 5), (1.0, False, 9), (0.9, False, 0)) == [OVERFLOWS, READ_BACK]


def test_a_queue_that_stays_full_has_room_when_the_files_have(told):
    assert told((1.0, False, 5), (1.0, True, 9), (1.0, False, 7)) == [OVERFLOWS, FULL, ROOM]


@pytest.mark.gen_test
async def test_a_server_looks_at_its_own(app, fetch, caplog):
    caplog.set_level(logging.INFO, "logsrv.queue")
    app.queue._max_bytes = 60
    app.queue._bytes = 60
    app.look()
    app.look()
    app.queue._bytes = 0
    app.look()
    assert caplog.messages == [FULL.replace("9", "0"), ROOM.replace("9", "0")]
