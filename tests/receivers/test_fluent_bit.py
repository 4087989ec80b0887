"""What Fluent Bit itself sends from each of its outputs, recorded off the wire, is stored field by field."""

import base64
import json
from pathlib import Path

import pytest

REQUESTS = json.loads((Path(__file__).parent.parent / "data" / "fluent_bit.json").read_text())
SENT_MS = 1795949214_197
SENT_NS = SENT_MS * 1_000_000 + 942_602
TEXT = "order 17 placed: 3 \u00d7 Übergröße"
#: The record that was sent twice, besides its text.
REST = {"a.b": 1, "$cost": 2.5, "nested": {"k": [1, None, True]}}
LOWER = {"level": "warn", "severity_text": "WARN"}
ALL = {"log": TEXT, "level": "WARN", **REST}
JOB = ("Job processed", {"date": 1795949214.197942, **ALL})
#: Output → the message and the data of the first of its two records.
STORED = {
    "datadog": (TEXT, {"tagkey": "shop", "ddsource": "py", "service": "shop", "ddtags": "a:b", **LOWER, **REST}),
    "es": (TEXT, {"_index": "shop", "log": TEXT, **LOWER, **REST}),
    "es, logstash, gzip": (
        TEXT,
        {
            "_index": "logstash-2026.11.29",
            "_id": "58a83e26-61ac-7ee6-d158-ae55096ff279",
            "@timestamp": "2026-11-29T10:46:54.197942602Z",
            "time_unix_nano": SENT_NS,
            "log": TEXT,
            **LOWER,
            **REST,
        },
    ),
    "http, gelf": (TEXT, {"version": "1.1", "a.b": 1, "_cost": 2.5, "nested_k": "1, null, true", **LOWER}),
    "http, json": JOB,
    "http, json_lines, iso8601, gzip": (JOB[0], {"date": "2026-11-29T10:46:54.197942Z", **ALL}),
    "http, json_lines, zstd": JOB,
    "http, json_stream, snappy": JOB,
    "loki": (
        json.dumps(REST, separators=(",", ":")),
        {
            "level": "warn",
            "time_unix_nano": SENT_NS,
            "structured_metadata": {"x": TEXT},
            "labels": {"job": "shop", "level": "WARN"},
        },
    ),
    "loki, key_value, gzip": (
        'a.b=1 $cost=2.5 nested="map[k:"[1 null true]"]"',
        {"time_unix_nano": SENT_NS, "labels": {"job": "shop2"}, "tenant": "blue"},
    ),
    "opentelemetry": (TEXT, {"time_unix_nano": SENT_NS}),
    "opentelemetry, gzip, attributes": (
        TEXT,
        {"time_unix_nano": SENT_NS, "attributes": {"level": "WARN", **REST}},
    ),
    "splunk": (TEXT, {"event": ALL, "level": "warn", "time_unix_nano": SENT_MS * 1_000_000 + 942_000}),
}


@pytest.mark.parametrize("request_", REQUESTS, ids=[request["output"] for request in REQUESTS])
@pytest.mark.gen_test
async def test_it_is_stored(fetch, app, collection, monkeypatch, request_):
    monkeypatch.setattr(app, "now_ms", lambda: SENT_MS + 3_000)
    body = base64.b64decode(request_["body"])
    response = await fetch(f"{request_['path']}?ack=stored", body, headers={"Content-Type": ""} | request_["headers"])
    assert response.code == request_["status"]
    first, second = collection.find().sort([("timestamp", 1), ("_id", 1)])
    assert (first["message"], first["data"]) == STORED[request_["output"]]
    assert second["message"] == first["message"]
    received = 3_000 if request_["path"] == "/add-jobs" else int(request_["output"] == "datadog")
    assert round(first["timestamp"].timestamp() * 1000) == SENT_MS + received
    assert "notes" not in first
