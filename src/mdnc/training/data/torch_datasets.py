"""A torch `Dataset` of one's own as a source of samples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset

from mdnc.training.data.memory import plain_array
from mdnc.training.data.reader import Array, DataError, Window


class _Held:
    """The item of a data set that was asked for last: input and target are asked for one after the other."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._last: tuple[int, tuple[Any, ...]] = (-1, ())

    def __getstate__(self) -> dict[str, Any]:
        return {'dataset': self.dataset, '_last': (-1, ())}

    def item(self, index: int) -> tuple[Any, ...]:
        """Input and, where there is one, target."""
        if self._last[0] != index:
            self._last = (index, _parts(self.dataset[index]))
        return self._last[1]


def _parts(item: Any) -> tuple[Any, ...]:
    if isinstance(item, Mapping):
        if 'input' not in item:
            raise DataError(f'its item is a dictionary of {", ".join(map(str, item))}; it must hold input and target')
        return (item['input'], *([item['target']] if 'target' in item else []))
    if isinstance(item, list | tuple):
        if not 1 <= len(item) <= 2:
            raise DataError(f'its item has {len(item)} parts; it must be (input, target), or the input alone')
        return tuple(item)
    return (item,)


def _values(value: Any) -> Array:
    if isinstance(value, str | int | float):
        return np.asarray(value)
    if hasattr(value, 'getbands'):  # an image of Pillow
        pixels = np.asarray(value)
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return plain_array(value)


class Items:
    """Inputs or targets of a data set."""

    def __init__(self, held: _Held, place: int) -> None:
        self._held, self._place = held, place

    def __len__(self) -> int:
        return len(self._held.dataset)

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(self.read(index).shape)

    def read(self, index: int, window: Window = ()) -> Array:
        parts = self._held.item(index)
        if self._place >= len(parts):
            raise DataError('its item has no target, as others of the data set have')
        place: Any = (..., *window)
        return np.asarray(_values(parts[self._place])[place])

    def name(self, index: int) -> str:
        return f'{type(self._held.dataset).__name__}[{index}]'

    def file(self, index: int) -> str:
        return self.name(index)


def is_dataset(value: Any) -> bool:
    """Whether a value is a data set of torch."""
    return isinstance(value, Dataset)


def open_dataset(dataset: Any) -> tuple[Items, Items | None]:
    """Inputs and, where its items have such, targets of a data set.

    Args:
        dataset: Its items are ``(input, target)``, ``{'input': …, 'target': …}`` or inputs alone.

    Raises:
        TypeError: It has no length, so that samples can be neither drawn nor divided.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, '__len__'):
        raise TypeError(
            f'a {type(dataset).__name__} has no length, so its samples can be neither drawn nor divided: give it to '
            'the trainer in a DataLoader, trainer.fit(task, DataLoader(…))'
        )
    held = _Held(dataset)
    lone = not len(dataset) or len(held.item(0)) == 1
    return Items(held, 0), None if lone else Items(held, 1)
