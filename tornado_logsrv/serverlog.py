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

FORMATS = ("text", "json")
#: Refused requests that are written at once, and a second after that, of each kind: an outage must not fill the disk.
BURST = 20
A_SECOND = 1.0
#: Lines of the request log that are kept back at the most; they are written once a second.
KEPT_LINES = 500
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
        self._room: dict[int, tuple[float, float]] = {}
        self._left_out: dict[int, int] = {}

    def note(self, method: str, path: str, problem: Mapping[str, Any], request_id: str) -> None:
        """A request has been answered with ``problem``, the members of RFC 9457."""
        status = problem["status"]
        level = logging.ERROR if status >= 500 else logging.INFO
        if not log.isEnabledFor(level):
            return
        if not log.isEnabledFor(logging.DEBUG) and not self._has_room(level):
            self._left_out[level] = self._left_out.get(level, 0) + 1
            return
        kind = problem["type"].removeprefix("urn:logsrv:problem:").replace("about:blank", "")
        fields = {"method": method, "path": path, "status": status, "problem": kind, "request": request_id}
        # What is wrong with a request may be said in words of its body; why it cannot be taken is in ours.
        why = f": {problem['detail']}" if status >= 500 and "detail" in problem else ""
        more = f" ({left} others like it are not in this log)" if (left := self._left_out.pop(level, 0)) else ""
        log.log(
            level,
            "%s %s answered %d%s, request %s%s%s",
            method, path, status, kind and f" {kind}", request_id, why, more,
            extra={"fields": fields | ({"left_out": left} if left else {})},
        )  # fmt: skip

    def _has_room(self, level: int) -> bool:
        """A token bucket for each level."""
        now = self._clock()
        room, then = self._room.get(level, (float(BURST), now))
        room = min(float(BURST), room + (now - then) * A_SECOND)
        self._room[level] = (room - 1 if room >= 1 else room, now)
        return room >= 1


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
        self._lines.append(self._line(self._clock(), method, path, status, seconds, address, request_id))
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
    shown = path if path.isprintable() else ascii(path)
    return f"{iso(now)} {address} {method} {shown} {status} {seconds * 1000:.2f}ms {request_id or '-'}\n"
