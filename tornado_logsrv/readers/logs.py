"""``GET /logs``: stored records, a page at a time."""

import base64
import dataclasses
import datetime
import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlencode

from bson import ObjectId

from .. import jsontext
from ..errors import BadParameter
from ..handler import BaseHandler
from ..store import Document, Order, Position

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
PARAMETERS = ("limit", "order", "from", "to", "cursor")
_CURSOR = re.compile(r"(asc|desc):(-?\d{1,18}):([0-9a-f]{24})")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)


@dataclasses.dataclass(frozen=True)
class Page:
    """What a request asks for: timestamps in [low, high) in milliseconds, in ``order``, behind ``after``."""

    limit: int
    order: Order
    low: int | None
    high: int | None
    after: Position | None


def parse(arguments: Mapping[str, str]) -> Page:
    """The page that query parameters ask for. Raises BadParameter, naming the one that is wrong."""
    for name in arguments:
        if name not in PARAMETERS:
            raise BadParameter(name, f"no such parameter; there are {', '.join(PARAMETERS)}")
    order, after = _order(arguments), _cursor(arguments)
    if after is not None and "order" in arguments and after[0] != order:
        raise BadParameter("cursor", f"it belongs to order={after[0]}")
    low, high = _moment("from", arguments), _moment("to", arguments)
    if low is not None and high is not None and low > high:
        raise BadParameter("from", "it is later than to")
    return Page(_limit(arguments), after[0] if after else order, low, high, after[1] if after else None)


def _limit(arguments: Mapping[str, str]) -> int:
    given = arguments.get("limit", str(DEFAULT_LIMIT))
    if not re.fullmatch(r"[0-9]{1,9}", given) or not 1 <= int(given) <= MAX_LIMIT:
        raise BadParameter("limit", f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(given)


def _order(arguments: Mapping[str, str]) -> Order:
    order = arguments.get("order", "desc")
    if order not in ("asc", "desc"):
        raise BadParameter("order", "must be asc (oldest first) or desc (newest first)")
    return cast(Order, order)


def _moment(name: str, arguments: Mapping[str, str]) -> int | None:
    if name not in arguments:
        return None
    try:
        # A plus that was not escaped in the URL has become a space.
        moment = datetime.datetime.fromisoformat(re.sub(r"(?<=\d) (?=\d\d:?\d\d$)", "+", arguments[name]))
    except ValueError:
        raise BadParameter(name, "must be an ISO 8601 time such as 2026-01-31T12:00:00.000Z") from None
    return (_utc(moment) - _EPOCH) // _MILLISECOND


def _utc(moment: datetime.datetime) -> datetime.datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _cursor(arguments: Mapping[str, str]) -> tuple[Order, Position] | None:
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


def cursor_behind(order: Order, document: Document) -> str | None:
    """The cursor of the page behind ``document``; None when its identity is none of this server's making."""
    moment, record_id = document.get("timestamp"), document["_id"]
    if not isinstance(moment, datetime.datetime) or not isinstance(record_id, ObjectId):
        return None
    text = f"{order}:{(moment - _EPOCH) // _MILLISECOND}:{record_id}"
    return base64.urlsafe_b64encode(text.encode()).decode()


class LogsHandler(BaseHandler):
    """Answers stored records."""

    async def get(self) -> None:
        """A JSON array; the next page, if there is one, in ``Link``."""
        arguments = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        page = parse(arguments)
        # One more than asked for tells whether there is a next page.
        found = await self.application.store.page(page.order, page.low, page.high, page.after, page.limit + 1)
        documents = found[: page.limit]
        if len(found) > page.limit and (cursor := cursor_behind(page.order, documents[-1])):
            query = urlencode({**arguments, "cursor": cursor})
            self.set_header("Link", f'<{self.request.path}?{query}>; rel="next"')
        self.set_header("Content-Type", "application/json")
        self.finish(jsontext.write(documents))

    head = get
