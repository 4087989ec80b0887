"""``python -m tornado_logsrv.token``: make a token. Its secret is shown once, and kept nowhere."""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from .auth import Tokens, digest_of, new_secret
from .config import size
from .errors import StartError

_DESCRIPTION = """\
Makes a token: prints its secret, once, and adds what the server has to know of it to a tokens file (--tokens_file of
the server, which reads it again on SIGHUP). Without --file the lines to add are printed, too."""
_EPILOG = "exit status: 0 when it is made, 2 when it was asked for wrongly or the file cannot be written"
_KEYS = ("source", "tenant", "requests_per_second", "bytes_per_day")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options. Exits with status 2 when they are wrong."""
    parser = argparse.ArgumentParser("python -m tornado_logsrv.token", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add("--name", required=True, help="whose it is: in the server's log, and unlike all others")
    add("--scope", action="append", choices=("write", "read", "admin"), help="what it may do; may be repeated [write]")
    add("--source", help="its records have this source, and it reads no others")
    add("--tenant", help="its records are in a collection of their own, and it reads no other")
    add("--requests_per_second", type=float, metavar="N", help="requests it may make")
    add("--bytes_per_day", metavar="SIZE", help="bytes of records it may send, such as 10GiB")
    add("--file", help="tokens file to add it to; made when there is none")
    options = parser.parse_args(arguments)
    try:
        size(options.bytes_per_day or "1")
    except ValueError as error:
        parser.error(f"--bytes_per_day: {error}")
    return options


def entry(options: argparse.Namespace, secret: str) -> str:
    """The lines of a tokens file for ``secret``."""
    lines = ["[[token]]", f"name = {json.dumps(options.name)}", f'sha256 = "{digest_of(secret)}"']
    lines.append(f"scopes = {json.dumps(options.scope or ['write'])}")
    given = [(key, getattr(options, key)) for key in _KEYS]
    lines += [f"{key} = {json.dumps(value)}" for key, value in given if value is not None]
    return "\n".join(lines) + "\n"


def add(path: str, lines: str) -> None:
    """Put ``lines`` behind what a tokens file has. Raises StartError, and leaves it alone, when the two do not fit."""
    try:
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+", encoding="utf-8") as file:
            before = file.read()
            lines = f"\n{lines}" if before else lines
            Tokens.parse(before + lines)
            file.write(lines)
    except (OSError, ValueError) as error:
        raise StartError(f"--file: {path}: {error}") from None


def main(arguments: Sequence[str] = sys.argv[1:]) -> int:
    """Make one; the exit status."""
    options = parse(arguments)
    secret = new_secret()
    lines = entry(options, secret)
    try:
        if options.file:
            add(options.file, lines)
    except StartError as error:
        print(f"tornado_logsrv.token: {error}", file=sys.stderr)
        return 2
    print(secret)
    if not options.file:
        print(f"\n{lines}", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
