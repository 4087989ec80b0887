"""One server, ours or another, alone on the core of what is measured."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from .. import machine, samples
from ..processes import Process
from ..servers import Backing, LogServer
from . import install

PROGRAMS = Path(__file__).resolve().parents[1] / "peers"
#: The other servers by name, and what the table calls them.
PYTHON = {"tornado": "stock Tornado", "aiohttp": "aiohttp on uvloop", "fastapi": "FastAPI on uvicorn"}
NODE = {"fastify": "Fastify", "nestjs": "NestJS"}
#: Ours, by how it acknowledges.
OURS = {"memory": "tornado_logsrv, ack=memory", "journal": "tornado_logsrv, ack=journal"}
NAMES = OURS | PYTHON | NODE


def others() -> list[str]:
    """Who can be measured here."""
    return [*PYTHON, *(NODE if install.has_node() else ())]


class Program(Process):
    """A program of ``peers``, listening."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        """Does not start what Process does: this is no module of ours."""
        self._log = log
        with machine.on(machine.MEASURED), open(log, "ab") as errors:
            self._process = subprocess.Popen(
                command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()


@contextlib.contextmanager
def started(name: str, servers: Backing) -> Iterator[tuple[Process, str]]:
    """The server of this name, with nothing on its queue, and its URL."""
    if name in OURS:
        prefix = servers.new_name()
        with LogServer(servers, prefix, ack=name) as ours:
            try:
                yield ours, ours.url
            finally:
                # Dumping what was never to be stored would take its time.
                ours.kill()
        servers.forget(prefix)
        return
    with Program(*_command(name), servers.directory / f"{name}.log") as other:
        yield other, re.sub(r"//\[?(::1|localhost)\]?:", "//127.0.0.1:", other.line(r"listens on (http://\S+)"))


def _command(name: str) -> tuple[list[str], dict[str, str]]:
    if name in PYTHON:
        return [str(install.python()), str(PROGRAMS / f"{name}_server.py")], {}
    return _node(f"{name}_server.js")


def _node(program: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {"NODE_PATH": str(install.node_modules()), "NODE_ENV": "production"}
    return ["node", str(PROGRAMS / program), *arguments], environment


def driver_microseconds(servers: Backing, count: int) -> float:
    """Processor time that the official Node driver takes for a document of bulkWrite, in its own process."""
    command, environment = _node(
        "bulk_write.js", servers.mongo_url, servers.new_name(), samples.BODY.decode(), str(count)
    )
    with Program(command, environment, servers.directory / "driver.log") as driver:
        return float(driver.line(r"cpu (\S+) us"))
