"""The web page in Chromium over many stored records: its first paint, scrolling, and a busy live tail.

What the browser itself takes is told by the page of a server that has nothing stored, and gets nothing.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
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
            _scrolled(scale, browser, server.url),
            *_followed(scale, browser, server.url, other.url),
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


def _scrolled(scale: Scale, browser: Any, url: str) -> Row:
    with _page(browser, url, f"/?from={_FAR}") as page:
        if not page.evaluate(_GROW, scale.scrolled):
            raise RuntimeError(f"the page does not come to {scale.scrolled} rows")
        page.locator("#river[aria-busy=false]").wait_for(state="attached", timeout=_PATIENCE_MS)
        page.evaluate(_SCROLL, 10)
        frames = sorted(page.evaluate(_SCROLL, _FRAMES))
    usual = statistics.median(frames)
    note = (
        f"{scale.scrolled:,} rows, from the end to the top in {_FRAMES} frames, beside the median frame; "
        f"the longest took {frames[-1]:.0f} ms"
    )
    p99 = frames[len(frames) * 99 // 100]
    return compared("page-scroll", "page: frame while it is scrolled, p99", "ms", [p99], [usual], bars.SMOOTH, note)


def _followed(scale: Scale, browser: Any, url: str, empty: str) -> list[Row]:
    quiet, _ = _keys(browser, empty, None, scale.seconds)
    busy, tasks = _keys(browser, url, Plan(0, RATE, scale.seconds), scale.seconds)
    note = f"a key pressed while {RATE} records/s come, until the frame after it; beside a page that gets none"
    return [
        compared("page-key", "page: a key answered, p99", "ms", [_p99(busy)], [_p99(quiet)], None, note),
        alone("page-tasks", "page: tasks over 50 ms", "a second", [len(tasks) / scale.seconds],
              f"meanwhile, the longest {max(tasks, default=0):.0f} ms"),
    ]  # fmt: skip


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def _keys(browser: Any, url: str, plan: Plan | None, seconds: float) -> tuple[list[float], list[float]]:
    with _page(browser, url, "/?live=1") as page:
        page.locator("#live[data-state=on]").wait_for()
        page.evaluate(_NOTE_KEYS)
        sender = _sender(url, plan) if plan else None
        for _ in range(int(seconds / _KEYS_SECONDS)):
            page.wait_for_timeout(1000 * _KEYS_SECONDS)
            page.keyboard.press("Shift")
        if sender and sender.wait():
            raise RuntimeError("the sender failed")
        return page.evaluate("window.keys"), page.evaluate("window.tasks")


def _sender(url: str, plan: Plan) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"{__package__}.watchers", url, json.dumps(dataclasses.asdict(plan))]
    with machine.on(machine.REST):
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
