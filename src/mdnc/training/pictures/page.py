"""A PNG made of panels side by side; drawn without a screen and without matplotlib's global state."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mdnc._files import whole_file


class Panel(NamedTuple):
    """A part of a page: what draws it on a (sub)figure, and its size in inches."""

    draw: Callable[[Any], None]
    width: float
    height: float


def save_page(path: Path, title: str, panels: Sequence[Panel]) -> Path:
    """Draw panels side by side under one title and write them to a PNG file.

    Args:
        path: The file.
        title: A sentence that says what is seen.
        panels: At least one.
    """
    height = max(panel.height for panel in panels) + 0.4
    figure = Figure(figsize=(sum(panel.width for panel in panels), height), layout='constrained', dpi=120)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, wrap=True)
    parts = figure.subfigures(1, len(panels), width_ratios=[panel.width for panel in panels], squeeze=False)
    for part, panel in zip(parts[0], panels, strict=True):
        panel.draw(part)
    with whole_file(path) as file:
        figure.savefig(file, format='png')
    return path
