"""``--dry_run``: what ``--retention_days`` and ``--retention`` would delete now; nothing is deleted."""

import time
from collections.abc import Sequence

from pymongo.errors import PyMongoError

from . import embedded, password
from .auth import Tokens
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
    child, url = await password.mongodb(data.path)
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
    tokens = Tokens.read(options.tokens_file) if options.tokens_file else ()
    tenants = sorted({"", *(token.tenant for token in tokens)})
    store = RecordStore(url, options.mongo_db, options.mongo_collection, options.query_timeout)
    try:
        rules = (*every, *options.retention)
        return [sum_of([await store.of(tenant).retention.find(rule, now_ms) for tenant in tenants]) for rule in rules]
    except PyMongoError as error:
        raise StartError(f"--dry_run: MongoDB cannot be asked: {type(error).__name__} (--mongo_url)") from None
    finally:
        await store.close()


def sum_of(found: Sequence[Found]) -> Found:
    """What one rule would delete in several collections."""
    oldest = [each.oldest_ms for each in found if each.oldest_ms is not None]
    newest = [each.newest_ms for each in found if each.newest_ms is not None]
    count = sum(each.count for each in found)
    return Found(found[0].rule, count, min(oldest, default=None), max(newest, default=None))


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
