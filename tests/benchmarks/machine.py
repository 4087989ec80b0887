"""The machine: its cores, and who runs on which."""

import contextlib
import os
import platform
from collections.abc import Iterator
from typing import Any

_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
#: What is measured runs on the first core, and so does what it is measured against.
MEASURED = set(_CORES[:1])
#: Load generators and backing servers have the rest (or share the only one).
REST = set(_CORES[1:]) or MEASURED
ALL = set(_CORES)


@contextlib.contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Processes started within run on ``cores``.

    They inherit it: setting it afterwards would reach only the first of their threads (sched_setaffinity(2)).
    """
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def state() -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    load = [round(average, 2) for average in os.getloadavg()]
    return {"python": platform.python_version(), "cores": len(_CORES) or os.cpu_count(), "load average": load}
