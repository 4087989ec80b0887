"""What each process of a log server takes while a trial goes on: memory, files, time to answer; and where that leads.

A process that is killed starts again from little, so each life is judged for itself.
"""

import csv
import dataclasses
import resource
from collections.abc import Iterable, Sequence
from pathlib import Path

#: A life that is shorter tells nothing of a slope.
_LEAST_SECONDS = 60.0
#: The first half of a life warms up: caches, connections, the allocator's arenas.
_WARM_PART = 0.5
_MIB = float(1 << 20)
_HOUR = 3600.0


@dataclasses.dataclass(frozen=True)
class Sample:
    """A life at one moment, ``elapsed`` seconds after the beginning of the trial; sizes in bytes.

    ``lag`` is for how many seconds at the most its event loop was late, in the minute before.
    """

    life: str
    elapsed: float
    resident: int
    files: int
    queue: int
    lag: float


@dataclasses.dataclass(frozen=True)
class Course:
    """One life, from its samples. Memory in MiB, ``slope`` in MiB an hour over its second half."""

    life: str
    minutes: float
    first: float
    last: float
    most: float
    slope: float
    files: int
    queue: float
    lag_ms: float


def read(pid: int) -> tuple[int, int]:
    """The resident bytes and the open files of a process. Raises OSError when it has ended."""
    # proc(5): the second field of statm counts the resident pages.
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize(), sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the line of least squares through (x, y) points; 0 when all have one x."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def courses(samples: Iterable[Sample]) -> list[Course]:
    """Each life that was long enough, in the order of their beginnings."""
    lives: dict[str, list[Sample]] = {}
    for sample in samples:
        lives.setdefault(sample.life, []).append(sample)
    return [_course(life) for life in lives.values() if life[-1].elapsed - life[0].elapsed >= _LEAST_SECONDS]


def _course(life: Sequence[Sample]) -> Course:
    began, ended = life[0].elapsed, life[-1].elapsed
    warm = began + (ended - began) * _WARM_PART
    points = [(sample.elapsed / _HOUR, sample.resident / _MIB) for sample in life if sample.elapsed >= warm]
    return Course(
        life[0].life,
        (ended - began) / 60,
        life[0].resident / _MIB,
        life[-1].resident / _MIB,
        max(sample.resident for sample in life) / _MIB,
        slope(points),
        max(sample.files for sample in life),
        max(sample.queue for sample in life) / _MIB,
        max(sample.lag for sample in life) * 1000,
    )


_HEAD = ("process", "minutes", "first MiB", "last", "most", "MiB/h", "files", "queue MiB", "lag ms")


def table(found: Sequence[Course]) -> str:
    """A line for each life, aligned; "files", "queue MiB" and "lag ms" are the most that was seen."""
    rows = [_HEAD, *(_cells(course) for course in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )  # fmt: skip


def _cells(course: Course) -> tuple[str, ...]:
    _, *numbers = dataclasses.astuple(course)
    return (course.life, *(f"{number:.1f}" if isinstance(number, float) else str(number) for number in numbers))


def write(path: Path, samples: Iterable[Sample]) -> None:
    """All samples as CSV, with a header. Raises OSError."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in dataclasses.fields(Sample))
        writer.writerows(dataclasses.astuple(sample) for sample in samples)
