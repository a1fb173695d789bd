"""Tasks whose targets are quantities: vectors, maps, or the input itself."""

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

from mdnc.training.pictures import Panel, Style, agreement_panel, maps_panel
from mdnc.training.tasks.examples import keep_examples
from mdnc.training.tasks.loss import QUANTITY_LOSSES, own_loss, sample_means
from mdnc.training.tasks.network import Network
from mdnc.training.tasks.scale import Scale
from mdnc.training.tasks.task import Batch, Task

# Points of a chart: of more a person sees only a cloud.
_POINTS = 5000
Criterion = Literal['mse', 'mae', 'huber']


class QuantityTask(Task):
    """Trains in standard units (mean 0, standard deviation 1 of the training part), reports in the data's own.

    Args:
        network: See `Task`.
        criterion: ``'mse'`` (mean square), ``'mae'`` (mean absolute) or ``'huber'`` difference, in standard units.
        **options: Those of `Task`.

    Raises:
        ValueError: ``criterion`` is none of these, or see `Task`.
    """

    labels: ClassVar[dict[str, str]] = {'loss': 'loss (standard units)', 'rmse': 'root mean square error'}

    def __init__(
        self, network: Network | dict[str, Any] | nn.Module, criterion: Criterion = 'mse', **options: Any
    ) -> None:
        super().__init__(network, **options)
        if criterion not in QUANTITY_LOSSES:
            raise ValueError(f'{type(self).__name__}: criterion must be one of {[*QUANTITY_LOSSES]}, not {criterion!r}')
        self.hparams['criterion'] = criterion
        self._kept: list[Any] = []

    def own_metrics(self) -> dict[str, Metric]:
        return {'rmse': MeanSquaredError(squared=False), 'mae': MeanAbsoluteError()}

    def ask(self, source: Any) -> dict[str, Any]:
        return {**super().ask(source), 'target_normalisation': source.target_normalisation}

    @property
    def target_scale(self) -> Scale:
        """Between the network's units and those of the targets."""
        return Scale(self.facts.get('target_normalisation'))

    def target(self, batch: Batch) -> Tensor:
        """The targets in the network's shape and the data's own units."""
        target: Tensor = batch['target']
        return target.float()

    def check(self, batch: Batch) -> None:
        if not isinstance(batch.get('target'), Tensor):
            raise ValueError(f'{type(self).__name__}: the data have no targets')

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        target, known = self.target_scale.standard(self.target(batch)), self._known(batch)
        if output.shape != target.shape:
            raise ValueError(
                f'{type(self).__name__}: the network gives {tuple(output.shape[1:])} a sample, '
                f'but the targets are {tuple(target.shape[1:])}'
            )
        if self._loss is not None:
            return own_loss(self._loss, output, target, known)
        return sample_means(QUANTITY_LOSSES[self.hparams['criterion']](output, target, reduction='none'), known)

    def compared(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        predicted, target, known = self.predicted(output), self.target(batch), self._known(batch)
        if known is None:
            return predicted.contiguous(), target.contiguous()
        return predicted[known], target[known]

    def predicted(self, output: Tensor) -> Tensor:
        return self.target_scale.own(output.float())

    def _known(self, batch: Batch) -> Tensor | None:
        known = batch.get('known')
        return None if known is None else known.view_as(self.target(batch))

    def on_test_epoch_start(self) -> None:
        self._kept = []


class Regression(QuantityTask):
    """Predicts a vector of K quantities; the network gives ``(B, K)``, the target is ``(K,)`` or one number.

    Args:
        network: See `Task`.
        criterion: See `QuantityTask`.
        names: Names of the quantities, with their units.
        **options: Those of `Task`.

    Raises:
        ValueError: ``names`` are not as many as the network's outputs, or see `QuantityTask`.
    """

    def __init__(
        self,
        network: Network | dict[str, Any] | nn.Module,
        criterion: Criterion = 'mse',
        names: list[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(network, criterion, **options)
        if names is not None and len(names) != self.outputs:
            raise ValueError(f'Regression: names={names!r} must be {self.outputs} names, one a quantity')
        self.hparams['names'] = names

    def own_metrics(self) -> dict[str, Metric]:
        metrics = super().own_metrics()
        if self.outputs > 1:  # quantities may have different units
            metrics['rmse_each'] = MeanSquaredError(squared=False, num_outputs=self.outputs)
        return metrics

    def names(self) -> list[str]:
        given: list[str] | None = self.hparams['names']
        return given or (['value'] if self.outputs == 1 else [f'value {number + 1}' for number in range(self.outputs)])

    def title(self) -> str:
        if self.outputs == 1:
            return super().title()
        name = self.hparams['network']['name']
        return f'{name}: predicted and true values, test of {sum(len(values) for values, _ in self._kept)} samples'

    def target(self, batch: Batch) -> Tensor:
        return super().target(batch).view(len(batch['input']), -1)

    def collect(self, output: Tensor, batch: Batch) -> None:
        if sum(len(values) for values, _ in self._kept) < _POINTS:
            self._kept.append((self.predicted(output).cpu().numpy(), self.target(batch).cpu().numpy()))

    def panels(self) -> list[Panel]:
        if not self._kept:
            return []
        predicted, truth = (np.concatenate(values) for values in zip(*self._kept, strict=True))
        return [agreement_panel(truth, predicted, self.names())]


class DenseRegression(QuantityTask):
    """Predicts quantities at each position; the network gives ``(B, K, L1, ...)``, the target is such a map.

    A target of one quantity may come without its channel axis. Where the data say ``missing``, NaN in a target is
    left out of loss and metrics.

    Args:
        network: See `Task`.
        criterion: See `QuantityTask`.
        **options: Those of `Task`.
    """

    dense: ClassVar[bool] = True

    def target(self, batch: Batch) -> Tensor:
        target = super().target(batch)
        return target[:, None] if target.ndim == batch['input'].ndim - 1 else target

    def collect(self, output: Tensor, batch: Batch) -> None:
        known, target = self._known(batch), self.target(batch)
        if known is not None:
            target = target.masked_fill(~known, torch.nan)
        keep_examples(self._kept, batch, target[:, 0], self.predicted(output)[:, 0])

    def panels(self) -> list[Panel]:
        return [maps_panel(self._kept, Style(channels=self.outputs))] if self._kept else []


class Reconstruction(DenseRegression):
    """Gives the input back, through an auto-encoder; or the clean of a noisy one (data with ``corruption``).

    Beside the error of the output the metric ``rmse_of_input`` says how far the input itself is off: a denoiser
    must be below it.

    Args:
        network: See `Task`.
        criterion: See `QuantityTask`.
        residual: Whether the network says what to add to the input instead of the whole output: for denoising, where
            instance norm would otherwise have to give back the brightness that it takes away.
        **options: Those of `Task`.
    """

    def __init__(
        self,
        network: Network | dict[str, Any] | nn.Module,
        criterion: Criterion = 'mse',
        residual: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(network, criterion, **options)
        self.hparams['residual'] = residual
        self.before = MeanSquaredError(squared=False)
        self._noisy = False

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        return output + self.target_scale.standard(x) if self.hparams['residual'] else output

    def ask(self, source: Any) -> dict[str, Any]:
        # What comes out is of the same kind as what goes in.
        facts = Task.ask(self, source)
        return {**facts, 'target_normalisation': facts['normalisation']}

    def target(self, batch: Batch) -> Tensor:
        return super().target({**batch, 'target': batch.get('target', batch['input'])})

    def check(self, batch: Batch) -> None:
        pass

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._noisy = 'target' in batch
        super().test_step(batch, batch_idx)

    def collect(self, output: Tensor, batch: Batch) -> None:
        super().collect(output, batch)
        if self._noisy:
            self.before.update(batch['input'], self.target(batch))

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        if self._noisy:
            self.log('test/rmse_of_input', self.before.compute(), sync_dist=True)
            self.before.reset()

    def title(self) -> str:
        before = self.trainer.callback_metrics.get('test/rmse_of_input')
        return super().title() + (f' (of the noisy input {float(before):.4g})' if before is not None else '')

    def panels(self) -> list[Panel]:
        return [maps_panel(self._kept, Style(alike=True, channels=self.outputs))] if self._kept else []
