"""Rows: what was measured, beside what, and the table of them."""

import dataclasses
import statistics
import textwrap
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Bar:
    """What a ratio must be: at least, or at most, ``value``."""

    sign: str
    value: float

    def met_by(self, ratio: float) -> bool:
        """Whether ``ratio`` is on the right side."""
        return ratio >= self.value if self.sign == ">=" else ratio <= self.value

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


def at_least(value: float) -> Bar:
    """The bar of a ratio that is better when larger."""
    return Bar(">=", value)


def at_most(value: float) -> Bar:
    """The bar of a ratio that is better when smaller."""
    return Bar("<=", value)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table. ``id`` stays when counts change; ``ratios`` has one entry a round."""

    id: str
    name: str
    unit: str
    figure: float
    beside: float | None
    ratios: tuple[float, ...]
    bar: Bar | None
    note: str

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios, None when nothing stands beside the figure."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def meets(self) -> bool | None:
        """Whether the ratio meets the bar; None where there is no bar."""
        return None if self.bar is None or self.ratio is None else self.bar.met_by(self.ratio)

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON holds it."""
        spread = [min(self.ratios), max(self.ratios)] if self.ratios else None
        bar = str(self.bar) if self.bar else None
        return dataclasses.asdict(self) | {"ratio": self.ratio, "spread": spread, "bar": bar, "meets": self.meets}


def compared(
    id: str, name: str, unit: str, figures: Sequence[float], besides: Sequence[float], bar: Bar | None, note: str
) -> Row:
    """A row of rounds taken in turns: each figure is set against its neighbour, so that a slow minute hits both."""
    ratios = tuple(figure / beside for figure, beside in zip(figures, besides, strict=True))
    return Row(id, name, unit, statistics.median(figures), statistics.median(besides), ratios, bar, note)


def alone(id: str, name: str, unit: str, figures: Sequence[float], note: str) -> Row:
    """A row with nothing to set the figure against."""
    return Row(id, name, unit, statistics.median(figures), None, (), None, note)


_HEAD = ("measured", "figure", "beside", "unit", "ratio", "spread", "bar", "meets it")


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text, and below it the note of each."""
    cells = [_HEAD, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = [_aligned(line, widths) for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [textwrap.fill(f"{row.name}: {row.note}", 118, subsequent_indent="  ") for row in rows]
    return "\n".join([*lines, "", *notes])


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    # Numbers end, and words begin, at the same column.
    right = {"figure", "beside", "ratio", "spread", "bar"}
    fitted = [c.rjust(w) if head in right else c.ljust(w) for head, c, w in zip(_HEAD, cells, widths, strict=True)]
    return "  ".join(fitted).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    spread = f"{min(row.ratios):.2f}-{max(row.ratios):.2f}" if row.ratios else ""
    meets = {None: "", True: "yes", False: "NO"}[row.meets]
    return (row.name, _number(row.figure), _number(row.beside), row.unit, ratio, spread, str(row.bar or ""), meets)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
