import collections
import itertools
import json
import math
import random
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tornado_logsrv import jsonlines, jsontext
from tornado_logsrv.errors import TooLarge, Unreadable
from tornado_logsrv.jsonlines import BadLine, ValuesReader
from tornado_logsrv.records import MAX_RECORD_BYTES

MIB = 1 << 20
BOM = b"\xef\xbb\xbf"

KEYS = st.sampled_from(["a", "b", "id", "a b", ":", '"', '":', "", "ä"]) | st.text(max_size=5)
TEXTS = st.sampled_from([",", "]", "},{", '":', "\\", '"', "[", "\n", " :", "1:2", "\u2028"]) | st.text(max_size=10)
# jsontext makes a Decimal128 or a text of a negative integer of just 34 digits, by which way it reads.
INTEGERS = st.integers() | st.integers(-(10**40), 10**40)
SCALARS = st.none() | st.booleans() | INTEGERS | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
#: Texts of values that only the exact reading takes, or that the fast one takes with a loss.
ODD = [
    b'{"a":1,"a":2}',
    b'{"a" :1,"a":2}',
    b'{"x":{"b":[{"c":1,"c":{}}]}}',
    b'{"a":1,"\\u0061":2}',
    b'{"a":1,"a":2,"x":"\\u0022:"}',
    b'{"s":"\\"\\u003a"}',
    b'{"s":"\\"\\u003A"}',
    b'{"n":NaN,"i":-Infinity}',
    b'["\\ud800",1e400]',
    b'"\\udfff"',
    b"123456789012345678901234567890123456789012345678901234567890",
    b'{"n":12345678901234567890,"s":"a :b"}',
    b"-0",
    b"1.5E+3",
    b"{}",
    b"[]",
    b'""',
]
WRITERS = [
    lambda value: json.dumps(value),
    lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    lambda value: json.dumps(value, separators=(" ,\t", " :")),
]


@st.composite
def value_texts(draw):
    """The JSON text of a value, on one line."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(ODD))
    text = draw(st.sampled_from(WRITERS))(draw(VALUES))
    return text.encode("utf-8", "replace")


CUTS = st.lists(st.integers(0, 400), max_size=12)
WINDOWS = st.sampled_from([1, 7, 40, 200, jsonlines.WINDOW_BYTES])


def cut(data, cuts):
    edges = [0, *sorted(min(at, len(data)) for at in cuts), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


def blocks_of(pieces, ndjson=None, **more):
    reader = ValuesReader(ndjson, **more)
    return [*itertools.chain.from_iterable(reader.feed(piece) for piece in pieces), *reader.end()]


def items_of(blocks):
    """Values, as (value, notes), and bad lines, by their index in the body; checks that the blocks agree on it."""
    items, expected = {}, 0
    for block in blocks:
        if block.count:
            assert block.first == expected
        assert len(block.values) == len(block.indexes)
        assert list(block.indexes) == sorted(block.indexes)
        for place, (index, value) in enumerate(zip(block.indexes, block.values, strict=True)):
            items[index] = (value, block.notes.get(place, []))
        items.update((bad.index, bad) for bad in block.bad)
        expected += block.count
    assert sorted(items) == list(range(expected))
    return [items[index] for index in range(expected)]


def read(pieces, ndjson=None, **more):
    return items_of(blocks_of(pieces, ndjson, **more))


def stored(value, notes):
    """What a record is made of, which is what two ways of reading must agree in; NaN equals NaN."""
    return repr((value, notes) if notes else jsontext.storable(value))


def assert_read_as_one_by_one(items, texts):
    assert [stored(*item) for item in items] == [stored(*jsontext.read(text)) for text in texts]


@given(st.lists(value_texts(), max_size=12), CUTS, WINDOWS, st.sampled_from([b",", b" , ", b"\n,\n", b",\r\n "]))
@settings(max_examples=400, deadline=None)
def test_an_array_gives_its_values_however_it_is_cut(texts, cuts, window, comma):
    body = b"[" + comma.join(texts) + b"]"
    assert_read_as_one_by_one(read(cut(body, cuts), window_bytes=window), texts)


@given(
    st.lists(value_texts(), max_size=12), CUTS, st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n\t\r\n"]), st.booleans()
)
@settings(max_examples=400, deadline=None)
def test_ndjson_gives_its_values_however_it_is_cut(texts, cuts, newline, ends):
    body = newline.join(texts) + (newline if ends else b"")
    assert_read_as_one_by_one(read(cut(body, cuts), ndjson=True), texts)


@given(value_texts(), st.integers(2, 30), WINDOWS)
@settings(deadline=None)
def test_many_of_one_kind_are_read_as_one_is(text, times, window):
    texts = [text] * times
    assert_read_as_one_by_one(read([b"\n".join(texts)], ndjson=True), texts)
    assert_read_as_one_by_one(read(cut(b"[" + b",".join(texts) + b"]", range(0, 400, 30)), window_bytes=window), texts)


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=6), CUTS, st.sampled_from([b"", b" ", b"\n"]))
@settings(deadline=None)
def test_objects_may_stand_on_one_line(objects, cuts, between):
    texts = [json.dumps(each).encode() for each in objects]
    assert_read_as_one_by_one(read(cut(between.join(texts), cuts), ndjson=True), texts)


def test_objects_on_one_line_may_be_odd():
    assert_read_as_one_by_one(read([b"".join(ODD[:8])], ndjson=True), ODD[:8])


NO_VALUES = [
    b"nope",
    b'{"a":',
    b"}",
    b"1 2",
    b"{}1",
    b"{} {",
    b'"a\tb"',
    b'{"a":"\xff"}',
    b"[1,]",
    b"\xff",
    b"\0",
    b"{,}",
]


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(NO_VALUES), value_texts()), max_size=12),
    CUTS,
    st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
)
@settings(max_examples=300, deadline=None)
def test_bad_lines_are_told_and_cost_no_other(lines, cuts, newline):
    body = newline.join(bad if is_bad else text for is_bad, bad, text in lines)
    items = read(cut(body, cuts), ndjson=True)
    assert len(items) == len(lines)
    for index, (item, (is_bad, bad, text)) in enumerate(zip(items, lines, strict=True)):
        if is_bad:
            line = 1 + index * newline.count(b"\n")
            assert item == BadLine(index, line, bad, item.reason)
            assert item.reason
        else:
            assert stored(*item) == stored(*jsontext.read(text))


def test_a_bad_line_says_where_and_why():
    (block, _) = blocks_of([b'{"a":1}\n\n{"a":1} x\r\n{"b":2}\n'], ndjson=True)
    assert block.bad == [BadLine(1, 3, b'{"a":1} x', "the line is not JSON: Extra data: column 9 (char 8)")]
    assert (block.first, block.values, block.indexes, block.notes) == (0, [{"a": 1}, {"b": 2}], [0, 2], {})


def test_a_value_does_not_go_over_lines():
    # As a whole, these are three values on three lines.
    items = read([b'{}{"a":1}\n{\n}\n'], ndjson=True)
    assert items[:2] == [({}, []), ({"a": 1}, [])]
    assert [bad.raw for bad in items[2:]] == [b"{", b"}"]


@pytest.mark.parametrize(
    "text", [b'{\n"a":1}', b'{"a"\n:1}', b'{"a":\n1}', b'{"a":1\n}', b'{"a":1,\n"b":2}', b"[1\n,2]"]
)
def test_every_place_in_a_value_is_one_where_a_line_may_not_end(text):
    alone = read([text], ndjson=True)
    assert [type(item) for item in alone] == [BadLine, BadLine]
    assert [type(item) for item in read([b"{}{}\n" + text], ndjson=True)][2:] == [BadLine, BadLine]


def test_notes_are_by_place_in_the_values():
    (block, _) = blocks_of([b'{"a":1}\nbad\n{"a":1,"a":2}\n'], ndjson=True)
    assert block.values == [{"a": 1}, {"a#1": 1, "a": 2}]
    assert list(block.indexes) == [0, 2]
    assert [(place, notes[0]["path"]) for place, notes in block.notes.items()] == [(1, "/data/a")]


def test_an_escaped_colon_does_not_hide_a_lost_key():
    # The decoder drops one colon of the first and makes one of the second.
    for body, ndjson in [(b'{"a":1,"a":2}\n{"s":"\\u003a"}', True), (b'[{"a":1,"a":2},{"s":"\\u003A"}]', False)]:
        assert [value for value, _ in read([body], ndjson)] == [{"a#1": 1, "a": 2}, {"s": ":"}]


@pytest.mark.parametrize("ndjson", [None, True, False])
@pytest.mark.parametrize("head", [b"", BOM, b" \r\n\t", BOM + b"\n\n"])
def test_what_is_before_the_first_value_is_read_past(ndjson, head):
    body = head + b"[[1],2]"
    expected = [([[1], 2], [])] if ndjson else [([1], []), (2, [])]
    for pieces in ([body], [bytes([byte]) for byte in body]):
        assert read(pieces, ndjson) == expected


def test_the_media_type_decides_over_the_first_byte():
    assert read([b"[1]\n[2]"], True) == [([1], []), ([2], [])]
    with pytest.raises(Unreadable, match=r"behind its end.*x-ndjson.*line 2, byte 4"):
        read([b"[1]\n[2]"], None)
    with pytest.raises(Unreadable, match="begins with"):
        read([b'{"a":1}'], False)
    assert read([b'{"a":1}'], None) == [({"a": 1}, [])]


@pytest.mark.parametrize("body", [b"", b" \r\n", BOM, BOM + b"\n"])
def test_an_empty_body_is_no_array_and_is_ndjson_of_nothing(body):
    assert read([body], True) == []
    for ndjson in (None, False):
        with pytest.raises(Unreadable, match="empty"):
            read([body], ndjson)


def test_half_a_byte_order_mark_is_not_one():
    assert [item.raw for item in read([b"\xef\xbb"], None)] == [b"\xef\xbb"]
    with pytest.raises(Unreadable):
        read([b"\xef\xbb"], False)


BROKEN_ARRAYS = [
    (b"[", "line 1, byte 1"),
    (b"[1", "line 1, byte 2"),
    (b"[1,", "line 1, byte 3"),
    (b"[1,]", "line 1, byte 3"),
    (b"[,1]", "line 1, byte 1"),
    (b"[,]", "line 1, byte 1"),
    (b"[1,,2]", "line 1, byte 3"),
    (b"[1 2]", "line 1, byte 3"),
    (b"[1]]", "line 1, byte 3"),
    (b"[1],[2]", "line 1, byte 3"),
    (b"[] x", "line 1, byte 3"),
    (b'[1,\n{"a" 1}]', "line 2, byte 9"),
    (b'[1,\n"a]', "line 2, byte 4"),
    (b'["\xc3\xa4",\n nope]', "line 2, byte 8"),
    (b'[1,"\xff"]', "byte 4"),
    (b'[1,"\xc3', "byte 4"),
    (b"[tru]", "byte 1"),
    (b"[1.]", "byte 2"),
    (b'["\\x"]', "byte 2"),
]


@pytest.mark.parametrize(("body", "where"), BROKEN_ARRAYS)
@pytest.mark.parametrize("window", [1, jsonlines.WINDOW_BYTES])
def test_a_broken_array_is_unreadable_and_says_where(body, where, window):
    for pieces in ([body], [bytes([byte]) for byte in body]):
        with pytest.raises(Unreadable) as refused:
            read(pieces, window_bytes=window)
        assert where in str(refused.value)


@pytest.mark.parametrize("level", [b"[", b'[{"a":'])
def test_an_array_without_a_bottom_is_unreadable(level):
    with pytest.raises(Unreadable, match="nested deeper"):
        read(pieces_of(level * 500_000, 1 << 16))


@given(st.lists(value_texts(), min_size=3, max_size=30), WINDOWS)
@settings(deadline=None)
def test_where_an_array_is_broken_is_counted_over_windows(texts, window):
    before = b"[" + b",\n".join(texts) + b",\n"
    with pytest.raises(Unreadable, match=rf"line {len(texts) + 1}, byte {len(before)}$"):
        read(cut(before + b"nope, and more behind it]", range(0, 400, 20)), window_bytes=window)


def test_a_broken_array_is_found_before_its_end():
    pieces = itertools.chain([b"[1 nope"], itertools.repeat(b',{"a":1}' * 10_000))
    with pytest.raises(Unreadable, match="byte 3"):
        read(pieces)


ALPHABET = st.sampled_from(
    [bytes([byte]) for byte in b'[]{},:"\\\n\r 1-ae.']
    + [b'"a":', b"NaN", b"\xff", b"\xc3\xa4", b"null", b"{}", b"\\u", BOM]
)
ROUGH = st.lists(ALPHABET | st.binary(max_size=3), max_size=40).map(b"".join)


@given(ROUGH, CUTS, WINDOWS, st.sampled_from([None, True, False]))
@settings(max_examples=500, deadline=None)
@example(b"[1,1.", [2, 3], 1, None)
def test_random_bytes_are_read_or_unreadable_wherever_they_are_cut(body, cuts, window, ndjson):
    def outcome(pieces, **more):
        try:
            return [stored(*item) if isinstance(item, tuple) else item for item in read(pieces, ndjson, **more)]
        except Unreadable:
            return "unreadable"

    assert outcome(cut(body, cuts), window_bytes=window) == outcome([body])


@given(ROUGH)
@settings(max_examples=400, deadline=None)
def test_an_array_is_read_exactly_when_the_whole_text_is(body):
    body = b"[" + body
    try:
        whole, notes = jsontext.read(body)
    except Unreadable:
        with pytest.raises(Unreadable):
            read([body])
    else:
        values = [value for value, _ in read([body])]
        assert len(values) == len(whole)
        if not notes:
            assert repr(values) == repr(whole)


def test_a_value_that_needs_too_many_notes_costs_no_other():
    greedy = b"[" + b",".join([b"NaN"] * 2000) + b"]"
    for body, ndjson, line in [(b"1\n" + greedy + b"\n2", True, 2), (b"[1,\n\n" + greedy + b",2]", False, 3)]:
        one, bad, two = read([body], ndjson)
        assert (one, two) == ((1, []), (2, []))
        assert bad == BadLine(1, line, greedy, bad.reason)
        assert str(jsontext.MAX_NOTES) in bad.reason


@pytest.mark.parametrize("depth", [*range(90, 110), *range(700, 1010, 7), *range(960, 1010), 5000, 200_000])
@pytest.mark.parametrize("inner", [b"1", b"NaN", b'{"b":1,"b":2}'])
def test_nesting_raises_nothing_unforeseen(depth, inner):
    deep = b'{"a":[' * (depth // 2) + inner + b"]}" * (depth // 2)
    one, _, two = read([b"1\n" + deep + b"\n2"], ndjson=True)
    assert (one, two) == ((1, []), (2, []))
    try:
        assert len(read([b"[1," + deep + b",2]"])) == 3
    except Unreadable as error:
        assert "deep" in str(error)  # noqa: PT017


def test_the_longest_line_and_value_are_taken_and_one_byte_more_is_too_large():
    longest = b'"' + b"x" * (MAX_RECORD_BYTES - 2) + b'"'
    longer = longest[:-1] + b'x"'
    for text, ndjson in [(b"%b\n1", True), (b"1\n%b", True), (b"[%b,1]", False), (b"[1,%b]", False), (b"[%b]", False)]:
        for step in (1 << 16, MIB + 7, 32 * MIB):
            good, bad = (text % each for each in (longest, longer))
            assert len(read(pieces_of(good, step), ndjson)) == text.count(b"1") + 1
            with pytest.raises(TooLarge, match=str(MAX_RECORD_BYTES)):
                read(pieces_of(bad, step), ndjson)


def pieces_of(body, step):
    return [body[start : start + step] for start in range(0, len(body), step)]


@pytest.mark.parametrize("unit", [b" ", b"\n", b'"x', b"1", b"[", b'{"a":'])
@pytest.mark.parametrize("ndjson", [None, True, False])
def test_a_body_without_end_is_given_up(unit, ndjson):
    reader = ValuesReader(ndjson)
    piece = unit * (MIB // len(unit))
    most = 0
    try:
        list(reader.feed(b"["))
        for _ in range(64):
            list(reader.feed(piece))
            most = max(most, reader.held)
        list(reader.end())
    except (Unreadable, TooLarge) as error:
        assert str(error)  # noqa: PT017
    assert most <= 2 * MAX_RECORD_BYTES + jsonlines.GROWTH_BYTES


def record(index):
    return {"level": "info", "msg": f"request {index} served, as {index}:{index}", "path": "/a/b", "ms": index * 0.5}


def stream(ndjson, size):
    """Pieces of 64 KiB, made as they are taken."""
    between = b"\n" if ndjson else b","
    held, made = (b"" if ndjson else b"["), 0
    for index in itertools.count():
        held += json.dumps(record(index)).encode() + between
        if len(held) >= 1 << 16:
            made += len(held)
            yield held
            held = b""
        if made >= size:
            break
    yield b"1" if ndjson else b"1]"


@pytest.mark.parametrize(("ndjson", "most"), [(True, MIB), (False, 2 * MIB)])
def test_a_long_body_is_never_held(ndjson, most):
    reader = ValuesReader(ndjson)
    values = held = 0
    for piece in stream(ndjson, 12 * MIB):
        for block in reader.feed(piece):
            assert block.first == values
            values += len(block.values)
            assert not block.bad
            assert not block.notes
        held = max(held, reader.held)
    values += sum(len(block.values) for block in reader.end())
    assert values > 100_000
    assert held < most


@pytest.mark.parametrize("ndjson", [True, False])
def test_memory_does_not_grow_with_the_body(ndjson):
    def peak(size):
        reader = ValuesReader(ndjson, window_bytes=1 << 16)
        tracemalloc.start()
        for piece in stream(ndjson, size):
            collections.deque(reader.feed(piece), maxlen=0)
        collections.deque(reader.end(), maxlen=0)
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return traced

    assert peak(3 * MIB) < 1.2 * peak(MIB)


class Work:
    """Counts the bytes that are given to each kind of reading, in place of time."""

    def __init__(self, monkeypatch):
        self.fast = self.scanned = self.exact = 0
        decode_array, scan, read_exactly = jsonlines._array_values, jsonlines._scan, jsontext.read
        decode_lines = jsonlines._lines_at_once

        def counted_array(text):
            self.fast += len(text)
            return decode_array(text)

        def counted_lines(text):
            self.fast += len(text)
            return decode_lines(text)

        def counted_scan(text, **more):
            self.scanned += len(text)
            return scan(text, **more)

        def counted_read(text):
            self.exact += len(text)
            return read_exactly(text)

        monkeypatch.setattr(jsonlines, "_array_values", counted_array)
        monkeypatch.setattr(jsonlines, "_lines_at_once", counted_lines)
        monkeypatch.setattr(jsonlines, "_scan", counted_scan)
        monkeypatch.setattr(jsontext, "read", counted_read)


@pytest.fixture
def work(monkeypatch):
    return Work(monkeypatch)


def array(texts):
    return b"[" + b",".join(texts) + b"]"


def tree(depth, width):
    return {"id": 1, "children": [tree(depth - 1, width) for _ in range(width)]} if depth else {"id": 0}


RECORDS = [json.dumps(record(index)).encode() for index in range(15_000)]
#: Arrays of 1 MiB and more: the text, and how often each kind of reading may see a byte of it.
ORDINARY = {
    "records": array(RECORDS),
    "compact records": json.dumps([record(index) for index in range(20_000)], separators=(",", ":")).encode(),
    "records of many lines": json.dumps([record(index) for index in range(13_000)], indent=2).encode(),
    "nested records": array([b'{"time":1,"rows":[{"a":1},{"a":2}],"tags":["x","y"]}'] * 23_000),
    "numbers": array([b"%d" % number for number in range(200_000)]),
    "strings": array([b'"a, b, c"'] * 125_000),
    "arrays": array([b'[1,"a",[2,3]]'] * 90_000),
}
NASTY = {
    "one giant object": array([json.dumps({"rows": [record(index) for index in range(15_000)]}).encode()]),
    "one giant string": array([b'"' + b"},{" * (MIB // 3) + b'"']),
    "giants and dwarfs": array(
        [b"1", b'"' + b"x," * (MIB // 2) + b'"', b"2", b'{"a":["' + b"],[" * (MIB // 4) + b'"]}', b"3"]
    ),
    "strings of commas": array([b'"%b"' % (b'\\",' * 100)] * 3_500),
    "a cut in every string": array([b'{"a":"},{\\"a\\":"}'] * 65_000),
    "trees": array([json.dumps(tree(5, 4)).encode()] * 40),
    "one giant tree": array([json.dumps([tree(7, 4)] * 3).encode()]),
    "first keys all different": array([b'{"k%d":[{},{}],"text":"%b"}' % (index, b"x" * 100) for index in range(6_500)]),
    "every value odd": array([b'{"a":1,"a":2,"text":"%b"}' % (b"x" * 100)] * 26_000),
    "deep": array([(b"[" * 90 + b"]" * 90)] * 4_000),
    "spaces": array([b" " * 1000 + b"1" + b" " * 1000] * 500),
}


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("step", [1 << 16, 3 * MIB])
def test_an_ordinary_array_is_decoded_once(work, name, step):
    body = ORDINARY[name]
    assert len(body) > 5 * jsonlines.WINDOW_BYTES // 2
    values = sum(len(block.values) for block in blocks_of(pieces_of(body, step)))
    assert values == len(json.loads(body))
    assert work.fast < 1.1 * len(body)
    assert work.scanned == work.exact == 0


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("step", [1 << 16, 3 * MIB])
def test_the_nastiest_array_is_decoded_a_few_times(work, name, step, monkeypatch):
    # Some are of one value that has more in it than a record may have.
    monkeypatch.setattr(jsontext, "check_values", lambda text, most=0: None)
    body = NASTY[name]
    assert len(body) > 5 * jsonlines.WINDOW_BYTES // 2
    values = sum(len(block.values) for block in blocks_of(pieces_of(body, step)))
    assert values == len(json.loads(body))
    assert work.fast <= 4 * len(body)
    assert work.scanned <= 4 * len(body)
    assert work.exact <= len(body)


def test_ndjson_is_decoded_once_and_a_bad_line_costs_its_block_once_more(work):
    body = b"\n".join(RECORDS)
    blocks_of(pieces_of(body, 1 << 16), ndjson=True)
    assert work.fast <= len(body) + 1
    assert work.exact == 0
    blocks_of(pieces_of(body + b"\nnope\n", 1 << 16), ndjson=True)
    assert work.fast <= 2 * len(body) + 100
    assert work.exact <= 2 << 16


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("more", [{}, {"tags": ["a", "b"], "extra": {"time": "10:20:30", "path": "c:\\x"}}])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\n\n"])
def test_ordinary_records_are_read_at_once_however_they_are_written(work, write, more, newline):
    texts = [write(record(index) | more).encode() for index in range(100)]
    items = read([newline.join(texts)], ndjson=True) + read([b"[" + b", ".join(texts) + b"]"])
    assert [value for value, _ in items] == [record(index) | more for index in range(100)] * 2
    assert work.exact == work.scanned == 0


def test_a_repeated_key_is_found_among_many_records():
    generator = random.Random(7)
    for write in WRITERS:
        texts = [write(record(index)).encode() for index in range(200)]
        at = generator.randrange(200)
        texts[at] = texts[at][:-1] + b',"ms":7}'
        for items in (read([b"\n".join(texts)], ndjson=True), read([array(texts)])):
            assert [index for index, (_, notes) in enumerate(items) if notes] == [at]
            assert items[at][0]["ms"] == 7
            assert math.isclose(items[at][0]["ms#1"], at * 0.5)


DENSE = b"[" + b"{}," * jsontext.MAX_VALUES + b"{}]"


def odd(text):
    """``text`` as an array with something that msgspec does not read."""
    return b'["\\ud800",%b]' % text


@pytest.mark.parametrize("step", [1 << 16, 3 * MIB])
@pytest.mark.parametrize("dense", [DENSE, b"[%b]" % b",".join([DENSE] * 4)])
def test_a_value_of_too_many_values_costs_none_of_its_neighbours(step, dense):
    blocks = blocks_of(pieces_of(b'[1,%b, {"a":%b} ,"\\ud800"]' % (dense, dense), step))
    assert [value for block in blocks for value in block.values] == [1, "\\ud800"]
    bad = [each for block in blocks for each in block.bad]
    assert [(each.index, each.raw) for each in bad] == [(1, dense), (2, b'{"a":%b}' % dense)]
    assert all(each.reason.startswith(f"more than {jsontext.MAX_VALUES} JSON values") for each in bad)


@pytest.mark.parametrize("step", [1 << 16, 3 * MIB])
def test_an_array_with_a_value_of_too_many_whose_end_is_not_known_is_refused(step):
    with pytest.raises(TooLarge, match="JSON values"):
        blocks_of(pieces_of(b"[1,%b,2]" % odd(DENSE), step))


@pytest.mark.parametrize("step", [1 << 16, 3 * MIB])
def test_a_long_value_that_is_read_exactly_is_read_in_an_array(step):
    long = b'"%b"' % (b"x" * MIB)
    blocks = blocks_of(pieces_of(b"[1,%b,2]" % odd(long), step))
    assert [value for block in blocks for value in block.values] == [1, ["\\ud800", "x" * MIB], 2]


@pytest.mark.parametrize("step", [1 << 16, 3 * MIB])
@pytest.mark.parametrize("dense", [DENSE, odd(DENSE)])
def test_a_line_of_too_many_values_costs_none_of_its_neighbours(step, dense):
    blocks = blocks_of(pieces_of(b'{"a":1}\n%b\n{"a":2}' % dense, step), ndjson=True)
    assert [value for block in blocks for value in block.values] == [{"a": 1}, {"a": 2}]
    ((bad,),) = [block.bad for block in blocks if block.bad]
    assert (bad.index, bad.line, bad.raw) == (1, 2, dense)
    assert bad.reason.startswith(f"more than {jsontext.MAX_VALUES} JSON values")


def test_many_lines_of_few_values_are_no_dense_one(work):
    lines = b'{"a":[1,2],"b":"c"}\n' * 100_000
    assert sum(len(block.values) for block in blocks_of(pieces_of(lines, len(lines)), ndjson=True)) == 100_000
    assert work.exact == 0


@pytest.mark.parametrize("step", [1 << 16, 3 * MIB])
def test_many_objects_of_one_line_are_no_dense_one(work, step):
    line = b'{"a":[1,2],"b":"c"}' * 100_000
    items = items_of(blocks_of(pieces_of(line + b'\n{"a":2}', step), ndjson=True))
    assert items == [({"a": [1, 2], "b": "c"}, [])] * 100_000 + [({"a": 2}, [])]
    assert work.exact == 0


def test_objects_of_one_line_are_read_as_they_arrive(work):
    reader, held, items = ValuesReader(), 0, []
    objects = [json.dumps(record(index)).encode() for index in range(30_000)]
    for piece in pieces_of(b"".join(objects) + b'\n{"a":', 1 << 16):
        items += reader.feed(piece)
        held = max(held, reader.held)
    items = items_of([*items, *reader.end()])
    assert [value for value, _ in items[:-1]] == [record(index) for index in range(30_000)]
    assert (items[-1].line, items[-1].raw) == (2, b'{"a":')
    # A piece more than what is looked for objects, which are few enough then to be encoded in one go.
    assert held <= 3 * (1 << 16)
    assert work.exact < 1000


@pytest.mark.parametrize("text", [b'{"a":"' + b"}{" * MIB + b'"}', b'{"a":[' + b'"}{",' * (MIB // 5) + b"1]}"])
def test_a_long_line_is_looked_for_objects_a_few_times(work, text):
    ((value, notes),) = read(pieces_of(text, 1 << 16), ndjson=True)
    assert (value, notes) == (json.loads(text), [])
    assert work.fast < 4 * len(text)


def test_of_many_objects_of_one_line_each_is_what_it_is_alone():
    objects = [b'{"a":[1,2],"b":"c"}'] * 100_000
    objects[5], objects[50_005] = b'{"a":1,"a":2}', b'{"a":%b}' % DENSE
    blocks = blocks_of([b"".join(objects) + b"\n{"], ndjson=True)
    assert sum(len(block.values) for block in blocks) == 99_999
    assert [len(notes) for block in blocks for notes in block.notes.values()] == [1]
    assert [(bad.index, bad.line) for block in blocks for bad in block.bad] == [(50_005, 1), (100_000, 2)]


def test_of_many_objects_of_one_line_that_are_read_exactly_each_is_what_it_is_alone():
    objects = [b'{"a":"\\ud800"}'] * 60_000
    blocks = blocks_of([b"".join(objects)], ndjson=True)
    assert sum(len(block.values) for block in blocks) == 60_000
    assert all(block.notes for block in blocks if block.values)


def test_no_more_is_read_at_once_than_a_window(monkeypatch):
    """Whatever has arrived: a long value with very many short ones behind it."""
    long = b'"%b"' % (b"x" * (6 * MIB))
    reader, most = ValuesReader(), 0
    for piece in pieces_of(b"[%b,%b]" % (long, b",".join([b"{}"] * MIB)), 1 << 16):
        most = max([most, *(block.count for block in reader.feed(piece))])
    most = max([most, *(block.count for block in reader.end())])
    assert most <= (jsonlines.WINDOW_BYTES + jsonlines.WINDOW_BYTES // 2) // len(b"{},") + 1
