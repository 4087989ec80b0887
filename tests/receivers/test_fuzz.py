"""Any bytes to any receiver, over real HTTP: never a 5xx, never no answer, never memory out of proportion, and good
neighbours are taken.

Each parser gets new bodies for LOGSRV_TEST_FUZZ_SECONDS, and a first round of them however long it takes.
"""

import gzip
import json
import os
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import bson
import cramjam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tornado_logsrv import codings

pytestmark = pytest.mark.long

DATA = Path(__file__).parent.parent / "data"
SECONDS = float(os.environ.get("LOGSRV_TEST_FUZZ_SECONDS", "0"))
#: One that hangs is answered by the client itself, with 599.
PATIENCE = 60
#: SecantusDB takes some 10,000 records a second where nothing else is at work, and a body may be 250,000.
STORE_PATIENCE = 600
#: What is on the queue is stored when it is more than this: a full one is a 503, and rightly so.
MOST_QUEUED = 100_000
ROUND = settings(
    max_examples=20,
    deadline=None,
    # The same bodies in every round would be none the wiser.
    derandomize=False,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
#: What a request may take of memory, its client and its records on the queue with it: for each byte of its body, once
#: decoded, and whatever its size. JSON of many small values takes some 50 bytes for each of its own while it is read.
BYTES_A_BYTE, BYTES_ALWAYS = 100, 4 * 1024 * 1024
FIRST, LAST = "the first neighbour", "the last neighbour"


def snappy(body: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(body))


def asis(body: bytes) -> bytes:
    return body


def length(size: int) -> bytes:
    """A varint."""
    return bytes([size & 127 | 128]) + length(size >> 7) if size > 127 else bytes([size])


def field(number: int, value: bytes) -> bytes:
    """A protobuf field of bytes."""
    return bytes([number << 3 | 2]) + length(len(value)) + value


def otlp(record: bytes) -> bytes:
    def text(value: str) -> bytes:
        return field(2, field(5, field(1, value.encode())))

    return field(1, field(2, text(FIRST) + field(2, record) + text(LAST)))


def loki(entry: bytes) -> bytes:
    def line(value: str) -> bytes:
        return field(2, field(2, value.encode()))

    return field(1, field(1, b"{}") + line(FIRST) + field(2, entry) + line(LAST))


def lines(name: str, before: bytes = b"") -> Callable[[bytes], bytes]:
    """A line between two objects whose text is ``name``."""

    def body(line: bytes) -> bytes:
        neighbours = [json.dumps({name: text}).encode() for text in (FIRST, LAST)]
        # One that is blank is no line, and makes no item.
        middle = line.replace(b"\n", b" ") + b"x"
        return b"\n".join(before + each for each in (neighbours[0], middle, neighbours[1]))

    return body


class Protocol(NamedTuple):
    """Where to send what; ``pack`` is what all its bodies are in, ``around`` puts bytes between two good records."""

    path: str
    media_type: str
    seeds: list[bytes]
    around: Callable[[bytes], bytes] | None = None
    pack: Callable[[bytes], bytes] = asis


def data(*names: str) -> list[bytes]:
    return [(DATA / name).read_bytes() for name in names]


NDJSON = b'{"a":1,"b.c":"\\u00e9","$d":[{"e":null}]}\n{"message":"two","level":"WARN"}\n'
OTLP = ExportLogsServiceRequest.FromString(otlp(field(6, field(1, b"k") + field(2, field(5, field(1, b""))))))
BULK_DATA = data(*(f"elasticsearch_{name}.ndjson" for name in ("filebeat", "fluent_bit", "logstash", "vector")))
PROTOCOLS = {
    "otlp protobuf": Protocol("/v1/logs", "application/x-protobuf", [OTLP.SerializeToString()], otlp),
    "otlp json": Protocol("/v1/logs", "application/json", data("otlp_js_sdk.json")),
    "loki protobuf": Protocol(
        "/loki/api/v1/push",
        "application/x-protobuf",
        [bytes(cramjam.snappy.decompress_raw(*data("loki_winston.snappy")))],
        loki,
        snappy,
    ),
    "loki json": Protocol("/loki/api/v1/push", "application/json", data("loki_winston.json", "loki_pino.json")),
    "bulk": Protocol("/_bulk", "application/x-ndjson", BULK_DATA, lines("message", b'{"create":{}}\n')),
    "hec": Protocol(
        "/services/collector",
        "application/json",
        data("splunk_docker.json", "splunk_fluent_bit.json", "splunk_handler.json", "splunk_vector.json"),
        lines("event"),
    ),
    "hec raw": Protocol("/services/collector/raw", "text/plain", [b"one\ntwo\r\n\xff\n"]),
    "gelf": Protocol(
        "/gelf", "application/json", data("gelf_curl.json", "gelf_fluent_bit.ndjson"), lines("short_message")
    ),
    "datadog": Protocol("/api/v2/logs", "application/json", data("datadog_agent.json", "datadog_fluent_bit.json")),
    "jobs": Protocol("/add-jobs", "application/json", [b'[{"a":1},{"b":[2.5e3,"\\ud83d"]}]', b'{"logs":[{"a":1}]}']),
    "job lines": Protocol("/add-jobs", "application/x-ndjson", [NDJSON], lines("a")),
    "jobs by key": Protocol("/add-jobs?key_field=k", "application/x-ndjson", [b'{"k":"a"}\n{"k":7}\n{}\n']),
    "form": Protocol("/add-jobs", "application/x-www-form-urlencoded", [b"a=1&a=2&b=%ff&c=%C3%A9&msg=hello+you"]),
    "winston": Protocol("/winston", "application/json", [b'{"message":"a","level":"info","meta":{"b":1}}']),
}

#: What is put into bodies: beginnings without ends, texts and numbers that few can hold, lengths that promise too much.
PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b",",
        b":",
        b"\n",
        b"\r\n",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"null",
        b"NaN",
        b"1e999",
        b"-",
        b"9" * 5000,
        b"0." + b"1" * 5000,
        b'"\\ud800"',
        b'"\\u0000":1,',
        b'{"a":1,"a":2}',
        b"{}\n" * 2000,
        b"[]," * 2000,
        b"[" * 20_000,
        b'{"a":' * 20_000,
        b'{"event":"' * 1000,
        b'{"index":{}}\n',
        b'{"delete":{"_id":1}}\n',
        b'{"_index":{}}',
        b"\n" * 3000,
        b"\x0a\x00" * 3000,
        b"\x12\x00" * 3000,
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x80" * 11,
        b"\x0b" * 200,
        b"&=" * 3000,
        b"%",
        b"%u0000",
        b'"timestamp":1e-400,',
        b'"time":"' + b"9" * 40 + b'",',
    ]
)


def nested(depth: int) -> bytes:
    """AnyValue in AnyValue, as deep as that."""
    value = b""
    for _ in range(depth):
        value = field(5, field(1, value))
    return field(5, value)


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good body, cut, doubled, changed and mixed with other things."""
    body = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.integers(0, 64)))
        middle = draw(PIECES | st.binary(max_size=8) | st.just(body[start:end] * 2))
        tail = draw(st.sampled_from([body[end:], body[end:], b""]))
        body = body[:start] + middle + tail
    return body


anything = (
    st.binary(max_size=200)
    | st.lists(PIECES | st.binary(max_size=4), max_size=12).map(b"".join)
    | st.integers(0, 200).map(nested)
)


def damaged_coding(packed: bytes, at: int, how: str) -> bytes:
    at %= len(packed) + 1
    return {"whole": packed, "cut": packed[:at], "changed": packed[:at] + b"\xa5" + packed[at + 1 :]}[how]


PACKS = {
    "": asis, "gzip": gzip.compress, "deflate": zlib.compress, "zstd": codings.zstd.compress
}  # fmt: skip
packings = st.tuples(
    st.sampled_from(["", "", "", *PACKS]), st.integers(0, 5000), st.sampled_from(["whole", "whole", "cut", "changed"])
)


class Sender:
    """Sends bodies, and keeps account of what they cost."""

    def __init__(self, app, http_client, io_loop, base_url):
        self.app, self.client, self.io_loop, self.base_url = app, http_client, io_loop, base_url
        self.examples = 0
        self.most = 0.0

    def __call__(self, protocol: Protocol, body: bytes, packed: bytes, coding: str = "") -> int:
        """The status that ``body``, sent as ``packed``, is answered with; and it has not taken too much memory."""
        if len(self.app.records) > MOST_QUEUED:
            self.io_loop.run_sync(self.app.writer.flush, timeout=STORE_PATIENCE)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        status = self.io_loop.run_sync(lambda: self.post(protocol, packed, coding))
        taken = tracemalloc.get_traced_memory()[1] - before
        bound = BYTES_ALWAYS + BYTES_A_BYTE * len(body)
        assert taken < bound, f"{taken} bytes of memory for a body of {len(body)}"
        self.examples += 1
        self.most = max(self.most, taken / bound)
        return status

    async def post(self, protocol: Protocol, packed: bytes, coding: str) -> int:
        headers = {"Content-Type": protocol.media_type, **({"Content-Encoding": coding} if coding else {})}
        response = await self.client.fetch(
            self.base_url + protocol.path,
            method="POST", body=packed, headers=headers, raise_error=False, request_timeout=PATIENCE,
        )  # fmt: skip
        return response.code


@pytest.fixture
def send(app, http_server, http_client, io_loop, base_url, record_property):
    sender = Sender(app, http_client, io_loop, base_url)
    tracemalloc.start()
    yield sender
    tracemalloc.stop()
    record_property("examples", sender.examples)
    record_property("most of the memory allowed", round(sender.most, 3))


def rounds(check: Callable[[], None], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    check()
    while time.monotonic() < end:
        check()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_body_is_a_fault_of_the_server(send, name):
    protocol = PROTOCOLS[name]

    @ROUND
    @given(damaged(protocol.seeds) | anything, packings)
    def check(body, packing):
        coding, at, how = packing
        packed = damaged_coding(PACKS[coding](protocol.pack(body)), at, how)
        assert send(protocol, body, packed, coding) < 500

    rounds(check)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if PROTOCOLS[name].around])
def test_whatever_stands_between_them_two_good_records_are_taken(app, send, name, monkeypatch):
    protocol = PROTOCOLS[name]
    # What a request has put on the queue stays there until it has been looked at.
    monkeypatch.setattr(app.writer, "offered", lambda: None)

    @ROUND
    @given(damaged(protocol.seeds) | anything)
    def check(between):
        before = app.queue.next_place
        body = protocol.around(between)
        assert send(protocol, body, protocol.pack(body)) < 300
        taken = list(app.records)[before - app.queue.next_place :]
        assert holds(taken[0], FIRST)
        assert holds(taken[-1], LAST)

    # The other test has the same bodies for longer.
    rounds(check, SECONDS / 4)


def holds(record: bytes, text: str) -> bool:
    document = bson.decode(record)
    return document["message"] == text or document["data"] == {"a": text}
