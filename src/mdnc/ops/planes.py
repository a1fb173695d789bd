"""Norm and activation over planes, forward and backward: ``h = γ·(x − μ)·r + β``, ``z = h if h > 0 else α·h``.

All tensors here are views ``(N, C, L)``, so that signals, images and volumes, contiguous or channels-last, share one
definition. With g = ∂L/∂z and gₙ = g·(1 if h > 0 else α), summed over a plane of L values:

    S₁ = Σ gₙ    S₂ = Σ gₙ·(x − μ)·r    ∂β = Σₙ S₁    ∂γ = Σₙ S₂    ∂α = Σₙ Σ_{h≤0} g·h
    ∂x = γ·r·(gₙ − (S₁ + (x − μ)·r·S₂) / L)

α may be zero or negative, so h is never recovered from z.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_aten = torch.ops.aten


class Affine(NamedTuple):
    """γ, β and α, each ``(1, C, 1)``; ``None`` where there is none."""

    scale: Tensor | None
    shift: Tensor | None
    slope: Tensor | None


class Moments(NamedTuple):
    """μ and r = 1/√(var + ε) of the planes, ``(N, C, 1)``, in at least float32."""

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
    """What is done to the planes.

    Args:
        eps: Added to the variance.
        activator: ``'prelu'``, ``'relu'`` or ``'null'``.
        dtype: Of the activation; autocast may ask for a lower one than x has.
    """

    eps: float
    activator: str
    dtype: torch.dtype


_ACCUMULATORS = {torch.float64: torch.float64}


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of statistics and sums."""
    return _ACCUMULATORS.get(dtype, torch.float32)


# ---- The definition: what Inductor compiles, and what eager torch runs where no kernel of its own fits. ----


def moments(x: Tensor, eps: float) -> Moments:
    """Centred, in two passes: E[x²] − μ² would lose the variance of a plane far from zero."""
    x = x.to(accumulator(x.dtype))
    mean = x.mean(2, keepdim=True)
    variance = (x - mean).square().mean(2, keepdim=True)
    return Moments(mean, torch.rsqrt(variance + eps))


def normalised(x: Tensor, at: Moments, affine: Affine) -> Tensor:
    """h from x, rounded to x's dtype once, at the end."""
    rate = at.rate if affine.scale is None else at.rate * affine.scale
    h = (x - at.mean) * rate
    return (h if affine.shift is None else h + affine.shift).to(x.dtype)


def activated(h: Tensor, slope: Tensor | None, step: Step) -> Tensor:
    """z from h."""
    h = h.to(step.dtype)
    if slope is not None:
        return _aten._prelu_kernel(h, slope.to(step.dtype))  # type: ignore[no-any-return]
    return torch.relu(h) if step.activator == 'relu' else h


def activation_backward(g: Tensor, h: Tensor, slope: Tensor | None, step: Step) -> tuple[Tensor, Tensor | None]:
    """gₙ in the dtype of h, and ∂α."""
    low = h.to(step.dtype)
    if slope is not None:
        g, terms = _aten._prelu_kernel_backward(g, low, slope.to(step.dtype))
        return g.to(h.dtype), _summed(terms.sum(2, keepdim=True, dtype=accumulator(h.dtype)))
    return (_aten.threshold_backward(g, low, 0) if step.activator == 'relu' else g).to(h.dtype), None


def norm_backward(g: Tensor, x: Tensor, at: Moments, affine: Affine) -> tuple[Tensor, Tensor, Tensor]:
    """∂x, ∂γ and ∂β from gₙ."""
    standard = (x - at.mean) * at.rate
    wide = g.to(standard.dtype)
    s1, s2 = wide.sum(2, keepdim=True), (wide * standard).sum(2, keepdim=True)
    rate = at.rate if affine.scale is None else at.rate * affine.scale
    gx = rate * (wide - (s1 + standard * s2) / x.shape[2])
    return gx.to(x.dtype), _summed(s2), _summed(s1)


def _summed(planes: Tensor) -> Tensor:
    return planes.sum(0, keepdim=True)


# ---- The same by torch's own kernels, quicker on contiguous tensors. ----


def native_norm(x: Tensor, affine: Affine, eps: float) -> tuple[Tensor, Moments]:
    """h and the moments of contiguous x."""
    n, c, length = x.shape
    scale, shift = _vectors(affine, x)
    if x.device.type == 'cpu':
        # A group norm with one channel a group: its C++ is vectorised, which that of batch norm is not.
        h, mean, rate = _aten.native_group_norm(x, scale, shift, n, c, length, c, eps)
    else:
        planes, scale, shift = x.view(1, n * c, length), _tiled(scale, n), _tiled(shift, n)
        h, mean, rate = _aten.native_batch_norm(planes, scale, shift, None, None, True, 0.0, eps)
    return h.view_as(x), Moments(mean.view(n, c, 1), rate.view(n, c, 1))


def native_norm_backward(
    g: Tensor, x: Tensor, at: Moments, affine: Affine
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """∂x, ∂γ and ∂β from gₙ, for contiguous x."""
    n, c, length = x.shape
    scale, g = _vectors(affine, x)[0], g.contiguous()
    mask = [True, affine.scale is not None, affine.shift is not None]
    if x.device.type == 'cpu':
        mean, rate = at.mean.view(n, c), at.rate.view(n, c)
        gx, gscale, gshift = _aten.native_group_norm_backward(g, x, mean, rate, scale, n, c, length, c, mask)
        return (
            gx,
            gscale if gscale is None else gscale.view(1, c, 1),
            gshift if gshift is None else gshift.view(1, c, 1),
        )
    planes, mean, rate = (1, n * c, length), at.mean.view(-1), at.rate.view(-1)
    gx, *sums = _aten.native_batch_norm_backward(
        g.view(planes), x.view(planes), _tiled(scale, n), None, None, mean, rate, True, 0.0, mask
    )
    return gx.view_as(x), *(None if each is None else _summed(each.view(n, c, 1)) for each in sums)


def native_prelu_backward(g: Tensor, h: Tensor, slope: Tensor | None, step: Step) -> tuple[Tensor, Tensor | None]:
    """gₙ and ∂α on a CPU, where torch's kernel goes value by value; overwrites g."""
    assert slope is not None
    low = h.to(step.dtype)
    positive = _aten.threshold_backward(g, low, 0)
    negative = g.sub_(positive)
    terms = (negative * low).sum(2, keepdim=True, dtype=accumulator(h.dtype))
    return positive.addcmul_(negative, slope.to(step.dtype)).to(h.dtype), _summed(terms)


def _vectors(affine: Affine, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    # Without an affine of at least float32 the kernels would round the moments to the dtype of x.
    scale, shift, wide = affine.scale, affine.shift, _ACCUMULATORS.get(x.dtype, torch.float32)
    given = (
        None if scale is None else scale.reshape(-1).to(wide),
        None if shift is None else shift.reshape(-1).to(wide),
    )
    if x.dtype == wide or all(each is not None for each in given):
        return given
    one, zero = x.new_ones(x.shape[1], dtype=wide), x.new_zeros(x.shape[1], dtype=wide)
    return one if scale is None else given[0], zero if shift is None else given[1]


def _tiled(values: Tensor | None, n: int) -> Tensor | None:
    return None if values is None else values.repeat(n)


# ---- The three calls of a fused unit, as eager torch runs them. ----


def forward(x: Tensor, affine: Affine, step: Step) -> tuple[Tensor, Moments]:
    """z and the moments."""
    if x.is_contiguous():
        h, at = native_norm(x, affine, step.eps)
    else:
        at = moments(x, step.eps)
        h = normalised(x, at, affine)
    return activated(h, affine.slope, step), at


def rebuild(x: Tensor, at: Moments, affine: Affine, step: Step) -> tuple[Tensor, Tensor | None]:
    """z once more, bit for bit, and h."""
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
    gx, gscale, gshift = norm(g, x, at, affine)
    return Gradients(gx, gscale, gshift, gslope)


def _hidden(x: Tensor, at: Moments, affine: Affine, step: Step) -> Tensor:
    return native_norm(x, affine, step.eps)[0] if x.is_contiguous() else normalised(x, at, affine)
