"""What watchers are sent: records and what becomes of them, as Server-Sent Events (HTML standard, section 9.2)."""

from collections.abc import Mapping, Sequence
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

from . import jsontext

Document = dict[str, Any]

#: A comment: it keeps the connection, and finds out whether there is one.
NOTHING = b":\n\n"
_CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)


def decode(record: bytes) -> Document:
    """A record as queries and events take it."""
    return bson.decode(record, _CODEC)


def event(name: str, value: Any, position: bytes = b"") -> bytes:
    """One event of the stream, behind which its watcher is at ``position``."""
    place = b"id: %b\n" % position if position else b""
    return b"%bevent: %b\ndata: %b\n\n" % (place, name.encode(), jsontext.write(value))


def passed(position: bytes) -> bytes:
    """Nothing happens, but all before ``position`` has been seen: an event without data."""
    return b"id: %b\n:\n\n" % position


def record_event(document: Document, stored: bool, position: bytes) -> bytes:
    """The event that shows a record."""
    return event("record", {**document, "state": "stored" if stored else "queued"}, position)


def fates(settled: Mapping[bytes, str | None]) -> bytes:
    """The events that tell what became of records: stored or, for a reason, in quarantine; none when there are none."""
    stored = [record_id for record_id, reason in settled.items() if reason is None]
    refused = [{"id": record_id.hex(), "reason": reason} for record_id, reason in settled.items() if reason is not None]
    return b"".join([_stored(stored), *(event("quarantined", each) for each in refused)])


def _stored(ids: Sequence[bytes]) -> bytes:
    # Each group has a list of its own, of what may be thousands: json takes five times as long.
    listed = '","'.join(map(bytes.hex, ids))
    return b'event: stored\ndata: {"ids":["%b"]}\n\n' % listed.encode() if ids else b""


def missed(count: int | None, position: bytes) -> bytes:
    """The event that tells that ``count`` records, or an unknown number of them, will not be shown."""
    return event("missed", {"missed": count}, position)
