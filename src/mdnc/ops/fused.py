"""The fused block: units one after the other and what is added to them, as one function of autograd.

Torch's own layers keep three tensors a unit for backward: the norm's input x, the activation's, the convolution's.
This function keeps x and the moments of its planes, and rebuilds the rest just before it is needed. Everything that
it keeps goes through ``save_for_backward``, so that hooks on saved tensors see it.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdnc.ops import convolution, definition, planes
from mdnc.ops.convolution import Convolution, Geometry
from mdnc.ops.definition import Block, Resize, Shortcut, Unit, Weights
from mdnc.ops.layout import Dense, contiguous, is_last, laid, relaid
from mdnc.ops.planes import Affine, Moments, Step

_aten = torch.ops.aten
_RESIZE_BACKWARD = {
    1: _aten.upsample_linear1d_backward,
    2: _aten.upsample_bilinear2d_backward,
    3: _aten.upsample_trilinear3d_backward,
}


def anywhere(like: Tensor) -> AbstractContextManager[None]:
    """Results lie where torch's allocator puts them."""
    return nullcontext()


class Kernels(NamedTuple):
    """Who computes norm, activation and convolution, and where results lie.

    Args:
        forward: See ``planes.forward``.
        rebuild: See ``planes.rebuild``.
        backward: See ``planes.backward``.
        convolution: See ``convolution``.
        memory: For a tensor like the block's input, in which context the block is to run.
        last: Whether the block's tensors are to lie with their channels innermost, whatever its input does.
        dense: Who lays tensors anew.
    """

    forward: Callable[..., tuple[Tensor, Moments]] = planes.forward
    rebuild: Callable[..., tuple[Tensor, Tensor | None]] = planes.rebuild
    backward: Callable[..., planes.Gradients] = planes.backward
    convolution: Convolution = convolution.BY_SHAPE
    memory: Callable[[Tensor], AbstractContextManager[None]] = anywhere
    last: bool = False
    dense: Dense = contiguous


EAGER = Kernels()


@dataclass(frozen=True)
class Manner:
    """How a fused block runs; its result does not depend on it.

    Args:
        memory: What is kept for backward. ``'fast'``: of each unit x and the convolution's input. ``'lean'``: x.
            ``'leaner'``: x, unless a 1 × … × 1 convolution gives it. ``'least'``: x of the first unit.
        kernels: Who computes norm, activation and convolution, and where results lie.
    """

    memory: str = 'lean'
    kernels: Kernels = EAGER


def block(x: Tensor, weights: Sequence[Weights], how: Block, manner: Manner) -> Tensor:
    """What ``definition.block`` computes, keeping less for backward."""
    flat = [each for own in weights for each in own]
    if manner.kernels.last and not is_last(x):
        with manner.kernels.memory(x):
            x = relaid(x, True, False, manner.kernels.dense)
    if torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in (x, *flat)):
        return _FusedBlock.apply(x, how, manner, *flat)  # type: ignore[no-any-return, no-untyped-call]
    dtype = definition.low_precision(x)  # before autocast is off
    with torch.autocast(x.device.type, enabled=False), manner.kernels.memory(x):
        return _Run(weights, how, manner, dtype).forward(x)


@dataclass
class _Kept:
    # Of a unit or shortcut: its input, its convolution's input (a shortcut's: output), the moments. None is rebuilt.
    x: Tensor | None = None
    z: Tensor | None = None
    mean: Tensor | None = None
    rate: Tensor | None = None

    @property
    def at(self) -> Moments | None:
        return None if self.mean is None or self.rate is None else Moments(self.mean, self.rate)

    @property
    def input(self) -> Tensor:
        assert self.x is not None, 'an input that was not kept is rebuilt first'
        return self.x

    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.x, self.z, self.mean, self.rate


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


class _UnitRun:
    """One unit with its parameters, forward and backward."""

    def __init__(self, how: Unit, weights: Weights, dtype: torch.dtype, kernels: Kernels) -> None:
        self.how, self.kernels = how, kernels
        self.kernel = weights.kernel.to(dtype)
        self.bias = None if weights.bias is None else weights.bias.to(dtype)
        self.affine = Affine(_planar(weights.scale), _planar(weights.shift), _planar(weights.slope))
        self.step = Step(how.eps or 0.0, how.activator, dtype)
        self.geometry = Geometry(how.stride, how.padding)

    def open(self, x: Tensor) -> tuple[Tensor, Moments | None]:
        """The convolution's input z, and the moments of x."""
        flat, at = x.flatten(2), None
        if self.how.eps is None:
            z = planes.activated(flat, self.affine.slope, self.step)
        else:
            z, at = self.kernels.forward(flat, self.affine, self.step)
        return self._resized(_maps(z, x)), at

    def reopen(self, x: Tensor, at: Moments | None) -> tuple[Tensor, Tensor | None]:
        """z once more, and h where it is at hand."""
        flat = x.flatten(2)
        if at is None:
            return self._resized(_maps(planes.activated(flat, self.affine.slope, self.step), x)), flat
        z, h = self.kernels.rebuild(flat, at, self.affine, self.step)
        return self._resized(_maps(z, x)), h

    def close(self, z: Tensor) -> Tensor:
        """The unit's output."""
        return self.kernels.convolution.forward(z, self.kernel, self.bias, self.geometry)

    def backward(self, g: Tensor, kept: _Kept, needs: _Needs, below: bool) -> tuple[Tensor | None, _Grads]:
        """Gradients of x and of the parameters; those not needed may be None."""
        x, at = kept.input, kept.at
        z, h = (kept.z, None) if kept.z is not None else self._reopen_for(needs.kernel, x, at)
        opens = below or any(needs[:3])
        wanted = (opens, needs.kernel, needs.bias)
        differentiate = self.kernels.convolution.backward
        gz, gkernel, gbias = differentiate(g.to(self.step.dtype), z, self.kernel, self.geometry, wanted)
        del z
        if gz is None:
            return None, _Grads(kernel=gkernel, bias=gbias)
        gz = _resize_backward(gz, self.how.resize, x.shape[2:]).flatten(2)
        grads = self._planes_backward(gz, h, x.flatten(2), at)
        return grads.x.view(x.shape), _Grads(grads.scale, grads.shift, grads.slope, gkernel, gbias)

    def _reopen_for(self, values: bool, x: Tensor, at: Moments | None) -> tuple[Tensor, Tensor | None]:
        # Where no weight is trained, only the shape of z is read.
        if values:
            return self.reopen(x, at)
        return self._resized(torch.empty_like(x, dtype=self.step.dtype)), None

    def _planes_backward(self, g: Tensor, h: Tensor | None, x: Tensor, at: Moments | None) -> planes.Gradients:
        if at is None:
            gx, gslope = planes.activation_backward(g, x, self.affine.slope, self.step)
            return planes.Gradients(gx, None, None, gslope)
        return self.kernels.backward(g, h, x, at, self.affine, self.step)

    def _resized(self, z: Tensor) -> Tensor:
        return z if self.how.resize is None else self.how.resize(z)


class _ShortcutRun:
    """A shortcut with its parameters, forward and backward.

    The 1 × … × 1 convolution comes first: only the positions that a stride leaves go through it, and the linear
    up-sampling commutes with it, since its weights sum to one.
    """

    def __init__(self, how: Shortcut, weights: Weights, dtype: torch.dtype, kernels: Kernels) -> None:
        self.how, self.kernels, self.dtype = how, kernels, dtype
        self.kernel = weights.kernel.to(dtype)
        self.affine = Affine(_planar(weights.scale), _planar(weights.shift), None)
        self.step = Step(how.eps, 'null', dtype)
        self.geometry = Geometry((1,) * len(how.stride), (0,) * len(how.stride))

    def open(self, x: Tensor) -> Tensor:
        """The norm's input."""
        u = convolution.forward(self._read(x).to(self.dtype), self.kernel, None, self.geometry)
        return u if self.how.resize is None else self.how.resize(u)

    def close(self, u: Tensor) -> tuple[Tensor, Moments]:
        """The shortcut's output, and the moments of u."""
        y, at = self.kernels.forward(u.flatten(2), self.affine, self.step)
        return y.view(u.shape), at

    def backward(self, g: Tensor, x: Tensor, kept: _Kept, gx: Tensor | None) -> _Grads:
        """Gradients of the parameters; that of x is added to ``gx``."""
        u, at = self.open(x) if kept.z is None else kept.z, kept.at
        assert at is not None
        flat = u.flatten(2)
        grads = self.kernels.backward(g.to(self.dtype).flatten(2), flat, flat, at, self.affine, self.step)
        read = self._read(x).to(self.dtype)
        gu = _resize_backward(grads.x.view(u.shape), self.how.resize, read.shape[2:])
        needs = (gx is not None, True, False)
        gread, gkernel, _ = convolution.backward(gu, read, self.kernel, self.geometry, needs)
        if gx is not None and gread is not None:
            self._read(gx).add_(gread)
        return _Grads(grads.scale, grads.shift, None, gkernel)

    def _read(self, x: Tensor) -> Tensor:
        strided: Any = (..., *(slice(None, None, step) for step in self.how.stride))
        return x[strided]


class _Run:
    """A block with its parameters, forward and backward."""

    def __init__(self, weights: Sequence[Weights], how: Block, manner: Manner, dtype: torch.dtype) -> None:
        self.how, self.memory, self.kernels = how, manner.memory, manner.kernels
        pairs = zip(how.units, weights, strict=False)
        self.units = [_UnitRun(unit, own, dtype, manner.kernels) for unit, own in pairs]
        self.shortcut = None
        if how.shortcut is not None:
            self.shortcut = _ShortcutRun(how.shortcut, weights[-1], dtype, manner.kernels)

    def forward(self, x: Tensor, kept: list[_Kept] | None = None) -> Tensor:
        """The block's output; what backward needs is appended to ``kept``, unless that is None."""
        y = x
        for index, unit in enumerate(self.units):
            z, at = unit.open(y)
            if kept is not None:
                own = _Kept(y if self._keeps(index) else None, z if self.memory == 'fast' else None, *(at or ()))
                kept.append(own)
            y = unit.close(z)
        if self.how.adds == 'input':
            return _sum(y, x)
        return y if self.shortcut is None else self._plus_shortcut(y, x, kept)

    def backward(
        self, g: Tensor, kept: list[_Kept], needs: Sequence[_Needs], below: bool
    ) -> tuple[Tensor | None, list[_Grads]]:
        """Gradients of x, if ``below``, and of the parameters."""
        self._rebuild_inputs(kept)
        x = kept[0].input
        gy: Tensor | None = g
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

    def dense(self, g: Tensor, x: Tensor) -> Tensor:
        """The output's gradient, laid as the output; it may come expanded, or as a part of another."""
        return laid(g, is_last(x) or is_last(self.units[-1].kernel), self.kernels.dense)

    def _keeps(self, index: int) -> bool:
        if index == 0 or self.memory in ('fast', 'lean'):
            return True
        giver = self.units[index - 1]
        return self.memory == 'leaner' and math.prod(giver.kernel.shape[2:]) > 1

    def _rebuild_inputs(self, kept: list[_Kept]) -> None:
        for unit, before, after in zip(self.units, kept, kept[1 : len(self.units)], strict=False):
            if after.x is None:
                after.x = unit.close(unit.reopen(before.input, before.at)[0])

    def _plus_shortcut(self, y: Tensor, x: Tensor, kept: list[_Kept] | None) -> Tensor:
        assert self.shortcut is not None
        u = self.shortcut.open(x)
        own, at = self.shortcut.close(u)
        if kept is not None:
            kept.append(_Kept(None, u if self.memory == 'fast' else None, *at))
        return _sum(y, own)


def _maps(flat: Tensor, like: Tensor) -> Tensor:
    """``(N, C, L)`` → ``(N, C, L1, …)``; a view of one channel would forget that it lies last."""
    maps = flat.view(like.shape)
    return laid(maps, True) if like.shape[1] == 1 and is_last(like) else maps


def _planar(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.detach().view(1, -1, 1)


def _sum(y: Tensor, x: Tensor) -> Tensor:
    # y is ours to overwrite, unless the sum has a wider dtype.
    return y.add_(x) if torch.result_type(y, x) == y.dtype else y + x


def _resize_backward(g: Tensor, resize: Resize | None, size: torch.Size) -> Tensor:
    if resize is None:
        return g
    return _RESIZE_BACKWARD[len(size)](g, g.shape[2:], (*g.shape[:2], *size), True)  # type: ignore[no-any-return]


class _FusedBlock(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, how: Block, manner: Manner, *flat: Tensor | None) -> Tensor:
        ctx.how, ctx.manner, ctx.dtype = how, manner, definition.low_precision(x)
        ctx.autocast = torch.is_autocast_enabled(x.device.type)
        kept: list[_Kept] = []
        with torch.autocast(x.device.type, enabled=False), manner.kernels.memory(x):
            y = _Run(_grouped(flat), how, manner, ctx.dtype).forward(x, kept)
        ctx.save_for_backward(x, *flat, *(each for own in kept for each in own.tensors()))
        ctx.parameters = len(flat)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, *saved = ctx.saved_tensors
        flat, rest = saved[: ctx.parameters], saved[ctx.parameters :]
        needs_x, _, _, *needs = ctx.needs_input_grad
        if torch.is_grad_enabled():
            return _differentiable(ctx, g, (x, *flat), (needs_x, *needs))
        kept = [_Kept(*rest[start : start + 4]) for start in range(0, len(rest), 4)]
        run = _Run(_grouped(flat), ctx.how, ctx.manner, ctx.dtype)
        del saved, rest
        with torch.autocast(x.device.type, enabled=False), ctx.manner.kernels.memory(x):
            size = len(_Needs._fields)
            wanted = [_Needs(*needs[start : start + size]) for start in range(0, len(needs), size)]
            gx, grads = run.backward(run.dense(g, x), kept, wanted, needs_x)
            if gx is not None and is_last(gx) != is_last(x):
                gx = laid(gx, is_last(x), ctx.manner.kernels.dense)
        each = zip((each for own in grads for each in own), flat, needs, strict=True)
        return gx, None, None, *(_like_parameter(grad, own) if need else None for grad, own, need in each)


def _differentiable(ctx: Any, g: Tensor, inputs: tuple[Tensor, ...], needs: tuple[bool, ...]) -> tuple[Any, ...]:
    # A gradient that is to be differentiated again is the definition's own.
    # Torch's layers get everything contiguous, for which alone they are right (see path.plainly).
    x, *flat = (each if each is None or each.dim() < 3 else relaid(each, False, is_last(each)) for each in inputs)
    with torch.autocast(x.device.type, ctx.dtype, enabled=ctx.autocast):
        y = definition.block(x, _grouped(flat), ctx.how)
    g = relaid(g, False, False)
    wanted = [each for each, need in zip(inputs, needs, strict=True) if need]
    grads = iter(torch.autograd.grad(y, wanted, g, create_graph=True))
    gx, *rest = (next(grads) if need else None for need in needs)
    return gx, None, None, *rest


def _like_parameter(grad: Tensor | None, own: Tensor | None) -> Tensor | None:
    if grad is None or own is None:
        return None
    if own.numel() == 1:  # one slope for all channels
        grad = grad.sum()
    return grad.view_as(own).to(own.dtype)


def _grouped(flat: Sequence[Any]) -> list[Weights]:
    size = len(Weights._fields)
    return [Weights(*flat[start : start + size]) for start in range(0, len(flat), size)]
