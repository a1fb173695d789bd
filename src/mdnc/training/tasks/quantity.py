"""Tasks whose targets are quantities: vectors, maps, or the input itself."""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from mdnc._plain import plain
from mdnc.modules._standardization import Scale
from mdnc.modules._tiling import single
from mdnc.training.evaluation import Evaluation, Table, error_sums, evaluate_errors
from mdnc.training.pictures import Example, Panel, Style, agreement_panel, maps_panel
from mdnc.training.tasks.arguments import flag
from mdnc.training.tasks.arguments import names as name_list
from mdnc.training.tasks.batch import Batch, inside
from mdnc.training.tasks.examples import keep_examples
from mdnc.training.tasks.loss import QUANTITY_LOSSES, sample_means
from mdnc.training.tasks.metrics import WIDE, KnownError, Points, is_of_quantities
from mdnc.training.tasks.network import Network
from mdnc.training.tasks.task import Task, reset

# Largest number of points in a chart.
_POINTS = 5000
_SAID = 4  # largest number of quantities in the caption of a picture
Criterion = Literal['mse', 'mae', 'huber']


class QuantityTask(Task):
    """Base of regression tasks: trains in standard units (mean 0, standard deviation 1), reports in units of the data.

    Args:
        network: See `Task`.
        criterion: ``'mse'`` (mean square), ``'mae'`` (mean absolute) or ``'huber'`` difference, in standard units.
        **options: Those of `Task`.

    Raises:
        ValueError: ``criterion`` is unknown, or see `Task`.
    """

    labels: ClassVar[dict[str, str]] = {'loss': 'loss (standard units)', 'rmse': 'root mean square error'}

    def __init__(
        self, network: Network | dict[str, Any] | nn.Module, criterion: Criterion = 'mse', **options: Any
    ) -> None:
        if criterion not in QUANTITY_LOSSES:
            raise ValueError(f'{type(self).__name__}: criterion must be one of {[*QUANTITY_LOSSES]}, not {criterion!r}')
        super().__init__(network, **options)
        self.hparams['criterion'] = criterion
        self._kept: list[Any] = []

    def own_metrics(self) -> dict[str, Metric]:
        return {'rmse': KnownError(), 'mae': KnownError(squared=False)}

    def ask(self, source: Any) -> dict[str, Any]:
        return {**super().ask(source), 'target_normalisation': source.target_normalisation}

    @property
    def target_scale(self) -> Scale:
        """Conversion between the units of the network and of the targets."""
        return self._steps.after

    def target(self, batch: Batch) -> Tensor:
        """The targets in the shape of the network's output, in the units of the data."""
        target: Tensor = batch['target']
        return single(target)

    def known(self, batch: Batch) -> Tensor | None:
        known = batch.get('known')
        return None if known is None else known.view_as(self.target(batch))

    def check(self, batch: Batch) -> None:
        if not isinstance(batch.get('target'), Tensor):
            raise ValueError(f'{type(self).__name__}: the data have no targets')

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        target, known = self.target(batch), self.known(batch)
        if output.shape != target.shape:
            raise ValueError(
                f'{type(self).__name__}: the network returns {tuple(output.shape[1:])} per sample, '
                f'but the targets are {tuple(target.shape[1:])}'
            )
        target = self.target_scale.standard(target)
        if self._loss is not None:
            return self._loss(output, target, known)
        return sample_means(QUANTITY_LOSSES[self.hparams['criterion']](output, target, reduction='none'), known)

    def compared(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        predicted, target, known = self.predicted(output), self.target(batch), self.known(batch)
        if known is None:
            return predicted.contiguous(), target.contiguous()
        return predicted[known], target[known]

    def measure(self, metric: Metric, output: Tensor, batch: Batch) -> None:
        if isinstance(metric, KnownError):
            metric.update(self.predicted(output), self.target(batch), self.known(batch))
            return
        if getattr(metric, 'num_outputs', 1) > 1 and self.known(batch) is not None:
            reason = 'missing=true' if 'known' in batch else 'that sizes differ'
            raise ValueError(
                f'{type(self).__name__}: with {reason} in the data, {type(metric).__name__} gets the known '
                'targets of all quantities together: use it without num_outputs, or remove it; '
                'rmse_… is the error of each quantity'
            )
        predicted, target = self.compared(output, batch)
        metric.update(*((predicted.to(WIDE), target.to(WIDE)) if is_of_quantities(metric) else (predicted, target)))

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self._kept = []


class Regression(QuantityTask):
    """Regression of K quantities; the network returns ``(B, K)``, the target is ``(K,)`` or one number.

    Args:
        network: See `Task`.
        criterion: See `QuantityTask`.
        names: Names of the quantities, with their units, all different.
        **options: Those of `Task`.

    Raises:
        ValueError: The number of ``names`` is not that of the network's outputs, or see `QuantityTask`.

    Example:
        >>> from mdnc.training import Regression
        >>> network = {'name': 'encnet12', 'arguments': {'order': 1, 'out_length': 2}}
        >>> task = Regression(network, names=['age in years', 'weight in kg'])
        >>> task.monitor
        ('val/loss', 'min')
    """

    def __init__(
        self,
        network: Network | dict[str, Any] | nn.Module,
        criterion: Criterion = 'mse',
        names: list[str] | None = None,
        **options: Any,
    ) -> None:
        names = plain(names, 'Regression.names')  # before Lightning compares arguments
        super().__init__(network, criterion, **options)
        self.hparams['names'] = None if names is None else name_list('Regression', names, self.outputs, 'quantity')
        self._points = Points(self.outputs, _POINTS)
        self._seen = 0

    def own_metrics(self) -> dict[str, Metric]:
        metrics = super().own_metrics()
        if self.outputs > 1:  # quantities may have different units
            metrics['rmse_each'] = KnownError(self.outputs)
        return metrics

    def names(self) -> list[str]:
        given: list[str] | None = self.hparams['names']
        return given or (['value'] if self.outputs == 1 else [f'value {number + 1}' for number in range(self.outputs)])

    def title(self) -> str:
        if self.outputs == 1:
            return super().title()
        return f'{self.hparams["network"]["name"]}: predicted and true values, test of {self._seen} samples'

    def target(self, batch: Batch) -> Tensor:
        return super().target(batch).view(len(batch['input']), -1)

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        reset(self._points)

    def collect(self, output: Tensor, batch: Batch) -> None:
        target, known = self.target(batch), self.known(batch)
        self._points.update(self.predicted(output), target if known is None else target.masked_fill(~known, torch.nan))

    def evidence(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        target, known = self.target(batch), self.known(batch)
        truth = target if known is None else target.masked_fill(~known, torch.nan)
        return {'truth': truth, 'predicted': self.predicted(output)}

    def judged(self, table: Table) -> Evaluation:
        return evaluate_errors(table, self.names())

    def shown(self, output: Tensor, batch: Batch) -> list[Example]:
        kept = [part[0].detach().tolist() for part in self.evidence(output, batch).values()]
        values = zip(self.names(), *kept, strict=True)
        said = [f'{name}: true {true:.4g}, predicted {answer:.4g}' for name, true, answer in values]
        more = f'; {len(said) - _SAID} more' if len(said) > _SAID else ''
        words = '; '.join(said[:_SAID]) + more
        return [replace(each, words=words) for each in super().shown(output, batch)]

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        nothing = torch.zeros(0, self.outputs, device=self.device)
        self._points.update(nothing, nothing)  # in a process without samples
        predicted, truth, self._seen = self._points.compute()
        self._kept = [(predicted, truth)] if len(truth) else []
        reset(self._points)

    def panels(self) -> list[Panel]:
        return [agreement_panel(truth, predicted, self.names(), self._seen) for predicted, truth in self._kept]


class DenseRegression(QuantityTask):
    """Regression of quantities at each position; the network returns ``(B, K, L1, ...)``, the target is such a map.

    A target of one quantity may come without its channel axis. With ``missing`` in the data, NaN in a target is
    ignored in loss and metrics.

    Args:
        network: See `Task`.
        criterion: See `QuantityTask`.
        **options: Those of `Task`.

    Example:
        >>> import torch
        >>> from mdnc.training import DenseRegression
        >>> task = DenseRegression({'name': 'unet16', 'arguments': {'order': 2}}, criterion='mae').eval()
        >>> task(torch.zeros(2, 1, 40, 40)).shape, task.monitor
        (torch.Size([2, 1, 40, 40]), ('val/loss', 'min'))
    """

    dense: ClassVar[bool] = True

    def target(self, batch: Batch) -> Tensor:
        target = super().target(batch)
        return target[:, None] if target.ndim == batch['input'].ndim - 1 else target

    def known(self, batch: Batch) -> Tensor | None:
        known, real = super().known(batch), inside(batch)
        if real is None:
            return known
        real = real[:, None].expand_as(self.target(batch))
        return real if known is None else known & real

    @property
    def style(self) -> Style:
        return Style(channels=self.outputs)

    def _show(self, kept: list[Example], output: Tensor, batch: Batch) -> list[Example]:
        known, target = self.known(batch), self.target(batch)
        if known is not None:
            target = target.masked_fill(~known, torch.nan)
        keep_examples(kept, batch, target, self.predicted(output), self.style)
        return kept

    def collect(self, output: Tensor, batch: Batch) -> None:
        self._show(self._kept, output, batch)

    def shown(self, output: Tensor, batch: Batch) -> list[Example]:
        return self._show([], output, batch)

    def evidence(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        truth, predicted, known = self.target(batch), self.predicted(output), self.known(batch)
        there = torch.ones_like(truth, dtype=torch.bool) if known is None else known
        return {'sums': error_sums(truth, predicted, there)}

    def judged(self, table: Table) -> Evaluation:
        names = ['value'] if self.outputs == 1 else [f'channel {number + 1}' for number in range(self.outputs)]
        return evaluate_errors(table, names)

    def panels(self) -> list[Panel]:
        return [maps_panel(self._kept, self.style)] if self._kept else []


class Reconstruction(DenseRegression):
    """Reconstruction of the input by an auto-encoder, or denoising (data with ``corruption``).

    The metric ``rmse_of_input`` is the error of the input itself: that of a denoiser must be
    smaller.

    Args:
        network: See `Task`.
        criterion: See `QuantityTask`.
        residual: Whether the network predicts what to add to the input instead of the whole output: useful for
            denoising, since an instance norm removes the brightness. Of an input with more channels than the output,
            to its first ones.
        **options: Those of `Task`.

    Example:
        >>> import torch
        >>> from mdnc.training import Reconstruction
        >>> task = Reconstruction({'name': 'ae16', 'arguments': {'order': 1}}, residual=True).eval()
        >>> task(torch.zeros(2, 1, 64)).shape, task.monitor
        (torch.Size([2, 1, 64]), ('val/loss', 'min'))
    """

    def __init__(
        self,
        network: Network | dict[str, Any] | nn.Module,
        criterion: Criterion = 'mse',
        residual: bool = False,
        **options: Any,
    ) -> None:
        self.residual = flag('Reconstruction', 'residual', residual)  # needed by the base class
        super().__init__(network, criterion, **options)
        self.hparams['residual'] = self.residual
        self.before = KnownError()
        self._noisy = False

    @property
    def answer(self) -> dict[str, Any]:
        return {**super().answer, 'residual': self.residual}

    @property
    def style(self) -> Style:
        return Style(alike=True, channels=self.outputs)

    def ask(self, source: Any) -> dict[str, Any]:
        # The output has the form of the input, or of its first channels.
        facts = Task.ask(self, source)
        return {**facts, 'target_normalisation': facts['normalisation'] and source.input_scale}

    def target(self, batch: Batch) -> Tensor:
        return super().target({**batch, 'target': batch.get('target', batch['input'])})

    def check(self, batch: Batch) -> None:
        pass

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._noisy = 'target' in batch
        super().test_step(batch, batch_idx)

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        reset(self.before)

    def collect(self, output: Tensor, batch: Batch) -> None:
        super().collect(output, batch)
        if self._noisy:
            target, known = self.target(batch), self.known(batch)
            given = single(batch['input'])[:, : target.shape[1]]
            self.before.update(given, target, known)

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        if self._noisy:
            self.log('test/rmse_of_input', self.before.compute(), sync_dist=True)
            reset(self.before)

    def title(self) -> str:
        before = self.trainer.callback_metrics.get('test/rmse_of_input')
        return super().title() + (f' (of the input {float(before):.4g})' if before is not None else '')
