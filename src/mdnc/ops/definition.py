"""What the fused operators compute, in plain torch. This is the authority: the fast path is tested against it."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

INTERPOLATION = {1: 'linear', 2: 'bilinear', 3: 'trilinear'}
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Resize:
    """Linear up-sampling with aligned corners, to a size or by factors; one value for each spatial axis."""

    size: tuple[int, ...] | None = None
    factors: tuple[float, ...] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        mode = INTERPOLATION[x.dim() - 2]
        factors = None if self.factors is None else list(self.factors)
        return F.interpolate(x, self.size, factors, mode, align_corners=True)


@dataclass(frozen=True)
class Unit:
    """A unit ``conv(resize(act(norm(x))))``, its parameters left out.

    Args:
        stride: Stride of the convolution on each spatial axis.
        padding: Zero padding of the convolution on each spatial axis.
        eps: Added to the variance of each plane; ``None`` for a unit without norm.
        activator: ``'prelu'``, ``'relu'`` or ``'null'``.
        resize: Up-sampling between activation and convolution, if any.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    eps: float | None = 1e-5
    activator: str = 'prelu'
    resize: Resize | None = None


@dataclass(frozen=True)
class Shortcut:
    """A shortcut ``norm(conv(resize(x)))`` with a 1 × … × 1 convolution without bias, its parameters left out."""

    stride: tuple[int, ...]
    eps: float = 1e-5
    resize: Resize | None = None


class Weights(NamedTuple):
    """Parameters of a unit or a shortcut; None where it has none.

    Args:
        scale: Weight of the norm, γ ``(C,)``.
        shift: Bias of the norm, β ``(C,)``.
        slope: Slope of the PReLU for negative values, α ``(C,)`` or ``(1,)``.
        kernel: Weight of the convolution ``(O, C, K1, …)``.
        bias: Bias of the convolution ``(O,)``.
    """

    scale: Tensor | None
    shift: Tensor | None
    slope: Tensor | None
    kernel: Tensor
    bias: Tensor | None


def unit(x: Tensor, weights: Weights, how: Unit) -> Tensor:
    """``x (B, C, L1, …)`` → ``(B, O, M1, …)``."""
    h = x if how.eps is None else F.instance_norm(x, None, None, weights.scale, weights.shift, eps=how.eps)
    if how.activator == 'prelu':
        assert weights.slope is not None
        h = F.prelu(h, weights.slope)
    elif how.activator == 'relu':
        h = F.relu(h)
    if how.resize is not None:
        h = how.resize(h)
    return convolution(h, weights, how.stride, how.padding)


def shortcut(x: Tensor, weights: Weights, how: Shortcut) -> Tensor:
    """``x (B, C, L1, …)`` → ``(B, O, M1, …)``."""
    h = x if how.resize is None else how.resize(x)
    h = convolution(h, weights, how.stride, (0,) * len(how.stride))
    return F.instance_norm(h, None, None, weights.scale, weights.shift, eps=how.eps)


def convolution(z: Tensor, weights: Weights, stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
    """torch's convolution of the input's order."""
    conv = _CONV[z.dim() - 2]
    return conv(z, weights.kernel, weights.bias, stride, padding)


@dataclass(frozen=True)
class Block:
    """Units one after the other, and what is added to their result.

    Args:
        units: The units, in order.
        adds: ``'nothing'``, ``'input'`` or ``'shortcut'``.
        shortcut: The shortcut, where one is added.
    """

    units: tuple[Unit, ...]
    adds: str = 'nothing'
    shortcut: Shortcut | None = None


def block(x: Tensor, weights: list[Weights], how: Block) -> Tensor:
    """``x (B, C, L1, …)`` → ``(B, O, M1, …)``; the shortcut's weights come last."""
    y = x
    for each, own in zip(how.units, weights, strict=False):
        y = unit(y, own, each)
    if how.adds == 'input':
        return y + x
    if how.shortcut is not None:
        return y + shortcut(x, weights[-1], how.shortcut)
    return y


def low_precision(x: Tensor) -> torch.dtype:
    """The dtype in which autocast, if it is on, has the activation and the convolution of ``x`` computed."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return x.dtype
