"""Splunk's HTTP Event Collector (HEC), with indexer acknowledgement that means: MongoDB has it.

    event  → message where it is a text; data.event where it is not, and its text is message, too
    time   → timestamp; one finer than milliseconds also → data.time_unix_nano, whole nanoseconds
    host, source, sourcetype, index, fields and all the rest → data

A request with a channel is answered with an ``ackId``, and ``/services/collector/ack`` tells of which of them every
record is stored (or in quarantine).

Splunk refuses a request for one malformed event in it. Its senders then drop the whole batch (Fluent Bit,
plugins/out_splunk/splunk.c, and Vector: any 4xx is final; splunk-handler: all that is not 2xx is) or send it again and
again (Docker, daemon/logger/splunk/splunk.go: all that is not 200 is). So a bad event among good ones goes to
quarantine, and the request is a success; it is refused when it has no good event.

Sources: Splunk's "Format events for HTTP Event Collector", "About HTTP Event Collector Indexer Acknowledgment",
"Troubleshoot HTTP Event Collector" (codes) and the REST reference of services/collector.
"""

import asyncio
import decimal
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import msgspec

from .. import errors, jsontext, records
from ..auth import Scope
from ..handler import BaseHandler, BodyHandler, ReceiverHandler
from ..queues import RecordQueue
from ..spool import Spool

SOURCE = "splunk"
#: Code → status and text ("Possible error codes").
CODES = {
    0: (200, "Success"),
    1: (403, "Token disabled"),
    2: (401, "Token is required"),
    3: (401, "Invalid authorization"),
    4: (403, "Invalid token"),
    5: (400, "No data"),
    6: (400, "Invalid data format"),
    7: (400, "Incorrect index"),
    9: (503, "Server is busy"),
    10: (400, "Data channel is missing"),
    11: (400, "Invalid data channel"),
    12: (400, "Event field is required"),
    13: (400, "Event field cannot be blank"),
    14: (400, "ACK is disabled"),
    17: (200, "HEC is healthy"),
    18: (503, "HEC is unhealthy, queues are full"),
    27: (413, "Request entity too large"),
}
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
#: Where an event's text is when it is not in ``message``: Docker, Fluent Bit, loggers.
TEXT_KEYS = ("line", "log", "msg")
#: Where a severity may be, in an event and in ``fields``; the last is that of OpenTelemetry's exporter.
LEVEL_KEYS = ("level", "severity", "log.level", "otel.log.severity.text")
#: A sender whose clock is this far ahead is not believed.
MAX_AHEAD_NS = 86_400 * 1_000_000_000
#: Events that are encoded before other requests have their turn.
TURN = 2000
#: Acknowledgements that are remembered, of all channels, and for how many seconds. Splunk forgets a channel after ten
#: minutes; clients ask for five (Vector, ``query_interval`` times ``retry_limit``).
MAX_ACKS = 100_000
ACK_SECONDS = 3600
#: Acknowledgements asked for in one request.
MAX_ASKED = 100_000
#: Of its bound, from where on the queue is said to be full.
FULL = 0.95

#: A body is decoded in pieces of about this: only so much of it is alive as values, and other requests wait no longer
#: than one of them takes.
WINDOW_BYTES = 1 << 18
#: Bad events in one body, and objects that are tried in the search for where it goes on behind bytes that are no JSON.
#: What is left after so many is one bad event.
MAX_TRIES = 1000


class Refusal(errors.Unreadable):
    """The request is refused with a code of Splunk's; ``number`` is that of the first event that is to blame."""

    def __init__(self, code: int, detail: str, number: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.number = number


class Event(NamedTuple):
    """An event: its object without ``time``, and that as JSON text, empty where there is none.

    ``raw`` is empty for events that were read all at once; raw_of finds it.
    """

    data: dict[str, Any]
    time: str
    notes: jsontext.Notes
    raw: bytes = b""


class BadEvent(NamedTuple):
    """Bytes that are no event, the code for that, and what is wrong."""

    raw: bytes
    code: int
    reason: str


class _Envelope(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """An event as nearly all are."""

    event: Any = msgspec.UNSET
    time: msgspec.Raw = msgspec.Raw(b"")
    host: Any = msgspec.UNSET
    source: Any = msgspec.UNSET
    sourcetype: Any = msgspec.UNSET
    index: Any = msgspec.UNSET
    fields: Any = msgspec.UNSET


class _Number(str):
    """The digits of a number."""


_ENVELOPES = msgspec.json.Decoder(_Envelope)
_JSON = msgspec.json.Encoder()
_SCANNER = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_Number)
_SPACE = re.compile(r"[ \t\r\n]*")
#: Where an event may begin behind one that cannot be read: an object behind another, or on a line of its own.
_NEXT = re.compile(r"[}\n][ \t\r\n]*(?=\{[ \t\r\n]*\")")


def parse(body: bytes) -> Iterator[Event | BadEvent]:
    """The events of a body: JSON objects one after the other, with any space between them, or none.

    Behind bytes that are no JSON it goes on at the next object with an ``event``. Raises Refusal when there is nothing.
    """
    if not body.strip():
        raise Refusal(5, "the body is empty")
    start = 0
    while start < len(body):
        end = _likely_cut(body, start)
        envelopes = _at_once(body[start:end])
        if envelopes is None:
            yield from _one_by_one(body[start:])
            return
        for envelope in envelopes:
            yield Event(_opened(envelope), bytes(envelope.time).decode(), [])
        start = end


def _likely_cut(body: bytes, start: int) -> int:
    """A place between two events, in all likelihood: what is before it is valid, or it is none."""
    end = start + WINDOW_BYTES
    if end >= len(body):
        return len(body)
    return max(body.rfind(between, start, end) for between in (b"}{", b"}\n{", b"}\r\n{")) + 1 or len(body)


def _at_once(body: bytes) -> list[_Envelope] | None:
    """The events of a body in which all are good; None when they have to be looked at one by one."""
    try:
        envelopes = _ENVELOPES.decode_lines(body)
        if any(_fault(envelope.event, envelope.index) for envelope in envelopes):
            return None
        # The decoder keeps the last of equal keys and does not say so. Written again, a text has as many colons as
        # before, unless a key is gone; but for escaped ones.
        if b"\\u003" in body or _JSON.encode(envelopes).count(b":") != body.count(b":"):
            return None
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None
    return envelopes


def _opened(envelope: _Envelope) -> dict[str, Any]:
    data = {"event": envelope.event}
    if envelope.host is not msgspec.UNSET:
        data["host"] = envelope.host
    if envelope.source is not msgspec.UNSET:
        data["source"] = envelope.source
    if envelope.sourcetype is not msgspec.UNSET:
        data["sourcetype"] = envelope.sourcetype
    if envelope.index is not msgspec.UNSET:
        data["index"] = envelope.index
    if envelope.fields is not msgspec.UNSET:
        data["fields"] = envelope.fields
    return data


def _fault(event: Any, index: Any) -> int:
    """The code of what Splunk would not take, 0 when it would."""
    if event is msgspec.UNSET:
        return 12
    if event is None or (type(event) is str and not event.strip()):
        return 13
    return 0 if index is msgspec.UNSET or index is None or type(index) is str else 7


def _one_by_one(body: bytes) -> Iterator[Event | BadEvent]:
    # What is not UTF-8 spoils its own event alone, and comes back as it was.
    text = body.decode("utf-8-sig", "surrogateescape")
    tries = iter(range(MAX_TRIES))
    start = _skip(text, 0)
    while start < len(text):
        try:
            scanned, end = _SCANNER.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            end = _next_event(text, start, tries)
            problem = error.msg if isinstance(error, json.JSONDecodeError) else "nested deeper than this server reads"
            yield BadEvent(_bytes(text[start:end].rstrip(" \t\r\n")), 6, f"not JSON: {problem}")
        else:
            event = _event(_bytes(text[start:end]), scanned)
            if isinstance(event, BadEvent) and next(tries, None) is None:
                yield BadEvent(_bytes(text[start:]), event.code, f"{event.reason}; too many such events")
                return
            yield event
        start = _skip(text, end)


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # matches always


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _next_event(text: str, start: int, tries: Iterator[int]) -> int:
    """Where there is an event again behind ``start``; the end of ``text`` when there is none, or no try left."""
    for match in _NEXT.finditer(text, start + 1):
        if next(tries, None) is None:
            break
        try:
            scanned, _ = _SCANNER.raw_decode(text, match.end())
        except (ValueError, RecursionError):
            continue
        if "event" in scanned:
            return match.end()
    return len(text)


def _event(raw: bytes, scanned: Any) -> Event | BadEvent:
    """The event of the JSON text ``raw``; ``scanned`` is its value with numbers as they are written."""
    try:
        data, notes = jsontext.read(raw)
    except (errors.Refused, RecursionError) as error:
        reason = str(error) if isinstance(error, errors.Refused) else "nested deeper than this server reads"
        return BadEvent(raw, 6, reason.replace("the body", "the event", 1))
    if not isinstance(data, dict):
        return BadEvent(raw, 6, "an event is a JSON object")
    code = _fault(data.get("event", msgspec.UNSET), data.get("index"))
    if code:
        return BadEvent(raw, code, CODES[code][1])
    given, value = scanned.get("time", ""), data.pop("time", None)
    if type(given) is not _Number:
        given = jsontext.write(value).decode() if "time" in scanned else ""
    return Event(data, given, [note for note in notes if note["path"] != "/data/time"], raw)


def raw_of(body: bytes, number: int) -> bytes:
    """The bytes of the ``number``-th event of a body; all before it are good."""
    text = body.decode("utf-8-sig")
    start = end = 0
    for _ in range(number + 1):
        start = _skip(text, end)
        end = _SCANNER.raw_decode(text, start)[1]
    return _bytes(text[start:end])


# From events to records


def fields(event: Event, metadata: Mapping[str, str], now_ms: int) -> tuple[str, dict[str, Any], jsontext.Notes, int]:
    """The message, data, notes and timestamp (ms since 1970) of an event taken at ``now_ms``.

    The event's object becomes the data. ``metadata`` is what the request's query says, for events that do not.
    """
    data = {**metadata, **event.data} if metadata else event.data
    own: jsontext.Notes = []
    timestamp_ms = _take_time(event.time, data, now_ms, own)
    _set_level(data, own)
    message, path = _take_text(data)
    notes = event.notes
    if notes:
        notes = [{**note, "path": "/message"} if note["path"] == path else note for note in notes]
    elif own:
        # The encoder looks for what BSON cannot hold only where there are no notes.
        data, notes = jsontext.storable(data)
    return message, data, [*notes, *own] if own else notes, timestamp_ms


def _take_text(data: dict[str, Any]) -> tuple[str, str]:
    """The text of an event, and the path it had if it was taken out of ``data``.

    That is the event itself, its ``message``, or a copy of another member. A message that another member is as well
    stays, so that it can be told which of both it was.
    """
    event = data["event"]
    if type(event) is str:
        del data["event"]
        return event, "/data/event"
    if not isinstance(event, dict):
        return "", ""
    text = event.get("message")
    if type(text) is str and text:
        for key in TEXT_KEYS:
            if key in event and event[key] == text:
                return text, ""
        del event["message"]
        return text, "/data/event/message"
    for key in TEXT_KEYS:
        text = event.get(key)
        if type(text) is str:
            return text, ""
    return "", ""


def _set_level(data: dict[str, Any], notes: jsontext.Notes) -> None:
    level = data.get("level")
    if type(level) is str:
        if not level.islower():
            if data.setdefault("severity_text", level) != level:
                _note(notes, "written in lower case", json.dumps(level), "/data/level")
            data["level"] = level.lower()
    elif level is None:
        for place in (data["event"], data.get("fields")):
            if isinstance(place, dict):
                for key in LEVEL_KEYS:
                    if key in place and type(place[key]) is str:
                        data["level"] = place[key].lower()
                        return


_SECONDS = re.compile(r"(\d{1,12})(?:\.(\d+))?", re.ASCII)
_WITH_EXPONENT = re.compile(r"\d{1,40}(?:\.\d{1,40})?[eE][+-]?\d{1,2}", re.ASCII)
_NONE = ("", "null", '""')


def _take_time(given: str, data: dict[str, Any], now_ms: int, notes: jsontext.Notes) -> int:
    """``timestamp``; ``given`` is the time's JSON text: seconds since 1970, a number or a text of one."""
    if given in _NONE:
        return now_ms
    seconds = given.strip('"')
    match = _SECONDS.fullmatch(seconds) or _SECONDS.fullmatch(_without_exponent(seconds))
    if match is None:
        _note(notes, "not a time in seconds, time of acceptance taken", given)
        return now_ms
    fraction = match[2] or ""
    time_ns = int(match[1] + fraction[:9].ljust(9, "0"))
    if not 0 < time_ns <= now_ms * 1_000_000 + MAX_AHEAD_NS:
        _note(notes, "not after 1970 or over a day ahead, time of acceptance taken", given)
        return now_ms
    if time_ns % 1_000_000:
        data.setdefault("time_unix_nano", time_ns)
    if fraction[9:].strip("0"):
        _note(notes, "finer than a nanosecond, cut", given)
    return time_ns // 1_000_000


def _without_exponent(number: str) -> str:
    return f"{decimal.Decimal(number):f}" if _WITH_EXPONENT.fullmatch(number) else number


def _note(notes: jsontext.Notes, change: str, original: str, path: str = "/timestamp") -> None:
    notes.append({"path": path, "change": change, "original": original})


def parse_raw(body: bytes) -> Iterator[tuple[str, jsontext.Notes]]:
    """The lines of a raw body that are not blank, without their ends.

    Bytes that are not UTF-8 are written as escapes, and the line is in the note, each byte the character of its number
    (Latin-1). Raises Refusal when there is no line.
    """
    found = False
    for line in body.split(b"\n"):
        line = line.removesuffix(b"\r")
        if line and not line.isspace():
            found = True
            yield _line(line)
    if not found:
        raise Refusal(5, "the body has no line")


def _line(line: bytes) -> tuple[str, jsontext.Notes]:
    try:
        return line.decode(), []
    except UnicodeDecodeError:
        change, original = "bytes that are not UTF-8 written as escapes", json.dumps(line.decode("latin-1"))
        return line.decode("utf-8", "backslashreplace"), [{"path": "/message", "change": change, "original": original}]


# Acknowledgement


class Acknowledgements:
    """Which requests are stored, told by the queue's floor: nothing is kept of a request but a number.

    Ids ascend from the time of start in microseconds, so that an id given before a restart is unknown after it, and
    not that of another request. What is unknown, or of another channel, is not confirmed; its client sends it again.
    """

    def __init__(self, queue: RecordQueue, spool: Spool, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds."""
        self._queue = queue
        self._spool = spool
        self._clock = clock
        self._next = time.time_ns() // 1000
        #: Id → channel, when it was given, and the place that the queue's floor has to reach; None: not known yet.
        self._given: dict[int, tuple[str, float, int | None]] = {}

    def __len__(self) -> int:
        return len(self._given)

    def give(self, channel: str) -> int:
        """The id of a request on ``channel`` whose records have just been taken."""
        now = self._clock()
        while self._given and (len(self._given) >= MAX_ACKS or self._oldest() < now - ACK_SECONDS):
            del self._given[next(iter(self._given))]
        self._next += 1
        self._given[self._next] = (channel, now, self._place())
        return self._next

    def _oldest(self) -> float:
        return self._given[next(iter(self._given))][1]

    def _place(self) -> int | None:
        # What went into the spool gets its place when it is read back; that is known once all of it is.
        return None if self._spool.count else self._queue.next_place

    def confirmed(self, channel: str, ids: list[int]) -> dict[int, bool]:
        """Whether all records of each of these requests are stored, or in quarantine."""
        floor = self._queue.floor
        return {each: self._is_stored(channel, each, floor) for each in ids}

    def _is_stored(self, channel: str, ack_id: int, floor: int) -> bool:
        owner, given, place = self._given.get(ack_id, ("", 0.0, None))
        if owner != channel:
            return False
        if place is None:
            place = self._place()
            self._given[ack_id] = (owner, given, place)
        return place is not None and place <= floor


# Talking to senders

_CHANNEL = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII)


def _denial(error: errors.Denied, authorized: bool) -> int:
    """The code for who may not."""
    if isinstance(error, errors.Unauthenticated):
        return (4 if error.shown else 3) if authorized else 2
    return 1


class HecHandler(BaseHandler):
    """Speaks to Splunk's senders."""

    scope = Scope.WRITE

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
        return given.lower()

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

    def options(self, *path: str) -> None:
        """200: Docker's driver asks so whether there is a collector (splunk-verify-connection)."""
        self.set_header("Allow", ", ".join(self.allowed_methods()))
        self.finish()


class EventHandler(HecHandler, ReceiverHandler):
    """Takes events."""

    source = SOURCE
    media_types = MEDIA_TYPES

    async def post(self) -> None:
        """200 with code 0 and, where there is a channel, the request's ``ackId``; see the module for bad events."""
        channel = self.channel
        taken = await self.take_events()
        await self.accept(taken)
        self.reply(0, {"ackId": self.acknowledgements.give(channel)} if channel else None)

    async def take_events(self) -> list[bytes]:
        """The encoded records of the body. Raises Refused."""
        now_ms, metadata = self.application.now_ms(), self.metadata
        taken: list[bytes] = []
        first: Refusal | None = None
        bad = 0
        for number, event in enumerate(parse(self.body)):
            try:
                taken.append(self._encode(number, event, metadata, now_ms))
            except errors.TooLarge as error:
                assert isinstance(event, Event)
                event = BadEvent(event.raw or raw_of(self.body, number), 6, str(error))
                taken.append(self._encode_bad(number, event, now_ms))
            if isinstance(event, BadEvent):
                first = first or Refusal(event.code, event.reason, number)
                bad += 1
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)
        if first is not None and bad == len(taken):
            raise first
        return taken

    def _encode(self, number: int, event: Event | BadEvent, metadata: Mapping[str, str], now_ms: int) -> bytes:
        if isinstance(event, BadEvent):
            return self._encode_bad(number, event, now_ms)
        message, data, notes, timestamp_ms = fields(event, metadata, now_ms)
        head = {"source": SOURCE, "message": message}
        return records.encode(head, data, notes, self.record_id(number), timestamp_ms)

    def _encode_bad(self, number: int, event: BadEvent, now_ms: int) -> bytes:
        reason = f"event {number}: {event.reason}"
        return records.encode_bad(event.raw, "unreadable", reason, SOURCE, self.record_id(number), now_ms)

    @property
    def metadata(self) -> dict[str, str]:
        """What the query says of all events."""
        given = {name: self.get_query_argument(name, "") for name in METADATA}
        return {name: value for name, value in given.items() if value}


class RawHandler(EventHandler):
    """Takes text, a record a line."""

    async def take_events(self) -> list[bytes]:
        """The encoded records of the body. Raises Refused."""
        now_ms, metadata = self.application.now_ms(), self.metadata
        taken = []
        for number, (text, notes) in enumerate(parse_raw(self.body)):
            head = {"source": SOURCE, "message": text}
            taken.append(records.encode(head, metadata, notes, self.record_id(number), now_ms))
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)
        return taken


class _Asked(msgspec.Struct):
    acks: list[int]


class AckHandler(HecHandler, BodyHandler):
    """Tells what is stored."""

    media_types = MEDIA_TYPES

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

    def get(self) -> None:
        """200 with code 17, or 503 with code 18."""
        self.reply(18 if self._is_full() or self.application.stopping else 17)

    def head(self) -> None:
        """The same as GET."""
        self.get()

    def _is_full(self) -> bool:
        queue, spool = self.application.queue, self.application.spool
        if queue.size_bytes < FULL * queue.max_bytes:
            return False
        try:
            spool.check(1)
        except errors.QueueFull:
            return True
        return False


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
