"""Averaged weights as the weights of a run: in its figures, its files, and when it goes on."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

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
                'WeightAveraging or EMAWeightAveraging, as it was begun with'
            )
