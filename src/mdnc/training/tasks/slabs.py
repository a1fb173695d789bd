"""Samples judged in slabs along their first spatial axis, so that scores and targets are not held as a whole."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mdnc.training.data.stored_tensor import StoredTensor
from mdnc.training.tasks.batch import Batch

_SHOWN = 2**24  # positions that are kept of a sample for a picture
_PIECE = 2**23  # bytes of scores that are judged at once
_MAPS = ('target', 'known')


def held(batch: Batch) -> Batch:
    """The batch with its targets in memory."""
    target = batch.get('target')
    return {**batch, 'target': target.values().to(batch['input'].device)} if isinstance(target, StoredTensor) else batch


def slab_of(batch: Batch, start: int, length: int) -> Batch:
    """A part of a batch, of inputs and maps alike, along the first spatial axis; targets are in memory."""
    order, size = batch['input'].ndim - 2, batch['input'].shape[2:]
    names = [name for name in _MAPS if isinstance(batch.get(name), Tensor) and batch[name].shape[-order:] == size]
    parts = {name: batch[name].narrow(batch[name].ndim - order, start, length) for name in ('input', *names)}
    return held({**batch, **parts})


class Thinned:
    """Maps of a sample, kept with every so many-th position only, so that they are small enough to be shown.

    Args:
        size: Spatial size of the sample.
    """

    def __init__(self, size: tuple[int, ...]) -> None:
        self.step = max(1, math.ceil((math.prod(size) / _SHOWN) ** (1 / len(size))))
        self._order, self._parts = len(size), list[list[Tensor]]()

    def add(self, start: int, *maps: Tensor) -> None:
        """Take slabs ``(..., part of L1, ...)`` that begin at a position of the first axis."""
        first = slice(-start % self.step, None, self.step)
        places: Any = (..., first, *(slice(None, None, self.step),) * (self._order - 1))
        self._parts.append([each[places].detach().cpu().clone() for each in maps])

    def maps(self) -> list[Tensor]:
        """Each of the maps, joined."""
        return [torch.cat(list(each), -self._order) for each in zip(*self._parts, strict=True)]


def pieces(slabs: Iterator[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
    """Slabs ``(B, K, part of L1, ...)`` in pieces of bounded size: what a loss makes of them is many times as large."""
    for start, slab in slabs:
        step = max(1, _PIECE // max(1, slab[:, :, :1].nbytes))
        for first in range(0, slab.shape[2], step):
            part = slab[:, :, first : first + step]
            yield start + first, part


def added(sums: dict[str, Tensor], more: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sums with those of another slab."""
    return {name: sums[name] + each if name in sums else each for name, each in more.items()}
