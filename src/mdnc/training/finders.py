"""Lightning's search for a learning rate or a batch size, once before a run."""

from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

_LATER = ('on_validation_start', 'on_test_start', 'on_predict_start')


def tame(callbacks: Iterable[L.Callback]) -> None:
    """Let searches run only at the start of a new run, not when a run is continued.

    Raises:
        ValueError: A search is configured within the training, where the schedule would override its result.
    """
    for callback in callbacks:
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            if type(callback).on_train_epoch_start is not L.Callback.on_train_epoch_start:
                raise ValueError(
                    f'{type(callback).__name__}: a search within the training has no effect; search before'
                )
            finder: Any = callback
            finder.on_fit_start = _once(finder.on_fit_start)
            if isinstance(callback, BatchSizeFinder):
                finder.setup = _fitting(finder.setup)
                for name in _LATER:
                    if getattr(type(callback), name) is getattr(BatchSizeFinder, name):
                        setattr(finder, name, lambda *_: None)


def _once(search: Callable[..., None]) -> Callable[..., None]:
    def start(trainer: Any, module: L.LightningModule) -> None:
        if not trainer._checkpoint_connector._loaded_checkpoint:
            search(trainer, module)

    return start


def _fitting(setup: Callable[..., None]) -> Callable[..., None]:
    def begin(trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        if stage == 'fit':
            setup(trainer, module, stage)

    return begin


class Finders(L.Callback):
    """Recreates optimizers and schedules after a search, so that it has no other effect."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def on_fit_start(self, trainer: Any, pl_module: L.LightningModule) -> None:
        kinds = [type(callback) for callback in trainer.callbacks]
        searched = {
            'lr': any(issubclass(kind, LearningRateFinder) for kind in kinds),
            'batch_size': any(issubclass(kind, BatchSizeFinder) for kind in kinds),
        }
        self.found = {}
        if trainer._checkpoint_connector._loaded_checkpoint or not any(searched.values()):
            return
        holders = {'lr': pl_module.hparams, 'batch_size': vars(trainer.datamodule or pl_module)}
        self.found = {name: holders[name][name] for name, done in searched.items() if done and name in holders[name]}
        trainer.ckpt_path = None
        trainer.fit_loop.restarting = False
        trainer.strategy.setup_optimizers(trainer)
        if trainer.is_global_zero:
            print('found: ' + ', '.join(f'{name} {value:.4g}' for name, value in self.found.items()), flush=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics: Any = getattr(pl_module, 'train_metrics', {})
        for metric in metrics.values() if self.found else ():
            metric.reset()
