"""Stock Tornado: a RequestHandler that parses the JSON and appends it to a deque."""

import asyncio
import collections
import json
import signal
from typing import Any

import tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

jobs: collections.deque[Any] = collections.deque()


class JobHandler(tornado.web.RequestHandler):
    """Takes one job."""

    def post(self) -> None:
        """202."""
        jobs.append(json.loads(self.request.body))
        self.set_status(202)
        self.finish({"message": "Job added"})


class JobsHandler(tornado.web.RequestHandler):
    """Takes an array of jobs."""

    def post(self) -> None:
        """202."""
        jobs.extend(json.loads(self.request.body))
        self.set_status(202)
        self.finish({"message": "Jobs added"})


class SizeHandler(tornado.web.RequestHandler):
    """Tells how many jobs there are."""

    def get(self) -> None:
        """200."""
        self.finish({"queueSize": len(jobs)})


async def main() -> None:
    """Serve on any free port until SIGTERM."""
    routes = [("/add-job", JobHandler), ("/add-jobs", JobsHandler), ("/queue-size", SizeHandler)]
    sockets = bind_sockets(0, "127.0.0.1")
    HTTPServer(tornado.web.Application(routes)).add_sockets(sockets)
    print(f"listens on http://127.0.0.1:{sockets[0].getsockname()[1]}", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
