"""GELF over HTTP: ``POST /gelf``, one message a request, or one a line, as Graylog's inputs take it.

    short_message   → message; where there is none ``message`` (as Graylog has it), then ``full_message``
    timestamp       → timestamp; one finer than milliseconds also → data.time_unix_nano, whole nanoseconds
    level, 0 to 7   → data.level, the word; data.level_number, as it was sent
    level, a text   → data.level, in lower case; data.severity_text, as it was sent, where that is another
    _name           → data.name, as Graylog has it; data._name where ``name`` is a GELF field or was sent as well
    all the rest    → data, under its name

Sources: "GELF Payload Specification 1.1" and "GELF via HTTP" of Graylog's documentation; in its server GelfCodec.java
(what becomes of the fields), HttpHandler.java (the answers) and GELFMessage.java (compression told by its first bytes).
"""

import decimal
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from .. import codings, jsontext
from ..errors import Refused, TooLarge, Unreadable
from ..handler import ReceiverHandler
from ..jsonlines import ValuesReader
from .rows import MAX_ROWS, Bad, Batch, Row

#: RFC 5424, table 2, as most libraries of today spell it: what other senders call an error is found by the same word.
LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
#: Graylog reads the body whatever its type is: pygelf and graypy name none, and curl, as its documentation shows it, a
#: form.
MEDIA_TYPES = (
    "application/json",
    "application/x-ndjson",
    "application/ndjson",
    "application/gelf",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "text/plain",
    "text/json",
)

#: By number and by its digits, as some senders have it.
_WORDS: dict[float | str, str] = {**dict(enumerate(LEVELS)), **{str(n): word for n, word in enumerate(LEVELS)}}
_TEXTS = ("short_message", "message", "full_message")
#: What ``_name`` cannot be called without its underscore: GELF's own fields, and what is made here.
_GELF = ("version", "host", *_TEXTS, "timestamp", "level", "facility", "line", "file")
_MADE = ("level_number", "severity_text", "time_unix_nano")
_TAKEN = frozenset(["", *_GELF, *_MADE])
_SECONDS = re.compile(r"(-?)(\d{1,12})(?:\.(\d+))?")
_NUMBER = re.compile(r"-?\d{1,40}(?:\.\d{0,40})?[eE][+-]?\d{1,2}")
_MILLION = 1_000_000
_BEYOND_INT64 = 1 << 63
_DIGITS_OF_NANO = 9


class _Timed(msgspec.Struct):
    timestamp: msgspec.Raw = msgspec.Raw(b"")


_TIMES = msgspec.json.Decoder(_Timed)


def parse(body: bytes) -> Iterator[Row | Bad]:
    """The messages of a decoded body; a line among others that is no message is Bad. Paths of notes are the record's.

    Raises Unreadable when the body is no message and has only one line, TooLarge when it has more than MAX_ROWS.
    """
    try:
        row = _read(body)
    except Unreadable:
        if b"\n" not in body.strip():
            raise
    else:
        return iter([row])
    if body.count(b"\n") > MAX_ROWS:
        raise TooLarge(f"more than {MAX_ROWS} messages in one request")
    lines = [line for line in body.split(b"\n") if line and not line.isspace()]
    return _read_at_once(body, lines) or map(_read_line, lines)


def _read(text: bytes) -> Row:
    value, notes = jsontext.read(text)
    if not isinstance(value, dict):
        raise Unreadable("the body is not a GELF message: it is no JSON object")
    (time,) = _times(text) or [_time_again(text)]
    return _row(value, _names(tuple(value)), notes, time, text)


def _read_line(line: bytes) -> Row | Bad:
    try:
        return _read(line)
    except Refused as error:
        return Bad(line, str(error).replace("the body", "the line", 1))


def _read_at_once(body: bytes, lines: list[bytes]) -> Iterator[Row] | None:
    """The messages of ``lines``, those of ``body`` that are not empty, when they are all good and plain."""
    block = ValuesReader(ndjson=True).feed(body + b"\n")
    times = _times(body)
    if block.bad or block.notes or not len(block.values) == len(times) == len(lines):
        return None
    return _rows(block.values, times, lines)


def _rows(values: list[Any], times: list[str], lines: list[bytes]) -> Iterator[Row]:
    names: dict[tuple[str, ...], Sequence[str]] = {}
    for value, time, line in zip(values, times, lines, strict=True):
        # Most messages of a request have the same names.
        sent = tuple(value)
        if sent not in names:
            names[sent] = _names(sent)
        yield _row(value, names[sent], [], time, line)


def _times(text: bytes) -> list[str]:
    """The JSON text of each message's timestamp, empty where there is none: a double does not hold nanoseconds.

    Nothing when the decoder, which is stricter than jsontext, does not read ``text``.
    """
    try:
        return [bytes(message.timestamp).decode() for message in _TIMES.decode_lines(text)]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []


def _time_again(text: bytes) -> str:
    value = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    return json.dumps(value["timestamp"]) if "timestamp" in value else ""


def _names(sent: tuple[str, ...]) -> Sequence[str]:
    """What each of a message's fields is called in the record."""
    taken = _TAKEN.union(sent)
    return [name[1:] if name.startswith("_") and name[1:] not in taken else name for name in sent]


def _row(value: dict[str, Any], names: Sequence[str], notes: jsontext.Notes, time: str, raw: bytes) -> Row:
    data = dict(zip(names, value.values(), strict=True))
    own: jsontext.Notes = []
    time_ns = _take_time(data, time, own)
    _take_level(data)
    text, place = _take_text(data)
    if notes:
        renamed = dict(zip(value, names, strict=True))
        notes = [note | {"path": _moved(note["path"], renamed, place)} for note in notes]
    elif own:
        # records.encode looks for what BSON cannot hold only where there are no notes yet.
        data, notes = jsontext.storable(data)
    return Row(text, data, notes + own, time_ns, raw)


def _take_text(data: dict[str, Any]) -> tuple[str, str]:
    """The message's text, and which field it is; taken out of ``data``, but for the full message."""
    for name in _TEXTS:
        if isinstance(data.get(name), str):
            return (data[name] if name == "full_message" else data.pop(name)), name
    return "", ""


def _take_time(data: dict[str, Any], time: str, notes: jsontext.Notes) -> int | None:
    """The message's time in nanoseconds since 1970, if it has one. Graylog takes 0 for none as well."""
    data.pop("timestamp", None)
    if time in ("", "null"):
        return None
    seconds = time.strip('"')
    match = _SECONDS.fullmatch(seconds) or _SECONDS.fullmatch(_without_exponent(seconds))
    if match is None:
        _note(notes, "/timestamp", "not a time in seconds, time of acceptance taken", time)
        return None
    sign, whole, fraction = match[1], match[2], match[3] or ""
    time_ns = int(sign + whole + fraction[:_DIGITS_OF_NANO].ljust(_DIGITS_OF_NANO, "0"))
    if time_ns % _MILLION and abs(time_ns) < _BEYOND_INT64:
        data[_free("time_unix_nano", data)] = time_ns
    if fraction[_DIGITS_OF_NANO:].strip("0"):
        _note(notes, "/timestamp", "finer than a nanosecond, cut", time)
    return time_ns or None


def _without_exponent(number: str) -> str:
    return f"{decimal.Decimal(number):f}" if _NUMBER.fullmatch(number) else number


def _take_level(data: dict[str, Any]) -> None:
    level = data.get("level")
    if isinstance(level, str) and not level.isdigit():
        if level != level.lower():
            data[_free("severity_text", data)] = level
            data["level"] = level.lower()
    elif isinstance(level, (int, float, str)) and not isinstance(level, bool):
        data[_free("level_number", data)] = data.pop("level")
        if level in _WORDS:
            data["level"] = _WORDS[level]


def _free(name: str, data: dict[str, Any]) -> str:
    """``name``, unless a sender has a field of that name: GELF wants an underscore there, so that is rare."""
    while name in data:
        name += "#1"
    return name


def _note(notes: jsontext.Notes, path: str, change: str, original: str) -> None:
    notes.append({"path": path, "change": change, "original": original})


def _moved(path: str, names: dict[str, str], text: str) -> str:
    """A JSON Pointer into what was sent, as one into the record."""
    _, _, name, *rest = path.split("/")
    name = name.replace("~1", "/").replace("~0", "~")
    if name == text != "full_message":
        return "/message"
    name = names.get(name, name).replace("~", "~0").replace("/", "~1")
    return "/".join(["/data", name, *rest])


def coding_of(begin: bytes) -> str:
    """The Content-Encoding that bytes beginning so are in, as GELF's senders do not tell: JSON begins with neither."""
    if begin[0] == 0x1F:
        return "gzip"
    # RFC 1950: the low bits of a zlib stream's first byte are 8, the high ones at most 7.
    return "deflate" if begin[0] & 0x8F == 0x08 else ""


class GelfHandler(ReceiverHandler):
    """Takes GELF messages. 202 without a body, as Graylog answers."""

    source = "gelf"
    media_types = MEDIA_TYPES

    def prepare(self) -> None:
        """Raises what ReceiverHandler does."""
        # pygelf and graypy name both codings and send zlib; Graylog does not undo what it does not know, and looks.
        if "," in self.request.headers.get("Content-Encoding", ""):
            del self.request.headers["Content-Encoding"]
        self._inner: codings.Decoder | None = None
        super().prepare()

    def take(self, piece: bytes) -> None:
        """Undo what the bytes say they are packed in, and keep it. Raises Refused."""
        if self._inner is None:
            self._inner = codings.decoder(coding_of(piece), self._limit)
        for inner in self._inner.feed(piece):
            super().take(inner)

    def end_body(self) -> None:
        """The body is there. Raises Refused when it is not whole, or was refused as it came."""
        super().end_body()
        if self._inner is not None:
            self._inner.end()

    async def post(self) -> None:
        """202 when the messages are taken. A line that is no message is in quarantine, unless they all are: 400."""
        batch = Batch(self)
        await batch.encode(parse(self.body))
        if len(batch.rejected) == len(batch.records) + batch.lost:
            raise Unreadable(batch.rejected[0])
        await self.accept(batch.records)
        self._answer(202)

    def get(self) -> None:
        """200: for health checks, which Graylog answers with 405."""
        self._answer(200)

    def head(self) -> None:
        """200: Vector's health check, for one."""
        self._answer(200)

    def options(self, *path: str) -> None:
        """200, as Graylog answers."""
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.set_status(status)
        self.clear_header("Content-Type")
        self.finish()


ROUTES = [("/gelf", GelfHandler)]
