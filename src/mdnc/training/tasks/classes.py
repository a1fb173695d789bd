"""What tasks share whose targets are class numbers: names, their order, and how many there are."""

from typing import Any

import torch
from torch import Tensor, nn

from mdnc.training.tasks.batch import Batch
from mdnc.training.tasks.network import Network
from mdnc.training.tasks.task import Task


class ClassTask(Task):
    """Tells classes apart. Their names, where the data have such, are those of the training, in their order.

    Args:
        network: See `Task`; it gives at least 2 values or channels, one a class.
        **options: Those of `Task`.

    Raises:
        ValueError: The network gives one value only, or see `Task`.
    """

    def __init__(self, network: Network | dict[str, Any] | nn.Module, **options: Any) -> None:
        # The places of other data's classes among those of the training, where they differ.
        self._places: list[int] | None = None
        super().__init__(network, **options)

    @property
    def _argument(self) -> str:
        # What sets the number of classes, for the errors.
        known = self.hparams['network']['arguments'] or {}
        return next((name for name in ('out_planes', 'out_length') if name in known), 'the outputs of the last layer')

    def _refuse_one_class(self) -> None:
        if self.outputs == 1:
            owner, network = type(self).__name__, self.hparams['network']['name']
            raise ValueError(
                f'{owner}: {network} gives 1 {"channel" if self.dense else "value"}, but must give one for each class '
                f'(background is one too), so at least 2: set {self._argument} of the network to the number of classes'
            )

    def names(self) -> list[str]:
        classes: list[str] | None = self.facts.get('classes')
        if classes is not None:
            self._refuse_other_count(classes)
        return classes or super().names()

    def _refuse_other_count(self, classes: list[str]) -> None:
        if len(classes) != self.outputs:
            raise ValueError(
                f'{type(self).__name__}: the network tells {self.outputs} classes apart, but the data have '
                f'{len(classes)}: {_listed(classes)}; set {self._argument} of the network '
                f'to {len(classes)}'
            )

    def joined(self, said: dict[str, Any]) -> dict[str, Any]:
        # Who goes on training on some of the classes keeps them all; on others, they are the new ones.
        old, new = self.facts.get('classes'), said.get('classes')
        if old is not None and (new is None or set(new) <= set(old)):
            said = {**said, 'classes': old}
        if said['classes'] is not None:
            self._refuse_other_count(said['classes'])
        self._places = None if new is None else _places(new, said['classes'])
        return said

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

    def class_numbers(self, target: Tensor, ignore: int | None) -> Tensor:
        """Targets as numbers of the classes that the network knows, where the data number them otherwise."""
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
            raise ValueError(f'{owner}: targets must be class numbers, integers of shape {shape}; a batch holds {got}')
        count = self.outputs if self._places is None else len(self._places)
        wrong = (target < 0) | (target >= count)
        if ignore is not None:
            wrong &= target != ignore
        if wrong.any():
            first = int(wrong.flatten(1).any(1).nonzero()[0]) if wrong.ndim > 1 else int(wrong.nonzero()[0])
            name = batch['name'][first] if 'name' in batch else f'number {first} of its batch'
            raise ValueError(
                f'{owner}: the network tells {count} classes apart, 0 to {count - 1}, but the target of sample {name} '
                f'holds {int(target[wrong][0])}'
            )


def _listed(classes: list[str]) -> str:
    return ', '.join(classes[:10]) + ('…' if len(classes) > 10 else '')


def _places(theirs: list[str], ours: list[str]) -> list[int] | None:
    return None if theirs == ours else [ours.index(name) for name in theirs]
