"""Faults of a real MongoDB server."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def failing(mongo: Any, mode: Any, **data: Any) -> Iterator[None]:
    """MongoDB fails the server's commands, but not those of the test."""
    point = {"configureFailPoint": "failCommand", "mode": mode, "data": {"appName": "tornado_logsrv", **data}}
    mongo.admin.command(point)
    try:
        yield
    finally:
        mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
