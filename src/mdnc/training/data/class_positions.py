"""Positions of the classes in the targets of training samples, read once."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mdnc.training.data.reader import Array, DataError


def count_classes(targets: Iterable[Array]) -> dict[int, int]:
    """Number of samples, or positions of maps, of each class number.

    Raises:
        DataError: The targets are not class numbers.
    """
    found: Counter[int] = Counter()
    for target in targets:
        if target.dtype.kind not in 'iu':
            raise DataError(f'classes cannot be counted: the targets are of type {target.dtype}, not class numbers')
        numbers, counts = np.unique(target, return_counts=True)
        found.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
    return dict(found)


_MOST = 1000  # largest number of positions stored for each class and sample


@dataclass(frozen=True)
class ClassPositions:
    """Positions of the rarer classes: by number of the sample, an array ``(n, axes)`` for each class.

    Args:
        share: Fraction of the windows, in (0, 1], that contain one of them.
        rows: The positions.
    """

    share: float
    rows: Mapping[int, tuple[Array, ...]]

    def draw(self, number: int, rng: np.random.Generator) -> Array | None:
        """A position that a window of a sample must contain, of a random class; None: any window."""
        classes = self.rows[number]
        if rng.random() >= self.share or not classes:
            return None
        rows = classes[int(rng.integers(len(classes)))]
        place: Array = rows[int(rng.integers(len(rows)))]
        return place


def find_class_positions(targets: Iterable[tuple[int, Array]], share: float, ignore: int | None) -> ClassPositions:
    """Find the positions of all classes except the most frequent one.

    Args:
        targets: Numbers of samples with their maps of class numbers, of the sizes of their inputs.
        share: See `ClassPositions`.
        ignore: Label value of unknown positions, in addition to all below 0.

    Raises:
        DataError: A target is not a map of class numbers.
    """
    counts: Counter[int] = Counter()
    found: dict[int, dict[int, Array]] = {}
    for number, target in targets:
        counts.update(count_classes([target]))
        found[number] = {each: _some(target == each, number) for each in np.unique(target).tolist()}
    left = {each: count for each, count in counts.items() if each >= 0 and each != ignore}
    usual = max(left, key=lambda each: left[each], default=None)
    rare = set(left) - {usual}
    return ClassPositions(
        share, {number: tuple(row[each] for each in row if each in rare) for number, row in found.items()}
    )


def _some(mask: Array, number: int) -> Array:
    rows = np.argwhere(mask).astype(np.int32)
    if len(rows) <= _MOST:
        return rows
    kept: Array = rows[np.sort(np.random.default_rng(number).choice(len(rows), _MOST, replace=False))]
    return kept
