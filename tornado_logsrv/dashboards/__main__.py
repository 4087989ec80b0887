"""Write the dashboard and the alert rules into a directory: ``python -m tornado_logsrv.dashboards DIRECTORY``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import FILES, read


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options. Exits with status 2 when they are wrong."""
    parser = argparse.ArgumentParser(
        "python -m tornado_logsrv.dashboards",
        description=f"Writes {' and '.join(FILES)} into a directory: alerts for Prometheus, a dashboard for Grafana.",
        epilog="exit status: 0 when they are written, 2 when they cannot be",
    )
    parser.add_argument("directory", metavar="DIRECTORY", type=Path, help="where to; it has to be there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Write FILES; the exit status: 0, 2 when they cannot be written."""
    options = parse(arguments)
    try:
        for name in FILES:
            path = options.directory / name
            path.write_text(read(name), encoding="utf-8")
            print(path)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
