"""Datadog's HTTP logs intake: ``POST /api/v2/logs`` and, as it was before, ``/v1/input``: one log, or an array of them.

    message                      → message
    timestamp, date and the like → timestamp; in data as well, as it was sent, unless both say the very same
    status, a word               → data.level, in lower case, where a log has none; data.status, as it was sent
    all the rest                 → data, under its name: ddsource, ddtags, hostname, service and any others

Sources: "Send logs" of Datadog's API reference (members, statuses), "Log Date Remapper" (names and forms of times).
Who sends again: datadog-agent, pkg/logs/client/http/destination.go (for ever, after all but 400, 401, 403 and 413);
Vector, src/sinks/datadog/mod.rs (after 403, 408, 429, 5xx); datadog-api-client, rest.py (429, 5xx, if it is told to).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from .. import jsontext
from ..auth import Scope
from ..errors import Refused, Unauthenticated, Unavailable, Unreadable
from ..handler import BaseHandler, ReceiverHandler
from ..operations import BOOLEAN, TEXT, array_of, joined, json_of, named, object_of, open_object, operation
from . import fields, items
from .rows import Bad, Batch, Row

#: Where logs went before /api/v2/logs.
INPUT = "/v1/input"
#: What a request's query may say of all of its logs.
METADATA = ("ddsource", "ddtags", "hostname", "service")
#: Where the time of a log is, the first first.
TIMES = ("timestamp", "date", "_timestamp", "Timestamp", "eventTime", "published_date")

_LOGS = msgspec.json.Decoder(list[msgspec.Raw])


def parse(body: bytes, metadata: Mapping[str, str]) -> Iterator[Row | Bad]:
    """The logs of a decoded body; an element that is no object is Bad. ``metadata`` is what the query says of all.

    ``{}`` alone, by which the Agent asks whether it may send, is none. Raises Unreadable and TooLarge.
    """
    return (_read(log, metadata) for log in _logs(body))


def _logs(body: bytes) -> list[Any]:
    jsontext.check_body(body)
    try:
        return _LOGS.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # One object, or JSON that only jsontext reads.
        value, _ = items.value(body)
    if isinstance(value, dict):
        return [body] if value else []
    if not isinstance(value, list):
        raise Unreadable("the body is neither a log nor an array of logs")
    return [items.Exact(log) for log in value]


def _read(raw: Any, metadata: Mapping[str, str]) -> Row | Bad:
    try:
        value, plain = items.value(raw)
        if not isinstance(value, dict):
            raise Unreadable("a log is no JSON object")
        data, notes = (value, []) if plain else jsontext.storable(value)
    except Refused as error:
        return Bad(bytes(raw), str(error).replace("the body", "the log", 1))
    for name, given in metadata.items():
        fields.keep(data, name, given, notes, f"/data/{name}", "the log's own kept, not the query's")
    time = _take_time(data, notes)
    _set_level(data, notes)
    text, taken = fields.take_text(data)
    return Row(text, data, fields.moved(notes, f"/data/{taken}") if taken and notes else notes, time, raw)


def _take_time(data: dict[str, Any], notes: jsontext.Notes) -> int | None:
    """The time of a log in nanoseconds, if it has one; what the record's own says as well leaves ``data``."""
    given = [name for name in TIMES if data.get(name) is not None]
    for name in given:
        time = fields.moment(data[name])
        if time is not None:
            fields.keep_fraction(data, time, notes)
            if type(data[name]) is int or fields.plain_moment(str(data[name])) is not None:
                del data[name]
            return time
    if given:
        fields.note(notes, "/timestamp", fields.NO_TIME, data[given[0]])
    return None


def _set_level(data: dict[str, Any], notes: jsontext.Notes) -> None:
    status = data.get("status")
    # A number is one of HTTP's, as likely as not.
    if type(status) is str and status and not status.isdigit() and data.get("level") is None:
        data["level"] = status.lower()
    else:
        fields.set_level(data, notes, data)


PROBLEM = json_of(named("DatadogErrors", object_of(errors=array_of(object_of(title=TEXT, detail=TEXT, status=TEXT)))))
LOG = open_object(dict.fromkeys((*METADATA, "status"), TEXT), message=TEXT)


class DatadogHandler(BaseHandler):
    """Speaks to Datadog's senders, who show their token as ``DD-API-KEY``."""

    scope = Scope.WRITE
    keeps_bounds = True
    problem_content = PROBLEM

    def write_problem(self, problem: dict[str, Any], error: BaseException | None) -> None:
        """Answer as v2 does. What will not pass is 400, whatever it is: the Agent sends again after other statuses."""
        status = problem["status"]
        if isinstance(error, Unauthenticated) and error.shown:
            status = 403
        elif 400 <= status < 500 and status not in (401, 403, 405, 413, 429):
            status = 400
        if isinstance(error, Unavailable):
            # Where datadog-api-client looks for what others call Retry-After.
            self.set_header("X-Ratelimit-Reset", str(error.retry_after))
        said = {"title": problem["title"], "detail": problem.get("detail") or problem["title"], "status": str(status)}
        self.answer(status, {"errors": [said]})


class LogsHandler(DatadogHandler, ReceiverHandler):
    """Takes logs from Datadog's Agent and others that speak to its intake."""

    source = "datadog"
    parameters = joined(ReceiverHandler.parameters, dict.fromkeys(METADATA, TEXT))
    bodies = json_of({"anyOf": [array_of(LOG), LOG]})

    @operation({200: json_of(object_of()), 202: json_of(object_of())})
    async def post(self) -> None:
        """202 when the logs are taken; 200 on the older path. A bad one is in quarantine, unless they all are: 400."""
        said = {name: self.get_query_argument(name, "") for name in METADATA}
        batch = Batch(self)
        await batch.encode(parse(self.body, {name: value for name, value in said.items() if value}))
        if batch.rejected and batch.all_bad:
            raise Unreadable(batch.reasons[0])
        await self.accept(batch.records)
        self.refuse(len(batch.lost))
        self.answer(200 if self.request.path == INPUT else 202, {})


class ValidateHandler(DatadogHandler):
    """Tells whether a token is good: Vector's health check."""

    @operation({200: json_of(object_of(valid=BOOLEAN))})
    def get(self) -> None:
        """200 when the token may write."""
        self.answer(200, {"valid": True})

    head = get


ROUTES = [("/api/v2/logs", LogsHandler), (INPUT, LogsHandler), ("/api/v1/validate", ValidateHandler)]
