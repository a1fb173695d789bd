"""Norm and activation, forward and backward: ``h = γ·(x − μ)·r + β``, ``z = act(h)``.

All tensors here are views ``(N, C, L)``, so that signals, images and volumes, contiguous or channels-last, share one
definition. A plane are the L values of one sample and one channel. The norms differ in what shares its moments: a plane
by itself (instance), the planes of a group of channels (group; layer, where one group holds all), those of a channel in
all samples (batch); or the moments are given (fixed: batch norm in eval). With g = ∂L/∂z, gₙ = g·act'(h), and M the
number of values that share their moments:

    S₁ = Σ gₙ    S₂ = Σ gₙ·(x − μ)·r    over each plane,    ∂β = Σₙ S₁    ∂γ = Σₙ S₂    ∂α = Σₙ Σ_{h≤0} g·h
    A₁ = Σ γ·S₁ / M    A₂ = Σ γ·S₂ / M    over the planes that share their moments; 0 where these are given
    ∂x = r·(γ·gₙ − A₁ − (x − μ)·r·A₂)

α may be zero or negative, so h is never recovered from z.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdnc import _torch
from mdnc._torch import aten

NORMS = ('instance', 'group', 'batch', 'fixed')
ACTIVATORS = ('prelu', 'relu', 'leaky_relu', 'elu', 'gelu', 'silu', 'null')


class Affine(NamedTuple):
    """γ, β and α, each ``(1, C, 1)``; ``None`` where there is none."""

    scale: Tensor | None
    shift: Tensor | None
    slope: Tensor | None


class Moments(NamedTuple):
    """μ and r = 1/√(var + ε), in at least float32: ``(N, C, 1)``, or ``(1, C, 1)`` where all samples share them."""

    mean: Tensor
    rate: Tensor


class Gradients(NamedTuple):
    """∂x ``(N, C, L)``, and ∂γ, ∂β, ∂α ``(1, C, 1)``; ``None`` where there is no such parameter."""

    x: Tensor
    scale: Tensor | None
    shift: Tensor | None
    slope: Tensor | None


@dataclass(frozen=True)
class Step:
    """What is done.

    Args:
        eps: Added to the variance.
        activator: A word of `ACTIVATORS`.
        dtype: Of the activation; autocast may ask for a lower one than x has.
        norm: A word of `NORMS`.
        groups: Groups of channels, of a group norm.
        alpha: Slope of a leaky ReLU for negative values, or what an ELU goes down to.
    """

    eps: float
    activator: str
    dtype: torch.dtype
    norm: str = 'instance'
    groups: int = 0
    alpha: float = 0.0


class Running(NamedTuple):
    """Statistics over all batches, ``(C,)``, into which those of this one go with the weight ``momentum``."""

    mean: Tensor
    variance: Tensor
    momentum: float

    def take(self, mean: Tensor, variance: Tensor, count: int | Tensor) -> None:
        """Take in the mean and the variance, ``(C,)``, of ``count`` values a channel."""
        self.mean.lerp_(mean.to(self.mean.dtype), self.momentum)
        self.variance.lerp_((variance * (count / (count - 1))).to(self.variance.dtype), self.momentum)


_ACCUMULATORS = {torch.float64: torch.float64}


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of statistics and sums."""
    return _ACCUMULATORS.get(dtype, torch.float32)


# ---- The definition: what Inductor compiles, and what eager torch runs where no kernel of its own fits. ----


def moments(x: Tensor, step: Step, running: Running | None = None) -> Moments:
    """Centred, in two passes: E[x²] − μ² would lose the variance of a plane far from zero."""
    x = x.to(accumulator(x.dtype))
    if step.norm == 'group':
        own = _centred(_grouped(x, step.groups), (2, 3), step.eps)[0]
        each = x.shape[1] // step.groups
        return Moments(*(value.expand(-1, -1, each, -1).flatten(1, 2) for value in own))
    found, variance = _centred(x, (0, 2) if step.norm == 'batch' else (2,), step.eps)
    if running is not None:
        running.take(found.mean.view(-1), variance.view(-1), x.numel() // x.shape[1])
    return found


def _centred(x: Tensor, over: tuple[int, ...], eps: float) -> tuple[Moments, Tensor]:
    mean = x.mean(over, keepdim=True)
    variance = (x - mean).square().mean(over, keepdim=True)
    return Moments(mean, torch.rsqrt(variance + eps)), variance


def _grouped(x: Tensor, groups: int) -> Tensor:
    """``(N, C, L)`` → ``(N, G, C / G, L)``."""
    return x.unflatten(1, (groups, -1))  # type: ignore[no-any-return, no-untyped-call]


def given(mean: Tensor, variance: Tensor, eps: float, wide: torch.dtype) -> Moments:
    """The moments of a fixed norm from its statistics ``(C,)``, in this dtype."""
    return Moments(mean.to(wide).view(1, -1, 1), torch.rsqrt(variance.to(wide) + eps).view(1, -1, 1))


def normalised(x: Tensor, at: Moments, affine: Affine) -> Tensor:
    """h from x, rounded to x's dtype once, at the end."""
    rate = at.rate if affine.scale is None else at.rate * affine.scale
    h = (x - at.mean) * rate
    return (h if affine.shift is None else h + affine.shift).to(x.dtype)


def activated(h: Tensor, slope: Tensor | None, step: Step) -> Tensor:
    """z from h."""
    h = h.to(step.dtype)
    if slope is not None:
        return _torch.prelu(h, slope.to(step.dtype))
    kind = step.activator
    if kind == 'relu':
        return torch.relu(h)
    if kind == 'leaky_relu':
        return F.leaky_relu(h, step.alpha)
    if kind == 'elu':
        return F.elu(h, step.alpha)
    return F.gelu(h) if kind == 'gelu' else F.silu(h) if kind == 'silu' else h


def activation_backward(g: Tensor, h: Tensor, slope: Tensor | None, step: Step) -> tuple[Tensor, Tensor | None]:
    """gₙ in the dtype of h, and ∂α."""
    low = h.to(step.dtype)
    if slope is not None:
        g, terms = _torch.prelu_backward(g, low, slope.to(step.dtype))
        return g.to(h.dtype), _summed(terms.sum(2, keepdim=True, dtype=accumulator(h.dtype)))
    return _derived(g, low, step).to(h.dtype), None


def _derived(g: Tensor, h: Tensor, step: Step) -> Tensor:
    kind, found = step.activator, g
    if kind == 'relu':
        found = aten.threshold_backward(g, h, 0)
    elif kind == 'leaky_relu':
        found = aten.leaky_relu_backward(g, h, step.alpha, False)
    elif kind == 'elu':
        found = aten.elu_backward(g, step.alpha, 1, 1, False, h)
    elif kind == 'gelu':
        found = aten.gelu_backward(g, h)
    elif kind == 'silu':
        found = aten.silu_backward(g, h)
    return found


def norm_backward(g: Tensor, x: Tensor, at: Moments, affine: Affine, step: Step) -> tuple[Tensor, Tensor, Tensor]:
    """∂x, ∂γ and ∂β from gₙ."""
    standard = (x - at.mean) * at.rate
    wide = g.to(standard.dtype)
    s1, s2 = wide.sum(2, keepdim=True), (wide * standard).sum(2, keepdim=True)
    rate = at.rate if affine.scale is None else at.rate * affine.scale
    if step.norm == 'instance':
        gx = rate * (wide - (s1 + standard * s2) / x.shape[2])
    elif step.norm == 'fixed':
        gx = rate * wide
    else:
        a1, a2 = (
            _shared(each if affine.scale is None else each * affine.scale, step) / x.shape[2] for each in (s1, s2)
        )
        gx = rate * wide - at.rate * (a1 + standard * a2)
    return gx.to(x.dtype), _summed(s2), _summed(s1)


def _shared(planes: Tensor, step: Step) -> Tensor:
    """The mean over those planes ``(N, C, 1)`` that share their moments, for each of them."""
    if step.norm == 'batch':
        return planes.mean(0, keepdim=True)
    own = _grouped(planes, step.groups)
    return own.mean(2, keepdim=True).expand_as(own).flatten(1, 2)


def _summed(planes: Tensor) -> Tensor:
    return planes.sum(0, keepdim=True)


# ---- The same by torch's own kernels, quicker on contiguous tensors. ----


def native_norm(x: Tensor, affine: Affine, step: Step, running: Running | None = None) -> tuple[Tensor, Moments]:
    """h and the moments of contiguous x."""
    n, c, length = x.shape
    scale, shift = _vectors(affine, x)
    if step.norm == 'batch':
        return _native_batch_norm(x, (scale, shift), step.eps, running)
    groups = step.groups or c
    if groups < c or x.device.type == 'cpu':
        # An instance norm is a group norm with one channel a group: that C++ is vectorised, which batch norm's is not.
        h, mean, rate = aten.native_group_norm(x, scale, shift, n, c, length, groups, step.eps)
        if groups == c:
            return h, Moments(mean.view(n, c, 1), rate.view(n, c, 1))
        return h, Moments(*(each.repeat_interleave(c // groups, 1).view(n, c, 1) for each in (mean, rate)))
    joined, scale, shift = x.view(1, n * c, length), _tiled(scale, n), _tiled(shift, n)
    h, mean, rate = aten.native_batch_norm(joined, scale, shift, None, None, True, 0.0, step.eps)
    return h.view_as(x), Moments(mean.view(n, c, 1), rate.view(n, c, 1))


def _native_batch_norm(
    x: Tensor, affine: tuple[Tensor | None, Tensor | None], eps: float, running: Running | None
) -> tuple[Tensor, Moments]:
    c = x.shape[1]
    # Torch's kernel takes statistics of the affine's dtype alone.
    direct = running is not None and running.mean.dtype == accumulator(x.dtype)
    mean, variance, momentum = running if direct and running is not None else (None, None, 0.0)
    h, mean, rate = aten.native_batch_norm(x, *affine, mean, variance, True, momentum, eps)
    if running is not None and not direct:
        running.take(mean, rate.pow(-2) - eps, x.numel() // c)
    return h, Moments(mean.view(1, c, 1), rate.view(1, c, 1))


def _hidden(x: Tensor, at: Moments, affine: Affine, step: Step) -> Tensor:
    if not x.is_contiguous():
        return normalised(x, at, affine)
    if step.norm in ('instance', 'group'):
        return native_norm(x, affine, step)[0]
    return aten.native_batch_norm(x, *_vectors(affine, x), *_statistics(at), False, 0.0, 0.0)[0]  # type: ignore[no-any-return]


def _statistics(at: Moments) -> tuple[Tensor, Tensor]:
    # Mean and variance, ε in the latter.
    return at.mean.view(-1), at.rate.view(-1).pow(-2)


def native_norm_backward(
    g: Tensor, x: Tensor, at: Moments, affine: Affine, step: Step
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """∂x, ∂γ and ∂β from gₙ, for contiguous x."""
    n, c, length = x.shape
    scale, g = _vectors(affine, x)[0], g.contiguous()
    if scale is None and affine.shift is not None:  # without which torch's kernel fails
        scale = x.new_ones(x.shape[1])
    mask = [True, affine.scale is not None, affine.shift is not None]
    groups = step.groups or c
    if step.norm in ('batch', 'fixed'):
        gx, *sums = _native_batch_norm_backward(g, x, at, scale, step, mask)
    elif groups < c or x.device.type == 'cpu':
        mean, rate = at.mean.view(n, c), at.rate.view(n, c)
        if groups < c:
            mean, rate = mean[:, :: c // groups].contiguous(), rate[:, :: c // groups].contiguous()
        gx, *sums = aten.native_group_norm_backward(g, x, mean, rate, scale, n, c, length, groups, mask)
    else:
        return _joined_norm_backward(g, x, at, scale, mask)
    gscale, gshift = sums
    return gx, None if gscale is None else gscale.view(1, c, 1), None if gshift is None else gshift.view(1, c, 1)


def _joined_norm_backward(
    g: Tensor, x: Tensor, at: Moments, scale: Tensor | None, mask: list[bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    # An instance norm as a batch norm of one sample, whose channels are all planes.
    n, c, length = x.shape
    joined, mean, rate = (1, n * c, length), at.mean.view(-1), at.rate.view(-1)
    gx, *sums = aten.native_batch_norm_backward(
        g.view(joined), x.view(joined), _tiled(scale, n), None, None, mean, rate, True, 0.0, mask
    )
    return gx.view_as(x), *(None if each is None else _summed(each.view(n, c, 1)) for each in sums)


def _native_batch_norm_backward(
    g: Tensor, x: Tensor, at: Moments, scale: Tensor | None, step: Step, mask: list[bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    fixed = step.norm == 'fixed'
    running = _statistics(at) if fixed else (None, None)
    own = (None, None) if fixed else (at.mean.view(-1), at.rate.view(-1))
    return aten.native_batch_norm_backward(g, x, scale, *running, *own, not fixed, 0.0, mask)  # type: ignore[no-any-return]


def native_prelu_backward(g: Tensor, h: Tensor, slope: Tensor | None, step: Step) -> tuple[Tensor, Tensor | None]:
    """gₙ and ∂α on a CPU, where torch's kernel goes value by value; overwrites g."""
    assert slope is not None
    low = h.to(step.dtype)
    positive = aten.threshold_backward(g, low, 0)
    negative = g.sub_(positive)
    terms = (negative * low).sum(2, keepdim=True, dtype=accumulator(h.dtype))
    return positive.addcmul_(negative, slope.to(step.dtype)).to(h.dtype), _summed(terms)


def _vectors(affine: Affine, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    # Without an affine of at least float32 the kernels would round the moments to the dtype of x.
    scale, shift, wide = affine.scale, affine.shift, _ACCUMULATORS.get(x.dtype, torch.float32)
    given = (
        None if scale is None else scale.reshape(-1).to(wide).contiguous(),  # the kernels read them by address
        None if shift is None else shift.reshape(-1).to(wide).contiguous(),
    )
    if x.dtype == wide or all(each is not None for each in given):
        return given
    one, zero = x.new_ones(x.shape[1], dtype=wide), x.new_zeros(x.shape[1], dtype=wide)
    return one if scale is None else given[0], zero if shift is None else given[1]


def _tiled(values: Tensor | None, n: int) -> Tensor | None:
    return None if values is None else values.repeat(n)


# ---- The three calls of a fused unit, as eager torch runs them. ----


def forward(x: Tensor, affine: Affine, step: Step, running: Running | None = None) -> tuple[Tensor, Moments]:
    """z and the moments, of norms that take them from x."""
    if x.is_contiguous():
        h, at = native_norm(x, affine, step, running)
    else:
        at = moments(x, step, running)
        h = normalised(x, at, affine)
    return activated(h, affine.slope, step), at


def rebuild(x: Tensor, at: Moments, affine: Affine, step: Step) -> tuple[Tensor, Tensor | None]:
    """z from the moments, once more and bit for bit, and h."""
    h = _hidden(x, at, affine, step)
    return activated(h, affine.slope, step), h


def backward(g: Tensor, h: Tensor | None, x: Tensor, at: Moments, affine: Affine, step: Step) -> Gradients:
    """All gradients from g = ∂L/∂z; ``h`` spares its computation.

    g may be overwritten where there is an activation.
    """
    h = _hidden(x, at, affine, step) if h is None else h
    activation = native_prelu_backward if affine.slope is not None and x.device.type == 'cpu' else activation_backward
    g, gslope = activation(g, h, affine.slope, step)
    norm = native_norm_backward if x.is_contiguous() else norm_backward
    gx, gscale, gshift = norm(g, x, at, affine, step)
    return Gradients(gx, gscale, gshift, gslope)
