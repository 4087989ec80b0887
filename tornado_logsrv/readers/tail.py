"""``GET /logs/tail``: records as they are taken, by Server-Sent Events (HTML standard, section 9.2)."""

import asyncio
import math
from typing import Any, cast

from tornado.httputil import HTTPConnection
from tornado.iostream import StreamClosedError

from ..auth import Scope
from ..errors import BadParameter, TooManyWatchers, Unavailable
from ..handler import audit
from ..operations import TEXT, joined, operation
from ..watch import RETRY_MS
from ..watchers import Wanted, Watcher
from . import marks, paging
from .replay import Replay
from .searching import PARAMETERS as SELECTION
from .searching import SearchHandler, selection

PARAMETERS = {"q": SELECTION["q"], "from": SELECTION["from"], "last_event_id": TEXT}
_RETRY_AFTER = 10


class TailHandler(SearchHandler):
    """Answers one watcher, until it goes or the server stops."""

    scope = Scope.READ
    keeps_bounds = True
    refusals = (BadParameter, TooManyWatchers, Unavailable)
    request_fields = joined(SearchHandler.request_fields, {"Last-Event-ID": TEXT})
    _watcher: Watcher | None = None

    @operation({200: {"text/event-stream": TEXT}}, PARAMETERS)
    async def get(self) -> None:
        """The stream: first what it has missed, or what is stored since ``from``; then what is new."""
        paging.check_names(self.arguments, PARAMETERS)
        selected = selection(self.arguments, self.now_ms)
        where = marks.wanted(self.arguments, self.request.headers.get("Last-Event-ID", ""), selected.low)
        watch = self.application.watch
        if watch.closed:
            raise Unavailable("the server is stopping", 1)
        if len(watch.watchers) >= self.application.options.max_watchers:
            raise TooManyWatchers(f"{len(watch.watchers)} watch already (--max_watchers)", _RETRY_AFTER)
        self._send = cast(HTTPConnection, self.request.connection).write
        self._watcher = Watcher(Wanted(selected.query, self.binding), self._send, self._end)
        watch.come(self._watcher, marks.since(where, watch, self.now_ms))
        gate, left = self.application.gate, self.application.gate.seconds_left(self.request)
        gate.on_change.add(self._look_again)
        sign_in = asyncio.get_running_loop().call_later(left, self._deny) if left < math.inf else None
        try:
            await self._stream(marks.start(where, watch), self._watcher)
        finally:
            watch.go(self._watcher)
            gate.on_change.discard(self._look_again)
            if sign_in is not None:
                sign_in.cancel()

    async def _stream(self, begin: marks.Start, watcher: Watcher) -> None:
        # A stop does not wait for this one, it ends it.
        self.application.request_ended(self)
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        # nginx would keep events until it has a page of them.
        self.set_header("X-Accel-Buffering", "no")
        self.write(b"retry: %d\n\n" % RETRY_MS)
        self._ended = asyncio.Event()
        self._replay = asyncio.ensure_future(self._replayed(begin, watcher))
        self._replay.add_done_callback(self._replay_done)
        await self._ended.wait()
        if self._replay.done() and not self._replay.cancelled():
            self._replay.result()

    async def _replayed(self, begin: marks.Start, watcher: Watcher) -> None:
        application = self.application
        await self.flush()
        await Replay(application.watch, self.reader, application.queue, watcher.query, self._send).run(begin, watcher)

    def _replay_done(self, replay: "asyncio.Task[None]") -> None:
        if not replay.cancelled() and replay.exception() is not None:
            self._ended.set()

    def _look_again(self) -> None:
        """Somebody may no more what he might. Else who had a token once could watch for ever."""
        if not self.still_may:
            self._deny()

    def _deny(self) -> None:
        """Its token, or its sign-in, is good no more: the watcher comes back, and is asked who it is."""
        audit.info("what was watched is ended, %s may not any more", self._about)
        self._end()

    def _end(self) -> None:
        """There is nothing more to say: the server stops."""
        self._replay.cancel()
        if not self._finished:
            self.finish()
        self._ended.set()

    def on_connection_close(self) -> None:
        """The watcher has gone, and is forgotten."""
        super().on_connection_close()
        if self._watcher is not None:
            self.application.watch.go(self._watcher)
            self._replay.cancel()
            self._ended.set()

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """A client that goes is no failure."""
        if not isinstance(value, StreamClosedError):
            super().log_exception(typ, value, tb)
