"""rsyslog's omelasticsearch, a real one, writing to ``/_bulk``.

Debian's rsyslog cannot be installed beside syslog-ng. LOGSRV_TEST_RSYSLOG is a directory into which its packages have
been unpacked: rsyslog, rsyslog-elasticsearch, libestr0, libfastjson4, liblognorm5.
"""

import dataclasses
import datetime
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tornado_logsrv.server import http_server as make_http_server

from ..needs import needed
from ..process import PATIENCE, eventually

CONF = """
global(workDirectory="{directory}" maxMessageSize="64k")
module(load="imptcp")
module(load="omelasticsearch")
template(name="document" type="list" option.jsonf="on") {
    property(outname="@timestamp" name="timereported" dateFormat="rfc3339" format="jsonf")
    property(outname="message" name="msg" format="jsonf")
    property(outname="host.name" name="hostname" format="jsonf")
    property(outname="severity" name="syslogseverity-text" format="jsonf")
    property(outname="facility" name="syslogfacility-text" format="jsonf")
    property(outname="program" name="app-name" format="jsonf")
    property(outname="pid" name="procid" format="jsonf")
    property(outname="$sd" name="structured-data" format="jsonf")
}
# What it makes of a text with a quotation mark is no JSON.
template(name="careless" type="string" string="{\\"message\\":\\"%msg%\\"}")
input(type="imptcp" path="{directory}/socket")
action(type="omelasticsearch" server="http://127.0.0.1" serverport="{port}" template="{template}" bulkmode="on"
    searchIndex="syslog" searchType="" maxbytes="8m" errorfile="{directory}/errors"
    action.resumeRetryCount="-1" action.resumeInterval="1"
    queue.type="linkedList" queue.dequeueBatchSize="100")
"""


class Rsyslog:
    """A running rsyslogd with all that it writes in ``directory``."""

    def __init__(self, directory: Path, port: int, template: str) -> None:
        root = Path(os.environ.get("LOGSRV_TEST_RSYSLOG", "/nowhere"))
        program = root / "usr/sbin/rsyslogd"
        modules = next(root.glob("usr/lib/*/rsyslog/omelasticsearch.so"), None)
        needed("rsyslog with omelasticsearch (LOGSRV_TEST_RSYSLOG)", program.exists() and modules)
        self.directory = directory
        conf = CONF
        for name, value in {"directory": directory, "port": port, "template": template}.items():
            conf = conf.replace(f"{{{name}}}", str(value))
        (directory / "conf").write_text(conf, encoding="utf-8")
        with (directory / "output").open("w") as output:
            self.process = subprocess.Popen(
                [program, "-n", "-iNONE", "-f", directory / "conf", "-M", modules.parent],
                env={**os.environ, "LD_LIBRARY_PATH": str(modules.parent.parent)},
                stdout=output, stderr=output,
            )  # fmt: skip

    def log(self, *lines: str) -> None:
        """Hand it messages, when it is there."""
        path = self.directory / "socket"
        eventually(path.exists, "rsyslog listens")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall("".join(f"{line}\n" for line in lines).encode())

    @property
    def said(self) -> str:
        """What it has written of itself."""
        return (self.directory / "output").read_text(encoding="utf-8")

    @property
    def has_given_up(self) -> bool:
        """Whether it has put anything aside as failed for good."""
        return (self.directory / "errors").exists()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path, http_port):
    """``start(template)``: rsyslogd on its way to the server."""
    started = []

    def start(template: str = "document") -> Rsyslog:
        started.append(Rsyslog(tmp_path, http_port, template))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def message(text: str, second: int = 0) -> str:
    """A syslog message (RFC 5424)."""
    return f'<11>1 2026-01-31T12:00:0{second}.123456Z web-1 shop 42 ID7 [a@1 k="v.w"] {text}'


def texts(collection) -> list[str]:
    return sorted(document["message"] for document in collection.find())


@pytest.mark.gen_test(timeout=PATIENCE)
async def test_every_field_of_a_message_is_in_its_record(app, http_server, io_loop, collection, start):
    lines = ['hello "wörld"', "back\\slash and a tab\\t", "{not: json}", "x" * 20_000]
    rsyslog = start()
    await io_loop.run_in_executor(None, rsyslog.log, *(message(line, n) for n, line in enumerate(lines)))
    await io_loop.run_in_executor(None, eventually, lambda: app.unsettled == 4, "all have arrived")
    await app.writer.flush()
    found = sorted(collection.find({}, {"_id": False}), key=lambda document: document["timestamp"])
    for number, (document, line) in enumerate(zip(found, lines, strict=True)):
        assert document == {
            "source": "elasticsearch",
            "message": line,
            "data": {
                "@timestamp": f"2026-01-31T12:00:0{number}.123456Z",
                "time_unix_nano": 1769860800_123456000 + number * 1_000_000_000,
                "level": "err",
                "host.name": "web-1",
                "severity": "err",
                "facility": "user",
                "program": "shop",
                "pid": "42",
                "$sd": '[a@1 k="v.w"]',
                "_index": "syslog",
            },
            "timestamp": datetime.datetime(2026, 1, 31, 12, 0, number, 123000, datetime.UTC),
        }
    assert not rsyslog.has_given_up


@pytest.mark.gen_test(timeout=PATIENCE)
async def test_it_waits_for_a_server_that_is_down(app, http_server, http_port, io_loop, collection, start):
    http_server.stop()
    await http_server.close_all_connections()
    rsyslog = start()
    await io_loop.run_in_executor(None, rsyslog.log, message("one"), message("two"))
    await io_loop.run_in_executor(None, eventually, lambda: "suspending" in rsyslog.said, "it has tried")
    back = make_http_server(app)
    back.listen(http_port, "127.0.0.1")
    try:
        await io_loop.run_in_executor(None, eventually, lambda: app.unsettled == 2, "both have arrived")
    finally:
        back.stop()
        await back.close_all_connections()
    await app.writer.flush()
    assert texts(collection) == ["one", "two"]
    assert not rsyslog.has_given_up


@pytest.mark.gen_test(timeout=PATIENCE)
async def test_what_the_queue_has_no_room_for_it_sends_again_and_loses_nothing(
    app, http_server, io_loop, collection, start, monkeypatch
):
    monkeypatch.setattr(app.queue, "_max_bytes", 10)
    rsyslog = start()
    lines = [f"line {number:02}" for number in range(20)]
    await io_loop.run_in_executor(None, rsyslog.log, *map(message, lines))
    refused = app.ledger.row
    await io_loop.run_in_executor(
        None, eventually, lambda: refused("elasticsearch")["refused"] > 20, "it has tried more than once"
    )
    monkeypatch.undo()
    await io_loop.run_in_executor(None, eventually, lambda: app.unsettled == 20, "all have arrived")
    await app.writer.flush()
    assert texts(collection) == lines
    assert not rsyslog.has_given_up


class TestRedisAway:
    @pytest.fixture
    def options(self, options):
        return dataclasses.replace(options, redis_url="redis://127.0.0.1:9", ack="journal")

    @pytest.mark.gen_test(timeout=PATIENCE)
    async def test_what_cannot_be_journaled_it_sends_again(self, app, http_server, io_loop, start):
        rsyslog = start()
        await io_loop.run_in_executor(None, rsyslog.log, message("one"))
        refused = app.ledger.row
        await io_loop.run_in_executor(
            None, eventually, lambda: refused("elasticsearch")["refused"] > 1, "it has tried more than once"
        )
        assert not rsyslog.has_given_up


@pytest.mark.gen_test(timeout=PATIENCE)
async def test_a_document_that_is_no_json_costs_none_of_its_neighbours(
    app, http_server, io_loop, collection, database, start
):
    rsyslog = start("careless")
    await io_loop.run_in_executor(None, rsyslog.log, message("one"), message('a "quoted" word'), message("two"))
    await io_loop.run_in_executor(None, eventually, lambda: app.unsettled == 3, "all have arrived")
    await app.writer.flush()
    assert texts(collection) == ["one", "two"]
    (bad,) = database["logs_quarantine"].find()
    assert bad["original"].rstrip() == b'{"message":"a "quoted" word"}'
    # It is content, and sends nothing of it again.
    assert not rsyslog.has_given_up
