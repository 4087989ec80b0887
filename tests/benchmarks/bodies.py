"""The same records in the words of every protocol: level, service, message, and two fields more."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import cramjam
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tornado_logsrv.jsonlines import ValuesReader
from tornado_logsrv.receivers import elasticsearch, gelf, loki, otlp, protobuf, splunk_events

from . import bars
from .rows import Bar

SERVICE = "shop-checkout"
#: Level → its number in OTLP, and in GELF.
LEVELS = {"info": (9, 6), "debug": (5, 7), "error": (17, 3)}
_MESSAGES = ("order is placed", "payment is authorized by the bank", "stock is reserved", "mail is on its way")
_BEGAN_MS = 1_767_225_600_000
_NANOSECONDS = 1_000_000
#: More bytes than any of these bodies, once its snappy is undone.
_LIMIT = 1 << 24
_ACTION = b'{"create":{"_index":"shop"}}\n'
#: grafana/loki, pkg/push/push.proto.
_LOKI = protobuf.declare(
    "benchmark",
    PushRequest="repeated Stream streams = 1",
    Stream="string labels = 1, repeated Entry entries = 2",
    Entry="Timestamp timestamp = 1, string line = 2, repeated Pair metadata = 3",
    Pair="string name = 1, string value = 2",
    Timestamp="int64 seconds = 1, int32 nanos = 2",
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One record, before a protocol has it."""

    time_ms: int
    level: str
    message: str
    order: int
    ms: int

    @property
    def job(self) -> dict[str, Any]:
        """As an application that posts here would have it."""
        fields = {"message": self.message, "order": self.order, "ms": self.ms}
        return {"level": self.level, "service": SERVICE, **fields}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How records are written and read: what ``read`` gives are records, before they are encoded."""

    id: str
    name: str
    path: str
    media_type: str
    write: Callable[[Sequence[Entry]], bytes]
    read: Callable[[bytes], Iterable[Any]]
    bar: Bar | None = None


def entries(first: int, count: int) -> list[Entry]:
    """``count`` records, of which each has an order number of its own."""
    levels = list(LEVELS)
    return [
        Entry(_BEGAN_MS + n, levels[n % 7 % len(levels)], _MESSAGES[n % len(_MESSAGES)], 1_234_567 + n, n * 37 % 250)
        for n in range(first, first + count)
    ]


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _lines(values: Iterable[Any]) -> bytes:
    return b"".join(_json(value) + b"\n" for value in values)


def _ndjson(found: Sequence[Entry]) -> bytes:
    return _lines(entry.job for entry in found)


def _read_ndjson(body: bytes) -> Iterator[Any]:
    reader = ValuesReader(ndjson=True)
    for block in itertools.chain(reader.feed(body), reader.end()):
        yield from block.values


def _otlp(found: Sequence[Entry]) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    logs.resource.attributes.add(key="service.name").value.string_value = SERVICE
    scope = logs.scope_logs.add()
    scope.scope.name = "shop"
    for entry in found:
        record = scope.log_records.add(time_unix_nano=entry.time_ms * _NANOSECONDS, severity_text=entry.level.upper())
        record.severity_number = LEVELS[entry.level][0]
        record.body.string_value = entry.message
        record.attributes.add(key="order").value.int_value = entry.order
        record.attributes.add(key="ms").value.int_value = entry.ms
    return request


def _otlp_json(found: Sequence[Entry]) -> bytes:
    return _json(MessageToDict(_otlp(found), use_integers_for_enums=True))


def _streams(found: Sequence[Entry]) -> dict[str, list[Entry]]:
    return {level: [entry for entry in found if entry.level == level] for level in LEVELS}


def _loki_json(found: Sequence[Entry]) -> bytes:
    def value(entry: Entry) -> list[Any]:
        return [str(entry.time_ms * _NANOSECONDS), entry.message, {"order": str(entry.order), "ms": str(entry.ms)}]

    streams = [
        {"stream": {"service": SERVICE, "level": level}, "values": [value(entry) for entry in of_level]}
        for level, of_level in _streams(found).items()
    ]
    return _json({"streams": streams})


def _loki_protobuf(found: Sequence[Entry]) -> bytes:
    push: Any = _LOKI["PushRequest"]()
    for level, of_level in _streams(found).items():
        stream = push.streams.add(labels=f'{{service="{SERVICE}", level="{level}"}}')
        for entry in of_level:
            added = stream.entries.add(line=entry.message)
            added.timestamp.seconds, milliseconds = divmod(entry.time_ms, 1000)
            added.timestamp.nanos = milliseconds * _NANOSECONDS
            added.metadata.add(name="order", value=str(entry.order))
            added.metadata.add(name="ms", value=str(entry.ms))
    return bytes(cramjam.snappy.compress_raw(push.SerializeToString()))


def _bulk(found: Sequence[Entry]) -> bytes:
    return b"".join(_ACTION + _lines([{"@timestamp": _iso(entry.time_ms)} | entry.job]) for entry in found)


def _iso(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03}Z"


def _hec(found: Sequence[Entry]) -> bytes:
    return _lines({"time": entry.time_ms / 1000, "event": entry.job} for entry in found)


def _gelf(found: Sequence[Entry]) -> bytes:
    return _lines(
        {
            "version": "1.1",
            "host": SERVICE,
            "short_message": entry.message,
            "timestamp": entry.time_ms / 1000,
            "level": LEVELS[entry.level][1],
            "_order": entry.order,
            "_ms": entry.ms,
        }
        for entry in found
    )


_PROTOBUF, _JSON, _NDJSON = "application/x-protobuf", "application/json", "application/x-ndjson"
#: What the others are set against.
NDJSON = Protocol("ndjson", "/add-jobs, NDJSON", "/add-jobs", _NDJSON, _ndjson, _read_ndjson)
PROTOCOLS = (
    Protocol(
        "otlp-protobuf",
        "OTLP, protobuf",
        "/v1/logs",
        _PROTOBUF,
        lambda found: _otlp(found).SerializeToString(),
        lambda body: otlp.parse(body, False),
        bars.OTLP_PROTOBUF,
    ),
    Protocol("otlp-json", "OTLP, JSON", "/v1/logs", _JSON, _otlp_json, lambda body: otlp.parse(body, True)),
    Protocol(
        "loki-json",
        "Loki, JSON",
        "/loki/api/v1/push",
        _JSON,
        _loki_json,
        lambda body: loki.parse(body, True, _LIMIT),
        bars.LOKI_JSON,
    ),
    Protocol(
        "loki-protobuf",
        "Loki, snappy protobuf",
        "/loki/api/v1/push",
        _PROTOBUF,
        _loki_protobuf,
        lambda body: loki.parse(body, False, _LIMIT),
    ),
    Protocol(
        "bulk",
        "Elasticsearch _bulk",
        "/_bulk",
        _NDJSON,
        _bulk,
        lambda body: (row for _, row in elasticsearch.parse(body)),
        bars.BULK,
    ),
    Protocol("hec", "Splunk HEC", "/services/collector/event", _JSON, _hec, lambda body: splunk_events.parse(body, {})),
    Protocol("gelf", "GELF, lines", "/gelf", _NDJSON, _gelf, gelf.parse),
)
