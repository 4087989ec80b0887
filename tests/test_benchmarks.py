"""The benchmarks run, and measure everything they are to measure. What they find is for a quiet machine to say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import bodies
from tornado_logsrv.receivers.rows import apart

pytestmark = pytest.mark.long

ROWS = {
    "requests",
    "requests-storing",
    "requests-usual",
    "stored",
    "stored-posted",
    "journal-1",
    "journal-1-p99",
    "journal-1-cpu",
    "journal-32",
    "journal-32-p99",
    "journal-32-cpu",
    "journal-256",
    "journal-256-p99",
    "journal-256-cpu",
    "journal-batch",
    "journal-batch-p99",
    "journal-batch-cpu",
    "journal-storing",
    "journal-storing-p99",
    "journal-storing-cpu",
    "memory",
    "memory-journal",
    "dump-few",
    "dump-many",
    "read-back-few",
    "read-back-many",
    "dump-memory-few",
    "dump-memory-many",
    "read-back-memory-few",
    "read-back-memory-many",
    "recovery-listens",
    "recovery-queued",
    "recovery-memory",
    "recovery-singles-listens",
    "recovery-singles-queued",
    "recovery-singles-memory",
    "outage",
    "outage-wait",
    "pages-deep-few",
    "pages-deep-many",
    "pages-first-many",
    "pages-deep-growth",
    "index-insert-1",
    "index-insert-3",
    "index-bytes",
    "search-frequent",
    "search-rare",
    "search-histogram",
    "page-paint",
    "page-paint-bar",
    "page-lines",
    "page-scroll",
    "page-scroll-cpu",
    "page-key",
    "page-follow-cpu",
    "page-tasks",
    "tail-1-p50",
    "tail-1-p99",
    "tail-1-cpu",
    "tail-1-memory",
    "tail-500-p50",
    "tail-500-p99",
    "tail-500-cpu",
    "tail-500-memory",
    "tail-500-1000-p50",
    "tail-500-1000-p99",
    "tail-500-1000-cpu",
    "tail-500-1000-memory",
    "tail-500-queries-p50",
    "tail-500-queries-p99",
    "tail-500-queries-cpu",
    "tail-500-queries-memory",
    "tail-stored",
    "protocols-otlp-protobuf",
    "protocols-otlp-protobuf-cpu",
    "protocols-otlp-protobuf-decoding",
    "protocols-otlp-json",
    "protocols-otlp-json-cpu",
    "protocols-otlp-json-decoding",
    "protocols-loki-json",
    "protocols-loki-json-cpu",
    "protocols-loki-json-decoding",
    "protocols-loki-protobuf",
    "protocols-loki-protobuf-cpu",
    "protocols-loki-protobuf-decoding",
    "protocols-bulk",
    "protocols-bulk-cpu",
    "protocols-bulk-decoding",
    "protocols-hec",
    "protocols-hec-cpu",
    "protocols-hec-decoding",
    "protocols-gelf",
    "protocols-gelf-cpu",
    "protocols-gelf-decoding",
    "protocols-ndjson-decoding",
    "reuse-port",
    "reuse-port-cpu",
    "reuse-port-share",
    "sizes-journal",
    "sizes-journal-batch",
    "sizes-mongodb",
}


def test_a_quick_run_has_every_row():
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--json", "-"]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {row["id"] for row in rows} == ROWS
    assert len(rows) == len(ROWS)
    assert all(row["name"] and row["unit"] and row["note"] for row in rows)


@pytest.mark.parametrize("protocol", bodies.PROTOCOLS, ids=lambda protocol: protocol.id)
def test_every_protocol_is_measured_with_the_same_records(protocol):
    sent = bodies.entries(0, 20)
    rows = sorted(apart(protocol.read(protocol.write(sent))), key=lambda row: row.time)
    found = [(row.time // 1_000_000, row.data["level"], row.message) for row in rows]
    assert found == [(entry.time_ms, entry.level, entry.message) for entry in sent]
    assert all(str(entry.order) in str(row.data) for entry, row in zip(sent, rows, strict=True))


def test_an_unknown_measurement_is_refused_by_name():
    command = [sys.executable, "-m", "tests.benchmarks", "speed"]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "speed: no such measurement" in done.stderr
