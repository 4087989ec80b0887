"""Which fields ``--index`` gives an index, and what such an index is."""

from .query.fields import TEXT_KEYS, field

MAX_INDEXES = 20
#: What has an index, or has no use for one.
_REFUSED = frozenset({"_id", "timestamp", "data"})


def parse(text: str) -> tuple[str, ...]:
    """The paths of ``text``: names as in q, with commas between them. Raises ValueError."""
    paths = dict.fromkeys(_path(name.strip()) for name in text.split(",") if name.strip())
    if len(paths) > MAX_INDEXES:
        raise ValueError(f"must be {MAX_INDEXES} names at the most")
    return tuple(paths)


def _path(name: str) -> str:
    key = name.removeprefix("data.")
    # A name with a dot means a key with a dot, too, which no path reaches: the search could not use the index. Neither
    # could that for words.
    useful = name not in _REFUSED and key not in TEXT_KEYS and "." not in key and key.isprintable()
    path = field(name).path if useful else None
    if path is None:
        raise ValueError("must be names such as level,trace_id: keys of data without dots, but for text, or source")
    return path


def keys(path: str) -> list[tuple[str, int]]:
    """What is indexed for ``path``: within a value, the records are in the order in which they are read."""
    return [(path, 1), ("timestamp", 1), ("_id", 1)]


def name(path: str) -> str:
    """What such an index is called."""
    return f"logsrv_{path}"
