"""Bodies of very many values, to every receiver of a real server: they cost little, and no good neighbour.

What a request may cost is told by what its body would cost who reads it without a bound: no time is known beforehand.
Processor time is taken, which another's load lengthens little.
"""

import functools
import threading
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tornado_logsrv import jsontext, records

from ..process import running
from .test_fuzz import field, otlp

#: Half of what a body may have.
SIZE = 8 << 20
JSON, NDJSON, PROTOBUF = "application/json", "application/x-ndjson", "application/x-protobuf"
#: Of the time that it takes to read such a body at once and make a record of it, what a request may take. Most take
#: less than a tenth, and the longest a third.
SHARE = 0.7
#: The same of a body of which half a million good jobs are taken, and encoded, before there is one too many: that is
#: about half of that time, and all of its jobs would be five times.
SHARE_OF_JOBS = 1.5
#: So small a part of the body is read for that.
PART = 8
#: Bytes of memory for each of a body, and whatever it is: there are copies of its bytes, and no values.
TIMES, ALWAYS = 12, 48 << 20


@functools.cache
def many(value: bytes, between: bytes = b",") -> bytes:
    return between.join([value] * (SIZE // (len(value) + len(between))))


def nested(value: bytes, levels: int) -> bytes:
    """``value`` in arrays of AnyValue."""
    for _ in range(levels):
        value = field(5, field(1, value))
    return value


@functools.cache
def keys(value: bytes, size: int = SIZE) -> bytes:
    """An object of many members."""
    return b"{%b}" % b",".join([b'"%d":%b' % (number, value) for number in range(size // (10 + len(value)))])


def array(value: bytes) -> bytes:
    return b"[%b]" % many(value)


RECORD = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%b]}]}]}'
PUSH = b'{"streams":[{"stream":{},"values":[%b]}]}'
SURROGATE = b'["1","\\ud800"],'
#: An AnyValue in two bytes: a member of an array.
EMPTY = b"\x0a\x00"
EVENTS = b'{"event":1}{"event":%b}{"event":{"a":%b}}{"event":1}'
MESSAGE = b'{"short_message":"a"}'
TRUTH = b'{"body":{"arrayValue":{"values":%b}}}'


def objects() -> bytes:
    return array(b"{}")


def members() -> bytes:
    return keys(b"{}")


def fewer() -> bytes:
    """Fewer than a body may have, and more than a record."""
    return keys(b"1")


def truths() -> bytes:
    """The same, as OTLP has them."""
    return array(b'{"boolValue":true}')


class Dense(NamedTuple):
    """A request, its status, how many records are taken, to the store or to quarantine, what is said, its SHARE."""

    path: str
    media_type: str
    body: Callable[[], bytes]
    status: int
    taken: int = 0
    says: str = "JSON values, the most that are read in one go"
    share: float = SHARE


HEC = "/services/collector"
CASES = {
    "one job": Dense("/add-job", JSON, lambda: objects(), 413),
    "one job of keys": Dense("/add-job", JSON, lambda: members(), 413),
    "one job of an array": Dense("/add-jobs", JSON, lambda: b"[%b]" % objects(), 400),
    "a job of an array": Dense("/add-jobs", JSON, lambda: b"[1,%b,2]" % members(), 202, 3),
    "a job of a line": Dense("/add-jobs", NDJSON, lambda: b'{"a":1}\n%b\n{"a":1}' % array(b"[]"), 202, 3),
    "objects of one line": Dense(
        "/add-jobs", NDJSON, lambda: many(b"{}", b""), 413, 0, "more than 500000 jobs", SHARE_OF_JOBS
    ),
    "bulk": Dense("/_bulk", NDJSON, lambda: b'{"create":{}}\n{"a":1}\n{"create":{}}\n{"a":%b}\n' % objects(), 200, 2),
    "bulk, in an action": Dense(
        "/_bulk", NDJSON, lambda: b'{"create":{"a":%b}}\n{"a":1}\n' % objects(), 400, 0, "action line"
    ),
    "HEC": Dense(HEC, JSON, lambda: b'{"event":{"a":%b}}' % objects(), 400),
    "HEC, among others": Dense(HEC, JSON, lambda: EVENTS % (b"1", members()), 200, 4),
    "HEC, behind one that is read exactly": Dense(HEC, JSON, lambda: EVENTS % (b'"\\ud800"', objects()), 200, 4),
    "HEC, with what is read exactly": Dense(HEC, JSON, lambda: EVENTS % (b"1", b'["\\ud800",%b]' % members()), 200, 4),
    "HEC, broken": Dense(HEC, JSON, lambda: EVENTS % (b"1", members() + b"x"), 200, 4),
    "GELF": Dense("/gelf", JSON, lambda: b'{"short_message":"a","_b":%b}' % objects(), 413),
    "GELF, a line": Dense(
        "/gelf", JSON, lambda: MESSAGE + b'\n{"short_message":"a","_b":%b}\n' % objects() + MESSAGE, 202, 3
    ),
    "Datadog": Dense("/api/v2/logs", JSON, lambda: b'[{"message":"a"},{"b":%b},{"message":"a"}]' % fewer(), 202, 3),
    "Datadog, many": Dense("/api/v2/logs", JSON, lambda: array(b"1"), 413),
    "OTLP": Dense("/v1/logs", JSON, lambda: RECORD % b",".join([b"{}", TRUTH % truths(), b"{}"]), 200, 3),
    "OTLP, many": Dense("/v1/logs", JSON, lambda: RECORD % many(b"{}"), 413),
    "OTLP, a lone surrogate": Dense(
        "/v1/logs", JSON, lambda: RECORD % (b'{"eventName":"\\ud800"},' + TRUTH % truths()), 413
    ),
    "OTLP, protobuf": Dense("/v1/logs", PROTOBUF, lambda: otlp(field(5, nested(many(EMPTY, b""), 5))), 200, 3),
    "OTLP, a resource": Dense(
        "/v1/logs", PROTOBUF, lambda: field(1, field(1, field(1, field(2, nested(many(EMPTY, b""), 1))))), 200, 1
    ),
    "Loki": Dense("/loki/api/v1/push", JSON, lambda: PUSH % (b'["1","a"],["1","a",%b],["1","a"]' % fewer()), 204, 3),
    "Loki, many": Dense("/loki/api/v1/push", JSON, lambda: PUSH % many(b"1"), 400),
    "Loki, a lone surrogate": Dense("/loki/api/v1/push", JSON, lambda: PUSH % (SURROGATE + many(b"[]")), 400),
    "Loki, labels": Dense("/loki/api/v1/push", JSON, lambda: b'{"streams":[{"stream":%b,"values":[]}]}' % fewer(), 400),
}


@pytest.fixture(scope="module")
def unbounded():
    """Processor seconds that it takes to read such a body at once, and to make a record of it."""
    body = keys(b"{}", SIZE // PART)

    def taken() -> float:
        began = time.thread_time()
        records.encode_job(*jsontext.read(body), bytes(12), 0)
        return PART * (time.thread_time() - began)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsontext, "MAX_VALUES", SIZE)
        patch.setattr(jsontext, "SPARSE_BYTES", SIZE)
        # The first time takes longer, by memory that is not there yet.
        return min(taken() for _ in range(3))


@pytest.fixture(scope="module")
def server(servers, tmp_path_factory):
    directory = tmp_path_factory.mktemp("dense")
    with running(
        "--port=0", "--ack=memory", "--flush_interval_ms=3600000", "--queue_max_bytes=1GiB",
        f"--data_dir={directory / 'data'}", f"--mongo_url={servers.mongo_url}", "--mongo_db=logsrv_test_dense",
        f"--redis_url={servers.redis_url}", "--redis_prefix=logsrv-test-dense",
        log=directory / "log",
    ) as process:  # fmt: skip
        yield process


class Others:
    """Somebody who asks for the server's health, again and again; ``answers`` is how often there was one."""

    def __init__(self, server) -> None:
        self.server, self.answers = server, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self.answers or not self._ended.wait(0.01):
            self.server.get("/healthz")
            self.answers += 1


def most_memory(pid: int, reset: bool = False) -> int:
    """The most resident memory that a process has had since the last reset (proc(5), clear_refs)."""
    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def send(server, dense: Dense, body: bytes) -> tuple[int, str]:
    """The status of the answer, and what an error says."""
    try:
        server.post(dense.path, body, **{"Content-Type": dense.media_type})
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")
    except ValueError:
        # Some answers are no JSON.
        pass
    return dense.status, ""


@pytest.mark.parametrize("name", CASES)
def test_a_dense_body_costs_little_and_no_good_neighbour(server, unbounded, name, record_property):
    dense = CASES[name]
    body = dense.body()
    queued = server.get("/queue-size")["queueSize"]
    memory, cpu = most_memory(server.pid, reset=True), server.cpu_seconds
    with Others(server) as others:
        status, said = send(server, dense, body)
    cpu, memory = server.cpu_seconds - cpu, most_memory(server.pid) - memory
    record_property("share", round(cpu / unbounded, 3))
    record_property("bytes a byte", round(memory / len(body), 1))
    assert (status, dense.says in said) == (dense.status, dense.status >= 400), said
    assert server.get("/queue-size")["queueSize"] - queued == dense.taken
    assert memory < TIMES * len(body) + ALWAYS, f"{memory >> 20} MiB"
    assert cpu < dense.share * unbounded, f"{cpu:.3f} s of {unbounded:.3f} s"
    assert others.answers
