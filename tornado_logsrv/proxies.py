"""Balancers before this server: what they say of a client is believed, and what anybody else says is not."""

import functools
import ipaddress
from collections.abc import Sequence

from tornado.httputil import HTTPServerRequest

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SCHEMES = ("http", "https")


class Proxies:
    """The addresses of the balancers. False when there are none."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)
        self._has = functools.lru_cache(maxsize=1024)(self._look)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def _look(self, address: str) -> bool:
        parsed = ipaddress.ip_address(address)
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(parsed in network for network in self._networks)

    def client(self, peer: str, forwarded: str) -> str:
        """Who has sent a request that came from ``peer`` with ``forwarded`` as its X-Forwarded-For.

        A balancer appends the address that it was called from: the last one that is no balancer's is the client's, and
        what stands before it is only what that client said.
        """
        address = peer
        for hop in reversed(forwarded.split(",")):
            if not self._is_proxy(address):
                break
            hop = hop.strip()
            if not _is_address(hop):
                break
            address = hop
        return address

    def _is_proxy(self, address: str) -> bool:
        return _is_address(address) and self._has(address)

    def apply(self, request: HTTPServerRequest) -> None:
        """Give ``request`` the address and the scheme of its client, where a balancer tells them."""
        peer = request.remote_ip or ""
        if not self._networks or not self._is_proxy(peer):
            return
        # Balancers that follow one another may each write a header of its own.
        request.remote_ip = self.client(peer, ",".join(request.headers.get_list("X-Forwarded-For")))
        scheme = request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip().lower()
        if scheme in _SCHEMES:
            request.protocol = scheme


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
