"""One picture of the comparison: what each way of running the networks keeps in memory, and how fast it trains."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import measures
from benchmarks.page import ordered, unique
from benchmarks.results import Row

OURS, THEIRS = '#1b6ca8', '#8a8a8a'


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the rows of the networks part, a dot for each network and a bar for their geometric mean."""
    names = ordered(rows)[::-1]
    figure = Figure(figsize=(10, 0.42 * len(names) + 1.5), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, names, {name: _ratios(rows, name, measures.KEPT) for name in names})
    speeds = {name: [1 / ratio for ratio in _ratios(rows, name, measures.STEP)] for name in names}
    _panel(right, names, speeds)
    left.set_title('Memory kept for backward\n← less is better', fontsize=11)
    right.set_title('Speed of a training step\nmore is better →', fontsize=11)
    cases = len(unique(row.case for row in rows))
    figure.supxlabel(
        'blue: mdnc, grey: torch; relative to plain eager torch in its better layout; '
        f'bars: geometric mean, dots: the {cases} networks\n'
        f'{rows[0].cpu}, {rows[0].threads} threads, torch {rows[0].torch}',
        fontsize=9,
    )
    figure.savefig(path, dpi=150)


def _ratios(rows: Sequence[Row], name: str, measure: str) -> list[float]:
    return [row.ratio for row in rows if (row.contender, row.measure) == (name, measure)]


def _panel(axes: Axes, names: Sequence[str], values: dict[str, list[float]]) -> None:
    for place, name in enumerate(names):
        mean = math.prod(values[name]) ** (1 / len(values[name]))
        colour = THEIRS if name.startswith('plain') else OURS
        axes.barh(place, mean, color=colour, alpha=0.75)
        axes.plot(values[name], [place] * len(values[name]), 'o', color='black', markersize=3.5, alpha=0.7)
        axes.annotate(
            f'{mean:.2f}',
            (max(values[name]), place),
            xytext=(6, 0),
            textcoords='offset points',
            va='center',
            fontsize=9,
            bbox={'color': 'white', 'pad': 1, 'alpha': 0.8},
        )
    axes.axvline(1, color='black', linewidth=0.8, linestyle='--')
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1.15 * max(max(own) for own in values.values()))
    axes.spines[['top', 'right']].set_visible(False)
