"""Protobuf messages declared in Python, read by the protobuf library at the speed of generated code.

A field that is a message may be declared ``bytes``: both are the same on the wire (protobuf.dev, "Encoding", wire
type LEN). What is in it is then looked at when its turn comes and on its own, so that one that is broken breaks no
other, and a body of very many is not unfolded all at once.
"""

import secrets
from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from ..errors import Unreadable

_Field = descriptor_pb2.FieldDescriptorProto
#: Type of a field as a .proto file names it → its number in a descriptor.
_TYPES = {
    name: _Field.Type.Value(f"TYPE_{name.upper()}")
    for name in ("int32", "int64", "uint32", "uint64", "fixed32", "fixed64", "double", "string", "bytes", "message")
}


def declare(package: str, **fields_of: str) -> dict[str, type[Message]]:
    """The classes of messages: name of the message → fields as a .proto file has them, parted by commas.

        declare("loki", Entry="Timestamp timestamp = 1, bytes line = 2, repeated Pair structuredMetadata = 3")

    A type that is not one of protobuf's is another message of the package. They live in a pool of their own, so they
    collide with nobody's of the same name.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in fields_of.items():
        message = file.message_type.add(name=name)
        for field in fields.split(","):
            _add(message, package, field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in fields_of
    }


def _add(message: descriptor_pb2.DescriptorProto, package: str, words: list[str]) -> None:
    *repeated, kind, name, _, number = words
    field = message.field.add(name=name, number=int(number))
    field.label = _Field.Label.LABEL_REPEATED if repeated else _Field.Label.LABEL_OPTIONAL
    field.type = _TYPES.get(kind, _TYPES["message"])
    if kind not in _TYPES:
        field.type_name = f".{package}.{kind}"


def read(message: type[Message], body: bytes) -> Any:
    """``body`` as ``message``. Raises Unreadable."""
    try:
        return message.FromString(body)
    except DecodeError as error:
        raise Unreadable(f"the body is not the protobuf message {message.DESCRIPTOR.name}: {error}") from None


class Columns:
    """Reads many messages of one kind in one call: a tenth of what an object of Python for each of them costs.

    Messages that stand one after the other are one, and it has all of a repeated field, in their order (protobuf.dev,
    "Encoding", "Last One Wins"). So every field is declared as a repeated one. Behind each message stands another one,
    with a mark in every field: it tells in each column what is of which message. Where there are not as many marks as
    messages, one of those is broken, or has a mark for its value, and they are left to be read one by one.
    """

    def __init__(self, package: str, fields: str, **inner: str) -> None:
        """``fields`` as ``declare`` has them; those of a message in one of them are ``inner``: columns like the others.

        No two have the same name.
        """
        self._repeated: set[str] = set()
        self._marks: dict[str, Any] = {}
        #: Column → the field whose message it is in, if it is in one.
        self._holders: dict[str, str] = {}
        columns = {name: self._columns(each) for name, each in inner.items()}
        # Of a number that no message has: what is broken may swallow other marks, and cannot make up for this one.
        columns["Columns"] = self._columns(f"{fields}, fixed64 {_END} = 2047")
        for *_, kind, holder, _, _ in map(str.split, fields.split(",")):
            names = [each.split()[-3] for each in inner.get(kind, "").split(",") if each]
            self._holders |= dict.fromkeys(names, holder)
        self._type = declare(package, **columns)["Columns"]
        self._encoded: dict[tuple[str, ...], bytes] = {}

    def _columns(self, fields: str) -> str:
        """``fields`` as repeated ones, but for messages: those merge, and are one."""
        declared = []
        for field in fields.split(","):
            *repeated, kind, name, equals, number = field.split()
            if repeated:
                self._repeated.add(name)
            if kind in _TYPES:
                self._marks[name] = _mark(kind)
            label = "repeated " if kind in _TYPES else ""
            declared.append(f"{label}{kind} {name} {equals} {number}")
        return ",".join(declared)

    def read(self, raws: Sequence[bytes]) -> dict[str, list[Any]] | None:
        """By name, what is in a field that one of ``raws`` has at least: None in one that does not have it.

        Of a repeated field, a list of what is in each. None when they have to be read one by one. Raises Unreadable
        when one of them is broken.
        """
        names = self._names(read(self._type, raws[0]))
        while True:
            mark = self._encoded.get(names) or self._mark(names)
            found = read(self._type, mark.join([*raws, b""]))
            if names == (names := self._names(found)):
                break
        count = len(raws)
        if getattr(found, _END)[:] != [self._marks[_END]] * count:
            return None
        columns = {}
        for name in names:
            # A slice takes less than list() does.
            values, mark_of = self._field(found, name)[:], self._marks[name]
            column = (_lists if name in self._repeated else _last)(values, mark_of, count)
            if column is None:
                return None
            columns[name] = column
        return columns

    def _names(self, message: Any) -> tuple[str, ...]:
        return tuple([name for name in self._marks if name != _END and len(self._field(message, name))])

    def _field(self, message: Any, name: str) -> Any:
        holder = self._holders.get(name)
        return getattr(getattr(message, holder) if holder else message, name)

    def _mark(self, names: tuple[str, ...]) -> bytes:
        made = self._type()
        for name in (*names, _END):
            self._field(made, name).append(self._marks[name])
        self._encoded[names] = made.SerializeToString()
        return self._encoded[names]


#: The field that is nothing but a mark.
_END = "end"


def _mark(kind: str) -> Any:
    """A value that nobody can know."""
    if kind == "string":
        return secrets.token_hex(8)
    if kind == "bytes":
        return secrets.token_bytes(8)
    return float(secrets.randbits(53)) if kind == "double" else secrets.randbits(63 if kind.endswith("64") else 31)


def _last(values: list[Any], mark: Any, count: int) -> list[Any] | None:
    """The last value before each mark, None where there is none; None when there are not ``count`` marks."""
    if len(values) == 2 * count and values[1::2].count(mark) == count:
        column = values[::2]
        return None if mark in column else column
    lists = _lists(values, mark, count)
    return None if lists is None else [each[-1] if each else None for each in lists]


def _lists(values: list[Any], mark: Any, count: int) -> list[list[Any]] | None:
    """The values before each mark; None when there are not ``count`` of them."""
    if values.count(mark) != count:
        return None
    each = len(values) // count
    if each * count == len(values) and values[each - 1 :: each].count(mark) == count:
        return [values[start : start + each - 1] for start in range(0, len(values), each)]
    found, start = [], 0
    for _ in range(count):
        end = values.index(mark, start)
        found.append(values[start:end])
        start = end + 1
    return found
