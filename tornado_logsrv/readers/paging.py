"""Pages: how many, and behind what. A cursor is opaque to clients, and good for ever."""

import base64
import dataclasses
import datetime
import re
from collections.abc import Collection, Mapping
from typing import cast
from urllib.parse import urlencode

from bson import ObjectId

from ..errors import BadParameter
from ..operations import Schema
from ..operations import whole as whole_schema
from ..reading import Order, Position

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
_CURSOR = re.compile(r"(asc|desc):(-?\d{1,18}):([0-9a-f]{24})(?::(\d{1,18}))?")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)
#: The years 1 to 9999, but for their last millisecond: what is behind a position is asked for.
_YEARS = range(-62_135_596_800_000, 253_402_300_799_999)


@dataclasses.dataclass(frozen=True)
class Cursor:
    """Where the page before has ended, in which order, and what was now to the first: relative times stay in place."""

    order: Order
    after: Position
    now_ms: int | None = None

    def __str__(self) -> str:
        now = "" if self.now_ms is None else f":{self.now_ms}"
        text = f"{self.order}:{self.after.timestamp_ms}:{self.after.id}{now}"
        return base64.urlsafe_b64encode(text.encode()).decode()


def check_names(arguments: Mapping[str, str], known: Collection[str]) -> None:
    """Raises BadParameter for a parameter that is not ``known``: a misspelt one would silently select the wrong."""
    for name in arguments:
        if name not in known:
            raise BadParameter(name, f"no such parameter; there are {', '.join(known)}")


def limit_schema(default: int = DEFAULT_LIMIT) -> Schema:
    """What ``limit`` may be."""
    return whole_schema(1, MAX_LIMIT, default)


def limit(arguments: Mapping[str, str], default: int = DEFAULT_LIMIT) -> int:
    """How many at the most. Raises BadParameter."""
    return whole("limit", arguments.get("limit", str(default)), MAX_LIMIT)


def any_limit(arguments: Mapping[str, str]) -> int | None:
    """How many at the most, however many that are; None: all. Raises BadParameter."""
    return whole("limit", arguments["limit"], 10**18) if "limit" in arguments else None


def whole(name: str, given: str, most: int) -> int:
    """A whole number from 1 to ``most``. Raises BadParameter."""
    if not re.fullmatch(r"[0-9]{1,18}", given) or not 1 <= int(given) <= most:
        raise BadParameter(name, f"must be a whole number from 1 to {most}")
    return int(given)


def cursor(arguments: Mapping[str, str]) -> Cursor | None:
    """Where the page before has ended. Raises BadParameter."""
    if "cursor" not in arguments:
        return None
    try:
        text = base64.b64decode(arguments["cursor"], altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        text = ""
    match = _CURSOR.fullmatch(text)
    if match is None or not is_moment(int(match[2])):
        raise BadParameter("cursor", "must be one that this server gave in a Link header")
    now = None if match[4] is None else int(match[4])
    return Cursor(cast(Order, match[1]), Position(int(match[2]), ObjectId(match[3])), now)


def is_moment(milliseconds: int) -> bool:
    """Whether MongoDB can be asked for what is behind this time, in milliseconds since 1970."""
    return milliseconds in _YEARS


def next_link(path: str, arguments: Mapping[str, str], cursor: Cursor) -> str:
    """The Link field (RFC 8288) that leads to the next page."""
    return f'<{path}?{urlencode({**arguments, "cursor": str(cursor)})}>; rel="next"'


def milliseconds(moment: datetime.datetime) -> int:
    """``moment`` (aware) in milliseconds since 1970."""
    return (moment - _EPOCH) // _MILLISECOND


def moment(timestamp_ms: int) -> datetime.datetime:
    """The inverse of ``milliseconds``."""
    return _EPOCH + timestamp_ms * _MILLISECOND
