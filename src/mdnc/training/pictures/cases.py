"""A score of each case, class by class."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from mdnc.training.pictures.page import Panel

Array = NDArray[Any]


def _draw(figure: Any, scores: Array, classes: list[str]) -> None:
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for number, column in enumerate(scores.T):
        there = column[np.isfinite(column)]
        axes.scatter(there, number + rng.uniform(-0.18, 0.18, len(there)), s=14, alpha=0.6, color='tab:blue')
        if len(there):
            axes.plot([np.median(there)] * 2, [number - 0.32, number + 0.32], color='tab:red', linewidth=2)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel='Dice score of a case; red: the median', xlim=(-0.02, 1.02), ylim=(len(classes) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)


def cases_panel(scores: Array, classes: list[str]) -> Panel:
    """A panel with a point for each case and class.

    Args:
        scores: ``(N, K)`` in [0, 1], NaN where a case has no score.
        classes: Names of the K classes.
    """
    return Panel(
        partial(_draw, scores=scores, classes=classes), 4.8, float(np.clip(1.2 + 0.42 * len(classes), 2.2, 12))
    )
