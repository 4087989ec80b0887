"""What the routes that search have in common: which records are meant, and how long the search may take."""

import time
from collections.abc import Mapping

from ..errors import BadParameter, QueryTimeout, StoreUnavailable
from ..handler import BaseHandler, Refusals
from ..operations import TEXT, Schema
from ..query import moment, parse
from ..reading import Selection

#: What selects records.
PARAMETERS: dict[str, Schema] = {"q": TEXT, "from": TEXT, "to": TEXT}


def selection(arguments: Mapping[str, str], now_ms: int) -> Selection:
    """The records that ``q``, ``from`` and ``to`` select. Raises BadParameter, naming the one that is wrong."""
    low, high = _moment("from", arguments, now_ms), _moment("to", arguments, now_ms)
    if low is not None and high is not None and low > high:
        raise BadParameter("from", "it is later than to")
    return Selection(low, high, parse(arguments.get("q", "")), now_ms, anywhere=True)


def _moment(name: str, arguments: Mapping[str, str], now_ms: int) -> int | None:
    if name not in arguments:
        return None
    try:
        return moment(arguments[name], now_ms)
    except ValueError as error:
        raise BadParameter(name, str(error)) from None


class SearchHandler(BaseHandler):
    """A route that searches; it stops to when its client has gone."""

    refusals: Refusals = (BadParameter, QueryTimeout, StoreUnavailable)

    def initialize(self) -> None:
        """The time for the search counts from here: a client may be gone before it is known whether it may ask."""
        self.deadline = self.application.store.reader.deadline()

    def prepare(self) -> None:
        """Raises BadParameter for a parameter that is there twice."""
        super().prepare()
        for name, values in self.request.query_arguments.items():
            if len(values) > 1:
                raise BadParameter(name, "it is there more than once")
        self.arguments = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        self.now_ms = int(time.time() * 1000)

    def on_connection_close(self) -> None:
        """Nobody waits for the answer."""
        super().on_connection_close()
        self.deadline.cut_short()
