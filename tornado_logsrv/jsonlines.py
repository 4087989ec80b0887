"""Bodies of many JSON values, read as they arrive: a JSON array, or NDJSON (a value a line).

Values come in blocks. A block is decoded in one call where that loses nothing, and value by value with jsontext
where it might; what a value becomes is what ``jsontext.read`` makes of its text, whichever way it went.

A block is taken to lose nothing when no key stood twice in an object, for the decoder keeps the last of them and does
not say so. ``keeps_every_key`` finds that by counting.
"""

import codecs
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from . import jsontext
from .errors import Refused, TooLarge, Unreadable
from .jsonends import Broken, Ends, is_cut_off
from .records import MAX_RECORD_BYTES

#: An array up to this long is decoded at once, a longer one in windows of about this: no longer than others may wait.
WINDOW_BYTES = 1 << 18
#: What ``windows`` cuts lines into.
LINES_BYTES = 1 << 18
#: So much of a line is looked for objects when there is no more: they may be of two bytes, and 30,000 then.
_BEGUN_BYTES = 1 << 16
#: Objects of one line that are decoded together, and how many a line may have where they are found one by one.
_TOGETHER, _MOST_OBJECTS = 1000, 100_000
#: What a window that holds not one whole value grows by at the most.
GROWTH_BYTES = 4 << 20

_BOM = codecs.BOM_UTF8
_SPACE = b" \t\r\n"
_OPENERS = frozenset(b'{["-0123456789tfn')
_CLOSERS = frozenset(b'}]"0123456789el')
#: How the first value of an array begins: an object with all up to the colon of its first key.
_BEGINNING = re.compile(rb'\[\s*(\{\s*"[^"\\]{1,64}"\s*:|.)', re.DOTALL)
_ENDINGS = {b"{": b"},", b"[": b"],", b'"': b'",'}
_SKIP = re.compile(r"[ \t\r\n]*")
_TOO_DEEP = "nested deeper than this server reads"

_JSON = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()
_RAWS = msgspec.json.Decoder(msgspec.Raw)
_first_byte = operator.itemgetter(0)
_last_byte = operator.itemgetter(-1)
#: What decoding, and encoding again, raises of texts that are not JSON or that only jsontext reads.
_NOT_AT_ONCE = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, TooLarge)


@dataclass(frozen=True, slots=True)
class BadLine:
    """An item that is no value: where it stands among the items of the body, its line (from 1), its text and why."""

    index: int
    line: int
    raw: bytes
    reason: str


@dataclass(slots=True)
class Block:
    """Items of a body that stand one after the other; ``first`` is the index in the body of the first of them.

    ``indexes`` has the index in the body of each of the ``values``; ``notes`` those of jsontext.read for the few that
    have some, by place in ``values``; ``bad`` the items that are no values.
    """

    first: int
    values: list[Any] = field(default_factory=list)
    indexes: Sequence[int] = ()
    notes: dict[int, jsontext.Notes] = field(default_factory=dict)
    bad: list[BadLine] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many items these are, good and bad."""
        return len(self.values) + len(self.bad)


class ValuesReader:
    """Reads one body. ``ndjson`` is what its media type says: True NDJSON, False an array, None that it may be both.

    With None, a body that begins with ``[`` is an array. A value of NDJSON does not go over lines; several objects
    may share one, with or without space between them. Empty lines are none, and a byte order mark is read past.

    What ``feed`` and ``end`` give is to be taken to the last block before the next call. They
    raise Unreadable when an array is broken or a body empty that may not be, and TooLarge when a value, or a line, is
    longer than MAX_RECORD_BYTES. Blocks given before that stand, so whoever takes all of a body or nothing has to keep
    them. After an exception the reader is of no further use.
    """

    def __init__(self, ndjson: bool | None = None, window_bytes: int = WINDOW_BYTES) -> None:
        self._ndjson = ndjson
        self._window_bytes = window_bytes
        self._head = b""
        self._at_start = True
        self._place = _Place()
        self._reader: _Lines | _Array | None = None

    @property
    def held(self) -> int:
        """How many bytes of the body are kept until more arrive."""
        return len(self._head) if self._reader is None else self._reader.held

    def feed(self, piece: bytes) -> Iterator[Block]:
        """The items that are whole now that ``piece`` has arrived: none, often."""
        if self._reader is None:
            piece = self._begin(self._head + piece, final=False)
        if self._reader is not None:
            yield from self._reader.feed(piece)

    def end(self) -> Iterator[Block]:
        """The items that only the end of the body made whole."""
        if self._reader is None:
            rest = self._begin(self._head, final=True)
            if self._reader is not None:
                yield from self._reader.feed(rest)
        if self._reader is not None:
            yield from self._reader.end()
        elif not self._ndjson:
            raise Unreadable("the body is empty")

    def _begin(self, head: bytes, final: bool) -> bytes:
        """Read past what is before the first item, and choose how to read once that is there."""
        if self._at_start and len(head) < len(_BOM) and _BOM.startswith(head) and not final:
            self._head = head
            return b""
        if self._at_start and head.startswith(_BOM):
            head = head[len(_BOM) :]
            self._place.offset = len(_BOM)
        self._at_start, self._head = False, b""
        body = head.lstrip(_SPACE)
        self._place.pass_over(head[: len(head) - len(body)])
        if body:
            self._reader = self._chosen(body[:1])
        return body

    def _chosen(self, first: bytes) -> "_Lines | _Array":
        if self._ndjson or (self._ndjson is None and first != b"["):
            return _Lines(self._place)
        if first != b"[":
            raise Unreadable(f"the body is not a JSON array: it begins with {ascii(first)[1:]}")
        return _Array(self._place, self._window_bytes)


class _Place:
    """How far a body has been read: in items, in lines and in bytes."""

    def __init__(self) -> None:
        self.item = 0
        self.line = 1
        self.offset = 0

    def pass_over(self, text: bytes, items: int = 0, lines: int | None = None) -> None:
        self.item += items
        self.line += text.count(b"\n") if lines is None else lines
        self.offset += len(text)


def _block(place: _Place, values: list[Any]) -> Block:
    return Block(place.item, values, range(place.item, place.item + len(values)))


class _Slowly:
    """A block that is put together item by item."""

    def __init__(self, first: int) -> None:
        self._indexes: list[int] = []
        self.block = Block(first, indexes=self._indexes)

    def read(self, text: bytes) -> None:
        """Add the value of the JSON ``text``; raises Refused when it is none that can be kept."""
        try:
            value, notes = jsontext.read(text)
        except RecursionError:
            raise Unreadable(f"the body is {_TOO_DEEP}") from None
        if notes:
            self.block.notes[len(self._indexes)] = notes
        self._indexes.append(self.block.first + self.block.count)
        self.block.values.append(value)

    def read_or_tell(self, text: bytes, line: int) -> None:
        """Add the value of ``text``, or what is wrong with it."""
        try:
            self.read(text)
        except Refused as error:
            self.tell(error, text, line, "the value")

    def tell(self, error: Refused, text: bytes, line: int, what: str) -> None:
        """Add a bad item. jsontext speaks of a body, and of lines in it: to it, that was all of ``text``."""
        reason = str(error).replace("the body", what, 1).replace(": line 1 column", ": column", 1)
        self.block.bad.append(BadLine(self.block.first + self.block.count, line, text, reason))


class _Lines:
    """Reads NDJSON."""

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._rest: list[bytes] = []
        #: What is held of a line before it is looked for objects in it.
        self._wanted = _BEGUN_BYTES
        self.held = 0

    def feed(self, piece: bytes) -> Iterator[Block]:
        cut = piece.rfind(b"\n") + 1
        if cut:
            yield from self._read(b"".join([*self._rest, piece[:cut]]))
        self._keep(piece[cut:])
        if self.held > self._wanted:
            yield from self._read_begun()

    def end(self) -> Iterator[Block]:
        return self._read(b"".join([*self._rest, b"\n"]))

    def _keep(self, rest: bytes) -> None:
        self._rest.append(rest)
        self.held += len(rest)
        if self.held > MAX_RECORD_BYTES:
            raise _line_too_long(self._place.line)

    def _read(self, text: bytes) -> Iterator[Block]:
        """The items of ``text``, which are whole lines."""
        self._rest.clear()
        self.held, self._wanted = 0, _BEGUN_BYTES
        for window in windows(text):
            # Longer than others, it is one line.
            objects = _many_objects(window) if len(window) > jsontext.SPARSE_BYTES else []
            if len(objects) > 1:
                yield from self._of_one_line(objects)
            else:
                yield self._window(window)

    def _read_begun(self) -> Iterator[Block]:
        """The objects that a line begins with, if it is one of many: it may be the whole body."""
        line = b"".join(self._rest)
        cut = line.rfind(b"}{") + 1
        # What is valid before a cut ends there.
        values = _objects_at_once(line[:cut]) if line.startswith(b"{") and cut else None
        if values is None:
            self._rest, self._wanted = [line], 2 * self.held
            return
        block = _block(self._place, values)
        self._place.pass_over(line[:cut], block.count)
        self._rest, self.held, self._wanted = [line[cut:]], len(line) - cut, _BEGUN_BYTES
        yield block

    def _window(self, text: bytes) -> Block:
        if len(text) > MAX_RECORD_BYTES + 1:
            raise _line_too_long(self._place.line)
        values, lines = _lines_at_once(text)
        block = self._line_by_line(text) if values is None else _block(self._place, values)
        self._place.pass_over(text, block.count, lines)
        return block

    def _line_by_line(self, text: bytes) -> Block:
        slowly = _Slowly(self._place.item)
        for number, line in enumerate(text[:-1].split(b"\n"), self._place.line):
            stripped = line.strip(_SPACE)
            if stripped:
                _read_line(slowly, stripped, line.removesuffix(b"\r"), number)
        return slowly.block

    def _of_one_line(self, objects: Sequence[bytes]) -> Iterator[Block]:
        for start in range(0, len(objects), _TOGETHER):
            part = objects[start : start + _TOGETHER]
            values = values_of(part)
            block = self._each(part) if values is None else _block(self._place, values)
            self._place.pass_over(b"", block.count)
            yield block
        self._place.pass_over(b"\n")

    def _each(self, texts: Sequence[bytes]) -> Block:
        slowly = _Slowly(self._place.item)
        for text in texts:
            slowly.read_or_tell(bytes(text), self._place.line)
        return slowly.block


def _line_too_long(number: int) -> TooLarge:
    return TooLarge(f"line {number} of the body is over {MAX_RECORD_BYTES} bytes, the most that a record can have")


def _read_line(slowly: _Slowly, stripped: bytes, line: bytes, number: int) -> None:
    try:
        slowly.read(stripped)
    except Refused as error:
        objects = _objects(stripped)
        if len(objects) < 2:
            slowly.tell(error, line, number, "the line")
            return
        for text in objects:
            slowly.read_or_tell(text, number)


def _objects(line: bytes) -> list[bytes]:
    """The objects that ``line`` is made of, one after the other; none when that is not what it is, or they are many."""
    objects: list[bytes] = []
    try:
        text = line.decode()
        ends, start = Ends(text), 0
        while text.startswith("{", start) and len(objects) <= _MOST_OBJECTS:
            end = ends.of(start)
            objects.append(text[start:end].encode())
            start = _skip(text, end)
    except (ValueError, RecursionError, TooLarge):
        return []
    return objects if start == len(text) else []


def _many_objects(line: bytes) -> list[Any]:
    """What _objects finds, of a long line that may have more values than a record, and does not have odd ones."""
    try:
        jsontext.check_values(line)
    except TooLarge:
        try:
            jsontext.check_body(line)
            found = _RAWS.decode_lines(line)
        except _NOT_AT_ONCE:
            return []
        return found if all(memoryview(each)[0] == ord("{") for each in found) else []
    return []


def _skip(text: str, at: int) -> int:
    return _SKIP.match(text, at).end()  # type: ignore[union-attr]  # matches always


def windows(body: bytes) -> Iterator[bytes]:
    """``body`` in pieces of whole lines, each about as long as takes no longer to read than others may wait."""
    start = 0
    while start < len(body):
        end = body.rfind(b"\n", start, start + LINES_BYTES) + 1 or body.find(b"\n", start) + 1 or len(body)
        yield body[start:end]
        start = end


def values_of(lines: Sequence[bytes]) -> list[Any] | None:
    """The value of each of ``lines``, which are not empty; None when they have to be read one by one."""
    values, _ = _lines_at_once(b"\n".join([*lines, b""]))
    return values if values is not None and len(values) == len(lines) else None


def _objects_at_once(objects: bytes) -> list[Any] | None:
    """The values of ``objects``, which stand one after the other; None when they have to be read one by one."""
    values, _ = _lines_at_once(objects + b"\n")
    return values if values and {*map(type, values)} == {dict} else None


def _lines_at_once(text: bytes) -> tuple[list[Any] | None, int | None]:
    """The values of whole lines, None when they have to be read one by one; and how many lines, if that is known."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    try:
        if len(text) > jsontext.SPARSE_BYTES:
            jsontext.check_values(text)
        values = _JSON.decode_lines(text)
        if not values:
            return values, None
        # Most clients write as the encoder does. Then one comparison says it all.
        written = _ENCODER.encode_lines(values) if text.startswith(_ENCODER.encode(values[0])) else b""
        if written == text:
            return values, len(values)
        lines = text[:-1].split(b"\n")
        if _lines_are_whole(lines, values) and keeps_every_key(text, values, written):
            return values, len(lines)
    except _NOT_AT_ONCE:
        pass
    return None, None


def _lines_are_whole(lines: list[bytes], values: list[Any]) -> bool:
    """Whether no value goes over lines and none but objects share one, in ``lines`` that decode_lines reads.

    The decoder takes values with any space between. Inside of a value, an end of line has an opening bracket, a comma
    or a colon before it, or a closing bracket, a comma or a colon behind.
    """
    if not all(lines) or not _begin_and_end(lines):
        lines = [stripped for line in lines if (stripped := line.strip(_SPACE))]
        if not _begin_and_end(lines):
            return False
    return len(lines) == len(values) or set(map(type, values)) == {dict}


def _begin_and_end(lines: list[bytes]) -> bool:
    return _OPENERS.issuperset(map(_first_byte, lines)) and _CLOSERS.issuperset(map(_last_byte, lines))


def keeps_every_key(text: bytes, values: list[Any], written: bytes = b"") -> bool:
    """Whether the decoded ``values`` have all keys of ``text``; ``written`` is them encoded again, if that is known.

    May be False although they have.
    """
    if not written and _is_flat(text, values):
        return True
    # Colons of objects are written again one by one, and so are those in strings, but for escaped ones.
    if b"\\" in text and (b"\\u003a" in text or b"\\u003A" in text):
        return False
    return (written or _ENCODER.encode(values)).count(b":") == text.count(b":")


def _is_flat(text: bytes, values: list[Any]) -> bool:
    # Each key of the text has a quote and a colon behind it, also where space is put between. When there are no more
    # of those than keys in the outermost objects, no key was lost and there are no others.
    if set(map(type, values)) != {dict} or dict in map(type, values[0].values()):
        return False
    return text.translate(None, _SPACE).count(b'":') == sum(map(len, values))


class _Array:
    """Reads a JSON array.

    What has arrived is cut before a comma of the outermost level and closed with a bracket: that is a valid array
    exactly when the comma is one of that level. So commas are tried that are likely to be. When it is none of them,
    a scan finds the last one. The window that was cut off goes on with a bracket in place of the comma.

    A value that is longer than a window is not looked for again before twice as much is there, so that every byte is
    looked at only a few times, however long the values are.
    """

    def __init__(self, place: _Place, window_bytes: int) -> None:
        self._place = place
        self._window_bytes = window_bytes
        self._most = window_bytes + WINDOW_BYTES // 2
        self._wanted = window_bytes
        self._pieces: list[bytes] = []
        self._stuck = False
        self._ended = False
        self.held = 0

    def feed(self, piece: bytes) -> Iterator[Block]:
        if self._ended:
            self._nothing_more(piece)
            return
        self._pieces.append(piece)
        self.held += len(piece)
        while self.held > self._wanted and not self._ended:
            yield self._read(final=False)

    def end(self) -> Iterator[Block]:
        while not self._ended:
            yield self._read(final=True)

    def _nothing_more(self, text: bytes) -> None:
        more = text.lstrip(_SPACE)
        if more:
            problem = "something stands behind its end (NDJSON is application/x-ndjson)"
            raise self._unreadable(problem, text, len(text) - len(more))
        self._place.pass_over(text)

    def _read(self, final: bool) -> Block:
        held = b"".join(self._pieces)
        window = held if self._stuck else held[: self._most]
        final = final and len(window) == len(held)
        # A value that is longer than a window has to be looked at by itself.
        values, cut = (None, 0) if self._stuck else _array_at_once(window, final)
        if values is None:
            block, cut = self._by_scan(window, final, in_doubt=cut > 0)
        else:
            block, self._ended = _block(self._place, values), final
        self._take(block, held, cut, is_all=len(window) == len(held))
        return block

    def _by_scan(self, window: bytes, final: bool, in_doubt: bool) -> tuple[Block, int]:
        """What is in ``window``, up to where; ``in_doubt`` when it is known to have to be read one by one."""
        text = self._text(window, final)
        scan = _scan(text, may_be_empty=self._place.item == 0, most=self._most)
        if scan.problem and (final or not is_cut_off(scan.problem, scan.at, text)):
            raise self._unreadable(scan.problem, window, len(text[: scan.at].encode()))
        self._ended = scan.ended
        cut = len(text[: scan.cut].encode())
        closed = window[: cut - scan.ended] + b"]"
        values = None if in_doubt or cut > jsontext.SPARSE_BYTES else _array_values(closed)[0]
        return self._one_by_one(text, scan.spans) if values is None else _block(self._place, values), cut

    def _one_by_one(self, text: str, spans: list[tuple[int, int]]) -> Block:
        slowly = _Slowly(self._place.item)
        line, counted = self._place.line, 0
        for item, (start, end) in enumerate(spans, self._place.item):
            line, counted = line + text.count("\n", counted, start), start
            raw = text[start:end].encode()
            if len(raw) > MAX_RECORD_BYTES:
                raise _value_too_long(item)
            slowly.read_or_tell(raw, line)
        return slowly.block

    def _take(self, block: Block, held: bytes, cut: int, is_all: bool) -> None:
        """``block`` was in ``held`` up to ``cut``; keeps the rest. ``is_all``: no more is there to be looked at."""
        self._place.pass_over(held[:cut], block.count)
        self._pieces.clear()
        self.held = 0
        rest = held[cut:]
        if self._ended:
            self._nothing_more(rest)
            return
        self._stuck = block.count == 0
        if self._stuck and is_all:
            self._check_length(rest)
        self._pieces.append(b"[" + rest[1:])
        self.held = len(rest)
        self._wanted = self.held + min(self.held, GROWTH_BYTES) if self._stuck and is_all else self._window_bytes

    def _check_length(self, value: bytes) -> None:
        too_long = len(value) > MAX_RECORD_BYTES and len(value[1:].strip(_SPACE)) > MAX_RECORD_BYTES
        if too_long or len(value) > 2 * MAX_RECORD_BYTES:
            raise _value_too_long(self._place.item)

    def _text(self, window: bytes, final: bool) -> str:
        try:
            return codecs.utf_8_decode(window, "strict", final)[0]
        except UnicodeDecodeError as error:
            problem = f"not UTF-8 (0x{window[error.start]:02x})"
            raise self._unreadable(problem, window, error.start) from None

    def _unreadable(self, problem: str, window: bytes, at: int) -> Unreadable:
        line = self._place.line + window.count(b"\n", 0, at)
        return Unreadable(f"the body is not a JSON array: {problem}: line {line}, byte {self._place.offset + at}")


def _value_too_long(item: int) -> TooLarge:
    return TooLarge(f"value {item} of the body is over {MAX_RECORD_BYTES} bytes, the most that a record can have")


def _array_at_once(window: bytes, final: bool) -> tuple[list[Any] | None, int]:
    """The values of ``window`` up to a cut, and the cut; 0 when none is found, None when the values are in doubt."""
    for cut in [len(window)] if final else _likely_cuts(window):
        values, decoded = _array_values(window if final else window[:cut] + b"]")
        if decoded:
            return values, cut
    return None, 0


def _likely_cuts(window: bytes) -> Iterator[int]:
    """Where commas between values are likely to be, in the second half of ``window``."""
    match = _BEGINNING.match(window)
    if match is None:
        return
    beginning = match[1]
    before = len(window[: max(0, window.rfind(beginning))].rstrip(_SPACE)) - 1 if len(beginning) > 1 else 0
    if before > len(window) // 2 and window[before] == ord(","):
        yield before
    ending = _ENDINGS.get(beginning[:1], b",")
    last = window.rfind(ending) + len(ending) - 1
    if last > len(window) // 2 and last != before:
        yield last


def _array_values(text: bytes) -> tuple[list[Any] | None, bool]:
    """The values of an array, None when they are in doubt; and whether ``text`` is an array that has some."""
    values: list[Any] = []
    try:
        values = _JSON.decode(text)
        if not values:
            return None, False
        written = _ENCODER.encode(values) if text.startswith(_ENCODER.encode(values[0]), 1) else b""
        if written == text or keeps_every_key(text, values, written):
            return values, True
    except _NOT_AT_ONCE:
        pass
    return None, bool(values)


@dataclass(slots=True)
class _Scan:
    """What a scan has found: where values begin and end, where to cut behind them, whether the array ends there.

    ``problem`` says what is wrong behind them, ``at`` the place ``at``.
    """

    spans: list[tuple[int, int]] = field(default_factory=list)
    cut: int = 0
    ended: bool = False
    problem: str = ""
    at: int = 0


def _scan(text: str, may_be_empty: bool, most: int) -> _Scan:
    """Go through the array that ``text`` begins with, value by value, up to the end of one behind ``most``.

    Raises TooLarge when one of them may have too many values to find its end.
    """
    scan, ends = _Scan(at=_skip(text, 1)), Ends(text)
    if may_be_empty and text.startswith("]", scan.at):
        scan.cut, scan.ended = scan.at + 1, True
    try:
        while not scan.ended and not scan.problem and (scan.at <= most or not scan.spans):
            _scan_value(text, ends, scan)
    except Broken as error:
        scan.problem, scan.at = error.msg, error.pos
    except RecursionError:
        scan.problem = _TOO_DEEP
    return scan


def _scan_value(text: str, ends: Ends, scan: _Scan) -> None:
    end = ends.of(scan.at)
    behind = _skip(text, end)
    if not text.startswith((",", "]"), behind):
        scan.problem, scan.at = "Expecting ',' or ']'", behind
        return
    scan.spans.append((scan.at, end))
    scan.ended = text[behind] == "]"
    scan.cut = behind + scan.ended
    scan.at = _skip(text, behind + 1)
