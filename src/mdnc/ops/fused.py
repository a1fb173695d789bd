"""The fused block: units one after the other and what is added to them, as one function of autograd.

Torch's own layers keep three tensors a unit for backward: the norm's input x, the activation's, the convolution's.
This function keeps x and the moments of its planes, and rebuilds the rest just before it is needed. Everything that
it keeps goes through ``save_for_backward``, so that hooks on saved tensors see it.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdnc import _torch
from mdnc.ops import definition, small_blocks
from mdnc.ops.backend import DEFAULT, TABLE, Backend
from mdnc.ops.channels_last import is_channels_last, to_layout, to_layout_both_ways
from mdnc.ops.definition import Block, Weights
from mdnc.ops.folding import FOLDS, folded
from mdnc.ops.masked import Mask
from mdnc.ops.norm_act import Moments
from mdnc.ops.units import Grads, Kept, Needs, ShortcutRun, Statistics, UnitRun, masking


def block(
    x: Tensor,
    weights: Sequence[Weights],
    how: Block,
    memory: str = 'lean',
    backend: str = DEFAULT,
    statistics: Sequence[Statistics | None] = (),
    masks: Sequence[Mask] = (),
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
        masks: Of a padded batch the padding of each unit's input, then of what the shortcut gives.
    """
    by = TABLE[backend, x.device.type]
    flat = [*chain.from_iterable(weights)]
    if by.channels_last and not is_channels_last(x):
        with by.memory(x):
            x = to_layout_both_ways(x, True, False)
    call = Call(how, memory, by, definition.low_precision(x), masks)
    if torch.is_grad_enabled():
        for each in (x, *flat):
            if each is not None and each.requires_grad:
                return _FusedBlock.apply(x, call, statistics, *flat)  # type: ignore[no-any-return, no-untyped-call]
    small = None if by.small is None else call.small(x, weights, statistics)
    return call.forward(x, weights, statistics, small)


class Call(NamedTuple):
    """How a block is computed, forward and backward: all but its tensors.

    What autograd is told of a block is this: in eager torch by `_FusedBlock`, in a compiler's graph by ``library.py``.

    Args:
        how: The block.
        memory: What is kept for backward.
        by: Who computes.
        dtype: Of activations and convolutions.
        masks: See `block`; they are not kept for backward by the block alone, but shared by all of a level.
    """

    how: Block
    memory: str
    by: Backend
    dtype: torch.dtype
    masks: Sequence[Mask] = ()

    def small(
        self, x: Tensor, weights: Sequence[Weights], statistics: Sequence[Statistics | None]
    ) -> small_blocks.Plan | None:
        """How the block is computed by one function, where it is small, which keeps what ``'lean'`` keeps."""
        by = self.by.small
        if by is None or self.memory not in ('fast', 'lean') or self.dtype != x.dtype or any(statistics) or self.masks:
            return None
        return by(x, weights, self.how, self.by.tools.limits)

    def forward(
        self,
        x: Tensor,
        weights: Sequence[Weights],
        statistics: Sequence[Statistics | None] = (),
        small: small_blocks.Plan | None = None,
        kept: list[Kept] | None = None,
    ) -> Tensor:
        """The block's output; what backward needs is appended to ``kept``, unless that is None."""
        how, memory, by, dtype, masks = self
        with torch.autocast(x.device.type, enabled=False), by.memory(x):
            if small is not None:
                y, parts = small.forward(x, weights)
                for each, at in () if kept is None else parts:
                    kept.append(Kept(each, None, *(at or ())))  # type: ignore[union-attr]
                return y
            if kept is None and statistics and by.folds and dtype in FOLDS and not masks:
                how, weights, statistics = folded(x, weights, how, statistics)
            return BlockRun(weights, how, memory, by, dtype, statistics, masks).forward(x, kept)

    def backward(
        self,
        g: Tensor,
        x: Tensor,
        flat: Sequence[Tensor | None],
        kept: list[Kept],
        needs: Sequence[bool],
        small: small_blocks.Plan | None = None,
    ) -> list[Tensor | None]:
        """Gradients of x and of the flat parameters, in their shapes and dtypes; None of what needs none."""
        below, *rest = needs
        weights, wanted = grouped(flat), [*map(Needs._make, zip(*[iter(rest)] * len(Needs._fields), strict=True))]
        with torch.autocast(x.device.type, enabled=False), self.by.memory(x):
            grads: Sequence[Iterable[Tensor | None]]
            if small is None:
                run = BlockRun(weights, self.how, self.memory, self.by, self.dtype, masks=self.masks)
                gx, grads = run.backward(run.like_output(g, x), x, kept, wanted, below)
            else:
                gx, grads = small.backward(g, [small_blocks.Kept(each.x, each.at) for each in kept], weights, wanted)
            if gx is not None and is_channels_last(gx) != is_channels_last(x):
                gx = to_layout(gx, is_channels_last(x))
        return [gx, *_like_parameters(chain.from_iterable(grads), flat, rest)]


def keeps_input(memory: str, index: int, before: Tensor | None) -> bool:
    """Whether the input of a unit is kept, which the convolution with the weights ``before`` gives."""
    if index == 0 or memory in ('fast', 'lean'):
        return True
    return memory == 'leaner' and before is not None and math.prod(before.shape[2:]) > 1


class BlockRun:
    """A block with its parameters, forward and backward."""

    def __init__(
        self,
        weights: Sequence[Weights],
        how: Block,
        memory: str,
        by: Backend,
        dtype: torch.dtype,
        statistics: Sequence[Statistics | None] = (),
        masks: Sequence[Mask] = (),
    ) -> None:
        self.how, self.memory, self.by = how, memory, by
        self.units: list[UnitRun] = []
        given, padding = statistics or (None,) * len(weights), masks or (None,) * len(weights)
        for unit, own, seen, mask in zip(how.units, weights, given, padding, strict=False):
            self.units.append(UnitRun(unit, own, dtype, masking(by, mask) if mask else by, seen))
        self.shortcut = None
        if how.shortcut is not None:
            own_by = masking(by, masks[-1]) if masks else by
            self.shortcut = ShortcutRun(how.shortcut, weights[-1], dtype, own_by, given[-1])
        last = len(self.units) - 1  # the shortcut's, where there are no units
        self.last: Any = weights[last].kernel if weights[last].kernel is not None else weights[last - 1].kernel

    def forward(self, x: Tensor, kept: list[Kept] | None = None) -> Tensor:
        """The block's output; what backward needs is appended to ``kept``, unless that is None."""
        y = x
        convolve, tools = self.by.convolution.forward, self.by.tools
        for index, unit in enumerate(self.units):
            z, at = unit.norm_act(y)
            if kept is not None:
                keeps = self.memory in ('fast', 'lean') or self._keeps(index)
                fast = self.memory == 'fast' and unit.kernel is not None
                kept.append(Kept(y if keeps else None, z if fast else None, *(at or ())))
            y = z  # what came before is let go, for the result to take its place
            del z
            if unit.kernel is not None:
                y = convolve(y, unit.kernel, unit.bias, unit.how.geometry, tools)
        if self.how.adds == 'input':
            return _sum(y, x)
        if self.shortcut is None:
            return y
        own = self._run_shortcut(self.shortcut, x, kept)
        return _sum(y, own) if self.units else own

    def backward(
        self, g: Tensor, x: Tensor, kept: list[Kept], needs: Sequence[Needs], below: bool
    ) -> tuple[Tensor | None, list[Grads]]:
        """Gradients of x, if ``below``, and of the parameters."""
        if self.memory not in ('fast', 'lean'):
            self._rebuild_inputs(kept)
        gy: Tensor | None = g if self.units else torch.zeros_like(x)
        grads = [Grads()] * len(needs)
        for index in reversed(range(len(self.units))):
            if gy is None:  # nothing before this unit is trained
                break
            reach = below or any(any(own) for own in needs[:index])
            gy, grads[index] = self.units[index].backward(gy, kept[index], needs[index], reach)
            if index:
                kept[index] = Kept()  # free what is done with
        gx = gy if below else None
        if gx is not None and self.how.adds == 'input':
            gx = _sum(gx, g)
        if self.shortcut is not None:
            grads[-1] = self.shortcut.backward(g, x, kept[-1], gx, needs[-1])
        return gx, grads

    def like_output(self, g: Tensor, x: Tensor) -> Tensor:
        """The output's gradient, laid as the output; it may come expanded, or as a part of another."""
        return to_layout(g, is_channels_last(x) or is_channels_last(self.last))

    def _keeps(self, index: int) -> bool:
        return keeps_input(self.memory, index, None if index == 0 else self.units[index - 1].kernel)

    def _rebuild_inputs(self, kept: list[Kept]) -> None:
        for index, unit in enumerate(self.units[:-1]):
            before, after = kept[index], kept[index + 1]
            if after.x is None:
                assert before.x is not None, 'inputs are rebuilt in order'
                kept[index + 1] = after._replace(x=unit.convolve(unit.rebuild(before.x, before.at)[0]))

    def _run_shortcut(self, shortcut: ShortcutRun, x: Tensor, kept: list[Kept] | None) -> Tensor:
        u = shortcut.convolve(x)
        own, at = shortcut.normalise(u)
        if kept is not None:
            kept.append(Kept(None, u if self.memory == 'fast' and at is not None else None, *(at or ())))
        return own


def _sum(y: Tensor, x: Tensor) -> Tensor:
    # y is ours to overwrite, unless the sum has a wider dtype.
    return y.add_(x) if torch.result_type(y, x) == y.dtype else y + x


class _FusedBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, call: Call, statistics: Sequence[Statistics | None], *flat: Tensor | None
    ) -> Tensor:
        weights, kept = grouped(flat), list[Kept]()
        ctx.call, ctx.parameters = call, len(flat)
        ctx.small = None if call.by.small is None else call.small(x, weights, statistics)
        ctx.autocast = torch.is_autocast_enabled(x.device.type)
        y = call.forward(x, weights, statistics, ctx.small, kept)
        if call.how.units:  # x goes once: what offloads or compresses it is asked for each tensor
            kept[0] = kept[0]._replace(x=None)
        ctx.save_for_backward(x, *flat, *chain.from_iterable(kept))
        return y.data  # no view, into which nobody could write: autograd refuses to for what a function gives

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, *saved = ctx.saved_tensors
        flat, rest = saved[: ctx.parameters], saved[ctx.parameters :]
        below, _, _, *needs = ctx.needs_input_grad
        kept = [*map(Kept._make, zip(*[iter(rest)] * len(Kept._fields), strict=True))]
        if ctx.call.how.units:
            kept[0] = kept[0]._replace(x=x)
        if torch.is_grad_enabled() or _torch.batched(g):
            at = [each.at for each in kept]
            return _by_definition(ctx, g, (x, *flat), (below, *needs), at)
        del saved, rest
        gx, *grads = ctx.call.backward(g, x, flat, kept, (below, *needs), ctx.small)
        return gx, None, None, *grads


def _by_definition(
    ctx: Any, g: Tensor, inputs: tuple[Tensor, ...], needs: tuple[bool, ...], at: Sequence[Moments | None]
) -> tuple[Any, ...]:
    # A gradient that is to be differentiated again, or that stands for many, is the definition's own.
    again, many, call = torch.is_grad_enabled(), _torch.batched(g), ctx.call
    autocast = ctx.autocast and call.dtype != torch.float64  # which autocast leaves alone, and warns of as its own
    with torch.enable_grad():
        x, *flat = own = [None if each is None else _contiguous(each, many) for each in inputs]
        with torch.autocast(g.device.type, call.dtype, enabled=autocast):
            y = definition.block(x, grouped(flat), call.how, at, call.masks)
    wanted = [each for each, need in zip(own, needs, strict=True) if need and each is not None]
    grads = iter(torch.autograd.grad(y, wanted, _contiguous(g, many), create_graph=again))
    gx, *rest = (next(grads) if need else None for need in needs)
    return gx, None, None, *rest


def _contiguous(x: Tensor, many: bool) -> Tensor:
    # Torch's layers are right for contiguous tensors alone (see path.plainly). Each is a tensor of its own even where
    # it lies so, for one parameter may stand in several places, of which each has its gradient.
    if x.dim() < 3:
        return x.view_as(x)
    if many:  # torch.vmap has no rule for functions of autograd such as the one below
        return x.contiguous().view_as(x)
    return to_layout_both_ways(x, False, is_channels_last(x))


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


def grouped(flat: Sequence[Any]) -> list[Weights]:
    """Parameters by unit, of all those of a block in a row."""
    return [*map(Weights._make, zip(*[iter(flat)] * len(Weights._fields), strict=True))]


def forward_and_backward(
    x: Tensor, g: Tensor, weights: Sequence[Weights], how: Block
) -> tuple[Tensor, Tensor, list[Grads]]:
    """A block's output, and the gradients of ``x`` and of all parameters, without autograd: proof of other kernels."""
    run, kept = BlockRun(weights, how, 'lean', TABLE[DEFAULT, x.device.type], x.dtype), list[Kept]()
    y = run.forward(x, kept)
    gx, grads = run.backward(g, x, kept, [Needs(*(each is not None for each in own)) for own in weights], True)
    assert gx is not None
    return y, gx, grads
