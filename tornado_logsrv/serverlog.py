"""The server's own log, on standard error: lines for people, or JSON for programs.

Records are never in it, nor what a client sent but for the method, the path and a request id.
"""

import datetime
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import msgspec
import tornado.log

from .burst import Burst, told
from .wirelog import LOGGER, WireFilter

FORMATS = ("text", "json")
#: Lines of the request log that are kept back at the most; they are written once a second.
KEPT_LINES = 500
#: Characters of a path that are written.
_PATH = 200
#: Under everything else: whatever a driver's message may hold.
_PASSWORD = re.compile(r"(//[^/@:\s]*:)[^/\s]*@")

log = logging.getLogger("logsrv.http")
Clock = Callable[[], float]


def set_up(level: str, form: str) -> None:
    """Log to standard error, from ``level`` on, in one of FORMATS."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper())
    # The drivers tell of every connection they open; what matters of it is logged here, once a change of state.
    for chatty in ("pymongo", "redis", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger(LOGGER).addFilter(WireFilter())


class TextFormatter(tornado.log.LogFormatter):
    """Tornado's lines, without passwords."""

    def format(self, record: Any) -> str:
        """One line, and indented ones for a traceback."""
        return _without_password(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, and what else is known of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        event = {
            "time": iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _without_password(record.getMessage()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            event["exception"] = _without_password(self.formatException(record.exc_info))
        return msgspec.json.encode(event).decode()


def _without_password(text: str) -> str:
    return _PASSWORD.sub(r"\1***@", text)


def shown(path: str) -> str:
    """``path`` as a line may have it: no more than its beginning, and nothing that a terminal would act on."""
    shown = path if len(path) <= _PATH else f"{path[:_PATH]}..."
    return shown if shown.isprintable() else ascii(shown)


def iso(seconds: float) -> str:
    """``seconds`` since 1970 as ISO 8601 in UTC, with milliseconds."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class Refusals:
    """Writes the requests that were answered by an error, each with its id: 5xx as errors, the others as infos.

    When there are too many, those left out are counted, and told with the next one that is written. With the level
    ``debug`` all are written.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._bursts: dict[int, Burst] = {}

    def note(self, method: str, path: str, problem: Mapping[str, Any], request_id: str, why: str = "") -> None:
        """A request has been answered with ``problem``, the members of RFC 9457; ``why`` says more than its detail."""
        status = problem["status"]
        level = logging.ERROR if status >= 500 else logging.INFO
        if not log.isEnabledFor(level):
            return
        burst = self._bursts.setdefault(level, Burst(self._clock))
        if not log.isEnabledFor(logging.DEBUG) and not burst.admits():
            return
        path = shown(path)
        kind = problem["type"].removeprefix("urn:logsrv:problem:").replace("about:blank", "")
        fields = {"method": method, "path": path, "status": status, "problem": kind, "request": request_id}
        # What is wrong with a request may be said in words of its body; why it cannot be taken is in ours.
        why = why or problem.get("detail", "")
        why = f": {why}" if status >= 500 and why else ""
        left = burst.left_out()
        log.log(
            level,
            "%s %s answered %d%s, request %s%s%s",
            method, path, status, kind and f" {kind}", request_id, why, told(left),
            extra={"fields": fields | ({"left_out": left} if left else {})},
        )  # fmt: skip


class RequestLog:
    """A line for each request, put together when it is answered and written with others once a second.

    A line through `logging` costs as much as taking a record; this one costs a tenth.
    """

    def __init__(self, form: str, stream: TextIO | None = None, clock: Clock = time.time) -> None:
        """``form`` is one of FORMATS; ``stream`` is standard error unless given."""
        self._stream = stream
        self._clock = clock
        self._line = _json_line if form == "json" else _text_line
        self._lines: list[str] = []
        self._dropped = 0

    def note(self, method: str, path: str, status: int, seconds: float, address: str, request_id: str) -> None:
        """A request has been answered; ``request_id`` is empty when it has none."""
        self._lines.append(self._line(self._clock(), method, shown(path), status, seconds, address, request_id))
        if len(self._lines) >= KEPT_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what is kept back. What cannot be written, because the disk is full, is dropped, counted and told."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        stream = self._stream or sys.stderr
        try:
            stream.write("".join(lines))
            stream.flush()
        except OSError:
            self._dropped += len(lines)
            return
        if self._dropped:
            log.warning("%d lines of the request log could not be written", self._dropped)
            self._dropped = 0


def _json_line(now: float, method: str, path: str, status: int, seconds: float, address: str, request_id: str) -> str:
    event = {
        "time": iso(now),
        "level": "info",
        "logger": "logsrv.request",
        "message": f"{method} {path} {status}",
        "method": method,
        "path": path,
        "status": status,
        "seconds": round(seconds, 6),
        "address": address,
        "request": request_id,
    }
    return msgspec.json.encode(event).decode() + "\n"


def _text_line(now: float, method: str, path: str, status: int, seconds: float, address: str, request_id: str) -> str:
    return f"{iso(now)} {address} {method} {path} {status} {seconds * 1000:.2f}ms {request_id or '-'}\n"
