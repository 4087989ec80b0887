"""``GET /ledger``: what became of every record, and what the server has of MongoDB and Redis, for people and pages."""

from typing import TYPE_CHECKING, Any

from .. import jsontext
from ..auth import Scope
from ..binding import Binding
from ..handler import BaseHandler
from ..health import State
from ..operations import BOOLEAN, COUNT, MOMENT, TEXT, json_of, named, object_of, operation, table_of
from . import paging

if TYPE_CHECKING:
    from ..application import LogApplication

_ROW = object_of(received=COUNT, stored=COUNT, queued=COUNT, quarantined=COUNT, refused=COUNT)
_STATE = object_of(available=BOOLEAN, since=MOMENT)
ANSWER = named(
    "Ledger",
    object_of(
        # What is of the whole process is not for a token that is bound.
        {
            "instance": TEXT,
            "balanced": BOOLEAN,
            "queue": object_of(size=COUNT, bytes=COUNT, max_bytes=COUNT, in_flight=COUNT, spooled=COUNT),
            "store": _STATE,
            "journal": _STATE,
        },
        started=MOMENT,
        total=_ROW,
        sources=table_of(_ROW),
    ),
)

Document = dict[str, Any]
TOTALS = ("received", "stored", "queued", "quarantined", "refused")


def describe(application: "LogApplication") -> Document:
    """The ledger of this process since its start."""
    ledger, queue, health = application.ledger, application.queue, application.health
    return {
        "instance": application.options.instance_name,
        "started": paging.moment(application.started_ms),
        "total": {column: ledger.total(column) for column in TOTALS},
        "sources": {source: ledger.row(source) for source in ledger.sources},
        "balanced": ledger.balance(application.unsettled) == 0,
        "queue": {
            "size": queue.unstored_count,
            "bytes": queue.size_bytes,
            "max_bytes": queue.max_bytes,
            "in_flight": queue.in_flight,
            "spooled": application.spool.count,
        },
        "store": _describe_state(health.store),
        "journal": _describe_state(health.journal),
    }


def describe_part(application: "LogApplication", binding: Binding) -> Document:
    """Of the ledger, what is about the records of ``binding``."""
    ledger = application.ledger
    found = {name: ledger.row(binding.origin(name)) for name in binding.sources(ledger.sources)}
    total = {column: sum(row[column] for row in found.values()) for column in TOTALS}
    return {"started": paging.moment(application.started_ms), "total": total, "sources": found}


def _describe_state(state: State) -> Document:
    return {"available": state.up, "since": paging.moment(state.since_ms)}


class LedgerHandler(BaseHandler):
    """Answers the ledger."""

    scope = Scope.READ
    keeps_bounds = True

    @operation({200: json_of(ANSWER)})
    async def get(self) -> None:
        """The counts in total and by source, the queue, and whether MongoDB and Redis can be used and since when."""
        health = self.application.health
        await health.look()
        health.see(self.application.now_ms())
        self.set_header("Content-Type", "application/json")
        of_all = not any(self.binding)
        shown = describe(self.application) if of_all else describe_part(self.application, self.binding)
        self.finish(jsontext.write(shown))

    head = get
