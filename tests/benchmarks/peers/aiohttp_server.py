"""aiohttp on uvloop: parses the JSON and appends it to a deque."""

import asyncio
import collections
import signal
from typing import Any

import uvloop
from aiohttp import web

jobs: collections.deque[Any] = collections.deque()


async def add_job(request: web.Request) -> web.Response:
    """Take one job."""
    jobs.append(await request.json())
    return web.json_response({"message": "Job added"}, status=202)


async def add_jobs(request: web.Request) -> web.Response:
    """Take an array of jobs."""
    jobs.extend(await request.json())
    return web.json_response({"message": "Jobs added"}, status=202)


async def queue_size(request: web.Request) -> web.Response:
    """Tell how many jobs there are."""
    return web.json_response({"queueSize": len(jobs)})


async def main() -> None:
    """Serve on any free port until SIGTERM."""
    application = web.Application()
    application.router.add_post("/add-job", add_job)
    application.router.add_post("/add-jobs", add_jobs)
    application.router.add_get("/queue-size", queue_size)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"listens on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main())
