"""The one table from errors to answers: RFC 9457 problem details."""

import re
import secrets
from typing import Any

import msgspec

from . import errors

#: Error class → status, last part of the problem's ``type``, title. The first class that fits decides.
PROBLEMS: tuple[tuple[type[errors.Refused], int, str, str], ...] = (
    (errors.Unreadable, 400, "unreadable", "The body cannot be read"),
    (errors.BadParameter, 400, "bad-parameter", "A query parameter is wrong"),
    (errors.TooLarge, 413, "too-large", "Too large"),
    (errors.UnsupportedMedia, 415, "unsupported-media", "Unsupported media type or coding"),
    (errors.NotFound, 404, "not-found", "There is no such thing"),
    (errors.Unauthenticated, 401, "unauthenticated", "A token is needed"),
    (errors.Forbidden, 403, "forbidden", "That is not allowed"),
    (errors.StillRefused, 409, "still-refused", "MongoDB refuses the record"),
    (errors.QueryTimeout, 504, "query-timeout", "The query takes too long"),
    (errors.RateLimited, 429, "rate-limited", "Too much from this token"),
    (errors.StoredTimeout, 504, "stored-timeout", "Taken, and not yet stored"),
    (errors.JournalUnavailable, 503, "journal-unavailable", "Redis cannot be used now"),
    (errors.QueueFull, 503, "queue-full", "The queue is full"),
    (errors.TooManyWatchers, 503, "too-many-watchers", "Too many watch already"),
    (errors.TooManyConnections, 503, "too-many-connections", "Too many are connected already"),
    (errors.Overloaded, 503, "overloaded", "Too much is on its way"),
    (errors.StoreUnavailable, 503, "store-unavailable", "MongoDB cannot be used now"),
    (errors.Unavailable, 503, "unavailable", "Not now"),
)
CONTENT_TYPE = "application/problem+json"
#: What a request is called by, in the answer that is a problem and in the log.
REQUEST_ID = "X-Request-Id"
_SANE_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}")


def sane(given: str) -> str:
    """The id that a client, or a proxy before us, has ``given`` a request; empty when it is not fit to be shown."""
    return given if _SANE_ID.fullmatch(given) else ""


def request_id(given: str) -> str:
    """The sane id that was ``given``, or a new one."""
    return sane(given) or secrets.token_hex(12)


def occurrence(name: str) -> dict[str, str]:
    """The member of a problem that names the request: RFC 9457, section 3.1.5."""
    return {"instance": f"urn:logsrv:request:{name}"}


def describe(error: errors.Refused) -> dict[str, Any]:
    """The members of the problem that ``error`` is."""
    for kind, status, slug, title in PROBLEMS:
        if isinstance(error, kind):
            problem = {"type": f"urn:logsrv:problem:{slug}", "title": title, "status": status, "detail": error.told}
            return problem | _about_parameter(error)
    raise TypeError(f"no answer for {type(error).__name__}")


def whole_answer(error: errors.Unavailable, name: str) -> bytes:
    """The answer to ``error``, called ``name`` in the log, as bytes of HTTP/1.1; the connection ends.

    For who is not even asked what he wants.
    """
    problem = describe(error) | occurrence(name)
    body = msgspec.json.encode(problem)
    head = (
        f"HTTP/1.1 {problem['status']} Service Unavailable\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: {error.retry_after}\r\n"
        f"{REQUEST_ID}: {name}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def _about_parameter(error: errors.Refused) -> dict[str, Any]:
    if not isinstance(error, errors.BadParameter):
        return {}
    where = {} if error.column is None else {"column": error.column}
    return {"parameter": error.name} | where | ({"nearest": error.nearest} if error.nearest else {})
