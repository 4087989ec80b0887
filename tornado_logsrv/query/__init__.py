"""The search language of ``q=``: Lucene's syntax, as in Kibana and Graylog, to a filter of MongoDB.

The grammar is luqum's; what it means here is this:

    timeout                     the word, in the record's text, in any case: not "timeouts", but "time-out: timeout."
    "connection refused"        these words in this order; any spaces between them
    time*  *out  t?me           * any characters but spaces (up to 100), also none; ? one of them
    /time.?out/  /x/i           a regular expression, anywhere in the text, in this case; with i in any (regexes.py)
    a b   a AND b   a && b      both: what one adds to a search narrows it
    a OR b   a || b             at least one; AND, written or not, binds more tightly
    NOT a   -a   !a   +a        not; + changes nothing, as all is required
    (a OR b) c                  grouping
    *                           every record, as the empty query does

The record's text is ``message``, ``data`` when it is text, and the keys of ``data`` that hold text by convention:
message, msg, log, event, error. A word begins and ends where a letter, digit or _ does not go on; where the script
has no spaces between words (Chinese, Japanese, Thai, …), it may be anywhere.

    level:error                 the value is this text from end to end, in any case; see below for why
    service:check*  path:*.png  with wildcards; here * is any characters, spaces also
    error:refused               in a key that holds text by convention (whatever it is within): the word, as above
    status:200                  the number, of whatever type (200, 200.0), or the text "200"
    ok:true   user:null         the value, or the text; null is not what is missing
    level:(error OR warn)       any expression, for one field
    latency_ms:[100 TO 200}     from 100, included, to 200, not included; * is no bound
    latency_ms:>=100            the same with one bound
    name:[a TO b]               texts, by their characters' numbers: upper case comes before lower
    timestamp:2026-01-31        that whole day; any moment of moments.py: also [now-15m TO now], >now-1d/d
    a.b:x                       the key b of a, or the key "a.b"; numbers in names are also places in arrays
    _exists_:trace_id           the record has the field, even if it is null or empty; also trace_id:*
    user:/j(oe|im)/             a regular expression, anywhere in the value: ^ and $ are its ends

``_id``, ``message``, ``timestamp``, ``source``, ``data`` and what begins with ``data.`` mean themselves, every other
name a key in ``data``. Ranges of numbers take numbers and texts that are plain numbers; ranges and values that are
dates take dates, and texts by their characters. A fraction such as 0.1 means both the double and the decimal. Of an
array one element has to match; through an array of objects, the bounds of a range may be met by different ones, as
in MongoDB. Quotes take away the meaning of special characters, and nothing else: status:"200" is status:200.

A value matches from end to end, not by its words, since that is what an index can find and what people mean by
service:checkout, where checkout-v2 is another service; service:*checkout* asks for the other.

Nothing of a query is run: words and values are compared, regular expressions written anew from a safe subset, and
names become paths or literals. ``~`` and ``^`` are refused. Limits: 2,000 characters, 50 terms, 20 levels, 10
wildcards in a term, 200 characters in a regular expression.
"""

import contextlib
import dataclasses
import functools
import re
import time
from collections.abc import Collection, Mapping
from typing import Any

from luqum.exceptions import ParseError
from luqum.thread import parse as parse_lucene

from .conditions import Context, Document
from .mending import changes
from .moments import moment
from .nodes import Everything, Node, time_range
from .reader import Reader
from .sight import Sight
from .tokens import Prepared, QueryError, prepare

__all__ = ["Query", "QueryError", "Sight", "moment", "parse"]

_POSITION = re.compile(r"position (\d+)")
#: What people write by hand. Each reading of a longer one takes milliseconds, in which nobody else has his turn.
_LONGEST_MENDED = 300
#: Queries that are kept as they were read.
_REMEMBERED = 128


@dataclasses.dataclass(frozen=True)
class Query:
    """A query that has been read: for MongoDB, and for documents at hand."""

    text: str
    root: Node

    def filter(self, now_ms: int | None = None, indexed: Collection[str] | None = None) -> Document:
        """The filter for MongoDB; empty when every record is asked for.

        ``now_ms`` is the time that relative moments count from. ``indexed`` are the paths that have an index, as
        far as that is known: a text in them is sought by all its spellings, each one place of the index; elsewhere
        one pattern is faster.
        """
        return self.root.filter(Context(_now(now_ms), indexed))

    def matches(self, document: Mapping[str, Any], now_ms: int | None = None) -> bool:
        """Whether the filter would select ``document``, as bson decodes it."""
        return self.root.matches(Sight(document, _now(now_ms)))

    def time_range(self, now_ms: int | None = None) -> tuple[int | None, int | None]:
        """[first millisecond, first one behind) that every match's timestamp is in; None is no bound."""
        return time_range(self.root, _now(now_ms))


@functools.lru_cache(maxsize=_REMEMBERED)
def parse(text: str) -> Query:
    """Read a query, once: each page, count and tail of a search asks with the same one.

    Raises QueryError, which points at the column, says what would be right, and what is nearest.
    """
    try:
        return _read(text)
    except QueryError as error:
        error.nearest = _nearest(text, error.column or 1)
        raise


def _nearest(text: str, column: int) -> str:
    if len(text) > _LONGEST_MENDED:
        return ""
    for changed in changes(text, column):
        with contextlib.suppress(QueryError):
            if changed.strip():
                _read(changed)
                return changed
    return ""


def _read(text: str) -> Query:
    if not text.strip():
        return Query(text, Everything())
    prepared = prepare(text)
    try:
        parsed = parse_lucene(prepared.text)
    except ParseError as error:
        raise _unreadable(prepared, str(error)) from None
    return Query(text, Reader(prepared).node(parsed, None, 0))


def _now(now_ms: int | None) -> int:
    return int(time.time() * 1000) if now_ms is None else now_ms


def _unreadable(prepared: Prepared, error: str) -> QueryError:
    found = _POSITION.search(error)
    position = int(found[1]) if found else len(prepared.text)
    column = prepared.column(position)
    rest = prepared.source[column - 1 :][:20]
    if not rest:
        return QueryError(column, "the query ends where more was expected; quote what is to be looked for as it stands")
    return QueryError(
        column, f"{rest!r} cannot stand here; a range is written [1 TO 5], and a quoted text is taken as it stands"
    )
