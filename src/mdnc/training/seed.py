"""Random numbers that depend only on the position in the run, so that a continued run draws the same ones.

Before each step every process's generators are seeded from (seed, what is done, step, rank). So no state of
a generator has to be saved, and workers or a validation in between cannot change it.
"""

import random
import zlib
from collections.abc import Mapping
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import distributed

from mdnc.training.trainer_options import is_count


def seed_from(*numbers: int) -> int:
    """Mix non-negative numbers to one seed; similar numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


class Repeatable(L.Callback):
    """Seeds Python's, NumPy's and torch's generators (every device's) at each step, epoch and evaluation.

    Args:
        seed: The seed, at least 0, kept in the checkpoints; None: that of `seed_everything`, or torch's.

    Raises:
        ValueError: It is out of range.

    Example:
        >>> import tempfile
        >>> from mdnc.training import Repeatable, make_trainer
        >>> trainer = make_trainer(tempfile.mkdtemp(), callbacks=[Repeatable(seed=7)], accelerator='cpu')
        >>> sum(isinstance(each, Repeatable) for each in trainer.callbacks)
        1
    """

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and not is_count(seed, 0):
            raise ValueError(f'Repeatable: seed must be a whole number of at least 0, or None, not {seed!r}')
        self.seed = int(seed) if seed is not None else torch.initial_seed() % 2**32

    def state_dict(self) -> dict[str, int]:
        return {'seed': self.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seed = state['seed']

    def _restart(self, what: str, step: int, trainer: L.Trainer) -> None:
        seed = seed_from(self.seed, zlib.crc32(what.encode()), step, trainer.global_rank)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 # also code that uses the old global generator must repeat
        torch.manual_seed(seed)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart('epoch', trainer.current_epoch, trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._restart('step', trainer.fit_loop.epoch_loop.total_batch_idx, trainer)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart('validation', trainer.global_step, trainer)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart('test', 0, trainer)

    def on_predict_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart('predict', 0, trainer)


def metric_sums(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Collect the half-filled metrics of an epoch, summed over the processes; every process must call it."""
    sums = {}
    for name, metric in metrics.items():
        with metric.sync_context():
            sums[name] = dict(metric.metric_state)
    return sums


def metric_parts(metrics: Mapping[str, Any]) -> list[dict[str, dict[str, Any]]]:
    """Collect the same as each process has it, in the order of ranks; nothing where there is one process."""
    if not (metrics and distributed.is_available() and distributed.is_initialized()):
        return []
    own = {
        name: apply_to_collection(dict(metric.metric_state), torch.Tensor, _on_cpu) for name, metric in metrics.items()
    }
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, own)
    return parts


def _on_cpu(value: torch.Tensor) -> torch.Tensor:
    return value.detach().cpu()


# States of metrics in checkpoints of versions before 0.3.
_FORMER = {'sum_squared_error': 'sums', 'sum_abs_error': 'sums', 'squares': 'sums', 'total': 'counts'}


def take_up_metrics(
    metrics: Mapping[str, Any],
    sums: dict[str, dict[str, Any]],
    parts: list[dict[str, dict[str, Any]]],
    rank: int,
    world: int,
) -> None:
    """Restore what was saved of metrics: each process its own part, to the bit, or the first one the sums of others."""
    kept = parts[rank] if len(parts) == world else sums if rank == 0 else {}
    for name in sums:
        if name in metrics:
            metric = metrics[name]
            metric._update_count = 1  # else `compute` would warn if the epoch has no batch left
            for key, value in kept.get(name, {}).items():
                key = key if key in metric.metric_state else _FORMER.get(key, key)
                setattr(metric, key, apply_to_collection(value, torch.Tensor, torch.Tensor.to, metric.device))
