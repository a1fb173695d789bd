"""Numbers that stand for classes in files, such as 0 and 255, and the class numbers 0, 1, … that they mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mdnc.training.data.reader import Array, DataError, Reader, Window, release, uniform

UNKNOWN = -100  # the number that tasks leave out by default


def check_values(owner: str, values: Any) -> list[int]:
    """The numbers that stand for classes as a list of its own.

    Raises:
        TypeError: They are no list of whole numbers.
        ValueError: There are less than two, or one stands twice.
    """
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(listed, list | tuple) or any(
        isinstance(each, bool) or not isinstance(each, int | np.integer) for each in listed
    ):
        raise TypeError(f'{owner}: values={values!r} must be a list of whole numbers, one a class, as [0, 255].')
    if len(listed) < 2 or len(set(listed)) < len(listed):
        raise ValueError(f'{owner}: values={values!r} must be at least two numbers, all different, one a class.')
    return [int(each) for each in listed]


class ClassNumbers:
    """Targets as class numbers.

    Args:
        reader: The targets as they are stored.
        values: The stored numbers of the classes 0, 1, …; None: they are these already, in whatever type.
        missing: Whether a number that stands for no class, or NaN, means that the class is not known.
    """

    def __init__(self, reader: Reader, values: Sequence[int] | None, missing: bool) -> None:
        self.reader, self._missing = reader, missing
        self._values = None if values is None else np.array(values)

    def __len__(self) -> int:
        return len(self.reader)

    def shape(self, index: int) -> tuple[int, ...]:
        return self.reader.shape(index)

    def uniform(self) -> bool:
        """Whether all samples are known to be of one shape."""
        return uniform(self.reader)

    def read(self, index: int, window: Window = ()) -> Array:
        stored = self.reader.read(index, window)
        if stored.dtype.kind not in 'biuf':
            return stored
        with np.errstate(invalid='ignore'):
            numbers = stored.astype(np.int64)
        strange = numbers != stored
        if self._values is not None:
            order = np.argsort(self._values)
            places = np.searchsorted(self._values[order], numbers).clip(max=len(order) - 1)
            strange |= self._values[order][places] != numbers
            numbers = order[places]
        if not strange.any():
            return np.asarray(numbers)
        if not self._missing:
            raise DataError(self._refusal(index, stored[strange][0]))
        return np.where(strange, UNKNOWN, numbers)

    def release(self) -> None:
        """Let go of what was read of memory maps."""
        release(self.reader)

    def _refusal(self, index: int, number: Any) -> str:
        legal = 'no whole number, as of classes' if self._values is None else f'none of values={self._values.tolist()}'
        return (
            f'its target {self.reader.name(index)} holds {number:g}, which is {legal}; missing: true leaves such '
            'places out'
        )

    def name(self, index: int) -> str:
        return self.reader.name(index)

    def file(self, index: int) -> str:
        return self.reader.file(index)
