"""HTTP/1.1 over one connection that is kept, as little of it as is needed to load a server."""

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Mapping
from typing import Any


class Broken(Exception):
    """The connection ended, or the server was silent for too long, before the answer was whole."""


@dataclasses.dataclass(slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body read as JSON, {} when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}


class Connection:
    """One connection; after Broken, or once the server said that it closes, it is of no further use."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host
        self.open = True

    @classmethod
    async def to(cls, url: str) -> "Connection":
        """Connect. Raises OSError, and ValueError when ``url`` is none yet."""
        host = url.removeprefix("http://")
        name, _, port = host.rpartition(":")
        return cls(*await asyncio.open_connection(name, int(port)), host)

    async def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, seconds: float, pause: float = 0.0
    ) -> Answer:
        """Send a request, the second half of its body ``pause`` seconds after the first. Raises Broken."""
        try:
            async with asyncio.timeout(seconds):
                await self._send(method, path, headers, body, pause)
                return await self._receive()
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.close()
            raise Broken(repr(error)) from None

    async def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, pause: float) -> None:
        head = {"Host": self._host, "Content-Length": str(len(body)), **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        half = len(body) // 2 if pause else len(body)
        self._writer.write("\r\n".join(lines).encode() + body[:half])
        if pause:
            await asyncio.sleep(pause)
            self._writer.write(body[half:])
        await self._writer.drain()

    async def _receive(self) -> Answer:
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines if line)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(int(status.split()[1]), headers, body)

    def close(self) -> None:
        """Let go of the connection."""
        self.open = False
        with contextlib.suppress(OSError):
            self._writer.close()


async def get(url: str, path: str, seconds: float = 10.0) -> Answer:
    """One GET on a connection of its own. Raises Broken."""
    try:
        connection = await Connection.to(url)
    except (OSError, ValueError) as error:
        raise Broken(repr(error)) from None
    try:
        return await connection.request("GET", path, {}, b"", seconds)
    finally:
        connection.close()
