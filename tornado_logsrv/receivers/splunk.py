"""Splunk's HTTP Event Collector (HEC), with indexer acknowledgement that means: MongoDB has it.

    event  → message where it is a text; data.event where it is not, and its text is message, too
    time   → timestamp; one finer than milliseconds also → data.time_unix_nano, whole nanoseconds
    host, source, sourcetype, index, fields and all the rest → data

A request with a channel is answered with an ``ackId``, and ``/services/collector/ack`` tells of which of them every
record is stored (or in quarantine). A bad event among good ones goes to quarantine, and the request is a success; it is
refused when it has no good event.

Sources: Splunk's "About HTTP Event Collector Indexer Acknowledgment", "Troubleshoot HTTP Event Collector" (codes) and
the REST reference of services/collector.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from .. import errors
from ..auth import Scope
from ..handler import BaseHandler, BodyHandler, ReceiverHandler
from ..operations import (
    ANYTHING,
    BOOLEAN,
    COUNT,
    NUMBER,
    TEXT,
    array_of,
    joined,
    json_of,
    named,
    object_of,
    open_object,
    operation,
    table_of,
)
from .rows import Batch, Row
from .splunk_acks import Acknowledgements
from .splunk_events import CODES, BadEvent, Refusal, parse, parse_raw

SOURCE = "splunk"
#: HEC reads the body whatever its type is; curl, as Splunk's documentation shows it, says a form.
MEDIA_TYPES = (
    "application/json",
    "application/x-www-form-urlencoded",
    "application/x-ndjson",
    "application/octet-stream",
    "text/plain",
    "text/xml",
    "application/xml",
)
#: What a request's query may say for all of its events ("services/collector/raw").
METADATA = ("host", "source", "sourcetype", "index")
#: Acknowledgements asked for in one request.
MAX_ASKED = 100_000

_CHANNEL = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII)


def _denial(error: errors.Denied, authorized: bool) -> int:
    """The code for who may not."""
    if isinstance(error, errors.Unauthenticated):
        return (4 if error.shown else 3) if authorized else 2
    return 1


REPLY = object_of(text=TEXT, code=COUNT)
EVENT = open_object({**dict.fromkeys(METADATA, TEXT), "time": NUMBER, "fields": table_of(ANYTHING)}, event=ANYTHING)


class HecHandler(BaseHandler):
    """Speaks to Splunk's senders."""

    scope = Scope.WRITE
    problem_content = json_of(named("HecReply", {**REPLY, "additionalProperties": True}))
    request_fields = joined(BaseHandler.request_fields, {"X-Splunk-Request-Channel": TEXT})
    parameters = joined({"channel": TEXT})

    def reply(self, code: int, more: Mapping[str, Any] | None = None) -> None:
        """Answer ``code``, with its status and its text."""
        status, text = CODES[code]
        self.answer(status, {"text": text, "code": code, **(more or {})})

    @property
    def channel(self) -> str:
        """The request's channel, empty where it has none. Raises Refusal when it is no GUID."""
        given = self.request.headers.get("X-Splunk-Request-Channel") or self.get_query_argument("channel", "")
        if given and not _CHANNEL.fullmatch(given.lower()):
            raise Refusal(11, "a channel is a GUID")
        # What others call the same is another one.
        return given and self.binding.of_whom + given.lower()

    @property
    def acknowledgements(self) -> Acknowledgements:
        """Those of the application."""
        application = self.application
        if SOURCE not in application.settings:
            application.settings[SOURCE] = Acknowledgements(application.queue, application.spool)
        return cast(Acknowledgements, application.settings[SOURCE])

    def write_problem(self, problem: dict[str, Any], error: BaseException | None) -> None:
        """Answer as Splunk does, with what is wrong as ``detail``. What may pass is 503: all senders try again."""
        more = {"detail": problem.get("detail", problem["title"])}
        if isinstance(error, Refusal):
            self.reply(error.code, more | ({} if error.number is None else {"invalid-event-number": error.number}))
        elif isinstance(error, errors.Denied):
            self.reply(_denial(error, "Authorization" in self.request.headers), more)
        elif isinstance(error, errors.Unavailable):
            self.reply(9, more)
        elif isinstance(error, errors.TooLarge):
            self.reply(27, more)
        elif isinstance(error, errors.Unreadable | errors.BadParameter):
            self.reply(6, more)
        else:
            self.answer(problem["status"], {"text": problem["title"], "code": problem["status"], **more})

    @operation({200: {}})
    def options(self, **path: str) -> None:
        """200: Docker's driver asks so whether there is a collector (splunk-verify-connection)."""
        self.set_header("Allow", ", ".join(self.allowed_methods()))
        self.finish()


class EventHandler(HecHandler, ReceiverHandler):
    """Takes events."""

    source = SOURCE
    media_types = MEDIA_TYPES
    bodies = json_of(EVENT)
    request_fields = joined(HecHandler.request_fields, ReceiverHandler.request_fields)
    parameters = joined(HecHandler.parameters, ReceiverHandler.parameters, dict.fromkeys(METADATA, TEXT))

    @operation({200: json_of(object_of({"ackId": COUNT}, text=TEXT, code=COUNT))})
    async def post(self) -> None:
        """200 with code 0 and, where there is a channel, the request's ``ackId``; 400 without one good event."""
        channel = self.channel
        batch = Batch(self)
        codes: dict[int, int] = {}
        await batch.encode(self.rows(codes))
        if batch.all_bad:
            first = min(batch.rejected)
            raise Refusal(codes.get(first, 6), batch.rejected[first], first)
        await self.accept(batch.records)
        self.refuse(len(batch.lost))
        self.reply(0, {"ackId": self.acknowledgements.give(channel)} if channel else None)

    def rows(self, codes: dict[int, int]) -> Iterator[Row | BadEvent]:
        """The events of the body; ``codes`` is filled with those of the bad ones. Raises Refused."""
        for number, event in enumerate(parse(self.body, self.metadata)):
            if isinstance(event, BadEvent):
                codes[number] = event.code
            yield event

    @property
    def metadata(self) -> dict[str, str]:
        """What the query says of all events."""
        given = {name: self.get_query_argument(name, "") for name in METADATA}
        return {name: value for name, value in given.items() if value}


class RawHandler(EventHandler):
    """Takes text, a record a line."""

    def rows(self, codes: dict[int, int]) -> Iterator[Row | BadEvent]:
        """The lines of the body. Raises Refused."""
        return parse_raw(self.body, self.metadata)


class _Asked(msgspec.Struct):
    acks: list[int]


class AckHandler(HecHandler, BodyHandler):
    """Tells what is stored."""

    keeps_bounds = True
    media_types = MEDIA_TYPES
    request_fields = joined(HecHandler.request_fields, BodyHandler.request_fields)
    bodies = json_of(object_of(acks=array_of({"type": "integer"})))

    @operation({200: json_of(object_of(acks=table_of(BOOLEAN)))})
    def post(self) -> None:
        """200 with ``{"acks":{"<id>":true,…}}``. What is not stored yet is written now."""
        channel = self.channel
        if not channel:
            raise Refusal(10, "a channel is X-Splunk-Request-Channel or ?channel=")
        try:
            asked = msgspec.json.decode(self.body, type=_Asked).acks
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Refusal(6, f'not like {{"acks":[1]}}: {error}') from None
        if len(asked) > MAX_ASKED:
            raise errors.TooLarge(f"more than {MAX_ASKED} acknowledgements asked for at once")
        answers = self.acknowledgements.confirmed(channel, asked)
        if not all(answers.values()):
            self.application.writer.flush_soon()
        self.answer(200, {"acks": answers})


class HealthHandler(HecHandler):
    """Tells whether a request would be taken."""

    scope = Scope.OPEN

    @operation({200: json_of(REPLY), 503: json_of(REPLY)})
    async def get(self) -> None:
        """200 with code 17, or 503 with code 18 (the queue is full) or 9 (Redis is away, or the server stops)."""
        health = self.application.health
        await health.look()
        self.reply(17 if health.ready else 18 if health.full else 9)

    head = get


ROUTES = [
    ("/services/collector", EventHandler),
    ("/services/collector/event", EventHandler),
    ("/services/collector/event/1.0", EventHandler),
    ("/services/collector/raw", RawHandler),
    ("/services/collector/raw/1.0", RawHandler),
    ("/services/collector/ack", AckHandler),
    ("/services/collector/health", HealthHandler),
    ("/services/collector/health/1.0", HealthHandler),
]
