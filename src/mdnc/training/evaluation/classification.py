"""Figures of a classification: of all samples, and of each class against the others."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdnc.training.evaluation.calibration import binned, calibration_error
from mdnc.training.evaluation.intervals import Figure, area, bootstrap, resamples, wilson
from mdnc.training.evaluation.result import Evaluation
from mdnc.training.evaluation.sample_results import Table
from mdnc.training.pictures import confusion_panel, reliability_panel

Array = NDArray[Any]
_CELLS = 10_000_000  # numbers that the bootstrap of the mean over classes may be made of
METHODS = {
    'shares': 'Wilson (accuracy, precision, recall, specificity, and F1 through TP / (TP + FP + FN))',
    'auroc': 'DeLong',
}


def confused(target: Array, answer: Array, classes: int) -> Array:
    """The confusion matrix ``(K, K)`` of class numbers ``(N,)``; rows are true classes."""
    cells = np.bincount(target * classes + answer, minlength=classes * classes)
    return cells.reshape(classes, classes)


def _against(total: int, hits: int, called: int, true: int) -> dict[str, Figure]:
    """Figures of a class against all that is not of it."""
    found = true + called - hits
    share = wilson(hits, found)
    return {
        'samples': Figure(true),
        'precision': wilson(hits, called),
        'recall': wilson(hits, true),
        'specificity': wilson(total - found, total - true),
        'f1': Figure(*(2 * end / (1 + end) for end in (share.value, share.low, share.high))),
    }


def _means(sums: Array, classes: int) -> dict[str, Array]:
    hits, called, true = np.split(sums, 3, axis=1)
    f1, recall = 2 * hits / (called + true), hits / true
    return {'f1': _mean(f1, axis=1), 'balanced_accuracy': _mean(recall, axis=1)}


def _mean(values: Array, axis: int) -> Array:
    """The mean of what is there, kept as an axis of length 1; NaN of nothing."""
    there = np.isfinite(values)
    mean: Array = np.where(there, values, 0).sum(axis, keepdims=True) / there.sum(axis, keepdims=True)
    return mean


def _overall(counts: Array) -> dict[str, Figure]:
    classes = len(counts)
    true, called = np.nonzero(counts)
    cells = counts[true, called]
    means = partial(_means, classes=classes)
    one = np.eye(classes)
    if len(cells) * 3 * classes <= _CELLS:
        rows = np.concatenate([one[true] * (true == called)[:, None], one[called], one[true]], axis=1)
        found = bootstrap(means, rows, cells)
    else:
        with np.errstate(divide='ignore', invalid='ignore'):
            values = means(np.concatenate([np.diag(counts), counts.sum(0), counts.sum(1)])[None])
        found = {name: [Figure(float(value[0, 0]))] for name, value in values.items()}
    return {'accuracy': wilson(int(np.trace(counts)), int(counts.sum())), **{n: f[0] for n, f in found.items()}}


def _mean_area(each: dict[str, dict[str, Figure]]) -> Figure:
    areas = [figures['auroc'].value for figures in each.values() if np.isfinite(figures['auroc'].value)]
    return Figure(float(np.mean(areas)) if areas else np.nan)


def evaluate_labels(table: Table, classes: list[str]) -> Evaluation:
    """Judge samples that may be of several classes, or of none.

    Args:
        table: Columns ``target``, ``(N, K)`` of 0 and 1, and ``scores``, ``(N, K)`` probabilities; what is above a half
            is answered.
        classes: Names of the K classes.

    Returns:
        ``exact_match`` (samples of which every class is right), ``accuracy`` (of all samples and classes), ``f1`` and
        ``auroc``, means over the classes; of each class what `evaluate_classes` says.
    """
    target, scores = table.columns['target'] > 0, table.columns['scores']
    answer, each = scores > 0.5, {}
    for number, name in enumerate(classes):
        true, called = target[:, number], answer[:, number]
        each[name] = _against(len(table), *(int(part.sum()) for part in (true & called, called, true)))
        each[name]['auroc'] = area(scores[:, number], true)
    rows = np.concatenate([target & answer, answer, target], axis=1)
    right = target == answer
    overall = {
        'exact_match': wilson(int(right.all(1).sum()), len(table)),
        'accuracy': Figure(float(right.mean())),
        'f1': bootstrap(partial(_means, classes=len(classes)), rows)['f1'][0],
        'auroc': _mean_area(each),
    }
    columns: dict[str, Array] = {'correct': right.all(1)}
    for number, name in enumerate(classes):
        columns |= {f'target {name}': target[:, number], f'answer {name}': answer[:, number]}
        columns |= {f'probability {name}': scores[:, number]}
    return Evaluation(len(table), overall, 'classes', each, _methods(table), columns)


def _methods(table: Table) -> dict[str, str]:
    return {**METHODS, 'means': f'bootstrap over samples, {resamples(len(table))} times'}


def evaluate_classes(table: Table, classes: list[str]) -> Evaluation:
    """Judge class numbers.

    Args:
        table: Columns ``target`` and ``answer``, ``(N,)`` class numbers, ``confidence``, ``(N,)`` the probability of
            the answer, and mostly ``scores``, ``(N, K)`` probabilities.
        classes: Names of the K classes.

    Returns:
        ``accuracy``, ``f1`` and ``balanced_accuracy`` (means over the classes that occur), ``auroc`` (mean of each
        class against all others) and ``calibration_error``; of each class ``precision``, ``recall`` (sensitivity),
        ``specificity``, ``f1``, ``auroc``.
    """
    target, answer = (table.columns[name].astype(np.int64) for name in ('target', 'answer'))
    confidence, scores = table.columns['confidence'].astype(np.float64), table.columns.get('scores')
    counts = confused(target, answer, len(classes))
    overall = _overall(counts)
    sums = np.stack([np.diag(counts), counts.sum(0), counts.sum(1)], axis=1).tolist()
    each = {name: _against(len(table), *found) for name, found in zip(classes, sums, strict=True)}
    if scores is not None:
        for number, name in enumerate(classes):
            each[name]['auroc'] = area(scores[:, number], target == number)
        overall['auroc'] = _mean_area(each)
    correct = target == answer
    overall['calibration_error'] = Figure(calibration_error(confidence, correct))
    words = np.array(classes, dtype=object)
    columns = {'target': words[target], 'answer': words[answer], 'correct': correct, 'probability': confidence}
    if scores is not None:
        columns |= {f'probability {name}': scores[:, number] for number, name in enumerate(classes)}
    return Evaluation(
        len(table),
        overall,
        'classes',
        each,
        _methods(table),
        columns,
        counts,
        {
            'Which classes are taken for which': confusion_panel(counts, classes),
            'How far its probabilities can be believed': reliability_panel(*binned(confidence, correct)),
        },
    )
