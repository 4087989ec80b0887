"""An HTTP/1.1 server with the interface of `tornado.httpserver.HTTPServer`, on asyncio and httptools.

It drives any `tornado.httputil.HTTPServerConnectionDelegate` (a `tornado.web.Application`, a Router, a
callable), so request handlers do not change; WebSocket and ``detach()`` are not offered. Its own are:

- heads are read by llhttp (through httptools) and messages are cut here, by `FixedBody` and `ChunkedBody`;
  llhttp is shown every byte of them too. What the two read differently is refused: a message whose end is in
  dispute is how requests are smuggled (RFC 9112, section 11.2). A head that they have agreed on is not read again.
- bytes go from and to an `asyncio.Transport` (of asyncio or uvloop), with no IOStream between.
- a route in ``fast_routes`` sees a small plain request before any header object, delegate or task is made, and those
  of one turn of the loop together, if it likes.

    bytes → Connection → Head → fast route → bytes
                            ↘ Exchange ⇄ HTTPMessageDelegate
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from tornado.log import app_log
from tornado.netutil import bind_sockets, ssl_options_to_context

from . import listener
from .connection import Connection
from .fastroutes import FastRoute, KnownHeads, Turn

#: Connections waiting to be accepted. Of 512 clients the slowest in a hundred waits 10 ms; with 100, 400 ms.
BACKLOG = 2048


class HTTPServer(listener.HTTPServer):
    """`tornado.httpserver.HTTPServer` on this transport, with all its arguments and three more:

    ``fast_routes`` maps (method, path), as bytes, to a `FastRoute`; the path is the request target up to "?".
    ``max_header_count`` is the most header fields a request may have.
    ``connections`` bounds how many connections there may be.
    """

    def initialize(
        self,
        *args: Any,
        fast_routes: Mapping[tuple[bytes, bytes], FastRoute] | None = None,
        max_header_count: int = 100,
        **kwargs: Any,
    ) -> None:
        """What Tornado's configurable classes have for a constructor. Raises what Tornado's server raises."""
        super().initialize(*args, **kwargs)
        self.fast_routes = fast_routes or {}
        self.max_header_count = max_header_count
        size = self.conn_params.max_body_size
        self.max_body_size = size if size is not None else self.max_buffer_size or 100 * 1024 * 1024
        self._ssl_context: ssl.SSLContext | None = None
        if self.ssl_options is not None:
            self._ssl_context = ssl_options_to_context(self.ssl_options, server_side=True)
        self._opening: set[asyncio.Task[Any]] = set()
        #: Bytes of bodies that fast routes wait for.
        self.awaited = 0
        self._done: asyncio.Future[None] | None = None
        self._unflushed: list[Connection] = []
        self.known_heads = KnownHeads()
        self.turn = Turn()

    def listen(
        self,
        port: int,
        address: str | None = None,
        family: socket.AddressFamily = socket.AF_UNSPEC,
        backlog: int = BACKLOG,
        flags: int | None = None,
        reuse_port: bool = False,
    ) -> None:
        """Accept connections on a port, as `tornado.tcpserver.TCPServer.listen`. Raises OSError."""
        self.add_sockets(bind_sockets(port, address, family, backlog, flags, reuse_port))

    def count(self) -> int:
        """How many connections there are, with those that are being opened."""
        return len(self._connections) + len(self._opening)

    def take(self, connection: socket.socket, address: Any) -> None:
        """Serve a connection that has been accepted."""
        loop = asyncio.get_running_loop()
        opening = loop.connect_accepted_socket(partial(Connection, self, loop), connection, ssl=self._ssl_context)
        task = loop.create_task(opening)
        self._opening.add(task)
        task.add_done_callback(self._open)

    def sending(self, connection: Any) -> tuple[int, int, Any]:
        """How many bytes the client is sent in all, how many of them the kernel has not taken, and the socket."""
        sent: tuple[int, int, Any] = connection.sending()
        return sent

    def cut(self, connection: Any) -> None:
        """Close at once."""
        connection.abort()

    def _open(self, task: asyncio.Task[Any]) -> None:
        self._opening.discard(task)
        error = None if task.cancelled() else task.exception()
        # A client that leaves, or speaks no TLS, is no news.
        if error is not None and not isinstance(error, OSError):
            app_log.error("A connection could not be opened", exc_info=error)

    async def close_all_connections(self) -> None:
        """Close all, also those that are being opened, and wait until everybody concerned has been told."""
        if opening := [*self._opening]:
            for task in opening:
                task.cancel()
            await asyncio.wait(opening)
        await super().close_all_connections()

    def is_reading(self) -> bool:
        """Whether a part of a request has been read on any connection."""
        return any(connection.is_reading for connection in cast(Any, self._connections))

    def opened(self, connection: Connection) -> None:
        """A client has connected: ``close_all_connections`` will close it."""
        self._connections.add(cast(Any, connection))

    def flush_soon(self, connection: Connection) -> None:
        """Write what a connection has to send, with that of all others, when this turn of the loop is done.

        The answers then leave in one burst: clients on the same host are woken once, not for each of them.
        """
        if not self._unflushed:
            connection.loop.call_soon(self._flush)
        self._unflushed.append(connection)

    def _flush(self) -> None:
        connections, self._unflushed = self._unflushed, []
        for connection in connections:
            connection.flush()

    def done_future(self, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[None]":
        """A future that is done, shared by all writes that need not wait."""
        if self._done is None:
            self._done = loop.create_future()
            self._done.set_result(None)
        return self._done
