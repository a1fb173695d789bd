"""A network run over a large image or volume in overlapping tiles, blended to one whole."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor


def tile_starts(size: int, tile: int, overlap: float) -> list[int]:
    """First positions of tiles that cover ``size`` values, evenly spread, neighbours sharing at least ``overlap``.

    Example:
        >>> tile_starts(100, 32, 0.25)
        [0, 23, 45, 68]
    """
    if size <= tile:
        return [0]
    step = max(1, int(tile * (1 - overlap)))
    steps = -(-(size - tile) // step)
    return [round(number * (size - tile) / steps) for number in range(steps + 1)]


def _window(tile: Sequence[int], like: Tensor) -> Tensor:
    # A tent along each axis: where tiles overlap, the one whose centre is nearer counts more, and no seam is left.
    weight = torch.ones((), device=like.device, dtype=like.dtype)
    for length in tile:
        ramp = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
        weight = weight[..., None] * (torch.minimum(ramp, ramp.flip(0)) / ((length + 1) // 2))
    return weight


def single(x: Tensor) -> Tensor:
    """Values in single precision or better: what is summed or divided in less loses its digits, or overflows."""
    return x if x.is_floating_point() and x.dtype.itemsize >= 4 else x.float()


def _padded(x: Tensor, tile: Sequence[int]) -> Tensor:
    # As training does with samples that are smaller than a patch.
    for axis, length in enumerate(tile, 2):
        if x.shape[axis] < length:
            last = x.narrow(axis, x.shape[axis] - 1, 1)
            sizes = [*last.shape]
            sizes[axis] = length - x.shape[axis]
            x = torch.cat((x, last.expand(sizes)), axis)
    return x


def run_tiled(network: Callable[[Tensor], Tensor], x: Tensor, tile: Sequence[int], overlap: float = 0.25) -> Tensor:
    """Run a network that keeps the spatial size over tiles of its input, and blend what it gives.

    Args:
        network: Takes ``(B, C, *tile)`` and gives ``(B, K, *tile)``.
        x: Input ``(B, C, L1, ...)``; an axis shorter than the tile is padded to it with the values at its ends.
        tile: Spatial size of a tile.
        overlap: Share of a tile, in [0, 1), that it has at least in common with the next.

    Returns:
        ``(B, K, L1, ...)``, the average of the tiles weighted by a tent that falls off from each one's centre, in
        single precision or better.

    Raises:
        ValueError: ``tile`` does not have one length of at least 1 for each spatial axis, ``overlap`` is out of range,
            or the network changes the spatial size.
    """
    size = x.shape[2:]
    if len(tile) != len(size) or min(tile, default=1) < 1:
        raise ValueError(
            f'run_tiled: tile={list(tile)} must have one length for each of {len(size)} spatial axes, each at least 1'
        )
    if not 0 <= overlap < 1:
        raise ValueError(f'run_tiled: overlap={overlap!r} must be in [0, 1)')
    if any(have < want for have, want in zip(size, tile, strict=True)):
        real: Any = (..., *map(slice, size))
        return run_tiled(network, _padded(x, tile), tile, overlap)[real]
    tile = list(tile)
    total: Tensor | None = None
    for starts in product(*(tile_starts(*axis, overlap) for axis in zip(size, tile, strict=True))):
        window = [slice(start, start + length) for start, length in zip(starts, tile, strict=True)]
        place: Any = (..., *window)
        part = single(network(x[place]))
        if list(part.shape[2:]) != tile:
            raise ValueError(f'run_tiled: the network gave {tuple(part.shape[2:])} for a tile of {tuple(tile)}')
        if total is None:
            if tile == list(size):
                return part
            weight, counts = _window(tile, part), part.new_zeros(size)
            total = part.new_zeros((*part.shape[:2], *size))
        total[place] += part * weight
        counts[place] += weight
    assert total is not None
    return total / counts
