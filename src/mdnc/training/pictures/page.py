"""A PNG made of panels side by side; drawn without a screen and without matplotlib's global state."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mdnc._files import whole_file

_WIDEST = 15.0  # inches: what a screen shows without scrolling
_TITLE = 13  # points
_LETTER = 0.62 * _TITLE / 72  # inches that a letter of the title takes, rather more


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


def wrapped(title: str, width: float) -> list[str]:
    """A title in lines that ``width`` inches hold."""
    return textwrap.wrap(title, max(20, int(width / _LETTER)), break_on_hyphens=False) or ['']


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
    lines = wrapped(title, width - 0.4)
    layout = ConstrainedLayoutEngine(w_pad=0.1)  # with less, labels of three lines are cut
    figure = Figure(figsize=(width, sum(heights) + 0.15 + 0.25 * len(lines)), layout=layout, dpi=120)
    FigureCanvasAgg(figure)
    figure.suptitle('\n'.join(lines), fontsize=_TITLE)
    strips = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for strip, row in zip(strips, rows, strict=True):
        parts = strip.subfigures(1, len(row), width_ratios=[panel.width for panel in row], squeeze=False)[0]
        for part, panel in zip(parts, row, strict=True):
            panel.draw(part)
    with whole_file(path) as file:
        figure.savefig(file, format='png')
    return path
