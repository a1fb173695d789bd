"""Runs that follow a figure: learning rates that come down, and trainings that end, where it gets no better."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from torch.optim.lr_scheduler import ReduceLROnPlateau


class Plateau:
    """How far a learning rate has come down: by torch's `ReduceLROnPlateau`, whose place a checkpoint can keep.

    Lightning lets such a schedule step after an epoch's checkpoint was saved, so that a run that goes on misses a step.

    Args:
        factor: What is left of the rate, in (0, 1), where the figure got no better.
        patience: Epochs without a better figure that are waited for.
    """

    def __init__(self, factor: float, patience: int) -> None:
        # Its own threshold is a share of the figure, by which a negative one is always better.
        self._words = {'factor': factor, 'patience': patience, 'threshold': 0.0}
        self._rate = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        self._figure: tuple[str, str] | None = None
        self._schedule: ReduceLROnPlateau | None = None
        self._taken_up: dict[str, Any] = {}

    @property
    def factor(self) -> float:
        """What is left of the configured rate."""
        return float(self._rate.param_groups[0]['lr'])

    def step(self, figure: tuple[str, str], value: float) -> None:
        """Count an epoch.

        Args:
            figure: Name of what is followed, and whether ``'min'`` or ``'max'`` is better; of another one the count
                begins anew.
            value: What it is now.
        """
        if self._schedule is None or figure != self._figure:
            self._schedule, self._figure = ReduceLROnPlateau(self._rate, figure[1], **self._words), figure  # type: ignore[arg-type]
            if self._taken_up.get('figure') == list(figure):
                self._schedule.best, self._schedule.num_bad_epochs = self._taken_up['best'], self._taken_up['bad']
            self._taken_up = {}
        self._schedule.step(value)

    def state(self) -> dict[str, Any]:
        """Its place, as plain values."""
        if self._schedule is None or self._figure is None:
            return {**self._taken_up, 'factor': self.factor}
        counts = {'best': float(self._schedule.best), 'bad': self._schedule.num_bad_epochs}
        return {'factor': self.factor, 'figure': list(self._figure), **counts}

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from the place of a checkpoint."""
        self._rate.param_groups[0]['lr'] = state['factor']
        self._taken_up, self._schedule = dict(state), None


def refuse_unseen(word: str, figure: str, trainer: L.Trainer) -> None:
    """Refuse to follow a figure of a validation that there will not be.

    Raises:
        ValueError: The data have no validation part.
    """
    found = trainer.num_val_batches
    if figure.startswith('val/') and not sum(found if isinstance(found, list) else [found]):
        raise ValueError(
            f'{word} follows {figure}, but nothing is validated: give the data a split.val, or set '
            'keeper.monitor=train/loss'
        )


# Of the reasons for which it ended a run, those that more patience does not take away.
_FINAL = (
    EarlyStoppingReason.STOPPING_THRESHOLD,
    EarlyStoppingReason.DIVERGENCE_THRESHOLD,
    EarlyStoppingReason.NON_FINITE_METRIC,
)


class Stopping(L.Callback):
    """Lets Lightning's `EarlyStopping` last when a run goes on: one that it ended has ended, with the patience that is
    configured now."""

    def __init__(self) -> None:
        self._patience: list[tuple[EarlyStopping, int]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # A checkpoint, which is read after this, brings the patience of its time.
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self._patience = [(each, each.patience) for each in callbacks if isinstance(each, EarlyStopping)]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for callback, patience in self._patience:
            callback.patience = patience
            if callback.wait_count >= patience or callback.stopping_reason in _FINAL:
                trainer.should_stop = True
