"""The fused block as operators of ``torch.library``: one node of a compiled graph forward, and one backward.

A compiler sees neither inside, so that what is kept for backward stays what the memory level says. Everything but the
tensors travels as text in the graph's own node: a graph may be read back from a cache by another process.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mdnc import _torch
from mdnc.ops import norm_act
from mdnc.ops.backend import DEFAULT, TABLE, Backend
from mdnc.ops.channels_last import is_channels_last, to_layout
from mdnc.ops.convolution import Geometry, output_shape
from mdnc.ops.definition import Block, Norm, Resize, Shortcut, Unit, Weights, low_precision
from mdnc.ops.fused import _grouped, _Kept, _like_parameters, _Needs, _Run


def block(x: Tensor, weights: Sequence[Weights], how: Block, memory: str = 'lean', backend: str = DEFAULT) -> Tensor:
    """What ``fused.block`` computes of norms without statistics, as a node of the graph that is being traced.

    Args:
        x: Input ``(B, C, L1, …)``.
        weights: Parameters of the units, those of the shortcut last.
        how: The block.
        memory: What is kept for backward.
        backend: Who computes, a name of ``backend.NAMES``.

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
    flat = [each for own in weights for each in own]
    given = [each for each in flat if each is not None]
    keeps = torch.is_grad_enabled() and any(each.requires_grad for each in (x, *given))
    last = TABLE[backend, x.device.type].channels_last
    last = last or any(is_channels_last(each) for each in (x, *(own.kernel for own in weights)))
    there = tuple(each is not None for each in flat)
    plan = repr((_values(how), memory, backend, str(low_precision(x)), there, keeps, last))
    y: Tensor = _forward(x, given, plan)[0]
    return y


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
        keeps: Whether there will be a backward.
        channels_last: Whether results have their channels last in memory.
    """

    how: Block
    memory: str
    backend: str
    dtype: torch.dtype
    given: tuple[bool, ...]
    keeps: bool
    channels_last: bool

    def spread(self, given: Sequence[Any]) -> list[Any]:
        """One value for each flat parameter, ``None`` for those that are not given."""
        values = iter(given)
        return [next(values) if there else None for there in self.given]

    def by(self, x: Tensor) -> Backend:
        """Who computes for a tensor."""
        return TABLE[self.backend, x.device.type]

    def run(self, x: Tensor, weights: Sequence[Tensor]) -> _Run:
        """The block with its parameters."""
        return _Run(_grouped(self.spread(weights)), self.how, self.memory, self.by(x), self.dtype)

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
    return Unit(Geometry(*geometry), _norm(norm), activator, alpha, _resize(resize))


def _shortcut(geometry: Any, norm: Any, resize: Any, pool: Any) -> Shortcut:
    return Shortcut(Geometry(*geometry), _norm(norm), _resize(resize), pool)


def _norm(values: Any) -> Norm | None:
    return None if values is None else Norm(*values)


def _resize(values: Any) -> Resize | None:
    return None if values is None else Resize(*values)


def _values(how: Block) -> tuple[object, ...]:
    units = tuple(
        (tuple(u.geometry), _norm_values(u.norm), u.activator, _number(u.alpha), _resize_values(u.resize))
        for u in how.units
    )
    last = how.shortcut
    if last is None:
        return units, how.adds, None
    return units, how.adds, (tuple(last.geometry), _norm_values(last.norm), _resize_values(last.resize), last.pool)


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


def _kept_names(run: _Run) -> Iterator[list[str]]:
    # Of each unit, then of the shortcut, what an operator may give out: neither its input nor one tensor twice.
    fast = run.memory == 'fast'
    for index, unit in enumerate(run.units):
        how = unit.how
        computes = how.norm is not None or how.activator != 'null' or how.resize is not None
        names = (['x'] if index and run._keeps(index) else []) + (['z'] if fast and computes else [])
        yield names if how.norm is None else [*names, 'mean', 'rate']
    if run.shortcut is not None:
        names = ['z', 'mean', 'rate'] if fast else ['mean', 'rate']
        yield names if run.shortcut.how.norm is not None else []


def _flat(plan: _Plan, run: _Run, y: Tensor, kept: list[_Kept]) -> list[Tensor]:
    named = zip(kept, _kept_names(run), strict=True) if plan.keeps else ()
    return [plan.in_layout(each) for each in (y, *(getattr(own, name) for own, names in named for name in names))]


def _apart(tensors: list[Tensor]) -> list[Tensor]:
    # What an operator gives out may share no memory, and small tensors may come as parts of one.
    return [each.clone() if each.nbytes < each.untyped_storage().nbytes() else each for each in tensors]


def _unflat(run: _Run, x: Tensor, flat: Sequence[Tensor]) -> list[_Kept]:
    values = iter(flat)
    kept = [_Kept(**{name: next(values) for name in names}) for names in _kept_names(run)]
    kept[0] = kept[0]._replace(x=x)
    return kept


# ---- Forward ----


@torch.library.custom_op('mdnc::block', mutates_args=())
def _forward(x: Tensor, weights: list[Tensor], plan: str) -> list[Tensor]:
    # The block's output, and what backward needs beside x and the parameters.
    own = _read(plan)
    kept: list[_Kept] = []
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False), own.by(x).memory(x):
        run = own.run(x, weights)
        y = run.forward(own.in_layout(x), kept if own.keeps else None)
        return _apart(_flat(own, run, y, kept))


@_forward.register_fake
def _(x: Tensor, weights: list[Tensor], plan: str) -> list[Tensor]:
    own = _read(plan)
    run, y, kept = own.run(x, weights), x, []
    for unit in run.units:
        z = unit._resized(_empty(own, y, y.shape).flatten(2), y)
        kept.append(_Kept(y, z, *_moments(y)))
        y = _empty(own, x, output_shape(z, unit.kernel, unit.how.geometry))
    if run.shortcut is not None:
        kept.append(_Kept(None, _empty(own, y, y.shape), *_moments(y)))
    if own.how.adds == 'input':
        y = y.to(torch.result_type(y, x))
    return _flat(own, run, y, kept)


def _empty(plan: _Plan, like: Tensor, shape: Sequence[int]) -> Tensor:
    return plan.in_layout(torch.empty(shape, dtype=plan.dtype, device=like.device))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    shape, dtype = (*x.shape[:2], 1), norm_act.accumulator(x.dtype)
    return x.new_empty(shape, dtype=dtype), x.new_empty(shape, dtype=dtype)


# ---- Backward ----


@torch.library.custom_op('mdnc::block_backward', mutates_args=())
def _backward(
    g: Tensor, x: Tensor, weights: list[Tensor], kept: list[Tensor], plan: str, needs: list[bool]
) -> list[Tensor]:
    # The gradients that are needed, of x first.
    own = _read(plan)
    below, *rest = needs
    wanted = [_Needs(*(bool(each) for each in many)) for many in _grouped(own.spread(rest))]
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False), own.by(x).memory(x):
        run, at, x = own.run(x, weights), is_channels_last(x), own.in_layout(x)
        gx, grads = run.backward(own.in_layout(g), x, _unflat(run, x, kept), wanted, below)
    flat = [each for grad in grads for each in grad]
    given = [each for each, there in zip(flat, own.given, strict=True) if there]
    like = zip(_like_parameters(given, weights, rest), weights, rest, strict=True)
    found = [_found(grad, weight) for grad, weight, need in like if need]
    return _apart(found if gx is None else [to_layout(gx, at), *found])


@_backward.register_fake
def _(g: Tensor, x: Tensor, weights: list[Tensor], kept: list[Tensor], plan: str, needs: list[bool]) -> list[Tensor]:
    below, *rest = needs
    found = [
        to_layout(weight.new_empty(weight.shape), is_channels_last(weight))
        for weight, need in zip(weights, rest, strict=True)
        if need
    ]
    return [to_layout(x.new_empty(x.shape), is_channels_last(x)), *found] if below else found


def _found(grad: Tensor | None, weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if grad is None else to_layout(grad, is_channels_last(weight))


def _setup(ctx: Any, inputs: tuple[Tensor, list[Tensor], str], output: list[Tensor]) -> None:
    x, weights, ctx.plan = inputs
    ctx.set_materialize_grads(False)
    ctx.parameters = len(weights)
    ctx.save_for_backward(x, *weights, *output[1:])


def _differentiate(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    x, *saved = ctx.saved_tensors
    below, rest, _ = ctx.needs_input_grad
    needs = [below, *rest]
    weights, kept = saved[: ctx.parameters], saved[ctx.parameters :]
    found = iter(_backward(grads[0], x, weights, kept, ctx.plan, needs))
    gx, *each = [next(found) if need else None for need in needs]
    return gx, each, None


_forward.register_autograd(_differentiate, setup_context=_setup)
