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

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from .. import codings, jsontext
from ..errors import Refused, TooLarge, Unreadable
from ..handler import ReceiverHandler
from ..jsonends import length_of
from ..jsonlines import values_of, windows
from ..operations import COUNT, NUMBER, TEXT, json_of, open_object, operation
from . import fields
from .rows import Bad, Batch, Row

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
_TEXTS, _COPIED = ("short_message", "message"), ("full_message",)
#: What ``_name`` cannot be called without its underscore: GELF's own fields, and what is made here.
_GELF = ("version", "host", *_TEXTS, *_COPIED, "timestamp", "level", "facility", "line", "file")
_MADE = ("level_number", "severity_text", "time_unix_nano")
_TAKEN = frozenset(["", *_GELF, *_MADE])


class _Timed(msgspec.Struct):
    timestamp: msgspec.Raw = msgspec.Raw(b"")


_TIMES = msgspec.json.Decoder(_Timed)


def parse(body: bytes) -> Iterator[Row | Bad]:
    """The messages of a decoded body; a line among others that is no message is Bad. Paths of notes are the record's.

    Raises Unreadable and TooLarge when the body is no message and has only one line.
    """
    if not _has_many(body):
        try:
            return iter([_read(body)])
        except (Unreadable, TooLarge):
            if b"\n" not in body.strip():
                raise
    return (row for window in windows(body) for row in _read_window(window))


def _has_many(body: bytes) -> bool:
    """Whether ``body``, a long one, begins with a message and has more: it need not be read to find that."""
    if len(body) <= jsontext.SPARSE_BYTES:
        return False
    text = body.strip()
    length = length_of(text)
    return length is not None and length < len(text)


def _read(text: bytes) -> Row:
    value, notes = jsontext.read(text)
    if not isinstance(value, dict):
        raise Unreadable("the body is not a GELF message: it is no JSON object")
    given = value.get("timestamp")
    (time,) = _times(text) or ["" if given is None else fields.digits_of(text, "timestamp", given)]
    return _row(value, _names(tuple(value)), notes, time, text)


def _read_line(line: bytes) -> Row | Bad:
    try:
        return _read(line)
    except Refused as error:
        return Bad(line, str(error).replace("the body", "the line", 1))


def _read_window(window: bytes) -> Iterator[Row | Bad]:
    """The messages of whole lines; at once when they are all good and plain."""
    lines = [line for line in window.split(b"\n") if line and not line.isspace()]
    values, times = values_of(lines), _times(window)
    if values is None or len(times) != len(lines) or not {*map(type, values)} <= {dict}:
        return map(_read_line, lines)
    return _rows(values, times, lines)


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


def _names(sent: tuple[str, ...]) -> Sequence[str]:
    """What each of a message's fields is called in the record."""
    taken = _TAKEN.union(sent)
    return [name[1:] if name.startswith("_") and name[1:] not in taken else name for name in sent]


def _row(value: dict[str, Any], names: Sequence[str], notes: jsontext.Notes, time: str, raw: bytes) -> Row:
    data = dict(zip(names, value.values(), strict=True))
    if notes:
        renamed = dict(zip(value, names, strict=True))
        notes = [note | {"path": _renamed(note["path"], renamed)} for note in notes]
    data.pop("timestamp", None)
    # Graylog takes 0 for none as well.
    time_ns = fields.seconds(time, data, notes) or None
    _set_level(data, notes)
    text, taken = fields.take_text(data, _TEXTS, _COPIED)
    return Row(text, data, fields.moved(notes, f"/data/{taken}") if taken and notes else notes, time_ns, raw)


def _set_level(data: dict[str, Any], notes: jsontext.Notes) -> None:
    level = data.get("level")
    if isinstance(level, str) and not level.isdigit():
        fields.set_level(data, notes)
    elif isinstance(level, (int, float, str)) and not isinstance(level, bool):
        del data["level"]
        fields.keep(data, "level_number", level, notes, "/data/level", "written as its word")
        if level in _WORDS:
            data["level"] = _WORDS[level]


def _renamed(path: str, names: dict[str, str]) -> str:
    """A JSON Pointer into what was sent, as one into the record's data."""
    _, _, name, *rest = path.split("/")
    name = name.replace("~1", "/").replace("~0", "~")
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
    bodies = json_of(open_object({"host": TEXT, "timestamp": NUMBER, "level": COUNT}, short_message=TEXT))

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

    @operation({202: {}})
    async def post(self) -> None:
        """202 when the messages are taken. A line that is no message is in quarantine, unless they all are: 400."""
        batch = Batch(self)
        await batch.encode(parse(self.body))
        if batch.all_bad:
            raise Unreadable(batch.reasons[0])
        await self.accept(batch.records)
        self.refuse(len(batch.lost))
        self._answer(202)

    @operation({200: {}})
    def get(self) -> None:
        """200: for health checks, which Graylog answers with 405."""
        self._answer(200)

    def head(self) -> None:
        """200: Vector's health check, for one."""
        self._answer(200)

    @operation({200: {}})
    def options(self, **path: str) -> None:
        """200, as Graylog answers."""
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.set_status(status)
        self.clear_header("Content-Type")
        self.finish()


ROUTES = [("/gelf", GelfHandler)]
