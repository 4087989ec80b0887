"""``python -m tornado_logsrv.tail``: the life of the command."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence

from .connection import LOST, Refused, Server
from .follow import Follower, Shown, search
from .options import Options, parse
from .terminal import harmless_json, has_colours, shown, warn

INTERRUPTED = 130


class _ReaderGone(Exception):
    """Nobody reads standard output any more."""


def main(arguments: Sequence[str] = sys.argv[1:]) -> int:
    """Show what is asked for; the exit status."""
    options = parse(arguments)
    # Text that the terminal cannot show is spelled out.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        server = Server(options)
        _show(Follower(server, options).records() if options.follow else search(server, options), options)
        return 0
    except KeyboardInterrupt:
        _drop_output()
        return INTERRUPTED
    except _ReaderGone:
        return _end_by_pipe()
    except Refused as error:
        warn(str(error))
        if error.column is not None:
            warn(f"{options.query}\n{' ' * (len('tornado_logsrv.tail: ') + int(error.column) - 1)}^")
        if error.nearest:
            warn(f"did you mean {shlex.quote(str(error.nearest))}?")
        return 1 if error.passing else 2
    except LOST as error:
        warn(f"{options.url.geturl()}: {str(error) or type(error).__name__}")
        return 1


def _show(found: Iterator[Shown], options: Options) -> None:
    coloured = has_colours(sys.stdout)
    for record, text in found:
        _write(harmless_json(text) + "\n" if options.json else shown(record, coloured), flush=options.follow)
    _write("", flush=True)


def _write(text: str, flush: bool) -> None:
    try:
        sys.stdout.write(text)
        if flush:
            sys.stdout.flush()
    except BrokenPipeError:
        raise _ReaderGone from None


def _drop_output() -> None:
    """What is still in the buffer goes nowhere: its reader may be gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_by_pipe() -> int:
    """End as other commands do whose reader has gone: without a word, by the signal."""
    _drop_output()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
