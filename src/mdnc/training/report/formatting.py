"""Figures in words to read."""

import math

from mdnc.training.evaluation import COUNTS, Figure
from mdnc.training.pictures import is_share

LABELS = {
    'accuracy': 'accuracy',
    'balanced_accuracy': 'balanced accuracy',
    'f1': 'F1',
    'auroc': 'AUROC',
    'calibration_error': 'calibration error',
    'precision': 'precision',
    'recall': 'recall (sensitivity)',
    'specificity': 'specificity',
    'dice': 'Dice',
    'dice_foreground': 'Dice without background',
    'dice_case': 'Dice, mean of cases',
    'rmse': 'RMSE',
    'mae': 'MAE',
    'r2': 'R²',
    'bias': 'bias',
    'agreement_low': 'limits of agreement: lower',
    'agreement_high': 'limits of agreement: upper',
    'rmse_of_input': 'RMSE of the input',
}
_SHARES = ('precision', 'recall', 'specificity', 'balanced_accuracy', 'calibration_error')


def label(name: str) -> str:
    """What a figure is called."""
    return LABELS.get(name, name.replace('_', ' '))


def text(name: str, value: float) -> str:
    """A figure's value.

    Example:
        >>> text('accuracy', 0.98765), text('rmse', 12.3456), text('samples', 1200.0), text('r2', 0.98765)
        ('98.8 %', '12.35', '1,200', '0.988')
    """
    if not math.isfinite(value):
        return '–'
    if name in COUNTS:
        return f'{value:,.0f}'
    if name in _SHARES or is_share(name):
        return f'{100 * value:.1f} %'
    return (f'{value:.3f}' if name in ('auroc', 'r2') else f'{value:.4g}').replace('-', '−')


def interval(name: str, figure: Figure) -> str:
    """A figure's interval; empty where there is none."""
    if not (math.isfinite(figure.low) and math.isfinite(figure.high)):
        return ''
    low, high = (text(name, end) for end in (figure.low, figure.high))
    return f'{low.removesuffix(" %")} to {high}'


def mebibytes(count: float) -> str:
    """Bytes to read."""
    return f'{count / 2**20:,.0f} MiB' if count < 10 * 2**30 else f'{count / 2**30:,.1f} GiB'
