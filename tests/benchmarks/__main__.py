"""``python -m tests.benchmarks [NAME ...]``: measure, print a table."""

import argparse
import json
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from . import (
    compare,
    dump,
    journal,
    machine,
    memory,
    outage,
    pages,
    plot,
    protocols,
    recovery,
    requests,
    reuse_port,
    search,
    sizes,
    stored,
    tail,
)  # fmt: skip
from .rows import Row, table
from .scale import FULL, QUICK, Scale

MEASUREMENTS: dict[str, Callable[[Scale], list[Row]]] = {
    "requests": requests.measure,
    "stored": stored.measure,
    "journal": journal.measure,
    "memory": memory.measure,
    "dump": dump.measure,
    "recovery": recovery.measure,
    "outage": outage.measure,
    "pages": pages.measure,
    "search": search.measure,
    "tail": tail.measure,
    "protocols": protocols.measure,
    "reuse_port": reuse_port.measure,
    "sizes": sizes.measure,
}
#: Installs other servers, so it has to be asked for.
PEERS: dict[str, Callable[[Scale], list[Row]]] = {"peers": compare.measure}


def main(arguments: Sequence[str] = sys.argv[1:]) -> int:
    """Run what is asked for; 0 once all of it has been measured, whatever the ratios are, 1 when something failed."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    for name in asked.names:
        if name not in MEASUREMENTS | PEERS:
            parser.error(f"{name}: no such measurement; there are {', '.join(MEASUREMENTS | PEERS)}")
    # Ended by a signal, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    before = machine.state()
    rows, failed = _measure(asked.names or list(MEASUREMENTS), QUICK if asked.quick else FULL)
    found = {
        "quick": asked.quick,
        "before": before,
        "after": machine.state(),
        "failed": failed,
        "rows": [row.as_dict() for row in rows],
    }
    # With --json - standard output is for the machine, so the table makes room.
    print(_report(rows, found), file=sys.stderr if asked.json == "-" else sys.stdout)
    if asked.json:
        _write(asked.json, json.dumps(found, indent=2) + "\n")
    if asked.plot:
        plot.write(Path(asked.plot), found["rows"], found["before"])
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(MEASUREMENTS)} (default: all of these); peers"
    )
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON too; - is standard output")
    parser.add_argument("--plot", metavar="FILE", help="write a plot of the peers as SVG")
    parser.add_argument(
        "--quick", action="store_true", help="small counts, one round: shows that it runs, the ratios mean little"
    )
    parser.epilog = "Runs on Linux, with the embedded extra. A full run takes about half an hour."
    return parser


def _measure(names: Sequence[str], scale: Scale) -> tuple[list[Row], dict[str, str]]:
    """The rows, and what failed with its reason: minutes of measuring are not lost to one that fails."""
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for name in dict.fromkeys(names):
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            rows += (MEASUREMENTS | PEERS)[name](scale)
        except Exception as error:
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}"
    return rows, failed


def _report(rows: Sequence[Row], found: dict[str, object]) -> str:
    lines = [f"{when}: {found[when]}" for when in ("before", "after", *(["failed"] if found["failed"] else []))]
    quick = ["quick: small counts, one round; the ratios mean little"] if found["quick"] else []
    return "\n".join([table(rows), "", *lines, *quick])


def _write(target: str, text: str) -> None:
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
