"""The least Tornado can do with a job: ``json.loads`` and ``deque.append``."""

import asyncio
import collections
import json
import signal
from typing import Any

import tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

#: Bounded: a growing heap of dicts would make the garbage collector slow the very thing we are measured against.
jobs: collections.deque[Any] = collections.deque(maxlen=10_000)


class JobHandler(tornado.web.RequestHandler):
    """Takes one job."""

    def post(self) -> None:
        """202."""
        jobs.append(json.loads(self.request.body))
        self.set_status(202)
        self.finish({"message": "Job added"})


async def main() -> None:
    """Serve on any free port until SIGTERM."""
    sockets = bind_sockets(0, "127.0.0.1")
    HTTPServer(tornado.web.Application([("/add-job", JobHandler)])).add_sockets(sockets)
    print(f"listens on http://127.0.0.1:{sockets[0].getsockname()[1]}", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
