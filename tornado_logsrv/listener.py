"""Accepting connections: as many at a time as there may be, and with a pause when file descriptors have run out.

One more is answered by a few fixed bytes and closed. When the kernel has no descriptor for a connection it stays in
the backlog, and nothing is tried for a second: a loop that asks again at once would do nothing else.
"""

import contextlib
import errno
import fcntl
import logging
import resource
import secrets
import socket
import sys
import termios
from collections.abc import Callable, Iterable
from typing import Any, cast

from tornado import httpserver
from tornado.ioloop import IOLoop, PeriodicCallback

log = logging.getLogger("logsrv.connections")

#: Connections accepted before the loop turns to others.
ACCEPT_AT_ONCE = 32
#: How long nothing is accepted when descriptors have run out, and after how long without that they have not.
PAUSE_SECONDS = 1.0
CALM_SECONDS = 3.0
#: How long, of how many at a time, what a client still sends is read past, so that it gets to read why it is refused.
REFUSAL_SECONDS = 2.0
REFUSALS = 64
#: Who takes fewer bytes of an answer in this time is cut off.
LOOK_SECONDS = 30.0
LEAST_BYTES = 30 * 1024
#: Descriptors that connections leave to MongoDB, Redis, files, and clients that are refused.
RESERVE = 256
#: There is room again from this part of the most on: one connection that comes and goes is no change of state.
_ROOM_AGAIN = 0.9
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def reserve_descriptors(wanted: int) -> int:
    """Raise this process's limit of descriptors as far as ``wanted`` connections need it, and as it may be raised.

    How many connections there may be: ``wanted``, or as many as leave ``RESERVE`` descriptors, or half of them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(soft - RESERVE, soft // 2))


class Connections:
    """How many connections there are, and may be: ``most``; 0 is no bound."""

    def __init__(self, most: int = 0, answer_of: Callable[[str], bytes] = lambda name: b"") -> None:
        """``answer_of`` makes what those are sent for whom there is no room, from the name that this has in the log."""
        self.most = most
        self._answer_of = answer_of
        #: What one more is sent.
        self.answer = b""
        #: Connections refused since the start.
        self.refused = 0
        self.count: Callable[[], int] = lambda: 0
        self._refused_before: int | None = None

    def admit(self) -> bool:
        """Whether there is room for one more; one that has none is counted, and the first is told."""
        if not self.most or self.count() < self.most:
            return True
        if self._refused_before is None:
            # One name until there is room again, as there is one line.
            name = secrets.token_hex(12)
            self._refused_before, self.answer = self.refused, self._answer_of(name)
            log.warning(
                "%d connections are open, as many as there may be; others are refused, request %s", self.most, name,
                extra={"fields": {"request": name}},
            )  # fmt: skip
            IOLoop.current().call_later(PAUSE_SECONDS, self._look)
        self.refused += 1
        return False

    def _look(self) -> None:
        assert self._refused_before is not None
        if self.count() > self.most * _ROOM_AGAIN:
            IOLoop.current().call_later(PAUSE_SECONDS, self._look)
            return
        refused, self._refused_before = self.refused - self._refused_before, None
        log.info("there is room for connections again; %d were refused", refused)


class Refusal:
    """A client that gets a fixed answer to whatever it sends.

    A socket closed with bytes unread resets the connection, and the reset destroys an answer that the client has not
    read yet (RFC 9112, section 9.6). So: end our half, read past what comes, close.
    """

    def __init__(self, connection: socket.socket, answer: bytes, done: Callable[["Refusal"], None]) -> None:
        self._connection = connection
        self._done = done
        self._loop = IOLoop.current()
        self._loop.add_handler(connection, self._discard, IOLoop.READ)
        self._timeout = self._loop.call_later(REFUSAL_SECONDS, self.close)
        with contextlib.suppress(OSError):
            connection.send(answer)
            connection.shutdown(socket.SHUT_WR)

    def _discard(self, *_: Any) -> None:
        try:
            ended = not self._connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self.close()

    def close(self) -> None:
        """End it."""
        self._loop.remove_handler(self._connection)
        self._loop.remove_timeout(self._timeout)
        self._connection.close()
        self._done(self)


class Listener:
    """Accepts connections on ``sockets``, which listen already, and gives them to ``take`` while there is room."""

    def __init__(
        self,
        sockets: Iterable[socket.socket],
        connections: Connections,
        take: Callable[[socket.socket, Any], None],
        *,
        answers: bool,
    ) -> None:
        """``answers``: one that is refused is told so; else it is only closed."""
        self.sockets = list(sockets)
        self._connections = connections
        self._take = take
        self._answers = answers
        self._loop = IOLoop.current()
        self._refusals: set[Refusal] = set()
        self._pause: object | None = None
        self._calm: object | None = None
        self._listen()

    def _listen(self) -> None:
        self._pause = None
        for each in self.sockets:
            each.setblocking(False)
            self._loop.add_handler(each, self._accept, IOLoop.READ)

    def _accept(self, listening: Any, _: int) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_DESCRIPTOR:
                    raise
                self._run_out(error)
                return
            connection.setblocking(False)
            if self._connections.admit():
                self._take(connection, address)
            elif self._answers and (answer := self._connections.answer) and len(self._refusals) < REFUSALS:
                self._refusals.add(Refusal(connection, answer, self._refusals.discard))
            else:
                connection.close()

    def _run_out(self, error: OSError) -> None:
        """Accept nothing for a while; what wants to connect waits in the backlog."""
        for each in self.sockets:
            self._loop.remove_handler(each)
        self._pause = self._loop.call_later(PAUSE_SECONDS, self._listen)
        if self._calm is None:
            log.error("no connection can be accepted: %s; they wait until there is room", error.strerror)
        else:
            self._loop.remove_timeout(self._calm)
        self._calm = self._loop.call_later(CALM_SECONDS, self._calmed)

    def _calmed(self) -> None:
        self._calm = None
        log.info("connections are accepted again")

    def close(self) -> None:
        """Accept no more, and close ``sockets``."""
        for timeout in (self._pause, self._calm):
            if timeout is not None:
                self._loop.remove_timeout(timeout)
        for each in self.sockets:
            if self._pause is None:
                self._loop.remove_handler(each)
            each.close()
        for refusal in [*self._refusals]:
            refusal.close()
        self.sockets, self._pause, self._calm = [], None, None


def _on_the_way(sock: Any) -> int:
    """Bytes that the kernel has and the client has not (SIOCOUTQ, tcp(7)); it takes more in steps of a megabyte."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


class HTTPServer(httpserver.HTTPServer):
    """`tornado.httpserver.HTTPServer` with all its arguments and one more: ``connections`` bounds them."""

    def initialize(self, *args: Any, connections: Connections | None = None, **kwargs: Any) -> None:
        """What Tornado's configurable classes have for a constructor. Raises what Tornado's server raises."""
        super().initialize(*args, **kwargs)
        self.connections = connections or Connections()
        self.connections.count = self.count
        self._listeners: list[Listener] = []
        self._looks = PeriodicCallback(self._look, LOOK_SECONDS * 1000)
        self._slow: dict[Any, int] = {}

    @property
    def sockets(self) -> list[socket.socket]:
        """Those that listen."""
        return [each for listener in self._listeners for each in listener.sockets]

    def count(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections on sockets that listen already."""
        # Whoever speaks TLS would not understand the answer before a handshake, which costs what there is none of.
        answers = self.ssl_options is None
        self._looks.start()
        self._listeners.append(Listener(sockets, self.connections, self.take, answers=answers))

    def take(self, connection: socket.socket, address: Any) -> None:
        """Serve a connection that has been accepted."""
        cast(Any, self)._handle_connection(connection, address)

    def sending(self, connection: Any) -> tuple[int, int, Any]:
        """How many bytes the client is sent in all, how many of them the kernel has not taken, and the socket."""
        stream = connection.stream
        return stream._total_write_index, stream._total_write_index - stream._total_write_done_index, stream.socket

    def cut(self, connection: Any) -> None:
        """Close at once."""
        connection.stream.close()

    def _look(self) -> None:
        """Cut off who has something to read, and has hardly read since the last time."""
        before, self._slow = self._slow, {}
        for connection in [*self._connections]:
            sent, left, sock = self.sending(connection)
            if not left:
                continue
            taken = sent - left - _on_the_way(sock)
            if taken - before.get(connection, -LEAST_BYTES) < LEAST_BYTES:
                log.info("a client that does not read its answer is cut off")
                self.cut(connection)
            else:
                self._slow[connection] = taken

    def stop(self) -> None:
        """Accept no more connections. Those there are go on."""
        super().stop()
        self._looks.stop()
        for each in self._listeners:
            each.close()
        self._listeners = []
