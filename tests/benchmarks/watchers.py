"""Watchers of ``/logs/tail`` and a sender of records, in one process: how long after its answer a record is shown.

``python -m tests.benchmarks.watchers URL JSON``, with a JSON object of Plan's fields; prints one of what came.
"""

import asyncio
import dataclasses
import json
import re
import sys
import time
import urllib.parse

_ID = re.compile(rb'"_id":"([0-9a-f]{24})"')
_ANSWERED = re.compile(rb'"id":"([0-9a-f]{24})"')
_SETTLE_SECONDS = 0.4


@dataclasses.dataclass(frozen=True)
class Plan:
    """So many ``watchers``, each with a query of its own if they are ``distinct``, ``deaf`` of which do not read.

    ``rate`` records a second are sent for ``seconds``; 0 sends none, and all watch for so long.
    """

    watchers: int
    rate: int
    seconds: float
    distinct: bool = False
    deaf: int = 0
    #: How many of the watchers are timed: reading what all are shown would be the load.
    timed: int = 5


class Watcher(asyncio.Protocol):
    """One stream; notes when it has shown which record."""

    def __init__(self, request: bytes, timed: bool, deaf: bool) -> None:
        self._request = request
        self._timed = timed
        self._deaf = deaf
        self._rest = b""
        self.shown: dict[bytes, float] = {}
        self.bytes = 0
        self.missed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)
        if self._deaf:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Note what is shown."""
        self.bytes += len(data)
        self.missed += data.count(b"event: missed")
        if self._timed:
            now, text = time.perf_counter(), self._rest + data
            for match in _ID.finditer(text):
                self.shown.setdefault(match[1], now)
            self._rest = text[-40:]


async def run(url: str, plan: Plan) -> dict[str, object]:
    """Watch, and send; milliseconds from a record's answer to its being shown, all of them. Raises OSError."""
    parts = urllib.parse.urlsplit(url)
    loop = asyncio.get_running_loop()
    watchers = [_watcher(parts.netloc, plan, number) for number in range(plan.watchers)]
    for watcher in watchers:
        await loop.create_connection(lambda made=watcher: made, parts.hostname, parts.port)  # type: ignore[misc]
    await asyncio.sleep(_SETTLE_SECONDS)
    answered = await _send(parts, plan) if plan.rate else await _only_watch(plan)
    await asyncio.sleep(_SETTLE_SECONDS)
    for watcher in watchers:
        watcher.transport.abort()
    timed = watchers[plan.deaf : plan.deaf + plan.timed]
    times = [1000 * max(0.0, w.shown[i] - at) for w in timed for i, at in answered.items() if i in w.shown]
    expected = len(answered) * len(timed)
    return {"sent": len(answered), "times": sorted(times), "unseen": expected - len(times),
            "missed": sum(w.missed for w in watchers)}  # fmt: skip


def _watcher(host: str, plan: Plan, number: int) -> Watcher:
    query = f"?q=n:>=-{number + 1}" if plan.distinct else ""
    request = f"GET /logs/tail{query} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    return Watcher(request, plan.deaf <= number < plan.deaf + plan.timed, number < plan.deaf)


async def _only_watch(plan: Plan) -> dict[bytes, float]:
    await asyncio.sleep(plan.seconds)
    return {}


async def _send(parts: urllib.parse.SplitResult, plan: Plan) -> dict[bytes, float]:
    """Send records one by one at the rate; their ids, and when each was answered."""
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST /add-job?ack=memory HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: "
    answered: dict[bytes, float] = {}
    began = time.perf_counter()
    for number in range(int(plan.rate * plan.seconds)):
        await asyncio.sleep(max(0.0, began + number / plan.rate - time.perf_counter()))
        body = json.dumps({"level": "info", "n": number, "message": f"request {number} done"})
        writer.write(f"{head}{len(body)}\r\n\r\n{body}".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.partition(b"Content-Length: ")[2].split(b"\r\n", 1)[0])
        match = _ANSWERED.search(await reader.readexactly(length))
        assert match is not None
        answered[match[1]] = time.perf_counter()
    writer.close()
    return answered


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(sys.argv[1], Plan(**json.loads(sys.argv[2]))))))
