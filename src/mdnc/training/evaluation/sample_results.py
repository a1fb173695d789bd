"""What a test sees of each sample, kept small, and brought together from all processes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, distributed

from mdnc.training.pictures import Example

Array = NDArray[Any]
Show = Callable[[int], list[Example]]
# How many of the worst samples are kept to be shown, and how many values these may have together beyond the first.
_WORST = 6
_VALUES = 30_000_000


@dataclass(frozen=True)
class Worst:
    """A sample on which a network did badly.

    Args:
        loss: How badly.
        place: The sample's number.
        examples: What is to be seen of it.
    """

    loss: float
    place: int
    examples: list[Example]

    @property
    def values(self) -> int:
        """How many values its pictures have."""
        maps = ((each.given, each.target, each.output) for each in self.examples)
        return sum(part.size for parts in maps for part in parts if part is not None)


@dataclass(frozen=True)
class Table:
    """All samples of a test in their order, each once.

    Args:
        numbers: Their numbers, ``(N,)``.
        names: Their names.
        losses: Their losses, ``(N,)``; NaN where nothing of a target is known.
        columns: What a task keeps of each, ``(N, …)``.
        worst: The worst of them, the worst first.
    """

    numbers: Array
    names: list[str]
    losses: Array
    columns: dict[str, Array]
    worst: list[Worst] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)


class SampleResults:
    """Collects the samples of a test, process by process."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._names: list[str] = []
        self._losses: list[float] = []
        self._columns: dict[str, list[Array]] = {}
        self._worst: list[Worst] = []

    def add(self, batch: dict[str, Any], losses: Tensor, columns: dict[str, Tensor], show: Show) -> None:
        """Take in a batch without fillers.

        Args:
            batch: The batch; its samples are numbered here where it has no ``index`` with its ``name``.
            losses: ``(B,)``, NaN where nothing is known.
            columns: What the task keeps, ``(B, …)`` each.
            show: Gives what is to be seen of a sample of the batch, by its place in it.
        """
        first = len(self._numbers)
        values: list[float] = losses.detach().float().cpu().tolist()
        numbers = batch['index'].tolist() if 'index' in batch else [first + place for place in range(len(values))]
        self._numbers += numbers
        self._names += list(batch['name']) if 'index' in batch else [f'sample {number}' for number in numbers]
        self._losses += values
        for name, column in columns.items():
            self._columns.setdefault(name, []).append(column.detach().cpu().numpy())
        for place in sorted(range(len(values)), key=lambda each: -_badness(values[each]))[:_WORST]:
            if len(self._worst) < _WORST or values[place] > self._worst[-1].loss:
                self._worst = _worst_of([*self._worst, Worst(values[place], numbers[place], show(place))])

    def gather(self) -> Table:
        """All samples, of all processes; every process must ask."""
        own = (self._numbers, self._names, self._losses, self._columns, self._worst)
        parts: list[Any] = [own]
        if distributed.is_available() and distributed.is_initialized():
            parts = [None] * distributed.get_world_size()
            distributed.all_gather_object(parts, own)
        numbers = np.array([number for part in parts for number in part[0]], np.int64)
        _, order = np.unique(numbers, return_index=True)  # samplers of others repeat some to fill up
        names = [name for part in parts for name in part[1]]
        losses = np.array([loss for part in parts for loss in part[2]], np.float64)
        keys = dict.fromkeys(key for part in parts for key in part[3])
        columns = {key: np.concatenate([each for part in parts for each in part[3].get(key, ())]) for key in keys}
        return Table(
            numbers[order],
            [names[place] for place in order],
            losses[order],
            {key: column[order] for key, column in columns.items()},
            _worst_of(worst for part in parts for worst in part[4]),
        )


def _badness(loss: float) -> float:
    return loss if loss == loss else -np.inf


def _worst_of(found: Iterable[Worst]) -> list[Worst]:
    each = {worst.place: worst for worst in found if worst.loss == worst.loss}
    ordered = sorted(each.values(), key=lambda worst: (-worst.loss, worst.place))[:_WORST]
    values: Sequence[int] = np.cumsum([worst.values for worst in ordered]).tolist()
    return [worst for place, worst in enumerate(ordered) if place == 0 or values[place] <= _VALUES]
