"""One class for each sample."""

import warnings
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from mdnc.training.evaluation import Evaluation, Table, evaluate_classes
from mdnc.training.pictures import Example, Panel, confusion_panel
from mdnc.training.tasks.batch import Batch
from mdnc.training.tasks.classes import ClassTask, plain_weights
from mdnc.training.tasks.network import Network
from mdnc.training.tasks.task import reset

_SCORES = 100  # largest number of classes for which a test stores the probabilities of each sample
# torch's cross-entropy ignores this number; no sample is ignored here.
_NEVER = -100


class Classification(ClassTask):
    """Classification of samples; the network returns ``(B, K)``, the target is a class number.

    Args:
        network: See `Task`; K is at least 2.
        **options: Those of `ClassTask` (``smoothing``, ``class_weights``, ``focal``) and `Task`.

    Raises:
        ValueError: An argument is out of range, or see `Task`.

    Example:
        >>> task = Classification({'name': 'encnet12', 'arguments': {'order': 1, 'out_length': 3}})
        >>> type(task.network).__name__
        'EncoderNet1d'
    """

    monitor: ClassVar[tuple[str, str]] = ('val/accuracy', 'max')
    labels: ClassVar[dict[str, str]] = {'loss': 'loss (cross-entropy)', 'accuracy': 'accuracy'}

    def __init__(self, network: Network | dict[str, Any] | nn.Module, **options: Any) -> None:
        options = plain_weights('Classification', options)
        super().__init__(network, **options)
        self.confusion = MulticlassConfusionMatrix(self.outputs)
        self._counts: Tensor | None = None

    @property
    def answer(self) -> dict[str, Any]:
        return {**super().answer, 'output': 'probabilities'}

    def ask(self, source: Any) -> dict[str, Any]:
        if hasattr(source, 'classes_not_taught'):
            for part, classes in source.classes_not_taught().items():
                warnings.warn(
                    f'Classification: samples of {part} are of classes that no training sample has, so that they '
                    f'cannot be learnt: {", ".join(classes[:10])}{"…" * (len(classes) > 10)}; split.stratify=true '
                    'keeps classes as frequent in all parts',
                    stacklevel=2,
                )
        return super().ask(source)

    def own_metrics(self) -> dict[str, Metric]:
        self._refuse_one_class()
        return {
            'accuracy': MulticlassAccuracy(self.outputs, average='micro'),
            'f1': MulticlassF1Score(self.outputs, average='macro'),
        }

    def target(self, batch: Batch) -> Tensor:
        """Class numbers ``(B,)``."""
        return self.class_numbers(batch['target'], None)

    def check(self, batch: Batch) -> None:
        self.check_classes(batch, (len(batch['input']),), None)

    def describe(self, batch: Batch) -> list[str]:
        names = self.names()
        present = sorted({names[int(number)] for number in self.target(batch)})
        return [f'classes in the batch: {", ".join(present)} ({len(present)} of {len(names)})']

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        if output.ndim != 2:
            raise ValueError(
                f'Classification: the network returns {tuple(output.shape[1:])} per sample, but must return '
                f'one value per class'
            )
        if self._loss is not None:
            return self._loss(output, self.target(batch), None)
        return self.entropy(output, self.target(batch), _NEVER)

    def compared(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return output.argmax(1), self.target(batch)

    def evidence(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        scores = output.float().softmax(1)
        confidence, answer = scores.max(1)
        kept = {'target': self.target(batch), 'answer': answer, 'confidence': confidence}
        return {**kept, 'scores': scores} if self.outputs <= _SCORES else kept

    def judged(self, table: Table) -> Evaluation:
        return evaluate_classes(table, self.names())

    def shown(self, output: Tensor, batch: Batch) -> list[Example]:
        names, (share, answer) = self.names(), (part.item() for part in output.float().softmax(1)[0].max(0))
        true = names[int(self.target(batch)[0])]
        words = f'true {true}, predicted {names[int(answer)]} ({share:.1%})'
        return [replace(each, words=words) for each in super().shown(output, batch)]

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self._counts = None
        reset(self.confusion)

    def collect(self, output: Tensor, batch: Batch) -> None:
        self.confusion.update(*self.compared(output, batch))

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        self._counts = self.confusion.compute().cpu()
        reset(self.confusion)

    def panels(self) -> list[Panel]:
        return [] if self._counts is None else [confusion_panel(self._counts.numpy(), self.names())]
