import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tornado_logsrv import jsonends, jsontext
from tornado_logsrv.errors import TooLarge
from tornado_logsrv.jsonends import Broken, Ends

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.text(st.characters(), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
#: Values that tell where they end.
CLOSED = VALUES.filter(lambda value: isinstance(value, (list, dict, str)))


def ends_of(text):
    """The end of each value, and what is wrong behind them."""
    ends, found, at = Ends(text), [], 0
    try:
        while at < len(text):
            at = ends.of(at)
            found.append(at)
            at += len(text[at:]) - len(text[at:].lstrip(" \n"))
    except (Broken, RecursionError) as error:
        return found, type(error)
    return found, None


def encoded(value, ascii_only):
    return json.dumps(value, ensure_ascii=ascii_only or any(0xD800 <= ord(c) < 0xDC80 for c in json.dumps(value)))


@pytest.mark.parametrize("sparse", [1, 7, 40, jsontext.SPARSE_BYTES])
@given(st.lists(CLOSED, max_size=5), st.sampled_from(["", " ", "\n  "]), st.booleans(), st.text('{}[],"1', max_size=3))
@example([[1], ["\ud800"]], "", True, "")
def test_values_end_where_they_do_however_long_they_are(sparse, values, between, ascii_only, rest):
    texts = [encoded(value, ascii_only) for value in values]
    text = between.join([*texts, rest])
    expected = ends_of(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsontext, "SPARSE_BYTES", sparse)
        assert ends_of(text) == expected
    starts = [sum(len(each) + len(between) for each in texts[:number]) for number in range(len(texts))]
    assert expected[0][: len(texts)] == [start + len(each) for start, each in zip(starts, texts, strict=True)]


LONG = f"[{','.join(['{}'] * jsontext.MAX_VALUES)}]"


def test_nothing_is_made_of_a_long_value(monkeypatch):
    class Fails:
        def raw_decode(self, text, at):
            assert len(text) - at <= jsontext.SPARSE_BYTES, "a value that may be dense is made"
            return json.JSONDecoder().raw_decode(text, at)

    monkeypatch.setattr(jsonends, "_SCANNER", Fails())
    ends = Ends("[1]" + LONG + ' {"é":1}')
    assert (ends.of(0), ends.of(3)) == (3, 3 + len(LONG))
    assert ends.of(4 + len(LONG)) == 11 + len(LONG)


def test_the_end_of_a_long_value_is_told_in_characters():
    text = '["éé€","%s"]' % ("é" * jsontext.SPARSE_BYTES)
    assert Ends(text + "[1]").of(0) == len(text)


@pytest.mark.parametrize("odd", ['"\\ud800"', "NaN"])
def test_the_end_of_a_long_value_that_msgspec_does_not_read_is_found_unless_it_may_be_dense(odd):
    text = f'[{odd},"{"x" * jsontext.SPARSE_BYTES}",{odd}]'
    assert Ends(text + " 1").of(0) == len(text)
    with pytest.raises(TooLarge, match="JSON values"):
        Ends(f"[{odd},{LONG}]").of(0)


@pytest.mark.parametrize("text", ["[" + LONG, LONG[:-1] + "x]", '["' + "x" * jsontext.SPARSE_BYTES])
def test_a_long_value_that_is_none_is_told(text):
    with pytest.raises((Broken, TooLarge)):
        Ends(text).of(0)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        (b'{"a":1}', 7), (b'{"a":1}{"b":2}', 7), (b'{"a":1} \n{', 9), (b"[1]x", 3), (b'"a""', 3), (b"[1", None),
        (b"", None), (b"x", None), (b'["\\ud800"]', None), (b'["\xff"][', 5), (b"[" * 5000, None),
    ],
)  # fmt: skip
def test_how_long_a_value_is(text, length):
    """It rests on what msgspec says of what is behind a value."""
    assert jsonends.length_of(text) == length
    assert jsonends.length_of(memoryview(text)) == length
