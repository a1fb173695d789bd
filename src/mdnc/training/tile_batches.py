"""How many tiles of a sample the network gets as one batch, where memory is to say so."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

from mdnc.analysis import prediction_forecast
from mdnc.analysis.budget import largest
from mdnc.analysis.free_memory import free_bytes
from mdnc.modules._inference import Steps
from mdnc.modules._tiling import tile_starts

_MOST = 16  # tiles: more make a network no faster
_SHARE = 0.5  # of what is free: results, other programs, fragments


def tiles_at_once(network: nn.Module, steps: Steps, shape: tuple[int, ...], free: int) -> int:
    """How many tiles may be one batch, by the forecast of prediction.

    Args:
        network: The network.
        steps: The steps around it, with tiles.
        shape: Shape of a batch of samples ``(B, C, L1, ...)``.
        free: Bytes that the prediction may take beside weights and samples.

    Returns:
        At least 1, and no more than there are beside each other.

    Raises:
        ValueError: The network cannot be forecast.
    """
    samples, *sample = shape
    assert steps.patch is not None
    size = [max(axis) for axis in zip(sample[1:], steps.patch, strict=True)]
    starts = [tile_starts(*axis, steps.tiles.shared) for axis in zip(size, steps.patch, strict=True)]
    most = min(math.prod(map(len, starts[1:])), _MOST)
    tiles = steps.tiles

    words: dict[str, Any] = {'overlap': tiles.shared, 'blend': tiles.blend, 'answer': steps.output, 'samples': samples}

    @cache
    def needed(count: int) -> int:
        try:
            with torch.inference_mode(False):
                found = prediction_forecast(network, tuple(sample), steps.patch, count, **words, result='host')
        except (TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f'tiles=auto: the memory cannot be forecast ({error}); give a number of tiles') from error
        return found.device - found.parameters - found.sample

    if most < 2:
        return 1
    guess = 1 + (free - needed(1)) // max(needed(2) - needed(1), 1)
    return largest(lambda count: count <= most and needed(count) <= free, min(most, guess))


def size_tiles(network: nn.Module, steps: Steps, shape: Sequence[int]) -> None:
    """Say how many tiles of such samples are one batch, where ``tiles: auto`` leaves it to the memory that is free."""
    if not steps.sized or steps.patch is None or steps.sized_for == tuple(shape):
        return
    weight = next(network.parameters(), torch.empty(0))
    free = int(free_bytes(weight.device.type) * _SHARE)
    steps.tiles = replace(steps.tiles, at_once=tiles_at_once(network, steps, tuple(shape), free))
    steps.sized_for = tuple(shape)
