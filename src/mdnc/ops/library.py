"""The fused block as operators of ``torch.library``: one node of a compiled graph forward, and one backward.

A compiler sees neither inside, so that what is kept for backward stays what the memory level says. Everything but the
tensors travels as text in the graph's own node: a graph may be read back from a cache by another process.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from mdnc import _torch
from mdnc.ops import norm_act
from mdnc.ops.backend import DEFAULT, TABLE
from mdnc.ops.channels_last import is_channels_last, to_layout
from mdnc.ops.convolution import Geometry, output_shape
from mdnc.ops.definition import Block, Norm, Resize, Shortcut, Unit, Weights, low_precision
from mdnc.ops.fused import Call, grouped, keeps_input
from mdnc.ops.units import Kept, Statistics


def block(
    x: Tensor,
    weights: Sequence[Weights],
    how: Block,
    memory: str = 'lean',
    backend: str = DEFAULT,
    statistics: Sequence[Statistics | None] = (),
) -> Tensor:
    """What ``fused.block`` computes, as a node of the graph that is being traced.

    Statistics of batch norms go through it by value: the node gives new ones, which the graph writes over the old.

    Args:
        x: Input ``(B, C, L1, …)``.
        weights: Parameters of the units, those of the shortcut last.
        how: The block.
        memory: What is kept for backward.
        backend: Who computes, a name of ``backend.NAMES``.
        statistics: Of each unit, then of the shortcut, those of a batch norm, see ``fused.block``.

    Returns:
        ``(B, O, M1, …)``, contiguous, or channels-last where ``x`` or the convolutions' weights are.

    Example:
        >>> import torch
        >>> from mdnc.ops import library
        >>> from mdnc.ops.convolution import Geometry
        >>> from mdnc.ops.definition import Block, Unit, Weights
        >>> x, weights = torch.randn(2, 3, 8), Weights(None, None, None, torch.randn(4, 3, 1), None)
        >>> library.block(x, [weights], Block((Unit(Geometry((1,), (0,)), activator='relu'),))).shape
        torch.Size([2, 4, 8])
    """
    flat = [*chain.from_iterable(weights)]
    given = [each for each in flat if each is not None]
    keeps = torch.is_grad_enabled() and any(each.requires_grad for each in (x, *given))
    last = TABLE[backend, x.device.type].channels_last
    last = last or any(is_channels_last(each) for each in (x, *(own.kernel for own in weights)) if each is not None)
    there = tuple(each is not None for each in flat)
    seen, updated = _tensors(statistics, how), _tensors(statistics, how, ('batch',))
    words = tuple(None if own is None else _words(own) for own in statistics)
    plan = repr((_values(how), memory, backend, str(low_precision(x)), there, words, keeps, last))
    y, *rest = _forward(x, given, seen, plan)
    with torch.no_grad():
        for own, new in zip(updated, rest, strict=False):
            own.copy_(new)
    return y  # type: ignore[no-any-return]


def _tensors(
    statistics: Sequence[Statistics | None], how: Block, kinds: Sequence[str] = ('batch', 'fixed')
) -> list[Tensor]:
    """Those statistics, in a row, that belong to norms of these kinds."""
    norms = [unit.norm for unit in how.units] + ([] if how.shortcut is None else [how.shortcut.norm])
    owners = [own for own, norm in zip(statistics, norms, strict=False) if own and norm and norm.kind in kinds]
    return [each for own in owners for each in own[:3] if each is not None]


def _words(own: Statistics) -> tuple[bool, float | None]:
    return own.batches is not None, None if own.momentum is None else _number(own.momentum)


# ---- A block as text ----


@dataclass(frozen=True)
class _Plan:
    """What a node says beside its tensors.

    Args:
        how: The block.
        memory: What is kept for backward.
        backend: Who computes.
        dtype: Of activations and convolutions.
        given: Which of the flat parameters there are.
        words: Of each unit, then of the shortcut, whether its batch norm counts batches, and its momentum; ``None`` for
            no statistics. Empty where there are none.
        keeps: Whether there will be a backward.
        channels_last: Whether results have their channels last in memory.
    """

    how: Block
    memory: str
    backend: str
    dtype: torch.dtype
    given: tuple[bool, ...]
    words: tuple[tuple[bool, float | None] | None, ...]
    keeps: bool
    channels_last: bool

    def spread(self, given: Sequence[Any]) -> list[Any]:
        """One value for each flat parameter, ``None`` for those that are not given."""
        values = iter(given)
        return [next(values) if there else None for there in self.given]

    def statistics(self, tensors: Sequence[Tensor]) -> list[Statistics | None]:
        """Copies of the statistics, by unit; what the block takes in is added to them."""
        values = iter([each.clone() for each in tensors])
        found: list[Statistics | None] = []
        for own in self.words:
            mean, variance, batches = (next(values) if own and (part < 2 or own[0]) else None for part in range(3))
            made = mean is not None and variance is not None
            found.append(Statistics(mean, variance, batches, own[1]) if made and own else None)  # type: ignore[arg-type]
        return found

    def call(self, x: Tensor) -> Call:
        """How the block is computed."""
        return Call(self.how, self.memory, TABLE[self.backend, x.device.type], self.dtype)

    def in_layout(self, x: Tensor) -> Tensor:
        """``x`` as results lie in memory."""
        return to_layout(x, self.channels_last)


@cache
def _read(text: str) -> _Plan:
    (units, adds, shortcut), memory, backend, dtype, *rest = ast.literal_eval(text)
    last = None if shortcut is None else _shortcut(*shortcut)
    how = Block(tuple(_unit(*each) for each in units), adds, last)
    return _Plan(how, memory, backend, getattr(torch, dtype.removeprefix('torch.')), *rest)


def _unit(geometry: Any, norm: Any, activator: Any, alpha: Any, resize: Any) -> Unit:
    where = None if geometry is None else Geometry(*geometry)
    return Unit(where, _norm(norm), activator, alpha, _resize(resize))


def _shortcut(geometry: Any, norm: Any, resize: Any, pool: Any) -> Shortcut:
    return Shortcut(Geometry(*geometry), _norm(norm), _resize(resize), pool)


def _norm(values: Any) -> Norm | None:
    return None if values is None else Norm(*values)


def _resize(values: Any) -> Resize | None:
    return None if values is None else Resize(*values)


def _values(how: Block) -> tuple[object, ...]:
    units, last = tuple(map(_unit_values, how.units)), how.shortcut
    if last is None:
        return units, how.adds, None
    return units, how.adds, (tuple(last.geometry), _norm_values(last.norm), _resize_values(last.resize), last.pool)


def _unit_values(unit: Unit) -> tuple[object, ...]:
    where = None if unit.geometry is None else tuple(unit.geometry)
    return where, _norm_values(unit.norm), unit.activator, _number(unit.alpha), _resize_values(unit.resize)


def _norm_values(norm: Norm | None) -> tuple[object, ...] | None:
    return None if norm is None else (norm.kind, _number(norm.eps), norm.groups)


def _resize_values(resize: Resize | None) -> tuple[object, ...] | None:
    if resize is None:
        return None
    factors = None if resize.factors is None else tuple(_number(each) for each in resize.factors)
    return resize.size, factors, resize.nearest


def _number(value: float) -> float:
    # With dynamic shapes a compiler takes floats for symbols; these are to be constants.
    return _torch.guard_scalar(value)  # type: ignore[no-any-return]


# ---- What is kept ----


def _kept_names(plan: _Plan, weights: Sequence[Weights]) -> Iterator[list[str]]:
    # Of each unit, then of the shortcut, what an operator may give out: neither its input nor one tensor twice.
    fast = plan.memory == 'fast'
    for index, how in enumerate(plan.how.units):
        computes = how.norm is not None or how.activator != 'null' or how.resize is not None
        keeps = index > 0 and keeps_input(plan.memory, index, weights[index - 1].kernel)
        names = (['x'] if keeps else []) + (['z'] if fast and computes and how.geometry is not None else [])
        yield names if how.norm is None else [*names, 'mean', 'rate']
    if plan.how.shortcut is not None:
        names = ['z', 'mean', 'rate'] if fast else ['mean', 'rate']
        yield names if plan.how.shortcut.norm is not None else []


def _flat(plan: _Plan, weights: Sequence[Weights], kept: Sequence[Kept]) -> list[Tensor]:
    named = zip(kept, _kept_names(plan, weights), strict=True) if plan.keeps else ()
    return [plan.in_layout(getattr(own, name)) for own, names in named for name in names]


def _unflat(plan: _Plan, x: Tensor, weights: Sequence[Weights], flat: Sequence[Tensor]) -> list[Kept]:
    values = iter(flat)
    kept = [Kept(**{name: next(values) for name in names}) for names in _kept_names(plan, weights)]
    kept[0] = kept[0]._replace(x=x)
    return kept


def _apart(tensors: list[Tensor]) -> list[Tensor]:
    # What an operator gives out may share no memory, and small tensors may come as parts of one.
    return [each.clone() if each.nbytes < each.untyped_storage().nbytes() else each for each in tensors]


# ---- Forward ----


@torch.library.custom_op('mdnc::block', mutates_args=())
def _forward(x: Tensor, weights: list[Tensor], statistics: list[Tensor], plan: str) -> list[Tensor]:
    # The block's output, the new statistics, and what backward needs beside x and the parameters.
    own = _read(plan)
    seen, own_weights, kept = own.statistics(statistics), grouped(own.spread(weights)), list[Kept]()
    with torch.no_grad():
        y = own.call(x).forward(own.in_layout(x), own_weights, seen, None, kept if own.keeps else None)
        new = _tensors(seen, own.how, ('batch',))
        return _apart([own.in_layout(y), *new, *_flat(own, own_weights, kept)])


@_forward.register_fake
def _(x: Tensor, weights: list[Tensor], statistics: list[Tensor], plan: str) -> list[Tensor]:
    own = _read(plan)
    own_weights, y, kept = grouped(own.spread(weights)), x, list[Kept]()
    for how, unit in zip(own.how.units, own_weights, strict=False):
        size = y.shape if how.resize is None else how.resize(y.new_empty(y.shape, dtype=own.dtype)).shape
        z = _empty(own, y, size)
        kept.append(Kept(y, z, *_moments(y, how.norm)))
        if unit.kernel is not None and how.geometry is not None:
            z = _empty(own, x, output_shape(z, unit.kernel, how.geometry))
        y = z
    if own.how.shortcut is not None:
        kept.append(Kept(None, _empty(own, y, y.shape), *_moments(y, own.how.shortcut.norm)))
    if own.how.adds == 'input':
        y = y.to(torch.result_type(y, x))
    new = [torch.empty_like(each) for each in _tensors(own.statistics(statistics), own.how, ('batch',))]
    return [own.in_layout(y), *new, *_flat(own, own_weights, kept)]


def _empty(plan: _Plan, like: Tensor, shape: Sequence[int]) -> Tensor:
    return plan.in_layout(torch.empty(shape, dtype=plan.dtype, device=like.device))


def _moments(x: Tensor, norm: Norm | None) -> tuple[Tensor, Tensor]:
    joined = norm is not None and norm.kind in ('batch', 'fixed')
    shape, dtype = (1 if joined else x.shape[0], x.shape[1], 1), norm_act.accumulator(x.dtype)
    return x.new_empty(shape, dtype=dtype), x.new_empty(shape, dtype=dtype)


# ---- Backward ----


@torch.library.custom_op('mdnc::block_backward', mutates_args=())
def _backward(
    g: Tensor, x: Tensor, weights: list[Tensor], kept: list[Tensor], plan: str, needs: list[bool]
) -> list[Tensor]:
    # The gradients that are needed, of x first.
    own = _read(plan)
    below, *rest = needs
    flat, at = own.spread(weights), is_channels_last(x)
    wanted = [below, *(bool(each) for each in own.spread(rest))]
    with torch.no_grad():
        call, laid = own.call(x), own.in_layout(x)
        gx, *grads = call.backward(own.in_layout(g), laid, flat, _unflat(own, laid, grouped(flat), kept), wanted)
    each = [_found(grad, weight) for grad, weight, need in zip(grads, flat, wanted[1:], strict=True) if need]
    return _apart(each if gx is None else [to_layout(gx, at), *each])


@_backward.register_fake
def _(g: Tensor, x: Tensor, weights: list[Tensor], kept: list[Tensor], plan: str, needs: list[bool]) -> list[Tensor]:
    below, *rest = needs
    found = [
        to_layout(weight.new_empty(weight.shape), is_channels_last(weight))
        for weight, need in zip(weights, rest, strict=True)
        if need
    ]
    return [to_layout(x.new_empty(x.shape), is_channels_last(x)), *found] if below else found


def _found(grad: Tensor | None, weight: Any) -> Tensor:
    return torch.zeros_like(weight) if grad is None else to_layout(grad, is_channels_last(weight))


def _setup(ctx: Any, inputs: tuple[Tensor, list[Tensor], list[Tensor], str], output: list[Tensor]) -> None:
    x, weights, statistics, ctx.plan = inputs
    ctx.set_materialize_grads(False)
    ctx.parameters, ctx.statistics = len(weights), len(statistics)
    new = len(_tensors(_read(ctx.plan).statistics(statistics), _read(ctx.plan).how, ('batch',)))
    ctx.save_for_backward(x, *weights, *output[1 + new :])


def _differentiate(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    x, *saved = ctx.saved_tensors
    below, rest, _, _ = ctx.needs_input_grad
    needs = [below, *rest]
    weights, kept = saved[: ctx.parameters], saved[ctx.parameters :]
    found = iter(_backward(grads[0], x, weights, kept, ctx.plan, needs))
    gx, *each = [next(found) if need else None for need in needs]
    return gx, each, [None] * ctx.statistics, None


_forward.register_autograd(_differentiate, setup_context=_setup)
