"""Where JSON values end that stand one after the other, without more of one being made than is read in one go.

Python's decoder tells where a value ends by making it. That is done of a text which cannot hold more values than a
record may have; where the end is beyond, msgspec passes the value over and makes nothing of it.
"""

import json
import re

import msgspec

from . import jsontext

#: Finds where a value ends: numbers are not made, since there are some that Python does not make of digits.
_SCANNER = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len)
#: A cut may go through a token; the longest that is not a string is -Infinity, and escapes are shorter.
_LONGEST_TOKEN = 12
_PASSED_OVER = msgspec.json.Decoder(msgspec.Raw)
#: What msgspec says of a value with something behind it, and of one that is not whole.
_BEHIND = re.compile(r"trailing characters \(byte (\d+)\)")
_NOT_WHOLE = "truncated"
#: To msgspec, half of a pair of escapes at the very end of a text is not whole either.
_PAIR = 12


class Broken(ValueError):
    """There is no JSON value: ``msg`` says why not, and ``pos`` where that showed."""

    def __init__(self, msg: str, pos: int) -> None:
        super().__init__(f"{msg}: character {pos}")
        self.msg, self.pos = msg, pos


def is_cut_off(msg: str, pos: int, text: str) -> bool:
    """Whether what is wrong with ``text`` may be no more than that it is not yet whole."""
    return msg.startswith("Unterminated string") or pos >= len(text) - _LONGEST_TOKEN


def length_of(text: bytes | memoryview) -> int | None:
    """How long the value is that ``text`` begins with, and space behind it; None when msgspec reads no whole one."""
    return _passed_over(text)[0]


def _passed_over(text: bytes | memoryview) -> tuple[int | None, str]:
    try:
        return len(_PASSED_OVER.decode(text)), ""
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        behind = _BEHIND.search(str(error))
        # It counts what it has read, and that is one byte too many.
        return int(behind[1]) - 1 if behind else None, str(error)


class Ends:
    """The ends of the values of one text, which are asked for from its beginning on."""

    def __init__(self, text: str) -> None:
        """``text`` may have lone surrogates for bytes that are not UTF-8 (PEP 383)."""
        self._text = text
        self._begin, self._part = 0, text[: jsontext.SPARSE_BYTES]

    def of(self, start: int) -> int:
        """Where the value at ``start`` ends.

        Raises Broken when it is none, RecursionError when it is too deep, and TooLarge when it may be of more values
        than are read in one go and only Python's decoder could tell where it ends.
        """
        end = self._of_part(start)
        if end is None and start > self._begin:
            self._begin, self._part = start, self._text[start : start + jsontext.SPARSE_BYTES]
            end = self._of_part(start)
        return self._of_long(start) if end is None else end

    def _of_part(self, start: int) -> int | None:
        """As ``of``; None when it is not in the part of the text that is looked at."""
        is_last = self._begin + len(self._part) == len(self._text)
        try:
            end = _SCANNER.raw_decode(self._part, start - self._begin)[1]
        except json.JSONDecodeError as error:
            if is_last or not is_cut_off(error.msg, error.pos, self._part):
                raise Broken(error.msg, self._begin + error.pos) from None
            return None
        # A number might go on.
        return self._begin + end if is_last or end < len(self._part) else None

    def _of_long(self, start: int) -> int:
        rest = self._text[start:].encode("utf-8", "surrogateescape")
        length, problem = _passed_over(rest)
        if length is not None:
            return start + len(rest[:length].rstrip(b" \t\r\n").decode("utf-8", "surrogateescape"))
        if _NOT_WHOLE in problem and b"\\u" not in rest[-_PAIR:]:
            raise Broken("it has no end", len(self._text))
        # What msgspec does not read: NaN, or half of a pair of escapes.
        jsontext.check_values(rest)
        try:
            return _SCANNER.raw_decode(self._text, start)[1]
        except json.JSONDecodeError as error:
            raise Broken(error.msg, error.pos) from None
