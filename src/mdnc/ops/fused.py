"""The fused block: units one after the other and what is added to them, as one function of autograd.

Torch's own layers keep three tensors a unit for backward: the norm's input x, the activation's, the convolution's.
This function keeps x and the moments of its planes, and rebuilds the rest just before it is needed. Everything that
it keeps goes through ``save_for_backward``, so that hooks on saved tensors see it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdnc._torch import aten
from mdnc.ops import definition, norm_act, small_blocks
from mdnc.ops.backend import DEFAULT, TABLE, Backend
from mdnc.ops.channels_last import is_channels_last, to_layout, to_layout_both_ways
from mdnc.ops.convolution import Geometry
from mdnc.ops.definition import INSTANCE, Block, Norm, Resize, Shortcut, Unit, Weights
from mdnc.ops.norm_act import Affine, Moments, Running, Step

_LINEAR_BACKWARD = {
    1: aten.upsample_linear1d_backward,
    2: aten.upsample_bilinear2d_backward,
    3: aten.upsample_trilinear3d_backward,
}
_NEAREST_BACKWARD = {
    1: aten.upsample_nearest1d_backward,
    2: aten.upsample_nearest2d_backward,
    3: aten.upsample_nearest3d_backward,
}


class Statistics(NamedTuple):
    """What a batch norm keeps of the batches it has seen, see ``nn.BatchNorm2d``.

    Args:
        mean: Running mean ``(C,)``.
        variance: Running variance ``(C,)``.
        batches: Their number.
        momentum: Weight of a new batch; ``None`` for an average over all.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor | None = None
    momentum: float | None = None

    def next(self) -> Running:
        """Count one more batch."""
        if self.batches is not None:
            self.batches.add_(1)
        if self.momentum is not None:
            return Running(self.mean, self.variance, self.momentum)
        return Running(self.mean, self.variance, 0.0 if self.batches is None else 1 / float(self.batches))


def block(
    x: Tensor,
    weights: Sequence[Weights],
    how: Block,
    memory: str = 'lean',
    backend: str = DEFAULT,
    statistics: Sequence[Statistics | None] = (),
) -> Tensor:
    """What ``definition.block`` computes, keeping less for backward.

    Args:
        x: Input ``(B, C, L1, …)``.
        weights: Parameters of the units, those of the shortcut last.
        how: The block.
        memory: What is kept for backward. ``'fast'``: of each unit x and the convolution's input. ``'lean'``: x.
            ``'leaner'``: x, unless a 1 × … × 1 convolution gives it. ``'least'``: x of the first unit.
        backend: Who computes, a name of ``backend.NAMES``.
        statistics: Of each unit, then of the shortcut, those of a batch norm; ``None`` for no such norm. A fixed one
            reads them, another takes those of this batch in. Empty where all are ``None``.
    """
    by = TABLE[backend, x.device.type]
    flat = [*chain.from_iterable(weights)]
    if by.channels_last and not is_channels_last(x):
        with by.memory(x):
            x = to_layout_both_ways(x, True, False)
    if torch.is_grad_enabled():
        for each in (x, *flat):
            if each is not None and each.requires_grad:
                return _FusedBlock.apply(x, how, memory, by, statistics, *flat)  # type: ignore[no-any-return, no-untyped-call]
    dtype = definition.low_precision(x)  # before autocast is off
    with torch.autocast(x.device.type, enabled=False), by.memory(x):
        small = None if by.small is None else _small(x, weights, how, memory, by, dtype, statistics)
        if small is not None:
            return small.forward(x, weights)[0]
        if statistics and by.folds and dtype in _FOLDS:
            how, weights, statistics = _folded(x, weights, how, statistics)
        return _Run(weights, how, memory, by, dtype, statistics).forward(x)


def _small(
    x: Tensor,
    weights: Sequence[Weights],
    how: Block,
    memory: str,
    by: Backend,
    dtype: torch.dtype,
    statistics: Sequence[Statistics | None],
) -> small_blocks.Plan | None:
    """How the block is computed in one call, where it is small; what such a call keeps is what ``'lean'`` keeps."""
    if by.small is None or memory not in ('fast', 'lean') or dtype != x.dtype or any(statistics):
        return None
    return by.small(x, weights, how)


# Where there is no backward, a norm whose statistics are fixed is a scale and a shift of what the convolution before it
# gives, and becomes part of that. In lower types the weights would lose more by it than the maps.
_FOLDS = (torch.float32, torch.float64)


def _folded(
    x: Tensor, weights: Sequence[Weights], how: Block, statistics: Sequence[Statistics | None]
) -> tuple[Block, list[Weights], list[Statistics | None]]:
    units, own, seen = [*how.units], [*weights], [*statistics]
    for index in range(1, len(units)):
        if _folds(units[index].norm, own[index - 1], units[index - 1].geometry, x):
            own[index - 1 : index + 1] = _into(own[index - 1], own[index], seen[index], units[index].norm)
            units[index], seen[index] = replace(units[index], norm=None), None
    shortcut = how.shortcut
    if shortcut is not None and _folds(shortcut.norm, own[-1], shortcut.geometry, x):
        kernel = own[-1]._replace(scale=None, shift=None)
        own[-1], _ = _into(kernel, own[-1], seen[-1], shortcut.norm)
        shortcut, seen[-1] = replace(shortcut, norm=None), None
    return Block(tuple(units), how.adds, shortcut), own, seen


def _folds(norm: Norm | None, giver: Weights, geometry: Geometry, x: Tensor) -> bool:
    fixed = norm is not None and norm.kind == 'fixed' and not geometry.transposed
    return fixed and giver.kernel.numel() <= x.shape[0] * x[0, 0].numel() * giver.kernel.shape[0]


def _into(giver: Weights, own: Weights, statistics: Statistics | None, norm: Norm | None) -> tuple[Weights, Weights]:
    assert statistics is not None
    assert norm is not None
    mean, rate = (
        each.view(-1) for each in norm_act.given(statistics.mean, statistics.variance, norm.eps, giver.kernel.dtype)
    )
    scale = rate if own.scale is None else rate * own.scale
    bias = -mean * scale if giver.bias is None else (giver.bias - mean) * scale
    bias = bias if own.shift is None else bias + own.shift
    kernel = giver.kernel * scale.view(-1, *(1 for _ in giver.kernel.shape[1:]))
    return giver._replace(kernel=kernel, bias=bias), own._replace(scale=None, shift=None)


class _Kept(NamedTuple):
    # Of a unit or shortcut: its input, its convolution's input (a shortcut's: output), the moments. None is rebuilt.
    x: Tensor | None = None
    z: Tensor | None = None
    mean: Tensor | None = None
    rate: Tensor | None = None

    @property
    def at(self) -> Moments | None:
        return None if self.mean is None or self.rate is None else Moments(self.mean, self.rate)


class _Grads(NamedTuple):
    # Gradients of a unit's parameters, named as in Weights; None where not needed.
    scale: Tensor | None = None
    shift: Tensor | None = None
    slope: Tensor | None = None
    kernel: Tensor | None = None
    bias: Tensor | None = None


class _Needs(NamedTuple):
    # Which of them are needed.
    scale: bool
    shift: bool
    slope: bool
    kernel: bool
    bias: bool


# Small blocks wait for Python: between here and the kernels loops stand where comprehensions would, which are calls
# before Python 3.12, and what is done once a unit is not put into functions of its own.


class _UnitRun:
    """One unit with its parameters, forward and backward."""

    def __init__(
        self, how: Unit, weights: Weights, dtype: torch.dtype, by: Backend, statistics: Statistics | None = None
    ) -> None:
        self.how, self.by, self.statistics = how, by, statistics
        self.kernel = weights.kernel.to(dtype)
        self.bias = None if weights.bias is None else weights.bias.to(dtype)
        vectors: list[Tensor | None] = []
        for each in weights[:3]:
            vectors.append(None if each is None else each.detach().view(1, -1, 1))  # noqa: PERF401
        self.affine = Affine(*vectors)
        norm = how.norm or INSTANCE
        self.step = Step(norm.eps, how.activator, dtype, norm.kind, norm.groups, how.alpha)

    def open(self, x: Tensor) -> tuple[Tensor, Moments | None]:
        """The convolution's input z, and the moments of x."""
        flat, at, statistics = x.flatten(2), None, self.statistics
        if self.how.norm is None:
            z = self.by.norm_act.activate(flat, self.affine.slope, self.step)
        elif statistics is None:
            z, at = self.by.norm_act.forward(flat, self.affine, self.step)
        else:
            z, at = _with_statistics(flat, self.affine, self.step, statistics, self.by)
        return (z.view(x.shape) if self.how.resize is None and x.shape[1] > 1 else self._resized(z, x)), at

    def reopen(self, x: Tensor, at: Moments | None) -> tuple[Tensor, Tensor | None]:
        """z once more, and h where it is at hand."""
        flat = x.flatten(2)
        if at is None:
            return self._resized(self.by.norm_act.activate(flat, self.affine.slope, self.step), x), flat
        z, h = self.by.norm_act.rebuild(flat, at, self.affine, self.step)
        return (z.view(x.shape) if self.how.resize is None and x.shape[1] > 1 else self._resized(z, x)), h

    def close(self, z: Tensor) -> Tensor:
        """The unit's output."""
        return self.by.convolution.forward(z, self.kernel, self.bias, self.how.geometry, self.by.tools)

    def backward(self, g: Tensor, kept: _Kept, needs: _Needs, below: bool) -> tuple[Tensor | None, _Grads]:
        """Gradients of x and of the parameters; those not needed may be None."""
        x, z, mean, rate = kept
        assert x is not None, 'an input that was not kept is rebuilt first'
        at, h = None if mean is None or rate is None else Moments(mean, rate), None
        if z is None and needs.kernel:
            z, h = self.reopen(x, at)
        elif z is None:  # where no weight is trained, only its shape is read
            z = self._resized(torch.empty_like(x.flatten(2), dtype=self.step.dtype), x)
        wanted = (below or any(needs[:3]), needs.kernel, needs.bias)
        differentiate, tools = self.by.convolution.backward, self.by.tools
        gz, gkernel, gbias = differentiate(g.to(self.step.dtype), z, self.kernel, self.how.geometry, wanted, tools)
        del z
        if gz is None:
            return None, _Grads(kernel=gkernel, bias=gbias)
        if self.how.resize is not None:
            gz = _resize_backward(gz, self.how.resize, x.shape[2:])
        if at is None:
            flat, slope = x.flatten(2), self.affine.slope
            gx, gslope = self.by.norm_act.activate_backward(gz.flatten(2), flat, slope, self.step)
            return gx.view(x.shape), _Grads(None, None, gslope, gkernel, gbias)
        grads = self.by.norm_act.backward(gz.flatten(2), h, x.flatten(2), at, self.affine, self.step)
        return grads.x.view(x.shape), _Grads(grads.scale, grads.shift, grads.slope, gkernel, gbias)

    def _resized(self, flat: Tensor, x: Tensor) -> Tensor:
        """``(N, C, L)`` → ``(N, C, L1, …)`` as x has them, enlarged."""
        z = flat.view(x.shape)
        if x.shape[1] == 1 and is_channels_last(x):  # which a view of one channel would forget
            z = to_layout(z, True)
        return z if self.how.resize is None else self.how.resize(z)


def _with_statistics(
    x: Tensor, affine: Affine, step: Step, statistics: Statistics, by: Backend
) -> tuple[Tensor, Moments]:
    if step.norm != 'fixed':
        return by.norm_act.forward(x, affine, step, statistics.next())
    at = norm_act.given(statistics.mean, statistics.variance, step.eps, norm_act.accumulator(x.dtype))
    return by.norm_act.rebuild(x, at, affine, step)[0], at


class _ShortcutRun:
    """A shortcut with its parameters, forward and backward.

    A 1 × … × 1 convolution comes first: only the positions that a stride leaves go through it, and the up-sampling
    commutes with it, since its weights sum to one.
    """

    def __init__(
        self, how: Shortcut, weights: Weights, dtype: torch.dtype, by: Backend, statistics: Statistics | None = None
    ) -> None:
        self.how, self.by, self.dtype, self.statistics = how, by, dtype, statistics
        self.kernel = weights.kernel.to(dtype)
        self.bias = None if weights.bias is None else weights.bias.to(dtype)
        self.affine = Affine(_planar(weights.scale), _planar(weights.shift), None)
        norm = how.norm or INSTANCE
        self.step = Step(norm.eps, 'null', dtype, norm.kind, norm.groups)
        self.geometry = how.geometry
        if not how.geometry.transposed:
            self.geometry = how.geometry._replace(stride=(1,) * len(how.geometry.stride))
        self.first = None if by.small_shortcuts else how.resize
        self.last = how.resize if by.small_shortcuts else None

    def open(self, x: Tensor) -> Tensor:
        """The norm's input."""
        z = self._read(x).to(self.dtype)
        z = z if self.first is None else self.first(z)
        u = self.by.convolution.forward(z, self.kernel, self.bias, self.geometry, self.by.tools)
        return u if self.last is None else self.last(u)

    def close(self, u: Tensor) -> tuple[Tensor, Moments | None]:
        """The shortcut's output, and the moments of u."""
        if self.how.norm is None:
            return u, None
        if self.statistics is not None:
            y, at = _with_statistics(u.flatten(2), self.affine, self.step, self.statistics, self.by)
        else:
            y, at = self.by.norm_act.forward(u.flatten(2), self.affine, self.step)
        return y.view(u.shape), at

    def backward(self, g: Tensor, x: Tensor, kept: _Kept, gx: Tensor | None) -> _Grads:
        """Gradients of the parameters; that of x is added to ``gx``."""
        gu, gscale, gshift = self._norm_backward(g.to(self.dtype), x, kept)
        read = self._read(x).to(self.dtype)
        z = read if self.first is None else self.first(read)
        gu = _resize_backward(gu, self.last, z.shape[2:])
        needs = (gx is not None, True, False)
        gz, gkernel, _ = self.by.convolution.backward(gu, z, self.kernel, self.geometry, needs, self.by.tools)
        if gx is not None and gz is not None:
            self._add_read(_resize_backward(gz, self.first, read.shape[2:]), gx)
        return _Grads(gscale, gshift, None, gkernel)

    def _norm_backward(self, g: Tensor, x: Tensor, kept: _Kept) -> tuple[Tensor, Tensor | None, Tensor | None]:
        at = kept.at
        if at is None:
            return g, None, None
        u = self.open(x) if kept.z is None else kept.z
        flat = u.flatten(2)
        grads = self.by.norm_act.backward(g.flatten(2), flat, flat, at, self.affine, self.step)
        return grads.x.view(u.shape), grads.scale, grads.shift

    def _read(self, x: Tensor) -> Tensor:
        """What of x the convolution reads: averages, or the positions that its stride leaves."""
        if self.how.pool:
            return definition.averaged(x, self.how.pool)
        if self.geometry is self.how.geometry:
            return x
        strided: Any = (..., *(slice(None, None, step) for step in self.how.geometry.stride))
        return x[strided]

    def _add_read(self, g: Tensor, gx: Tensor) -> None:
        """Add the gradient of what was read to that of x."""
        if self.how.pool:
            gx.add_(_average_backward(g.to(gx.dtype), gx, self.how.pool))
        else:
            self._read(gx).add_(g)


class _Run:
    """A block with its parameters, forward and backward."""

    def __init__(
        self,
        weights: Sequence[Weights],
        how: Block,
        memory: str,
        by: Backend,
        dtype: torch.dtype,
        statistics: Sequence[Statistics | None] = (),
    ) -> None:
        self.how, self.memory, self.by = how, memory, by
        self.units: list[_UnitRun] = []
        given = statistics or (None,) * len(weights)
        for unit, own, seen in zip(how.units, weights, given, strict=False):
            self.units.append(_UnitRun(unit, own, dtype, by, seen))
        self.shortcut = None
        if how.shortcut is not None:
            self.shortcut = _ShortcutRun(how.shortcut, weights[-1], dtype, by, given[-1])
        last = self.units[-1] if self.units else self.shortcut
        assert last is not None, 'a block without units is a shortcut'
        self.last: _UnitRun | _ShortcutRun = last

    def forward(self, x: Tensor, kept: list[_Kept] | None = None) -> Tensor:
        """The block's output; what backward needs is appended to ``kept``, unless that is None."""
        y = x
        convolve, tools = self.by.convolution.forward, self.by.tools
        for index, unit in enumerate(self.units):
            z, at = unit.open(y)
            if kept is not None:
                keeps = self.memory in ('fast', 'lean') or self._keeps(index)
                kept.append(_Kept(y if keeps else None, z if self.memory == 'fast' else None, *(at or ())))
            y = convolve(z, unit.kernel, unit.bias, unit.how.geometry, tools)
        if self.how.adds == 'input':
            return _sum(y, x)
        if self.shortcut is None:
            return y
        own = self._run_shortcut(self.shortcut, x, kept)
        return _sum(y, own) if self.units else own

    def backward(
        self, g: Tensor, x: Tensor, kept: list[_Kept], needs: Sequence[_Needs], below: bool
    ) -> tuple[Tensor | None, list[_Grads]]:
        """Gradients of x, if ``below``, and of the parameters."""
        if self.memory not in ('fast', 'lean'):
            self._rebuild_inputs(kept)
        gy: Tensor | None = g if self.units else torch.zeros_like(x)
        grads = [_Grads()] * len(needs)
        for index in reversed(range(len(self.units))):
            if gy is None:  # nothing before this unit is trained
                break
            reach = below or any(any(own) for own in needs[:index])
            gy, grads[index] = self.units[index].backward(gy, kept[index], needs[index], reach)
            if index:
                kept[index] = _Kept()  # free what is done with
        gx = gy if below else None
        if gx is not None and self.how.adds == 'input':
            gx = _sum(gx, g)
        if self.shortcut is not None:
            grads[-1] = self.shortcut.backward(g, x, kept[-1], gx)
        return gx, grads

    def like_output(self, g: Tensor, x: Tensor) -> Tensor:
        """The output's gradient, laid as the output; it may come expanded, or as a part of another."""
        return to_layout(g, is_channels_last(x) or is_channels_last(self.last.kernel))

    def _keeps(self, index: int) -> bool:
        if index == 0 or self.memory in ('fast', 'lean'):
            return True
        giver = self.units[index - 1]
        return self.memory == 'leaner' and math.prod(giver.kernel.shape[2:]) > 1

    def _rebuild_inputs(self, kept: list[_Kept]) -> None:
        for index, unit in enumerate(self.units[:-1]):
            before, after = kept[index], kept[index + 1]
            if after.x is None:
                assert before.x is not None, 'inputs are rebuilt in order'
                kept[index + 1] = after._replace(x=unit.close(unit.reopen(before.x, before.at)[0]))

    def _run_shortcut(self, shortcut: _ShortcutRun, x: Tensor, kept: list[_Kept] | None) -> Tensor:
        u = shortcut.open(x)
        own, at = shortcut.close(u)
        if kept is not None:
            kept.append(_Kept(None, u if self.memory == 'fast' and at is not None else None, *(at or ())))
        return own


def _average_backward(g: Tensor, x: Tensor, stride: tuple[int, ...]) -> Tensor:
    window = definition.windows(x, stride)
    if x.dim() == 3:  # torch has it of two axes and of three
        return _average_backward(g.unsqueeze(2), x.unsqueeze(2), (1, *stride)).squeeze(2)
    derive = aten.avg_pool2d_backward if x.dim() == 4 else aten.avg_pool3d_backward
    zero = [0] * len(stride)
    return derive(g, x, window, stride, zero, True, False, None)  # type: ignore[no-any-return]


def _planar(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.detach().view(1, -1, 1)


def _sum(y: Tensor, x: Tensor) -> Tensor:
    # y is ours to overwrite, unless the sum has a wider dtype.
    return y.add_(x) if torch.result_type(y, x) == y.dtype else y + x


def _resize_backward(g: Tensor, resize: Resize | None, size: torch.Size) -> Tensor:
    if resize is None:
        return g
    sizes, factors = (g.shape[2:], (*g.shape[:2], *size)), resize.factors or ()
    if resize.nearest:
        return _NEAREST_BACKWARD[len(size)](g, *sizes, *factors)  # type: ignore[no-any-return]
    return _LINEAR_BACKWARD[len(size)](g, *sizes, True)  # type: ignore[no-any-return]


class _FusedBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        how: Block,
        memory: str,
        by: Backend,
        statistics: Sequence[Statistics | None],
        *flat: Tensor | None,
    ) -> Tensor:
        ctx.how, ctx.memory, ctx.by, ctx.dtype = how, memory, by, definition.low_precision(x)
        ctx.autocast = torch.is_autocast_enabled(x.device.type)
        kept: list[_Kept] = []
        with torch.autocast(x.device.type, enabled=False), by.memory(x):
            weights = _grouped(flat)
            ctx.small = None if by.small is None else _small(x, weights, how, memory, by, ctx.dtype, statistics)
            if ctx.small is None:
                y = _Run(weights, how, memory, by, ctx.dtype, statistics).forward(x, kept)
            else:
                y, parts = ctx.small.forward(x, weights)
                for each, at in parts:
                    kept.append(_Kept(each, None, *(at or ())))
        ctx.save_for_backward(x, *flat, *chain.from_iterable(kept))
        ctx.parameters = len(flat)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, *saved = ctx.saved_tensors
        flat, rest = saved[: ctx.parameters], saved[ctx.parameters :]
        needs_x, _, _, _, _, *needs = ctx.needs_input_grad
        kept = [*map(_Kept._make, zip(*[iter(rest)] * len(_Kept._fields), strict=True))]
        if torch.is_grad_enabled():
            at = [each.at for each in kept]
            return _differentiable(ctx, g, (x, *flat), (needs_x, *needs), at)
        weights, wanted = _grouped(flat), [*map(_Needs._make, zip(*[iter(needs)] * len(_Needs._fields), strict=True))]
        del saved, rest
        with torch.autocast(x.device.type, enabled=False), ctx.by.memory(x):
            if ctx.small is None:
                run = _Run(weights, ctx.how, ctx.memory, ctx.by, ctx.dtype)
                gx, grads = run.backward(run.like_output(g, x), x, kept, wanted, needs_x)
            else:
                parts = [small_blocks.Kept(each.x, each.at) for each in kept]
                gx, grads = ctx.small.backward(g, parts, weights, wanted)
            if gx is not None and is_channels_last(gx) != is_channels_last(x):
                gx = to_layout(gx, is_channels_last(x))
        return gx, None, None, None, None, *_like_parameters(chain.from_iterable(grads), flat, needs)


def _differentiable(
    ctx: Any, g: Tensor, inputs: tuple[Tensor, ...], needs: tuple[bool, ...], at: Sequence[Moments | None]
) -> tuple[Any, ...]:
    # A gradient that is to be differentiated again is the definition's own.
    # Torch's layers get everything contiguous, for which alone they are right (see path.plainly).
    x, *flat = (
        each if each is None or each.dim() < 3 else to_layout_both_ways(each, False, is_channels_last(each))
        for each in inputs
    )
    with torch.autocast(x.device.type, ctx.dtype, enabled=ctx.autocast):
        y = definition.block(x, _grouped(flat), ctx.how, at)
    g = to_layout_both_ways(g, False, False)
    wanted = [each for each, need in zip(inputs, needs, strict=True) if need]
    grads = iter(torch.autograd.grad(y, wanted, g, create_graph=True))
    gx, *rest = (next(grads) if need else None for need in needs)
    return gx, None, None, None, None, *rest


def _like_parameters(
    grads: Iterable[Tensor | None], flat: Sequence[Tensor | None], needs: Sequence[bool]
) -> list[Tensor | None]:
    """Those gradients that are needed, in the shapes and dtypes of their parameters."""
    found: list[Tensor | None] = []
    for grad, own, need in zip(grads, flat, needs, strict=True):
        if not need or grad is None or own is None:
            found.append(None)
        else:
            # One slope may serve all channels.
            found.append((grad.sum() if own.numel() == 1 else grad).view_as(own).to(own.dtype))
    return found


def _grouped(flat: Sequence[Any]) -> list[Weights]:
    return [*map(Weights._make, zip(*[iter(flat)] * len(Weights._fields), strict=True))]


def forward_and_backward(
    x: Tensor, g: Tensor, weights: Sequence[Weights], how: Block
) -> tuple[Tensor, Tensor, list[_Grads]]:
    """A block's output, and the gradients of ``x`` and of all parameters, without autograd: proof of other kernels."""
    run, kept = _Run(weights, how, 'lean', TABLE[DEFAULT, x.device.type], x.dtype), list[_Kept]()
    y = run.forward(x, kept)
    gx, grads = run.backward(g, x, kept, [_Needs(*(each is not None for each in own)) for own in weights], True)
    assert gx is not None
    return y, gx, grads
