"""How loss and metrics went, epoch by epoch."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.ticker import MaxNLocator, PercentFormatter

from mdnc.training.pictures.page import Panel

_WORDS = {'train': 'training', 'val': 'validation'}
History = Sequence[dict[str, float]]


def is_share(name: str) -> bool:
    """Whether a metric lies between 0 and 1 and is read in per cent."""
    return name.split('_')[0] in ('accuracy', 'f1', 'dice')


def _points(history: History, key: str) -> tuple[list[float], list[float]]:
    rows = [row for row in history if row.get(key) is not None]
    # People count epochs from 1.
    return [row['epoch'] + 1 for row in rows], [row[key] for row in rows]


def _draw_one(axes: Any, history: History, name: str, label: str) -> None:
    every: list[float] = []
    for part, word in _WORDS.items():
        epochs, values = _points(history, f'{part}/{name}')
        if values:
            axes.plot(epochs, values, label=word, marker='o' if len(values) < 30 else None, markersize=3)
        every += values
    if name == 'loss' and min(every) > 0 and max(every) > 20 * min(every):
        axes.set_yscale('log')
    if is_share(name):
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlabel='epoch', title=label, xlim=(0.5, history[-1]['epoch'] + 1.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend()


def _draw(figure: Any, history: History, names: dict[str, str]) -> None:
    for axes, (name, label) in zip(figure.subplots(1, len(names), squeeze=False)[0], names.items(), strict=True):
        _draw_one(axes, history, name, label)


def curves_panel(history: History, labels: dict[str, str]) -> list[Panel]:
    """A panel with one curve chart a metric; none where the history is empty.

    Args:
        history: One row an epoch: ``epoch``, ``train/loss``, ``val/loss``, ….
        labels: Metrics to draw, with what to write over them.
    """
    names = {name: label for name, label in labels.items() if any(_points(history, f'{p}/{name}')[1] for p in _WORDS)}
    return [Panel(partial(_draw, history=history, names=names), 4.2 * len(names), 3.8)] if names else []
