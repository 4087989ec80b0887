"""Many messages that are read at once have what each has by itself."""

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tornado_logsrv.errors import Unreadable
from tornado_logsrv.receivers import protobuf

FIELDS = "int32 number = 1, string text = 2, repeated bytes many = 3, double real = 4, Value value = 5"
VALUE = "string shown = 1, int64 counted = 2"
COLUMNS = protobuf.Columns("test.columns", FIELDS, Value=VALUE)
MESSAGE: Any = protobuf.declare("test", Message=FIELDS, Value=VALUE)["Message"]

messages = st.builds(
    lambda given, value: MESSAGE(**given, value=value) if value else MESSAGE(**given),
    st.fixed_dictionaries(
        {},
        optional={
            "number": st.integers(-(1 << 31), (1 << 31) - 1),
            "text": st.text(max_size=3),
            "many": st.lists(st.binary(max_size=3), max_size=3),
            "real": st.floats(allow_nan=False),
        },
    ),
    st.fixed_dictionaries({}, optional={"shown": st.text(max_size=3), "counted": st.integers(-5, 5)}),
)


def by_itself(raw: bytes) -> tuple:
    message = MESSAGE.FromString(raw)
    return (message.number, message.text, list(message.many), message.real, message.value.shown, message.value.counted)


def together(raws: list[bytes]) -> list[tuple] | None:
    try:
        found = COLUMNS.read(raws)
    except Unreadable:
        found = None
    if found is None:
        return None
    empty = {"number": 0, "text": "", "many": [], "real": 0.0, "shown": "", "counted": 0}
    columns = [found.get(name, [None] * len(raws)) for name in empty]
    return [
        tuple(default if value is None else value for value, default in zip(row, empty.values(), strict=True))
        for row in zip(*columns, strict=True)
    ]


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(messages, min_size=1, max_size=2), min_size=1, max_size=6))
def test_columns_are_what_each_message_has(given):
    # A message of two that were joined has its fields twice: the last one counts.
    raws = [b"".join(message.SerializeToString() for message in joined) for joined in given]
    assert together(raws) == list(map(by_itself, raws))


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(messages, min_size=2, max_size=4), st.data())
def test_a_message_that_is_broken_takes_nothing_of_others(given, data):
    raws = [message.SerializeToString() for message in given]
    at = data.draw(st.integers(0, len(raws) - 1))
    raws[at] = raws[at][: data.draw(st.integers(0, len(raws[at])))] + data.draw(st.binary(max_size=1))
    found = together(raws)
    try:
        expected = list(map(by_itself, raws))
    except DecodeError:
        expected = None
    assert found is None or found == expected


@pytest.mark.parametrize(
    "broken", [b"\x08", b"\x12\x40a", b"\x1a\x09", b"\x21\0\0", b"\x2a\x7f", b"\x0b", b"\x12\x01\xff"]
)
def test_what_is_cut_off_is_not_made_whole_by_what_follows(broken):
    good = MESSAGE(number=1, text="a" * 200, many=[b"b"], real=1.5, value={"shown": "c"}).SerializeToString()
    with pytest.raises(DecodeError):
        MESSAGE.FromString(broken)
    assert together([good, broken, good]) is None


def test_a_message_that_has_a_mark_for_a_value_is_left_to_be_read_by_itself():
    usual = MESSAGE(number=1, text="a").SerializeToString()
    assert COLUMNS.read([usual, usual]) == {"number": [1, 1], "text": ["a", "a"]}
    for name in ("number", "text"):
        marked = MESSAGE(**{name: COLUMNS._marks[name]}).SerializeToString()
        assert COLUMNS.read([usual, marked]) is None
        assert COLUMNS.read([marked + marked, usual, b""]) is None


def test_of_messages_that_are_empty_there_is_no_column():
    assert COLUMNS.read([b"", b""]) == {}
