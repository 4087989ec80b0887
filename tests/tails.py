"""A watcher of ``/logs/tail``: reads the stream in a thread of its own, as an EventSource does."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

PATIENCE = 60.0


class Event(NamedTuple):
    """One event; ``id`` is the last one seen so far."""

    name: str
    data: Any
    id: str
    at: float


async def until(condition: Callable[[], Any]) -> Any:
    """Let the server work until ``condition()`` is true; what it gave."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.005)
    return result


class Tail:
    """Connected once ``head`` is there; what has arrived is in ``events``."""

    def __init__(
        self,
        url: str,
        path: str = "/logs/tail",
        last_id: str = "",
        receive_bytes: int = 0,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)
        self._path = path
        self._headers = {**(headers or {}), **({"Last-Event-ID": last_id} if last_id else {})}
        self._receive_bytes = receive_bytes
        self.last_id = last_id
        self.events: list[Event] = []
        self.ended = False
        self.response: Any = None
        self.go_on = threading.Event()
        self.go_on.set()
        self._headed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
            self._connection.connect()
            if self._receive_bytes:
                self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
            self._connection.request("GET", self._path, headers=self._headers)
            self.response = self._connection.getresponse()
            self._headed.set()
            self._read(self.response)
        self.ended = True
        self._headed.set()

    def _read(self, response: Any) -> None:
        name, data = "message", []
        last_id = self.last_id
        while self.go_on.wait() and (line := response.readline()):
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "id":
                last_id = value
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif not field:
                self.last_id = last_id
                if data:
                    self.events.append(Event(name, json.loads("\n".join(data)), last_id, time.time()))
                name, data = "message", []

    @property
    def head(self) -> Any:
        """The response, once its head is there."""
        assert self._headed.wait(PATIENCE)
        return self.response

    def of(self, name: str) -> list[Any]:
        """The data of all events of one name."""
        return [event.data for event in list(self.events) if event.name == name]

    @property
    def ids(self) -> list[str]:
        """The ids of the records that were shown, in their order."""
        return [record["_id"] for record in self.of("record")]

    @property
    def settled(self) -> set[str]:
        """The ids of the records that are known to be stored."""
        told = {record_id for told in self.of("stored") for record_id in told["ids"]}
        return told | {record["_id"] for record in self.of("record") if record["state"] == "stored"}

    def close(self) -> None:
        """Hang up, at once."""
        self.go_on.set()
        with contextlib.suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._connection.close()
