"""Send a running server what its own ``/openapi.json`` allows, and what it does not: ``python -m tests.openapi_run``.

The server is a process with embedded servers and without tokens. No answer may be a 5xx, all have to be as the document
has them; at the end the ledger has to balance and the server to stop in peace.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from .process import Process, running

ROOT = Path(__file__).parent.parent
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
#: The one answer that has no end.
ENDLESS = "/logs/tail"


def main() -> int:
    """Run it once; the exit status."""
    parser = argparse.ArgumentParser("python -m tests.openapi_run", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="fewer are a fault [10000]")
    parser.add_argument("--examples", type=int, default=40, help="for each method of each path, at the most [40]")
    parser.add_argument("--seed", type=int, default=1, help="[1]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="logsrv-openapi-") as directory:
        faults = [*run(options, Path(directory))]
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if faults else 0


def run(options: argparse.Namespace, directory: Path) -> Iterator[str]:
    """What was not as it has to be."""
    report = directory / "report.json"
    given = ["--port=0", f"--data_dir={directory / 'data'}", "--ack=memory", "--queue_max_bytes=1GiB"]
    with running(*given, log=directory / "log") as server:
        ids = " ".join(records(server))
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--exclude-path", ENDLESS, "--checks", ",".join(CHECKS), "--suppress-health-check", "all"),
            *("--max-examples", str(options.examples), "--seed", str(options.seed), "--generation-database", "none"),
            *("--report", "json", "--report-json-path", str(report), "--no-color", "--warnings", "off"),
        ]
        environment = {"PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.openapi_hooks", "LOGSRV_TEST_IDS": ids}
        # It writes what it remembers into the working directory.
        if status := subprocess.run(command, cwd=directory, env={**os.environ, **environment}, check=False).returncode:
            yield f"schemathesis ended with status {status}"
        cases = json.loads(report.read_text(encoding="utf-8"))["test_cases"]["generated"]
        if cases < options.cases:
            yield f"{cases} cases, {options.cases} were wanted"
        answers = statuses(server)
        print(f"{cases} cases; answers by status: {dict(sorted(answers.items()))}")
        yield from (f"{count} answers were {status}" for status, count in answers.items() if status >= 500)
        if not (ledger := server.get("/ledger"))["balanced"]:
            yield f"the ledger does not balance: {ledger}"
        if server.stop():
            yield "the stop has lost something"
        yield from re.findall(r"^.*(?: failed, request |Traceback).*$", server.log, re.MULTILINE)


def records(server: Process) -> Iterator[str]:
    """The ids of a record that is stored, and of some in quarantine."""
    yield server.post("/add-job?ack=stored", b"{}")["id"]
    server.post("/add-jobs?ack=stored", b"{}\n" + b"no JSON\n" * 20, **{"Content-Type": "application/x-ndjson"})
    for document in server.get("/quarantine"):
        yield document["_id"]


def statuses(server: Process) -> collections.Counter[int]:
    """How often which status was answered, as /metrics has it."""
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        found = re.findall(r"_seconds_count\{.*status=\"(\d+)\"\} (\d+)", response.read().decode())
    counted: collections.Counter[int] = collections.Counter()
    for status, count in found:
        counted[int(status)] += int(count)
    return counted


if __name__ == "__main__":
    sys.exit(main())
