"""The log server with records on its queue from the beginning, accepted and kept nowhere else yet.

``python -m tests.benchmarks.filled --bench_count=COUNT --option=value ...`` prints, once they are on the queue,
``filled BEFORE AFTER``: its memory in bytes. Reading them back from Redis would not do: what is in Redis is not
dumped again.
"""

import asyncio
import os
import sys
from pathlib import Path

from tornado_logsrv.config import load
from tornado_logsrv.server import Server, _loop_factory

from . import samples

_COUNT = "--bench_count="


class FilledServer(Server):
    """Fills its queue when it has started."""

    count = 0

    async def start(self) -> None:
        """Start, fill, tell."""
        await super().start()
        before = _rss()
        for batch in samples.batches(samples.encoded(self.count)):
            self._application.queue.offer(batch)
        print(f"filled {before} {_rss()}", flush=True)


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(arguments: list[str]) -> int:
    """Take our one option out of the server's, and run."""
    own = [argument for argument in arguments if argument.startswith(_COUNT)]
    FilledServer.count = int(own[0].removeprefix(_COUNT))
    options = load([argument for argument in arguments if argument not in own])
    # The loop that it has in life.
    with asyncio.Runner(loop_factory=_loop_factory(options.transport)) as runner:
        return runner.run(FilledServer(options).run())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
