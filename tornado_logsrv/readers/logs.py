"""``GET /logs``: stored records that a query selects, a page at a time or, as an export, all of them."""

import dataclasses
import datetime
import logging
from collections.abc import Mapping
from typing import Any, cast

from tornado.iostream import StreamClosedError

from .. import jsontext
from ..auth import Scope
from ..errors import BadParameter, Denied, Refused, Unauthenticated
from ..handler import audit
from ..operations import RECORD, TEXT, array_of, json_of, one_of, operation
from ..reading import Order, Position, Selection
from . import export, paging, projection
from .searching import PARAMETERS as SELECTION
from .searching import SearchHandler, selection

log = logging.getLogger("logsrv.http")

ORDERS = ("asc", "desc")
PARAMETERS = {
    **SELECTION,
    "limit": paging.limit_schema(),
    "order": {**one_of(*ORDERS), "default": "desc"},
    "cursor": TEXT,
    "fields": TEXT,
    "format": one_of(*export.NAMES),
}
_EXPORTED = dict.fromkeys(export.MEDIA_TYPES, TEXT)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a request asks for: at most ``limit`` of ``selection`` in ``order``, behind ``after``, with ``fields``.

    ``form`` is that of an export, which may have no limit; None for a page.
    """

    selection: Selection
    limit: int | None
    order: Order
    after: Position | None
    fields: list[str]
    form: export.Form | None = None


def parse(arguments: Mapping[str, str], now_ms: int, accept: str = "") -> Asked:
    """What query parameters and ``Accept`` ask for. Raises BadParameter, naming the one that is wrong."""
    paging.check_names(arguments, PARAMETERS)
    form = export.form(arguments, accept)
    order, cursor = _order(arguments), paging.cursor(arguments)
    if cursor is not None:
        if "order" in arguments and cursor.order != order:
            raise BadParameter("cursor", f"it belongs to order={cursor.order}")
        order = cursor.order
        now_ms = now_ms if cursor.now_ms is None else cursor.now_ms
    return Asked(
        selection(arguments, now_ms),
        paging.limit(arguments) if form is None else paging.any_limit(arguments),
        order,
        None if cursor is None else cursor.after,
        projection.names(arguments),
        form,
    )


def _order(arguments: Mapping[str, str]) -> Order:
    order = arguments.get("order", "desc")
    if order not in ORDERS:
        raise BadParameter("order", "must be asc (oldest first) or desc (newest first)")
    return cast(Order, order)


class LogsHandler(SearchHandler):
    """Answers stored records."""

    scope = Scope.READ
    keeps_bounds = True
    _gone = False

    @operation({200: {**json_of(array_of(RECORD)), **_EXPORTED}}, PARAMETERS)
    async def get(self) -> None:
        """A JSON array, and the next page, if there is one, in ``Link``; or a stream of all that is selected."""
        asked = parse(self.arguments, self.now_ms, self.request.headers.get("Accept", ""))
        self.set_header("Vary", "Accept")
        await (self._page(asked) if asked.form is None else self._export(asked, asked.form))

    head = get

    async def _page(self, asked: Asked) -> None:
        page = await self.reader.page(
            asked.selection, asked.order, asked.after, asked.limit or paging.DEFAULT_LIMIT, self.deadline
        )
        if page.next is not None:
            cursor = paging.Cursor(asked.order, page.next, asked.selection.now_ms)
            self.set_header("Link", paging.next_link(self.request.path, self.arguments, cursor))
        self.set_header("Content-Type", "application/json")
        self.finish(jsontext.write(projection.projected(page.documents, asked.fields)))

    async def _export(self, asked: Asked, form: export.Form) -> None:
        self.set_header("Content-Type", form.media_type)
        self.set_header("Content-Disposition", f'attachment; filename="{_file_name(self.now_ms, form)}"')
        if self.request.method == "HEAD":
            return
        began = False
        try:
            async for documents in self.reader.stream(
                asked.selection, asked.order, asked.limit, self.deadline, asked.after
            ):
                self._check()
                if not began:
                    self.write(form.head(asked.fields))
                began = True
                self.write(form.rows(documents, asked.fields))
                # No page is read before the client has room for the one before.
                await self.flush()
        except StreamClosedError:
            # The client has what it wanted.
            return
        except Exception as error:
            if not began:
                raise
            if not self._gone:
                self._cut_short(error)

    def _check(self) -> None:
        """Raises Unauthenticated when who asked may not any more; no page is sent, or waited for, after that."""
        if not self.still_may or self.application.gate.seconds_left(self.request) <= 0:
            raise Unauthenticated("the token or the sign-in is good no more")

    def _cut_short(self, error: Exception) -> None:
        """End without the end of the answer (RFC 9112, section 8): a part must not be taken for the whole."""
        if isinstance(error, Denied):
            audit.info("an export is cut short, %s may not any more", self._about)
        elif isinstance(error, Refused):
            log.error("an export was cut short, request %s: %s", self.request_id, error)
        else:
            self.log_exception(type(error), error, error.__traceback__)
        cast(Any, self.request.connection).stream.close()

    def on_connection_close(self) -> None:
        """Nobody waits for the answer."""
        self._gone = True
        super().on_connection_close()


def _file_name(now_ms: int, form: export.Form) -> str:
    moment = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)
    return f"logs-{moment:%Y%m%dT%H%M%SZ}.{form.name}"
