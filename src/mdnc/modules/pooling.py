"""Pools: averages over windows, and one value of each plane."""

from typing import cast

import torch
from torch import Tensor, nn

from mdnc.modules import _checks
from mdnc.modules._dims import AVERAGE
from mdnc.modules._sizes import Size


class AveragePool(nn.Module):
    """Averages over windows of the stride: ``(B, C, L1, …)`` → ``(B, C, ceil(L1 / stride), …)``.

    Windows that reach beyond the end count what is there; torch's own refuses maps that are shorter than one window.

    Args:
        stride: Length of the windows on each axis.
    """

    def __init__(self, stride: Size) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor, stride: Size | None = None) -> Tensor:
        """Pool, with another stride than its own if one is given."""
        stride = window = stride or self.stride
        if not _checks.traced(x):
            window = tuple(min(step, length) for step, length in zip(stride, x.shape[2:], strict=True))
        return cast(Tensor, AVERAGE[len(stride)](x, window, stride, ceil_mode=True, count_include_pad=False))

    def extra_repr(self) -> str:
        """Its argument."""
        return f'stride={self.stride}'


class AvgMaxPool(nn.Module):
    """The mean of a plane's mean and its maximum."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(B, C, L1, …)`` → ``(B, C, 1, …)``."""
        axes = tuple(range(2, x.dim()))
        return (x.mean(axes, keepdim=True) + x.amax(axes, keepdim=True)) / 2


class GeneralizedMeanPool(nn.Module):
    """The mean ``(mean(max(x, ε)^p))^(1/p)`` with a learnt power p, after Radenović et al., arXiv:1711.02512.

    Args:
        eps: ε, what smaller values count as; above 0.
    """

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.power = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(B, C, L1, …)`` → ``(B, C, 1, …)``."""
        axes = tuple(range(2, x.dim()))
        return x.clamp(min=self.eps).pow(self.power).mean(axes, keepdim=True).pow(1 / self.power)

    def extra_repr(self) -> str:
        """Its argument."""
        return f'eps={self.eps}'


class DeviationPool(nn.Module):
    """The standard deviation ``√(mean((x − mean(x))²) + ε)`` of each plane.

    Args:
        eps: ε, which keeps the gradient of a constant plane finite; above 0.
    """

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(B, C, L1, …)`` → ``(B, C, 1, …)``."""
        return (x.var(tuple(range(2, x.dim())), correction=0, keepdim=True) + self.eps).sqrt()

    def extra_repr(self) -> str:
        """Its argument."""
        return f'eps={self.eps}'


def log_scale(x: Tensor, eps: float = 1e-12) -> Tensor:
    """Logarithm of the root mean square of each plane: ``(B, C, L1, …)`` → ``(B, C)``; squares below ε count as ε."""
    return x.flatten(2).square().mean(2).clamp(min=eps).log() / 2
