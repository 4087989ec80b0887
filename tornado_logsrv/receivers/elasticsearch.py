"""Elasticsearch's bulk API, and what its clients ask before they use it.

    POST /_bulk, /{index}/_bulk      an action line and a document line for each record; PUT is the same

``data`` is the document without its ``message``, and with ``_index`` (and ``_id``, where the client gave one): names
that Elasticsearch reserves, so documents have none of their own.

Bad items among good ones go to quarantine, and are answered as Elasticsearch's failure store answers: 201 with
``"failure_store":"used"``. For an error in one item some senders send the whole batch again (Fluent Bit,
plugins/out_es/es.c), others drop it (Vector, src/sinks/elasticsearch/retry.rs).

An ``_id`` makes the record's id, so what is sent again is stored once, and is a success again: whether a record is
there already would take a read for each. Only an ``_id`` that one request creates twice is a version conflict (409).
An ``index`` action replaces nothing: with another document its record is another one, beside the first.

Sources: the guide's pages "Bulk API" and "Failure store"; for a probe, the client that is named with it.
"""

import asyncio
import base64
import decimal
import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import tornado.routing
import tornado.web
from tornado.httputil import HTTPServerRequest

from .. import errors, jsontext, records
from ..auth import Scope
from ..handler import BaseHandler, ReceiverHandler
from ..jsonlines import ValuesReader

SOURCE = "elasticsearch"
CLUSTER = "logsrv"
#: The version that a client is told of this server, if it does not say its own.
VERSION = "8.19.0"
#: A body is decoded in pieces of about this: only so much of it is alive as values, and other requests wait no longer
#: than one of them takes.
WINDOW_BYTES = 1 << 18
#: Items that cannot be read, in one request: each takes some ten times as long as one that can.
MAX_BAD = 10_000
#: Where the text of a record is when it is not in ``message``: Fluent Bit and Docker, loggers, the systemd journal.
TEXT_KEYS = ("log", "msg", "MESSAGE")

#: Where a severity is looked for when there is no ``level``: ECS with dots in its keys, and others' names.
LEVEL_KEYS = ("log.level", "severity", "severity_text")
#: A sender whose clock is this far ahead is not believed.
MAX_AHEAD_MS = 86_400_000
#: Items that are read and encoded before other requests have their turn.
TURN = 2000

_BLANK = b" \t\r"
_ACTIONS = frozenset(("create", "index", "update", "delete"))
_TOO_DEEP = "nested deeper than this server reads"
_JSON = msgspec.json.Encoder()


class Item(NamedTuple):
    """A document to keep. ``operation`` is create or index; ``id`` the ``_id`` that the client gave.

    ``more`` are the members of the action line besides ``_index`` and ``_id``, if there are any.
    """

    operation: str
    index_name: str
    id: str | None
    more: dict[str, Any] | None
    document: dict[str, Any]
    notes: jsontext.Notes
    window: "_Window"
    line: int

    @property
    def raw(self) -> bytes:
        """The document's line."""
        return b"".join(self.window.lines[self.line : self.line + 1])


class BadItem(NamedTuple):
    """A document, or an action line and what was behind it, that cannot be read."""

    operation: str
    index_name: str
    id: str | None
    raw: bytes
    reason: str


class OtherItem(NamedTuple):
    """An update or delete."""

    operation: str
    index_name: str
    id: str | None


class _Action(NamedTuple):
    operation: str
    index_name: str
    id: str | None
    more: dict[str, Any] | None


class _Broken(str):
    """Why a line is no value."""


class _Window:
    """Some whole lines of a body; ``lines`` are those that are not blank."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    @functools.cached_property
    def lines(self) -> list[bytes]:
        return [line for line in self.text.split(b"\n") if line.strip(_BLANK)]

    def values(self, most: int) -> tuple[list[Any], dict[int, jsontext.Notes]]:
        """The value of each line, and the notes of the few that have some; of a line that is none, a _Broken.

        Raises Unreadable when those are more than ``most``.
        """
        block = ValuesReader(ndjson=True).feed(self.text)
        # When every line ends an object, none is blank, and each has one value or more.
        plain = block.count == self.text.count(b"\n") == self.text.count(b"}\n")
        if not block.bad and (plain or block.count == len(self.lines)):
            return block.values, block.notes
        return self._one_by_one(most)

    def _one_by_one(self, most: int) -> tuple[list[Any], dict[int, jsontext.Notes]]:
        values: list[Any] = []
        notes = {}
        for line in self.lines:
            try:
                value, found = jsontext.read(line)
            except (errors.Refused, RecursionError) as error:
                reason = str(error) if isinstance(error, errors.Refused) else _TOO_DEEP
                value, found = _Broken(reason.replace("the body", "the line", 1)), []
                most -= 1
                if most < 0:
                    raise _too_many_bad() from None
            if found:
                notes[len(values)] = found
            values.append(value)
        return values, notes


def _too_many_bad() -> errors.Unreadable:
    return errors.Unreadable(f"more than {MAX_BAD} items cannot be read")


def _windows(body: bytes) -> Iterator[_Window]:
    start = 0
    while start < len(body):
        end = body.rfind(b"\n", start, start + WINDOW_BYTES) + 1 or body.find(b"\n", start) + 1
        yield _Window(body[start:end] if end else body[start:] + b"\n")
        start = end or len(body)


def parse(body: bytes, index: str = "") -> Iterator[Item | BadItem | OtherItem]:
    """The items of a bulk body, in their order; ``index`` is that of actions that name none.

    An action line that cannot be read takes the line behind it with it, unless that is an action line. Raises
    Unreadable when more than MAX_BAD items cannot be read and, at the end, when not one action line can; TooLarge when
    a line is longer than a record may be.
    """
    understood = False
    bad = 0
    action: _Action | None = None
    unknown: bytes | None = None
    last_line: Any = None
    last_action: _Action | None = None
    for window in _windows(body):
        values, notes = window.values(2 * MAX_BAD)
        for line, value in enumerate(values):
            if action is not None:
                item = _item(action, value, notes.get(line, []) if notes else [], window, line)
                bad += isinstance(item, BadItem)
                yield item
                action = None
                continue
            # Most action lines of a request are the same. Of those with numbers, equal ones need not be: 1 and 1.0.
            action = last_action if value == last_line else _action(value, index)
            if action is not None and action.id is None and action.more is None:
                last_line, last_action = value, action
            if unknown is not None:
                bad += 1
                yield _bad_action(unknown if action else b"\n".join((unknown, window.lines[line])))
                unknown = None
            elif action is None:
                unknown = window.lines[line]
            if action is not None:
                understood = True
                if action.operation == "delete":
                    yield OtherItem(*action[:3])
                    action = None
        if bad > MAX_BAD:
            raise _too_many_bad()
    if action is not None:
        yield BadItem(*action[:3], window.lines[-1], "its document is missing")
    if unknown is not None:
        yield _bad_action(unknown)
    if not understood:
        raise errors.Unreadable("not one action line can be read" if body.strip() else "request body is required")


def _action(value: Any, index: str) -> _Action | None:
    """What an action line says, None when it is none."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((operation, given),) = value.items()
    if operation not in _ACTIONS or not isinstance(given, dict):
        return None
    name, own_id = given.get("_index"), given.get("_id")
    if name is not None and not isinstance(name, str):
        return None
    if len(given) == (name is not None) + (own_id is not None):
        more = None
    else:
        more = {key: each for key, each in given.items() if _says_something(key, each)} or None
    return _Action(operation, name or index, own_id if isinstance(own_id, str) else _id_text(own_id), more)


def _says_something(key: str, value: Any) -> bool:
    return value is not None and key not in ("_index", "_id") and (key, value) != ("_type", "_doc")


def _id_text(given: Any) -> str | None:
    # To Elasticsearch a number is as good as its text.
    return None if given is None else jsontext.write(given).decode()


def _bad_action(raw: bytes) -> BadItem:
    return BadItem("index", "", None, raw, "the action line cannot be read")


def _item(action: _Action, value: Any, notes: jsontext.Notes, window: _Window, line: int) -> Item | BadItem | OtherItem:
    if action.operation == "update":
        return OtherItem(*action[:3])
    if isinstance(value, dict):
        return Item(action.operation, action.index_name, action.id, action.more, value, notes, window, line)
    reason = str(value) if isinstance(value, _Broken) else "a document is a JSON object"
    return BadItem(*action[:3], window.lines[line], reason)


# From documents to records


def fields(item: Item, now_ms: int) -> tuple[str, dict[str, Any], jsontext.Notes, int]:
    """The message, data, notes and timestamp (ms since 1970) of a document taken at ``now_ms``.

    The document itself becomes the data. Its ``@timestamp`` stays there as it was sent, unless ``timestamp`` says the
    very same (UTC, three decimals, Z); where it is finer, data has ``time_unix_nano``: nanoseconds since 1970. A
    ``level`` that is not in lower case stays as ``severity_text``. Raises TooLarge when there are more notes than a
    record may have.
    """
    data = item.document
    own: jsontext.Notes = []
    timestamp_ms = _take_time(data, now_ms, own)
    message = _take_text(data)
    _set_level(data, own)
    if item.index_name:
        if "_index" in data:
            _make_way(data, "_index", own)
        data["_index"] = item.index_name
    if item.id is not None:
        _make_way(data, "_id", own)
        data["_id"] = item.id
    if item.more is not None:
        _make_way(data, "_bulk", own)
        data["_bulk"] = item.more
    notes = item.notes
    if notes and message:
        notes = [{**note, "path": "/message"} if note["path"] == "/data/message" else note for note in notes]
    if own:
        # The encoder looks for what BSON cannot hold only where there are no notes.
        data, notes = (data, notes) if notes else jsontext.storable(data)
        notes = [*notes, *own]
    return message, data, notes, timestamp_ms


def _take_text(data: dict[str, Any]) -> str:
    """The text of a record: its ``message``, which leaves ``data``, or a copy of another field's.

    A message that another field has as well stays, so that it can be told which of both it was.
    """
    text = data.get("message")
    if type(text) is str and text:
        for key in TEXT_KEYS:
            if key in data and data[key] == text:
                return text
        del data["message"]
        return text
    for key in TEXT_KEYS:
        text = data.get(key)
        if type(text) is str:
            return text
    return ""


def _set_level(data: dict[str, Any], notes: jsontext.Notes) -> None:
    level = data.get("level")
    if level is None:
        level = _level_elsewhere(data)
        if type(level) is str:
            data["level"] = level.lower()
    elif type(level) is str and not level.islower():
        if data.setdefault("severity_text", level) != level:
            _note(notes, "/data/level", "written in lower case", level)
        data["level"] = level.lower()


def _level_elsewhere(data: dict[str, Any]) -> Any:
    for key in LEVEL_KEYS:
        if key in data:
            return data[key]
    log = data.get("log")
    return log.get("level") if type(log) is dict else None


def _make_way(data: dict[str, Any], key: str, notes: jsontext.Notes) -> None:
    """Should a document have ``key``, against the rules, its own goes on as key#number."""
    if key in data:
        number = 1
        while f"{key}#{number}" in data:
            number += 1
        kept = f"{key}#{number}"
        data[kept] = data.pop(key)
        _note(notes, f"/data/{kept}", "key taken by the action line, own value kept under key#number", key)


def _note(notes: jsontext.Notes, path: str, change: str, original: Any) -> None:
    notes.append({"path": path, "change": change, "original": json.dumps(original)})


#: The forms of strict_date_optional_time (guide, "format"), with the fractions and offsets that clients write.
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d(?::\d\d(?::\d\d)?)?)(?:[.,](\d{1,32}))?)?\s?(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)
_MILLISECONDS = re.compile(r"\d{1,15}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = datetime(1, 1, 1)


def _take_time(data: dict[str, Any], now_ms: int, notes: jsontext.Notes) -> int:
    given = data.get("@timestamp")
    if type(given) is str:
        timestamp_ms = _plain_time(given)
        if 0 < timestamp_ms <= now_ms + MAX_AHEAD_MS:
            del data["@timestamp"]
            return timestamp_ms
    elif given is None:
        # Vector writes there, unless it writes to data streams.
        given = data.get("timestamp")
        if type(given) is not str or nanoseconds(given) is None:
            return now_ms
    return _time_of(given, data, now_ms, notes)


def _plain_time(text: str) -> int:
    """Milliseconds from 1970 to ``text`` if that is like 2026-01-31T12:00:00.000Z, as most senders write; else 0."""
    if len(text) != 24 or text[19] != "." or text[23] != "Z":
        return 0
    fraction = text[20:23]
    return _second(text[:19]) + int(fraction) if fraction.isdecimal() and fraction.isascii() else 0


@functools.lru_cache(maxsize=4096)
def _second(text: str) -> int:
    """Milliseconds from 1970 to ``text`` if that is like 2026-01-31T12:00:00; else a time that is too early."""
    try:
        moment = (
            datetime.fromisoformat(text)
            if (text[4], text[7], text[10], text[13], text[16]) == ("-", "-", "T", ":", ":")
            else _NEVER
        )
        return round((moment.replace(tzinfo=UTC) - _EPOCH).total_seconds()) * 1000
    except ValueError:
        return -1000


def _time_of(given: Any, data: dict[str, Any], now_ms: int, notes: jsontext.Notes) -> int:
    time_ns = nanoseconds(given)
    if time_ns is None:
        _note(notes, "/timestamp", "not a time, time of acceptance taken", str(given)[:64])
        return now_ms
    if not 0 < time_ns <= (now_ms + MAX_AHEAD_MS) * 1_000_000:
        _note(notes, "/timestamp", "not after 1970 or over a day ahead, time of acceptance taken", given)
        return now_ms
    if time_ns % 1_000_000:
        data.setdefault("time_unix_nano", time_ns)
    return time_ns // 1_000_000


def nanoseconds(given: Any) -> int | None:
    """Nanoseconds since 1970 of an ``@timestamp``: ISO 8601, or milliseconds as a number or text; None when not."""
    if type(given) is float:
        return int(decimal.Decimal(repr(given)) * 1_000_000) if abs(given) < 1e15 else None
    if type(given) is int:
        return given * 1_000_000
    if type(given) is not str:
        return None
    if _MILLISECONDS.fullmatch(given):
        return int(given) * 1_000_000
    match = _ISO.fullmatch(given)
    return None if match is None else _from_parts(*match.groups())


def _from_parts(date: str, clock: str | None, fraction: str | None, offset: str | None) -> int | None:
    clock = clock or "00"
    if fraction is not None and len(clock) != 8:
        return None
    zone = "" if offset is None or offset == "Z" else offset
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{zone}")
    except ValueError:
        return None
    passed = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    seconds = passed.days * 86_400 + passed.seconds
    return seconds * 1_000_000_000 + int((fraction or "")[:9].ljust(9, "0"))


# Talking to clients

#: Exception class → status and ``type`` of Elasticsearch's error; the first that fits decides. Clients send again what
#: is answered 429, 502, 503 or 504 (elastic-transport, ``retry_on_status``; Logstash, Filebeat and Fluent Bit what is
#: not 200), and Filebeat and Logstash send what is answered 413 in smaller parts.
_ERRORS: tuple[tuple[type[BaseException], int, str], ...] = (
    (errors.TooLarge, 413, "content_too_long_exception"),
    (errors.UnsupportedMedia, 415, "media_type_header_exception"),
    (errors.Unauthenticated, 401, "security_exception"),
    (errors.Forbidden, 403, "security_exception"),
    (errors.RateLimited, 429, "es_rejected_execution_exception"),
    (errors.QueueFull, 429, "es_rejected_execution_exception"),
    (errors.StoredTimeout, 504, "timeout_exception"),
    (errors.Unavailable, 503, "unavailable_shards_exception"),
    (errors.Unreadable, 400, "parse_exception"),
    (errors.Refused, 400, "illegal_argument_exception"),
)
_VENDOR_TYPE = re.compile(r"application/vnd\.elasticsearch\+json\s*;\s*compatible-with=(\d{1,2})", re.IGNORECASE)
#: What the names of programs have in common that speak to Elasticsearch.
_AGENTS = re.compile(r"elastic|opensearch|beat/|logstash|manticore|fluent|vector/", re.IGNORECASE)
_OWN_VERSION = re.compile(
    r"(?:^|,)es=(\d{1,2}\.\d{1,3}\.\d{1,3})|(?:beat|logstash|elastic\w*-\w+|elastic)/(\d{1,2}\.\d{1,3}\.\d{1,3})",
    re.IGNORECASE,
)


def looks_like_client(request: HTTPServerRequest) -> bool:
    """Whether a request is that of a program that takes this for Elasticsearch, and not of a person or a probe.

    It does not ask for HTML, and it has a header that only Elastic's clients have, or asks for their media type, or
    says the name of one of the programs that write to Elasticsearch.
    """
    headers = request.headers
    accepted = headers.get("Accept", "")
    if "text/html" in accepted:
        return False
    if "X-Elastic-Client-Meta" in headers or "X-Elastic-Product-Origin" in headers:
        return True
    return "vnd.elasticsearch" in accepted or bool(_AGENTS.search(headers.get("User-Agent", "")))


def version_for(request: HTTPServerRequest) -> str:
    """The version of Elasticsearch that suits the client: its own, since Beats refuse one that is older."""
    headers = request.headers
    said = f"{headers.get('X-Elastic-Client-Meta', '')} {headers.get('User-Agent', '')}"
    match = _OWN_VERSION.search(said)
    return (match[1] or match[2]) if match else VERSION


class Matches(tornado.routing.PathMatches):
    """A path, and a client of Elasticsearch: anybody else's request goes on to the routes behind."""

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """What the handler is called with, None when it is not to be."""
        return super().match(request) if looks_like_client(request) else None


class ElasticsearchHandler(BaseHandler):
    """Speaks to Elasticsearch's clients: their media type, their header, their errors."""

    scope = Scope.WRITE
    challenge = 'Basic realm="logsrv"'

    def set_default_headers(self) -> None:
        """Clients refuse an answer 2xx without the product's name (elasticsearch-py, _sync/client/_base.py)."""
        super().set_default_headers()
        self.set_header("X-Elastic-Product", "Elasticsearch")

    def answer(self, status: int, value: Any) -> None:
        """Answer ``value`` as JSON, in the media type that was asked for."""
        self.write_json(status, _JSON.encode(value))

    def write_json(self, status: int, text: bytes) -> None:
        """Answer JSON ``text``."""
        asked = _VENDOR_TYPE.search(self.request.headers.get("Accept", ""))
        plain = "application/json"
        self.set_status(status)
        vendor = f"application/vnd.elasticsearch+json;compatible-with={asked[1]}" if asked else plain
        self.set_header("Content-Type", vendor)
        self.finish(text)

    def write_problem(self, problem: dict[str, Any], error: BaseException | None) -> None:
        """Answer as Elasticsearch does: ``{"error":{"root_cause":[…],"type":…,"reason":…},"status":…}``."""
        status, kind = problem["status"], "exception"
        for each, known, name in _ERRORS:
            if isinstance(error, each):
                status, kind = known, name
                break
        cause = {"type": kind, "reason": problem.get("detail", problem["title"])}
        self.answer(status, {"error": {"root_cause": [cause], **cause}, "status": status})


class BulkHandler(ElasticsearchHandler, ReceiverHandler):
    """Takes documents."""

    source = SOURCE
    media_types = (
        "application/x-ndjson",
        "application/vnd.elasticsearch+x-ndjson",
        "application/ndjson",
        "application/json",
    )

    async def post(self, index: str = "") -> None:
        """200 with the fate of each item: 201 taken, 400 an update or delete, 409 created twice in this request."""
        began = time.monotonic()
        batch = _Batch(self.record_id, self.application.now_ms())
        for number, item in enumerate(parse(self.body, index)):
            batch.add(number, item)
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)
        if batch.records:
            await self.accept(batch.records)
        if batch.refused:
            self.application.intake.refuse(SOURCE, batch.refused)
        self.write_json(200, batch.answer(round((time.monotonic() - began) * 1000)))

    async def put(self, index: str = "") -> None:
        """The same as POST."""
        await self.post(index)


class _Batch:
    """The records of a request, and its answer."""

    def __init__(self, new_id: Callable[[int], bytes], now_ms: int) -> None:
        """``new_id`` gives the id of the n-th record where the client gave none."""
        self.records: list[bytes] = []
        self.refused = 0
        self._new_id = new_id
        self._now_ms = now_ms
        self._answers: list[str] = []
        self._beginnings: dict[tuple[str, str], str] = {}
        self._created: set[bytes] = set()

    def add(self, number: int, item: Item | BadItem | OtherItem) -> None:
        if isinstance(item, Item):
            record_id = self._new_id(number) if item.id is None else self._named_id(item)
            if record_id:
                self._add(number, item, record_id)
        elif isinstance(item, BadItem):
            self._add_bad(number, item)
        else:
            reason = f"{item.operation} is not supported: a record that is taken is not changed any more"
            self._refuse(item, 400, "illegal_argument_exception", reason)

    def _named_id(self, item: Item) -> bytes:
        """The id of a record whose ``_id`` the client gave; none when this request has created it already."""
        record_id = _named_id(item)
        if item.operation == "create":
            if record_id in self._created:
                reason = f"[{item.id}]: version conflict, document already exists"
                self._refuse(item, 409, "version_conflict_engine_exception", reason)
                return b""
            self._created.add(record_id)
        return record_id

    def _add(self, number: int, item: Item, record_id: bytes) -> None:
        try:
            message, data, notes, timestamp_ms = fields(item, self._now_ms)
            head = {"source": SOURCE, "message": message}
            self.records.append(records.encode(head, data, notes, record_id, timestamp_ms))
        except errors.TooLarge as error:
            self._add_bad(number, BadItem(item.operation, item.index_name, item.id, item.raw, str(error)), "too-large")
        else:
            shown = f'"{record_id.hex()}"' if item.id is None else _json(item.id)
            beginning = self._beginnings.get((item.operation, item.index_name)) or self._beginning(item)
            self._answers.append(f"{beginning}{shown},{_CREATED}")

    def _add_bad(self, number: int, item: BadItem, code: str = "unreadable") -> None:
        record_id = self._new_id(number)
        try:
            bad = records.encode_bad(item.raw, code, item.reason, SOURCE, record_id, self._now_ms)
        except errors.TooLarge as error:
            self._refuse(item, 400, "document_parsing_exception", str(error))
        else:
            self.records.append(bad)
            shown = _json(record_id.hex() if item.id is None else item.id)
            self._answers.append(f'{self._beginning(item)}{shown},"failure_store":"used",{_CREATED}')

    def _refuse(self, item: Item | BadItem | OtherItem, status: int, kind: str, reason: str) -> None:
        self.refused += 1
        rest = _json({"status": status, "error": {"type": kind, "reason": reason}})[1:]
        self._answers.append(f"{self._beginning(item)}{_json(item.id)},{rest}}}")

    def _beginning(self, item: Item | BadItem | OtherItem) -> str:
        beginning = f'{{"{item.operation}":{{"_index":{_json(item.index_name)},"_id":'
        self._beginnings[item.operation, item.index_name] = beginning
        return beginning

    def answer(self, took_ms: int) -> bytes:
        """``errors`` stands before ``items`` and there is no space: senders look for the text (Fluent Bit, Vector)."""
        failed = "true" if self.refused else "false"
        return f'{{"took":{took_ms},"errors":{failed},"items":[{",".join(self._answers)}]}}'.encode()


_CREATED = '"_version":1,"result":"created","status":201}}'


def _json(value: Any) -> str:
    return _JSON.encode(value).decode()


def _named_id(item: Item) -> bytes:
    """The id of a record whose ``_id`` the client gave. No Idempotency-Key can be the same: NUL cannot be sent in one.

    That of an ``index`` action depends on its document, too, since it might be a new one under an old ``_id``, which
    must not vanish.
    """
    key = f"{SOURCE}\0{item.index_name}\0{item.id}"
    if item.operation == "index":
        key += "\0" + hashlib.sha256(jsontext.write(item.document)).hexdigest()
    return records.derived_id(key, 0)


# What clients ask before they send


class RootHandler(ElasticsearchHandler):
    """Who is there: elasticsearch-py's info() and ping(), Beats, Logstash, Vector."""

    def get(self) -> None:
        """200 with a name and a version."""
        version = version_for(self.request)
        name = self.application.options.mongo_db.encode()
        uuid = base64.urlsafe_b64encode(hashlib.sha256(name).digest()[:15]).decode()
        about = {
            "number": version,
            "build_flavor": "default",
            "build_type": "tar",
            "build_hash": "unknown",
            "build_date": "2025-01-01T00:00:00.000Z",
            "build_snapshot": False,
            "lucene_version": "9.12.0",
            "minimum_wire_compatibility_version": version,
            "minimum_index_compatibility_version": version,
        }
        answer = {"name": self.application.options.instance_name, "cluster_name": CLUSTER, "cluster_uuid": uuid}
        # Elastic's clients of 7.14 and before look for the tagline.
        self.answer(200, {**answer, "version": about, "tagline": "You Know, for Search"})

    def head(self) -> None:
        """200: Logstash's health check."""
        self.get()


class LicenseHandler(ElasticsearchHandler):
    """Which features there are: Beats and Logstash."""

    def get(self) -> None:
        """200: the basic ones."""
        about = {"status": "active", "uid": CLUSTER, "type": "basic", "issued_to": CLUSTER, "issuer": CLUSTER}
        self.answer(200, {"license": about})


class XpackHandler(ElasticsearchHandler):
    """Which features there are: Logstash and Beats of 7 and before."""

    def get(self) -> None:
        """200: the basic ones, and index lifecycle management."""
        about = {"uid": CLUSTER, "type": "basic", "mode": "basic", "status": "active"}
        features = {"ilm": {"available": True, "enabled": True}, "security": {"available": True, "enabled": False}}
        self.answer(200, {"build": {}, "license": about, "features": features, "tagline": "You know, for X"})


class HealthHandler(ElasticsearchHandler):
    """Vector's health check; rsyslog's asks for ``HEAD /_cat/health`` (omelasticsearch, healthchecktimeout)."""

    def get(self) -> None:
        """200."""
        counts = dict.fromkeys(("number_of_nodes", "number_of_data_nodes", "active_primary_shards", "active_shards"), 1)
        self.answer(200, {"cluster_name": CLUSTER, "status": "green", "timed_out": False, **counts})

    def head(self) -> None:
        """200."""
        self.get()


class NodesHandler(ElasticsearchHandler):
    """Which nodes there are, for clients that sniff: this one, under the name that the client has used."""

    def get(self) -> None:
        """200."""
        address = self.request.host
        if not re.search(r":\d+$", address):
            address += ":443" if self.request.protocol == "https" else ":80"
        limit = self.application.options.max_body_bytes
        node = {
            "name": self.application.options.instance_name,
            "version": version_for(self.request),
            "roles": ["data", "ingest", "master"],
            "http": {
                "bound_address": [address],
                "publish_address": address,
                "max_content_length_in_bytes": limit,
            },
        }
        counts = {"total": 1, "successful": 1, "failed": 0}
        self.answer(200, {"_nodes": counts, "cluster_name": CLUSTER, "nodes": {CLUSTER: node}})


class SetupHandler(ElasticsearchHandler):
    """Whatever a client wants to be there, or sets up when it is not: it is there, and nothing is set up.

    Beats, Logstash and Fluentd ask for, and put, index templates, lifecycle policies, ingest pipelines, data streams.
    """

    def get(self, name: str = "") -> None:
        """200: it is there."""
        self.answer(200, self.found(name))

    def head(self, name: str = "") -> None:
        """200: it is there."""
        self.get(name)

    def put(self, name: str = "") -> None:
        """200: as if it had been set up."""
        self.answer(200, {"acknowledged": True})

    def found(self, name: str) -> dict[str, Any]:
        """What is told of a thing of that name, or of all when ``name`` is empty."""
        return {name: {"version": 1}} if name else {}


class PolicyHandler(SetupHandler):
    """Lifecycle policies."""

    def found(self, name: str) -> dict[str, Any]:
        """One without phases."""
        return {name: {"version": 1, "policy": {"phases": {}}}} if name else {}


class TemplateHandler(SetupHandler):
    """Index templates."""

    def found(self, name: str) -> dict[str, Any]:
        """One that is for nothing."""
        template = {"name": name, "index_template": {"index_patterns": [], "composed_of": []}}
        return {"index_templates": [template] if name else []}


class DataStreamHandler(SetupHandler):
    """Data streams."""

    def found(self, name: str) -> dict[str, Any]:
        """One without indices."""
        stream = {"name": name, "timestamp_field": {"name": "@timestamp"}, "indices": [], "status": "GREEN"}
        return {"data_streams": [stream] if name else []}


class IndexHandler(SetupHandler):
    """An index: whichever it is, it is there."""


ROUTES = [
    ("/_bulk", BulkHandler),
    ("/_bulk/", BulkHandler),
    ("/([^/_][^/]*)/_bulk", BulkHandler),
    ("/_license", LicenseHandler),
    ("/_xpack", XpackHandler),
    ("/_cluster/health", HealthHandler),
    ("/_cat/health", HealthHandler),
    ("/_nodes/http", NodesHandler),
    ("/_nodes/_all/http", NodesHandler),
    ("/_ilm/policy", PolicyHandler),
    ("/_ilm/policy/([^/]+)", PolicyHandler),
    ("/_index_template", TemplateHandler),
    ("/_index_template/([^/]+)", TemplateHandler),
    ("/_template", SetupHandler),
    ("/_template/([^/]+)", SetupHandler),
    ("/_component_template/([^/]+)", SetupHandler),
    ("/_ingest/pipeline/([^/]+)", SetupHandler),
    ("/_data_stream/([^/]+)", DataStreamHandler),
]
#: Before all others, and only for clients of Elasticsearch: whoever else asks for it gets the route behind.
FIRST_ROUTES = [tornado.routing.Rule(Matches("/"), RootHandler)]
#: Behind all others, and only for clients of Elasticsearch: it would fit every path.
LAST_ROUTES = [tornado.routing.Rule(Matches("/([^/_][^/]*)"), IndexHandler)]
