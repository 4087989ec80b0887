"""Protobuf messages declared in Python, read by the protobuf library at the speed of generated code.

A field that is a message may be declared ``bytes``: both are the same on the wire (protobuf.dev, "Encoding", wire
type LEN). What is in it is then looked at when its turn comes and on its own, so that one that is broken breaks no
other, and a body of very many is not unfolded all at once.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from ..errors import Unreadable

_Field = descriptor_pb2.FieldDescriptorProto
#: Type of a field as a .proto file names it → its number in a descriptor.
_TYPES = {
    name: _Field.Type.Value(f"TYPE_{name.upper()}")
    for name in ("int32", "int64", "uint32", "uint64", "fixed32", "fixed64", "string", "bytes", "message")
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
