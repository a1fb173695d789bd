"""The difference of two measurements of one quantity over their mean, after Bland and Altman."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdnc.training.pictures.page import Panel

Array = NDArray[Any]


def _draw(figure: Any, truth: Array, predicted: Array, name: str, lines: dict[str, float]) -> None:
    axes = figure.subplots()
    axes.set(xlabel=f'mean of true and predicted {name}', ylabel='predicted − true', title='Bland–Altman')
    there = np.isfinite(truth)
    truth, predicted = truth[there], predicted[there]
    axes.scatter((truth + predicted) / 2, predicted - truth, s=10, alpha=0.5, color='tab:blue')
    axes.axhline(0, color='0.5', linewidth=1)
    for number, (words, value) in enumerate(lines.items()):
        if np.isfinite(value):
            style = '--' if number else '-'
            axes.axhline(value, color='tab:red', linewidth=1.2, linestyle=style, label=f'{words} {value:.3g}')
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def difference_panel(truth: Array, predicted: Array, name: str, lines: dict[str, float]) -> Panel:
    """A panel with the errors of a quantity over its size.

    Args:
        truth: ``(N,)``, NaN where it is not known.
        predicted: ``(N,)``.
        name: The quantity.
        lines: Levels to be drawn, by their words: bias and limits of agreement.
    """
    return Panel(partial(_draw, truth=truth, predicted=predicted, name=name, lines=lines), 4.6, 3.8)
