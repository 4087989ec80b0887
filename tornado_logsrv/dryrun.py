"""``--dry_run``: what ``--retention_days`` and ``--retention`` would delete now; nothing is deleted."""

import time
from collections.abc import Sequence

from pymongo.errors import PyMongoError

from . import embedded
from .config import Options
from .errors import StartError
from .retention import Found
from .rules import Rule
from .serverlog import iso
from .store import RecordStore

_HEAD = ("rule", "kept for", "to be deleted", "oldest", "newest")


async def show(options: Options) -> None:
    """Print a line for each rule. Raises StartError when MongoDB cannot be asked."""
    if options.mongo_url:
        print(table(await find(options, options.mongo_url)))
        return
    data = embedded.DataDirectory(options.data_dir)
    child, url = embedded.mongodb(data.path)
    try:
        await child.start()
        print(table(await find(options, url)))
    finally:
        await child.stop()
        data.release()


async def find(options: Options, url: str, now_ms: int | None = None) -> list[Found]:
    """What each rule would delete at ``now_ms`` (none: now). Raises StartError."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    every = [Rule("", "", options.retention_days)] if options.retention_days else []
    store = RecordStore(url, options.mongo_db, options.mongo_collection, options.query_timeout)
    try:
        return [await store.retention.find(rule, now_ms) for rule in (*every, *options.retention)]
    except PyMongoError as error:
        raise StartError(f"--dry_run: MongoDB cannot be asked: {type(error).__name__} (--mongo_url)") from None
    finally:
        await store.close()


def table(found: Sequence[Found]) -> str:
    """``found`` as text."""
    if not found:
        return "nothing is ever deleted: there is neither --retention_days nor --retention"
    rows = [_HEAD, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(found: Found) -> tuple[str, ...]:
    times = ("-" if moment is None else iso(moment / 1000) for moment in (found.oldest_ms, found.newest_ms))
    return (found.rule.name, f"{found.rule.days} days", f"{found.count:,}", *times)
