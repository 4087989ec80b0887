"""JSON text to values that BSON can hold, and documents to JSON text, both without loss.

What JSON allows and BSON does not is made storable, and each change is a note:

    {"path": "/data/a/0", "change": "…", "original": "…"}

``path`` is a JSON Pointer (RFC 6901) into the stored document and ``original`` the JSON text of what was sent.
"""

import base64
import datetime
import decimal
import json
import math
from typing import Any

import bson.json_util
import msgspec
from bson import Binary, Decimal128, ObjectId

from .errors import TooLarge, Unreadable

#: MongoDB holds 100 levels (manual, "MongoDB Limits and Thresholds"): the document and ``data`` take two.
MAX_DEPTH = 98
#: One request cannot make the server hold more notes than this for one record.
MAX_NOTES = 1000
#: Digits a Decimal128 holds exactly (IEEE 754-2008 decimal128).
DECIMAL_DIGITS = 34

#: Values of one record at the most: an empty object takes three bytes of a body, fifty of memory, and time in which
#: nobody else is served.
MAX_VALUES = 250_000
#: A text up to this long cannot have more: each value takes two bytes at least.
SPARSE_BYTES = 2 * MAX_VALUES
#: Values of a body whose records are read one by one, and found by going through all of it once: so many, and more in
#: one of which each takes some bytes.
MAX_BODY_VALUES = 8 * MAX_VALUES
BYTES_A_VALUE = 8

_INT64 = range(-(1 << 63), 1 << 63)
Notes = list[dict[str, str]]

_DECODER = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()


#: A value has one of these before it, or is the first.
_MARKS = b",{["
_NO_MARKS = bytes(set(range(256)).difference(_MARKS))
_NO_MARKS_OR_QUOTES = bytes(set(range(256)).difference(_MARKS + b'"'))


def check_values(text: bytes | msgspec.Raw, most: int = MAX_VALUES) -> None:
    """Raises TooLarge when the JSON ``text``, which is about to be read in one go, has more than ``most`` values.

    That is told by what stands before values, and costs nothing where the text is too short for so many.
    """
    if len(text) <= 2 * most:
        return
    text = bytes(text)
    # What stands in strings is before no value.
    if len(text.translate(None, _NO_MARKS)) > most and _marks_outside_strings(text, most) > most:
        raise TooLarge(f"more than {most} JSON values, the most that are read in one go")


def check_body(text: bytes) -> None:
    """Raises TooLarge when it would take too long to find the records in ``text``, a body of JSON."""
    check_values(text, max(MAX_BODY_VALUES, len(text) // BYTES_A_VALUE))


def _marks_outside_strings(text: bytes, most: int) -> int:
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = text.translate(None, _NO_MARKS_OR_QUOTES)
    # Two quotes for a string, and at most every other string is a key: very many of them are very many values.
    strings = marks.count(b'"') // 2
    return strings // 2 if strings // 2 > most else sum(map(len, marks.split(b'"')[::2]))


class _Repeated(dict[str, Any]):
    """An object in which a key stood more than once; the earlier values stand under ``key#1``, ``key#2``, …"""

    repeated: list[str]


class _LongNumber(str):
    """The digits of a number that only text can hold."""


def read(body: bytes) -> tuple[Any, Notes]:
    """The value of the JSON text ``body``, and notes of what was changed to make it storable.

    Integers are exact and no value of a repeated key is lost. A value without notes may still be one that BSON
    cannot hold (its encoder says so, and ``storable`` mends it): looking for that here would cost every record.
    Raises Unreadable, saying where and why, when ``body`` is not one JSON value in UTF-8.
    """
    value, plain = decode(body)
    return (value, []) if plain else storable(value)


def decode(body: bytes, errors: str = "strict") -> tuple[Any, bool]:
    """The value of the JSON text ``body`` as it is, and whether it is plain; ``storable`` has to see one that is not.

    With ``errors`` "surrogateescape", bytes that are not UTF-8 become lone surrogates (PEP 383). Raises Unreadable, and
    TooLarge when there are more than MAX_VALUES values, or an object repeats more than MAX_NOTES keys.
    """
    if len(body) > SPARSE_BYTES:
        check_values(body)
    try:
        value = _DECODER.decode(body)
        plain = not _may_repeat_keys(body, value)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        plain = False
    return (value, True) if plain else (_read_exactly(body, errors), False)


def _may_repeat_keys(body: bytes, value: Any) -> bool:
    # The fast decoder keeps the last of equal keys and does not say so. Most clients write as the encoder does: then
    # one comparison tells that no key was lost. Written again, a text without repeated keys has as many colons as
    # before, but for escaped ones; counting is a fraction of what a hook for every object costs.
    if type(value) is not dict and type(value) is not list:
        return False
    written = _ENCODER.encode(value)
    if written == body:
        return False
    if b"\\" in body and (b"\\u003a" in body or b"\\u003A" in body):
        return True
    return written.count(b":") != body.count(b":")


def _read_exactly(body: bytes, errors: str) -> Any:
    try:
        text = body.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise Unreadable(f"the body is not UTF-8: byte {error.start} (0x{body[error.start]:02x})") from None
    if not text.strip(" \t\r\n"):
        raise Unreadable("the body is empty")
    try:
        return json.loads(text, object_pairs_hook=from_pairs, parse_int=_integer, parse_float=_float)
    except json.JSONDecodeError as error:
        raise Unreadable(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise Unreadable("the body is nested deeper than this server reads") from None


def from_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of ``pairs``; where a key stands more than once, ``storable`` has to see it.

    Raises TooLarge when more than MAX_NOTES do.
    """
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    return _with_repeated_keys(pairs)


def _with_repeated_keys(pairs: list[tuple[str, Any]]) -> _Repeated:
    result = _Repeated()
    result.repeated = []
    for key, value in pairs:
        if key in result:
            # Each takes a search for a free name: many would take for ever, and they could not be noted either.
            if len(result.repeated) == MAX_NOTES:
                raise TooLarge(f"more than {MAX_NOTES} repeated keys in one object")
            result[_free_key(key + "#1", result)] = result.pop(key)
            result.repeated.append(key)
        result[key] = value
    return result


def _free_key(wanted: str, taken: dict[str, Any]) -> str:
    stem, _, number = wanted.rpartition("#")
    count = int(number)
    while f"{stem}#{count}" in taken:
        count += 1
    return f"{stem}#{count}"


def _integer(digits: str) -> int | _LongNumber:
    is_short = len(digits) <= DECIMAL_DIGITS or len(digits.lstrip("-")) <= DECIMAL_DIGITS
    return int(digits) if is_short else _LongNumber(digits)


def _float(digits: str) -> float | _LongNumber:
    value = float(digits)
    return _LongNumber(digits) if math.isinf(value) else value


#: Where a value stands: the place of what it is in, and its key or index there; the outermost has a JSON Pointer.
_Place = str | tuple["_Place", str | int]


def storable(value: Any, path: str = "/data") -> tuple[Any, Notes]:
    """``value`` with everything BSON cannot hold replaced, and the notes that say what was.

    Raises TooLarge when there would be more than MAX_NOTES of them, Unreadable when not even text can hold its depth.
    """
    notes: Notes = []
    try:
        return _storable(value, path, 0, notes), notes
    except RecursionError:
        raise Unreadable("the body is nested deeper than this server reads") from None


def _note(notes: Notes, place: _Place, change: str, original: Any) -> None:
    if len(notes) == MAX_NOTES:
        raise TooLarge(f"more than {MAX_NOTES} values in one record that MongoDB cannot hold as they are")
    text = original if isinstance(original, _LongNumber) else json.dumps(original)
    path = _pointer(place).encode("utf-8", "backslashreplace").decode()
    notes.append({"path": path, "change": change, "original": text})


def _pointer(place: _Place) -> str:
    steps: list[str] = []
    while isinstance(place, tuple):
        place, step = place
        steps.append(str(step).replace("~", "~0").replace("/", "~1"))
    return "/".join([place, *reversed(steps)])


def _storable(value: Any, place: _Place, depth: int, notes: Notes) -> Any:
    # Most values are such, and there may be very many.
    if type(value) is int:
        if value in _INT64:
            return value
    elif type(value) is str:
        if value.isascii():
            return value
    elif value is None or value is True or value is False:
        return value
    if isinstance(value, (dict, list)):
        return _storable_container(value, place, depth, notes)
    if isinstance(value, _LongNumber):
        _note(notes, place, "number beyond Decimal128 kept as text", value)
        return str(value)
    if isinstance(value, str):
        return _storable_text(value, place, "lone surrogate written as an escape", notes)
    if isinstance(value, int) and value not in _INT64:
        return _storable_integer(value, place, notes)
    if isinstance(value, float) and not math.isfinite(value):
        _note(notes, place, "not a JSON number, kept as a BSON double", value)
    return value


def _storable_container(value: Any, place: _Place, depth: int, notes: Notes) -> Any:
    if depth == MAX_DEPTH:
        _note(notes, place, f"nested over {MAX_DEPTH} levels deep, kept as JSON text", None)
        return json.dumps(value)
    if isinstance(value, list):
        return [_storable(item, (place, index), depth + 1, notes) for index, item in enumerate(value)]
    if isinstance(value, _Repeated):
        for key in value.repeated:
            _note(notes, (place, key), "key repeated, earlier value kept under key#number", key)
    result: dict[str, Any] = {}
    for key, item in value.items():
        is_plain = key.isascii() and "\0" not in key and key not in result
        stored = key if is_plain else _storable_key(key, place, result, notes)
        result[stored] = _storable(item, (place, stored), depth + 1, notes)
    return result


def _storable_key(key: str, place: _Place, taken: dict[str, Any], notes: Notes) -> str:
    if "\0" in key:
        stored = key.replace("\0", "\\u0000")
        _note(notes, (place, stored), "NUL in a key written as an escape", key)
        key = stored
    key = _storable_text(key, (place, key), "lone surrogate in a key written as an escape", notes)
    return _free_key(key + "#1", taken) if key in taken else key


def _storable_text(value: str, place: _Place, change: str, notes: Notes) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        _note(notes, place, change, value)
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _storable_integer(value: int, place: _Place, notes: Notes) -> Decimal128 | str:
    if len(str(abs(value))) > DECIMAL_DIGITS:
        _note(notes, place, "number beyond Decimal128 kept as text", _LongNumber(value))
        return str(value)
    _note(notes, place, "integer beyond 64 bits kept as Decimal128", _LongNumber(value))
    return Decimal128(str(value))


def write(value: Any) -> bytes:
    """The JSON text of documents out of MongoDB: ``_id`` as 24 hex digits, times as ISO 8601 UTC, exact integers.

    NaN and infinities, which JSON does not have, are the texts "NaN", "Infinity" and "-Infinity"; other BSON
    types are MongoDB's relaxed Extended JSON.
    """
    try:
        text = json.dumps(value, default=as_json, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(value), default=as_json, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def as_json(value: Any) -> Any:
    """``value``, of a type that JSON does not have, as what JSON has."""
    if isinstance(value, ObjectId):
        return str(value)
    if isinstance(value, datetime.datetime):
        return iso(value)
    if isinstance(value, Decimal128):
        value = value.to_decimal()
    if isinstance(value, decimal.Decimal):
        return _decimal(value)
    if isinstance(value, bytes) and not isinstance(value, Binary):
        return base64.b64encode(value).decode()
    return bson.json_util.default(value, bson.json_util.RELAXED_JSON_OPTIONS)


def _decimal(value: decimal.Decimal) -> int | str:
    exponent = value.as_tuple().exponent
    return int(value) if exponent == 0 else str(value)


def iso(moment: datetime.datetime) -> str:
    """``moment`` (aware) as ISO 8601 UTC with milliseconds and Z."""
    utc = moment.astimezone(datetime.UTC)
    return utc.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
