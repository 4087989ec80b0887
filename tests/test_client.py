"""The handler for Python applications: against a server as people run it, and against one that misbehaves."""

import ast
import calendar
import gzip
import http.server
import json
import logging
import logging.config
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tornado_logsrv import client
from tornado_logsrv.client import LogsrvHandler

from .process import PATIENCE, eventually, running

ROOT = Path(__file__).parent.parent


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


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


@pytest.fixture
def logger():
    """A logger of this test alone; its handlers are closed with it."""
    made = logging.Logger("shop.cart")
    yield made
    for handler in made.handlers:
        handler.close()


def stored(collection, count):
    """The data of the records, once there are ``count`` of them, in the order they were logged."""
    eventually(lambda: collection.count_documents({}) >= count, f"{count} records are stored")
    return [document["data"] for document in collection.find().sort("data.time", 1)]


def run(code, *arguments, timeout=PATIENCE):
    """Run a program with the package on its path."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Fake(http.server.ThreadingHTTPServer):
    """Answers what ``script`` says, then 202; None: no answer. ``seen``: of each request its headers and lines."""

    def __init__(self, *script):
        self.script = list(script)
        self.seen = []
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class FakeHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.seen.append((self.path, dict(self.headers), body.split(b"\n"), time.monotonic()))
        answer = self.server.script.pop(0) if self.server.script else (202, {})
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer[0])
        for name, value in ({"Content-Length": "0"} | answer[1]).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def fake():
    """``fake(*script)``: a server that misbehaves so."""
    made = []

    def fake(*script):
        server = Fake(*script)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        made.append(server)
        return server

    yield fake
    for server in made:
        server.shutdown()
        server.server_close()


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(client, "_FIRST_PAUSE", 0.001)


def test_importing_it_imports_nothing_of_the_server():
    result = run("import sys, tornado_logsrv.client; print(*sys.modules)")
    assert result.returncode == 0, result.stderr
    tops = {name.partition(".")[0] for name in result.stdout.split()}
    assert tops & {"tornado", "motor", "pymongo", "bson", "redis", "msgspec", "prometheus_client", "asyncio"} == set()
    assert {name for name in result.stdout.split() if name.startswith("tornado_logsrv")} == {
        "tornado_logsrv",
        "tornado_logsrv.client",
    }


@pytest.mark.parametrize("name", ["__init__.py", "client.py"])
def test_it_is_python_of_3_8(name):
    ast.parse((ROOT / "tornado_logsrv" / name).read_text(encoding="utf-8"), feature_version=(3, 8))


class Broken:
    def __repr__(self):
        raise ZeroDivisionError


def test_a_record_is_stored_field_by_field(start, collection, logger):
    circle = []
    circle.append(circle)
    with start() as process:
        handler = LogsrvHandler(process.url, ack="stored")
        logger.addHandler(handler)
        logger.warning("%s costs %d", "täa", 3, extra={"user": {"id": 7}, "a.b": None, "s": {1}, "big": 1 << 70})
        try:
            raise KeyError("gone")
        except KeyError:
            logger.exception("no luck", stack_info=True)
        logger.info("odd", extra={"circle": circle, "broken": Broken(), "keys": {(1, 2): 3}, "half": "\ud83d"})
        assert handler.flush(PATIENCE)
        assert (handler.sent, handler.dropped, handler.pending) == (3, 0, 0)
        first, second, third = stored(collection, 3)
    assert first == {
        "time": first["time"],
        "level": "warning",
        "logger": "shop.cart",
        "message": "täa costs 3",
        "file": __file__,
        "line": first["line"],
        "function": "test_a_record_is_stored_field_by_field",
        "process": os.getpid(),
        "thread": "MainThread",
        "host": socket.gethostname(),
        "template": "%s costs %d",
        "extra": {"user": {"id": 7}, "a.b": None, "s": "{1}", "big": first["extra"]["big"]},
    }
    assert str(first["extra"]["big"]) == str(1 << 70)
    assert abs(time.time() - calendar.timegm(time.strptime(first["time"], "%Y-%m-%dT%H:%M:%S.%fZ"))) < 60
    assert (second["level"], second["exception"]["type"], second["exception"]["message"]) == (
        "error",
        "KeyError",
        "'gone'",
    )
    assert second["exception"]["traceback"].endswith("raise KeyError(\"gone\")\nKeyError: 'gone'")
    assert second["stack"].startswith("Stack (most recent call last)")
    assert third["extra"]["broken"] == "<Broken that raises ZeroDivisionError>"
    assert (third["extra"]["keys"], third["extra"]["half"]) == ({"(1, 2)": 3}, "\\ud83d")
    assert "[...]" in repr(third["extra"]["circle"])


class Discreet(logging.Formatter):
    def format(self, record):
        return super().format(record).rstrip("0123456789") + "?"


def test_dict_config_makes_it(start, collection):
    with start() as process:
        handler = {"class": "tornado_logsrv.client.LogsrvHandler", "url": process.url}
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "formatters": {"plain": {"format": "%(levelname)s %(message)s"}, "own": {"()": Discreet}},
                "handlers": {
                    "plain": {**handler, "level": "INFO", "formatter": "plain"},
                    "own": {**handler, "formatter": "own"},
                },
                "loggers": {"configured": {"handlers": ["plain", "own"], "level": "DEBUG"}},
            }
        )
        log = logging.getLogger("configured")
        log.debug("password=1")
        log.info("password=2")
        for handler in list(log.handlers):
            log.removeHandler(handler)
            handler.close()
        assert sorted(data["message"] for data in stored(collection, 3)) == ["password=2", "password=?", "password=?"]


def test_a_server_killed_in_the_middle_has_every_record_once(start, collection, logger):
    port = free_port()
    handler = LogsrvHandler(f"http://127.0.0.1:{port}", batch_size=20, interval=0.01)
    logger.addHandler(handler)

    def log(numbers):
        for n in numbers:
            logger.info("record", extra={"n": n})
            time.sleep(0.0005)

    with start(port) as process:
        log(range(500))
        process.send_signal(signal.SIGKILL)
        log(range(500, 1000))
        process.wait()
    log(range(1000, 1200))
    with start(port):
        log(range(1200, 1500))
        assert handler.flush(PATIENCE)
        found = stored(collection, 1500)
    assert sorted(data["extra"]["n"] for data in found) == list(range(1500))
    assert handler.dropped == 0


def test_a_full_buffer_drops_the_newest_without_blocking_and_says_so(start, collection, logger, capsys):
    port = free_port()
    handler = LogsrvHandler(f"http://127.0.0.1:{port}", buffer_bytes=20_000, interval=0.01)
    logger.addHandler(handler)
    before = time.monotonic()
    for n in range(1000):
        logger.info("record", extra={"n": n})
    assert time.monotonic() - before < 1
    kept = 1000 - handler.dropped
    assert 20 < kept < 200
    with start(port):
        assert handler.flush(PATIENCE)
        logger.info("later", extra={"n": 1000})
        assert handler.flush(PATIENCE)
        found = stored(collection, kept + 2)
    told = [data for data in found if "dropped" in data]
    assert [(data["dropped"], data["level"]) for data in told] == [(1000 - kept, "warning")]
    assert sorted(data["extra"]["n"] for data in found if "extra" in data) == [*range(kept), 1000]
    assert handler.sent == kept + 2
    said = capsys.readouterr().err
    assert said.count("does not take records: ConnectionRefusedError") == said.count("takes records again") == 1


def test_at_exit_what_waits_is_sent(start, collection):
    with start() as process:
        result = run(
            """
            import logging, sys
            from tornado_logsrv.client import LogsrvHandler
            logging.basicConfig(handlers=[LogsrvHandler(sys.argv[1], interval=3600)], level="INFO")
            for n in range(300):
                logging.info("last words", extra={"n": n})
            """,
            process.url,
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert sorted(data["extra"]["n"] for data in stored(collection, 300)) == list(range(300))


@pytest.mark.parametrize("answers", [False, True])
def test_a_server_that_is_away_or_hangs_at_exit_holds_nothing_up(answers):
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        if answers:
            hanging.listen()
        before = time.monotonic()
        result = run(
            """
            import logging, sys
            from tornado_logsrv.client import LogsrvHandler
            for _ in range(3):
                logging.getLogger().addHandler(LogsrvHandler(sys.argv[1], exit_timeout=1.0))
            logging.error("last words")
            """,
            f"http://127.0.0.1:{hanging.getsockname()[1]}",
        )
    assert result.returncode == 0
    assert time.monotonic() - before < 5
    assert result.stderr.count("1 records were not sent") == 3


def test_when_there_can_be_no_thread_flush_sends(start, collection, logger, monkeypatch):
    monkeypatch.setattr(client._Sender, "start", lambda _: None)
    with start() as process:
        handler = LogsrvHandler(process.url, exit_timeout=0.1)
        logger.addHandler(handler)
        for n in range(3):
            logger.error("%d", n)
        assert handler.pending == 3
        assert handler.flush(PATIENCE)
        assert [data["message"] for data in stored(collection, 3)] == ["0", "1", "2"]
    logger.error("away")
    before = time.monotonic()
    assert not handler.flush(0.3)
    assert 0.2 < time.monotonic() - before < 3
    assert not handler.flush(0.1)


def test_a_fork_sends_each_record_once(start, collection):
    with start() as process:
        result = run(
            """
            import logging, multiprocessing, os, sys, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            from tornado_logsrv.client import LogsrvHandler
            handler = LogsrvHandler(sys.argv[1], interval=0.2)
            logging.basicConfig(handlers=[handler], level="INFO")

            def child(name):
                logging.info(name)

            logging.info("sent before")
            handler.flush()
            logging.info("waits while it forks")
            if pid := os.fork():
                assert os.waitpid(pid, 0)[1] == 0
            else:
                assert handler.pending == handler.sent == 0
                logging.info("child")
                sys.exit()
            made = multiprocessing.get_context("fork").Process(target=child, args=("multiprocessing",))
            made.start()
            made.join()
            logging.info("parent")
            """,
            process.url,
        )
        assert (result.returncode, result.stderr) == (0, "")
        found = stored(collection, 5)
    names = ["sent before", "waits while it forks", "child", "multiprocessing", "parent"]
    assert sorted(data["message"] for data in found) == sorted(names)
    assert len({data["process"] for data in found}) == 3


def test_what_it_sends(fake, logger):
    server = fake()
    handler = LogsrvHandler(server.url + "/behind/", token="s3cret", ack="stored", interval=3600)
    logger.addHandler(handler)
    logger.error("short")
    assert handler.flush(PATIENCE)
    for _ in range(100):
        logger.error("long")
    assert handler.flush(PATIENCE)
    (path, first, lines, _), (_, second, more, _) = server.seen
    assert (path, first["Authorization"]) == ("/behind/add-jobs?ack=stored", "Bearer s3cret")
    assert (first["Content-Type"], "Content-Encoding" in first) == ("application/x-ndjson", False)
    assert [json.loads(line)["message"] for line in lines] == ["short"]
    assert (second["Content-Encoding"], len(more)) == ("gzip", 100)
    assert first["Idempotency-Key"] != second["Idempotency-Key"]


@pytest.mark.parametrize("answer", [None, *((status, {}) for status in (302, 401, 404, 408, 429, 500, 503, 504))])
def test_what_may_be_mended_is_sent_again_under_its_key(fake, logger, no_pause, answer):
    server = fake(answer, answer)
    logger.addHandler(handler := LogsrvHandler(server.url))
    logger.error("x")
    assert handler.flush(PATIENCE)
    keys = [headers["Idempotency-Key"] for _, headers, _, _ in server.seen]
    assert (len(keys), len(set(keys)), handler.sent, handler.dropped) == (3, 1, 1, 0)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_record_that_is_refused_is_dropped_and_holds_none_up(fake, logger, status):
    server = fake((status, {}))
    logger.addHandler(handler := LogsrvHandler(server.url))
    logger.error("bad")
    assert handler.flush(PATIENCE)
    logger.error("good")
    assert handler.flush(PATIENCE)
    assert (len(server.seen), handler.sent, handler.dropped) == (2, 1, 1)


def test_a_batch_that_is_too_large_is_halved(fake, logger):
    server = fake((413, {}), (413, {}))
    logger.addHandler(handler := LogsrvHandler(server.url, interval=3600))
    for n in range(5):
        logger.error("%d", n)
    assert handler.flush(PATIENCE)
    assert [len(lines) for _, _, lines, _ in server.seen] == [5, 2, 1, 1, 3]
    assert len({headers["Idempotency-Key"] for _, headers, _, _ in server.seen}) == 5
    assert (handler.sent, handler.dropped) == (5, 0)


def test_retry_after_is_honoured_also_when_somebody_waits(fake, logger, no_pause):
    server = fake((503, {"Retry-After": "1"}))
    logger.addHandler(handler := LogsrvHandler(server.url))
    logger.error("x")
    assert handler.flush(PATIENCE)
    (_, _, _, first), (_, _, _, second) = server.seen
    assert 1 <= second - first < 3


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [
        (None, 0, 0),
        ("", 0, 0),
        ("7", 7, 7),
        ("999999999", 300, 300),
        ("-1", 0, 0),
        ("soon", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Wed, 21 Oct 2999 07:28:00 GMT", 300, 300),
    ],
)
def test_retry_after_is_a_number_or_a_date(field, least, most):
    assert least <= client._retry_after(field) <= most


def test_an_idle_connection_that_the_server_has_closed_is_no_failure(fake, logger, capsys):
    server = fake((202, {}), None)
    logger.addHandler(handler := LogsrvHandler(server.url))
    logger.error("1")
    assert handler.flush(PATIENCE)
    logger.error("2")
    assert handler.flush(1)
    assert (len(server.seen), handler.sent, capsys.readouterr().err) == (3, 2, "")


def test_pauses_grow_with_full_jitter(monkeypatch):
    longest = []
    monkeypatch.setattr(client.random, "uniform", lambda low, high: longest.append((low, high)) or 0.0)
    sender = client._Sender(client._Buffer(1, 1, 1), client._Target("http://x", "", "", 1, "", None))
    for _ in range(9):
        sender._pause()
    assert [high for _, high in longest] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert {low for low, _ in longest} == {0}


def test_what_is_logged_while_sending_does_not_come_back(fake, logger, monkeypatch):
    server = fake()
    logger.addHandler(handler := LogsrvHandler(server.url, interval=0))
    exchange = client._Sender._exchange

    def chatty(self, *arguments):
        logger.error("sending")
        return exchange(self, *arguments)

    monkeypatch.setattr(client._Sender, "_exchange", chatty)
    logger.error("x")
    assert handler.flush(PATIENCE)
    assert [json.loads(line)["message"] for _, _, lines, _ in server.seen for line in lines] == ["x"]
    assert handler.dropped == 1


def test_a_text_that_logs_while_it_is_made_is_no_loop(fake, logger):
    server = fake()
    logger.addHandler(handler := LogsrvHandler(server.url))

    class Chatty:
        def __str__(self):
            logger.error("made")
            return "text"

    class Endless:
        def __str__(self):
            logger.error("%s", self)
            return "end"

    logger.error("%s", Chatty())
    logger.error("%s", Endless())
    assert handler.flush(PATIENCE)
    messages = [json.loads(line)["message"] for _, _, lines, _ in server.seen for line in lines]
    assert messages[:2] == ["made", "text"]
    assert set(messages[2:]) == {"end"}
    assert handler.dropped == 1


def test_it_never_raises(logger, capsys):
    logger.addHandler(handler := LogsrvHandler("http://127.0.0.1:9", exit_timeout=0.0))
    logger.error("%d", "no number")
    assert "Logging error" in capsys.readouterr().err
    assert handler.dropped == 1
    logger.error("waits")
    handler.close()
    logger.error("too late")
    assert (handler.dropped, handler.pending) == (3, 0)


@pytest.mark.parametrize("url", ["", "logs.example:3000", "ftp://logs.example", "http://"])
def test_a_url_that_is_none_is_said_so_at_once(url):
    with pytest.raises(ValueError, match="not the URL of a server"):
        LogsrvHandler(url)


def test_https_checks_the_certificate(monkeypatch):
    handler = LogsrvHandler("https://logs.example")
    connection = handler._target.connection(1.0)
    assert isinstance(connection, client.http.client.HTTPSConnection)
    assert connection._context.verify_mode == client.ssl.CERT_REQUIRED
    handler.close()


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"a": object}, b'{"a":"<class \'object\'>"}'),
        ({1: 2, None: 3}, b'{"1":2,"null":3}'),
        ({"b": b"\xff"}, b'{"b":"b\'\\\\xff\'"}'),
        ({"nan": float("nan")}, b'{"nan":NaN}'),
        ({(): [Broken()]}, b'{"()":["<Broken that raises ZeroDivisionError>"]}'),
        ({"n": 1 << 20_000}, b'{"n":"0x1' + b"0" * 5000 + b'"}'),
    ],
)
def test_what_json_has_no_word_for_is_its_repr(value, line):
    assert client.line_of(value) == line


def test_threads_that_log_at_once_lose_nothing(fake, logger):
    server = fake()
    logger.addHandler(handler := LogsrvHandler(server.url, interval=0, batch_size=7))

    def log():
        for n in range(500):
            logger.info("%d", n)

    threads = [threading.Thread(target=log) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert handler.flush(PATIENCE)
    assert sum(len(lines) for _, _, lines, _ in server.seen) == handler.sent == 2000
