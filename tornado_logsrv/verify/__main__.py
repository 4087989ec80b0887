"""The command line."""

import argparse
import asyncio
import logging
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import StartError
from . import samples
from .trial import Plan, Trial

_DESCRIPTION = """\
Starts log servers, loads them by HTTP, and kills, stops and freezes them and
the MongoDB and Redis behind them, at random. Then it looks whether every record
that was acknowledged is stored, or in quarantine, exactly once."""
_EPILOG = """\
The table has a row for each level of acknowledgement, one for requests whose
answer was lost, one for each way to be refused. "memory, then killed" may be
absent (that level does not survive kill -9); nothing may be duplicated.

  absent      neither stored nor in quarantine
  lost        absent, and it must not be
  duplicated  there under more than one _id
  wrong       altered, in the wrong place, or there though refused

A process that lived for a minute has a line that says what it took at the most,
and by how many MiB an hour its memory grew over the second half of its life.
For a soak: --seconds=3600 --fault_every=60 --instances=3.

exit status: 0 when the promise was kept, 1 when it was not, 2 when something
did not start, 130 when interrupted."""

_FAULT_EVERY_HELP = """one fault at a time, each in turn, so far apart, and none that ends the first log server,
whose memory can be watched then [many at a time]"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options. Exits with status 2 when they are wrong."""
    parser = argparse.ArgumentParser(
        "python -m tornado_logsrv.verify",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=float, default=60, help="how long to load and to kill [60]")
    add("--seed", type=int, help="of all random choices [a random one, which is printed]")
    add("--mongo_url", default="", metavar="URL", help="MongoDB to use, which is then left alone [the embedded one]")
    add("--redis_url", default="", metavar="URL", help="Redis to use, which is then left alone [the embedded one]")
    add("--connections", type=int, default=16, metavar="N", help="clients at the same time [16]")
    add("--instances", type=int, default=2, metavar="N", help="log servers, which take over from one another [2]")
    add("--rate", type=float, default=1500, metavar="N", help="records a second, at most; 0: no bound [1500]")
    add("--fault_every", type=float, default=0, metavar="SECONDS", help=_FAULT_EVERY_HELP)
    add("--samples", metavar="FILE", type=Path, help="write what the processes took, each 5 s, to this file, as CSV")
    add("--keep", action="store_true", help="keep the directory with all data and the servers' logs")
    options = parser.parse_args(arguments)
    for name in ("seconds", "connections", "instances"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} must be more than 0")
    if options.fault_every < 0:
        parser.error("--fault_every must not be less than 0")
    return options


def main(arguments: Sequence[str] = sys.argv[1:]) -> int:
    """Run one trial and print its table; the exit status."""
    options = parse(arguments)
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    directory = Path(tempfile.mkdtemp(prefix="logsrv-verify-"))
    print(f"seed {seed}", flush=True)
    try:
        with asyncio.Runner() as runner:
            return runner.run(_run(options, seed, directory))
    except StartError as error:
        print(f"verify: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("verify: interrupted", file=sys.stderr)
        return 130
    finally:
        if options.keep:
            print(f"everything is kept in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


async def _run(options: argparse.Namespace, seed: int, directory: Path) -> int:
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    plan = Plan(
        options.seconds, seed, options.mongo_url, options.redis_url, options.connections, options.instances,
        options.rate, options.fault_every,
    )  # fmt: skip
    trial = Trial(plan, directory)
    try:
        result = await trial.run()
    finally:
        if options.samples:
            samples.write(options.samples, trial.samples)
    print(trial.summary(result))
    if not result.fault_count:
        print("the promise was kept")
        return 0
    print(f"the promise was broken, {result.fault_count} times:")
    for sentence in result.faults:
        print(f"  {sentence}")
    return 1


if __name__ == "__main__":
    # That a server has ended which was killed is no news here.
    for name in ("logsrv", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.exit(main())
