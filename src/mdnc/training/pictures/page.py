"""A PNG made of panels side by side; drawn without a screen and without matplotlib's global state."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mdnc._files import whole_file

_WIDEST = 15.0  # inches: what a screen shows without scrolling


class Panel(NamedTuple):
    """A part of a page: what draws it on a (sub)figure, and its size in inches."""

    draw: Callable[[Any], None]
    width: float
    height: float


def _rows(panels: Sequence[Panel]) -> list[list[Panel]]:
    rows: list[list[Panel]] = [[]]
    for panel in panels:
        if rows[-1] and sum(other.width for other in rows[-1]) + panel.width > _WIDEST:
            rows.append([])
        rows[-1].append(panel)
    return rows


def save_page(path: Path, title: str, panels: Sequence[Panel]) -> Path:
    """Draw panels under one title, beside each other while there is room and then below, and write a PNG file.

    Args:
        path: The file.
        title: A sentence that says what is seen.
        panels: At least one.
    """
    rows = _rows(panels)
    heights = [max(panel.height for panel in row) for row in rows]
    width = max(sum(panel.width for panel in row) for row in rows)
    figure = Figure(figsize=(width, sum(heights) + 0.4), layout='constrained', dpi=120)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13)
    lines = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for line, row in zip(lines, rows, strict=True):
        parts = line.subfigures(1, len(row), width_ratios=[panel.width for panel in row], squeeze=False)[0]
        for part, panel in zip(parts, row, strict=True):
            panel.draw(part)
    with whole_file(path) as file:
        figure.savefig(file, format='png')
    return path
