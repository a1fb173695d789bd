"""Metrics that ignore unknown targets, with sums in double precision."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import (
    BinaryConfusionMatrix,
    BinaryPrecisionRecallCurve,
    BinaryStatScores,
    MulticlassConfusionMatrix,
    MulticlassPrecisionRecallCurve,
    MulticlassStatScores,
)
from torchmetrics.utilities import dim_zero_cat

# Apple's GPUs have no double precision, and a state goes where its task goes.
WIDE = torch.float32 if torch.backends.mps.is_available() else torch.float64
_PIECE = 2**22  # values of which errors are computed at once


def is_of_quantities(metric: Metric) -> bool:
    """Whether it is one of torchmetrics' metrics of quantities, which sum up squares and products."""
    return any(kind.__module__.startswith('torchmetrics.regression') for kind in type(metric).__mro__)


_COUNTS = (BinaryStatScores, MulticlassStatScores)
_SUMS = (
    MeanMetric,
    BinaryConfusionMatrix,
    MulticlassConfusionMatrix,
    BinaryPrecisionRecallCurve,
    MulticlassPrecisionRecallCurve,
)


def adds_up(metric: Metric) -> bool:
    """Whether a metric of classes is the same if it is updated with parts of maps one after the other."""
    if isinstance(metric, _COUNTS):
        return bool(metric.multidim_average == 'global')
    return isinstance(metric, (*_SUMS, CaseDice))


def widened(metric: Metric) -> Metric:
    """The same metric with sums in double precision, if it is a mean or one of quantities."""
    wide = isinstance(metric, MeanMetric) or is_of_quantities(metric)
    return metric.set_dtype(WIDE) if wide else metric


class KnownError(Metric):
    """Root mean square or mean absolute error over known targets; NaN if there are none.

    Sums are in double precision: the square of an error of 2e19 is beyond the single one.

    Args:
        quantities: Number of quantities, each of which has its error; None: all have one together.
        squared: Whether it is the root of the mean square; else the mean of absolute values.
    """

    full_state_update = False
    higher_is_better = False
    sums: Tensor
    counts: Tensor

    def __init__(self, quantities: int | None = None, squared: bool = True) -> None:
        super().__init__()
        self._each, self._squared = quantities is not None, squared
        for name in ('sums', 'counts'):
            self.add_state(name, torch.zeros(quantities or 1, dtype=WIDE), dist_reduce_fx='sum')

    def update(self, predicted: Tensor, target: Tensor, known: Tensor | None = None) -> None:
        """Add a batch ``(B, K)`` or ``(B, K, L1, ...)``."""
        known = torch.ones_like(target, dtype=torch.bool) if known is None else known
        parts = [each.reshape(*each.shape[:2], -1) for each in (predicted, target, known)]
        step = max(1, _PIECE // max(1, parts[1][..., :1].numel()))
        for start in range(0, parts[1].shape[2], step):
            self._add(*(each[..., start : start + step] for each in parts))

    def _add(self, predicted: Tensor, target: Tensor, known: Tensor) -> None:
        error = torch.where(known, predicted.to(WIDE) - target.to(WIDE), 0)
        found = (error**2 if self._squared else error.abs()).sum((0, 2)), known.sum((0, 2))
        sums, counts = found if self._each else (each.sum(0, keepdim=True) for each in found)
        self.sums, self.counts = self.sums + sums, self.counts + counts

    def compute(self) -> Tensor:
        """``(K,)``, or a number."""
        mean = self.sums / self.counts
        mean = mean.sqrt() if self._squared else mean
        return mean if self._each else mean[0]


class CaseDice(Metric):
    """Dice score of each class but the first, over the samples in which truth or answer has it, and their mean; NaN
    where no sample has one.

    Args:
        classes: How many there are, the first of them the background.
        ignore: Number that stands for "not known".
    """

    full_state_update = False
    higher_is_better = True
    scores: Tensor
    there: Tensor

    def __init__(self, classes: int, ignore: int) -> None:
        super().__init__()
        self._classes, self._ignore = classes, ignore
        for name in ('scores', 'there'):
            self.add_state(name, torch.zeros(classes - 1), dist_reduce_fx='sum')

    def update(self, predicted: Tensor, target: Tensor | None = None) -> None:
        """Count a batch of maps of class numbers ``(B, L1, ...)``; or, without targets, of confusion matrices ``(B, K,
        K)``."""
        if target is None:
            met, size = predicted.diagonal(dim1=1, dim2=2), predicted.sum(1) + predicted.sum(2)
            for number in range(1, self._classes):
                self._add(number, met[:, number], size[:, number])
            return
        known = (target != self._ignore).flatten(1)
        for number in range(1, self._classes):
            given, true = ((each.flatten(1) == number) & known for each in (predicted, target))
            self._add(number, (given & true).sum(1), given.sum(1) + true.sum(1))

    def _add(self, number: int, met: Tensor, size: Tensor) -> None:
        self.scores[number - 1] += (2 * met / size.clamp(min=1)).sum()
        self.there[number - 1] += (size > 0).sum()

    def compute(self) -> Tensor:
        """The mean."""
        found = self.there > 0
        return (self.scores[found] / self.there[found]).mean()


class Points(Metric):
    """The first predictions and targets of all processes, for a chart; unknown targets are NaN.

    Args:
        quantities: Number of quantities.
        most: Largest number of samples of each process.
    """

    full_state_update = False
    predicted: list[Tensor]
    truth: list[Tensor]
    seen: Tensor

    def __init__(self, quantities: int, most: int) -> None:
        super().__init__()
        self._quantities, self._most = quantities, most
        self.add_state('predicted', [], dist_reduce_fx='cat')
        self.add_state('truth', [], dist_reduce_fx='cat')
        self.add_state('seen', torch.zeros((), dtype=torch.int64), dist_reduce_fx='sum')

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Add a batch ``(B, K)``, which may be empty, so that a process without samples can be merged."""
        room = self._most - sum(map(len, self.truth))
        self.predicted.append(predicted[: max(room, 0)])
        self.truth.append(truth[: max(room, 0)])
        self.seen = self.seen + len(truth)

    def compute(self) -> tuple[Any, Any, int]:
        """Predictions and truths, arrays ``(N, K)``, and the total number of samples."""
        empty = torch.zeros(0, self._quantities)
        parts = (dim_zero_cat(part) if len(part) else empty for part in (self.predicted, self.truth))
        predicted, truth = (part.cpu().numpy() for part in parts)
        return predicted, truth, int(self.seen)
