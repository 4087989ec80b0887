"""``GET /logs``: stored records, a page at a time."""

import dataclasses
import datetime
import re
from collections.abc import Mapping
from typing import cast

from .. import jsontext
from ..errors import BadParameter
from ..handler import BaseHandler
from ..store import Order, Position
from . import paging

PARAMETERS = ("limit", "order", "from", "to", "cursor")


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
    paging.check_names(arguments, PARAMETERS)
    order, after = _order(arguments), paging.cursor(arguments)
    if after is not None and "order" in arguments and after[0] != order:
        raise BadParameter("cursor", f"it belongs to order={after[0]}")
    low, high = _moment("from", arguments), _moment("to", arguments)
    if low is not None and high is not None and low > high:
        raise BadParameter("from", "it is later than to")
    return Page(paging.limit(arguments), after[0] if after else order, low, high, after[1] if after else None)


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
        return paging.milliseconds(moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC))
    except (ValueError, OverflowError):
        raise BadParameter(name, "must be an ISO 8601 time such as 2026-01-31T12:00:00.000Z") from None


class LogsHandler(BaseHandler):
    """Answers stored records."""

    async def get(self) -> None:
        """A JSON array; the next page, if there is one, in ``Link``."""
        arguments = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        page = parse(arguments)
        # One more than asked for tells whether there is a next page.
        found = await self.application.store.page(page.order, page.low, page.high, page.after, page.limit + 1)
        documents = found[: page.limit]
        if len(found) > page.limit:
            last = documents[-1]
            cursor = paging.cursor_behind(page.order, last.get("timestamp"), last["_id"])
            if cursor is not None:
                self.set_header("Link", paging.next_link(self.request.path, arguments, cursor))
        self.set_header("Content-Type", "application/json")
        self.finish(jsontext.write(documents))

    head = get
