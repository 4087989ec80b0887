"""Elasticsearch's bulk API: ``POST /_bulk``, an action line and a document line for each record.

``data`` is the document without its ``message``, and with ``_index`` (and ``_id``, where the client gave one): names
that Elasticsearch reserves, so documents have none of their own.

Bad items among good ones go to quarantine, and are answered as Elasticsearch's failure store answers: 201 with
``"failure_store":"used"``. For an error in one item some senders send the whole batch again (Fluent Bit,
plugins/out_es/es.c), others drop it (Vector, src/sinks/elasticsearch/retry.rs).

An ``_id`` makes the record's id, so what is sent again is stored once, and is a success again: whether a record is
there already would take a read for each. Only an ``_id`` that one request creates twice is a version conflict (409).
An ``index`` action replaces nothing: with another document its record is another one, beside the first.

Sources: the guide's pages "Bulk API" and "Failure store".
"""

import asyncio
import functools
import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from .. import errors, jsontext, records
from ..handler import ReceiverHandler
from ..jsonlines import values_of, windows
from ..operations import BOOLEAN, COUNT, TEXT, array_of, json_of, named, object_of, operation, table_of
from . import elasticsearch_probes as probes
from . import fields
from .rows import Bad, Batch, Row, Rows, shared
from .rsyslog import is_rsyslog

SOURCE = "elasticsearch"
#: Action lines that are kept as they were read: most of a request are the same.
KEPT_ACTIONS = 1024
KEPT_BYTES = 256
#: Lines that are looked at before the first of their items is read: of those that are none, more would take too long.
LINES = 2048

_SPACE = b" \t\r"
_ACTIONS = frozenset(("create", "index", "update", "delete"))
#: Where a level is, too: ECS.
_LEVEL_IN = ("log",)
_RESERVED = frozenset(("_index", "_id", "_bulk"))
_TAKEN = "key taken by the action line, own value kept under key#number"


class Action(NamedTuple):
    """What an action line says; ``more`` are its members besides ``_index`` and ``_id``, if there are any."""

    operation: str
    index_name: str
    id: str | None
    more: dict[str, Any] | None

    @property
    def is_supported(self) -> bool:
        """Whether it makes a record."""
        return self.operation in ("create", "index")


class Item(NamedTuple):
    """An action and what it makes of its document, or of each of many: None for one that is not supported."""

    action: Action
    row: Row | Rows | Bad | None


_BAD_ACTION = Action("index", "", None, None)


def parse(body: bytes, index: str = "") -> Iterator[Item]:
    """The items of a bulk body, in their order; ``index`` is that of actions that name none.

    An action line that cannot be read takes the line behind it with it, unless that is an action line. Raises
    Unreadable, at the end, when not one action line can be read.
    """
    reader = _Reader(index)
    for window in windows(body):
        yield from reader.read(window)
    yield from reader.end()
    if not reader.understood:
        raise errors.Unreadable("not one action line can be read" if body.strip() else "request body is required")


class _Reader:
    """Tells action lines from documents, window by window."""

    def __init__(self, index: str) -> None:
        self.understood = False
        self._index = index
        self._actions: dict[bytes, Action] = {}
        self._action: Action | None = None
        self._unknown: bytes | None = None
        self._last = b""

    def read(self, window: bytes) -> Iterator[Item]:
        """The items that end in ``window``, which is whole lines."""
        lines = window.removesuffix(b"\n").split(b"\n")
        for at in range(0, len(lines), LINES):
            part = lines[at : at + LINES]
            together = self._together(part)
            if together is None:
                yield from self._one_by_one(part)
            else:
                yield together

    def _together(self, lines: list[bytes]) -> Item | None:
        """The documents of ``lines`` in columns, where one action line stands before each of them and names none."""
        if self._unknown is not None:
            return None
        if self._action is not None:
            lines = [self._last, *lines]
        line, documents = lines[0], lines[1::2]
        if not documents or {*lines[::2]} != {line}:
            return None
        action = self._actions.get(line) or self._read_action(line)
        if action is None or not action.is_supported or action.id is not None:
            return None
        found = rows_of(action, documents)
        if found is None:
            return None
        self._action, self._last = action if len(lines) % 2 else None, line
        return Item(action, found)

    def _one_by_one(self, lines: list[bytes]) -> Iterator[Item]:
        found: list[tuple[Action, bytes | Bad | None]] = []
        action = self._action
        for line in lines:
            if not line or not line.strip(_SPACE):
                continue
            if action is not None:
                found.append((action, line))
                action = None
                continue
            self._last = line
            action = self._actions.get(line) or self._read_action(line)
            if self._unknown is not None:
                found.append((_BAD_ACTION, _bad_action(self._unknown if action else b"\n".join((self._unknown, line)))))
                self._unknown = None
            elif action is None:
                self._unknown = line
            if action is not None and action.operation == "delete":
                found.append((action, None))
                action = None
        self._action = action
        yield from _items(found)

    def end(self) -> Iterator[Item]:
        """What the end of the body leaves open."""
        if self._action is not None:
            yield Item(self._action, Bad(self._last, "its document is missing"))
        if self._unknown is not None:
            yield Item(_BAD_ACTION, _bad_action(self._unknown))

    def _read_action(self, line: bytes) -> Action | None:
        try:
            value, _ = jsontext.read(line)
        except (errors.Refused, RecursionError):
            return None
        action = _action(value, self._index)
        if action is not None:
            self.understood = True
            if len(line) <= KEPT_BYTES and len(self._actions) < KEPT_ACTIONS:
                self._actions[line] = action
        return action


def _items(found: list[tuple[Action, bytes | Bad | None]]) -> Iterator[Item]:
    lines = [line for _, line in found if type(line) is bytes]
    # A value without notes may still be none that BSON holds: the encoder finds that.
    values = iter(values_of(lines) or map(_read, lines))
    for action, line in found:
        if type(line) is bytes:
            yield Item(action, _row(action, next(values), line))
        else:
            yield Item(action, line if isinstance(line, Bad) else None)


class _Noted(NamedTuple):
    """A document that was read by itself, with its notes; or why it could not be."""

    value: Any
    notes: jsontext.Notes
    problem: str = ""


def _read(line: bytes) -> _Noted:
    try:
        return _Noted(*jsontext.read(line))
    except (errors.Refused, RecursionError) as error:
        reason = str(error) if isinstance(error, errors.Refused) else fields.TOO_DEEP
        return _Noted(None, [], reason.replace("the body", "the line", 1))


def _bad_action(raw: bytes) -> Bad:
    return Bad(raw, "the action line cannot be read")


def _action(value: Any, index: str) -> Action | None:
    """What an action line says, None when it is none."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((operation, given),) = value.items()
    if operation not in _ACTIONS or not isinstance(given, dict):
        return None
    name, own_id = given.get("_index"), given.get("_id")
    if name is not None and not isinstance(name, str):
        return None
    more = {key: each for key, each in given.items() if _says_something(key, each)} or None
    return Action(operation, name or index, own_id if isinstance(own_id, str) else _id_text(own_id), more)


def _says_something(key: str, value: Any) -> bool:
    return value is not None and key not in ("_index", "_id") and (key, value) != ("_type", "_doc")


def _id_text(given: Any) -> str | None:
    # To Elasticsearch a number is as good as its text.
    return None if given is None else jsontext.write(given).decode()


# From documents to records


def _row(action: Action, value: Any, line: bytes) -> Row | Bad | None:
    if not action.is_supported:
        return None
    notes: jsontext.Notes = []
    if type(value) is _Noted:
        if value.problem:
            return Bad(line, value.problem)
        value, notes = value.value, value.notes
    if type(value) is not dict:
        return Bad(line, "a document is a JSON object")
    return row(action, value, notes, line)


def rows_of(action: Action, lines: list[bytes]) -> Rows | None:
    """What ``row`` makes of each of the documents ``lines``; None when one of them has to be looked at by itself."""
    documents = values_of(lines)
    if documents is None or {*map(type, documents)} != {dict}:
        return None
    names: set[str] = set().union(*documents)
    members, notes = _members(action)
    if notes or not names.isdisjoint(_RESERVED):
        return None
    times = _take_times(documents, notes)
    messages = fields.take_texts(documents, names)
    fields.set_levels(documents, names, _LEVEL_IN, notes)
    return None if notes else Rows(messages, documents, times, lines, members)


def _members(action: Action) -> tuple[bytes, jsontext.Notes]:
    """What ``row`` adds to every document of an action that names none, encoded; and notes of that."""
    encoded, notes = shared("_index", action.index_name, plain=True) if action.index_name else (b"", [])
    if action.more is not None:
        more, of_more = shared("_bulk", action.more, plain=True)
        return encoded + more, notes + of_more
    return encoded, notes


def _take_times(documents: list[dict[str, Any]], notes: jsontext.Notes) -> Sequence[int | None]:
    times = fields.plain_moments([document.get("@timestamp") for document in documents])
    if times is None:
        return [_take_time(document, notes) for document in documents]
    for document in documents:
        del document["@timestamp"]
    return times


def row(action: Action, data: dict[str, Any], notes: jsontext.Notes, raw: bytes) -> Row:
    """The record of a document, which becomes its data.

    Its ``@timestamp`` stays there as it was sent, unless ``timestamp`` will say the very same: UTC, three decimals, Z.
    """
    time = _take_time(data, notes)
    message, taken = fields.take_text(data)
    if taken and notes:
        notes = fields.moved(notes, "/data/message")
    fields.set_level(data, notes, data, data.get("log"))
    if action.index_name:
        _set(data, "_index", action.index_name, notes)
    if action.id is not None:
        _set(data, "_id", action.id, notes)
    if action.more is not None:
        _set(data, "_bulk", action.more, notes)
    return Row(message, data, notes, time, raw, b"", b"" if action.id is None else _named_id(action, raw))


def _take_time(data: dict[str, Any], notes: jsontext.Notes) -> int | None:
    given = data.get("@timestamp")
    if type(given) is str and (time := fields.plain_moment(given)) is not None:
        del data["@timestamp"]
        return time
    # Vector writes into timestamp, unless it writes to data streams.
    time = fields.moment(data.get("timestamp") if given is None else given)
    if time is not None:
        fields.keep_fraction(data, time, notes)
    elif given is not None:
        fields.note(notes, "/timestamp", fields.NO_TIME, given)
    return time


def _set(data: dict[str, Any], key: str, value: Any, notes: jsontext.Notes) -> None:
    """Should a document have ``key``, against the rules, its own goes on as key#number."""
    if key in data:
        number = 1
        while f"{key}#{number}" in data:
            number += 1
        data[f"{key}#{number}"] = data.pop(key)
        fields.note(notes, f"/data/{key}#{number}", _TAKEN, key)
    data[key] = value


def _named_id(action: Action, raw: bytes) -> bytes:
    """The id of a record whose ``_id`` the client gave. No Idempotency-Key can be the same: NUL cannot be sent in one.

    That of an ``index`` action depends on its document, too, since it might be a new one under an old ``_id``, which
    must not vanish.
    """
    key = f"{SOURCE}\0{action.index_name}\0{action.id}"
    if action.operation == "index":
        key += "\0" + hashlib.sha256(raw).hexdigest()
    return records.derived_id(key, 0)


# The answer

_FATE = object_of(
    {"_version": COUNT, "result": TEXT, "failure_store": TEXT, "error": object_of(type=TEXT, reason=TEXT)},
    _index=TEXT,
    _id={"type": ["string", "null"]},
    status=COUNT,
)
ANSWER = named("Bulk", object_of(took=COUNT, errors=BOOLEAN, items=array_of(table_of(_FATE))))

#: What becomes of an item that makes no record; of another, its place among the rows.
_UNSUPPORTED, _CONFLICT = -1, -2
_CREATED = '"_version":1,"result":"created","status":201}}'
#: Items that are answered before other requests have their turn.
_TURN = 10_000
_JSON = msgspec.json.Encoder()


class BulkHandler(probes.ElasticsearchHandler, ReceiverHandler):
    """Takes documents."""

    source = SOURCE
    media_types = (
        "application/x-ndjson",
        "application/vnd.elasticsearch+x-ndjson",
        "application/ndjson",
        "application/json",
    )

    @operation({200: json_of(ANSWER)})
    async def post(self, index: str = "") -> None:
        """200 with the fate of each item: 201 taken, 400 an update or delete, 409 created twice in this request."""
        began = time.monotonic()
        fates: list[Fate] = []
        batch = Batch(self)
        await batch.encode(rows(parse(self.body, index), fates))
        if batch.records:
            await self.accept(batch.records)
        refused = len(batch.lost) + sum([fate.place < 0 for fate in fates])
        self.refuse(refused)
        answers = await _answers(batch, fates)
        took = round((time.monotonic() - began) * 1000)
        # ``errors`` stands before ``items`` and there is no space: senders look for the text (Fluent Bit, Vector).
        failed = "true" if refused else "false"
        self.write_json(200, f'{{"took":{took},"errors":{failed},"items":[{",".join(answers)}]}}'.encode())

    @operation({200: json_of(ANSWER)})
    async def put(self, index: str = "") -> None:
        """The same as POST."""
        await self.post(index)

    def write_problem(self, problem: dict[str, Any], error: BaseException | None) -> None:
        """Answer as Elasticsearch does; what rsyslog may send again gets no answer, but the end of the connection.

        rsyslog looks at no status. An answer without items is a failure for good to it, and only where there is none
        does it keep what it has sent, and comes again (plugins/omelasticsearch/omelasticsearch.c, curlPost).
        """
        if isinstance(error, errors.Unavailable) and is_rsyslog(self.request):
            cast(Any, self.request.connection).stream.close()
        else:
            super().write_problem(problem, error)


class Fate(NamedTuple):
    """What becomes of ``many`` items of an action: the place of the first of them among the rows, if they make any."""

    action: Action
    place: int
    many: int = 1


def rows(items: Iterator[Item], fates: list[Fate]) -> Iterator[Row | Rows | Bad | None]:
    """The rows of ``items``, None for one that makes no record; ``fates`` is filled with their places."""
    created: set[bytes] = set()
    place = 0
    for action, row in items:
        if row is None:
            fates.append(Fate(action, _UNSUPPORTED))
            yield None
            continue
        if action.id is not None and action.operation == "create" and type(row) is Row:
            if row.id in created:
                fates.append(Fate(action, _CONFLICT))
                yield None
                continue
            created.add(row.id)
        count = len(row.raws) if type(row) is Rows else 1
        fates.append(Fate(action, place, count))
        place += count
        yield row


async def _answers(batch: Batch, fates: list[Fate]) -> list[str]:
    answers: list[str] = []
    told = 0
    for fate in fates:
        answers.append(answer(batch, fate))
        told += fate.many
        if told >= _TURN:
            await asyncio.sleep(0)
            told = 0
    return answers


def answer(batch: Batch, fate: Fate) -> str:
    """The JSON text of what became of an item, or of those of many with commas between."""
    action, place, count = fate
    if count == 1 or not batch.rejected.keys().isdisjoint(range(place, place + count)):
        return ",".join([_answer(batch, action, each) for each in range(place, place + count)])
    # A text that stands between two ids in hex, all of which have one length, makes the answers of them all.
    ids = b"".join(batch.ids[place : place + count]).hex(",", len(batch.ids[place]))
    beginning = _beginning(action.operation, action.index_name)
    between = f'",{_CREATED},{beginning}"'
    return f'{beginning}"{ids.replace(",", between)}",{_CREATED}'


def _answer(batch: Batch, action: Action, place: int) -> str:
    beginning = _beginning(action.operation, action.index_name)
    if place == _UNSUPPORTED:
        reason = f"{action.operation} is not supported: a record that is taken is not changed any more"
        return f"{beginning}{_refusal(action, 400, 'illegal_argument_exception', reason)}"
    if place == _CONFLICT:
        reason = f"[{action.id}]: version conflict, document already exists"
        return f"{beginning}{_refusal(action, 409, 'version_conflict_engine_exception', reason)}"
    if place in batch.lost:
        reason = batch.rejected[place]
        return f"{beginning}{_refusal(action, 400, 'document_parsing_exception', reason)}"
    shown = f'"{batch.ids[place].hex()}"' if action.id is None else _json(action.id)
    used = '"failure_store":"used",' if place in batch.rejected else ""
    return f"{beginning}{shown},{used}{_CREATED}"


@functools.lru_cache(maxsize=1024)
def _beginning(operation: str, index: str) -> str:
    return f'{{"{operation}":{{"_index":{_json(index)},"_id":'


def _refusal(action: Action, status: int, kind: str, reason: str) -> str:
    rest = _json({"status": status, "error": {"type": kind, "reason": reason}})[1:]
    return f"{_json(action.id)},{rest}}}"


def _json(value: Any) -> str:
    return _JSON.encode(value).decode()


ROUTES = [
    ("/_bulk", BulkHandler),
    ("/_bulk/", BulkHandler),
    ("/(?P<index>[^/_][^/]*)/_bulk", BulkHandler),
    *probes.ROUTES,
]
