"""``fields=``: what of a record is answered."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadParameter
from ..query.fields import MAX_KEYS

MAX_NAMES = 100
#: Fields of a record that a query calls by their own names; all others are in ``data``.
THEMSELVES = ("_id", "message", "timestamp", "source", "data")

Document = dict[str, Any]
Path = tuple[str, ...]


def names(arguments: Mapping[str, str]) -> list[str]:
    """The names in ``fields``, as they are written; none when all is wanted. Raises BadParameter."""
    if "fields" not in arguments:
        return []
    found = list(dict.fromkeys(name.strip() for name in arguments["fields"].split(",")))
    if len(found) > MAX_NAMES or not all(found):
        raise BadParameter("fields", f"must be 1 to {MAX_NAMES} names with commas between them, as in level,user.id")
    for name in found:
        if name.count(".") > MAX_KEYS:
            raise BadParameter("fields", f"{name[:80]}: a name may have {MAX_KEYS} parts")
    return found


def path(name: str) -> Path:
    """Where in a record the field is that a query calls ``name``."""
    parts = tuple(name.split("."))
    return parts if parts[0] == "data" or name in THEMSELVES else ("data", *parts)


def project(document: Document, paths: Sequence[Path]) -> Document:
    """Of ``document``, its ``_id`` and what is at ``paths``, in its place; a key may have dots in it."""
    return {"_id": document["_id"], **_kept(document, paths)}


def projected(documents: Sequence[Document], wanted: Sequence[str]) -> Sequence[Document]:
    """``documents`` with what is ``wanted`` by name, or as they are when nothing is."""
    paths = [path(name) for name in wanted]
    return [project(document, paths) for document in documents] if paths else documents


def value_at(document: Document, where: Path) -> Any:
    """The one value at a path; a list when an array leads to several; None when there is none."""
    found = list(_values(document, where))
    return found[0] if len(found) == 1 else found or None


def _kept(value: Mapping[str, Any], paths: Sequence[Path]) -> Document:
    kept: Document = {}
    for key, item in value.items():
        parts = tuple(key.split("."))
        rests = [path[len(parts) :] for path in paths if path[: len(parts)] == parts]
        if () in rests:
            kept[key] = item
        elif rests and (below := _kept_below(item, rests)):
            kept[key] = below
    return kept


def _kept_below(value: Any, paths: Sequence[Path]) -> Any:
    if isinstance(value, list):
        return [below for each in value if (below := _kept_below(each, paths))]
    return _kept(value, paths) if isinstance(value, Mapping) else None


def _values(value: Any, where: Path) -> Any:
    if not where:
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _values(each, where)
    elif isinstance(value, Mapping):
        for size in range(1, len(where) + 1):
            key = ".".join(where[:size])
            if key in value:
                yield from _values(value[key], where[size:])
