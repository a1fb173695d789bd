"""A check with one batch before the run: whether the network accepts the data and can learn."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn

from mdnc._files import whole_file
from mdnc._side_effects import random_state_kept, unchanged
from mdnc.analysis import memory_forecast
from mdnc.contribs.torchsummary import summary_string
from mdnc.training.sampler import Loader

FILE = 'network.txt'


class Sanity(L.Callback):
    """Prints a summary of network and data, then runs one training batch as a check, without changing anything.

    The summary of all layers is written to ``network.txt`` in the run folder.

    It checks that the network accepts the batch, that the loss is finite, and that a finite gradient reaches every
    trainable parameter. A task may add its own checks (``check(batch)``) and lines (``describe(batch)``).

    Example:
        >>> import tempfile
        >>> from mdnc.training import Sanity, make_trainer
        >>> trainer = make_trainer(tempfile.mkdtemp(), accelerator='cpu')  # has one already
        >>> any(isinstance(each, Sanity) for each in trainer.callbacks)
        True
    """

    def __init__(self) -> None:
        self._batch: dict[str, Any] | None = None
        self._summary = ''
        self.forecast: int | None = None  # estimated bytes that training needs

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        data = getattr(trainer, 'datamodule', None)
        loader = data.train_dataloader() if stage == 'fit' and data is not None else None
        if not isinstance(loader, Loader):
            return
        self._batch = loader.first_batch()
        if trainer.is_global_zero:  # the network is not yet split by a strategy
            shape = tuple(self._batch['input'].shape)
            network = getattr(pl_module, 'network', pl_module)
            self._summary, (total, trainable) = summary_string(network, shape[1:])
            print(f'network: {type(network).__name__}, {total:,} parameters, {trainable:,} of them trainable')
            print(
                f'data: {loader.batch_sampler.samples} training samples in {len(loader)} batches; {_about(self._batch)}'
            )
            print(self._memory(trainer, pl_module, shape), flush=True)

    def _memory(self, trainer: L.Trainer, task: L.LightningModule, shape: tuple[int, ...]) -> str:
        try:
            with trainer.precision_plugin.train_step_context():
                self.forecast = memory_forecast(getattr(task, 'network', task), shape[1:], shape[0]).total
        except (
            ValueError,
            TypeError,
            RuntimeError,
        ) as error:  # a network from elsewhere may do what fake tensors cannot
            return f'memory: no estimate for this network ({str(error).splitlines()[0]})'
        kept = 'weights, gradients, AdamW and what backward keeps'
        return f'memory: {self.forecast / 2**20:,.0f} MiB per process for {kept}'

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        batch, self._batch = self._batch, None
        place = Path(trainer.default_root_dir)
        lines = [f'run: {place} on {trainer.world_size} × {pl_module.device.type}; layers: {place / FILE}']
        # A strategy that shards the parameters needs its own wrapper around each pass.
        if batch and hasattr(pl_module, 'losses') and type(trainer.strategy) in (SingleDeviceStrategy, DDPStrategy):
            lines = _try(trainer, pl_module, batch) + lines
        if trainer.is_global_zero:
            print('\n'.join(lines), flush=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._summary and trainer.is_global_zero:
            with whole_file(Path(trainer.default_root_dir) / FILE) as file:
                file.write(f'{self._summary}\n'.encode())


def _about(batch: dict[str, Any]) -> str:
    text = []
    for name in ('input', 'target'):
        value = batch.get(name)
        if isinstance(value, Tensor):
            spread = f'{value.min().item():.4g} … {value.max().item():.4g}' if value.numel() else 'empty'
            text.append(f'{name} {tuple(value.shape)} {str(value.dtype).removeprefix("torch.")} {spread}')
    return ', '.join(text)


def _try(trainer: L.Trainer, task: L.LightningModule, batch: dict[str, Any]) -> list[str]:
    getattr(task, 'check', lambda batch: None)(batch)
    moved = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
    try:
        with unchanged(task), random_state_kept(), trainer.precision_plugin.train_step_context():
            losses = _losses(task.train(), moved)
            losses.sum().backward()  # type: ignore[no-untyped-call]
        _check_loss(losses, batch['name'])
        _check_gradients(task)
    finally:
        task.zero_grad(set_to_none=True)
    lines = list(getattr(task, 'describe', lambda batch: [])(batch))
    return [*lines, f'loss before training: {losses.mean().item():.4g}, every parameter gets a gradient']


def _losses(task: Any, batch: dict[str, Any]) -> Tensor:
    if hasattr(task, 'trained'):
        taught: Tensor = task.trained(batch)[1]
        return taught
    losses: Tensor = task.losses(task(batch['input']), batch)  # of a task from elsewhere
    return losses


def _check_loss(losses: Tensor, names: list[str]) -> None:
    bad = [name for name, loss in zip(names, losses.tolist(), strict=True) if loss != loss or abs(loss) == float('inf')]
    if bad:
        raise ValueError(f'the loss is NaN or Inf before training, for {", ".join(bad[:5])}: check data and loss')


def _check_gradients(task: nn.Module) -> None:
    trainable = [(name, p.grad) for name, p in task.named_parameters() if p.requires_grad]
    bad = [name for name, grad in trainable if grad is None or not bool(torch.isfinite(grad).all())]
    if bad:
        raise ValueError(
            f'no finite gradient reaches {", ".join(bad[:5])} ({len(bad)} of {len(trainable)} parameters): '
            'the loss does not depend on them, or overflows'
        )
