"""A ``logging.Handler`` for applications that sends their records here; standard library only, Python 3.8 or later.

    logging.getLogger().addHandler(LogsrvHandler("http://logs.example:3000"))

A record becomes a line of JSON in the thread that logs it, and waits in a buffer. A thread of the handler's own sends
what waits in batches, each with an Idempotency-Key, until the server has them: a batch that is sent again, because its
answer was lost, is stored once.

    emit ──▶ buffer (bounded; what does not fit is dropped, and counted) ──▶ batch ──▶ POST /add-jobs
                                                                              ▲            │
                                                                              └── pause ◀──┘ not now

What the server stores as ``data``:

    {"time": ISO 8601 UTC, "level": lower case, "logger": name, "message": text, "file": path, "line": number,
     "function": name, "process": id, "thread": name, "host": name,
     and where there are any  "task": name, "template": text before its arguments, "extra": {…},
     "exception": {"type", "message", "traceback"}, "stack": text}
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import gzip
import http.client
import json
import logging
import os
import random
import socket
import ssl
import sys
import threading
import time
import traceback
import urllib.parse
import uuid
import weakref
from email.utils import parsedate_to_datetime
from typing import Any, Callable, NamedTuple  # noqa: UP035  # Python 3.8 takes no [] behind those of collections.abc

#: Attributes of every LogRecord; any other is what a caller gave as ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: Statuses that say the records themselves are at fault. Any other error may be mended without them.
_REFUSED = frozenset([400, 413, 415, 422])
#: A batch is at most this long; the server's limit is 16 MiB unless it is set otherwise.
_BATCH_BYTES = 1024 * 1024
_GZIP_FROM = 2048
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
#: A server that asks for more patience than this is asked again all the same.
_LONGEST_RETRY_AFTER = 300.0
_DEPTH = 32
#: Python refuses to write an integer of more than 4300 digits.
_LONGEST_INT = 14_000
#: A text in a message may log while it is made, and what that logs may do so too; not for ever.
_NESTED = 8


class LogsrvHandler(logging.Handler):
    """Sends records to a tornado_logsrv. Neither blocks nor raises into the application; works with dictConfig.

    When the buffer is full it is the newest records that are dropped: what came first explains what came after, and
    what is stored is without gaps up to one place, where a record says how many are missing.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:3000",
        *,
        token: str = "",
        ack: str = "",
        level: int | str = logging.NOTSET,
        batch_size: int = 1000,
        interval: float = 1.0,
        buffer_bytes: int = 16 * 1024 * 1024,
        timeout: float = 10.0,
        exit_timeout: float = 5.0,
        cafile: str = "",
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Raises ValueError for a ``url`` that is not http or https.

        ``url``: of the server, without a path, or with that of a proxy before it. ``token``: sent as Bearer.
        ``ack``: memory, journal or stored; none: what the server is set to. ``batch_size``: records in a request.
        ``interval``: seconds that a record waits for others. ``buffer_bytes``: of JSON, of all that is not sent.
        ``timeout``: seconds for an answer. ``exit_timeout``: seconds that flush, close and the end of the process wait
        for the last records. ``cafile``, ``context``: whose certificates are believed.
        """
        super().__init__(level)
        self._target = _Target(url, token, ack, timeout, cafile, context)
        self._batch_size = max(1, batch_size)
        self._interval = interval
        self._buffer_bytes = buffer_bytes
        self._exit_timeout = exit_timeout
        self._host = socket.gethostname()
        self._nested = threading.local()
        self._start_afresh()
        _HANDLERS.add(self)

    def _start_afresh(self) -> None:
        self._buffer = _Buffer(self._buffer_bytes, self._batch_size, self._interval)
        self._sender = _Sender(self._buffer, self._target)

    @property
    def dropped(self) -> int:
        """Records that this process has given up: they did not fit, could not be written or were refused."""
        return self._buffer.dropped

    @property
    def sent(self) -> int:
        """Records that the server has acknowledged."""
        return self._buffer.sent

    @property
    def pending(self) -> int:
        """Records that are not sent yet."""
        return self._buffer.pending

    def emit(self, record: logging.LogRecord) -> None:
        """Put ``record`` into the buffer. Any failure goes to ``handleError``, as with every handler."""
        depth = getattr(self._nested, "depth", 0)
        if depth == _NESTED or self._sender.is_current_thread:
            self._buffer.drop()
            return
        self._nested.depth = depth + 1
        try:
            self._buffer.put(line_of(self._described(record)))
            self._ensure_sender()
        except Exception:
            self._buffer.drop()
            self.handleError(record)
        finally:
            self._nested.depth = depth

    def _described(self, record: logging.LogRecord) -> dict[str, Any]:
        # A plain Formatter only adds what has a field of its own. A class of one's own may do more: hide secrets, say.
        own = self.formatter is not None and type(self.formatter) is not logging.Formatter
        message = self.format(record) if own else record.getMessage()
        return described(record, message, self._host)

    def _ensure_sender(self) -> None:
        if not self._sender.runs and not self._buffer.closed:
            with self._buffer.changed:
                self._sender.start()
                _at_end_of_child()

    def flush(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """Wait until what was logged before is sent or given up, ``timeout`` seconds at most; whether it is.

        None: ``exit_timeout``.
        """
        deadline = time.monotonic() + (self._exit_timeout if timeout is None else timeout)
        deadline = min([deadline, *_ending])
        if self._sender.is_current_thread:
            return False
        taken = self._buffer.hurry()
        if not self._sender.runs:
            self._sender.send_all(deadline)
        return self._buffer.await_settled(taken, deadline)

    def close(self) -> None:
        """Send what waits, for ``exit_timeout`` seconds at most; the rest, and what is logged later, is dropped."""
        if not self._buffer.closed:
            self.flush()
            lost = self._buffer.close()
            if lost:
                _say(f"{lost} records were not sent to {self._target.url}")
        _HANDLERS.discard(self)
        super().close()


class _Buffer:
    """Lines that wait to be sent, in their order, and what became of the others."""

    def __init__(self, max_bytes: int, batch_size: int, interval: float) -> None:
        self._max_bytes = max_bytes
        self._batch_size = batch_size
        self._interval = interval
        self._lines: collections.deque[bytes] = collections.deque()
        self._bytes = 0
        self._untold = 0
        self._first_at = 0.0
        self._hurried = 0
        self.taken = 0
        self.settled = 0
        self.sent = 0
        self.dropped = 0
        self.closed = False
        # Reentrant: a signal handler or a finalizer may log in the middle of anything.
        self.changed = threading.Condition(threading.RLock())

    @property
    def pending(self) -> int:
        """Lines that are neither sent nor given up."""
        return self.taken - self.settled

    def put(self, line: bytes) -> None:
        """Append ``line``, or drop it when there is no room."""
        with self.changed:
            if self.closed:
                self.dropped += 1
            elif self._bytes + len(line) > self._max_bytes:
                self.dropped += 1
                self._untold += 1
            else:
                self._tell_dropped()
                self._append(line)

    def _append(self, line: bytes) -> None:
        if not self._lines:
            self._first_at = time.monotonic()
        self._lines.append(line)
        self._bytes += len(line)
        self.taken += 1
        if len(self._lines) in (1, self._batch_size) or self._bytes - len(line) < _BATCH_BYTES <= self._bytes:
            self.changed.notify_all()

    def _tell_dropped(self) -> None:
        """Append a record of how many were dropped since what is the last one here, if any."""
        count, self._untold = self._untold, 0
        if not count:
            return
        text = f"{count} records were dropped here: the buffer was full"
        about = {"time": _iso(time.time()), "level": "warning", "logger": __name__, "message": text, "dropped": count}
        self._append(json.dumps(about).encode())

    def drop(self) -> None:
        """Count a record that cannot be sent whatever the server does."""
        with self.changed:
            self.dropped += 1

    def hurry(self) -> int:
        """Let nothing that is here now wait for others; how many have been taken so far."""
        with self.changed:
            self._hurried = self.taken
            self.changed.notify_all()
            return self.taken

    def await_settled(self, taken: int, deadline: float) -> bool:
        """Wait until the first ``taken`` lines are settled, no longer than until ``deadline``; whether they are."""
        with self.changed:
            while self.settled < taken:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self.changed.wait(left)
            return True

    @property
    def hurried(self) -> bool:
        """Whether somebody waits for what is here."""
        return self.settled < self._hurried

    def take(self, wait: bool) -> list[bytes]:
        """The next batch, once there is one; nothing when the buffer is closed, or empty and there is no ``wait``."""
        with self.changed:
            while not self.closed:
                left = self._wait()
                if left is not None and left <= 0:
                    return self._pop()
                if not wait:
                    break
                self.changed.wait(left)
            return []

    def _wait(self) -> float | None:
        """Seconds until the lines that are here are a batch; None: until something changes."""
        if not self._lines:
            return None
        if self.hurried or len(self._lines) >= self._batch_size or self._bytes >= _BATCH_BYTES:
            return 0.0
        return self._first_at + self._interval - time.monotonic()

    def _pop(self) -> list[bytes]:
        batch = [self._lines.popleft()]
        size = len(batch[0])
        while self._lines and len(batch) < self._batch_size and size + len(self._lines[0]) < _BATCH_BYTES:
            batch.append(self._lines.popleft())
            size += len(batch[-1]) + 1
        # Those that are left have waited as long as these.
        return batch

    def settle(self, batch: list[bytes], sent: bool) -> None:
        """``batch`` is sent, or given up."""
        with self.changed:
            if sent:
                self.sent += len(batch)
            if self.closed:
                # They were counted as dropped when it was closed.
                self.dropped -= len(batch) if sent else 0
                return
            self._bytes -= sum(map(len, batch))
            self.settled += len(batch)
            self.dropped += 0 if sent else len(batch)
            self._tell_dropped()
            self.changed.notify_all()

    def close(self) -> int:
        """Take no more, and give up what is left; how many that is."""
        with self.changed:
            lost = self.pending
            self.closed = True
            self.dropped += lost
            self.settled = self.taken
            self._lines.clear()
            self.changed.notify_all()
            return lost


class _Target:
    """Where batches go, and how. Makes connections; is not one, so that it may pass through a fork."""

    def __init__(
        self, url: str, token: str, ack: str, timeout: float, cafile: str, context: ssl.SSLContext | None
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not the URL of a server: {url!r}")
        self.url = url
        self._host, self._port = parts.hostname, parts.port
        self.timeout = timeout
        self._context = context
        if parts.scheme == "https" and context is None:
            self._context = ssl.create_default_context(cafile=cafile or None)
        path = parts.path.rstrip("/")
        self.path = path + ("" if path.endswith("/add-jobs") else "/add-jobs") + (f"?ack={ack}" if ack else "")
        self.headers = {"Content-Type": "application/x-ndjson", "User-Agent": "tornado_logsrv.client"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """A new connection, not yet open."""
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._context)


class _Batch(NamedTuple):
    """Lines, and the request that they are sent in, the same each time."""

    lines: list[bytes]
    body: bytes
    headers: dict[str, str]


class _Sender:
    """Sends what is in the buffer: in a thread of its own, or, where there can be none any more, in that of flush."""

    def __init__(self, buffer: _Buffer, target: _Target) -> None:
        self._buffer = buffer
        self._target = target
        self._connection: http.client.HTTPConnection | None = None
        #: What is to be sent now, last one first: one batch, or parts of one that was too large.
        self._batches: list[_Batch] = []
        self._attempts = 0
        self._not_before = 0.0
        self._deadline = float("inf")
        self._well = True
        self._thread: threading.Thread | None = None
        self._busy = threading.Lock()

    @property
    def runs(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    @property
    def is_current_thread(self) -> bool:
        """Whether this is the thread that sends: what is logged there is not sent, as that would have no end."""
        return self._thread is not None and self._thread.ident == threading.get_ident()

    def start(self) -> None:
        """Begin, if there can be a new thread; where there is none, the next call tries again."""
        thread = threading.Thread(target=self._run, name="logsrv", daemon=True)
        if self._thread is None:
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def send_all(self, deadline: float) -> None:
        """Send all that is there, here and now, no longer than until ``deadline``."""
        if not self._busy.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return
        try:
            self._deadline = deadline
            while not self._stopped and self._next(wait=False):
                self._send()
            self._disconnect()
        finally:
            self._deadline = float("inf")
            self._busy.release()

    def _run(self) -> None:
        with self._busy:
            while not self._stopped and self._next(wait=True):
                self._send()
            self._disconnect()

    @property
    def _stopped(self) -> bool:
        return self._buffer.closed or time.monotonic() >= self._deadline

    def _next(self, wait: bool) -> bool:
        """Have something to send; whether there is."""
        if not self._batches:
            lines = self._buffer.take(wait)
            self._batches += [self._packed(lines)] if lines else []
        return bool(self._batches)

    def _send(self) -> None:
        """Try to send the last of the batches."""
        batch = self._batches[-1]
        status, problem = self._post(batch.body, batch.headers)
        sent = 200 <= status < 300
        if status == 413 and len(batch.lines) > 1:
            # Keys of their own: the halves are other requests.
            half = len(batch.lines) // 2
            self._batches[-1:] = [self._packed(batch.lines[half:]), self._packed(batch.lines[:half])]
            return
        self._tell(sent, problem)
        if sent or status in _REFUSED:
            self._attempts = 0
            self._batches.pop()
            self._buffer.settle(batch.lines, sent)
        else:
            self._pause()

    def _packed(self, lines: list[bytes]) -> _Batch:
        body = b"\n".join(lines)
        headers = {**self._target.headers, "Idempotency-Key": f'"{uuid.uuid4().hex}"'}
        if len(body) >= _GZIP_FROM:
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        return _Batch(lines, body, headers)

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        """The answer's status, 0 without an answer, and what is wrong."""
        used = self._connection is not None
        try:
            return self._exchange(body, headers)
        except Exception as error:
            self._disconnect()
            problem = f"{type(error).__name__}: {error}"
            if not (used and isinstance(error, (ConnectionError, http.client.BadStatusLine))):
                return 0, problem
        # A server closes what has been idle for long. That is no failure of it, so there is no pause.
        return self._post(body, headers)

    def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        if self._connection is None:
            left = self._deadline - time.monotonic()
            self._connection = self._target.connection(min(self._target.timeout, max(left, 0.1)))
        self._connection.request("POST", self._target.path, body, headers)
        response = self._connection.getresponse()
        text = response.read(65536)
        if response.will_close or not response.isclosed():
            self._disconnect()
        self._not_before = time.monotonic() + _retry_after(response.headers.get("Retry-After"))
        return response.status, f"{response.status} {text[:300].decode('utf-8', 'replace')}"

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _pause(self) -> None:
        """Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"), and at least what the server asks for.

        Whoever begins to wait for the records has them tried again at once.
        """
        buffer = self._buffer
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._attempts, 16))
        until = time.monotonic() + random.uniform(0, longest)
        self._attempts += 1
        with buffer.changed:
            hurried = buffer.hurried
            while not self._stopped:
                if buffer.hurried and not hurried:
                    self._attempts, until = 0, 0.0
                now = time.monotonic()
                left = max(until, self._not_before) - now
                if left <= 0:
                    return
                buffer.changed.wait(min(left, self._deadline - now))

    def _tell(self, well: bool, problem: str) -> None:
        if well != self._well:
            _say(f"{self._target.url} {'takes records again' if well else f'does not take records: {problem}'}")
        self._well = well


def _say(text: str) -> None:
    """Once a change of state, on standard error: what is logged here would only come back here."""
    if logging.raiseExceptions and sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"logsrv: {text}\n")


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After field (RFC 9110, section 10.2.3), a number or a date."""
    if not value:
        return 0.0
    try:
        seconds = float(value) if value.strip().isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


def described(record: logging.LogRecord, message: str, host: str) -> dict[str, Any]:
    """What is sent of ``record``, whose text is ``message``; see the module's head."""
    about = {
        "time": _iso(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": message,
        "file": record.pathname,
        "line": record.lineno,
        "function": record.funcName,
        "process": record.process,
        "thread": record.threadName,
        "host": host,
    }
    if record.args and isinstance(record.msg, str):
        about["template"] = record.msg
    if getattr(record, "taskName", None):
        about["task"] = record.taskName  # type: ignore[attr-defined, unused-ignore]  # since 3.12
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if extra:
        about["extra"] = extra
    if record.exc_info and record.exc_info[0] is not None:
        about["exception"] = _exception(*record.exc_info)
    elif record.exc_text:
        about["exception"] = {"traceback": record.exc_text}
    if record.stack_info:
        about["stack"] = record.stack_info
    return about


def _exception(kind: type[BaseException], error: BaseException | None, trace: Any) -> dict[str, str]:
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")
    return {"type": name, "message": _text(error, str), "traceback": text}


def _iso(seconds: float) -> str:
    micros = round(seconds * 1e6)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(micros // 1_000_000)) + f".{micros % 1_000_000:06d}Z"


def line_of(value: dict[str, Any]) -> bytes:
    """``value`` as a line of JSON. What JSON has no word for is given by its ``repr``."""
    try:
        return json.dumps(value, default=_repr, separators=(",", ":")).encode("ascii")
    except Exception:
        # A key that is no text, a circle, too much depth, a repr that fails.
        return json.dumps(_plain(value, _DEPTH), separators=(",", ":")).encode("ascii")


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT:
        return hex(value)
    if value is None or isinstance(value, (int, float, str)):
        return value
    if depth and isinstance(value, dict):
        return {_key(key): _plain(item, depth - 1) for key, item in list(value.items())}
    if depth and isinstance(value, (list, tuple)):
        return [_plain(item, depth - 1) for item in value]
    return _repr(value)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else _repr(key)


def _repr(value: Any) -> str:
    return _text(value, repr)


def _text(value: Any, write: Callable[[Any], str]) -> str:
    try:
        return write(value)
    except Exception as error:
        return f"<{type(value).__name__} that raises {type(error).__name__}>"


#: All that are not closed.
_HANDLERS: weakref.WeakSet[LogsrvHandler] = weakref.WeakSet()
#: Empty until the process begins to end; then what all waiting has to end by, on the monotonic clock.
_ending: list[float] = []
#: The process that has its finalizer.
_finalized: list[int] = []


def _at_exit() -> None:
    """Send what waits, all handlers in one time, so that many servers that are away do not add up."""
    handlers = list(_HANDLERS)
    if not handlers:
        return
    patience = max(handler._exit_timeout for handler in handlers)
    _ending[:] = [time.monotonic() + patience]
    for handler in handlers:
        # Before any is waited for.
        handler._buffer.hurry()
    for handler in handlers:
        handler.flush(patience)


def _after_fork() -> None:
    """In the child: what waits is the parent's to send, and the thread has stayed there."""
    _ending.clear()
    for handler in list(_HANDLERS):
        handler._start_afresh()


def _at_end_of_child() -> None:
    """A child of multiprocessing ends without atexit, but runs finalizers of its own."""
    util, process = (sys.modules.get(f"multiprocessing.{name}") for name in ("util", "process"))
    if util is None or process is None or process.parent_process() is None or _finalized == [os.getpid()]:
        return
    _finalized[:] = [os.getpid()]
    util.Finalize(None, _at_exit, exitpriority=-1000)


# logging.shutdown, which closes every handler, was registered before and so runs after this.
atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
