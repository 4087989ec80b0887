"""FastAPI on uvicorn, one worker, uvloop and httptools: parses the JSON and appends it to a deque."""

import collections
import socket
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI

jobs: collections.deque[Any] = collections.deque()
application = FastAPI()


@application.post("/add-job", status_code=202)
async def add_job(job: Annotated[Any, Body()]) -> dict[str, str]:
    """Take one job."""
    jobs.append(job)
    return {"message": "Job added"}


@application.post("/add-jobs", status_code=202)
async def add_jobs(many: Annotated[list[Any], Body()]) -> dict[str, str]:
    """Take an array of jobs."""
    jobs.extend(many)
    return {"message": "Jobs added"}


@application.get("/queue-size")
async def queue_size() -> dict[str, int]:
    """Tell how many jobs there are."""
    return {"queueSize": len(jobs)}


def main() -> None:
    """Serve on any free port until SIGTERM."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    print(f"listens on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    config = uvicorn.Config(application, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
