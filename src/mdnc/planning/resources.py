"""What training and prediction of a candidate take: bytes at the worst moment, and multiply-adds."""

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdnc import analysis
from mdnc.modules._inference import Steps
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

    @property
    def answer(self) -> str:
        """What is made of the output in prediction."""
        return {'Segmentation': 'classes', 'Classification': 'probabilities', 'MultiLabel': 'shares'}.get(
            self.task, 'values'
        )

    def loss(self, output: Tensor) -> Tensor:
        """The task's own loss against targets that are made here, so that they are counted."""
        if self.task == 'Classification':
            target = output.new_zeros(len(output), dtype=torch.long)
            return class_losses(output, target, None, Entropy(0.0, 0.0, _NEVER)).mean()
        if self.task == 'MultiLabel':
            return functional.binary_cross_entropy_with_logits(output, output.new_zeros(output.shape))
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


_UNIT = {'mean': [0.0], 'std': [1.0]}


@dataclass(frozen=True)
class TileLayout:
    """How samples are predicted.

    Args:
        tile: Size of the tiles; None: samples go through the network as a whole.
        samples: How many together.
        tiles: Tiles of each as one batch.
        overlap: Share of a tile that it has in common with the next.
        blend: What tiles count off their centres.
        result: Whether the answer is gathered on the ``'device'``, or goes to the ``'host'`` in slabs.
    """

    tile: tuple[int, ...] | None
    samples: int = 1
    tiles: int = 1
    overlap: float = 0.25
    blend: str = 'tent'
    result: str = 'device'

    def steps(self, job: Job) -> Steps:
        """What a prediction goes through, around the network."""
        return Steps(
            {
                'answer': {'output': job.answer, 'dense': job.dense},
                'normalisation': _UNIT,
                'target_normalisation': _UNIT,
                'patch': self.tile,
                'overlap': self.overlap,
                'blend': self.blend,
                'tiles': self.tiles,
            }
        )


def prediction_need(
    net: nn.Module, size: tuple[int, ...], laid: TileLayout, job: Job, budget: Budget
) -> analysis.PredictionForecast:
    """What predicting samples of a size takes, as the task does it."""
    more: dict[str, Any] = {'overlap': laid.overlap, 'blend': laid.blend, 'result': laid.result}
    batch = laid.samples if laid.tile is None else laid.tiles
    with autocast(budget):
        return analysis.prediction_forecast(
            net,
            (job.channels, *size),
            laid.tile,
            batch,
            _dtype(budget),
            answer=job.answer,
            scaled=True,
            samples=laid.samples,
            **more,
        )
