"""Requests to the server, and what it streams."""

import contextlib
import http.client
import json
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .options import Options

#: The server sends something every 15 s.
PATIENCE = 45.0
_READ = 65_536
_PROBLEM = 65_536

#: What tells that the server cannot be used now, or is no longer there.
LOST = (OSError, http.client.HTTPException)


class Refused(Exception):
    """The server does not answer the request; ``passing`` says that it may do so later."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: str | None) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or f"the answer is {status}"))
        self.status = status
        #: Of a query that is wrong: where, counted from 1, and the nearest that is right; None where that is not told.
        is_query = problem.get("parameter") == "q"
        self.column = problem.get("column") if is_query else None
        self.nearest = problem.get("nearest") if is_query else None
        self.passing = status in (408, 429) or status >= 500
        self.retry_after = float(retry_after) if retry_after and retry_after.isdigit() else None


class Event(NamedTuple):
    """One event of the live tail."""

    name: str
    id: str
    data: str


class Server:
    """The server that the options name."""

    def __init__(self, options: Options) -> None:
        """Raises OSError when the file of --ca cannot be used."""
        self._url = options.url
        self._headers = {"User-Agent": "tornado_logsrv.tail"}
        if options.token:
            self._headers["Authorization"] = f"Bearer {options.token}"
        secure = options.url.scheme == "https"
        self._context = ssl.create_default_context(cafile=options.ca or None) if secure else None

    @contextlib.contextmanager
    def get(self, path: str, arguments: Mapping[str, str], **headers: str) -> Iterator[http.client.HTTPResponse]:
        """The answer to a request. Raises Refused, and one of LOST."""
        connection = self._connection()
        try:
            query = urllib.parse.urlencode({name: value for name, value in arguments.items() if value})
            named = {name.replace("_", "-"): value for name, value in headers.items() if value}
            connection.request("GET", f"{self._url.path.rstrip('/')}{path}?{query}", headers=self._headers | named)
            response = connection.getresponse()
            if response.status != 200:
                raise _refused(response)
            yield response
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = str(self._url.hostname), self._url.port
        if self._context is None:
            return http.client.HTTPConnection(host, port, timeout=PATIENCE)
        return http.client.HTTPSConnection(host, port, timeout=PATIENCE, context=self._context)


def _refused(response: http.client.HTTPResponse) -> Refused:
    try:
        problem = json.loads(response.read(_PROBLEM))
    except ValueError:
        problem = None
    return Refused(response.status, problem if isinstance(problem, dict) else {}, response.headers.get("Retry-After"))


def lines(response: http.client.HTTPResponse) -> Iterator[str]:
    """The lines of a stream. Raises IncompleteRead when it is cut short, which readline does not tell."""
    parts: list[bytes] = []
    while piece := response.read1(_READ):
        *whole, rest = piece.split(b"\n")
        for line in whole:
            yield b"".join([*parts, line]).decode("utf-8", "replace")
            parts.clear()
        parts.append(rest)


def events(response: http.client.HTTPResponse) -> Iterator[Event]:
    """The events of a stream (HTML standard, section 9.2)."""
    name, last_id, data = "message", "", [""]
    data.clear()
    for line in lines(response):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "id":
            last_id = value
        elif field == "data":
            data.append(value)
        elif not line:
            if data:
                yield Event(name, last_id, "\n".join(data))
            name = "message"
            data.clear()
