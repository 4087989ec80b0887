"""``GET /logs``: stored records that a query selects, a page at a time."""

import dataclasses
from collections.abc import Mapping
from typing import cast

from .. import jsontext
from ..auth import Scope
from ..errors import BadParameter
from ..reading import Order, Position, Selection
from . import paging, projection
from .searching import SearchHandler, selection

PARAMETERS = ("q", "from", "to", "limit", "order", "cursor", "fields")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a request asks for: at most ``limit`` of ``selection`` in ``order``, behind ``after``, with ``fields``."""

    selection: Selection
    limit: int
    order: Order
    after: Position | None
    fields: list[str]


def parse(arguments: Mapping[str, str], now_ms: int) -> Asked:
    """The page that query parameters ask for. Raises BadParameter, naming the one that is wrong."""
    paging.check_names(arguments, PARAMETERS)
    order, cursor = _order(arguments), paging.cursor(arguments)
    if cursor is not None:
        if "order" in arguments and cursor.order != order:
            raise BadParameter("cursor", f"it belongs to order={cursor.order}")
        order = cursor.order
        now_ms = now_ms if cursor.now_ms is None else cursor.now_ms
    return Asked(
        selection(arguments, now_ms),
        paging.limit(arguments),
        order,
        None if cursor is None else cursor.after,
        projection.names(arguments),
    )


def _order(arguments: Mapping[str, str]) -> Order:
    order = arguments.get("order", "desc")
    if order not in ("asc", "desc"):
        raise BadParameter("order", "must be asc (oldest first) or desc (newest first)")
    return cast(Order, order)


class LogsHandler(SearchHandler):
    """Answers stored records."""

    scope = Scope.READ

    async def get(self) -> None:
        """A JSON array; the next page, if there is one, in ``Link``."""
        asked = parse(self.arguments, self.now_ms)
        page = await self.application.store.reader.page(
            asked.selection, asked.order, asked.after, asked.limit, self.deadline
        )
        if page.next is not None:
            cursor = paging.Cursor(asked.order, page.next, asked.selection.now_ms)
            self.set_header("Link", paging.next_link(self.request.path, self.arguments, cursor))
        documents = page.documents
        if asked.fields:
            paths = [projection.path(name) for name in asked.fields]
            documents = [projection.project(document, paths) for document in documents]
        self.set_header("Content-Type", "application/json")
        self.finish(jsontext.write(documents))

    head = get
