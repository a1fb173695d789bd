"""Losses that are NaN or Inf: detected, reported, and the run stopped or the step skipped."""

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from mdnc._torch import maximum_norms
from mdnc.training.sample import Nonfinite

_NAMED = 5


class NonfiniteLossError(ValueError):
    """A training loss is NaN or Inf; the message names step, batch and samples."""


class Guard(L.Callback):
    """Stops a run when its training loss is NaN or Inf, or skips such steps.

    Args:
        nonfinite: ``'stop'`` the run, or ``'skip'`` each step with a gradient that is not finite, with a warning.

    Example:
        >>> import tempfile
        >>> from mdnc.training import Guard, make_trainer
        >>> trainer = make_trainer(tempfile.mkdtemp(), callbacks=[Guard('skip')], accelerator='cpu')
        >>> [each.nonfinite for each in trainer.callbacks if isinstance(each, Guard)]
        ['skip']
    """

    def __init__(self, nonfinite: Nonfinite = 'stop') -> None:
        if nonfinite not in ('stop', 'skip'):
            raise ValueError(f"Guard: nonfinite must be 'stop' or 'skip', not {nonfinite!r}")
        self.nonfinite = nonfinite
        self._held: tuple[Tensor, list[str], str] | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._check()
        place = f'epoch {trainer.current_epoch}, step {trainer.global_step}, batch {batch_idx}'
        losses: Any = outputs.get('losses', outputs.get('loss')) if isinstance(outputs, dict) else outputs
        if losses is None:  # a task from elsewhere has skipped its step
            return
        self._held = (
            torch.isfinite(losses.detach()),
            list(batch.get('name', []) if isinstance(batch, dict) else []),
            place,
        )
        # A device works asynchronously: its result is read after the next step, to avoid waiting.
        if losses.device.type == 'cpu':
            self._check()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._check()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        if self.nonfinite == 'stop':
            return
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norms = maximum_norms(gradients)  # NaN and Inf pass through a maximum
        finite = all(bool(torch.isfinite(norm)) for norm in norms)
        if not trainer.strategy.reduce_boolean_decision(finite, all=True):
            optimizer.zero_grad(set_to_none=True)  # optimizers skip parameters without a gradient

    def _check(self) -> None:
        held, self._held = self._held, None
        if held is None or bool(held[0].all()):
            return
        finite, names, place = held
        bad = [name for name, good in zip(names, finite.tolist(), strict=True) if not good] if finite.ndim else names
        named = ', '.join(bad[:_NAMED]) + (f' and {len(bad) - _NAMED} more' if len(bad) > _NAMED else '')
        text = f'the training loss is NaN or Inf at {place}; samples: {named or "unknown"}'
        if self.nonfinite == 'stop':
            raise NonfiniteLossError(f'{text}. This step was not saved; --guard.nonfinite skip skips such steps')
        print(f'skipped: {text}', flush=True)
