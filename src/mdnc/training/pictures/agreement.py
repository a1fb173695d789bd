"""Predicted against true values."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mdnc.training.pictures.page import Panel

_CHARTS = 4


def _known(truth: NDArray[Any], predicted: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    there = np.isfinite(truth)
    return truth[there], predicted[there]


def _rmse(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean((predicted - truth) ** 2, dtype=np.float64)))


def _draw_one(axes: Any, truth: NDArray[Any], predicted: NDArray[Any], name: str, seen: int) -> None:
    truth, predicted = _known(truth, predicted)
    axes.set(xlabel=f'true {name}', ylabel=f'predicted {name}')
    if not len(truth):
        axes.set_title('none of its values is known')
        return
    ends = [float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))]
    axes.plot(ends, ends, color='0.4', linewidth=1, label='perfect agreement')
    axes.scatter(truth, predicted, s=10, alpha=0.5, label=_counted(len(truth), seen))
    rmse, spread = _rmse(truth, predicted), float(np.var(truth, dtype=np.float64))
    fit = f', R² = {1 - rmse**2 / spread:.3f}' if spread > 0 else ''
    axes.set_title(f'RMSE = {rmse:.3g}{fit}')
    axes.set_aspect('equal', adjustable='datalim')
    axes.grid(alpha=0.3)
    axes.legend()


def _counted(shown: int, seen: int) -> str:
    return f'{shown} test samples' if shown == seen else f'{shown} of {seen} test samples'


def _draw_errors(axes: Any, truth: NDArray[Any], predicted: NDArray[Any], names: list[str]) -> None:
    """The error of every quantity, beside how much it varies: what a guess of the mean would be off."""
    columns = [_known(truth[:, column], predicted[:, column]) for column in range(len(names))]
    places = np.arange(1, len(names) + 1)
    errors = [_rmse(*column) if len(column[0]) else np.nan for column in columns]
    spreads = [float(np.std(true, dtype=np.float64)) if len(true) else np.nan for true, _ in columns]
    axes.plot(places, errors, marker='o', markersize=3, color='tab:blue', label='RMSE')
    axes.plot(places, spreads, color='0.6', label='standard deviation of the truth')
    axes.set(xlabel=f'quantity, {names[0]} to {names[-1]}', title=f'each of the {len(names)} quantities')
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    low, high = np.nanmin(errors + spreads), np.nanmax(errors + spreads)
    if low > 0 and high > 50 * low:
        axes.set_yscale('log')
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()


def _draw(figure: Any, truth: NDArray[Any], predicted: NDArray[Any], names: list[str], seen: int) -> None:
    shown = _shown(len(names))
    every = len(shown) < len(names)
    charts = list(figure.subplots(1, len(shown) + every, squeeze=False)[0])
    if every:
        _draw_errors(charts.pop(0), truth, predicted, names)
    for column, axes in zip(shown, charts, strict=True):
        _draw_one(axes, truth[:, column], predicted[:, column], names[column], seen)


def _shown(count: int) -> list[int]:
    # Of many the first, the middle and the last: with forecasts, the near and the far.
    return list(range(count)) if count <= _CHARTS else [0, count // 2, count - 1]


def agreement_panel(truth: NDArray[Any], predicted: NDArray[Any], names: list[str], seen: int | None = None) -> Panel:
    """A panel with predicted against true values, one chart a quantity; of more than four, the error of each and three.

    Args:
        truth: ``(N, K)``, NaN where a value is not known.
        predicted: ``(N, K)``.
        names: Names of the K quantities.
        seen: How many samples there were, where more than these N.
    """
    seen = len(truth) if seen is None else seen
    charts = min(len(names), _CHARTS)
    return Panel(partial(_draw, truth=truth, predicted=predicted, names=names, seen=seen), 4.2 * charts, 3.8)
