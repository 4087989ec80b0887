"""The one table from errors to answers: RFC 9457 problem details."""

from typing import Any

from . import errors

#: Error class → status, last part of the problem's ``type``, title. The first class that fits decides.
PROBLEMS: tuple[tuple[type[errors.Refused], int, str, str], ...] = (
    (errors.Unreadable, 400, "unreadable", "The body cannot be read"),
    (errors.BadParameter, 400, "bad-parameter", "A query parameter is wrong"),
    (errors.TooLarge, 413, "too-large", "Too large"),
    (errors.UnsupportedMedia, 415, "unsupported-media", "Unsupported media type or coding"),
    (errors.NotFound, 404, "not-found", "There is no such thing"),
    (errors.StillRefused, 409, "still-refused", "MongoDB refuses the record"),
    (errors.QueryTimeout, 504, "query-timeout", "The query takes too long"),
    (errors.StoredTimeout, 504, "stored-timeout", "Taken, and not yet stored"),
    (errors.JournalUnavailable, 503, "journal-unavailable", "Redis cannot be used now"),
    (errors.QueueFull, 503, "queue-full", "The queue is full"),
    (errors.StoreUnavailable, 503, "store-unavailable", "MongoDB cannot be used now"),
    (errors.Unavailable, 503, "unavailable", "Not now"),
)
CONTENT_TYPE = "application/problem+json"


def describe(error: errors.Refused) -> dict[str, Any]:
    """The members of the problem that ``error`` is."""
    for kind, status, slug, title in PROBLEMS:
        if isinstance(error, kind):
            problem = {"type": f"urn:logsrv:problem:{slug}", "title": title, "status": status, "detail": str(error)}
            return problem | _about_parameter(error)
    raise TypeError(f"no answer for {type(error).__name__}")


def _about_parameter(error: errors.Refused) -> dict[str, Any]:
    if not isinstance(error, errors.BadParameter):
        return {}
    return {"parameter": error.name} | ({} if error.column is None else {"column": error.column})
