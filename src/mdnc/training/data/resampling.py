"""Samples that are brought to one spacing, or to one size, as they are read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mdnc.training.data.grid import Axis, Grid, grid_of, resampling, resizing, sampled
from mdnc.training.data.reader import Array, DataError, Reader, Window, refuse_no_numbers, release, uniform


@dataclass(frozen=True)
class Sampling:
    """How samples are sampled anew on reading.

    Args:
        spacing: The spacing that they get; None: as it is.
        stored: The spacing of files that do not say it.
        resize: The spatial size that they get; None: as it is.
    """

    spacing: tuple[float, ...] | None = None
    stored: tuple[float, ...] | None = None
    resize: tuple[int, ...] | None = None

    @property
    def count(self) -> int:
        """Number of spatial axes."""
        return len(self.spacing or self.resize or self.stored or ())

    def grid(self, reader: Reader, index: int) -> Grid:
        """The grid of a sample, as it is sampled anew.

        Raises:
            DataError: The sample has other axes, or nobody says its spacing.
        """
        shape = tuple(reader.shape(index))
        if len(shape) not in (self.count, self.count + 1):
            raise DataError(f'its shape is {shape}, but {self._word} is of {self.count} spatial axes')
        size = shape[len(shape) - self.count :]
        known = grid_of(reader, index) or Grid(size)
        if len(known.size) != self.count:
            raise DataError(f'it has {len(known.size)} spatial axes, but {self._word} is of {self.count}')
        if known.spacing is None and self.stored is not None:
            known = replace(known, spacing=tuple(self.stored[axis] for axis in np.argsort(known.order)))
        if self.spacing is not None:
            if known.distances is None:
                raise DataError(
                    f'nothing says its spacing, so it cannot be brought to {self._word}: say it by stored_spacing'
                )
            return replace(known, resampled=resampling(known.shape, known.distances, self.spacing))
        return known if self.resize is None else replace(known, resampled=resizing(known.shape, self.resize))

    @property
    def _word(self) -> str:
        words = {'spacing': self.spacing, 'resize': self.resize, 'stored_spacing': self.stored}
        return next(f'{name}={list(value)}' for name, value in words.items() if value)


class Resampled:
    """The samples of a reader, sampled anew: a window is made of what it needs alone.

    Args:
        reader: The samples.
        sampling: What becomes of them.
        inputs: Where the samples are targets, the inputs that they belong to: a target that has their size is a map,
            and is sampled with them; whole numbers in it are classes, between which nothing lies.
    """

    def __init__(self, reader: Reader, sampling: Sampling, inputs: Reader | None = None) -> None:
        self.reader, self._sampling, self._inputs = reader, sampling, inputs
        self._last: tuple[int, Grid | None] = (-1, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_last': (-1, None)}

    def grid(self, index: int) -> Grid | None:
        """The sample's grid; None for a target that is no map."""
        if self._last[0] != index:
            self._last = (index, self._found(index))
        return self._last[1]

    def _found(self, index: int) -> Grid | None:
        if self._inputs is None:
            return self._sampling.grid(self.reader, index)
        size = tuple(self._inputs.shape(index))[-self._sampling.count :]
        if tuple(self.reader.shape(index))[-len(size) :] != size:
            return None
        return self._sampling.grid(self._inputs, index)

    def __len__(self) -> int:
        return len(self.reader)

    def shape(self, index: int) -> tuple[int, ...]:
        shape, grid = tuple(self.reader.shape(index)), self.grid(index)
        return shape if grid is None else (*shape[: len(shape) - len(grid.size)], *grid.shape)

    def uniform(self) -> bool:
        """Whether all samples are known to be of one shape."""
        return self._sampling.resize is not None or (self._sampling.spacing is None and uniform(self.reader))

    def read(self, index: int, window: Window = ()) -> Array:
        grid = self.grid(index)
        axes = None if grid is None else grid.resampled
        if axes is None or all(axis.idle for axis in axes):
            return self.reader.read(index, window)
        windows = [slice(None)] * (len(axes) - len(window)) + [*window[-len(axes) :]]
        return _sampled(self.reader, index, list(zip(axes, windows, strict=True)), nearest=self._inputs is not None)

    def release(self) -> None:
        """Let go of what was read of memory maps."""
        release(self.reader)

    def name(self, index: int) -> str:
        return self.reader.name(index)

    def file(self, index: int) -> str:
        return self.reader.file(index)


def _sampled(reader: Reader, index: int, parts: Sequence[tuple[Axis, slice]], nearest: bool) -> Array:
    # Which values are needed is the same or less for the nearest ones, which only the values' type tells.
    needed = []
    for axis, window in parts:
        places, _ = axis.taps(window, False)
        needed.append(slice(int(places.min()), int(places.max()) + 1))
    values = reader.read(index, tuple(needed))
    refuse_no_numbers(values)
    nearest = nearest and values.dtype.kind != 'f'
    first = values.ndim - len(parts)
    for number, ((axis, window), held) in enumerate(zip(parts, needed, strict=True)):
        places, share = axis.taps(window, nearest)
        values = sampled(values, first + number, places - held.start, share)
    return values
