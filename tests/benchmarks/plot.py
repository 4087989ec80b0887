"""The bar chart of the comparison with other servers, written by hand as SVG: readable on light and dark pages.

``python -m tests.benchmarks.plot ROWS.json FILE.svg`` draws it from what ``--json`` has written.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .compare.processes import NAMES, OURS

_WIDTH = 760
_MARGIN = 20
_LABELS = 190
_VALUES = 170
_BAR = 16
_STEP = 22
_TITLE = 30
_GAP = 14

_STYLE = """
  .page { fill: #ffffff; stroke: #d0d7de }
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .small { font-size: 11px; fill: #59636e }
  .ours { fill: #0969da }
  .theirs { fill: #afb8c1 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d }
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .ours { fill: #4493f8 }
    .theirs { fill: #59636e }
  }
"""


@dataclasses.dataclass(frozen=True)
class Panel:
    """A group of bars: ours comes from the figures of rows, the others' from what stands beside them."""

    title: str
    #: The beginnings of the ids of rows, by who of ours their figures are.
    ids: Mapping[str, str]
    better: str


PANELS = (
    Panel("One record a POST, 32 connections: requests a second", {"memory": "one", "journal": "journal"}, "longer"),
    Panel("1000 records a POST, 32 connections: records a second", {"memory": "many"}, "longer"),
    Panel("Time to an answer, 99th percentile, 512 connections: ms", {"memory": "p99-512"}, "shorter"),
    Panel("Processor time for one record, one a POST: µs", {"memory": "processor-one"}, "shorter"),
    Panel("Memory of a queued record: bytes", {"memory": "memory"}, "shorter"),
)


def svg(rows: Sequence[Mapping[str, Any]], taken_on: str) -> str:
    """The chart of ``rows``, as ``Row.as_dict`` gives them; ``taken_on`` is its last line."""
    by_id = {row["id"]: row for row in rows}
    drawn: list[str] = []
    top = _MARGIN
    for panel in PANELS:
        if bars := _bars(panel, by_id):
            drawn += _panel(panel, bars, top)
            top += _TITLE + _STEP * len(bars) + _GAP
    drawn.append(_text(_MARGIN, top + 10, taken_on, "small"))
    return _page(drawn, top + 10 + _MARGIN)


def write(path: Path, rows: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> None:
    """Draw what was found on a machine of this ``state`` into a file."""
    taken_on = ", ".join(f"{name} {value}" for name, value in state.items() if name != "load average")
    path.write_text(svg(rows, f"One core for each server, the load from another. {taken_on}"), encoding="utf-8")


def _bars(panel: Panel, by_id: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Figures by server, ours first, the others from the best to the worst."""
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    for name, id in panel.ids.items():
        for other in NAMES:
            row = by_id.get(f"peers-{id}-{other}")
            if row is not None and other not in OURS:
                ours[name] = row["figure"]
                theirs[other] = row["beside"]
    best_first = sorted(theirs, key=theirs.__getitem__, reverse=panel.better == "longer")
    return ours | {other: theirs[other] for other in best_first}


def _panel(panel: Panel, bars: Mapping[str, float], top: float) -> list[str]:
    drawn = [_text(_MARGIN, top + 14, panel.title, "title")]
    drawn.append(_text(_WIDTH - _MARGIN, top + 14, f"{panel.better} is better", "small", "end"))
    room = _WIDTH - 2 * _MARGIN - _LABELS - _VALUES
    longest = max(bars.values())
    first = next(iter(bars.values()))
    for number, (name, value) in enumerate(bars.items()):
        at = top + _TITLE - 6 + number * _STEP
        width = max(1.0, room * value / longest)
        left = _MARGIN + _LABELS
        drawn.append(_text(left - 8, at + 13, NAMES[name], "", "end"))
        kind = "ours" if name in OURS else "theirs"
        drawn.append(f'<rect class="{kind}" x="{left}" y="{at}" width="{width:.1f}" height="{_BAR}" rx="2"/>')
        ratio = "" if number == 0 else f"  ({_times(value / first)})"
        drawn.append(_text(left + width + 6, at + 13, f"{_number(value)}{ratio}"))
    return drawn


def _times(ratio: float) -> str:
    return f"x {ratio:.2f}" if ratio < 10 else f"x {ratio:.0f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text{of_kind} x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'


def _page(drawn: Sequence[str], height: float) -> str:
    size = f'width="{_WIDTH}" height="{height:.0f}" viewBox="0 0 {_WIDTH} {height:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            "<title>tornado_logsrv beside other HTTP servers on one core</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1:.0f}" rx="6"/>',
            *drawn,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    write(Path(sys.argv[2]), found["rows"], found["before"])
