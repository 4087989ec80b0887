"""What is in a body for Splunk's HTTP Event Collector: JSON objects one after the other, or lines of text.

Splunk refuses a request for one malformed event in it. Its senders then drop the whole batch (Fluent Bit,
plugins/out_splunk/splunk.c, and Vector: any 4xx is final; splunk-handler: all that is not 2xx is) or send it again and
again (Docker, daemon/logger/splunk/splunk.go: all that is not 200 is). So a bad event costs no other.

Source: Splunk's "Format events for HTTP Event Collector".
"""

import codecs
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from .. import errors, jsontext
from ..jsonends import Broken, Ends, length_of
from ..jsonlines import windows
from . import fields
from .rows import Bad, Row, text

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
#: A body is decoded in pieces of about this: only so much of it is alive as values, and other requests wait no longer
#: than one of them takes.
WINDOW_BYTES = 1 << 18
#: Behind an event that cannot be read the next one is looked for; of a body, so many times its length is read for
#: that. What is left then is one bad event.
TIMES_READ = 3


class Refusal(errors.Unreadable):
    """The request is refused with a code of Splunk's; ``number`` is that of the first event that is to blame."""

    def __init__(self, code: int, detail: str, number: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.number = number


class BadEvent(Bad, gc=False):
    """Bytes that are no event, what is wrong, and Splunk's code for that."""

    code: int = 6


class _Envelope(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """An event as nearly all are."""

    event: Any = msgspec.UNSET
    time: msgspec.Raw = msgspec.Raw(b"")
    host: Any = msgspec.UNSET
    source: Any = msgspec.UNSET
    sourcetype: Any = msgspec.UNSET
    index: Any = msgspec.UNSET
    fields: Any = msgspec.UNSET


_ENVELOPES = msgspec.json.Decoder(_Envelope)
_RAWS = msgspec.json.Decoder(msgspec.Raw)
_JSON = msgspec.json.Encoder()
_SPACES = re.compile(rb"[ \t\r\n]*+")
_SPACE = re.compile(r"[ \t\r\n]*+")
#: Where an event is likely to begin behind one that cannot be read: behind another, or on a line of its own.
_NEXT = re.compile(r"[}\n][ \t\r\n]{0,16}(?=\{[ \t\r\n]{0,16}\"(?:event|time|host|source|sourcetype|index|fields)\")")


def parse(body: bytes, metadata: Mapping[str, str]) -> Iterator[Row | BadEvent]:
    """The events of a body; ``metadata`` is what the request's query says, for events that do not.

    Raises Refusal when there is nothing.
    """
    if not body.removeprefix(codecs.BOM_UTF8).strip():
        raise Refusal(5, "the body is empty")
    start = _behind_space(body, 0)
    while start < len(body):
        end = _cut(body, start)
        if end - start > jsontext.SPARSE_BYTES:
            yield _event(body[start:end].rstrip(), metadata)
        elif (envelopes := (window := _Window(body[start:end])).envelopes()) is not None:
            for number, envelope in enumerate(envelopes):
                data = {**metadata, **_opened(envelope)} if metadata else _opened(envelope)
                yield row(data, bytes(envelope.time).decode(), [], _Event(window, number))
        else:
            yield from _one_by_one(body[start:], metadata)
            return
        start = _behind_space(body, end)


def _cut(body: bytes, start: int) -> int:
    """A place behind some events from ``start`` on: what is before it is valid, or it is none.

    When that is more than jsontext.SPARSE_BYTES, it is one event.
    """
    end = start + WINDOW_BYTES
    if end < len(body):
        end = max(body.rfind(between, start, end) for between in (b"}{", b"}\n{", b"}\r\n{")) + 1 or len(body)
    end = min(end, len(body))
    return end if end - start <= jsontext.SPARSE_BYTES else _cut_behind_long(body, start)


def _cut_behind_long(body: bytes, start: int) -> int:
    """As _cut has it, where an event is long, or what its sender has put between them is not known."""
    view, end = memoryview(body), start
    while end - start < WINDOW_BYTES:
        begin = _behind_space(body, end)
        length = length_of(view[begin:])
        if length is None or (end > start and begin + length - start > jsontext.SPARSE_BYTES):
            break
        end = begin + length
    # What is none is read as it is, and its fault is found.
    return end if end > start else min(start + jsontext.SPARSE_BYTES, len(body))


def _behind_space(body: bytes, at: int) -> int:
    return _SPACES.match(body, at).end()  # type: ignore[union-attr]  # matches always


class _Window:
    """Some whole events of a body."""

    def __init__(self, events: bytes) -> None:
        self._events = events

    def envelopes(self) -> list[_Envelope] | None:
        """The events when all are good; None when they have to be looked at one by one."""
        try:
            if not self._events.isascii():
                # What is kept raw, as times are, is not looked into by the decoder.
                self._events.decode()
            found = _ENVELOPES.decode_lines(self._events)
            if any(_fault(envelope.event, envelope.index) for envelope in found):
                return None
            # The decoder keeps the last of equal keys and does not say so. Written again, a text has as many colons as
            # before, unless a key is gone; but for escaped ones.
            if b"\\u003" in self._events or _JSON.encode(found).count(b":") != self._events.count(b":"):
                return None
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            return None
        return found

    @functools.cached_property
    def raws(self) -> list[msgspec.Raw]:
        """The bytes of each event."""
        return _RAWS.decode_lines(self._events)


class _Event:
    """One event of a window; ``bytes`` of it are its own."""

    __slots__ = ("_number", "_window")

    def __init__(self, window: _Window, number: int) -> None:
        self._window, self._number = window, number

    def __bytes__(self) -> bytes:
        return bytes(self._window.raws[self._number])


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


def _one_by_one(body: bytes, metadata: Mapping[str, str]) -> Iterator[Row | BadEvent]:
    # What is not UTF-8 spoils its own event alone, and comes back as it was.
    events = body.decode("utf-8-sig", "surrogateescape")
    left = TIMES_READ * len(events)
    ends, start = Ends(events), _skip(events, 0)
    while start < len(events):
        try:
            end = ends.of(start)
        except (Broken, RecursionError, errors.TooLarge) as error:
            problem, read = _problem(error)
            left -= (read or len(events)) - start
            next_event = _NEXT.search(events, start + 1)
            end = next_event.end() if next_event and left > 0 else len(events)
            yield BadEvent(_bytes(events[start:end].rstrip(" \t\r\n")), problem)
        else:
            yield _event(_bytes(events[start:end]), metadata)
        start = _skip(events, end)


def _problem(error: Broken | RecursionError | errors.TooLarge) -> tuple[str, int]:
    """What is wrong with an event, and up to where it was read for that; 0 for all there is."""
    if isinstance(error, RecursionError):
        return f"not JSON: {fields.TOO_DEEP}", 0
    if isinstance(error, errors.TooLarge):
        return _of_event(error), 0
    # A string without an end is told by its beginning.
    return f"not JSON: {error.msg}", 0 if error.msg.startswith("Unterminated string") else error.pos + 1


def _of_event(error: errors.Refused) -> str:
    return str(error).replace("the body", "the event", 1)


def _skip(events: str, at: int) -> int:
    return _SPACE.match(events, at).end()  # type: ignore[union-attr]  # matches always


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _event(raw: bytes, metadata: Mapping[str, str]) -> Row | BadEvent:
    try:
        data, notes = jsontext.read(raw)
    except (errors.Refused, RecursionError) as error:
        return BadEvent(raw, _of_event(error) if isinstance(error, errors.Refused) else fields.TOO_DEEP)
    if not isinstance(data, dict):
        return BadEvent(raw, "an event is a JSON object")
    code = _fault(data.get("event", msgspec.UNSET), data.get("index"))
    if code:
        return BadEvent(raw, CODES[code][1], code)
    given = data.pop("time", None)
    time = "" if given is None else fields.digits_of(raw, "time", given)
    return row({**metadata, **data}, time, [note for note in notes if note["path"] != "/data/time"], raw)


def row(data: dict[str, Any], time: str, notes: jsontext.Notes, raw: Any) -> Row:
    """The record of an event; ``data`` is its object without its time, and ``time`` the JSON text of that."""
    nanoseconds = fields.seconds(time, data, notes) if time else None
    event = data["event"]
    fields.set_level(data, notes, event, data.get("fields"))
    if type(event) is str:
        del data["event"]
        return Row(event, data, fields.moved(notes, "/data/event"), nanoseconds, raw)
    message, taken = fields.take_text(event) if type(event) is dict else ("", "")
    return Row(message, data, fields.moved(notes, "/data/event/message") if taken else notes, nanoseconds, raw)


def parse_raw(body: bytes, metadata: dict[str, str]) -> Iterator[Row]:
    """The lines of a raw body that are not blank, without their ends. Raises Refusal when there is no line."""
    found = False
    for window in windows(body):
        for line in window.split(b"\n"):
            if line and not line.isspace():
                found = True
                yield Row(text(line.removesuffix(b"\r")), metadata, [], None, line)
    if not found:
        raise Refusal(5, "the body has no line")
