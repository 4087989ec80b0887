"""``/`` and ``/static/…``: the web page, from memory."""

import dataclasses
import gzip
import hashlib
import mimetypes
from functools import cache
from importlib import resources

import tornado.web

from ..auth import Scope
from ..handler import BaseHandler
from ..operations import TEXT, operation

_FILE = {"text/html": TEXT, "text/css": TEXT, "text/javascript": TEXT}
#: What the page may do: run and read what is its own, and speak to this server alone. Text can become nothing else:
#: there is no policy by which a script could make HTML of it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types"
)
_WELCOME = """\
logsrv: a log server for people who run MongoDB

  send     curl -H 'Content-Type: application/json' -d '{{"hello":"world"}}' {url}/add-job
  search   curl '{url}/logs?q=level:error&from=now-1h'
  follow   curl -N {url}/logs/tail
  read     {url}/ in a browser
"""


@dataclasses.dataclass(frozen=True)
class File:
    """One file of the page: as it is, compressed, and what tells it from any other."""

    body: bytes
    packed: bytes
    media_type: str
    etag: str


@cache
def files() -> dict[str, File]:
    """The files of the page by their names; read once."""
    directory = resources.files("tornado_logsrv").joinpath("static")
    return {path.name: _file(path.name, path.read_bytes()) for path in directory.iterdir() if path.is_file()}


def _file(name: str, body: bytes) -> File:
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    etag = hashlib.sha256(body).hexdigest()[:32]
    return File(body, gzip.compress(body, mtime=0), f"{media_type}; charset=utf-8", etag)


@cache
def _files_ahead() -> str:
    """All that the page needs, for ``Link`` (RFC 8288): the browser asks for it at once, not when a module names it.

    The style comes first: without it nothing is painted.
    """
    modules = [f"<static/{name}>; rel=modulepreload" for name in sorted(files()) if name.endswith(".js")]
    return ", ".join(["<static/page.css>; rel=preload; as=style", *modules])


class FileHandler(BaseHandler):
    """Answers a file of the page."""

    scope = Scope.OPEN

    @operation({200: _FILE, 304: {}})
    def get(self, name: str) -> None:
        """200, or 304 to who has it already. Raises HTTPError 404."""
        file = files().get(name)
        if file is None or name == "index.html":
            raise tornado.web.HTTPError(404, f"no such path: {self.request.path}")
        self._answer(file)

    head = get

    def _answer(self, file: File) -> None:
        packed = "gzip" in self.request.headers.get("Accept-Encoding", "")
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        # Asked for again each time, and mostly answered 304: a new version is there at once, and as a whole.
        self.set_header("Cache-Control", "no-cache")
        self.add_header("Vary", "Accept, Accept-Encoding")
        self.set_header("Etag", f'"{file.etag}{"-gzip" if packed else ""}"')
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
            return
        self.set_header("Content-Type", file.media_type)
        if packed:
            self.set_header("Content-Encoding", "gzip")
        self.finish(file.packed if packed else file.body)


class PageHandler(FileHandler):
    """Answers the page to who asks for HTML, and to all others how to go on."""

    @operation({200: {"text/html": TEXT, "text/plain": TEXT}, 304: {}})
    def get(self) -> None:  # type: ignore[override]
        """200, or 304 to a browser that has it already."""
        if "text/html" in self.request.headers.get("Accept", ""):
            self.set_header("Link", _files_ahead())
            self._answer(files()["index.html"])
            return
        self.add_header("Vary", "Accept, Accept-Encoding")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(_WELCOME.format(url=f"{self.request.protocol}://{self.request.host}"))

    head = get  # type: ignore[assignment]


ROUTES = [("/", PageHandler), ("/static/(?P<name>[^/]+)", FileHandler)]
