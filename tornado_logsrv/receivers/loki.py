"""``POST /loki/api/v1/push``: Loki's push API, JSON and protobuf in snappy, a record for each entry. ``GET /ready``.

Protocol: grafana.com/docs/loki, "Loki HTTP API"; messages: grafana/loki ``pkg/push/push.proto``; what is taken for
what: ``pkg/loghttp/push/push.go``. A record's ``message`` is its line:

    {"source": "loki", "message": str, "data": {
        "level": "info", "time_unix_nano": int, "labels": {…}, "structured_metadata": {…}, "tenant": str},
     "timestamp": Date}

``level`` is of the first of fields.LEVEL_NAMES among the labels or else the structured metadata, ``tenant`` the header
X-Scope-OrgID. A line of JSON that is not text, which Loki does not take and some clients send, is ``data.line``.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple

import bson
import msgspec
from msgspec import Raw

from .. import codings, jsontext
from ..auth import Scope
from ..errors import Refused, Unavailable, Unreadable
from ..handler import BaseHandler, ReceiverHandler
from ..jsonlines import keeps_every_key
from ..operations import NANOSECONDS, TEXT, array_of, joined, json_of, named, object_of, operation, table_of
from . import items, protobuf
from .fields import LEVEL_NAMES, level_in
from .items import Item
from .labels import parse_labels
from .pairs import Pairs
from .rows import Bad, Batch, Groups, Row, Rows, members, objects, portions, shared, text

PROTOBUF_TYPE = "application/x-protobuf"

_MESSAGES = protobuf.declare(
    "loki",
    PushRequest="repeated bytes streams = 1",
    StreamAdapter="bytes labels = 1, repeated bytes entries = 2",
    # Go does not look whether a string is UTF-8, and the lines of a file need not be: they are bytes here.
    EntryAdapter="Timestamp timestamp = 1, bytes line = 2, repeated bytes metadata = 3, repeated bytes parsed = 4",
    Pair="bytes name = 1, bytes value = 2",
    Timestamp="int64 seconds = 1, int32 nanos = 2",
)
_ENTRY, _PAIR = _MESSAGES["EntryAdapter"], _MESSAGES["Pair"]
#: The same, of many: what is no UTF-8 is read one by one.
_ENTRIES = protobuf.Columns(
    "loki.entries",
    "Timestamp timestamp = 1, string line = 2, repeated bytes metadata = 3, repeated bytes parsed = 4",
    Timestamp="int64 seconds = 1, int32 nanos = 2",
)
_PAIRS = Pairs(protobuf.Columns("loki.pairs", "string name = 1, string value = 2"), plain=("value",))
#: So many entries in protobuf are read at once at least: fewer are done sooner one by one.
TOGETHER = 16
_SECOND = 1_000_000_000
#: As long a text is read as a number.
_DIGITS = 20
_INTEGERS = msgspec.json.Decoder(list[int])
_LINE = msgspec.json.Decoder(tuple[str, str])
_LINE_WITH_METADATA = msgspec.json.Decoder(tuple[str, str, dict[str, str]])
_LINES = msgspec.json.Decoder(list[tuple[str, str]])
_LINES_WITH_METADATA = msgspec.json.Decoder(list[tuple[str, str, dict[str, str]]])


class Push(msgspec.Struct, Generic[Item]):
    """The body of a push in JSON."""

    streams: list[Item]


class Stream(msgspec.Struct, Generic[Item]):
    """One of its streams; ``labels`` and ``entries`` had the form of /api/prom/push, which is not read."""

    stream: Item = Raw(b"{}")  # type: ignore[assignment]  # what an item is when it is not there
    values: list[Item] = []
    labels: Item = items.ABSENT
    entries: Item = items.ABSENT

    def __post_init__(self) -> None:
        if items.is_there(self.labels) or items.is_there(self.entries):
            raise ValueError("labels and entries are of the form before /loki/api/v1: send stream and values")


_PUSH, _STREAM = items.Message(Push), items.Message(Stream)


class _Of(NamedTuple):
    """What all entries of a stream have."""

    members: bytes
    notes: jsontext.Notes
    level: str


def parse(body: bytes, is_json: bool, limit: int, tenant: str = "") -> Iterator[Row | Rows | Bad | None]:
    """The entries of a push, None for a stream without any; what snappy holds may have ``limit`` bytes.

    Raises, before any of them, Unreadable when ``body`` is none, and TooLarge.
    """
    if is_json:
        jsontext.check_body(body)
        streams = Groups().of(_PUSH.read(body).streams)
        return (row for raw in streams for row in _stream(raw, tenant, _json_stream, _json_entry))
    streams = Groups().of(protobuf.read(_MESSAGES["PushRequest"], codings.unsnapped(body, limit)).streams)
    return (row for raw in streams for row in _stream(raw, tenant, _protobuf_stream, _protobuf_entry))


def _stream(raw: Any, tenant: str, read: Any, read_entry: Any) -> Iterator[Row | Rows | Bad | None]:
    try:
        labels, plain, entries = read(raw)
        encoded, notes = shared("labels", labels, plain)
        of_tenant = bson.encode({"tenant": tenant})[4:-1] if tenant else b""
        of = _Of((encoded if labels else b"") + of_tenant, notes, level_in(labels))
    except Refused as error:
        yield Bad(bytes(raw), f"stream: {error}")
        return
    if not entries:
        yield None
    for part in [entries] if notes else _together(of, entries):
        if isinstance(part, Rows):
            yield part
            continue
        for entry in part:
            try:
                yield read_entry(of, entry)
            except Refused as error:
                yield Bad(bytes(entry), str(error))


def _protobuf_stream(raw: bytes) -> tuple[dict[str, Any], bool, Any]:
    stream = protobuf.read(_MESSAGES["StreamAdapter"], raw)
    return *parse_labels(text(stream.labels) or "{}"), stream.entries


def _protobuf_entry(of: _Of, raw: bytes) -> Row:
    entry = protobuf.read(_ENTRY, raw)
    timestamp = entry.timestamp
    time = timestamp.seconds * _SECOND + timestamp.nanos
    if not time and not entry.HasField("timestamp"):
        time = None
    metadata, plain = _pairs(entry.metadata) if entry.metadata else ({}, True)
    parsed, parsed_plain = _pairs(entry.parsed) if entry.parsed else ({}, True)
    return _row(of, raw, time, text(entry.line), metadata, parsed, plain and parsed_plain)


def _pairs(pairs: Any) -> tuple[dict[str, Any], bool]:
    found = [_pair(raw) for raw in members(pairs)]
    value = jsontext.from_pairs(found)
    return value, type(value) is dict


def _pair(raw: bytes) -> tuple[str, str]:
    pair = protobuf.read(_PAIR, raw)
    return text(pair.name), text(pair.value)


def _json_stream(raw: Any) -> tuple[dict[str, Any], bool, Any]:
    stream = _STREAM.read(raw)
    labels, plain = items.value(stream.stream)
    if not isinstance(labels, dict):
        raise Unreadable("stream is not an object of labels")
    return labels, plain, stream.values


def _together(of: _Of, entries: Sequence[Any]) -> Iterator[Rows | Sequence[Any]]:
    """``entries`` in columns, but for those that have to be looked at one by one."""
    if not entries or type(entries[0]) not in (Raw, bytes):
        yield entries
        return
    rows = _json_rows if type(entries[0]) is Raw else _protobuf_rows
    for part in portions(entries):
        yield (len(part[0]) <= jsontext.SPARSE_BYTES and rows(of, part)) or part


def _json_rows(of: _Of, raws: Sequence[Raw]) -> Rows | None:
    """What _json_entry makes of each of ``raws``; None when one of them has to be looked at by itself."""
    found = _json_lists(b"[%b]" % b",".join(raws), has_metadata=bytes(raws[0]).endswith(b"}]"))
    if found is None:
        return None
    texts, lines, *more = zip(*found, strict=True)
    times = _all_nanoseconds(texts)
    return None if times is None else _rows(of, raws, times, lines, more[0] if more else ({},) * len(texts))


def _protobuf_rows(of: _Of, raws: Sequence[bytes]) -> Rows | None:
    """What _protobuf_entry makes of each of ``raws``; None when one of them has to be looked at by itself."""
    if len(raws) < TOGETHER:
        return None
    none: Sequence[Any] = [None] * len(raws)
    try:
        found = _ENTRIES.read(raws) or {}
        seconds, lines = found.get("seconds", none), found.get("line", none)
        if "parsed" in found or None in seconds or None in lines:
            return None
        metadata: Any = ({},) * len(raws)
        if "metadata" in found:
            metadata = _PAIRS.objects(found["metadata"], _pair)
    except Refused:
        return None
    nanos = found.get("nanos", none)
    times = [second * _SECOND + (nano or 0) for second, nano in zip(seconds, nanos, strict=True)]
    return _rows(of, raws, times, lines, metadata) if metadata is not None and all(times) else None


def _rows(
    of: _Of, raws: Sequence[Any], times: Sequence[int], lines: Sequence[str], metadata: Sequence[dict[str, str]]
) -> Rows:
    """What _row makes of each entry, where all are plain and have a time."""
    if of.level:
        data: list[dict[str, Any]] = [{"level": of.level, "time_unix_nano": time} for time in times]
    elif set().union(*metadata).isdisjoint(LEVEL_NAMES):
        data = [{"time_unix_nano": time} for time in times]
    else:
        data = objects(len(times), {"level": list(map(level_in, metadata)), "time_unix_nano": times})
    for each, given in zip(data, metadata, strict=True):
        if given:
            each["structured_metadata"] = given
    return Rows(lines, data, times, raws, of.members)


def _json_lists(text: bytes, has_metadata: bool) -> Sequence[Any] | None:
    """The value of an array of entries of the common forms, None when they are not or may not be plain."""
    try:
        if not has_metadata:
            return _LINES.decode(text)
        found = _LINES_WITH_METADATA.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    # Without escapes, all quotes are those of texts.
    if b"\\" not in text and text.count(b'"') == 4 * len(found) + 4 * sum([len(entry[2]) for entry in found]):
        return found
    return found if keeps_every_key(text, found) else None


def _all_nanoseconds(times: Sequence[str]) -> list[int] | None:
    """What _nanoseconds gives for each of ``times``; None for any that are not usual."""
    digits = "".join(times)
    if not digits.isascii() or not digits.encode().isdigit() or max(map(len, times)) > _DIGITS:
        return None
    try:
        # Half of what it takes to make an int of each.
        found = _INTEGERS.decode(f"[{','.join(times)}]")
    except msgspec.DecodeError:
        # One that is empty, or begins with a zero.
        return None
    # A time of 0 would not become a member.
    return found if all(found) else None


def _json_entry(of: _Of, raw: Any) -> Row:
    entry, plain = _json_list(raw)
    if not isinstance(entry, (list, tuple)) or not 2 <= len(entry) <= 3:
        raise Unreadable("an entry is not [time, line] or [time, line, structured metadata]")
    metadata = entry[2] if len(entry) == 3 else {}
    if metadata is not None and not isinstance(metadata, dict):
        raise Unreadable("structured metadata is not an object")
    return _row(of, raw, _nanoseconds(entry[0]), entry[1], metadata or {}, {}, plain)


def _json_list(raw: Any) -> tuple[Any, bool]:
    """The value of an entry, and whether it is plain; the common forms without asking jsontext for it."""
    if type(raw) is Raw and len(raw) <= jsontext.SPARSE_BYTES:
        given = bytes(raw)
        try:
            if given.endswith(b'"]'):
                return _LINE.decode(given), True
            if given.endswith(b'"}]'):
                entry = _LINE_WITH_METADATA.decode(given)
                # Without escapes there are four quotes for each member: then none stands twice, and no text has the {.
                metadata = given[given.rindex(b"{") :]
                if b"\\" not in metadata and metadata.count(b'"') == 4 * len(entry[2]):
                    return entry, True
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass
    return items.value(raw)


def _nanoseconds(time: Any) -> int:
    if type(time) is str and len(time) <= _DIGITS and time.removeprefix("-").isdecimal() and time.isascii():
        return int(time)
    if type(time) is int:
        return time
    raise Unreadable(f"a time is not a number of nanoseconds: {ascii(time)[:40]}")


def _row(
    of: _Of, raw: Any, time: int | None, line: Any, metadata: dict[str, Any], parsed: dict[str, Any], plain: bool
) -> Row:
    data: dict[str, Any] = {}
    if level := of.level or (level_in(metadata) if metadata else ""):
        data["level"] = level
    if time is not None:
        data["time_unix_nano"] = time
    if metadata:
        data["structured_metadata"] = metadata
    if parsed:
        data["parsed"] = parsed
    if type(line) is not str:
        data["line"] = line
        line = jsontext.write(jsontext.storable(line)[0]).decode()
    if plain:
        return Row(line, data, of.notes.copy(), time, raw, of.members)
    data, notes = jsontext.storable(data)
    return Row(line, data, of.notes + notes, time, raw, of.members)


PLAIN = {"text/plain": TEXT}
_ENTRY_SCHEMA = {"type": "array", "prefixItems": [NANOSECONDS, TEXT, table_of(TEXT)], "minItems": 2, "maxItems": 3}
PUSH = named("LokiPush", object_of(streams=array_of(object_of(stream=table_of(TEXT), values=array_of(_ENTRY_SCHEMA)))))


class PushHandler(ReceiverHandler):
    """Takes entries from Promtail, Alloy, Fluent Bit and other clients of Loki."""

    source = "loki"
    problem_content = PLAIN
    request_fields = joined(ReceiverHandler.request_fields, {"X-Scope-OrgID": TEXT})
    media_types = (PROTOBUF_TYPE, "application/json")
    bodies = json_of(PUSH)

    def prepare(self) -> None:
        """Raises what ReceiverHandler does."""
        # Some clients name the snappy that a push in protobuf always is in; Loki looks past that too.
        if not self._is_json and self.request.headers.get("Content-Encoding", "").strip().lower() == "snappy":
            del self.request.headers["Content-Encoding"]
        super().prepare()

    @operation({204: {}})
    async def post(self) -> None:
        """204. Entries in quarantine are not told of, unless there are no others: Loki's clients cannot be told."""
        tenant = self.request.headers.get("X-Scope-OrgID", "")
        batch = Batch(self)
        await batch.encode(parse(self.body, self._is_json, self.application.options.max_body_bytes, tenant))
        if batch.rejected and batch.all_bad:
            raise Unreadable(f"there is no entry that can be read: {batch.reasons[0]}")
        await self.accept(batch.records)
        self.refuse(len(batch.lost))
        self.set_status(204)

    @property
    def _is_json(self) -> bool:
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return media_type not in ("", PROTOBUF_TYPE)

    def write_problem(self, problem: dict[str, Any], error: BaseException | None) -> None:
        """Answer text. Permanent errors are 400: Fluent Bit sends again after any other status (out_loki)."""
        status = problem["status"]
        self.set_status(400 if 400 <= status < 500 and status not in (401, 403, 405, 429) else status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{problem.get('detail') or problem['title']}\n")


class ReadyHandler(BaseHandler):
    """Whether pushes are taken now, as Loki tells it."""

    scope = Scope.OPEN
    problem_content = PLAIN

    @operation({200: PLAIN})
    async def get(self) -> None:
        """200 ``ready``. Raises Unavailable, with what is missing."""
        health = self.application.health
        await health.look()
        if not health.ready:
            missing = [check.detail for check in health.checks() if check.needed and not check.ok]
            raise Unavailable(f"not ready: {'; '.join(missing)}")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("ready\n")

    head = get

    write_problem = PushHandler.write_problem


ROUTES = [
    ("/loki/api/v1/push", PushHandler),
    ("/api/prom/push", PushHandler),
    ("/ready", ReadyHandler),
]
