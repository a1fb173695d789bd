"""NIfTI volumes, turned so that their axes run to the right, to the front and up (RAS)."""

from typing import Any

import numpy as np

from mdnc._extras import require
from mdnc.training.data.grid import Grid
from mdnc.training.data.reader import Array, DataError


class Volume:
    """The volume of a file as ``(C, X, Y, Z)``, read as far as it is asked for; an image ``(C, X, Y)`` is not turned.

    Args:
        path: The file, ``.nii`` or ``.nii.gz``.
    """

    def __init__(self, path: str) -> None:
        nibabel = require('nibabel', 'data')
        image = nibabel.load(path)
        # Values with a factor come in float64, of which the file holds 16 bits.
        self._exact = image.get_data_dtype().kind == 'f'
        self._held = self._plain(image.dataobj) if path.lower().endswith('.gz') else image.dataobj
        shape = tuple(int(length) for length in image.shape)
        self._plane, self._vector = len(shape) == 2, len(shape) == 5 and shape[3] == 1
        if not (2 <= len(shape) <= 4 or self._vector):
            raise DataError(f'its shape is {shape}, but volumes are (X, Y, Z), with channels (X, Y, Z, C)')
        count = min(len(shape), 3)
        axes: tuple[int, ...] = (0, 1)
        flips: tuple[bool, ...] = (False, False)
        if count == 3:
            axes, flips = _towards_ras(nibabel.io_orientation(image.affine))
        self.grid = Grid(
            size=shape[:count],
            spacing=tuple(float(zoom) for zoom in image.header.get_zooms()[:count]),
            affine=tuple(map(tuple, np.asarray(image.affine, float).tolist())),
            axes=axes,
            flips=flips,
        )
        self.shape = (shape[-1] if len(shape) > 3 else 1, *self.grid.shape)

    def __getitem__(self, place: Any) -> Array:
        spatial = [slice(None)] * len(self.grid.order)
        given = tuple(part for part in place if part is not Ellipsis)
        spatial[len(spatial) - len(given) :] = given
        wanted, turns = [slice(None)] * len(spatial), []
        for number, (axis, flip) in enumerate(zip(self.grid.order, self.grid.flips or (), strict=True)):
            start, stop, _ = spatial[number].indices(self.shape[number + 1])
            length = self.shape[number + 1]
            wanted[axis] = slice(length - stop, length - start) if flip else slice(start, stop)
            turns.append(slice(None, None, -1 if flip else None))
        values = self._plain(self._held[(*wanted, *((0,) if self._vector else ()))])
        values = np.moveaxis(values, -1, 0) if values.ndim > len(spatial) else values[None]
        turned: Any = (slice(None), *turns)
        found: Array = np.transpose(values, (0, *(axis + 1 for axis in self.grid.order)))[turned]
        return found

    def _plain(self, values: Any) -> Array:
        found: Array = np.asanyarray(values)
        return found.astype(np.float32) if found.dtype == np.float64 and not self._exact else found


def _towards_ras(orientation: Array) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    # A row for each axis of the file: which of R, A, S it is, and whether it runs there; NaN where the affine does
    # not say it.
    if np.isnan(orientation).any():
        return (0, 1, 2), (False, False, False)
    axes = tuple(int(axis) for axis in np.argsort(orientation[:, 0]))
    return axes, tuple(bool(orientation[axis, 1] < 0) for axis in axes)
