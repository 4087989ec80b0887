"""python -m tornado_logsrv.tail: real processes, on a real server."""

import contextlib
import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request

import pytest
import trustme

from tornado_logsrv.tail import terminal
from tornado_logsrv.tail.connection import Refused

from .process import PATIENCE, eventually, running


@pytest.fixture
def start(servers, database, prefix, tmp_path):
    """``with start(port) as process``: a server on this test's database."""

    def start(port=0, **given):
        options = {
            "port": port,
            "instance": "one",
            "data_dir": tmp_path / "data",
            "mongo_url": servers.mongo_url,
            "mongo_db": database.name,
            "redis_url": servers.redis_url,
            "redis_prefix": prefix,
            "flush_interval_ms": 50,
        } | given
        return running(*(f"--{name}={value}" for name, value in options.items()), log=tmp_path / "log")

    return start


def command(url, *arguments, environ=None, **more):
    base = {name: value for name, value in os.environ.items() if not name.startswith("LOGSRV_")}
    return subprocess.Popen(
        [sys.executable, "-m", "tornado_logsrv.tail", f"--url={url}", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**base, **(environ or {})},
        **{"stdout": subprocess.PIPE, **more},
    )


def ran(url, *arguments, **more):
    """What it has printed, what it has told, and its status."""
    with command(url, *arguments, **more) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return out, err, process.returncode


class Following:
    """A process that follows; what it prints and tells is collected."""

    def __init__(self, *arguments, **more):
        self.process = command(*arguments, **more)
        self.out, self.err = [], []
        self._threads = [
            threading.Thread(target=lambda lines=lines, stream=stream: lines.extend(iter(stream.readline, "")))
            for lines, stream in ((self.out, self.process.stdout), (self.err, self.process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        return status


@contextlib.contextmanager
def following(*arguments, **more):
    made = Following(*arguments, **more)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()
        for thread in made._threads:
            thread.join(PATIENCE)
        made.process.stdout.close()
        made.process.stderr.close()


def post(server, *values):
    server.post("/add-jobs?ack=stored", json.dumps(list(values)).encode())


def numbers(lines):
    return [json.loads(line)["data"]["n"] for line in lines]


def test_a_search_shows_the_newest_oldest_first_and_ends(start):
    with start() as server:
        post(server, *({"n": n, "msg": f"job {n}", "level": "info"} for n in range(15)))
        out, err, status = ran(server.url, "--no-follow", "--json")
        assert (numbers(out.splitlines()), err, status) == (list(range(5, 15)), "", 0)
        out, _, _ = ran(server.url, "n:<3", "--no-follow", "--since=1h", "--until=now+1h", environ={"NO_COLOR": "1"})
        assert [line.partition(" ")[2] for line in out.splitlines()] == [f"INFO    job {n} n={n}" for n in range(3)]
        out, _, _ = ran(server.url, "--no-follow", "--json", "--since=now-1h", "-n", "2")
        assert numbers(out.splitlines()) == [13, 14]


def test_a_query_that_is_wrong_is_shown_with_its_column(start):
    with start() as server:
        for more in ((), ("--no-follow",)):
            out, err, status = ran(server.url, "ok:1 AND level:", *more)
            assert (out, status) == ("", 2)
            assert err.splitlines()[-3:] == [
                "tornado_logsrv.tail: ok:1 AND level:",
                f"{' ' * len('tornado_logsrv.tail: ')}{' ' * 15}^",
                "tornado_logsrv.tail: did you mean 'ok:1 AND level:*'?",
            ]


def test_where_nothing_is_near_a_wrong_query_nothing_is_suggested(start):
    with start() as server:
        _, err, status = ran(server.url, "x:[1 TO]", "--no-follow")
        assert status == 2
        assert "did you mean" not in err


@pytest.mark.parametrize("parameter", ["from", None])
def test_what_is_said_of_another_parameter_is_not_taken_for_the_query(parameter):
    refused = Refused(400, {"parameter": parameter, "column": 3, "nearest": "now-1h"}, None)
    assert (refused.column, refused.nearest) == (None, None)


def test_it_follows_over_a_restart_without_a_gap_or_a_double_and_ends_with_ctrl_c(start, tmp_path):
    with start() as server:
        port = server.address[1]
        post(server, *({"n": n} for n in range(4)))
        with following(server.url, "--json", "-n", "2") as tail:
            eventually(lambda: len(tail.out) == 2, "the newest two are shown")
            post(server, *({"n": n} for n in range(4, 8)))
            eventually(lambda: len(tail.out) == 6, "what comes is shown")
            assert server.stop() == 0
            with start(port) as again:
                post(again, *({"n": n} for n in range(8, 12)))
                eventually(lambda: len(tail.out) >= 10, "it goes on")
                assert tail.stop() == 130
            assert numbers(tail.out) == list(range(2, 12))
            assert "connection lost" in tail.err[0]
            assert tail.err[-1] == "tornado_logsrv.tail: connected again\n"
            assert "Traceback" not in "".join(tail.err)


@pytest.mark.parametrize("more", [("--no-follow", "--since=1h"), ("--since=1h",)])
def test_a_reader_that_has_gone_ends_it_as_it_ends_other_commands(start, more):
    with start() as server:
        for _ in range(3):
            post(server, *({"n": n, "text": "x" * 500} for n in range(500)))
        with command(server.url, *more) as process:
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait(PATIENCE) == -signal.SIGPIPE


def test_levels_have_colours_on_a_terminal_alone(start):
    with start() as server:
        post(server, {"level": "error", "msg": "broken \x1b]0;owned\x07"})
        found = {}
        for name, environ in (("colour", {"TERM": "xterm"}), ("none", {"TERM": "xterm", "NO_COLOR": "1"})):
            ours, its = pty.openpty()
            _, _, status = ran(server.url, "--no-follow", environ=environ, stdout=its)
            os.close(its)
            assert status == 0
            found[name] = os.read(ours, 4096).decode()
            os.close(ours)
    assert "\x1b[1;31mERROR  \x1b[0m" in found["colour"]
    assert "\x1b" not in found["none"]
    assert r"broken \x1b]0;owned\x07" in found["none"]


def test_a_token_comes_from_a_file_and_is_never_shown(start, tmp_path):
    made = [sys.executable, "-m", "tornado_logsrv.token", "--name=reader", "--scope=read"]
    done = subprocess.run([*made, f"--file={tmp_path / 'tokens'}"], check=True, capture_output=True, text=True)
    (tmp_path / "secret").write_text(done.stdout)
    secret = (tmp_path / "secret").read_text().strip()
    with start(tokens_file=tmp_path / "tokens") as server:
        assert ran(server.url, "--no-follow")[2] == 2
        for how in (
            {"environ": {"LOGSRV_TOKEN_FILE": str(tmp_path / "secret")}},
            {"environ": {"LOGSRV_TOKEN": secret}},
        ):
            assert ran(server.url, "--no-follow", **how) == ("", "", 0)
        assert ran(server.url, f"--token-file={tmp_path / 'secret'}", "--no-follow") == ("", "", 0)
        out, err, status = ran(server.url, f"--token={secret}", "--no-follow")
        assert (out, status, secret in err) == ("", 0, False)
        assert err.startswith("tornado_logsrv.tail: --token: every user of this machine can read it")
        out, err, status = ran(server.url, f"--token={secret}\x07", "--no-follow")
        assert (out, status) == ("", 2)
        assert secret not in err


def test_a_server_with_a_certificate_of_ones_own_is_known_by_its_authority(start, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    given = {"tls_cert": tmp_path / "server.pem", "tls_key": tmp_path / "server.pem"}
    with start(**given) as server, following(server.url, "--json", f"--ca={tmp_path / 'ca.pem'}") as tail:
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        request = urllib.request.Request(
            f"{server.url}/add-job?ack=stored", b'{"n":1}', {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE, context=context) as answer:
            assert answer.status == 202
        eventually(lambda: tail.out, "it is shown")
        assert tail.stop() == 130
        assert tail.err == []
        out, err, status = ran(server.url, "--no-follow")
        assert (out, status) == ("", 1)
        assert "certificate verify failed" in err
        out, err, status = ran(server.url, "--no-follow", f"--ca={tmp_path / 'no.pem'}")
        assert (out, status, err.count("\n")) == ("", 1, 1)


def test_what_goes_to_quarantine_is_told(start, database):
    database.create_collection(
        "logs", validator={"$jsonSchema": {"properties": {"data": {"properties": {"n": {"minimum": 0}}}}}}
    )
    with start() as server:
        post(server, {"n": 1})
        with following(server.url, "--json", "-n", "1") as tail:
            eventually(lambda: tail.out, "it follows")
            refused = server.post("/add-job", b'{"n":-1}')["id"]
            eventually(lambda: tail.err, "it is told")
            assert tail.stop() == 130
            assert tail.err[0].startswith(f"tornado_logsrv.tail: {refused} went to quarantine: ")
            assert set(numbers(tail.out)) <= {1, -1}


def test_what_is_left_out_is_told():
    """By a server that is asked once: a real one leaves out no record of so few."""
    events = b"".join(b'event: missed\ndata: {"missed":%b}\n\n' % count for count in (b"7", b"null"))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
        tail = undo.enter_context(following(f"http://127.0.0.1:{listener.getsockname()[1]}", "-n", "0"))
        client = undo.enter_context(listener.accept()[0])
        client.recv(65_536)
        client.sendall(head + events)
        eventually(lambda: len(tail.err) == 2, "both are told")
        assert tail.stop() == 130
    why = "are left out: they come faster than they can be shown, or long ago\n"
    assert tail.err == [f"tornado_logsrv.tail: {what} {why}" for what in ("7 records", "records")]


def test_no_server_is_told_in_a_line():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        out, err, status = ran(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert (out, status, err.count("\n")) == ("", 1, 1)


@pytest.mark.parametrize("given", [["--until=now"], ["-n=-1"], ["--url=http://a:b@c"], ["--url=ftp://c"], ["a", "b"]])
def test_wrong_options_are_refused(given):
    _, err, status = ran("http://127.0.0.1:1", *given)
    assert status == 2
    assert "error: " in err


def test_an_export_that_is_cut_short_is_no_whole_one():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            client, _ = listener.accept()
            with client:
                client.recv(65_536)
                line = b'{"_id":"1","data":1}\n'
                client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(line), line))

        thread = threading.Thread(target=answer)
        thread.start()
        out, err, status = ran(f"http://127.0.0.1:{listener.getsockname()[1]}", "--no-follow", "--since=1h", "--json")
        thread.join(PATIENCE)
    assert (out, status) == ('{"_id":"1","data":1}\n', 1)
    assert "IncompleteRead" in err


def test_what_has_several_lines_stands_below_and_what_is_nested_is_terse():
    record = {
        "timestamp": "2026-01-02T03:04:05.678Z",
        "source": "otlp",
        "message": "failed\r\nat once",
        "data": {"level": "warn", "a": {"b": 1, "c": "x y"}, "stack": "Trace\n  at f", "long": "z" * 300, "n\n": None},
    }
    first, *others = terminal.shown(record).splitlines()
    assert first.startswith('2026-01-02T03:04:05.678Z WARN    [otlp] failed a.b=1 a.c="x y" long=zzz')
    assert first.endswith(r"z… n\n=null")
    assert others == ["    at once", "    stack:", "        Trace", "          at f"]


def test_harmless_json_means_the_same():
    text = json.dumps({"a": "\x9b31m \u202e \x7f"}, ensure_ascii=False)
    assert terminal.harmless_json(text).isascii()
    assert json.loads(terminal.harmless_json(text)) == json.loads(text)


def test_it_needs_nothing_of_the_server():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tornado_logsrv.tail", "--help"],
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {name for name in loaded if name.startswith(("tornado.", "bson", "pymongo", "motor", "msgspec"))} == set()
