"""What the command line and the environment ask for."""

import argparse
import dataclasses
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path

from .terminal import warn

_SHORT = re.compile(r"[0-9]+[smhdwMy]")
_DEFAULT_COUNT = 10
_EPILOG = """\
The syntax of QUERY is that of q; TIME is ISO 8601, now-15m, or 15m for the same. The secret of a token is best in
LOGSRV_TOKEN, or in a file (LOGSRV_TOKEN_FILE): other users of the machine can read a command line.
Status: 0, 130 after Ctrl-C, 1 when the server cannot be used, 2 when it does not take the request."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to show: ``count`` None is all there is. ``token`` is a secret."""

    query: str
    url: urllib.parse.SplitResult
    since: str
    until: str
    count: int | None
    follow: bool
    json: bool
    ca: str
    token: str = dataclasses.field(repr=False)


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Options:
    """The options. Exits with status 2 when they are wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        if given.until and not given.no_follow:
            raise ValueError("--until: needs --no-follow")
        return Options(
            given.query,
            _url(given.url or environ.get("LOGSRV_URL") or "http://127.0.0.1:3000"),
            _moment(given.since),
            _moment(given.until),
            _count(given),
            not given.no_follow,
            given.json,
            given.ca,
            _token(given, environ),
        )
    except ValueError as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tornado_logsrv.tail",
        description="Shows the newest records of a log server, and then those that come.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("query", nargs="?", default="", metavar="QUERY", help="what to look for [everything]")
    add("--url", help="the server [LOGSRV_URL, or http://127.0.0.1:3000]")
    add("--since", default="", metavar="TIME", help="begin with records of this time")
    add("--until", default="", metavar="TIME", help="end before this time; with --no-follow")
    add("-n", type=int, metavar="COUNT", help=f"the newest COUNT of what is stored [{_DEFAULT_COUNT}; --since: all]")
    add("--no-follow", action="store_true", help="end with what is stored")
    add("--json", action="store_true", help="a JSON object a line, as the server has it")
    add("--token-file", metavar="FILE", help="file with the secret of a token [LOGSRV_TOKEN_FILE]")
    add("--token", help="the secret itself [LOGSRV_TOKEN]")
    add("--ca", default="", metavar="FILE", help="PEM file of whose certificates to believe [the system's]")
    return parser


def _url(given: str) -> urllib.parse.SplitResult:
    url = urllib.parse.urlsplit(given)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ValueError("--url: must be like https://logs.example:3000")
    if url.username is not None:
        raise ValueError("--url: has no place for a password; give a token")
    return url


def _moment(given: str) -> str:
    return f"now-{given}" if _SHORT.fullmatch(given) else given


def _count(given: argparse.Namespace) -> int | None:
    if given.n is None:
        return None if given.since else _DEFAULT_COUNT
    if not 0 <= given.n <= 10**6:
        raise ValueError("-n: must be a number from 0 to 1000000")
    return int(given.n)


def _token(given: argparse.Namespace, environ: Mapping[str, str]) -> str:
    file = given.token_file or ("" if given.token else environ.get("LOGSRV_TOKEN_FILE", ""))
    try:
        token = Path(file).read_text(encoding="utf-8").strip() if file else given.token or environ.get("LOGSRV_TOKEN")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--token-file: {file}: {getattr(error, 'strerror', 'is no text')}") from None
    if token and not re.fullmatch(r"[!-~]+", token):
        raise ValueError("--token: has characters that no token has")
    if given.token:
        warn(
            "--token: every user of this machine can read it in the process list; --token-file or LOGSRV_TOKEN keep it"
        )
    return token or ""
