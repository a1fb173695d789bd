"""Pools: averages over windows, and one value of each plane.

The latter also take the valid region of a padded batch, whose maps are zero elsewhere, and pool only this.
"""

import torch
from torch import Tensor, nn

from mdnc.modules import _checks
from mdnc.modules._sizes import Size
from mdnc.modules._valid_region import ValidRegion
from mdnc.ops.definition import AVERAGE


class AveragePool(nn.Module):
    """Averages over windows of the stride: ``(B, C, L1, …)`` → ``(B, C, ceil(L1 / stride), …)``.

    Incomplete windows at the end are averaged over their values; torch's own pool refuses maps shorter than a window.

    Args:
        stride: Length of the windows on each axis.
    """

    #: Name for the fused path, see `mdnc.ops.path`.
    averages = True

    def __init__(self, stride: Size) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor, stride: Size | None = None) -> Tensor:
        """Pool, with another stride than its own if one is given."""
        stride = window = stride or self.stride
        if not _checks.traced(x):
            window = tuple(min(step, length) for step, length in zip(stride, x.shape[2:], strict=True))
        return AVERAGE[len(stride)](x, window, stride, ceil_mode=True, count_include_pad=False)

    def extra_repr(self) -> str:
        """Its argument."""
        return f'stride={self.stride}'


def mean(x: Tensor, real: ValidRegion | None = None) -> Tensor:
    """The mean of each plane: ``(B, C, L1, …)`` → ``(B, C)``."""
    return x.flatten(2).mean(2) if real is None else real.mean(x)


def first_max(x: Tensor, real: ValidRegion) -> Tensor:
    """The maximum of each plane, ``(B, C)``; where there are several, the gradient goes to the first."""
    place = x.detach().masked_fill(~real.inside, -torch.inf).flatten(2).argmax(2, keepdim=True)
    return x.flatten(2).gather(2, place).squeeze(2)


def log_scale(x: Tensor, real: ValidRegion | None = None, eps: float = 1e-12) -> Tensor:
    """Logarithm of the root mean square of each plane: ``(B, C, L1, …)`` → ``(B, C)``; squares are at least ε."""
    return mean(x.square(), real).clamp(min=eps).log() / 2


class Pool(nn.Module):
    """Base of the pools.

    Args:
        order: Number of spatial axes.
    """

    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor, real: ValidRegion | None = None) -> Tensor:
        """Pool ``(B, C, L1, …)`` → ``(B, C, 1, …)``."""
        return self.pooled(x, real)[(..., *(None,) * self.order)]

    def pooled(self, x: Tensor, real: ValidRegion | None) -> Tensor:
        """Pool ``(B, C, L1, …)`` → ``(B, C)``."""
        raise NotImplementedError


class AvgMaxPool(Pool):
    """The mean of a plane's mean and its maximum."""

    def pooled(self, x: Tensor, real: ValidRegion | None) -> Tensor:
        """Pool ``(B, C, L1, …)`` → ``(B, C)``."""
        among = x if real is None else x.masked_fill(~real.inside, -torch.inf)
        return (mean(x, real) + among.flatten(2).amax(2)) / 2


class GeneralizedMeanPool(Pool):
    """The mean ``(mean(max(x, ε)^p))^(1/p)`` with a learned power p, after Radenović et al., arXiv:1711.02512.

    Args:
        order: Number of spatial axes.
        eps: ε, the lower bound of the values; above 0.
    """

    def __init__(self, order: int, eps: float = 1e-6) -> None:
        super().__init__(order)
        self.eps = eps
        self.power = nn.Parameter(torch.full((1,), 3.0))

    def pooled(self, x: Tensor, real: ValidRegion | None) -> Tensor:
        """Pool ``(B, C, L1, …)`` → ``(B, C)``."""
        powers = x.clamp(min=self.eps).pow(self.power)
        return mean(powers if real is None else powers * real.inside, real).pow(1 / self.power)

    def extra_repr(self) -> str:
        """Its argument."""
        return f'eps={self.eps}'


class DeviationPool(Pool):
    """The standard deviation ``√(mean((x − mean(x))²) + ε)`` of each plane.

    Args:
        order: Number of spatial axes.
        eps: ε, which keeps the gradient of a constant plane finite; above 0.
    """

    def __init__(self, order: int, eps: float = 1e-5) -> None:
        super().__init__(order)
        self.eps = eps

    def pooled(self, x: Tensor, real: ValidRegion | None) -> Tensor:
        """Pool ``(B, C, L1, …)`` → ``(B, C)``."""
        if real is None:
            return (x.flatten(2).var(2, correction=0) + self.eps).sqrt()
        means = real.mean(x)[(..., *(None,) * self.order)]
        return (real.mean(((x - means) * real.inside).square()) + self.eps).sqrt()

    def extra_repr(self) -> str:
        """Its argument."""
        return f'eps={self.eps}'
