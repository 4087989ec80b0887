"""Pages: how many, and behind what. A cursor is opaque to clients, and good for ever."""

import base64
import datetime
import re
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlencode

from bson import ObjectId

from ..errors import BadParameter
from ..store import Order, Position

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
_CURSOR = re.compile(r"(asc|desc):(-?\d{1,18}):([0-9a-f]{24})")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)


def check_names(arguments: Mapping[str, str], known: tuple[str, ...]) -> None:
    """Raises BadParameter for a parameter that is not ``known``: a misspelt one would silently select the wrong."""
    for name in arguments:
        if name not in known:
            raise BadParameter(name, f"no such parameter; there are {', '.join(known)}")


def limit(arguments: Mapping[str, str]) -> int:
    """How many at the most. Raises BadParameter."""
    given = arguments.get("limit", str(DEFAULT_LIMIT))
    if not re.fullmatch(r"[0-9]{1,9}", given) or not 1 <= int(given) <= MAX_LIMIT:
        raise BadParameter("limit", f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(given)


def cursor(arguments: Mapping[str, str]) -> tuple[Order, Position] | None:
    """The order and the last position of the page before. Raises BadParameter."""
    if "cursor" not in arguments:
        return None
    try:
        text = base64.b64decode(arguments["cursor"], altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        text = ""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise BadParameter("cursor", "must be one that this server gave in a Link header")
    return cast(Order, match[1]), Position(int(match[2]), ObjectId(match[3]))


def cursor_behind(order: Order, moment: Any, record_id: Any) -> str | None:
    """The cursor of what comes behind a record; None when its identity is none of this server's making."""
    if not isinstance(moment, datetime.datetime) or not isinstance(record_id, ObjectId):
        return None
    return base64.urlsafe_b64encode(f"{order}:{milliseconds(moment)}:{record_id}".encode()).decode()


def next_link(path: str, arguments: Mapping[str, str], cursor: str) -> str:
    """The Link field (RFC 8288) that leads to the next page."""
    return f'<{path}?{urlencode({**arguments, "cursor": cursor})}>; rel="next"'


def milliseconds(moment: datetime.datetime) -> int:
    """``moment`` (aware) in milliseconds since 1970."""
    return (moment - _EPOCH) // _MILLISECOND


def moment(timestamp_ms: int) -> datetime.datetime:
    """The inverse of ``milliseconds``."""
    return _EPOCH + timestamp_ms * _MILLISECOND
