"""JSON messages that are read item by item: a broken one breaks no other.

A message is a msgspec.Struct, generic over what its items are while they are not read: bytes of the body (Raw). Where
the body is JSON that msgspec does not read (lone surrogates, bytes that are no UTF-8, huge numbers), they are values.
"""

import json
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from .. import jsontext
from ..errors import Unreadable

#: What an item of a message is.
Item = TypeVar("Item")
#: One that is not there.
ABSENT: Any = Raw(b"null")

_NOT_AT_ONCE = (msgspec.MsgspecError, ValueError, RecursionError)


class Exact:
    """An item of a text that only jsontext reads; ``bytes`` of it are its JSON text."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __bytes__(self) -> bytes:
        return json.dumps(self.value).encode()


def is_there(item: Any) -> bool:
    """Whether a message has ``item``: one that is null is as if not there."""
    return bytes(item) != bytes(ABSENT)


class Message:
    """How the JSON of one kind of message is read."""

    def __init__(self, struct: Any) -> None:
        generic = bool(struct.__parameters__) if hasattr(struct, "__parameters__") else False
        self._name = struct.__name__
        self._is_read_at_once = not generic
        self._decoder = msgspec.json.Decoder(struct[Raw] if generic else struct)
        self._exact = struct[Exact] if generic else struct

    def read(self, raw: Any) -> Any:
        """The message of the bytes, Raw or Exact ``raw``. Raises Unreadable and TooLarge."""
        if type(raw) is not Exact:
            if self._is_read_at_once and len(raw) > jsontext.SPARSE_BYTES:
                jsontext.check_values(raw)
            try:
                return self._decoder.decode(raw)
            except _NOT_AT_ONCE:
                raw = Exact(value(raw)[0])
        try:
            # One that is null is as if not there.
            given = {} if raw.value is None else raw.value
            return msgspec.convert(given, self._exact, dec_hook=lambda _, item: Exact(item))
        except (msgspec.ValidationError, UnicodeError, RecursionError) as error:
            raise Unreadable(f"not {self._name} in JSON: {error}") from None


def value(raw: Any) -> tuple[Any, bool]:
    """The value of an item, and whether it is plain, as of jsontext.decode. Raises Unreadable and TooLarge."""
    if type(raw) is Exact:
        return raw.value, False
    return jsontext.decode(bytes(raw), "surrogateescape")
