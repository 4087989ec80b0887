"""Which requests a browser has sent for a page from elsewhere, and which names this server goes by.

A browser lets any page send requests here, as far as it reaches; what tells them from a person's own is what it writes
into them: the Host that was asked for, the Origin of the page, and Sec-Fetch-Site (Fetch Metadata, W3C). Programs that
are no browsers send neither Origin nor Sec-Fetch-Site, and are not concerned.
"""

import ipaddress
import re
from collections.abc import Collection

from .errors import Forbidden

#: Good Host values that are remembered, as they were sent.
_MAX_SEEN = 256
#: A Host value: an IPv6 address in brackets, or a name, and a port (RFC 9110, section 7.2).
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]*:[0-9a-fA-F:.]*)\]|([^:\[\]]+))(?::[0-9]*)?")
_CORS_METHODS = "GET, HEAD, POST, PUT, DELETE"
_CORS_HEADERS = "Authorization, Content-Type, Content-Encoding, Idempotency-Key, Last-Event-ID"
_CORS_SECONDS = 600


class Origins:
    """The names of this server, and the pages from elsewhere that may use it."""

    def __init__(self, hosts: Collection[str] | None, pages: Collection[str] = ()) -> None:
        """``hosts``: the names that it goes by besides those of loopback; None: any, which is not checked.

        ``pages``: origins whose pages may use it, as CORS has it.
        """
        self._any = hosts is None
        self._hosts = frozenset(_normal(host) for host in hosts or ())
        self._pages = frozenset(page.rstrip("/").lower() for page in pages)
        self._seen: set[bytes] = set()

    def check_host(self, host: str) -> None:
        """Raises Forbidden for a name that this server does not go by.

        A page whose name has been made to mean this machine (DNS rebinding) is of one origin with it for its browser;
        the name is the only thing that tells.
        """
        name = _normal(hostname(host))
        if not (self._any or name in self._hosts or _is_loopback(name)):
            raise Forbidden(f"this server is not called {host[:80]!r} (--hosts)")

    def knows_host(self, host: bytes) -> bool:
        """Whether this server goes by that name; quick for one that was asked before."""
        if host in self._seen:
            return True
        try:
            self.check_host(host.decode("latin-1"))
        except Forbidden:
            return False
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        self._seen.add(host)
        return True

    def check_page(
        self, host: str, origin: str | None, site: str | None, *, is_secure: bool, follows_link: bool
    ) -> None:
        """Raises Forbidden for the request of a page from elsewhere.

        ``host``, ``origin`` and ``site`` are its Host, Origin and Sec-Fetch-Site; ``is_secure``: it came by HTTPS;
        ``follows_link``: somebody comes by a link to what anybody may see.
        """
        if follows_link or (origin is not None and self.allows(origin)):
            return
        if site not in (None, "same-origin", "none"):
            raise Forbidden("a page from elsewhere may not use this server (--cors_origins)")
        if origin is not None and not self._is_own(origin, host, is_secure):
            raise Forbidden(f"a page from {origin[:80]!r} may not use this server (--cors_origins)")

    def _is_own(self, origin: str, host: str, is_secure: bool) -> bool:
        # http:// and this name is anybody's who is on the way there. The other way round it is ours: TLS may end before
        # this server, at a balancer that does not say so.
        scheme, _, place = origin.lower().partition("://")
        return place == host.lower() and scheme in (("https",) if is_secure else ("http", "https"))

    def allows(self, origin: str) -> bool:
        """Whether pages from ``origin`` may use this server."""
        return origin.lower() in self._pages

    def headers(self, origin: str | None) -> dict[str, str]:
        """What an answer has to say so that the page may read it. Cookies are not for pages from elsewhere."""
        if not self._pages:
            return {}
        if origin is None or not self.allows(origin):
            return {"Vary": "Origin"}
        return {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": _CORS_METHODS,
            "Access-Control-Allow-Headers": _CORS_HEADERS,
            "Access-Control-Expose-Headers": "Link, Retry-After, X-Logsrv-Ack",
            "Access-Control-Max-Age": str(_CORS_SECONDS),
        }


def hostname(host: str) -> str:
    """The name, or the address, in a Host value; empty for what is none."""
    found = _HOST.fullmatch(host)
    return "" if found is None else found[1] or found[2]


def _normal(name: str) -> str:
    return name.strip("[]").removesuffix(".").lower()


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
