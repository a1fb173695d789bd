"""What the fused operators compute, in plain torch. This is the authority: the fast path is tested against it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdnc.ops import masked, norm_act
from mdnc.ops.convolution import Geometry
from mdnc.ops.masked import Mask
from mdnc.ops.norm_act import Affine, Moments, Step

INTERPOLATION = {1: 'linear', 2: 'bilinear', 3: 'trilinear'}
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _average_volumes(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """torch's pool, which on a CPU does not know half types in three axes."""
    if x.device.type == 'cpu' and x.dtype in (torch.bfloat16, torch.float16):
        return F.avg_pool3d(x.float(), *arguments, **options).to(x.dtype)
    return F.avg_pool3d(x, *arguments, **options)


AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: _average_volumes}


@dataclass(frozen=True)
class Resize:
    """Up-sampling to a size or by factors; one value for each spatial axis.

    Args:
        size: The size.
        factors: The factors.
        nearest: Whether values are repeated, or lie on a line between those of the corners, which stay where they are.
    """

    size: tuple[int, ...] | None = None
    factors: tuple[float, ...] | None = None
    nearest: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        factors = None if self.factors is None else list(self.factors)
        if self.nearest:
            return F.interpolate(x, self.size, factors, 'nearest')
        return F.interpolate(x, self.size, factors, INTERPOLATION[x.dim() - 2], align_corners=True)


@dataclass(frozen=True)
class Norm:
    """A norm, its parameters and statistics left out.

    Args:
        kind: What shares its moments, see ``norm_act``: ``'instance'``, ``'group'``, ``'batch'`` or ``'fixed'``.
        eps: Added to the variance.
        groups: Groups of channels, of a group norm.
    """

    kind: str = 'instance'
    eps: float = 1e-5
    groups: int = 0


INSTANCE = Norm()


@dataclass(frozen=True)
class Unit:
    """A unit ``conv(resize(act(norm(x))))``, its parameters left out.

    Args:
        geometry: Where the convolution's kernel goes; ``None`` for a unit without one, which may come last in a block.
        norm: The norm; ``None`` for a unit without one.
        activator: A word of ``norm_act.ACTIVATORS``.
        alpha: Slope of a leaky ReLU for negative values, or what an ELU goes down to.
        resize: Up-sampling between activation and convolution, if any.
    """

    geometry: Geometry | None
    norm: Norm | None = INSTANCE
    activator: str = 'prelu'
    alpha: float = 0.0
    resize: Resize | None = None


@dataclass(frozen=True)
class Shortcut:
    """A shortcut ``norm(conv(resize(pool(x))))``, its parameters left out.

    Args:
        geometry: Where the convolution's kernel goes; it is one of 1 × … × 1, or transposed.
        norm: The norm; ``None`` for none.
        resize: Up-sampling before the convolution, if any.
        pool: Length on each axis of the windows that are averaged before the convolution; empty for none.
    """

    geometry: Geometry
    norm: Norm | None = INSTANCE
    resize: Resize | None = None
    pool: tuple[int, ...] = ()


class Weights(NamedTuple):
    """Parameters of a unit or a shortcut; None where it has none.

    Args:
        scale: Weight of the norm, γ ``(C,)``.
        shift: Bias of the norm, β ``(C,)``.
        slope: Slope of the PReLU for negative values, α ``(C,)`` or ``(1,)``.
        kernel: Weight of the convolution ``(O, C / groups, K1, …)``; of a transposed one ``(C, O / groups, K1, …)``.
            Only a unit without a convolution has none.
        bias: Bias of the convolution ``(O,)``.
    """

    scale: Tensor | None
    shift: Tensor | None
    slope: Tensor | None
    kernel: Tensor | None
    bias: Tensor | None


def unit(x: Tensor, weights: Weights, how: Unit, at: Moments | None = None, mask: Mask | None = None) -> Tensor:
    """``x (B, C, L1, …)`` → ``(B, O, M1, …)``; ``at`` are the moments of a fixed norm, ``mask`` those of a padded x."""
    h = x if how.norm is None else normalised(x, weights, how.norm, at, mask)
    h = activated(h, weights, how)
    h = h if mask is None else mask.cleared(h)
    h = h if how.resize is None else how.resize(h)
    return h if how.geometry is None else convolution(h, weights, how.geometry)


def shortcut(x: Tensor, weights: Weights, how: Shortcut, at: Moments | None = None, mask: Mask | None = None) -> Tensor:
    """``x (B, C, L1, …)`` → ``(B, O, M1, …)``; ``at`` are the moments of a fixed norm, ``mask`` is of what it gives."""
    h = averaged(x, how.pool) if how.pool else x
    h = convolution(h if how.resize is None else how.resize(h), weights, how.geometry)
    return h if how.norm is None else normalised(h, weights, how.norm, at, mask)


def normalised(x: Tensor, weights: Weights, norm: Norm, at: Moments | None, mask: Mask | None = None) -> Tensor:
    """torch's norm of this kind; of a padded batch the one that leaves out the padding."""
    affine = weights.scale, weights.shift
    if mask is not None:
        flat, step = x.flatten(2), Step(norm.eps, 'null', x.dtype, norm.kind, norm.groups)
        scale, shift = (None if each is None else each.view(1, -1, 1) for each in affine)
        found = at if norm.kind == 'fixed' and at is not None else masked.moments(mask, flat, step)
        return mask.cleared(norm_act.normalised(flat, found, Affine(scale, shift, None))).view(x.shape)
    if norm.kind == 'group':
        return F.group_norm(x, norm.groups, *affine, eps=norm.eps)
    if norm.kind == 'batch':
        return F.batch_norm(x, None, None, *affine, training=True, eps=norm.eps)
    if norm.kind == 'fixed':
        assert at is not None
        mean, variance = at.mean.flatten().to(x.dtype), at.rate.flatten().pow(-2).to(x.dtype)
        return F.batch_norm(x, mean, variance, *affine, training=False, eps=0.0)
    return F.instance_norm(x, None, None, *affine, eps=norm.eps)


def activated(h: Tensor, weights: Weights, how: Unit) -> Tensor:
    """torch's activation of this kind."""
    if how.activator == 'prelu':
        assert weights.slope is not None
        return F.prelu(h, weights.slope)
    return _ACTIVATE[how.activator](h, how.alpha)


_ACTIVATE: dict[str, Callable[[Tensor, float], Tensor]] = {
    'relu': lambda h, alpha: F.relu(h),
    'leaky_relu': F.leaky_relu,
    'elu': F.elu,
    'gelu': lambda h, alpha: F.gelu(h),
    'silu': lambda h, alpha: F.silu(h),
    'null': lambda h, alpha: h,
}


def averaged(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Averages over windows of the stride; those that reach beyond the end count what is there."""
    return AVERAGE[len(stride)](x, windows(x, stride), stride, ceil_mode=True, count_include_pad=False)


def windows(x: Tensor, stride: tuple[int, ...]) -> list[int]:
    """Lengths of windows of the stride, none longer than a map."""
    return [min(step, length) for step, length in zip(stride, x.shape[2:], strict=True)]


def convolution(z: Tensor, weights: Weights, how: Geometry) -> Tensor:
    """torch's convolution of the input's order."""
    assert weights.kernel is not None, 'a convolution has weights'
    if how.transposed:
        longer = how.output_padding or 0
        return _TRANSPOSED[z.dim() - 2](z, weights.kernel, weights.bias, how.stride, how.padding, longer, how.groups)
    return _CONV[z.dim() - 2](z, weights.kernel, weights.bias, how.stride, how.padding, 1, how.groups)


@dataclass(frozen=True)
class Block:
    """Units one after the other, and what is added to their result.

    Args:
        units: The units, in order; a block without any is its shortcut alone.
        adds: ``'nothing'``, ``'input'`` or ``'shortcut'``.
        shortcut: The shortcut, where one is added.
    """

    units: tuple[Unit, ...]
    adds: str = 'nothing'
    shortcut: Shortcut | None = None

    @cached_property
    def enlarges(self) -> bool:
        """Whether maps become larger within it."""
        parts: list[Unit | Shortcut] = [*self.units] if self.shortcut is None else [*self.units, self.shortcut]
        return any(
            each.resize is not None or (each.geometry is not None and each.geometry.transposed) for each in parts
        )


def block(
    x: Tensor,
    weights: Sequence[Weights],
    how: Block,
    at: Sequence[Moments | None] = (),
    masks: Sequence[Mask | None] = (),
) -> Tensor:
    """``x (B, C, L1, …)`` → ``(B, O, M1, …)``; the shortcut's weights, moments and mask come last."""
    y, at, masks = x, at or (None,) * len(weights), masks or (None,) * len(weights)
    for each, own, moments, mask in zip(how.units, weights, at, masks, strict=False):
        y = unit(y, own, each, moments, mask)
    if how.adds == 'input':
        return y + x
    if how.shortcut is None:
        return y
    beside = shortcut(x, weights[-1], how.shortcut, at[-1], masks[-1])
    return y + beside if how.units else beside


def low_precision(x: Tensor) -> torch.dtype:
    """The dtype in which autocast, if it is on, has the activation and the convolution of ``x`` computed."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return x.dtype
