"""Metrics that ignore unknown targets, for each quantity."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class KnownError(Metric):
    """Root mean square error of each quantity, over known targets; NaN if there are none.

    Args:
        quantities: Number of quantities.
    """

    full_state_update = False
    higher_is_better = False
    squares: Tensor
    counts: Tensor

    def __init__(self, quantities: int) -> None:
        super().__init__()
        self.add_state('squares', torch.zeros(quantities), dist_reduce_fx='sum')
        self.add_state('counts', torch.zeros(quantities), dist_reduce_fx='sum')

    def update(self, predicted: Tensor, target: Tensor, known: Tensor | None = None) -> None:
        """Add a batch ``(B, K)``."""
        known = torch.ones_like(target, dtype=torch.bool) if known is None else known
        self.squares = self.squares + torch.where(known, (predicted - target) ** 2, 0).sum(0)
        self.counts = self.counts + known.sum(0)

    def compute(self) -> Tensor:
        """``(K,)``."""
        return (self.squares / self.counts).sqrt()


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

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Count a batch of maps of class numbers ``(B, L1, ...)``."""
        known = (target != self._ignore).flatten(1)
        for number in range(1, self._classes):
            given, true = ((each.flatten(1) == number) & known for each in (predicted, target))
            size = given.sum(1) + true.sum(1)
            self.scores[number - 1] += (2 * (given & true).sum(1) / size.clamp(min=1)).sum()
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
