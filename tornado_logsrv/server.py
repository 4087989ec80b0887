"""The whole life of the server, top to bottom: what starts, in what order, and what stops, in what order and why."""

import asyncio
import contextlib
import importlib.util
import logging
import math
import secrets
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets

from . import __version__, dryrun, embedded, garbage, manual, password, receivers, serverlog
from .application import LogApplication
from .config import HelpRequested, Options, exposed, load, redacted
from .errors import LeaseHeld, StartError
from .gate import is_loopback
from .lane import Lane
from .leases import RENEW_SECONDS, Leases
from .listener import HTTPServer, reserve_descriptors
from .notify import Notifier
from .store import RecordStore
from .streams import FAILURES, RecordStream, connect
from .sweeper import HELD_SECONDS
from .tls import certificates
from .writer import Backoff

log = logging.getLogger("logsrv")

_LISTEN_BACKLOG = 2048
_IDLE_SECONDS = 300
_BODY_SECONDS = 300
_MAX_HEADER_BYTES = 64 * 1024
#: No body is held because of this number: the handlers count, and keep what --max_body_bytes allows.
_ANY_SIZE = 1 << 62
#: How often a name that is taken, and a Redis that is away at the start, are looked at again.
_LEASE_LOOK_SECONDS = 1.0
_REDIS_LOOK_SECONDS = 0.5
#: How long an embedded server is waited for at the start; then requests are taken as when one of somebody else is away.
_EMBEDDED_SECONDS = 20.0
#: How often it is looked whether the embedded MongoDB is broken, and how rarely one that stays so is started again.
_MEND_SECONDS = 2.0
_MEND_MOST_SECONDS = 60.0
#: How often a stop looks whether the requests have ended.
_STOP_LOOK_SECONDS = 0.02
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str] = sys.argv[1:]) -> int:
    """Run the server until a signal; the exit status: 0, 2 when it could not start, 1 when records were lost."""
    try:
        options = load(arguments)
        serverlog.set_up(options.log_level, options.log_format)
        for name in exposed(arguments):
            log.warning("--%s has a password, which every user of this machine can read in the process list; "
                        "LOGSRV_%s or LOGSRV_%s_FILE keep it", name, name.upper(), name.upper())  # fmt: skip
        with asyncio.Runner(loop_factory=_loop_factory(options.transport)) as runner:
            if options.dry_run == "yes":
                runner.run(dryrun.show(options))
                return 0
            return runner.run(Server(options).run())
    except HelpRequested as asked:
        print(manual.page() if str(asked) == "help" else f"tornado_logsrv {__version__}")
        return 0
    except StartError as error:
        print(f"tornado_logsrv: {error}", file=sys.stderr)
        return 2


def _loop_factory(transport: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop where it is to be had. Raises StartError when it is asked for and is not."""
    if transport == "httptools" and not fast():
        raise StartError("--transport: httptools needs the extra: pip install 'tornado_logsrv[speed]'")
    if transport == "tornado" or not fast():
        return None
    import uvloop

    return cast(Callable[[], asyncio.AbstractEventLoop], uvloop.new_event_loop)


def fast() -> bool:
    """Whether the ``speed`` extra is installed."""
    return all(importlib.util.find_spec(name) for name in ("httptools", "uvloop"))


def http_server(application: LogApplication, context: ssl.SSLContext | None = None) -> HTTPServer:
    """The HTTP server of ``application``, with its limits, on the transport that its options choose."""
    given: dict[str, Any] = {}
    server: type[HTTPServer] = HTTPServer
    if application.options.transport != "tornado" and fast():
        # Not before: Tornado's own transport does without httptools.
        from . import transport

        server = transport.HTTPServer
        given["fast_routes"] = {
            (b"POST", path.encode()): Lane(application, path, collect) for path, collect in receivers.LANES.items()
        }
    return server(
        application,
        **given,
        connections=application.connections,
        ssl_options=context,
        max_header_size=_MAX_HEADER_BYTES,
        max_body_size=_ANY_SIZE,
        idle_connection_timeout=_IDLE_SECONDS,
        body_timeout=_BODY_SECONDS,
    )


def _keep_time_by_what_passes() -> None:
    """Have Tornado's timers go by asyncio's clock, which nobody can set.

    Theirs is that on the wall: when it is set back by an hour, a PeriodicCallback does not run for an hour (its source
    says so), and nothing would be written to MongoDB for so long.
    """
    IOLoop.current().time = asyncio.get_running_loop().time  # type: ignore[method-assign]


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
        self._status = 0
        self._lost_name = False
        self._notifier = Notifier()

    async def run(self) -> int:
        """Start, serve until SIGINT or SIGTERM, stop; the exit status. Raises StartError."""
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
        # Before any timer is made.
        _keep_time_by_what_passes()
        # Before the embedded servers, which have the same limit.
        most = self._reserve_descriptors()
        # A port that is taken is found before anything is started.
        self._sockets = self._bind()
        self._check_reach()
        self._certificates = certificates(options)
        mongo_url, redis_url = await self._backing_servers()
        # Neither connects yet: a server that is down is not fatal.
        self._store = RecordStore(mongo_url, options.mongo_db, options.mongo_collection, options.query_timeout)
        self._redis = connect(redis_url, options.redis_prefix, options.journal_replicas)
        stream = RecordStream(self._redis, options.redis_prefix, options.instance_name)
        self._leases = Leases(
            self._redis, options.redis_prefix, options.instance_name, self._data.name, secrets.token_hex(8)
        )
        self._application = LogApplication(options, self._store, stream)
        self._application.connections.most = most
        self._application.may_journal = lambda: self._leases.valid
        self._application.sweeper.take_turn = lambda: self._leases.take_turn("retention", HELD_SECONDS)
        # Before anything is read: two that write one stream would trim each other's entries.
        await self._claim_name()
        self._application.watch.resume()
        await self._read_back()
        self._tasks.append(asyncio.ensure_future(self._tend()))
        if not options.mongo_url:
            self._tasks.append(asyncio.ensure_future(self._mend(self._children[0])))
        if not options.redis_url:
            self._tasks.append(asyncio.ensure_future(embedded.sync(self._data.path)))
        self._application.start()
        self._tasks.append(asyncio.ensure_future(self._application.sweeper.run()))
        self._tasks.append(asyncio.ensure_future(self._application.indexer.run()))
        self._install_signals()
        garbage.spare()
        self._tasks.append(asyncio.ensure_future(garbage.collect_regularly()))
        # Last: from here on, requests come.
        self._http = http_server(self._application, self._certificates.context if self._certificates else None)
        self._http.add_sockets(self._sockets)
        self._announce(self._sockets[0].getsockname()[1], mongo_url, redis_url)
        self._notifier.ready()
        if self._notifier.wanted:
            self._tasks.append(asyncio.ensure_future(self._report()))

    def _bind(self) -> list[socket.socket]:
        try:
            return bind_sockets(
                self._options.port,
                self._options.address,
                backlog=_LISTEN_BACKLOG,
                reuse_port=self._options.reuse_port == "yes",
            )
        except OSError as error:
            where = f"{self._options.address}:{self._options.port}"
            raise StartError(f"cannot listen on {where}: {error.strerror} (--address, --port)") from None

    def _reserve_descriptors(self) -> int:
        wanted = self._options.max_connections
        most = reserve_descriptors(wanted)
        if most < wanted:
            log.warning("only %d clients can be connected at a time: the process may not have more file descriptors "
                        "(ulimit -n)", most)  # fmt: skip
        return most

    def _check_reach(self) -> None:
        """Raises StartError when others than this machine would be let in without being asked who they are."""
        if self._options.tokens_file or all(is_loopback(each.getsockname()[0]) for each in self._sockets):
            return
        where = self._options.address
        if self._options.allow_anonymous != "yes":
            raise StartError(
                f"--address: other machines reach {where}, and there are no tokens: give --tokens_file=FILE "
                "(python -m tornado_logsrv.token makes one), or --allow_anonymous=yes to let everybody in"
            )
        log.warning("whoever reaches %s may write, read and delete: there are no tokens (--tokens_file)", where)

    async def _backing_servers(self) -> tuple[str, str]:
        """The URLs of MongoDB and Redis, each started here when none is given."""
        mongo_url, redis_url = self._options.mongo_url, self._options.redis_url
        if not mongo_url:
            child, mongo_url = await password.mongodb(self._data.path)
            self._children.append(child)
        if not redis_url:
            child, redis_url = embedded.redis(self._data.path)
            self._children.append(child)
        await asyncio.gather(*(child.start(_EMBEDDED_SECONDS) for child in self._children))
        return mongo_url, redis_url

    async def _claim_name(self) -> None:
        """Take the lease of this instance's name. Raises StartError when another live process has it."""
        try:
            await self._outwait_lease()
        except FAILURES as error:
            self._application.backup.tell(False, error)

    async def _outwait_lease(self) -> None:
        # The lease of one that was killed on another machine runs out; that of one that lives is renewed.
        least, waited = math.inf, False
        while True:
            try:
                return await self._leases.acquire()
            except LeaseHeld as held:
                if held.seconds > least:
                    raise StartError(f"--instance: {held}") from None
                least = held.seconds
            if not waited:
                log.info("the name %s has a lease that is not this server's; waiting to see whether it is renewed",
                         self._leases.instance)  # fmt: skip
                waited = True
            await asyncio.sleep(_LEASE_LOOK_SECONDS)

    async def _read_back(self) -> None:
        """Read back what earlier processes have left, as far as the queue has room."""
        await self._application.backup.find()
        await self._application.backup.filled()
        self._tell_read_back()

    def _tell_read_back(self) -> None:
        if self._application.backup.all_read:
            self._application.watch.read_back()
        if count := self._application.unsettled:
            log.info("%d records read back; they are written first", count)
            self._application.writer.offered()

    async def _tend(self) -> None:
        """Keep the lease, find the stream when Redis comes late, and look after the streams of dead instances."""
        backup = self._application.backup
        while True:
            await asyncio.sleep(RENEW_SECONDS if backup.ready and self._leases.valid else _REDIS_LOOK_SECONDS)
            try:
                await self._leases.acquire()
                if not backup.ready and await backup.find():
                    await backup.filled()
                    self._tell_read_back()
                await backup.hold_again()
                await self._adopt_orphans()
                backup.tell(True)
                if backup.all_read:
                    self._application.watch.read_back()
                # What an outage has left undone waits for no further records.
                backup.trim()
            except LeaseHeld as held:
                log.critical("%s; stopping", held)
                self._status = 2
                self._lost_name = True
                self._stop.set()
                return
            except FAILURES as error:
                backup.tell(False, error)

    async def _mend(self, mongodb: embedded.Child) -> None:
        """End a SecantusDB that is broken: what a full disk has done to it lasts until it is started again."""
        pause = Backoff(_MEND_SECONDS, _MEND_MOST_SECONDS)
        while True:
            await asyncio.sleep(_MEND_SECONDS)
            if broken := [each for each in self._store.all if each.broken]:
                for each in broken:
                    each.broken = False
                mongodb.kill("it says that it is broken, as it does once the disk is full")
                await asyncio.sleep(pause.next())
            elif not self._application.writer.failures:
                pause.reset()

    async def _adopt_orphans(self) -> None:
        backup = self._application.backup
        for name, done in backup.adopting().items():
            if done:
                await self._end_adoption(name)
        for name in await self._leases.orphans():
            if await self._leases.adopt(name) and name not in backup.adopting():
                log.info("the server %s is gone; its records are stored from here", name)
                await backup.adopt(RecordStream(self._redis, self._options.redis_prefix, name))

    async def _end_adoption(self, name: str) -> None:
        stream = RecordStream(self._redis, self._options.redis_prefix, name)
        self._application.backup.adopted(name)
        await self._leases.adopted(name, forget=await stream.drop_if_empty())

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            # nohup and the like: what was to be ignored stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        """Read the files again that may change while the server runs; one that is not right leaves what there was."""
        self._notifier.reloading()
        reloads = [self._application.gate.reload, *([self._certificates.reload] if self._certificates else [])]
        for reload in reloads:
            try:
                reload()
            except StartError as error:
                log.error("%s; what was read before stays", error)
        self._notifier.ready()

    async def _report(self) -> None:
        """Tell systemd again and again that this server lives, and how it is."""
        while True:
            self._notifier.alive(self._application.health.line)
            await asyncio.sleep(self._notifier.pause_seconds)

    def _signalled(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    async def shutdown(self) -> int:
        """Stop, losing nothing that was acknowledged; the exit status. A second signal skips the waiting."""
        self._notifier.stopping()
        log.info("stopping; a second signal skips the waiting")
        application, patience = self._application, self._options.shutdown_timeout
        # No new connections; requests that are under way are answered, and their connections then closed.
        self._http.stop()
        application.stopping = True
        # Tails would never end by themselves; their watchers come back to the next process.
        application.watch.close()
        await self._unless_hurried(self._requests_end(), patience)
        # From here on nothing can be accepted, so what is dumped is all there is.
        application.intake.closed = True
        await self._http.close_all_connections()
        for task in self._tasks:
            task.cancel()
        await self._unless_hurried(self._end_writes(), patience)
        await application.writer.abandon()
        await application.backup.stop()
        try:
            # Before all that may fail, too.
            await self._keep()
        except OSError as error:
            log.critical("%d records are lost: neither Redis nor a file takes them: %s", len(application.queue), error)
            self._status = 1
        finally:
            await application.stop()
            await self._store.close()
            await self._redis.aclose()
        return self._status

    async def _requests_end(self) -> None:
        # Also those of which only a part has been read: no handler knows of them.
        half_read = getattr(self._http, "is_reading", lambda: False)
        while self._application.in_progress or half_read():  # noqa: ASYNC110
            await asyncio.sleep(_STOP_LOOK_SECONDS)

    async def _end_writes(self) -> None:
        await self._application.journal.stop()
        await self._application.writer.stop()

    async def _keep(self) -> None:
        """Give what is not stored to Redis or a file, and the name to whoever wants it. Raises OSError."""
        if self._lost_name:
            # The stream is another's now.
            self._application.backup.dump_to_file()
            return
        await self._application.backup.dump()
        with contextlib.suppress(*FAILURES):
            await self._leases.release()

    async def _unless_hurried(self, work: Coroutine[Any, Any, None], patience: float) -> None:
        """Await ``work``, for ``patience`` seconds at most, and no longer than until a second signal."""
        hurry, task = asyncio.ensure_future(self._hurry.wait()), asyncio.ensure_future(work)
        await asyncio.wait([hurry, task], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        for each in (hurry, task):
            each.cancel()
        await asyncio.wait([hurry, task])

    def _announce(self, port: int, mongo_url: str, redis_url: str) -> None:
        options = self._options
        scheme = "http" if self._certificates is None else "https"
        where = f"{scheme}://{f'[{options.address}]' if ':' in options.address else options.address}:{port}"
        own = " (embedded)"
        print(f"tornado_logsrv {__version__} listens on {where}")
        print(f"  MongoDB   {redacted(mongo_url)}{'' if options.mongo_url else own}")
        print(f"  Redis     {redacted(redis_url)}{'' if options.redis_url else own}")
        print(f"  data      {self._data.path}")
        example = """-H 'Content-Type: application/json' -d '{"hello":"world"}'"""
        print(f"  try       curl {example} {where}/add-job", flush=True)
