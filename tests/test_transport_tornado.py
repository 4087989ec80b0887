"""Tornado's own tests, unchanged, on our transport: `HTTPServer.configure` is the door it leaves open.

Each suite runs in a process of its own, once on asyncio and once on uvloop. What cannot apply is listed with
the reason; a listed test that passes is an error too, so that the list stays honest.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import unittest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SUITES = {  # and how many tests of it must at least have run
    "tornado.test.httpserver_test": 75,
    "tornado.test.http1connection_test": 7,
    "tornado.test.security_corpus_test": 3,
    "tornado.test.web_test": 270,
    "tornado.test.routing_test": 6,
    "tornado.test.httpclient_test": 60,
}

NOT_APPLICABLE = {
    "tornado.test.httpserver_test.HTTPConnectionTest.test_newlines": (
        "a bare LF as line ending is refused: what ends a line must not be in dispute (RFC 9112, section 2.2)"
    ),
    "tornado.test.httpserver_test.SSLTest.test_non_ssl_request": (
        "expects IOStream's log line for a failed handshake; asyncio closes the connection and logs nothing"
    ),
    "tornado.test.httpserver_test.SSLTest.test_error_logging": (
        "expects IOStream's log line for a failed handshake; asyncio closes the connection and logs nothing"
    ),
}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("suite", SUITES)
def test_suite_passes_but_for_what_cannot_apply(suite: str, loop: str) -> None:
    done = subprocess.run(
        [sys.executable, __file__, suite, loop],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    listed = {name for name in NOT_APPLICABLE if name.startswith(suite + ".")}
    assert set(report["failed"]) == listed, done.stderr[-5000:]
    assert report["passed"] >= SUITES[suite]
    assert report["connections"] > 0 or suite.endswith("http1connection_test")  # it tests the client's side


class Result(unittest.TestResult):
    """Counts, and keeps the names of what failed. A subtest fails the test that it is part of."""

    passed = 0

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.passed += 1

    def failed(self) -> dict[str, str]:
        return {getattr(test, "test_case", test).id(): traceback for test, traceback in self.errors + self.failures}


def run(suite: str, loop: str) -> None:
    """Run a suite and print what came of it as the last line, in JSON."""
    from tornado.httpserver import HTTPServer

    from tornado_logsrv import transport

    HTTPServer.configure(transport.HTTPServer)
    connections = []
    opened = transport.HTTPServer.opened
    transport.HTTPServer.opened = lambda *args: (connections.append(1), opened(*args))[1]
    if loop == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)  # as tornado.test.runtests does
    result = Result()
    unittest.defaultTestLoader.loadTestsFromName(suite).run(result)
    failed = result.failed()
    print("\n".join(failed.values()), file=sys.stderr)
    report = {"passed": result.passed, "failed": sorted(failed), "connections": len(connections)}
    print("\n" + json.dumps(report))


if __name__ == "__main__":
    run(*sys.argv[1:])
