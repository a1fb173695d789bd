"""What can be seen in samples beside their values: objects, borders, periods, and groups in names."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from mdnc._extras import require
from mdnc.planning.running_statistics import rounded
from mdnc.training.data.reader import Array

_POSITIONS = 2**24  # of a map in which objects are looked for: more is cut to its middle
_PARTS = 5_000  # objects of a class that are measured
_CLASSES = 64  # classes whose objects are measured
_LONGEST = 2**16  # values of a signal that are transformed
_NUMBER = re.compile(r'^(.*\D)\d+\D*$')


class Objects:
    """Sizes of the connected parts of each class, in voxels along each axis."""

    def __init__(self) -> None:
        self._extents: dict[int, list[tuple[int, ...]]] = {}
        self._weights: dict[int, list[int]] = {}

    def add(self, labels: Array) -> None:
        """Measure the parts in a map of whole numbers, of which 0 is the background."""
        image = require('scipy.ndimage', 'data')
        labels = _middle(np.asarray(labels))
        labels = np.where((labels > 0) & (labels <= 2**15), labels, 0).astype(np.int32)
        for number, box in enumerate(image.find_objects(labels), 1):
            if box is None or (number not in self._extents and len(self._extents) >= _CLASSES):
                continue
            extents = self._extents.setdefault(number, [])
            weights = self._weights.setdefault(number, [])
            parts, count = image.label(labels[box] == number)
            if len(extents) + count <= _PARTS or not extents:
                sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
                extents += [tuple(each.stop - each.start for each in part) for part in image.find_objects(parts)]
                weights += sizes.tolist()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The figures of each class; the median is that of the part in which a voxel of it mostly lies."""
        return {str(number): self._figures(number) for number in sorted(self._extents)}

    def _figures(self, number: int) -> dict[str, Any]:
        extents, weights = np.array(self._extents[number]), np.array(self._weights[number])
        median = []
        for along in extents.T:
            order = np.argsort(along, kind='stable')
            half = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
            median.append(int(along[order[half]]))
        return {'parts': len(extents), 'median': median, 'largest': extents.max(0).tolist()}


def _middle(labels: Array) -> Array:
    """The map, or as much of its middle as may be looked at."""
    while labels.size > _POSITIONS:
        axis = int(np.argmax(labels.shape))
        cut = labels.shape[axis] // 4
        labels = np.take(labels, range(cut, labels.shape[axis] - cut), axis)
    return labels


def empty_borders(values: Array) -> list[float]:
    """Share of each spatial axis of a sample ``(C, L1, ...)`` at whose ends all is as in its first corner."""
    corner = values[(slice(None), *(slice(0, 1),) * (values.ndim - 1))]
    filled = (values != corner).any(0)
    shares = []
    for axis in range(filled.ndim):
        along = np.flatnonzero(filled.any(tuple(other for other in range(filled.ndim) if other != axis)))
        held = along[-1] - along[0] + 1 if len(along) else filled.shape[axis]
        shares.append(1 - held / filled.shape[axis])
    return shares


class Spectrum:
    """Mean power spectrum of signals of one length.

    Args:
        length: Values that are transformed; of longer signals the first, shorter ones are filled with zeros.
    """

    def __init__(self, length: int) -> None:
        self._length = min(length, _LONGEST)
        self._power = np.zeros(self._length // 2 + 1)

    def add(self, signal: Array) -> None:
        """Take a signal ``(C, L)`` into account, each channel with the same weight."""
        values = np.nan_to_num(np.asarray(signal[:8, : self._length], np.float64), posinf=0, neginf=0)
        if values.shape[1] < 8:
            return
        values = values - values.mean(1, keepdims=True)
        power = np.abs(np.fft.rfft(values * np.hanning(values.shape[1]), self._length)) ** 2
        total = power.sum(1, keepdims=True)
        self._power += np.divide(power, total, out=np.zeros_like(power), where=total > 0).sum(0)

    def periods(self) -> list[dict[str, float]]:
        """Up to three peaks of at least two periods in a signal, the strongest first."""
        power = self._power / max(self._power.sum(), 1e-300)
        inner = np.arange(2, len(power) - 1)
        peaks = inner[(power[inner] > power[inner - 1]) & (power[inner] >= power[inner + 1])]
        strong = sorted(peaks, key=lambda place: -power[place])[:3]
        shares = {int(place): float(power[place - 1 : place + 2].sum()) for place in strong}
        return [
            {'length': rounded(self._length / place, 4), 'share': rounded(share, 3)}
            for place, share in shares.items()
            if share >= 0.05
        ]


def find_groups(names: Sequence[str], classes: Sequence[Any] | None) -> dict[str, Any]:
    """Groups that the names of files show: by their folder, or by what stands before the last number.

    Args:
        names: The file of each sample, below what was named.
        classes: The class of each sample, where it has one: what only says the class is no group.

    Returns:
        ``count``, ``example`` and ``keys`` (beginnings of paths, with their numbers of samples); nothing where names
        show none.
    """
    stems = [name.rpartition('.')[0] or name for name in names]
    before = [match[1] if (match := _NUMBER.match(stem)) else stem for stem in stems]
    folders = [name.rpartition('/')[0] + '/' for name in names]
    for keys in (before, folders):
        counts = Counter(keys)
        if not 1 < len(counts) <= len(names) / 2 or min(map(len, counts)) < 2:
            continue
        if classes is None or len({*zip(keys, classes, strict=True)}) > len(counts):
            return {'count': len(counts), 'example': keys[0], 'keys': dict(sorted(counts.items()))}
        if len({*classes}) < len(counts) / 2:  # many groups of one class each: patients, say
            return {'count': len(counts), 'example': keys[0], 'keys': dict(sorted(counts.items()))}
    return {}
