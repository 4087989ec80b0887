"""What systemd is told: a real process, and a datagram socket as systemd has one."""

import os
import signal
import socket
import uuid

import pytest

from tornado_logsrv.notify import STATUS_SECONDS, Notifier

from .process import PATIENCE, running


@pytest.fixture(params=["path", "abstract"])
def listener(request, tmp_path):
    """A socket that listens, and what NOTIFY_SOCKET says of it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@logsrv-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0"))
        listening.settimeout(PATIENCE)
        yield listening, name


def told(listening, wanted):
    """All that is told until a message has ``wanted`` in it."""
    found = []
    while not any(wanted in message for message in found):
        found.append(listening.recv(4096).decode())
    return found


def test_systemd_is_told_of_start_state_reload_and_stop(listener, servers, prefix, database, tmp_path):
    listening, name = listener
    options = (
        "--port=0",
        f"--data_dir={tmp_path / 'data'}",
        f"--mongo_url={servers.mongo_url}",
        f"--mongo_db={database.name}",
        f"--redis_url={servers.redis_url}",
        f"--redis_prefix={prefix}",
        "--flush_interval_ms=3600000",
    )
    with running(*options, log=tmp_path / "log", environ={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}) as server:
        assert listening.recv(4096) == b"READY=1"
        server.post("/add-job", b"1")
        assert told(listening, "STATUS=1 records queued\nWATCHDOG=1")
        server.send_signal(signal.SIGHUP)
        reloading = told(listening, "RELOADING=1")[-1]
        assert "MONOTONIC_USEC=" in reloading
        assert told(listening, "READY=1")
        assert server.stop() == 0
        assert told(listening, "STOPPING=1")


def test_without_a_socket_nothing_is_told():
    notifier = Notifier({})
    notifier.ready()
    assert not notifier.wanted


def test_a_watchdog_gets_a_sign_of_life_twice_in_its_time():
    assert Notifier({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}).pause_seconds == 1.5
    assert Notifier({"NOTIFY_SOCKET": "/x"}).pause_seconds == STATUS_SECONDS
    # That of another process, which has left its environment to this one.
    other = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid() + 1)}
    assert Notifier(other).pause_seconds == STATUS_SECONDS


def test_a_systemd_that_is_gone_is_told_of_once(tmp_path, caplog):
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready()
    notifier.stopping()
    assert [record.getMessage() for record in caplog.records] == [
        "systemd cannot be told what this server does: [Errno 2] No such file or directory"
    ]
