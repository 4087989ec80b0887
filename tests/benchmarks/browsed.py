"""The web page in Chromium over many stored records: its first paint, scrolling, and a busy live tail.

What the browser itself takes is told by the page of a server that has nothing stored, by a page of as many rows of
plain text, and by one that reads the same stream and shows nothing.
"""

import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.browser import Visit, chromium

from . import bars, machine
from .processes import ROOT
from .rows import Row, alone, compared
from .scale import Scale
from .servers import Backing, LogServer
from .watchers import Plan

#: Records a second while the page follows.
RATE = 1000
#: Enough records for the rows that are scrolled.
_FAR = "now-1h"
_FRAMES = 300
_PATIENCE_MS = 300_000
_KEYS_SECONDS = 0.1

_PAINTED = """() => new Promise((done) => {
    const [found] = performance.getEntriesByName('first-contentful-paint');
    if (found) done(found.startTime);
    else new PerformanceObserver((list) => {
        const [found] = list.getEntriesByName('first-contentful-paint');
        if (found) done(found.startTime);
    }).observe({ type: 'paint', buffered: true });
})"""
#: Notes when there are lines, or why there are none.
_NOTE_LINES = """
new MutationObserver((_, self) => {
    if (!document.querySelector('.row, #empty:not([hidden])')) return;
    window.lines = performance.now();
    self.disconnect();
}).observe(document, { subtree: true, childList: true, attributes: true });
"""
#: Loads older rows until so many are there.
_GROW = """async (wanted) => {
    const rows = document.getElementById('rows'), until = performance.now() + 60000;
    while (performance.now() < until) {
        rows.scrollTop = rows.scrollHeight;
        await new Promise(requestAnimationFrame);
        const last = [...document.querySelectorAll('.row')].at(-1);
        if (Number(last?.getAttribute('aria-posinset')) >= wanted) return true;
    }
    return false;
}"""
#: Scrolls from the end to the top; milliseconds of each frame.
_SCROLL = """async (frames) => {
    const rows = document.getElementById('rows'), times = [];
    rows.scrollTop = rows.scrollHeight;
    const step = rows.scrollHeight / frames;
    let last = await new Promise(requestAnimationFrame);
    for (let n = 0; n < frames; n++) {
        rows.scrollTop -= step;
        const now = await new Promise(requestAnimationFrame);
        times.push(now - last);
        last = now;
    }
    return times;
}"""
#: A page of rows of plain text, in a box of the size that the page has for its own.
_PLAIN = """([count, width, height]) => {
    const rows = document.createElement('pre');
    rows.id = 'rows';
    rows.style.cssText = `margin: 0; overflow: auto; width: ${width}px; height: ${height}px; font: 13px/20px monospace`;
    rows.textContent = Array.from({ length: count }, (_, n) =>
        `12:03:04.117     info    shop-${n % 20}           order is placed  user=u${n % 1000}`).join('\\n');
    document.body.style.margin = 0;
    document.body.append(rows);
}"""
#: Reads the stream that the page follows.
_READ = """() => new Promise((opened) => {
    const source = new EventSource('/logs/tail');
    source.addEventListener('record', (event) => { window.newest = JSON.parse(event.data); });
    source.onopen = () => opened();
})"""
#: From now on notes how long after a key was pressed the frame was drawn that could show it, and tasks over 50 ms.
_NOTE_KEYS = """() => {
    window.keys = [];
    window.tasks = [];
    addEventListener('keydown', (event) => requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => window.keys.push(performance.now() - event.timeStamp);
        channel.port2.postMessage(0);
    }));
    new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((task) => task.duration)))
        .observe({ type: 'longtask' });
}"""


def measure(scale: Scale, servers: Backing, server: LogServer) -> list[Row]:
    """Of the page of ``server``, in which ``scale.searched`` records are stored."""
    empty = servers.new_name()
    with LogServer(servers, empty, servers.mongo_url) as other, _browser() as browser:
        return [
            *_first(scale, browser, server.url, other.url),
            *_scrolled(scale, browser, server.url),
            *_followed(scale, browser, server.url),
        ]


@contextmanager
def _browser() -> Iterator[Any]:
    with machine.on(machine.MEASURED), chromium() as browser:
        yield browser


@contextmanager
def _page(browser: Any, url: str, path: str) -> Iterator[Any]:
    visit = Visit(browser, url)
    visit.context.add_init_script(_NOTE_LINES)
    visit.page.goto(url + path)
    # What a search found is there before all of it is counted.
    visit.page.locator(".row, #empty:not([hidden])").first.wait_for()
    yield visit.page
    visit.done()


def _first(scale: Scale, browser: Any, url: str, empty: str) -> list[Row]:
    paints: dict[str, list[float]] = {url: [], empty: []}
    shown: dict[str, list[float]] = {url: [], empty: []}
    for number in range(scale.warm_rounds + scale.rounds):
        for each in (url, empty):
            with _page(browser, each, "/") as page:
                # "/" is the last hour: its lines, or why there are none.
                found = page.evaluate(_PAINTED), page.evaluate("window.lines")
            if number >= scale.warm_rounds:
                paints[each].append(found[0])
                shown[each].append(found[1])
    note = f"{scale.searched:,} records stored, beside none; a new browser context each time, on the core of the server"
    second = [1000.0] * scale.rounds
    return [
        compared("page-paint", "page: first paint", "ms", paints[url], paints[empty], None, note),
        compared("page-paint-bar", "page: first paint, beside a second", "ms", paints[url], second, bars.PAINT, note),
        compared("page-lines", "page: the first lines are there", "ms", shown[url], shown[empty], None, note),
    ]


@dataclasses.dataclass
class _Busy:
    """What each round of one page has shown: times in milliseconds, and its thread's for a frame, or of a second."""

    times: list[list[float]] = dataclasses.field(default_factory=list)
    thread: list[float] = dataclasses.field(default_factory=list)
    tasks: list[float] = dataclasses.field(default_factory=list)

    @property
    def p99(self) -> list[float]:
        return [sorted(times)[len(times) * 99 // 100] for times in self.times]

    @property
    def median(self) -> float:
        return statistics.median(itertools.chain(*self.times))

    @property
    def longest(self) -> float:
        return max(itertools.chain(*self.times))


class _Thread:
    """Processor time of the thread that lays out a page and runs its scripts."""

    def __init__(self, page: Any) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent(self) -> float:
        """Milliseconds so far."""
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return 1000 * next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")


def _scrolled(scale: Scale, browser: Any, url: str) -> list[Row]:
    with _page(browser, url, f"/?from={_FAR}") as page:
        if not page.evaluate(_GROW, scale.scrolled):
            raise RuntimeError(f"the page does not come to {scale.scrolled} rows")
        page.locator("#river[aria-busy=false]").wait_for(state="attached", timeout=_PATIENCE_MS)
        count, *size = page.locator("#rows").evaluate(
            "({ scrollHeight, clientWidth, clientHeight }) => [scrollHeight / 20 | 0, clientWidth, clientHeight]"
        )
        plain = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        plain.evaluate(_PLAIN, [count, *size])
        ours, bare = _Busy(), _Busy()
        threads = {page: _Thread(page), plain: _Thread(plain)}
        for number in range(scale.warm_rounds + scale.rounds):
            for each, busy in ((page, ours), (plain, bare)):
                each.bring_to_front()
                before = threads[each].spent()
                times = each.evaluate(_SCROLL, _FRAMES)
                if number >= scale.warm_rounds:
                    busy.times.append(times)
                    busy.thread.append((threads[each].spent() - before) / _FRAMES)
        plain.context.close()
    note = (
        f"{scale.scrolled:,} rows from the end to the top in {_FRAMES} frames, beside as many of plain text; the "
        f"median frame took {ours.median:.0f} and {bare.median:.0f} ms, the longest {ours.longest:.0f} and "
        f"{bare.longest:.0f}"
    )
    what = "processor time of the page's own thread; compositing and raster are the same for both"
    return [
        compared("page-scroll", "page: frame while it is scrolled, p99", "ms", ours.p99, bare.p99, bars.SMOOTH, note),
        compared("page-scroll-cpu", "page: its thread for such a frame", "ms", ours.thread, bare.thread, None, what),
    ]


def _followed(scale: Scale, browser: Any, url: str) -> list[Row]:
    ours, bare = _Busy(), _Busy()
    for _ in range(scale.long_rounds):
        with _page(browser, url, "/?live=1") as page:
            page.locator("#live[data-state=on]").wait_for()
            # What it does at its beginning is not what following costs.
            page.locator("#river[aria-busy=false]").wait_for(state="attached", timeout=_PATIENCE_MS)
            _follow(page, url, scale.seconds, ours)
        other = browser.new_context().new_page()
        other.goto(f"{url}/healthz")
        other.evaluate(_READ)
        _follow(other, url, scale.seconds, bare)
        other.context.close()
    note = (
        f"a key pressed while {RATE} records/s are followed, until the frame after it; beside a page that reads the "
        f"same stream and shows nothing; the median {ours.median:.0f} and {bare.median:.0f} ms"
    )
    tasks = (
        f"meanwhile, the longest {max(ours.tasks, default=0):.0f} ms; the other page's {max(bare.tasks, default=0):.0f}"
    )
    seconds = scale.long_rounds * scale.seconds
    return [
        compared("page-key", "page: a key answered, p99", "ms", ours.p99, bare.p99, None, note),
        compared("page-follow-cpu", "page: its thread while it follows", "ms a second", ours.thread, bare.thread, None,
                 "processor time, meanwhile"),
        alone("page-tasks", "page: tasks over 50 ms", "a second", [len(ours.tasks) / seconds], tasks),
    ]  # fmt: skip


def _follow(page: Any, url: str, seconds: float, busy: _Busy) -> None:
    """Note how ``page`` answers keys while records come."""
    page.evaluate(_NOTE_KEYS)
    thread, began = _Thread(page), time.monotonic()
    before = thread.spent()
    sender = _sender(url, Plan(0, RATE, seconds))
    for _ in range(int(seconds / _KEYS_SECONDS)):
        page.wait_for_timeout(1000 * _KEYS_SECONDS)
        page.keyboard.press("Shift")
    busy.thread.append((thread.spent() - before) / (time.monotonic() - began))
    if sender.wait():
        raise RuntimeError("the sender failed")
    busy.times.append(page.evaluate("window.keys"))
    busy.tasks += page.evaluate("window.tasks")


def _sender(url: str, plan: Plan) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"{__package__}.watchers", url, json.dumps(dataclasses.asdict(plan))]
    with machine.on(machine.REST):
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
