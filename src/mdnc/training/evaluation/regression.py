"""Figures of quantities: how far answers are from the truth, and how well they agree with it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdnc.training.evaluation.intervals import Figure, Z, bootstrap, resamples
from mdnc.training.evaluation.result import Evaluation
from mdnc.training.evaluation.sample_results import Table
from mdnc.training.pictures import Panel, agreement_panel, difference_panel

Array = NDArray[Any]
POINTS = 5000  # of a chart: of more a person sees only a cloud
CHARTS = 4
LINES = {'bias': 'bias', 'agreement_high': 'upper limit of agreement', 'agreement_low': 'lower limit of agreement'}
SUMS = ('count', 'error', 'square', 'distance', 'truth', 'truth square')  # of a sample, over what is known of it


def _figures(sums: Array) -> dict[str, Array]:
    count, error, square, distance, truth, truth_square = (sums[:, place : place + 1] for place in range(len(SUMS)))
    bias = error / count
    spread = np.sqrt(np.maximum(square - count * bias**2, 0) / (count - 1))
    varied = truth_square - truth**2 / count
    # What is left of equal truths by rounding is no variation.
    varied = np.where(varied > 1e-12 * truth_square, varied, np.nan)
    return {
        'rmse': np.sqrt(square / count),
        'mae': distance / count,
        'r2': 1 - square / varied,
        'bias': bias,
        'agreement_low': bias - Z * spread,
        'agreement_high': bias + Z * spread,
    }


def error_sums(truth: Tensor, predicted: Tensor, known: Tensor) -> Tensor:
    """`SUMS` of each sample and quantity, ``(N, K, 6)``, of values or maps ``(N, K, …)``."""
    double = torch.float32 if truth.device.type == 'mps' else torch.float64
    known = known.flatten(2) if known.ndim > 2 else known[..., None]
    truth = torch.where(known, truth.reshape(known.shape), 0).to(double)
    error = torch.where(known, predicted.reshape(known.shape) - truth, 0)
    parts = (known.to(double), error, error**2, error.abs(), truth, truth**2)
    return torch.stack([part.sum(-1) for part in parts], dim=-1)


def _judged(sums: Array, names: list[str]) -> dict[str, dict[str, Figure]]:
    each: dict[str, dict[str, Figure]] = {}
    for number, name in enumerate(names):
        there = sums[:, number, 0] > 0
        found = bootstrap(_figures, sums[there, number])
        each[name] = {'samples': Figure(int(there.sum()))} | {word: figures[0] for word, figures in found.items()}
    return each


def _map_columns(sums: Array, names: list[str]) -> dict[str, Array]:
    columns: dict[str, Array] = {}
    for number, name in enumerate(names):
        word = f' {name}' if len(names) > 1 else ''
        count, error, square, distance = (sums[:, number, place] for place in range(4))
        with np.errstate(divide='ignore', invalid='ignore'):
            found = {'rmse': np.sqrt(square / count), 'mae': distance / count, 'bias': error / count}
        columns |= {f'{key}{word}': values for key, values in found.items()}
    return columns


def _value_columns(truth: Array, predicted: Array, names: list[str]) -> dict[str, Array]:
    columns: dict[str, Array] = {}
    for number, name in enumerate(names):
        word = f' {name}' if len(names) > 1 else ''
        true, answer = truth[:, number], predicted[:, number]
        columns |= {f'target{word}': true, f'answer{word}': answer, f'error{word}': answer - true}
    return columns


def _charts(truth: Array, predicted: Array, each: dict[str, dict[str, Figure]]) -> dict[str, Panel]:
    names = list(each)
    shown = truth[:POINTS], predicted[:POINTS]
    if len(names) > CHARTS:
        return {'Predicted and true values': agreement_panel(*shown, names, len(truth))}
    charts = {}
    for number, (name, figures) in enumerate(each.items()):
        true, answer = (values[:, number] for values in shown)
        lines = {words: figures[key].value for key, words in LINES.items()}
        charts[f'Predicted and true {name}'] = agreement_panel(true[:, None], answer[:, None], [name], len(truth))
        charts[f'Agreement on {name}'] = difference_panel(true, answer, name, lines)
    return charts


def evaluate_errors(table: Table, names: list[str]) -> Evaluation:
    """Judge quantities.

    Args:
        table: Columns ``truth``, NaN where it is not known, and ``predicted``, ``(N, K)`` each; or, of maps, a column
            ``sums``, ``(N, K, 6)``, see `SUMS`.
        names: Names of the K quantities.

    Returns:
        Of each quantity ``rmse``, ``mae``, ``r2``, ``bias`` (mean of answer − truth) and the 95 % limits of agreement,
        ``agreement_low`` and ``agreement_high`` (J. M. Bland and D. G. Altman, 1986); overall those of the only one.
    """
    charts: dict[str, Panel] = {}
    if 'sums' in table.columns:
        sums = table.columns['sums'].astype(np.float64)
        each, columns = _judged(sums, names), _map_columns(sums, names)
    else:
        truth, predicted = table.columns['truth'], table.columns['predicted']
        sums = error_sums(*map(torch.from_numpy, (truth, predicted, np.isfinite(truth)))).numpy()
        each, columns = _judged(sums, names), _value_columns(truth, predicted, names)
        charts = _charts(truth, predicted, each)
    overall = {word: figure for word, figure in each[names[0]].items() if word != 'samples'} if len(names) == 1 else {}
    methods = {'all': f'bootstrap over samples, {resamples(len(table))} times'}
    return Evaluation(len(table), overall, 'quantities', each, methods, columns, charts=charts)
