"""Where the values of a sample lie: sizes and spacing of its file, and the way there and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnc.training.data.reader import Array


def _balanced(share: Array, distance: Array) -> Array:
    # What makes the middle of the shares the place itself, so that what rises evenly still does.
    lever = (share * distance**2).sum(1, keepdims=True)
    tilt = np.divide((share * distance).sum(1, keepdims=True), lever, out=np.zeros_like(lever), where=lever > 0)
    balanced: Array = np.clip(1 - tilt * distance, 0, None)
    return balanced


@dataclass(frozen=True)
class Axis:
    """One axis that is sampled anew, around the middle that both have in common.

    Args:
        have: Values that there are.
        want: Values that there will be.
        step: Distance between two new values, in old ones.
    """

    have: int
    want: int
    step: float

    @property
    def back(self) -> 'Axis':
        """The way back."""
        return Axis(self.want, self.have, 1 / self.step)

    @property
    def idle(self) -> bool:
        """Whether nothing changes."""
        return self.have == self.want and self.step == 1

    def _places(self, window: slice) -> Array:
        found: Array = (np.arange(*window.indices(self.want)) - (self.want - 1) / 2) * self.step + (self.have - 1) / 2
        return np.clip(found, 0, self.have - 1)

    def taps(self, window: slice, nearest: bool) -> tuple[Array, Array]:
        """For each new value of a window the old ones that it is made of, and the share of each, ``(values, taps)``.

        Linear between neighbours; where values get fewer, over all that a new one stands for, so that nothing that is
        finer than the new values shows up as something coarse.
        """
        places = self._places(window)
        if nearest:
            return np.floor(places + 0.5).astype(np.int64)[:, None], np.ones((len(places), 1))
        width = max(1.0, self.step)
        first = np.floor(places - width).astype(np.int64) + 1
        index = first[:, None] + np.arange(int(np.ceil(2 * width)))
        share = np.clip(1 - np.abs(index - places[:, None]) / width, 0, None)
        share *= (index >= 0) & (index < self.have)
        share *= _balanced(share, index - places[:, None])
        return np.clip(index, 0, self.have - 1), share / share.sum(1, keepdims=True)


def sampled(values: Array, axis: int, index: Array, share: Array) -> Array:
    """New values along an axis, sums of old ones."""
    if share.shape[1] == 1:
        return np.take(values, index[:, 0], axis)
    exact = np.float64 if values.dtype == np.float64 else np.float32
    form = [1] * values.ndim
    form[axis] = -1
    total: Array = np.zeros((), exact)
    for taken, part in zip(index.T, share.T.astype(exact), strict=True):
        total = total + np.take(values, taken, axis).astype(exact) * part.reshape(form)
    return total


@dataclass(frozen=True)
class Grid:
    """The spatial axes of a sample in its file, and what was made of them on reading.

    Args:
        size: Spatial sizes in the file, in the order of its axes.
        spacing: Distance of neighbouring values along each axis of the file: mm in volumes, seconds in signals; None
            where nothing says it.
        affine: From places in a volume's file to those in the scanner, mm: 4 × 4, row by row; None where there is none.
        axes: The file's axis that each axis of the sample is, as in ``(2, 0, 1)``; None: the same.
        flips: Whether an axis of the sample runs against that of the file; None: none does.
        resampled: How each axis of the sample was sampled anew, after that; None: it was not.

    Example:
        >>> import numpy as np
        >>> grid = Grid((4, 2), axes=(1, 0), flips=(False, True))
        >>> grid.shape
        (2, 4)
        >>> grid.restore(np.arange(8).reshape(2, 4)).tolist()
        [[3, 7], [2, 6], [1, 5], [0, 4]]
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    axes: tuple[int, ...] | None = None
    flips: tuple[bool, ...] | None = None
    resampled: tuple[Axis, ...] | None = None

    @property
    def order(self) -> tuple[int, ...]:
        """The file's axis of each axis of the sample."""
        return self.axes or tuple(range(len(self.size)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial sizes of the sample."""
        if self.resampled is not None:
            return tuple(axis.want for axis in self.resampled)
        return tuple(self.size[axis] for axis in self.order)

    @property
    def distances(self) -> tuple[float, ...] | None:
        """Distance of neighbouring values along each axis of the sample."""
        if self.spacing is None:
            return None
        steps = [1.0] * len(self.size) if self.resampled is None else [axis.step for axis in self.resampled]
        return tuple(self.spacing[axis] * step for axis, step in zip(self.order, steps, strict=True))

    def restore(self, values: Array, nearest: bool = False) -> Array:
        """Bring what belongs to a sample back to the axes and sizes of its file.

        Args:
            values: ``(..., L1, ...)``, which ends in the sample's own sizes.
            nearest: Whether values are class numbers, between which nothing lies.

        Raises:
            ValueError: The sizes are others.
        """
        count = len(self.size)
        if tuple(values.shape[values.ndim - count :]) != self.shape:
            raise ValueError(f'Grid.restore: values are {values.shape}, which does not end in {self.shape}.')
        lead = values.ndim - count
        for number, axis in enumerate(self.resampled or ()):
            if not axis.idle:
                values = sampled(values, lead + number, *axis.back.taps(slice(None), nearest))
        values = values[(..., *(slice(None, None, -1 if flip else None) for flip in self.flips or (False,) * count))]
        return np.transpose(values, (*range(lead), *(lead + axis for axis in np.argsort(self.order))))


def grid_of(reader: Any, index: int) -> Grid | None:
    """The grid of a reader's sample, None where nothing is known of it."""
    asked = getattr(reader, 'grid', None)
    return None if asked is None else asked(index)


def resampling(size: Sequence[int], distances: Sequence[float], spacing: Sequence[float]) -> tuple[Axis, ...]:
    """How axes are sampled anew for another spacing.

    Args:
        size: Their sizes.
        distances: The spacing that they have.
        spacing: The one that they shall have.
    """
    return tuple(
        Axis(have, max(1, round(have * old / new)), new / old)
        for have, old, new in zip(size, distances, spacing, strict=True)
    )


def resizing(size: Sequence[int], want: Sequence[int]) -> tuple[Axis, ...]:
    """How axes are sampled anew to have other sizes."""
    return tuple(Axis(have, each, have / each) for have, each in zip(size, want, strict=True))
