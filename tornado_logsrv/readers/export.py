"""All that a query selects, as one stream: JSON a line, or CSV (RFC 4180)."""

import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import jsontext
from ..errors import BadParameter
from . import projection

#: What a CSV has of a record where nothing is asked for by name: the rest is in ``data``, as JSON.
COLUMNS = ("_id", "timestamp", "level", "source", "message", "data")

Document = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Form:
    """One form of an export: ``head`` stands before the first record, ``rows`` writes some of them.

    Both get the names of the fields that are wanted, none for all.
    """

    name: str
    media_type: str
    head: Callable[[Sequence[str]], bytes]
    rows: Callable[[Sequence[Document], Sequence[str]], bytes]


def _lines(documents: Sequence[Document], names: Sequence[str]) -> bytes:
    return b"".join([jsontext.write(document) + b"\n" for document in projection.projected(documents, names)])


def _csv_head(names: Sequence[str]) -> bytes:
    return _table([_columns(names)])


def _csv_rows(documents: Sequence[Document], names: Sequence[str]) -> bytes:
    paths = [projection.path(name) for name in _columns(names)]
    return _table([[_cell(projection.value_at(document, path)) for path in paths] for document in documents])


def _columns(names: Sequence[str]) -> Sequence[str]:
    return COLUMNS if not names else list(dict.fromkeys(("_id", *names)))


def _table(rows: Sequence[Sequence[str]]) -> bytes:
    # What a spreadsheet takes for a formula stays as it is: this is what was logged, to the letter.
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    written = jsontext.write(value).decode()
    return written[1:-1] if written.startswith('"') else written


NDJSON = Form("ndjson", "application/x-ndjson", lambda names: b"", _lines)
CSV = Form("csv", "text/csv; charset=utf-8", _csv_head, _csv_rows)
_BY_NAME: Mapping[str, Form | None] = {"json": None, "ndjson": NDJSON, "csv": CSV}
NAMES = tuple(_BY_NAME)
MEDIA_TYPES = tuple(form.media_type.partition(";")[0] for form in (NDJSON, CSV))
_BY_MEDIA_TYPE: Mapping[str, Form | None] = {
    "application/json": None,
    "application/x-ndjson": NDJSON,
    "application/ndjson": NDJSON,
    "application/jsonl": NDJSON,
    "text/csv": CSV,
}


def form(arguments: Mapping[str, str], accept: str) -> Form | None:
    """The form that ``format`` or else the first known media type of ``accept`` asks for; None: a page, as JSON.

    Raises BadParameter.
    """
    name = arguments.get("format")
    if name is not None:
        if name not in _BY_NAME:
            raise BadParameter("format", f"must be one of {', '.join(_BY_NAME)}")
        return _BY_NAME[name]
    for media_range in accept.split(","):
        media_type = media_range.partition(";")[0].strip().lower()
        if media_type in _BY_MEDIA_TYPE:
            return _BY_MEDIA_TYPE[media_type]
    return None
