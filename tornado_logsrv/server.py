"""The whole life of the server, top to bottom: what starts, in what order, and what stops, in what order and why."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import tornado.log
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from . import __version__, embedded
from .application import LogApplication
from .backup import Backup, RecordStream, connect
from .config import HelpRequested, Options, load, redacted
from .errors import StartError
from .segments import Segments
from .store import RecordStore
from .writer import Backoff

log = logging.getLogger("logsrv")

_LISTEN_BACKLOG = 2048
_IDLE_SECONDS = 300
_BODY_SECONDS = 300
_MAX_HEADER_BYTES = 64 * 1024
#: No body is held because of this number: the handlers count, and keep what --max_body_bytes allows.
_ANY_SIZE = 1 << 62
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] = sys.argv[1:]) -> int:
    """Run the server until a signal; the exit status: 0, 2 when it could not start, 1 when records were lost."""
    try:
        options = load(arguments)
        _log_to_stderr(options.log_level)
        return asyncio.run(Server(options).run())
    except HelpRequested as text:
        print(text)
        return 0
    except StartError as error:
        print(f"tornado_logsrv: {error}", file=sys.stderr)
        return 2


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(tornado.log.LogFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper())
    # The drivers tell of every connection they open; what matters of it is logged here, once a change of state.
    for chatty in ("pymongo", "redis", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def http_server(application: LogApplication) -> HTTPServer:
    """The HTTP server of ``application``, with its limits."""
    return HTTPServer(
        application,
        max_header_size=_MAX_HEADER_BYTES,
        max_body_size=_ANY_SIZE,
        idle_connection_timeout=_IDLE_SECONDS,
        body_timeout=_BODY_SECONDS,
    )


class Server:
    """One server, from its options to its end."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._signals = 0
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._sockets: list[socket.socket] = []
        self._children: list[embedded.Child] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Start, serve until SIGINT, SIGTERM or SIGHUP, stop; the exit status. Raises StartError."""
        self._data = embedded.DataDirectory(self._options.data_dir)
        try:
            await self.start()
            await self._stop.wait()
            return await self.shutdown()
        finally:
            for each in self._sockets:
                each.close()
            # Last, and whatever happened: the servers that held the data.
            for child in reversed(self._children):
                await child.stop()
            self._data.release()

    async def start(self) -> None:
        """Everything that must be there before the first request. Raises StartError."""
        options = self._options
        # A port that is taken is found before anything is started.
        self._sockets = self._bind()
        mongo_url, redis_url = await self._backing_servers()
        # Neither connects yet: a server that is down is not fatal.
        self._store = RecordStore(mongo_url, options.mongo_db, options.mongo_collection)
        self._application = LogApplication(options, self._store)
        self._stream = RecordStream(connect(redis_url), options.redis_prefix, options.instance_name)
        segments = Segments(Path(self._data.path), options.instance_name)
        self._backup = Backup(self._stream, segments, self._application.queue)
        self._application.writer.on_stored = self._backup.trim
        await self._read_back()
        self._application.writer.start()
        self._install_signals()
        # Last: from here on, requests come.
        self._http = http_server(self._application)
        self._http.add_sockets(self._sockets)
        self._announce(self._sockets[0].getsockname()[1], mongo_url, redis_url)

    def _bind(self) -> list[socket.socket]:
        try:
            return bind_sockets(self._options.port, self._options.address, backlog=_LISTEN_BACKLOG)
        except OSError as error:
            where = f"{self._options.address}:{self._options.port}"
            raise StartError(f"cannot listen on {where}: {error.strerror} (--address, --port)") from None

    async def _backing_servers(self) -> tuple[str, str]:
        """The URLs of MongoDB and Redis, each started here when none is given."""
        options, urls = self._options, []
        for given, make in ((options.mongo_url, embedded.mongodb), (options.redis_url, embedded.redis)):
            if not given:
                child, given = make(self._data.path)
                self._children.append(child)
            urls.append(given)
        await asyncio.gather(*(child.start() for child in self._children))
        return urls[0], urls[1]

    async def _read_back(self) -> None:
        try:
            count = self._backup.recover_files()
        except OSError as error:
            raise StartError(f"a backup file cannot be read: {error}") from None
        recovered = await self._backup.recover_stream()
        if recovered is None:
            self._tasks.append(asyncio.ensure_future(self._read_back_later()))
        self._tell_read_back(count + (recovered or 0))

    async def _read_back_later(self) -> None:
        backoff = Backoff(0.5, 10.0)
        recovered = None
        while recovered is None:
            await asyncio.sleep(backoff.next())
            recovered = await self._backup.recover_stream()
        self._tell_read_back(recovered)

    def _tell_read_back(self, count: int) -> None:
        if count:
            log.info("%d records read back; they are written first", count)
            self._application.writer.offered()

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            # nohup and the like: what was to be ignored stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    async def shutdown(self) -> int:
        """Stop, losing nothing that was acknowledged; the exit status. A second signal skips the waiting."""
        log.info("stopping; a second signal skips the waiting")
        application, patience = self._application, self._options.shutdown_timeout
        # No new connections; requests that are under way are answered, and their connections then closed.
        self._http.stop()
        await self._unless_hurried(application.stop_accepting(), patience)
        # From here on nothing can be accepted, so what is dumped is all there is.
        application.closed = True
        await self._http.close_all_connections()
        for task in self._tasks:
            task.cancel()
        await self._unless_hurried(application.writer.stop(), patience)
        await application.writer.abandon()
        try:
            await self._backup.dump()
            return 0
        except OSError as error:
            log.critical(
                "%d records are lost: neither Redis nor a file would take them: %s", len(application.queue), error
            )
            return 1
        finally:
            await self._store.close()
            await self._stream.close()

    async def _unless_hurried(self, work: Coroutine[Any, Any, None], patience: float) -> None:
        """Await ``work``, for ``patience`` seconds at most, and no longer than until a second signal."""
        hurry, task = asyncio.ensure_future(self._hurry.wait()), asyncio.ensure_future(work)
        await asyncio.wait([hurry, task], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        for each in (hurry, task):
            each.cancel()
        await asyncio.wait([hurry, task])

    def _announce(self, port: int, mongo_url: str, redis_url: str) -> None:
        options = self._options
        where = f"http://{f'[{options.address}]' if ':' in options.address else options.address}:{port}"
        own = " (embedded)"
        print(f"tornado_logsrv {__version__} listens on {where}")
        print(f"  MongoDB   {redacted(mongo_url)}{'' if options.mongo_url else own}")
        print(f"  Redis     {redacted(redis_url)}{'' if options.redis_url else own}")
        print(f"  data      {self._data.path}")
        example = """-H 'Content-Type: application/json' -d '{"hello":"world"}'"""
        print(f"  try       curl {example} {where}/add-job", flush=True)
