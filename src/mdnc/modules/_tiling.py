"""Sliding-window inference: a network applied to a large image or volume in overlapping tiles, which are blended."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor


def tile_starts(size: int, tile: int, overlap: float) -> list[int]:
    """First positions of evenly spread tiles that cover ``size`` values; neighbours overlap by at least ``overlap``.

    Example:
        >>> tile_starts(100, 32, 0.25)
        [0, 23, 45, 68]
    """
    if size <= tile:
        return [0]
    step = max(1, int(tile * (1 - overlap)))
    steps = -(-(size - tile) // step)
    return [round(number * (size - tile) / steps) for number in range(steps + 1)]


BLENDS = ('tent', 'gaussian')
_PIECE = 2**26  # bytes of what is blended at once


@dataclass(frozen=True)
class Tiles:
    """How tiles cover a sample, and how they are run and blended.

    Args:
        overlap: Share of a tile, in [0, 1), that it has at least in common with the next; None for what is usual: a
            half with a Gaussian (nnU-Net), a quarter with a tent.
        blend: Weight of a value by its distance from the tile's centre: ``'tent'`` decreases linearly along each axis,
            ``'gaussian'`` with a standard deviation of an eighth of the tile (nnU-Net).
        at_once: Number of tiles in one batch, among those with the same position on the first axis.
    """

    overlap: float | None = None
    blend: str = 'tent'
    at_once: int = 1

    @property
    def shared(self) -> float:
        """The share that is in common."""
        return usual_overlap(self.blend) if self.overlap is None else self.overlap


def usual_overlap(blend: str) -> float:
    """What share of a tile is usually in common with the next: with a Gaussian a half, as in nnU-Net."""
    return 0.5 if blend == 'gaussian' else 0.25


def _along(length: int, blend: str, like: Tensor) -> Tensor:
    # Where tiles overlap, the one with the nearer centre has more weight, so that no seam is visible.
    place = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    if blend == 'gaussian':
        return torch.exp(-0.5 * ((place - (length + 1) / 2) / (length / 8)) ** 2)
    return torch.minimum(place, place.flip(0)) / ((length + 1) // 2)


def _product(factors: Sequence[Tensor]) -> Tensor:
    """Numbers along each axis, multiplied to a map."""
    whole, *others = factors
    for factor in others:
        whole = whole[..., None] * factor
    return whole


def _counts(size: int, starts: Sequence[int], along: Tensor) -> Tensor:
    """What all tiles count together along an axis."""
    counts = along.new_zeros(size)
    for start in starts:
        counts[start : start + len(along)] += along
    return counts


def single(x: Tensor) -> Tensor:
    """Values in at least single precision: sums and quotients in less are inexact or overflow."""
    return x if x.is_floating_point() and x.dtype.itemsize >= 4 else x.float()


def _padded(x: Tensor, tile: Sequence[int]) -> Tensor:
    # As in training, for samples that are smaller than a patch.
    for axis, length in enumerate(tile, 2):
        if x.shape[axis] < length:
            last = x.narrow(axis, x.shape[axis] - 1, 1)
            sizes = [*last.shape]
            sizes[axis] = length - x.shape[axis]
            x = torch.cat((x, last.expand(sizes)), axis)
    return x


def _checked(tile: Sequence[int], size: Sequence[int], words: Tiles) -> None:
    if len(tile) != len(size) or min(tile, default=1) < 1:
        raise ValueError(
            f'run_tiled: tile={list(tile)} must have one length for each of {len(size)} spatial axes, each at least 1'
        )
    if words.overlap is not None and not 0 <= words.overlap < 1:
        raise ValueError(f'run_tiled: overlap={words.overlap!r} must be in [0, 1)')
    if words.blend not in BLENDS:
        raise ValueError(f'run_tiled: blend={words.blend!r} must be one of {BLENDS}')
    if words.at_once < 1:
        raise ValueError(f'run_tiled: at_once={words.at_once!r} must be at least 1')


def _runs(network: Callable[[Tensor], Tensor], x: Tensor, places: Sequence[Any], at_once: int) -> Iterator[Any]:
    """Positions with the output of the network there, several as one batch."""
    for first in range(0, len(places), at_once):
        chosen = places[first : first + at_once]
        # A copy of what may not be held as a whole, and which a network may write to.
        given = network(torch.cat([x[place] for place in chosen]))
        yield from zip(chosen, torch.split(single(given), len(x)), strict=True)


def tiled_slabs(
    network: Callable[[Tensor], Tensor], x: Tensor, tile: Sequence[int], words: Tiles = Tiles()
) -> Iterator[tuple[int, Tensor]]:
    """Run a network over tiles of its input, and yield completed slabs along the first spatial axis, in order.

    Only the tiles of one row across that axis are held in memory; arguments and errors are those of `run_tiled`.

    Yields:
        First position of a slab, and its values ``(B, K, part of L1, ...)``.
    """
    size = x.shape[2:]
    _checked(tile, size, words)
    if any(have < want for have, want in zip(size, tile, strict=True)):
        for start, values in tiled_slabs(network, _padded(x, tile), tile, words):
            real: Any = (..., slice(max(0, size[0] - start)), *map(slice, size[1:]))
            yield start, values[real]
        return
    starts = [tile_starts(*axis, words.shared) for axis in zip(size, tile, strict=True)]
    total: Tensor | None = None
    for row, following in zip(starts[0], [*starts[0][1:], size[0]], strict=True):
        for place, part in _runs(network, x, _row(row, starts[1:], tile), words.at_once):
            if list(part.shape[2:]) != list(tile):
                raise ValueError(f'run_tiled: the network gave {tuple(part.shape[2:])} for a tile of {tuple(tile)}')
            if total is None:
                if list(tile) == list(size):
                    yield 0, part
                    return
                weights = [_along(length, words.blend, part) for length in tile]
                window = _product(weights)
                # Tiles stand on a grid, so that what they count together is a product too.
                others = [_counts(*axis) for axis in list(zip(size, starts, weights, strict=True))[1:]]
                across, down = _product([part.new_ones(()), *others]), part.new_zeros(tile[0])
                total = part.new_zeros(*part.shape[:2], tile[0], *size[1:])
            total[(..., slice(None), *place[2:])].addcmul_(part, window)
        assert total is not None
        down += weights[0]
        step = max(1, _PIECE // (total[:, :, 0].numel() * total.itemsize))
        for start in range(row, following, step):
            end = min(start + step, following)
            done = slice(start - row, end - row)
            yield start, total[:, :, done] / (down[done].view(-1, *(1,) * len(others)) * across)
        _advance(total, following - row, 2)
        _advance(down, following - row, 0)


def _row(row: int, others: Sequence[Sequence[int]], tile: Sequence[int]) -> list[Any]:
    """The positions of the tiles that begin at one position of the first axis."""
    starts = [(row, *rest) for rest in product(*others)]
    return [(..., *(slice(at, at + length) for at, length in zip(each, tile, strict=True))) for each in starts]


def _advance(values: Tensor, by: int, axis: int) -> None:
    """Move values down an axis in place, with zeros behind them."""
    length = values.shape[axis]
    for start in range(by, length, by):  # a part at a time, so that no part is written over itself
        part = values.narrow(axis, start, min(by, length - start))
        values.narrow(axis, start - by, part.shape[axis]).copy_(part)
    values.narrow(axis, length - by, by).zero_()


def gathered(slabs: Iterator[tuple[int, Tensor]], length: int) -> Tensor:
    """Slabs joined along the first spatial axis, of this length; a single slab is returned as it is."""
    whole: Tensor | None = None
    for start, part in slabs:
        if part.shape[2] == length:
            return part
        whole = part.new_empty(*part.shape[:2], length, *part.shape[3:]) if whole is None else whole
        whole[:, :, start : start + part.shape[2]] = part
    assert whole is not None
    return whole


def run_tiled(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: Sequence[int],
    overlap: float | None = None,
    blend: str = 'tent',
    at_once: int = 1,
) -> Tensor:
    """Run a network that keeps the spatial size over overlapping tiles of its input, and blend its outputs.

    Args:
        network: Maps ``(B, C, *tile)`` to ``(B, K, *tile)``.
        x: Input ``(B, C, L1, ...)``; an axis shorter than the tile is padded to it with the values at its ends.
        tile: Spatial size of a tile.
        overlap: Share of a tile, in [0, 1), that it has at least in common with the next; None for a half with
            ``'gaussian'``, else a quarter.
        blend: ``'tent'`` or ``'gaussian'``: weights that decrease with the distance from a tile's centre.
        at_once: Number of tiles in one batch, at least 1.

    Returns:
        ``(B, K, L1, ...)``, the weighted average of the tiles, in at least single precision.

    Raises:
        ValueError: ``tile`` does not have one length of at least 1 for each spatial axis, another argument is out of
            range, or the network changes the spatial size.
    """
    return gathered(tiled_slabs(network, x, tile, Tiles(overlap, blend, at_once)), x.shape[2])
