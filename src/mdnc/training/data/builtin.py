"""Data sets that are contained in other packages: nothing is downloaded or copied.

Each needs the extra ``recipes``. Descriptions and licences are in the package of each data set.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from mdnc._extras import require
from mdnc.modules._checks import integer, word
from mdnc.training.data.datamodule import SampleData
from mdnc.training.data.memory import memory_rows
from mdnc.training.data.reader import Array, Listed
from mdnc.training.data.sources import Pair


class Digits(SampleData):
    """Handwritten digits, 1797 images of 8 × 8 grey levels in ten classes (scikit-learn).

    Example:
        >>> from mdnc.training import Digits
        >>> data = Digits(batch_size=64)
        >>> data.setup()
        >>> len(data.train), data.train.shape, data.classes[:3]
        (1437, (1, 8, 8), ['0', '1', '2'])
    """

    def pairs(self) -> Mapping[str, Pair]:
        digits = require('sklearn.datasets', 'recipes').load_digits()
        self.classes = [str(name) for name in digits.target_names]
        images = digits.images[:, None].astype(np.float32)  # (N, 1, 8, 8)
        return {'train': Pair(memory_rows(images, 'digits'), memory_rows(digits.target, 'digits'))}


_QUANTITIES = ('tecator',)
_Names = Literal['gunpoint', 'italy_power_demand', 'osuleaf', 'tecator']


class TimeSeries(SampleData):
    """Signals with their archive's own test part (sktime; UCR archive, Tecator).

    Args:
        name: With classes ``'gunpoint'`` (150 values, 2 classes), ``'italy_power_demand'`` (24, 2) or ``'osuleaf'``
            (427, 6); with a quantity ``'tecator'`` (100, per cent of fat in meat, from its infrared spectrum).
        **options: Those of `SampleData`.

    Example:
        >>> from mdnc.training import TimeSeries
        >>> data = TimeSeries('gunpoint', batch_size=10)
        >>> data.setup()
        >>> len(data.train), len(data.test), data.train.shape
        (45, 150, (1, 150))
    """

    def __init__(self, name: _Names = 'gunpoint', **options: Any) -> None:
        super().__init__(**options)
        self._name = word('TimeSeries', 'name', name, get_args(_Names))

    def pairs(self) -> Mapping[str, Pair]:
        load = getattr(require('sktime.datasets', 'recipes'), f'load_{self._name}')
        parts = {part: load(split=part, return_type='numpy3d') for part in ('train', 'test')}
        kind = np.float32 if self._name in _QUANTITIES else str
        return {
            part: Pair(memory_rows(x.astype(np.float32), f'{self._name}_{part}'), memory_rows(y.astype(kind), part))
            for part, (x, y) in parts.items()
        }


def _brain(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    datasets = require('nilearn.datasets', 'recipes')
    head, grey, white = (
        getattr(datasets, f'load_mni152_{part}template')(resolution=resolution).get_fdata(dtype=np.float32)
        for part in ('', 'gm_', 'wm_')
    )
    rest = 1 - grey - white
    return head, np.stack([rest, grey, white]).argmax(0)  # each voxel has its most probable tissue


class MNI152(SampleData):
    """Grey and white matter in a T1 image of the head, the average of 152 people (nilearn, ICBM 2009a).

    This template is its own exact mirror image, so only the left half is used: its back trains, its front tests, and
    what is between them validates, with 4 voxels left out on either side. There is one head, so the test says how well
    a network goes on to another region of it, and nothing of another person's.

    Args:
        resolution: Edge of a voxel in mm.
        **options: Those of `SampleData`.

    Example:
        >>> from mdnc.training import MNI152
        >>> data = MNI152(patch=[32, 32, 32])
        >>> data.setup()
        >>> len(data.train), data.train.shape
        (1, (1, 32, 32, 32))
    """

    def __init__(self, resolution: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self._resolution = integer('MNI152', 'resolution', resolution)

    def pairs(self) -> Mapping[str, Pair]:
        self.classes = ['other', 'grey', 'white']
        head, tissue = _brain(self._resolution)  # (left–right, back–front, down–up)
        left, length, gap = head.shape[0] // 2, head.shape[1], 4
        first, second = length * 11 // 20, length * 7 // 10
        places: dict[str, Any] = {
            'train': np.s_[:left, :first],
            'val': np.s_[:left, first + gap : second],
            'test': np.s_[:left, second + gap :],
        }
        return {
            part: Pair(
                memory_rows(head[place][None, None], f'MNI152 {part}'),
                memory_rows(tissue[place][None], f'MNI152 {part} tissue'),
            )
            for part, place in places.items()
        }


_PHOTOGRAPHS = {
    'train': ('astronaut', 'brick', 'cat', 'coffee', 'coins', 'gravel', 'moon', 'rocket'),
    'val': ('clock',),
    'test': ('camera',),
}


class Photographs(SampleData):
    """Grey photographs of scikit-image, 0 to 255, for denoising (set ``corruption``); `camera` is the test.

    Example:
        >>> from mdnc.training import Photographs
        >>> data = Photographs(corruption=25.0, patch=[64, 64])
        >>> data.setup()
        >>> len(data.train), len(data.test)
        (8, 1)
    """

    def pairs(self) -> Mapping[str, Pair]:
        images = require('skimage.data', 'recipes')
        return {
            part: Pair(Listed([_grey(getattr(images, name)())[None] for name in names], names))
            for part, names in _PHOTOGRAPHS.items()
        }


def _grey(image: Array) -> Array:
    grey: Array = image.astype(np.float32)
    return grey.mean(-1) if image.ndim == 3 else grey


_COLOURED = {
    'train': ('astronaut', 'hubble_deep_field', 'immunohistochemistry', 'retina', 'rocket'),
    'val': ('cat',),
    'test': ('coffee',),
}


class Mosaics(SampleData):
    """Colour photographs of scikit-image, 0 to 255, out of what a camera's sensor sees of them; `coffee` tests.

    A sensor measures one colour at each position, in Bayer's pattern (red, green; green, blue). The first three
    channels of the input are the colours with the two others by bilinear interpolation, the last three what was
    measured, and 0 elsewhere; the target is the photograph.

    Example:
        >>> from mdnc.training import Mosaics
        >>> data = Mosaics(patch=[48, 48])
        >>> data.setup()
        >>> len(data.train), data.train.shape
        (5, (6, 48, 48))
    """

    def pairs(self) -> Mapping[str, Pair]:
        images = require('skimage.data', 'recipes')
        found = {}
        for part, names in _COLOURED.items():
            targets = [np.moveaxis(getattr(images, name)(), -1, 0).astype(np.float32) for name in names]
            found[part] = Pair(Listed([_interpolated(each) for each in targets], names), Listed(targets, names))
        return found


def _interpolated(image: Array) -> Array:
    """Of a photograph ``(3, H, W)`` the means of the nearest values in Bayer's pattern, then these values and 0."""
    convolve = require('scipy.ndimage', 'recipes').convolve
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4
    found, measured = np.empty_like(image), np.zeros_like(image)
    for channel, colour in enumerate(image):
        kept = np.zeros(colour.shape, np.float32)
        for row, column in ((0, 0),) if channel == 0 else ((1, 1),) if channel == 2 else ((0, 1), (1, 0)):
            kept[row::2, column::2] = 1
        measured[channel] = kept * colour
        sums, counts = (convolve(each, kernel, mode='mirror') for each in (measured[channel], kept))
        found[channel] = np.where(kept == 1, colour, sums / counts)
    return np.concatenate([found, measured])
