"""Where one HTTP/1.1 message ends and the next begins: heads, and bodies of a known length or chunked.

Stricter than the RFC asks: what two readers could read differently is refused (RFC 9112, section 11.2).
"""

import httptools
from tornado import httputil
from tornado.http1connection import is_transfer_encoding_chunked

END_OF_HEAD = b"\r\n\r\n"
_LONGEST_LENGTH = 18  # digits: what every recipient can count

_ALNUM = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_TOKEN = _ALNUM + b"!#$%&'*+-.^_`|~"  # RFC 9110, section 5.6.2
_HOST = _ALNUM + b"-._~:[]"  # of RFC 3986 what hosts are made of; the rest is for the ordinary path to judge
_HEXDIGITS = b"0123456789abcdefABCDEF"

#: Methods that llhttp is told. Others are read as POST: it knows no others, and treats CONNECT and PRI apart.
_METHODS = frozenset([b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
_VERSIONS = {b"HTTP/1.1": "HTTP/1.1", b"HTTP/1.0": "HTTP/1.0"}

#: Fields that decide where a message ends or how the connection goes on.
_DECISIVE = frozenset([b"content-length", b"transfer-encoding", b"host", b"connection", b"expect", b"upgrade"])

Headers = list[tuple[bytes, bytes]]


class HeadTooLarge(httputil.HTTPInputError):
    """The head passes max_header_size or max_header_count: answered 431, any other HTTPInputError 400."""


class Head:
    """Reads request heads, one after the other, and follows the bodies between them.

    The attributes are those of the head read last; ``fields`` are the decisive ones by their lower-case name,
    ``length`` is that of the body in bytes unless it is ``chunked``.
    """

    method: bytes
    target: bytes
    version: str
    headers: Headers
    fields: dict[bytes, bytes]
    length: int
    chunked: bool
    keep_alive: bool

    def __init__(self, max_count: int) -> None:
        self._max_count = max_count
        self._renew()

    def _renew(self) -> None:
        self._llhttp = httptools.HttpRequestParser(self)
        self._complete = False
        self._upgraded = False

    def read(self, head: bytes) -> None:
        """Read one whole head, its empty line included. Raises HTTPInputError."""
        if self._upgraded:
            self._renew()
        self.headers = []
        self.fields = {}
        self._complete = False
        try:
            self._read_request_line(head)
            self._llhttp.feed_data(head if self.method in _METHODS else b"POST" + head[len(self.method) :])
        except httptools.HttpParserUpgrade:
            # An offer to change protocols, which is not taken up: RFC 9110, section 7.8. llhttp stops here.
            self._upgraded = True
        except (ValueError, httptools.HttpParserError) as error:
            explain(head)
            raise httputil.HTTPInputError(str(error)) from error
        if len(self.headers) > self._max_count:
            raise HeadTooLarge("Too many header fields")
        self._decide()

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp has read a field."""
        value = value.strip(b" \t")
        self.headers.append((name, value))
        name = name.lower()
        if name in _DECISIVE:
            fields = self.fields
            fields[name] = fields[name] + b"," + value if name in fields else value

    def on_message_complete(self) -> None:
        """llhttp has read the end of the message."""
        self._complete = True

    def follow(self, content: bytes) -> None:
        """Show llhttp the next bytes of the body, as they were sent. Raises HTTPInputError."""
        if not self._upgraded:
            try:
                self._llhttp.feed_data(content)
            except httptools.HttpParserError as error:
                raise httputil.HTTPInputError(str(error)) from error

    def confirm_end(self) -> None:
        """Raises HTTPInputError unless llhttp, too, has seen the message end here."""
        if not (self._complete or self._upgraded):
            raise httputil.HTTPInputError("The end of the message is in dispute")

    def release(self) -> None:
        """Forget the parser, which knows this object: they are a cycle. No reading after that."""
        del self._llhttp

    def is_plain(self) -> bool:
        """Whether a fast route may have it: a sound Host, a known length, nothing to negotiate."""
        fields = self.fields
        host = fields.get(b"host")
        return (
            self.version == "HTTP/1.1"
            and self.keep_alive
            and not self.chunked
            and host is not None
            and not host.translate(None, _HOST)
            and b"expect" not in fields
            and b"upgrade" not in fields
        )

    def _read_request_line(self, head: bytes) -> None:
        """Raises ValueError. llhttp is lenient here: it takes several spaces, RTSP, and no version."""
        self.method, self.target, version = head[: head.index(b"\r\n")].split(b" ")
        if not self.method or self.method.translate(None, _TOKEN) or version not in _VERSIONS:
            raise ValueError("Malformed HTTP request line")
        self.version = _VERSIONS[version]

    def _decide(self) -> None:
        fields = self.fields
        self.length, self.chunked = _framing(fields.get(b"content-length"), fields.get(b"transfer-encoding"))
        connection = fields.get(b"connection")
        if connection is None:
            self.keep_alive = self.version == "HTTP/1.1"
        else:
            self.keep_alive = self._keeps_alive(connection)

    def _keeps_alive(self, connection: bytes) -> bool:
        """RFC 9112, section 9.3. As for Tornado, an HTTP/1.0 client must also show where its request ends."""
        options = [option.strip(b" \t") for option in connection.lower().split(b",")]
        if b"close" in options:
            return False
        if self.version == "HTTP/1.1":
            return True
        sized = self.chunked or b"content-length" in self.fields or self.method in (b"GET", b"HEAD")
        return sized and b"keep-alive" in options


def _framing(length: bytes | None, coding: bytes | None) -> tuple[int, bool]:
    """The length of a body in bytes, and whether it is chunked instead. Raises HTTPInputError.

    RFC 9112, section 6.3, and stricter: of several lengths not even equal ones are taken.
    """
    if coding is not None:
        headers = httputil.HTTPHeaders({"Transfer-Encoding": coding.decode("latin1")})
        if length is not None:
            headers["Content-Length"] = length.decode("latin1")
        return 0, is_transfer_encoding_chunked(headers)
    if length is None:
        return 0, False
    if b"," in length:
        raise httputil.HTTPInputError(f"Multiple unequal Content-Lengths: {length!r}")
    if not length.isdigit():  # of bytes: ASCII digits only
        raise httputil.HTTPInputError(f"Only integer Content-Length is allowed: {length!r}")
    if len(length) > _LONGEST_LENGTH:
        raise httputil.HTTPInputError("Content-Length too long")
    return int(length), False


def explain(head: bytes) -> None:
    """Raise what Tornado finds wrong with a head that was refused, if it finds anything.

    Its words are better than llhttp's, and known from its logs.
    """
    text = head.decode("latin1")
    line, _, lines = text.partition("\n")
    httputil.parse_request_start_line(line.rstrip("\r"))
    headers = httputil.HTTPHeaders.parse(lines)
    length, coding = headers.get("Content-Length"), headers.get("Transfer-Encoding")
    _framing(
        None if length is None else length.encode("latin1"),
        None if coding is None else coding.encode("latin1"),
    )


class FixedBody:
    """Cuts a body of a known length off the bytes received."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = not length

    def cut(self, received: bytearray, most: int) -> tuple[bytes, int]:
        """The next content, up to ``most`` bytes, and how many of the bytes received it took."""
        content = bytes(received[: min(self._left, most)])
        self._left -= len(content)
        self.done = not self._left
        return content, len(content)


class ChunkedBody:
    """Cuts a chunked body, without extensions and trailers, off the bytes received: RFC 9112, section 7.1."""

    _LONGEST_LINE = 64

    def __init__(self, max_size: int) -> None:
        self._room = max_size
        self._left = 0
        self._in_chunk = False
        self.done = False

    def cut(self, received: bytearray, most: int) -> tuple[bytes, int]:
        """The next content, of as many chunks as go into ``most`` bytes, and how many bytes received it took.

        Raises HTTPInputError for a chunk that is not exactly well-formed, or passes the size allowed.
        """
        content = bytearray()
        at = 0
        while not self.done and len(content) < most:
            if self._left:
                piece = received[at : at + min(self._left, most - len(content))]
                content += piece
                self._left -= len(piece)
                step = len(piece)
            else:
                step = self._end_chunk(received, at) if self._in_chunk else self._start_chunk(received, at)
            if not step:
                break
            at += step
        return bytes(content), at

    def _start_chunk(self, received: bytearray, at: int) -> int:
        """Read a size line, and after the last one the empty line. Returns the bytes taken, 0 for too few."""
        end = received.find(b"\r\n", at, at + self._LONGEST_LINE)
        if end < 0:
            if len(received) - at >= self._LONGEST_LINE:
                raise httputil.HTTPInputError("invalid chunk size")
            return 0
        size = _chunk_size(received[at:end])
        if not size:
            return self._end_body(received, at, end + 2)
        if size > self._room:
            raise httputil.HTTPInputError("chunked body too large")
        self._room -= size
        self._left = size
        self._in_chunk = True
        return end + 2 - at

    def _end_chunk(self, received: bytearray, at: int) -> int:
        if len(received) < at + 2:
            return 0
        if received[at : at + 2] != b"\r\n":
            raise httputil.HTTPInputError("improperly terminated chunk")
        self._in_chunk = False
        return 2

    def _end_body(self, received: bytearray, at: int, last: int) -> int:
        if len(received) < last + 2:
            return 0
        if received[last : last + 2] != b"\r\n":
            raise httputil.HTTPInputError("improperly terminated chunked request")
        self.done = True
        return last + 2 - at


def _chunk_size(digits: bytearray) -> int:
    if not digits or digits.translate(None, _HEXDIGITS):  # int() takes signs, spaces and underscores too
        raise httputil.HTTPInputError("invalid chunk size")
    return int(digits, 16)
