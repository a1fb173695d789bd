"""One class for each sample."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from mdnc.training.pictures import Panel, confusion_panel
from mdnc.training.tasks.loss import class_losses, own_loss
from mdnc.training.tasks.network import Network
from mdnc.training.tasks.task import Batch, Task


def check_classes(owner: str, batch: Batch, count: int, shape: tuple[int, ...], ignore: int) -> None:
    """Refuse targets that are not class numbers of ``shape`` below ``count``, naming the samples.

    Raises:
        ValueError: The targets are missing, of another shape or type, or out of range.
    """
    target = batch.get('target')
    if not isinstance(target, Tensor) or target.is_floating_point() or tuple(target.shape) != shape:
        got = 'nothing' if target is None else f'{str(target.dtype).removeprefix("torch.")} {tuple(target.shape)}'
        raise ValueError(f'{owner}: targets must be class numbers, integers of shape {shape}; a batch holds {got}')
    wrong = ((target < 0) | (target >= count)) & (target != ignore)
    if wrong.any():
        first = int(wrong.flatten(1).any(1).nonzero()[0]) if wrong.ndim > 1 else int(wrong.nonzero()[0])
        name = batch['name'][first] if 'name' in batch else f'number {first} of the batch'
        raise ValueError(
            f'{owner}: the network tells {count} classes apart, 0 to {count - 1}, but the target of sample {name} '
            f'holds {int(target[wrong][0])}'
        )


class Classification(Task):
    """Says which class a sample is of; the network gives ``(B, K)``, the target is a class number.

    Args:
        network: See `Task`.
        smoothing: Share of each target, in [0, 1), that is spread over all classes.
        class_weights: What each class counts in the loss, where some are rare; None means all the same.
        **options: Those of `Task`.

    Example:
        >>> task = Classification({'name': 'encnet12', 'arguments': {'order': 1, 'out_length': 3}})
        >>> type(task.network).__name__
        'EncoderNet1d'
    """

    monitor: ClassVar[tuple[str, str]] = ('val/accuracy', 'max')
    labels: ClassVar[dict[str, str]] = {'loss': 'loss (cross-entropy)', 'accuracy': 'accuracy'}

    def __init__(
        self,
        network: Network | dict[str, Any] | nn.Module,
        smoothing: float = 0.0,
        class_weights: list[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        self.hparams.update(smoothing=smoothing, class_weights=class_weights)
        self.class_weights: Tensor | None
        self.register_buffer(
            'class_weights', None if class_weights is None else torch.tensor(class_weights), persistent=False
        )
        self.confusion = MulticlassConfusionMatrix(self.outputs)
        self._counts: Tensor | None = None

    def own_metrics(self) -> dict[str, Metric]:
        return {
            'accuracy': MulticlassAccuracy(self.outputs, average='micro'),
            'f1': MulticlassF1Score(self.outputs, average='macro'),
        }

    def check(self, batch: Batch) -> None:
        check_classes('Classification', batch, self.outputs, (len(batch['input']),), ignore=-100)

    def describe(self, batch: Batch) -> list[str]:
        names = self.names()
        present = sorted({names[int(number)] for number in batch['target']})
        return [f'classes in the batch: {", ".join(present)} ({len(present)} of {len(names)})']

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        if self._loss is not None:
            return own_loss(self._loss, output, batch['target'], None)
        return class_losses(output, batch['target'], self.class_weights, self.hparams['smoothing'], ignore=-100)

    def compared(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return output.argmax(1), batch['target']

    def predicted(self, output: Tensor) -> Tensor:
        return output.softmax(1)

    def collect(self, output: Tensor, batch: Batch) -> None:
        self.confusion.update(*self.compared(output, batch))

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        self._counts = self.confusion.compute().cpu()
        self.confusion.reset()

    def panels(self) -> list[Panel]:
        return [] if self._counts is None else [confusion_panel(self._counts.numpy(), self.names())]
