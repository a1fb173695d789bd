"""Base of tasks with class numbers as targets: names, order and number of classes."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import (
    BinaryCalibrationError,
    BinaryHingeLoss,
    BinaryPrecisionRecallCurve,
    MulticlassCalibrationError,
    MulticlassHingeLoss,
    MulticlassPrecisionRecallCurve,
)

from mdnc._plain import plain
from mdnc.modules._standardization import Constants
from mdnc.training.tasks.arguments import number, weights
from mdnc.training.tasks.batch import Batch
from mdnc.training.tasks.loss import Entropy, balanced_weights, class_losses
from mdnc.training.tasks.network import Network
from mdnc.training.tasks.task import Task

# Metrics that need probabilities: AUROC, average precision and others from curves, calibration.
_SCORED = (
    BinaryPrecisionRecallCurve,
    MulticlassPrecisionRecallCurve,
    BinaryCalibrationError,
    MulticlassCalibrationError,
    BinaryHingeLoss,
    MulticlassHingeLoss,
)


def plain_weights(owner: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options of a task with class_weights as plain values, as needed when Lightning compares arguments."""
    given = {name: plain(options[name], f'{owner}.{name}') for name in ('class_weights',) if name in options}
    return {**options, **given}


class ClassTask(Task):
    """Base of tasks with classes. Names and order of the classes are those of the training data.

    Args:
        network: See `Task`; it needs at least 2 outputs or output channels, one per class.
        smoothing: Label smoothing: fraction of each target, in [0, 1), spread over all classes in the cross-entropy.
        class_weights: Weight of each class in the cross-entropy: numbers of at least 0, one per class, not all of them
            0; or ``'balanced'``: inversely proportional to the frequency in the training part. None: equal weights for
            all samples or positions.
        focal: γ ≥ 0 of the focal loss: a target predicted with probability p has the weight (1 − p)^γ.
        **options: Those of `Task`.

    Raises:
        ValueError: The network has a single output, an argument is out of range, or see `Task`.
    """

    def __init__(
        self,
        network: Network | dict[str, Any] | nn.Module,
        smoothing: float = 0.0,
        class_weights: list[float] | Literal['balanced'] | None = None,
        focal: float = 0.0,
        **options: Any,
    ) -> None:
        owner = type(self).__name__
        smoothing = number(owner, 'smoothing', smoothing, 'in [0, 1)', 0.0, 1.0)
        focal = number(owner, 'focal', focal, '≥ 0', 0.0)
        self.ignore: int = getattr(self, 'ignore', -100)  # label value of unknown targets
        # Positions of the classes of other data among those of the training, if they differ.
        self._places: list[int] | None = None
        self._balanced = class_weights == 'balanced'
        self._weights: Constants | None = None
        super().__init__(network, **options)
        if class_weights is not None and not self._balanced:
            class_weights = weights(owner, 'class_weights', class_weights, self.outputs)
            self._weights = Constants(class_weights)
        self.hparams.update(smoothing=smoothing, class_weights=class_weights, focal=focal)

    def learn(self, data: dict[str, Any]) -> None:
        super().learn(data)
        counts = self.facts.get('class_counts')
        if self._balanced and counts is not None:
            self._weights = Constants(balanced_weights(counts))

    def ask(self, source: Any) -> dict[str, Any]:
        said = super().ask(source)
        if not self._balanced:
            return said
        if not hasattr(type(source), 'class_counts'):
            raise ValueError(
                f"{type(self).__name__}: class_weights='balanced' needs the classes of the training part, which "
                f'{type(source).__name__} does not count: give numbers'
            )
        found = source.class_counts
        counts = [found.get(place, 0) * (place != self.ignore) for place in range(self.outputs)]
        return {**said, 'class_counts': counts}

    def entropy(self, output: Tensor, target: Tensor, ignore: int) -> Tensor:
        """Cross-entropy ``(B,)`` with smoothing, class_weights and focal."""
        if self._balanced and self._weights is None:
            raise ValueError(
                f"{type(self).__name__}: class_weights='balanced' needs the classes of the training part, which only "
                'a data module of mdnc counts: give numbers'
            )
        weight = None if self._weights is None else self._weights.beside(output)
        return class_losses(output, target, weight, Entropy(self.hparams['smoothing'], self.hparams['focal'], ignore))

    @property
    def _argument(self) -> str:
        # What determines the number of classes, for error messages.
        known = self.hparams['network']['arguments'] or {}
        return next((name for name in ('out_planes', 'out_length') if name in known), 'the outputs of the last layer')

    def _refuse_one_class(self) -> None:
        if self.outputs == 1:
            owner, network = type(self).__name__, self.hparams['network']['name']
            raise ValueError(
                f'{owner}: {network} has 1 output {"channel" if self.dense else "value"}, but needs one for each class '
                f'(including background), so at least 2: set {self._argument} of the network to the number of classes'
            )

    def names(self) -> list[str]:
        classes: list[str] | None = self.facts.get('classes')
        if classes is not None:
            self._refuse_other_count(classes)
        return classes or super().names()

    def _refuse_other_count(self, classes: list[str]) -> None:
        if len(classes) != self.outputs:
            raise ValueError(
                f'{type(self).__name__}: the network has outputs for {self.outputs} classes, but the data have '
                f'{len(classes)}: {_listed(classes)}; set {self._argument} of the network '
                f'to {len(classes)}'
            )

    def joined(self, said: dict[str, Any]) -> dict[str, Any]:
        # Further training on some of the classes keeps all of them; other classes replace them.
        old, new = self.facts.get('classes'), said.get('classes')
        if old is not None and (new is None or set(new) <= set(old)):
            said = {**said, 'classes': old}
        if said['classes'] is not None:
            self._refuse_other_count(said['classes'])
        self._places = None if new is None else _places(new, said['classes'])
        return _counted_as(said, self._places)

    def compare(self, source: Any) -> None:
        super().compare(source)
        ours, theirs = self.facts.get('classes'), getattr(source, 'classes', None)
        self._places = None
        if ours is None or theirs is None or self.trainer.predicting:
            return
        unknown = [name for name in theirs if name not in ours]
        if unknown:
            raise ValueError(
                f'{type(self).__name__}: the data have the classes {_listed(unknown)}, which the network was not '
                f'trained on; it knows {_listed(ours)}'
            )
        self._places = _places(theirs, ours)

    def measure(self, metric: Metric, output: Tensor, batch: Batch) -> None:
        if not isinstance(metric, _SCORED) and getattr(metric, 'top_k', 1) == 1:
            super().measure(metric, output, batch)
            return
        target, known = self.compared(output, batch)[1], self.known(batch)
        shares = output.float().softmax(1)
        if known is not None and target.ndim > 1:
            shares, target = shares.movedim(1, -1)[known], target[known]
        if type(metric).__name__.startswith('Binary'):
            if self.outputs != 2:
                raise ValueError(
                    f'{type(self).__name__}: {type(metric).__name__} is for two classes, but there are {self.outputs}: '
                    f'use {type(metric).__name__.replace("Binary", "Multiclass", 1)}'
                )
            shares = shares[:, 1]
        metric.update(shares, target)

    def class_numbers(self, target: Tensor, ignore: int | None) -> Tensor:
        """Targets as class numbers of the network, if the data number the classes differently."""
        if self._places is None:
            return target
        table = torch.tensor(self._places, device=target.device)
        inside = (target >= 0) & (target < len(table))
        if ignore is not None:
            inside &= target != ignore
        return torch.where(inside, table[torch.where(inside, target, 0)], target)

    def check_classes(self, batch: Batch, shape: tuple[int, ...], ignore: int | None) -> None:
        """Refuse targets that are not class numbers of ``shape``, naming the samples.

        Raises:
            ValueError: The targets are missing, of another shape or type, or out of range.
        """
        owner, target = type(self).__name__, batch.get('target')
        if not isinstance(target, Tensor) or target.is_floating_point() or tuple(target.shape) != shape:
            got = 'nothing' if target is None else f'{str(target.dtype).removeprefix("torch.")} {tuple(target.shape)}'
            raise ValueError(f'{owner}: targets must be class numbers, integers of shape {shape}; a batch has {got}')
        count = self.outputs if self._places is None else len(self._places)
        wrong = (target < 0) | (target >= count)
        if ignore is not None:
            wrong &= target != ignore
        if wrong.any():
            first = int(wrong.flatten(1).any(1).nonzero()[0]) if wrong.ndim > 1 else int(wrong.nonzero()[0])
            name = batch['name'][first] if 'name' in batch else f'number {first} of its batch'
            raise ValueError(
                f'{owner}: the network has classes 0 to {count - 1}, but the target of sample {name} '
                f'holds {int(target[wrong][0])}; where others stand for classes, as 0 and 255, values=[0, 255] '
                'of the data says so'
            )


def _listed(classes: list[str]) -> str:
    return ', '.join(classes[:10]) + ('…' if len(classes) > 10 else '')


def _counted_as(said: dict[str, Any], places: list[int] | None) -> dict[str, Any]:
    """Counts of the classes of the data as counts of those of the network."""
    counts = said.get('class_counts')
    if counts is None or places is None:
        return said
    theirs = dict(zip(places, counts, strict=False))
    return {**said, 'class_counts': [theirs.get(place, 0) for place in range(len(counts))]}


def _places(theirs: list[str], ours: list[str]) -> list[int] | None:
    return None if theirs == ours else [ours.index(name) for name in theirs]
