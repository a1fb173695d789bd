"""What training and prediction of a candidate take: bytes at the worst moment, and multiply-adds."""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdnc import analysis
from mdnc.planning.budget import Budget
from mdnc.training.tasks.loss import Entropy, class_losses, dice_losses

_NEVER = -100


@dataclass(frozen=True)
class Job:
    """What a network is trained for.

    Args:
        task: Name of the task's class.
        channels: Channels of the input.
        outputs: Values or channels that the network gives.
        criterion: Of `Segmentation`.
    """

    task: str
    channels: int
    outputs: int
    criterion: str = 'both'

    @property
    def dense(self) -> bool:
        """Whether the output is a map of the input's size."""
        return self.task in ('Segmentation', 'DenseRegression', 'Reconstruction')

    def loss(self, output: Tensor) -> Tensor:
        """The task's own loss against targets that are made here, so that they are counted."""
        if self.task == 'Classification':
            target = output.new_zeros(len(output), dtype=torch.long)
            return class_losses(output, target, None, Entropy(0.0, 0.0, _NEVER)).mean()
        if self.task != 'Segmentation':
            return (output - output.new_zeros(output.shape)).square().mean()
        target = output.new_zeros((len(output), *output.shape[2:]), dtype=torch.long)
        total = output.new_zeros(len(output))
        if self.criterion != 'dice':
            total = total + class_losses(output, target, None, Entropy(0.0, 0.0, _NEVER))
        if self.criterion != 'cross_entropy':
            total = total + dice_losses(output, target, target == 0)
        return total.mean()


def autocast(budget: Budget) -> contextlib.AbstractContextManager[Any]:
    """The precision in which a budget's run computes."""
    kinds = {'bf16-mixed': torch.bfloat16, '16-mixed': torch.float16}
    if budget.precision not in kinds:
        return contextlib.nullcontext()
    return torch.autocast('cpu', kinds[budget.precision])


def training_bytes(net: nn.Module, size: tuple[int, ...], batch: int, job: Job, budget: Budget) -> int:
    """Bytes at the worst moment of a training step on one device."""
    more: dict[str, Any] = {'loss': job.loss, 'devices': budget.devices}
    with autocast(budget):
        shape = (job.channels, *size)
        return analysis.memory_forecast(net, shape, batch, _dtype(budget), budget.optimizer, **more).peak


def _dtype(budget: Budget) -> torch.dtype | None:
    return torch.bfloat16 if budget.precision == 'bf16-true' else None


def prediction_bytes(
    net: nn.Module, size: tuple[int, ...], tile: tuple[int, ...] | None, job: Job, budget: Budget
) -> int:
    """Bytes at the worst moment of predicting a sample on the device: whole, or in tiles that are blended there.

    Args:
        net: The network.
        size: Spatial size of the sample.
        tile: Size of the tiles, cut to the sample; None: it goes through the network as a whole.
        job: What the network is trained for.
        budget: Precision.
    """
    through = size if tile is None else tuple(map(min, tile, size))
    with autocast(budget):
        shape = (job.channels, *through)
        taken = analysis.memory_forecast(net, shape, 1, _dtype(budget), None, training=False).peak
    if through == size:
        return taken
    # The sample, the sum of the tiles' outputs and that of their weights lie there as a whole.
    return taken + 4 * math.prod(size) * (job.channels + job.outputs + 1)
