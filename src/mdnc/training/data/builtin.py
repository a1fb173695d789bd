"""Real data that ordinary packages carry in themselves: nothing is downloaded, nothing copied.

Each needs the extra ``recipes``. What is known of each set, and its licence, stands in the package that holds it.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from mdnc._extras import require
from mdnc.training.data.datamodule import SampleData
from mdnc.training.data.location import Pair, memory_rows


class Digits(SampleData):
    """Handwritten digits, 1797 images of 8 × 8 grey levels in ten classes (scikit-learn)."""

    def pairs(self) -> Mapping[str, Pair]:
        digits = require('sklearn.datasets', 'recipes').load_digits()
        self.classes = [str(name) for name in digits.target_names]
        images = digits.images[:, None].astype(np.float32)  # (N, 1, 8, 8)
        return {'train': Pair(memory_rows(images, 'digits'), memory_rows(digits.target, 'digits'))}


class TimeSeries(SampleData):
    """Labelled signals with their archive's own test part (sktime, UCR archive).

    Args:
        name: ``'gunpoint'`` (150 values, 2 classes), ``'italy_power_demand'`` (24, 2) or ``'osuleaf'`` (427, 6).
        **options: Those of `SampleData`.
    """

    def __init__(self, name: Literal['gunpoint', 'italy_power_demand', 'osuleaf'] = 'gunpoint', **options: Any) -> None:
        super().__init__(**options)
        self._name = name

    def pairs(self) -> Mapping[str, Pair]:
        load = getattr(require('sktime.datasets', 'recipes'), f'load_{self._name}')
        parts = {part: load(split=part, return_type='numpy3d') for part in ('train', 'test')}
        return {
            part: Pair(memory_rows(x.astype(np.float32), f'{self._name}_{part}'), memory_rows(y.astype(str), part))
            for part, (x, y) in parts.items()
        }
