"""Norm and activation of padded batches: moments and sums leave out the padding, where all results are zero.

The formulas are those of ``norm_act``, M being the number of values without padding. Tensors are views ``(N, C, L)``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mdnc.ops import norm_act
from mdnc.ops.norm_act import Affine, Gradients, Moments, Running, Step


class Mask(NamedTuple):
    """Which part of a padded batch is padding.

    Args:
        outside: True in the padding, ``(N, 1, L1, …)``.
        volume: Values of a plane without padding, ``(N,)``.
    """

    outside: Tensor
    volume: Tensor

    def cleared(self, x: Tensor) -> Tensor:
        """``x`` with zeros in the padding, be it finite there or not."""
        return x.masked_fill(self.outside if x.dim() > 3 else self.outside.flatten(2), 0)

    def number(self, planes: Tensor, step: Step) -> Tensor:
        """M for each of the planes ``(N, C, 1)``."""
        volume = self.volume.to(planes.dtype).view(-1, 1, 1)
        if step.norm == 'batch':
            return volume.sum()
        return volume * (planes.shape[1] // step.groups) if step.norm == 'group' else volume


class Region(Protocol):
    """The part of a padded batch that is not padding, see ``mdnc.modules._valid_region.ValidRegion``."""

    inside: Tensor
    volume: Tensor

    def shrunk(self, stride: Any, padded: Sequence[int]) -> 'Region':
        """The same after a stride."""
        ...


def moments(mask: Mask, x: Tensor, step: Step, running: Running | None = None) -> Moments:
    """See ``norm_act.moments``."""
    x = x.to(norm_act.accumulator(x.dtype))
    totals = mask.cleared(x).sum(2, keepdim=True)
    count = mask.number(totals, step)
    mean = _joined(totals, step) / count
    variance = _joined(mask.cleared(x - mean).square().sum(2, keepdim=True), step) / count
    if running is not None:
        running.take(mean.view(-1), variance.view(-1), count)
    return Moments(mean, torch.rsqrt(variance + step.eps))


def _joined(planes: Tensor, step: Step) -> Tensor:
    """The sum over those planes ``(N, C, 1)`` that share their moments, for each of them."""
    if step.norm == 'batch':
        return planes.sum(0, keepdim=True)
    if step.norm != 'group':
        return planes
    own = planes.unflatten(1, (step.groups, -1))  # type: ignore[no-untyped-call]
    return own.sum(2, keepdim=True).expand_as(own).flatten(1, 2)  # type: ignore[no-any-return]


def forward(
    mask: Mask, x: Tensor, affine: Affine, step: Step, running: Running | None = None
) -> tuple[Tensor, Moments]:
    """See ``norm_act.forward``."""
    at = moments(mask, x, step, running)
    return rebuild(mask, x, at, affine, step)[0], at


def rebuild(mask: Mask, x: Tensor, at: Moments, affine: Affine, step: Step) -> tuple[Tensor, Tensor]:
    """See ``norm_act.rebuild``."""
    h = mask.cleared(norm_act.normalised(x, at, affine))
    return norm_act.activated(h, affine.slope, step), h  # all activations leave zero as it is


def backward(mask: Mask, g: Tensor, h: Tensor | None, x: Tensor, at: Moments, affine: Affine, step: Step) -> Gradients:
    """See ``norm_act.backward``."""
    h = mask.cleared(norm_act.normalised(x, at, affine)) if h is None else h
    g, gslope = norm_act.activation_backward(mask.cleared(g), h, affine.slope, step)
    standard = (x - at.mean) * at.rate
    wide = g.to(standard.dtype)
    s1, s2 = wide.sum(2, keepdim=True), (wide * standard).sum(2, keepdim=True)
    gx = (at.rate if affine.scale is None else at.rate * affine.scale) * wide
    if step.norm != 'fixed':
        count = mask.number(s1, step)
        a1, a2 = (_joined(each if affine.scale is None else each * affine.scale, step) / count for each in (s1, s2))
        gx = mask.cleared(gx - at.rate * (a1 + standard * a2))
    return Gradients(gx.to(x.dtype), s2.sum(0, keepdim=True), s1.sum(0, keepdim=True), gslope)


def activate(mask: Mask, x: Tensor, slope: Tensor | None, step: Step) -> Tensor:
    """See ``norm_act.activated``."""
    return mask.cleared(norm_act.activated(x, slope, step))


def activate_backward(
    mask: Mask, g: Tensor, x: Tensor, slope: Tensor | None, step: Step
) -> tuple[Tensor, Tensor | None]:
    """See ``norm_act.activation_backward``."""
    return norm_act.activation_backward(mask.cleared(g), x, slope, step)
