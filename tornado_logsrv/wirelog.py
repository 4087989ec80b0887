"""What is logged of connections, and of bytes that are no request: bounded, and without what was sent.

Tornado's words for a head that cannot be read repeat what is wrong in it: a token with a stray carriage return behind
it, say. And each such head, each handshake that fails, is a line.
"""

import logging
import time
from typing import Any

from tornado.httputil import HTTPInputError

from .burst import Burst, Clock, told

#: Whose lines these are: Tornado's, and the transport's, which speaks as Tornado does.
LOGGER = "tornado.general"
#: Beginnings of what is said of a head or a body that cannot be read. What stands behind them may be the client's.
_PHRASES = (
    "Body too long",
    "Content-Length too long",
    "Head too large",
    "Invalid Host header",
    "Invalid header name",
    "Invalid header value",
    "Invalid query string",
    "Line ends in a bare LF",
    "Malformed HTTP request line",
    "Message with both Transfer-Encoding and Content-Length",
    "Missing Host header",
    "Multiple host headers not allowed",
    "Multiple unequal Content-Lengths",
    "Only integer Content-Length is allowed",
    "The end of the message is in dispute",
    "Too many header fields",
    "Unexpected HTTP version",
    "Unsupported Transfer-Encoding",
    "chunked body too large",
    "header line cannot start with whitespace",
    "improperly terminated chunk",
    "invalid chunk size",
    "no colon in header line",
)


class WireFilter(logging.Filter):
    """Lets few lines of one kind through, and takes out of them what a client has sent.

    With the level ``debug`` all are written, without it as well.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._bursts: dict[object, Burst] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether ``record``, which is changed, is written. Its kind is its text before anything is put into it."""
        if record.levelno >= logging.ERROR:
            # A fault of this server.
            return True
        burst = self._bursts.setdefault(record.msg, Burst(self._clock))
        if not logging.getLogger(LOGGER).isEnabledFor(logging.DEBUG) and not burst.admits():
            return False
        if isinstance(record.args, tuple):
            record.args = tuple(map(_without_what_was_sent, record.args))
        record.msg, record.args = record.getMessage() + told(burst.left_out()), ()
        return True


def _without_what_was_sent(argument: Any) -> Any:
    if not isinstance(argument, HTTPInputError):
        return argument
    text = str(argument)
    # llhttp's reasons are its own words, and never the client's.
    if type(argument.__cause__).__module__.startswith("httptools"):
        return text
    return next((phrase for phrase in _PHRASES if text.startswith(phrase)), "it cannot be read")
