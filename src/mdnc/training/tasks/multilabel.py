"""Multi-label classification: any number of classes for one sample."""

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.classification import MultilabelAccuracy, MultilabelExactMatch, MultilabelF1Score

from mdnc._plain import plain
from mdnc.modules._standardization import Constants
from mdnc.training.evaluation import Evaluation, Table, evaluate_labels
from mdnc.training.tasks.arguments import names as name_list
from mdnc.training.tasks.arguments import weights
from mdnc.training.tasks.batch import Batch
from mdnc.training.tasks.loss import sample_means
from mdnc.training.tasks.network import Network
from mdnc.training.tasks.task import Task


class MultiLabel(Task):
    """Multi-label classification of samples; the network returns ``(B, K)``, the target is K times 0 or 1.

    If the targets are columns of a table, these name the classes.

    Args:
        network: See `Task`.
        names: Names of the classes, all different; None: those of the columns, or numbers.
        positive_weights: Weight of positive targets of each class, useful for rare classes: K numbers of at least 0,
            not all of them 0. None means 1.
        **options: Those of `Task`.

    Raises:
        ValueError: An argument is out of range, or see `Task`.

    Example:
        >>> task = MultiLabel({'name': 'encnet12', 'arguments': {'order': 1, 'out_length': 3}}, names=['a', 'b', 'c'])
        >>> task.answer['output']
        'shares'
    """

    monitor: ClassVar[tuple[str, str]] = ('val/f1', 'max')
    labels: ClassVar[dict[str, str]] = {'loss': 'loss (cross-entropy)', 'f1': 'mean F1'}

    def __init__(
        self,
        network: Network | dict[str, Any] | nn.Module,
        names: list[str] | None = None,
        positive_weights: list[float] | None = None,
        **options: Any,
    ) -> None:
        names = plain(names, 'MultiLabel.names')  # before Lightning compares arguments
        positive_weights = plain(positive_weights, 'MultiLabel.positive_weights')
        super().__init__(network, **options)
        if names is not None:
            names = name_list('MultiLabel', names, self.outputs, 'class')
        if positive_weights is not None:
            positive_weights = weights('MultiLabel', 'positive_weights', positive_weights, self.outputs)
        self.hparams.update(names=names, positive_weights=positive_weights)
        self._weights = None if positive_weights is None else Constants(positive_weights)

    @property
    def answer(self) -> dict[str, Any]:
        return {**super().answer, 'output': 'shares'}

    def own_metrics(self) -> dict[str, Metric]:
        count = self.outputs
        if count < 2:
            raise ValueError(f'MultiLabel: the network has {count} output; for one class use Classification with two')
        return {
            'f1': MultilabelF1Score(count, average='macro'),
            'f1_each': MultilabelF1Score(count, average='none'),
            'accuracy': MultilabelAccuracy(count, average='micro'),
            'exact_match': MultilabelExactMatch(count),
        }

    def names(self) -> list[str]:
        columns = self.facts.get('columns')
        known = self.hparams['names'] or (columns if columns and len(columns) == self.outputs else None)
        return list(known) if known else super().names()

    def learn(self, data: dict[str, Any]) -> None:
        # The names are saved with the facts about the data, as for other classes.
        said = self.hparams.get('names') or data.get('columns')
        super().learn({**data, 'classes': said or data.get('classes')})

    def check(self, batch: Batch) -> None:
        target, shape = batch.get('target'), (len(batch['input']), self.outputs)
        if not isinstance(target, Tensor) or tuple(target.shape) != shape or ((target != 0) & (target != 1)).any():
            got = 'nothing' if target is None else f'{tuple(target.shape)}, {target.min()} to {target.max()}'
            raise ValueError(f'MultiLabel: targets must be 0 or 1 for each class, of shape {shape}; a batch has {got}')

    def describe(self, batch: Batch) -> list[str]:
        shares = batch['target'].float().mean(0).tolist()
        listed = ', '.join(f'{name} {share:.1%}' for name, share in zip(self.names(), shares, strict=True))
        return [f'classes in the batch: {listed} of the samples']

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        target = batch['target'].to(output.dtype)
        if output.shape != target.shape:
            raise ValueError(
                f'MultiLabel: the network returns {tuple(output.shape[1:])} per sample, but the targets are '
                f'{tuple(target.shape[1:])}'
            )
        if self._loss is not None:
            return self._loss(output, target, None)
        weight = None if self._weights is None else self._weights.beside(output)
        values = functional.binary_cross_entropy_with_logits(output, target, pos_weight=weight, reduction='none')
        return sample_means(values)

    def compared(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return output.float().sigmoid(), batch['target'].long()

    def evidence(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {'target': batch['target'].long(), 'scores': output.float().sigmoid()}

    def judged(self, table: Table) -> Evaluation:
        return evaluate_labels(table, self.names())
