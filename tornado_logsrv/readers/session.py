"""``/sign-in`` and ``/sign-out``: the web page's session, a cookie that stands for a token."""

import msgspec

from .. import sessions
from ..auth import Scope
from ..errors import NotFound, Unauthenticated, Unreadable
from ..handler import BaseHandler, BodyHandler, audit
from ..operations import BOOLEAN, TEXT, array_of, json_of, object_of, one_of, operation

#: Whoever comes may send a body here: none that would take of the memory that others' have.
_MOST_BYTES = 4096
_SCOPES = array_of(one_of("write", "read", "admin"))


class _SignIn(msgspec.Struct):
    token: str


class SignInHandler(BodyHandler):
    """Begins a session, and tells of it."""

    scope = Scope.OPEN
    refusals = (*BodyHandler.refusals, NotFound, Unauthenticated)
    bodies = json_of(object_of(token=TEXT))
    most_bytes = _MOST_BYTES

    @operation({200: json_of(object_of(needed=BOOLEAN, name={"type": ["string", "null"]}, scopes=_SCOPES))})
    def get(self) -> None:
        """200 with whether a token is ``needed``, and the ``name`` and ``scopes`` of the one that is signed in with.

        Raises Unauthenticated for a secret that there is not.
        """
        gate = self.application.gate
        try:
            token = gate.token_of(self.request)
        except Unauthenticated as error:
            if error.shown:
                # A guess, which is answered as on any other route.
                raise
            self.answer(200, {"needed": True, "name": None, "scopes": []})
        else:
            self.answer(200, {"needed": not gate.is_open, "name": token.name, "scopes": sorted(token.scopes)})

    head = get

    @operation({200: json_of(object_of(name=TEXT, scopes=_SCOPES))})
    def post(self) -> None:
        """200 with the session's cookie, for ``{"token": text}``. Raises Unreadable, NotFound and Unauthenticated."""
        try:
            secret = msgspec.json.decode(self.body, type=_SignIn).token
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise Unreadable('the body must be {"token":"..."}') from None
        if self.application.gate.is_open:
            raise NotFound("there are no tokens here (--tokens_file)")
        token, value = self.application.gate.sign_in(secret, self.request.remote_ip or "")
        self.set_cookie(
            sessions.COOKIE,
            value,
            max_age=sessions.SECONDS,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self.request.protocol == "https",
        )
        audit.info("%s has signed in from %s", token.name, self.request.remote_ip)
        self.answer(200, {"name": token.name, "scopes": sorted(token.scopes)})


class SignOutHandler(BaseHandler):
    """Ends a session."""

    scope = Scope.OPEN

    @operation({204: {}})
    def post(self) -> None:
        """204; the sign-in is worth nothing here any more, and the browser forgets the cookie."""
        token = self.application.gate.sign_out(self.request)
        if token is not None:
            audit.info("%s has signed out from %s", token.name, self.request.remote_ip)
        self.clear_cookie(
            sessions.COOKIE, path="/", httponly=True, samesite="Strict", secure=self.request.protocol == "https"
        )
        self.set_status(204)


ROUTES = [("/sign-in", SignInHandler), ("/sign-out", SignOutHandler)]
