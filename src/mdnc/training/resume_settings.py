"""Settings that override those of a checkpoint when a run continues: optimizers, size of tiles."""

from typing import Any

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def set_rate(trainer: L.Trainer, optimizer: Optimizer, number: int, rate: float) -> None:
    """Change the learning rate of a group of parameters, at the same position in its schedule."""
    group = optimizer.param_groups[number]
    before = group.get('initial_lr', group['lr'])
    if 'initial_lr' in group:
        group['initial_lr'] = rate
    group['lr'] *= rate / before
    for config in trainer.lr_scheduler_configs:
        scheduler: Any = config.scheduler
        if getattr(scheduler, 'optimizer', None) is optimizer and hasattr(scheduler, 'base_lrs'):
            scheduler.base_lrs[number] = rate


def _configured(optimizer: Optimizer) -> dict[str, Any]:
    groups = []
    for group in optimizer.param_groups:
        settings = {name: value for name, value in group.items() if name not in ('params', 'initial_lr')}
        groups.append({**settings, 'lr': group.get('initial_lr', group['lr'])})
    return {'kind': type(optimizer).__name__, 'groups': groups}


class Settings(L.Callback):
    """Lets the configuration override the checkpoint from which a run continues.

    A checkpoint contains the settings of the optimizers. Those that have been changed in the configuration since the
    checkpoint was written are taken from the configuration, and so is the size of tiles.
    """

    def __init__(self) -> None:
        self._now: list[dict[str, Any]] = []
        self._then: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        return {'optimizers': self._now}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._then = state['optimizers']

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Optimizers exist, but are not yet restored from a checkpoint.
        self._now = [_configured(optimizer) for optimizer in trainer.optimizers]
        self._refuse_others()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._refuse_others()
        for optimizer, now, then in zip(trainer.optimizers, self._now, self._then, strict=False):
            for number, settings in enumerate(now['groups']):
                changed = {name: value for name, value in settings.items() if then['groups'][number].get(name) != value}
                if 'lr' in changed:
                    set_rate(trainer, optimizer, number, changed.pop('lr'))
                optimizer.param_groups[number].update(changed)
        if self._then:
            catch_up(trainer)
        self._then = []

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        source: Any = getattr(trainer, 'datamodule', None)
        task: Any = pl_module
        if task.hparams.get('data') and source is not None and hasattr(task, 'tile_as'):
            task.tile_as(source)

    def _refuse_others(self) -> None:
        kinds = [[each['kind'] for each in optimizers] for optimizers in (self._then, self._now)]
        sizes = [[len(each['groups']) for each in optimizers] for optimizers in (self._then, self._now)]
        if self._then and (kinds[0] != kinds[1] or sizes[0] != sizes[1]):
            raise ValueError(
                f'the run was trained with {", ".join(kinds[0])}, but the configuration has '
                f'{", ".join(kinds[1])}: the state of '
                'an optimizer does not fit another one; start a new run'
            )


def catch_up(trainer: L.Trainer) -> None:
    """Let a schedule that became another one, in its length or kind, hold from the next step on, not the one after."""
    for config in trainer.lr_scheduler_configs:
        scheduler: Any = config.scheduler
        if isinstance(scheduler, LambdaLR):
            rates = [
                base * factor(scheduler.last_epoch)
                for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            ]
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group['lr'] = rate
            scheduler._last_lr = rates
