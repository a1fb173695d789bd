"""Predicted against true values."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdnc.training.pictures.page import Panel


def _draw_one(axes: Any, truth: NDArray[Any], predicted: NDArray[Any], name: str) -> None:
    ends = [float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))]
    axes.plot(ends, ends, color='0.4', linewidth=1, label='perfect agreement')
    axes.scatter(truth, predicted, s=10, alpha=0.5, label=f'{len(truth)} test samples')
    rmse = float(np.sqrt(np.mean((predicted - truth) ** 2)))
    spread = float(np.var(truth))
    fit = f', R² = {1 - rmse**2 / spread:.3f}' if spread > 0 else ''
    axes.set(xlabel=f'true {name}', ylabel=f'predicted {name}', title=f'RMSE = {rmse:.3g}{fit}')
    axes.set_aspect('equal', adjustable='datalim')
    axes.grid(alpha=0.3)
    axes.legend()


def _draw(figure: Any, truth: NDArray[Any], predicted: NDArray[Any], names: list[str]) -> None:
    for column, axes in enumerate(figure.subplots(1, len(names), squeeze=False)[0]):
        _draw_one(axes, truth[:, column], predicted[:, column], names[column])


def agreement_panel(truth: NDArray[Any], predicted: NDArray[Any], names: list[str]) -> Panel:
    """A panel with predicted against true values, one chart a quantity, at most four.

    Args:
        truth: ``(N, K)``.
        predicted: ``(N, K)``.
        names: Names of the K quantities.
    """
    shown = min(len(names), 4)
    return Panel(partial(_draw, truth=truth, predicted=predicted, names=names[:shown]), 4.2 * shown, 3.8)
