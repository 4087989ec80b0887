"""Who gets in: every request is admitted, or refused, here."""

import ipaddress
import logging
import math
from collections.abc import Callable
from pathlib import Path

from tornado.httputil import HTTPServerRequest

from . import sessions
from .auth import ANONYMOUS, Failures, Scope, Token, Tokens, authorization_of, secrets_in
from .config import Options
from .errors import Forbidden, Unauthenticated
from .origins import Origins
from .proxies import Proxies

log = logging.getLogger("logsrv.auth")

#: A page from elsewhere cannot send a header of its own without being asked first (CORS), and then it is refused.
PAGE_HEADER = "X-Logsrv-Page"
_SAFE = ("GET", "HEAD", "OPTIONS")
#: Authorization values that are remembered as good.
_MAX_KNOWN = 4096


class Gate:
    """Knows the tokens, the names of this server, and who has failed lately."""

    def __init__(self, options: Options) -> None:
        """Raises StartError when the tokens file, or the key that sessions are signed with, cannot be read."""
        self._path = options.tokens_file
        self._tokens = Tokens.read(self._path) if self._path else None
        self._key = options.session_key
        if self._tokens is not None and not self._key:
            self._key = sessions.own_key(Path(options.data_dir))
        self._ended = sessions.Ended(Path(options.data_dir)) if self._tokens is not None else None
        self.failures = Failures()
        self.proxies = Proxies(options.trusted_proxies)
        # With --hosts the name is checked wherever the server listens. On loopback it always is: what keeps others out
        # there is the address alone.
        checked = bool(options.hosts) or is_loopback(options.address)
        self.origins = Origins((options.address, *options.hosts) if checked else None, options.cors_origins)
        #: Authorization values, as they were sent, whose tokens may write; empty: none was sent. A dict finds a value
        #: by a keyed hash of all of it (PEP 456), so a guess that begins well takes no longer than another.
        self.writers: dict[bytes, Token] = {}
        #: Called when somebody may no more what he might: for requests that go on for long.
        self.on_change: set[Callable[[], None]] = set()
        self._forget()

    @property
    def is_open(self) -> bool:
        """Whether there are no tokens: who reaches this server may do everything."""
        return self._tokens is None

    @property
    def tenants(self) -> set[str]:
        """All that a token is bound to."""
        return {token.tenant for token in self._tokens or () if token.tenant}

    def reload(self) -> None:
        """Read the tokens file again. Raises StartError; the tokens then stay as they were."""
        if self._path:
            self._tokens = Tokens.read(self._path, self._tokens)
            self._forget()
            log.info("%d tokens read from %s", len(self._tokens), self._path)
            self._tell()

    def _tell(self) -> None:
        for told in [*self.on_change]:
            told()

    def _forget(self) -> None:
        self.writers.clear()
        if self._tokens is None:
            self.writers[b""] = ANONYMOUS

    def check_origin(self, request: HTTPServerRequest, scope: Scope) -> None:
        """Raises Forbidden for a request by a wrong name, or of a page from elsewhere."""
        headers = request.headers
        host, origin, site = headers.get("Host"), headers.get("Origin"), headers.get("Sec-Fetch-Site")
        # HTTP/1.0 may have no Host; browsers do not speak it.
        if host is not None:
            self.origins.check_host(host)
        if origin is not None or site is not None:
            follows_link = (
                scope is Scope.OPEN
                and request.method in _SAFE
                and headers.get("Sec-Fetch-Mode") == "navigate"
                and headers.get("Sec-Fetch-Dest") == "document"
            )
            is_secure = request.protocol == "https"
            self.origins.check_page(host or "", origin, site, is_secure=is_secure, follows_link=follows_link)

    def admit(self, request: HTTPServerRequest, scope: Scope) -> Token:
        """Whose request it is, when it is one that its token may make.

        Raises Unauthenticated, Forbidden and RateLimited.
        """
        if scope is Scope.OPEN or request.method == "OPTIONS":
            return ANONYMOUS
        token = self.token_of(request)
        if scope not in token.scopes:
            raise Forbidden(f"the token {token.name} has not the scope {scope}")
        changes = scope is not Scope.READ or request.method not in _SAFE
        if changes and self._is_by_cookie(request) and request.headers.get(PAGE_HEADER) != "1":
            raise Forbidden(f"a request that changes something by a cookie needs the header {PAGE_HEADER}: 1")
        token.request()
        if Scope.WRITE in token.scopes:
            self._remember(authorization_of(request.headers), token)
        return token

    def still_admits(self, request: HTTPServerRequest, token: Token, scope: Scope) -> bool:
        """Whether ``request`` of ``token``, admitted before, would be admitted now, and be about the same records."""
        if self._tokens is None:
            return True
        if self._is_by_cookie(request) and self._is_ended(request.cookies[sessions.COOKIE].value):
            return False
        now = self._tokens.get(token.digest)
        return now is not None and scope in now.scopes and now.binding == token.binding

    def _is_ended(self, value: str) -> bool:
        return self._ended is not None and value in self._ended

    def seconds_left(self, request: HTTPServerRequest) -> float:
        """For how long ``request``, admitted, may go on: until its sign-in ends."""
        if not self._is_by_cookie(request):
            return math.inf
        return sessions.seconds_left(request.cookies[sessions.COOKIE].value)

    def _is_by_cookie(self, request: HTTPServerRequest) -> bool:
        return not self.is_open and not authorization_of(request.headers)

    def token_of(self, request: HTTPServerRequest) -> Token:
        """Whose request it is, by its Authorization, its key or its cookie. Raises Unauthenticated."""
        if self._tokens is None:
            return ANONYMOUS
        if authorization := authorization_of(request.headers):
            return self.token_with(secrets_in(authorization), request.remote_ip or "")
        if sessions.COOKIE in request.cookies:
            return self._signed_in(self._tokens, request.cookies[sessions.COOKIE].value)
        raise Unauthenticated("a token is needed (Authorization: Bearer <token>)")

    def token_with(self, candidates: list[bytes], address: str) -> Token:
        """The token of one of these secrets, sent from ``address``. Raises Unauthenticated."""
        for secret in candidates:
            if self._tokens is not None and (token := self._tokens.find(secret)):
                return token
        raise Unauthenticated("there is no such token", shown=True, delay=self.failures.count(address))

    def _signed_in(self, tokens: Tokens, value: str) -> Token:
        token = tokens.get(sessions.digest_in(self._key, value) or "")
        if token is None or self._is_ended(value):
            raise Unauthenticated("the sign-in has ended")
        return token

    def sign_in(self, secret: str, address: str) -> tuple[Token, str]:
        """The token of ``secret`` and the value of the cookie that stands for it. Raises Unauthenticated."""
        token = self.token_with([secret.encode()], address)
        return token, sessions.new_value(self._key, token.digest)

    def sign_out(self, request: HTTPServerRequest) -> Token | None:
        """End the sign-in of the cookie of ``request``; the token that it stood for, None where it stood for none."""
        if self._tokens is None or self._ended is None or sessions.COOKIE not in request.cookies:
            return None
        value = request.cookies[sessions.COOKIE].value
        try:
            token = self._signed_in(self._tokens, value)
        except Unauthenticated:
            return None
        self._ended.add(value)
        self._tell()
        return token

    def _remember(self, authorization: str, token: Token) -> None:
        if not authorization:
            return
        if len(self.writers) >= _MAX_KNOWN:
            self._forget()
        self.writers[authorization.encode("latin-1", "replace")] = token


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches ``address``."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
