import gzip
import itertools
import os
import tracemalloc
import zlib

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_logsrv import codings
from tornado_logsrv.codings import PIECE_BYTES, decoder, zstd
from tornado_logsrv.errors import TooLarge, Unreadable, UnsupportedMedia

MIB = 1 << 20
SKIPPABLE_FRAME = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"


def raw_deflate(data):
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


#: Coding → the functions that make it.
ENCODERS = {
    "gzip": [gzip.compress],
    "x-gzip": [gzip.compress],
    "deflate": [zlib.compress, lambda data: zlib.compress(data, 0), raw_deflate],
    "zlib": [zlib.compress],
    "zstd": [zstd.compress],
    "snappy": [lambda data: bytes(cramjam.snappy.compress_raw(data))],
}
CODED = [(coding, encode) for coding, encoders in ENCODERS.items() for encode in encoders]
each_coding = pytest.mark.parametrize(("coding", "encode"), CODED)


def cut(data, cuts):
    edges = [0, *sorted(min(at, len(data)) for at in cuts), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


def decoded(coding, chunks, limit=64 * MIB):
    made = decoder(coding, limit)
    pieces = [piece for chunk in chunks for piece in made.feed(chunk)]
    pieces += made.end()
    assert made.end() == ()
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


@given(st.sampled_from(CODED), st.binary(max_size=2000), st.integers(1, 200), st.lists(st.integers(0, 500)))
@settings(deadline=None)
def test_what_was_encoded_comes_out_however_it_is_cut(coded, data, times, cuts):
    coding, encode = coded
    assert decoded(coding, cut(encode(data * times), cuts)) == data * times


@each_coding
def test_one_byte_at_a_time_will_do(coding, encode):
    data = b"a log line\n" * 20_000
    assert decoded(coding, [bytes([byte]) for byte in encode(data)]) == data


@each_coding
@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_sizes_around_a_piece(coding, encode, size):
    for data in (b"x" * size, os.urandom(size)):
        assert decoded(coding, [encode(data)]) == data


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=5), cuts=st.lists(st.integers(0, 300)))
@settings(deadline=None)
def test_several_members_are_one_body(coding, parts, cuts):
    (encode,) = ENCODERS[coding]
    assert decoded(coding, cut(b"".join(map(encode, parts)), cuts)) == b"".join(parts)


def test_skippable_frames_of_zstd_are_skipped():
    frame = zstd.compress(b"x")
    assert decoded("zstd", [SKIPPABLE_FRAME + frame + SKIPPABLE_FRAME + frame]) == b"xx"


@pytest.mark.parametrize(("coding", "member"), [("gzip", gzip.compress(b"", mtime=0)), ("zstd", SKIPPABLE_FRAME)])
def test_members_are_not_begun_without_end(coding, member):
    assert decoded(coding, [member * codings.MAX_MEMBERS]) == b""
    with pytest.raises(TooLarge, match="members"):
        decoded(coding, [member * codings.MAX_MEMBERS, member])


@pytest.mark.parametrize("coding", ["", "identity", "Identity", " "])
def test_identity_gives_the_chunk_itself(coding):
    made = decoder(coding, 6)
    chunk = bytes(bytearray(b"abc"))
    (piece,) = made.feed(chunk)
    assert piece is chunk
    assert list(made.feed(b"")) == []
    assert list(made.feed(b"def")) == [b"def"]
    made.end()
    with pytest.raises(TooLarge):
        list(made.feed(b"g"))


@pytest.mark.parametrize("coding", ["GZIP", " gzip ", "X-Gzip", "Deflate", "ZSTD"])
def test_names_are_read_in_any_case(coding):
    (encode, *_) = ENCODERS[coding.strip().lower()]
    assert decoded(coding, [encode(b"x")]) == b"x"


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, gzip", "gzip,zstd", "identity, gzip", "*", "x" * 10_000])
def test_other_codings_are_refused_and_told_what_is_supported(coding):
    with pytest.raises(UnsupportedMedia, match="gzip, deflate, zstd, snappy") as refused:
        decoder(coding, MIB)
    assert len(str(refused.value)) < 200


def test_what_is_named_as_supported_is():
    for coding in codings.SUPPORTED:
        decoder(coding, MIB)


@each_coding
def test_the_limit_is_exact(coding, encode):
    data = os.urandom(3 * PIECE_BYTES + 7)
    assert decoded(coding, [encode(data)], len(data)) == data
    with pytest.raises(TooLarge, match=str(len(data) - 1)):
        decoded(coding, [encode(data)], len(data) - 1)


@each_coding
def test_a_bomb_is_refused_without_being_unpacked(coding, encode):
    limit = MIB
    bomb = encode(bytes(64 * MIB))
    made = decoder(coding, limit)
    given_out = 0
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):  # noqa: PT012
            for piece in made.feed(bomb):
                given_out += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert given_out <= limit
    assert peak < 8 * PIECE_BYTES


def test_a_zstd_window_over_eight_mebibytes_is_refused():
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(options={parameter.window_log: 23})
    data = bytes(9 * MIB)
    assert decoded("zstd", [compressor.compress(data) + compressor.flush()]) == data
    compressor = zstd.ZstdCompressor(options={parameter.window_log: 24})
    with pytest.raises(Unreadable, match="too much memory"):
        decoded("zstd", [compressor.compress(data) + compressor.flush()])


@each_coding
def test_what_is_cut_off_is_unreadable(coding, encode):
    coded = encode(b"a log line, and another one")
    for length in range(len(coded)):
        with pytest.raises(Unreadable):
            decoded(coding, [coded[:length]])


@each_coding
@pytest.mark.parametrize("garbage", [b"x", b"\0", b"\n", b"garbage behind the end", bytes(100)])
def test_garbage_behind_the_end_is_unreadable(coding, encode, garbage):
    coded = encode(b"a log line")
    for chunks in ([coded + garbage], [coded, garbage]):
        with pytest.raises(Unreadable):
            decoded(coding, chunks)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@given(data=st.binary(min_size=1))
@settings(deadline=None)
def test_text_that_is_not_coded_is_unreadable(coding, data):
    with pytest.raises(Unreadable):
        decoded(coding, [data])


@given(st.sampled_from(CODED), st.integers(0, 200), st.integers(1, 255))
@settings(deadline=None)
def test_a_changed_byte_gives_the_data_or_unreadable(coded, at, mask):
    coding, encode = coded
    body = bytearray(encode(b"a log line, and another log line"))
    body[at % len(body)] ^= mask
    try:
        decoded(coding, [bytes(body)])
    except Unreadable as error:
        assert str(error)  # noqa: PT017


@given(st.sampled_from(list(ENCODERS)), st.lists(st.binary(), max_size=5))
@settings(deadline=None)
def test_random_bytes_raise_nothing_unforeseen(coding, chunks):
    try:
        decoded(coding, chunks)
    except (Unreadable, TooLarge) as error:
        assert str(error)  # noqa: PT017
