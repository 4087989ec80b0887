"""Write the dashboard and the alert rules into a directory: ``python -m tornado_logsrv.dashboards DIRECTORY``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from . import FILES, read


def main(arguments: Sequence[str]) -> int:
    """Write FILES; the exit status: 0, 2 when it was called wrongly or they cannot be written."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("python -m tornado_logsrv.dashboards DIRECTORY", file=sys.stderr)
        return 2
    try:
        for name in FILES:
            path = Path(arguments[0]) / name
            path.write_text(read(name), encoding="utf-8")
            print(path)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
