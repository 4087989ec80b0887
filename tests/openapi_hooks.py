"""What schemathesis sends to the routes whose bodies OpenAPI has no words for, and ids of records that are there."""

import json
import os
from pathlib import Path

import schemathesis
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs, ScopeLogs

from tornado_logsrv.problems import REQUEST_ID

DATA = Path(__file__).parent / "data"
#: Ids of records that are stored, and of some in quarantine.
IDS = os.environ.get("LOGSRV_TEST_IDS", "").split()

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
ACTIONS = st.fixed_dictionaries({}, optional={"_index": st.text(max_size=5), "_id": VALUES}).flatmap(
    lambda given: st.sampled_from(["create", "index", "update", "delete"]).map(lambda name: {name: given})
)
LINES = st.lists(ACTIONS | VALUES | st.dictionaries(st.text(max_size=8), VALUES, max_size=4), max_size=12)
NDJSON = LINES.map(lambda lines: "\n".join(map(json.dumps, lines)).encode()) | st.binary(max_size=64)

OTLP = ExportLogsServiceRequest(
    resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[{"severity_number": 9}])])]
)
MESSAGES = [OTLP.SerializeToString(), (DATA / "loki_winston.snappy").read_bytes()]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message with a few bytes that are others, or missing."""
    message = bytearray(draw(st.sampled_from(MESSAGES)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(message) - 1))
        message[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(message)


schemathesis.openapi.media_type(
    "application/x-ndjson",
    NDJSON,
    aliases=[
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/vnd.elasticsearch+x-ndjson",
    ],
)
schemathesis.openapi.media_type(
    "application/x-protobuf", damaged() | st.binary(max_size=64), aliases=["application/protobuf"]
)


@schemathesis.hook
def map_headers(context, headers):
    """Bodies are as a Content-Encoding says in a few cases only, so most go without: else hardly one would be read."""
    if headers and len(headers.get(REQUEST_ID) or "") % 4 != 1:
        headers = {name: value for name, value in headers.items() if name.lower() != "content-encoding"}
    return headers


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """In place of every other id, one that is there: chosen by the one that was made up."""
    made_up = (path_parameters or {}).get("record_id")
    if isinstance(made_up, str) and made_up and IDS and ord(made_up[-1]) % 2:
        path_parameters["record_id"] = IDS[sum(map(ord, made_up)) % len(IDS)]
    return path_parameters
