"""Content-Encoding undone (RFC 9110, section 8.4.1): as the bytes arrive, and never more of them than are allowed.

A decoder gives pieces of at most PIECE_BYTES and stops at its limit, so a body of a few kilobytes that stands for
gigabytes is refused without being unpacked.
"""

import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import cramjam

from .errors import TooLarge, Unreadable, UnsupportedMedia

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: What ``decoder`` undoes, as Accept-Encoding names it.
SUPPORTED = ("gzip", "deflate", "zstd", "snappy")
#: A decoded piece is at most this long.
PIECE_BYTES = 64 * 1024
#: The window a zstd decoder has to have, and an encoder may not exceed (RFC 9659): 8 MiB.
ZSTD_WINDOW_LOG = 23
#: Gzip members or zstd frames in one body. An empty one is 8 bytes and takes 50 microseconds to begin.
MAX_MEMBERS = 10_000

_GZIP_WBITS = 16 + zlib.MAX_WBITS
_DEFLATED = 8
#: A snappy block begins with its length once it is undone, in so many bytes at the most.
_SNAPPY_HEAD = 5


class Decoder(ABC):
    """Undoes the coding of one body. After an exception it is of no further use."""

    #: Whether what it is fed stays in memory until the end.
    keeps = False

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._decoded = 0

    @abstractmethod
    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The decoded pieces of ``chunk``, to be taken to the last one before the next call.

        Raises TooLarge in place of the piece that passes the limit, Unreadable where the bytes are not in this coding.
        """

    @abstractmethod
    def end(self) -> Sequence[bytes]:
        """The body is over: the pieces that waited for that, once. Raises Unreadable when it is cut off."""

    def _counted(self, piece: bytes) -> bytes:
        self._decoded += len(piece)
        if self._decoded > self._limit:
            raise TooLarge(f"the body is over {self._limit} bytes once its coding is undone")
        return piece


class _Identity(Decoder):
    def feed(self, chunk: bytes) -> Iterator[bytes]:
        if chunk:
            yield self._counted(chunk)

    def end(self) -> Sequence[bytes]:
        return ()


class _Member(Protocol):
    """One zlib stream, gzip member or zstd frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def pieces(self, chunk: bytes) -> Iterator[bytes]: ...


class _Inflated:
    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        # A full piece may have left output inside zlib although all input is taken.
        full = True
        while (chunk or full) and not self._stream.eof:
            piece = self._stream.decompress(chunk, PIECE_BYTES)
            chunk = self._stream.unconsumed_tail
            full = len(piece) == PIECE_BYTES
            if piece:
                yield piece


class _Frame:
    def __init__(self) -> None:
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        self._frame = zstd.ZstdDecompressor(options=options)

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        wants = False
        while not wants and not self._frame.eof:
            piece = self._frame.decompress(chunk, PIECE_BYTES)
            chunk = b""
            wants = self._frame.needs_input
            if piece:
                yield piece


class _Coded(Decoder):
    """A body of one or more members, one after the other."""

    def __init__(self, name: str, limit: int, begin: Callable[[bytes], _Member], most: int) -> None:
        super().__init__(limit)
        self._name = name
        self._begin = begin
        self._most = most
        self._begun = 0
        self._member: _Member | None = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        # zlib copies what it has not taken yet with every piece: of a long chunk that would be the square of it.
        for start in range(0, len(chunk), PIECE_BYTES):
            yield from self._feed(chunk[start : start + PIECE_BYTES])

    def _feed(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self._member is None:
                self._member = self._next_member(chunk)
            for piece in self._pieces(self._member, chunk):
                yield self._counted(piece)
            if not self._member.eof:
                return
            chunk = self._member.unused_data
            self._member = None

    def end(self) -> Sequence[bytes]:
        if self._member is not None or not self._begun:
            raise Unreadable(f"the body is cut off: its {self._name} coding has no end")
        return ()

    def _next_member(self, chunk: bytes) -> _Member:
        if self._begun == self._most == 1:
            raise Unreadable(f"the body goes on behind the end of its {self._name} coding")
        if self._begun == self._most:
            raise TooLarge(f"the body has more than {self._most} {self._name} members")
        self._begun += 1
        return self._begin(chunk)

    def _pieces(self, member: _Member, chunk: bytes) -> Iterator[bytes]:
        try:
            yield from member.pieces(chunk)
        except (zlib.error, zstd.ZstdError) as error:
            raise Unreadable(f"the body is not {self._name} that this server reads: {error}") from None


class _Snappy(Decoder):
    """A block, which cannot be read before all of it is there."""

    keeps = True

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._block = bytearray()
        self._ended = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        head = self._block[:_SNAPPY_HEAD] + chunk[:_SNAPPY_HEAD]
        if len(head) >= _SNAPPY_HEAD:
            check_unsnapped(head, self._limit)
        self._block += chunk
        yield from ()

    def end(self) -> Sequence[bytes]:
        if self._ended:
            return ()
        decoded = unsnapped(self._block, self._limit)
        self._ended = True
        self._block.clear()
        return [decoded[start : start + PIECE_BYTES] for start in range(0, len(decoded), PIECE_BYTES)]


def unsnapped(block: bytes | bytearray, limit: int) -> bytes:
    """What a block of snappy holds. Raises TooLarge when that is more than ``limit`` bytes, and Unreadable."""
    check_unsnapped(block, limit)
    try:
        return bytes(cramjam.snappy.decompress_raw(block))
    except cramjam.DecompressionError as error:
        raise _no_block(error) from None


def check_unsnapped(head: bytes | bytearray, limit: int) -> None:
    """Raise what ``unsnapped`` does, as far as the first bytes of a block tell; nothing is unpacked for this."""
    try:
        size = cramjam.snappy.decompress_raw_len(head)
    except cramjam.DecompressionError as error:
        raise _no_block(error) from None
    if size > limit:
        raise TooLarge(f"the body is {size} bytes once its snappy is undone, over {limit} (--max_body_bytes)")


def _no_block(error: cramjam.DecompressionError) -> Unreadable:
    return Unreadable(f"the body is not a block of {error}")


def _gzip(limit: int) -> Decoder:
    return _Coded("gzip", limit, lambda _: _Inflated(_GZIP_WBITS), MAX_MEMBERS)


def _deflate(limit: int) -> Decoder:
    return _Coded("deflate", limit, _deflated, 1)


def _deflated(chunk: bytes) -> _Member:
    # "deflate" is the zlib format, and some clients send what is inside it. The zlib format begins with the low
    # bits 1000 (RFC 1950, CM). To a raw stream those would be a stored block with its padding set: nobody writes that.
    return _Inflated(zlib.MAX_WBITS if chunk[0] & 0x0F == _DEFLATED else -zlib.MAX_WBITS)


def _zstd(limit: int) -> Decoder:
    return _Coded("zstd", limit, lambda _: _Frame(), MAX_MEMBERS)


_DECODERS: dict[str, Callable[[int], Decoder]] = {
    "": _Identity,
    "identity": _Identity,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    # So the OpenTelemetry Collector calls the zlib format (config/configcompression).
    "zlib": _deflate,
    "zstd": _zstd,
    "snappy": _Snappy,
}


def decoder(coding: str, limit: int) -> Decoder:
    """A decoder of the Content-Encoding ``coding`` that gives at most ``limit`` bytes.

    Raises UnsupportedMedia for a coding that is not supported, and for several on top of each other.
    """
    make = _DECODERS.get(coding.strip().lower())
    if make is None:
        raise UnsupportedMedia(f"Content-Encoding {coding[:80]!r} is not read here; send one of {', '.join(SUPPORTED)}")
    return make(limit)
