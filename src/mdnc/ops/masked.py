"""Norm and activation of padded batches: moments and sums leave out the padding, where all results are zero.

The formulas are those of ``norm_act``, M being the number of values without padding. Tensors are views ``(N, C, L)``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mdnc.ops import norm_act
from mdnc.ops.norm_act import Affine, Gradients, Moments, Running, Step

if TYPE_CHECKING:
    from mdnc.ops.backend import NormAct


class Mask(NamedTuple):
    """Which part of a padded batch is no padding.

    Args:
        inside: False in the padding, ``(N, 1, L1, …)``.
        volume: Values of a plane without padding, ``(N,)``.
    """

    inside: Tensor
    volume: Tensor

    def cleared(self, x: Tensor) -> Tensor:
        """``x`` with zeros in the padding."""
        return x * self._like(x)

    def clear(self, x: Tensor) -> Tensor:
        """The same in place."""
        return x.mul_(self._like(x))

    def _like(self, x: Tensor) -> Tensor:
        return (self.inside if x.dim() > 3 else self.inside.flatten(2)).to(x.dtype)

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
    variance = _joined(mask.clear(x - mean).square().sum(2, keepdim=True), step) / count
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


def _by_plane(values: Iterable[Tensor | None], shape: Sequence[int]) -> Iterator[Any]:
    """``(1, C, 1)`` or ``(N, C, 1)`` → ``(1, N · C, 1)``."""
    for each in values:
        yield None if each is None else each.expand(*shape[:2], 1).reshape(1, -1, 1)


class MaskedNormAct:
    """Norm and activation of a backend, for one mask: its kernels compute what needs no sums over planes.

    Args:
        by: The kernels.
        mask: The padding of the unit's input.
    """

    def __init__(self, by: 'NormAct', mask: Mask) -> None:
        self._by, self._mask = by, mask

    def forward(self, x: Tensor, affine: Affine, step: Step, running: Running | None = None) -> tuple[Tensor, Moments]:
        """See ``norm_act.forward``."""
        at = moments(self._mask, x, step, running)
        return self.rebuild(x, at, affine, step)[0], at

    def rebuild(self, x: Tensor, at: Moments, affine: Affine, step: Step) -> tuple[Tensor, Tensor | None]:
        """See ``norm_act.rebuild``."""
        if not x.is_contiguous():
            z, h = self._by.rebuild(x, at, affine, step)
            return self._mask.clear(z), h
        # Some kernels compute moments anew, padding included; a fixed norm's use those given, here of each plane.
        own, given = Affine(*_by_plane(affine, x.shape)), Moments(*_by_plane(at, x.shape))
        z, h = self._by.rebuild(x.view(1, -1, x.shape[2]), given, own, replace(step, norm='fixed'))
        return self._mask.clear(z.view_as(x)), None if h is None else h.view_as(x)

    def backward(self, g: Tensor, h: Tensor | None, x: Tensor, at: Moments, affine: Affine, step: Step) -> Gradients:
        """See ``norm_act.backward``."""
        standard = (x - at.mean).mul_(at.rate)
        if h is None:
            h = standard if affine.scale is None else standard * affine.scale
            h = (h if affine.shift is None else h + affine.shift).to(x.dtype)
        native = affine.slope is not None and x.device.type == 'cpu'
        activation = norm_act.native_prelu_backward if native else norm_act.activation_backward
        g, gslope = activation(self._mask.cleared(g), h, affine.slope, step)
        wide = g.to(standard.dtype)
        s1, s2 = wide.sum(2, keepdim=True), (wide * standard).sum(2, keepdim=True)
        gx = wide * (at.rate if affine.scale is None else at.rate * affine.scale)
        if step.norm != 'fixed':
            count = self._mask.number(s1, step)
            a1, a2 = (_joined(each if affine.scale is None else each * affine.scale, step) / count for each in (s1, s2))
            gx = self._mask.clear(gx.sub_(standard.mul_(a2).add_(a1).mul_(at.rate)))
        return Gradients(gx.to(x.dtype), s2.sum(0, keepdim=True), s1.sum(0, keepdim=True), gslope)

    def activate(self, x: Tensor, slope: Tensor | None, step: Step) -> Tensor:
        """See ``norm_act.activated``."""
        return self._mask.cleared(self._by.activate(x, slope, step))

    def activate_backward(self, g: Tensor, x: Tensor, slope: Tensor | None, step: Step) -> tuple[Tensor, Tensor | None]:
        """See ``norm_act.activation_backward``."""
        return self._by.activate_backward(self._mask.cleared(g), x, slope, step)
