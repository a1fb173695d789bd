"""Which classes are taken for which."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdnc.training.pictures.page import Panel

# Above this, numbers in the cells would be too small to read.
_NUMBERED = 20


def _draw(figure: Any, counts: NDArray[Any], classes: list[str]) -> None:
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label='share of the true class', fraction=0.046)
    if len(classes) <= _NUMBERED:
        for row, column in np.argwhere(counts > 0):
            colour = 'white' if share[row, column] > 0.5 else 'black'
            axes.text(column, row, str(counts[row, column]), ha='center', va='center', color=colour, fontsize=8)
    step = -(-len(classes) // 40)
    ticks = range(0, len(classes), step)
    long = max(map(len, classes)) * len(classes) > 30
    axes.set_xticks(ticks, classes[::step], rotation=45 if long else 0, ha='right' if long else 'center')
    axes.set_yticks(ticks, classes[::step])
    right, total = int(np.trace(counts)), int(counts.sum())
    axes.set(
        xlabel='predicted class',
        ylabel='true class',
        title=f'confusion matrix, test: {right} of {total} right',
    )


def confusion_panel(counts: NDArray[Any], classes: list[str]) -> Panel:
    """A panel with a confusion matrix: counts in the cells, shares of the true class as colours.

    Args:
        counts: ``(K, K)``, rows are true classes.
        classes: Names of the K classes.
    """
    side = float(np.clip(1.6 + 0.38 * len(classes), 3.6, 10))
    return Panel(partial(_draw, counts=counts, classes=classes), side + 1.2, side)
