"""What is measured beside the records: how long requests and writes take, and for how long the queue has waited."""

import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

#: Upper bounds of buckets: seconds of requests and round trips, and records of a batch.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
RECORDS = (1.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 750.0, 1000.0)
#: How often the queue is looked at, and how many looks are remembered.
LOOK_SECONDS = 1.0
_MOST_LOOKS = 512


class Histogram:
    """Observations counted in buckets.

    prometheus_client has one that is safe among threads; here there is one thread, and an observation costs a sixth.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """``bounds``: the inclusive upper bounds of the buckets, ascending; one more bucket has no bound."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count an observation, or several that are equal."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += count * value


Labels = tuple[str, str, int]


class Requests:
    """Durations of the requests that were answered, in seconds, by method, route and status."""

    def __init__(self) -> None:
        self._histograms: dict[Labels, Histogram] = {}

    def of(self, method: str, route: str, status: int) -> Histogram:
        """The histogram of these labels. They are kept for good, so there must not be many of them."""
        labels = (method, route, status)
        found = self._histograms.get(labels)
        if found is None:
            found = self._histograms[labels] = Histogram()
        return found

    def __iter__(self) -> Iterator[tuple[Labels, Histogram]]:
        return iter(sorted(self._histograms.items()))


class Waiting:
    """For how long the oldest record on the queue has waited: known from looks at the queue, not from the records.

    A look notes how many records there have been. The first look that counted the oldest one says when it was there,
    to within the time between two looks; when there are many, every second is forgotten, and half as many are noted.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: list[tuple[int, float]] = []
        self._gap = 0.0

    def look(self, floor: int, next_place: int) -> None:
        """Records below place ``floor`` are stored; the next one gets ``next_place``."""
        now, stored = self._clock(), 0
        while stored < len(self._looks) and self._looks[stored][0] <= floor:
            stored += 1
        del self._looks[:stored]
        if not self._looks:
            self._gap = 0.0
        newest_place, newest = self._looks[-1] if self._looks else (floor, now)
        if next_place > newest_place and now - newest >= self._gap:
            self._looks.append((next_place, now))
        if len(self._looks) > _MOST_LOOKS:
            del self._looks[1::2]
            self._gap = 2 * self._gap or 1.5 * LOOK_SECONDS

    @property
    def seconds(self) -> float:
        """How long, as of the last look; 0 when nothing waited."""
        return self._clock() - self._looks[0][1] if self._looks else 0.0


class RouteNames:
    """The name of the route that a request took: its pattern, with a star where the paths differ."""

    def __init__(self, routes: Iterable[tuple[str, object]]) -> None:
        """``routes``: pairs of the path's pattern and the handler, in the order in which they are tried."""
        self._patterns: dict[object, list[tuple[re.Pattern[str], str]]] = {}
        for pattern, handler in routes:
            pattern = pattern.removesuffix("$")
            name = re.sub(r"\([^()]*\)", "*", pattern).replace("\\", "")
            self._patterns.setdefault(handler, []).append((re.compile(pattern), name))

    def of(self, handler: object, path: str) -> str:
        """The name of the first route to ``handler`` that ``path`` fits; ``other`` when there is none."""
        for pattern, name in self._patterns.get(handler, ()):
            if pattern.fullmatch(path):
                return name
        return "other"
