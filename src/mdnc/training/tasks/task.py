"""What all tasks share: network, normalisation, optimizer, schedule, and the bookkeeping of losses and metrics."""

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric

from mdnc._plain import plain
from mdnc.training.checkpoint import check_fits
from mdnc.training.pictures import Panel, curves_panel, is_share, save_page
from mdnc.training.tasks.network import Network, build_network, describe_network, output_channels
from mdnc.training.tasks.scale import Scale
from mdnc.training.tiling import run_tiled

Batch = dict[str, Any]


def decaying_names(network: nn.Module) -> frozenset[str]:
    """Names of the parameters that decay: weights of convolutions and linear layers.

    Norms, slopes of PReLU and biases are vectors; to pull a scale or a slope towards 0 helps nothing.
    """
    return frozenset(name for name, parameter in network.named_parameters() if parameter.ndim > 1)


def parameter_groups(network: nn.Module, decaying: frozenset[str], weight_decay: float) -> list[dict[str, Any]]:
    """Parameters in two groups, with and without decay.

    FSDP hands out flat pieces of parameters, in which a weight can no longer be told from a vector: hence the names,
    taken before. It and `torch.compile` put prefixes before them.
    """
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        plain = name.replace('_fsdp_wrapped_module.', '').replace('_orig_mod.', '')
        groups[plain in decaying].append(parameter)
    return [
        {'params': groups[True], 'weight_decay': weight_decay},
        {'params': groups[False], 'weight_decay': 0.0},
    ]


def cosine_factor(step: int, warmup: int, total: int) -> float:
    """Factor of the learning rate: a line up from 0 over ``warmup`` steps, then a half cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))


class Task(L.LightningModule):
    """Trains, tests and applies one network; a subclass says what its output means.

    Args:
        network: ``{'name': …, 'arguments': {…}}``: a network or preset of `mdnc.modules.resnet`, or the full name of
            any ``nn.Module``; from Python also the module itself.
        lr: Highest learning rate.
        weight_decay: Decay of the weights of convolutions and linear layers; norms, slopes and biases have none.
        warmup: Share of the steps, in [0, 1), in which the learning rate rises.
        schedule: ``'cosine'`` (warm-up, then a half cosine down to 0) or ``'constant'`` (after the warm-up).
        optimizer: Makes another optimizer than AdamW of parameter groups.
        loss: Another loss than the task's own: a module with ``reduction='none'``.
        metrics: Further metrics of torchmetrics by name, beside the task's own.
        data: What a checkpoint says of the data it was trained on; else the data module says it.

    Raises:
        ValueError: The network cannot be built, or an argument is out of its range.
    """

    monitor: ClassVar[tuple[str, str]] = ('val/loss', 'min')
    labels: ClassVar[dict[str, str]] = {'loss': 'loss'}  # metrics drawn as curves, with what is written over them
    dense: ClassVar[bool] = False  # whether the output is a map of the input's size

    def __init__(
        self,
        network: Network | dict[str, Any] | nn.Module,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        schedule: Literal['cosine', 'constant'] = 'cosine',
        optimizer: Callable[[Any], Optimizer] | None = None,
        loss: nn.Module | None = None,
        metrics: dict[str, Metric] | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not (lr > 0 and weight_decay >= 0 and 0 <= warmup < 1 and schedule in ('cosine', 'constant')):
            raise ValueError(
                f'{type(self).__name__}: lr must be > 0, weight_decay ≥ 0, warmup in [0, 1) and schedule cosine or '
                f'constant; got {lr!r}, {weight_decay!r}, {warmup!r}, {schedule!r}'
            )
        self.network = network if isinstance(network, nn.Module) else build_network(network)
        settings = {
            'network': describe_network(self.network),
            'lr': lr,
            'weight_decay': weight_decay,
            'warmup': warmup,
            'schedule': schedule,
            'data': None,
        }
        self.save_hyperparameters(plain(settings, type(self).__name__), logger=False)
        self._optimizer, self._loss = optimizer, loss
        self._decaying = decaying_names(self.network)
        self._make_metrics(metrics or {})
        if data is not None:
            self.learn(data)

    def _make_metrics(self, more: dict[str, Metric]) -> None:
        named = {**self.own_metrics(), **more}
        for stage in ('train', 'val', 'test'):
            metrics = nn.ModuleDict({'loss': MeanMetric(), **{name: m.clone() for name, m in named.items()}})
            self.add_module(f'{stage}_metrics', metrics)

    @cached_property
    def outputs(self) -> int:
        """Number of values or channels that the network gives."""
        return output_channels(self.network)

    # What a subclass says.

    def own_metrics(self) -> dict[str, Metric]:
        """The task's metrics by name; called when ``self.network`` is there."""
        return {}

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        """One loss a sample, ``(B,)``."""
        raise NotImplementedError

    def compared(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """What metrics compare: prediction and truth, in the data's own units."""
        raise NotImplementedError

    def predicted(self, output: Tensor) -> Tensor:
        """What a user gets for an output: probabilities, or values in the data's own units."""
        raise NotImplementedError

    def check(self, batch: Batch) -> None:
        """Refuse a batch whose targets do not suit the task."""

    def describe(self, batch: Batch) -> list[str]:
        """Lines about a batch that a user can check before training."""
        return []

    def collect(self, output: Tensor, batch: Batch) -> None:
        """Keep what the pictures after a test need; ``batch`` holds no fillers."""

    def panels(self) -> list[Panel]:
        """What stands beside the curves in the picture of a run, from what the test collected."""
        return []

    def pictures(self, folder: Path, history: list[dict[str, float]]) -> list[Path]:
        """Draw what a person wants to see after a run.

        Args:
            folder: Where the PNG files go.
            history: One row an epoch: ``epoch``, ``train/loss``, ….

        Returns:
            The files: ``results.png``, where there is anything to show.
        """
        panels = curves_panel(history, self.labels) + self.panels()
        return [save_page(Path(folder) / 'results.png', self.title(), panels)] if panels else []

    def title(self) -> str:
        """What stands over the picture: the network and how well it did in the test."""
        name = next(name for name in self.labels if name != 'loss')
        value = self.trainer.callback_metrics.get(f'test/{name}')
        if value is None:
            return f'{self.hparams["network"]["name"]}'
        shown = f'{float(value):.2%}' if is_share(name) else f'{float(value):.4g}'
        return f'{self.hparams["network"]["name"]}: test {self.labels[name]} {shown}'

    # What the data says.

    def learn(self, data: dict[str, Any]) -> None:
        """Take over what must be known of the data: ``normalisation``, ``classes``, …, as plain values."""
        self.hparams['data'] = plain(data, f'{type(self).__name__}.data')

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the data: from the checkpoint, or else from the data module, which then is asked once."""
        if self.hparams['data'] is None:
            source = getattr(self._trainer, 'datamodule', None)
            self.learn(self.ask(source) if hasattr(source, 'facts') else {})
        facts: dict[str, Any] = self.hparams['data']
        return facts

    def ask(self, source: Any) -> dict[str, Any]:
        """The facts of a data module that this task needs."""
        facts: dict[str, Any] = source.facts
        return facts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_fits(self, checkpoint)
        data = checkpoint.get('hyper_parameters', {}).get('data')
        if data is not None:
            self.learn(data)

    # What Lightning calls.

    def forward(self, x: Tensor) -> Tensor:
        """Run the network on inputs in the data's own units; the output is the network's."""
        output: Tensor = self.network(Scale(self.facts.get('normalisation')).standard(x))
        return output

    def whole(self, x: Tensor) -> Tensor:
        """`forward`, in overlapping tiles where the network was trained on patches of such samples."""
        patch = self.facts.get('patch')
        if not self.dense or patch is None:
            output: Tensor = self(x)
            return output
        return run_tiled(self, x, patch, self.facts['overlap'])

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        output = self(batch['input'])
        losses = self.losses(output, batch)
        self._count('train', output.detach(), losses.detach(), batch)
        weight = batch['weight'] if 'weight' in batch else torch.full_like(losses, 1 / len(losses))
        return {'loss': (losses * weight).sum(), 'losses': losses.detach()}  # the guard names the samples

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        output = self.whole(batch['input'])
        self._count('val', output, self.losses(output, batch), batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        output = self.whole(batch['input'])
        self._count('test', output, self.losses(output, batch), batch)
        if len(real := _real(batch)):
            self.collect(output[real], _select(batch, real))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.predicted(self.whole(batch['input']))

    def _count(self, stage: str, output: Tensor, losses: Tensor, batch: Batch) -> None:
        real = _real(batch)
        if not len(real):
            return
        metrics = getattr(self, f'{stage}_metrics')
        metrics['loss'].update(losses[real])
        values = self.compared(output[real], _select(batch, real))
        for name, metric in metrics.items():
            if name != 'loss':
                metric.update(*values)

    def on_train_epoch_end(self) -> None:
        self._log('train')

    def on_validation_epoch_end(self) -> None:
        self._log('val')

    def on_test_epoch_end(self) -> None:
        self._log('test')

    def _log(self, stage: str) -> None:
        for name, metric in getattr(self, f'{stage}_metrics').items():
            for key, value in self.rows(name, metric.compute()).items():
                # `compute` has brought the processes together: all log the same, and its mean is the same again.
                self.log(f'{stage}/{key}', value, prog_bar=name == 'loss', sync_dist=True)
            metric.reset()

    def rows(self, name: str, value: Tensor) -> dict[str, Tensor]:
        """A metric's values by name: one by one where it gives several (``…_each``)."""
        if value.ndim == 0:
            return {name: value}
        return {f'{name.removesuffix("_each")}_{word}': part for word, part in zip(self.names(), value, strict=True)}

    def names(self) -> list[str]:
        """Names of what the network gives: of classes, or of quantities; numbers where there are none."""
        classes: list[str] | None = self.facts.get('classes')
        if classes is not None and len(classes) != self.outputs:
            raise ValueError(
                f'{type(self).__name__}: the network tells {self.outputs} classes apart, but the data have '
                f'{len(classes)}: {", ".join(classes[:10])}{"…" if len(classes) > 10 else ""}'
            )
        return classes or [str(number) for number in range(self.outputs)]

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self.network, self._decaying, self.hparams['weight_decay'])
        if self._optimizer is None:
            optimizer: Optimizer = torch.optim.AdamW(groups, lr=self.hparams['lr'])
        else:
            optimizer = self._optimizer(groups)
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ValueError('the schedule needs an end: set max_epochs or max_steps of the trainer')
        warmup, constant = round(self.hparams['warmup'] * total), self.hparams['schedule'] == 'constant'

        def factor(step: int) -> float:
            return 1.0 if constant and step >= warmup else cosine_factor(step, warmup, int(total))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'}}


def _real(batch: Batch) -> Tensor:
    # Fillers and samples that are skipped have weight 0.
    if 'weight' not in batch:
        return torch.arange(len(batch['input']), device=batch['input'].device)
    real: Tensor = batch['weight'].nonzero()[:, 0]
    return real


def _select(batch: Batch, real: Tensor) -> Batch:
    if len(real) == len(batch['input']):
        return batch
    numbers = real.tolist()
    return {
        key: value[real] if isinstance(value, Tensor) else [value[number] for number in numbers]
        for key, value in batch.items()
    }
