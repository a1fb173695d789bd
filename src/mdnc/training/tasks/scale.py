"""From the data's own units to mean 0 and standard deviation 1, channel by channel, and back."""

from functools import cache
from typing import Any

import torch
from torch import Tensor


@cache
def _constants(values: tuple[float, ...], device: torch.device, axes: int) -> Tensor:
    # Made once for each device: a copy in every step would hold a GPU up.
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, *(1,) * axes)


class Scale:
    """Means and standard deviations of channels.

    Args:
        statistics: Lists ``mean`` and ``std``, one value a channel; None changes nothing.
    """

    def __init__(self, statistics: dict[str, Any] | None) -> None:
        self._mean = tuple(statistics['mean']) if statistics else (0.0,)
        self._std = tuple(statistics['std']) if statistics else (1.0,)

    def standard(self, x: Tensor) -> Tensor:
        """Values ``(B, C, ...)`` in the data's own units → standard units."""
        return (x - _constants(self._mean, x.device, x.ndim - 2)) / _constants(self._std, x.device, x.ndim - 2)

    def own(self, x: Tensor) -> Tensor:
        """Values ``(B, C, ...)`` in standard units → the data's own."""
        return x * _constants(self._std, x.device, x.ndim - 2) + _constants(self._mean, x.device, x.ndim - 2)
