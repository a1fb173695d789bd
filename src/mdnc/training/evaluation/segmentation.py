"""Figures of a segmentation: of all positions together, and of each case."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdnc.training.evaluation.intervals import Figure, bootstrap, resamples
from mdnc.training.evaluation.result import Evaluation
from mdnc.training.evaluation.sample_results import Table
from mdnc.training.pictures import cases_panel

Array = NDArray[Any]


def dice(counts: Array) -> Array:
    """Dice scores ``(…, K)`` of confusion matrices ``(…, K, K)``; NaN where neither truth nor answer has a class."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    with np.errstate(divide='ignore', invalid='ignore'):
        scores: Array = 2 * hits / (counts.sum(-1) + counts.sum(-2))
    return scores


def _mean(values: Array) -> Array:
    there = np.isfinite(values)
    mean: Array = np.where(there, values, 0).sum(-1, keepdims=True) / there.sum(-1, keepdims=True)
    return mean


def _figures(sums: Array, classes: int) -> dict[str, Array]:
    """Figures of sums of hits, called, true, known positions, scores of cases and numbers of cases that have one."""
    hits, called, true, scores, there = np.split(sums[:, 1:], 5, axis=1)
    total = sums[:, :1]
    each = 2 * hits / (called + true)
    cases = scores / there
    return {
        'each dice': each,
        'each dice_case': cases,
        'each precision': hits / called,
        'each recall': hits / true,
        'each specificity': (total - called - true + hits) / (total - true),
        'dice': _mean(each),
        # The first class is the background.
        'dice_foreground': _mean(each[:, 1:]),
        'dice_case': _mean(cases[:, 1:]),
        'accuracy': hits.sum(1, keepdims=True) / total,
    }


def evaluate_overlaps(table: Table, classes: list[str]) -> Evaluation:
    """Judge maps of classes.

    Args:
        table: A column ``confusion``, ``(N, K, K)``: how many positions of each sample are of which class (rows) and
            taken for which.
        classes: Names of the K classes, the first of them the background.

    Returns:
        ``dice`` (all positions together, mean over the classes that occur), ``dice_foreground`` (without the first
        class), ``dice_case`` (each case by itself: the mean over the cases in which truth or answer has a class, then
        over the classes but the first), ``accuracy``; of each class ``dice``, ``dice_case``, ``precision``, ``recall``,
        ``specificity``.
    """
    counts = table.columns['confusion'].astype(np.int64)
    scores, count = dice(counts), len(classes)
    there = np.isfinite(scores)
    known, hits = counts.sum((1, 2))[:, None], np.diagonal(counts, axis1=1, axis2=2)
    rows = np.concatenate([known, hits, counts.sum(1), counts.sum(2), np.where(there, scores, 0), there], axis=1)
    found = bootstrap(partial(_figures, classes=count), rows)
    each: dict[str, dict[str, Figure]] = {
        name: {'cases': Figure(int((counts[:, number].sum(1) > 0).sum()))} for number, name in enumerate(classes)
    }
    overall = {name: figures[0] for name, figures in found.items() if not name.startswith('each ')}
    for word, figures in found.items():
        if word.startswith('each '):
            for name, figure in zip(classes, figures, strict=True):
                each[name][word.removeprefix('each ')] = figure
    with np.errstate(divide='ignore', invalid='ignore'):
        columns = {'dice': _mean(scores[:, 1:])[:, 0]}
    columns |= {f'dice {name}': scores[:, number] for number, name in enumerate(classes)}
    return Evaluation(
        len(table),
        overall,
        'classes',
        each,
        {'all': f'bootstrap over samples, {resamples(len(table))} times'},
        columns,
        counts.sum(0),
        {'Dice score of each case': cases_panel(scores, classes)},
    )
