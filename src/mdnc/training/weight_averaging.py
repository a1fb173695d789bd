"""Averaged weights as the weights of a run: in its figures, its files, and when it goes on."""

import functools
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor

_CURRENT = 'current_model_state'  # where Lightning keeps the weights that are trained; 'state_dict' is the average


class Averages(L.Callback):
    """Makes Lightning's `WeightAveraging` and its kin give one figure for one checkpoint, wherever it is tested.

    Raises:
        ValueError: Averages are asked for that reach no checkpoint, or a run with averages goes on without them.
    """

    def __init__(self) -> None:
        self._swapped = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._swapped = False
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, StochasticWeightAveraging):
                raise ValueError(
                    'StochasticWeightAveraging: its averages are made after the last checkpoint, so that nothing but '
                    'this process would see them; take WeightAveraging or EMAWeightAveraging'
                )
            if isinstance(callback, WeightAveraging) and stage != 'fit':
                callback._average_model = None  # or the weights that were trained last would be tested

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swapped = trainer.state.fn == 'fit'

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swapped = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._swapped and _CURRENT in checkpoint:  # within a validation, each is in the other's place
            checkpoint['state_dict'], checkpoint[_CURRENT] = checkpoint[_CURRENT], checkpoint['state_dict']

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        averaging = any(isinstance(callback, WeightAveraging) for callback in callbacks)
        if trainer.state.fn == 'fit' and _CURRENT in checkpoint and not averaging:
            raise ValueError(
                'the run averages its weights, and goes on with the callback that does so only: '
                'model.ema, WeightAveraging or EMAWeightAveraging, as it was begun with'
            )


def _moved(average: Tensor, current: Tensor, count: Any, decay: float) -> Tensor:
    # At first the average must not hang on the weights that the run began with.
    kept = torch.clamp((1 + count) / (10 + count), max=decay)
    return average * kept + current * (1 - kept)


class Ema(WeightAveraging):
    """Exponential moving average of the weights, which is short at the beginning of a run: after ``n`` steps at most
    ``(1 + n) / (10 + n)`` of it is kept in a step.

    Args:
        decay: What is kept of the average in a step.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=functools.partial(_moved, decay=decay))


def averaging(owner: str, decay: float | None, callbacks: list[L.Callback]) -> list[L.Callback]:
    """The callbacks of a task that asks for averaged weights.

    Raises:
        ValueError: The trainer averages them already.
    """
    if decay is None:
        return []
    if any(isinstance(each, WeightAveraging) and not isinstance(each, Ema) for each in callbacks):
        raise ValueError(
            f'{owner}: ema={decay:g} and a callback of the trainer both average the weights: leave one out'
        )
    return [Ema(decay), Averages()]  # in this order
