"""Where the classes are in the targets of training samples, read once."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from mdnc.training.data.reader import Array, DataError


def count_classes(targets: Iterable[Array]) -> dict[int, int]:
    """How many samples, or positions of maps, are of each class number.

    Raises:
        DataError: The targets are no class numbers.
    """
    found: Counter[int] = Counter()
    for target in targets:
        if target.dtype.kind not in 'iu':
            raise DataError(f'classes cannot be counted: the targets are of type {target.dtype}, not class numbers')
        numbers, counts = np.unique(target, return_counts=True)
        found.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
    return dict(found)
