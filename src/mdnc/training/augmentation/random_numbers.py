"""Random numbers of samples: each is drawn from its sample's own seed, whatever else is in the batch."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_BLOCK = 64  # numbers that a source gives at once


class RandomNumbers:
    """Random numbers, one row a sample.

    Small ones are drawn on the CPU, so that they are the same on every device; noise is drawn where the batch is.

    Args:
        seeds: One non-negative number below 2**63 a sample.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._seeds = [int(seed) for seed in seeds]
        self._sources = [np.random.default_rng(seed) for seed in self._seeds]
        self._ready = np.zeros((len(self._seeds), 0), np.float32)

    def __len__(self) -> int:
        return len(self._seeds)

    def even(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers in [``low``, ``high``), ``(B, *shape)``."""
        count = math.prod(shape)
        if count > self._ready.shape[1]:
            more = [source.random(max(_BLOCK, count), np.float32) for source in self._sources]
            self._ready = np.concatenate([self._ready, np.stack(more)], 1)
        taken, self._ready = self._ready[:, :count], self._ready[:, count:]
        return low + (high - low) * torch.from_numpy(taken.reshape(len(self), *shape).copy())

    def normal(self, *shape: int) -> Tensor:
        """Numbers of mean 0 and standard deviation 1, ``(B, *shape)``."""
        middle = self.even(*shape).double() + 2**-25  # of the step of 2⁻²⁴ that a number stands for
        return (math.sqrt(2) * torch.erfinv(2 * middle - 1)).float()

    def factor(self, *shape: int, low: float, high: float) -> Tensor:
        """Factors in [``low``, ``high``), as often below 1 as above it where both are possible."""
        side, place = self.even(*shape), self.even(*shape)
        below = low + (min(1.0, high) - low) * place
        above = max(1.0, low) + (high - max(1.0, low)) * place
        if low >= 1 or high <= 1:
            return above if low >= 1 else below
        return torch.where(side < 0.5, below, above)

    def beta(self, alpha: float) -> Tensor:
        """Shares of the Beta(``alpha``, ``alpha``) distribution, ``(B,)``."""
        return torch.tensor([source.beta(alpha, alpha) for source in self._sources], dtype=torch.float32)

    def noise(self, like: Tensor, rows: Sequence[int]) -> Tensor:
        """Normal noise of the shape of ``like`` ``(len(rows), ...)``, for the samples ``rows``, on its device."""
        found = torch.empty_like(like)
        for place, row in enumerate(rows):
            found[place].normal_(generator=torch.Generator(like.device).manual_seed(self._seeds[row]))
        return found
