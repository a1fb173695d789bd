"""Pools that give one value of each plane: ``(B, C, L1, …)`` → ``(B, C, 1, …)``."""

import torch
from torch import Tensor, nn


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
