"""Averaged weights as the weights of a run: in its metrics, in its files, and when it continues."""

import functools
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor

_CURRENT = 'current_model_state'  # Lightning's key of the trained weights; 'state_dict' is the average


class Averages(L.Callback):
    """Makes Lightning's `WeightAveraging` consistent: a checkpoint has the same metrics wherever it is tested.

    Raises:
        ValueError: The averages would not be in checkpoints, or a run with averages is continued without them.
    """

    def __init__(self) -> None:
        self._swapped = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._swapped = False
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, StochasticWeightAveraging):
                raise ValueError(
                    'StochasticWeightAveraging: its averages are computed after the last checkpoint, and so '
                    'would be lost; use WeightAveraging or EMAWeightAveraging'
                )
            if isinstance(callback, WeightAveraging) and stage != 'fit':
                callback._average_model = None  # else the last trained weights would be tested

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swapped = trainer.state.fn == 'fit'

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swapped = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._swapped and _CURRENT in checkpoint:  # they are swapped during a validation
            checkpoint['state_dict'], checkpoint[_CURRENT] = checkpoint[_CURRENT], checkpoint['state_dict']

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        averaging = any(isinstance(callback, WeightAveraging) for callback in callbacks)
        if trainer.state.fn == 'fit' and _CURRENT in checkpoint and not averaging:
            raise ValueError(
                'the run averages its weights, and can only be continued with this callback: '
                'model.ema, WeightAveraging or EMAWeightAveraging, as at its start'
            )


def _moved(average: Tensor, current: Tensor, count: Any, decay: float) -> Tensor:
    # At first the average must not depend on the initial weights.
    kept = torch.clamp((1 + count) / (10 + count), max=decay)
    return average * kept + current * (1 - kept)


class Ema(WeightAveraging):
    """Exponential moving average of the weights, which follows them faster at first: after ``n`` steps,
    its decay is at most ``(1 + n) / (10 + n)``.

    Args:
        decay: Weight of the old average in a step.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=functools.partial(_moved, decay=decay))


def averaging(owner: str, decay: float | None, callbacks: list[L.Callback]) -> list[L.Callback]:
    """The callbacks of a task with averaged weights.

    Raises:
        ValueError: The trainer averages them already.
    """
    if decay is None:
        return []
    if any(isinstance(each, WeightAveraging) and not isinstance(each, Ema) for each in callbacks):
        raise ValueError(f'{owner}: ema={decay:g} and a callback of the trainer both average the weights: use only one')
    return [Ema(decay), Averages()]  # in this order
