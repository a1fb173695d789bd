"""How often answers are right, by the probability that a network gives them."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from mdnc.training.pictures.page import Panel

Array = NDArray[Any]


def _draw(figure: Any, counts: Array, confidence: Array, shares: Array) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    there = counts > 0
    upper.plot([0, 1], [0, 1], color='0.5', linewidth=1, label='as often right as it says')
    upper.plot(confidence[there], shares[there], marker='o', markersize=5, color='tab:blue', label='test')
    upper.set(ylabel='share that is right', title='reliability', xlim=(0, 1), ylim=(0, 1.03))
    edges = np.linspace(0, 1, len(counts) + 1)
    lower.bar(edges[:-1], counts, np.diff(edges), align='edge', color='tab:blue', alpha=0.6)
    lower.set(xlabel='probability of the answer', ylabel='samples')
    upper.yaxis.set_major_formatter(PercentFormatter(1))
    lower.xaxis.set_major_formatter(PercentFormatter(1))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    upper.legend(loc='upper left')


def reliability_panel(counts: Array, confidence: Array, shares: Array) -> Panel:
    """A panel with the share of right answers over their probability, and how many answers there are of each.

    Args:
        counts: Answers in bins of probability, ``(B,)``.
        confidence: Their mean probability.
        shares: The share of them that is right.
    """
    return Panel(partial(_draw, counts=counts, confidence=confidence, shares=shares), 4.6, 4.4)
