"""Whole blocks of small tensors on a CPU, one call forward and one backward, by a C++ kernel, ``small_blocks.cpp``.

Of such a block torch's functions take longer to be called than to compute. Norm and activation, convolutions by sums
over their taps, the shortcut and what is added are done in that call; what is kept for backward is what ``fused``
keeps of a block.
"""

import ctypes
import functools
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdnc.ops import building, fake_tensors, processor
from mdnc.ops.channels_last import is_channels_last, to_layout
from mdnc.ops.convolution import Geometry
from mdnc.ops.definition import Block, Norm, Shortcut, Unit, Weights
from mdnc.ops.limits import LIMITS, Limits
from mdnc.ops.norm_act import Moments
from mdnc.ops.profiling import named

SOURCE = Path(__file__).with_name('small_blocks.cpp')
_AXES = 3
_ADDS = ('nothing', 'input', 'shortcut')
_ALPHA = {'null': 1.0, 'relu': 0.0}
_Three = ctypes.c_int64 * _AXES


class _Unit(ctypes.Structure):
    # As in small_blocks.cpp.
    _fields_ = (
        ('c', ctypes.c_int64),
        ('o', ctypes.c_int64),
        *((name, _Three) for name in ('in_size', 'out_size', 'width', 'stride', 'padding')),
        ('norm', ctypes.c_int64),
        ('eps', ctypes.c_double),
        ('alpha', ctypes.c_double),
    )


class _Block(ctypes.Structure):
    # As in small_blocks.cpp.
    _fields_ = tuple((name, ctypes.c_int64) for name in ('n', 'units', 'adds', 'threads'))


class Kept(NamedTuple):
    """Of a unit its input and the moments; of a shortcut the moments. None where there is none."""

    x: Tensor | None
    at: Moments | None


class Plan:
    """How a block runs on maps of one shape.

    Args:
        library: Who runs it.
        how: The block.
        units: Its units, then its shortcut, as C++ has them.
        shape: Of the input, ``(N, C, L1, …)``.
        threads: Threads to compute with.
    """

    def __init__(self, library: Any, how: Block, units: Sequence[_Unit], shape: torch.Size, threads: int) -> None:
        self.how, self.library, self._axes = how, library, len(shape) - 2
        self.count = len(how.units)
        self._units = (_Unit * len(units))(*units)
        self._block = _Block(shape[0], len(units), _ADDS.index(how.adds), threads)
        self._sizes = [(shape[0], *self._size(each.in_size), each.c) for each in units[: self.count]]
        last = units[self.count - 1]
        self._out = (shape[0], *self._size(last.out_size), last.o)
        self._moments = [(2, shape[0], each.c, 1) if each.norm else None for each in units[: self.count]]
        if how.shortcut is not None:
            self._moments.append((2, shape[0], units[-1].o, 1))
        self._scratch = library.small_blocks_scratch(ctypes.byref(self._block), self._units)
        self._pointers = ctypes.c_void_p * (len(units) * (2 * len(Weights._fields) + 3))

    def _size(self, three: Any) -> tuple[int, ...]:
        return tuple(three)[_AXES - self._axes :]

    def forward(self, x: Tensor, weights: Sequence[Weights]) -> tuple[Tensor, list[Kept]]:
        """The block's output, and what is kept of units and shortcut."""
        kept = [Kept(x, None)]
        for size in self._sizes[1:]:
            kept.append(Kept(x.new_empty(size).movedim(-1, 1), None))  # noqa: PERF401
        kept.extend([Kept(None, None)] * (len(weights) - self.count))
        for index, shape in enumerate(self._moments):
            if shape is not None:
                kept[index] = Kept(kept[index].x, Moments(*x.new_empty(shape).unbind()))
        y, scratch = x.new_empty(self._out), x.new_empty(self._scratch)
        if fake_tensors.stands_in(x):
            return y.movedim(-1, 1), kept
        pointers = self._pointers(*_addresses(weights, [_NO_GRADIENTS] * len(weights), kept))
        maps = ctypes.c_void_p(y.data_ptr()), ctypes.c_void_p(scratch.data_ptr())
        with named('mdnc::small_block'):
            self.library.small_blocks_forward(ctypes.byref(self._block), self._units, pointers, *maps)
        return y.movedim(-1, 1), kept

    def backward(
        self, g: Tensor, kept: Sequence[Kept], weights: Sequence[Weights], needs: Sequence[Sequence[bool]]
    ) -> tuple[Tensor, list[list[Tensor | None]]]:
        """Gradients of the input, and of those parameters that need one, named as in Weights."""
        x = kept[0].x
        assert x is not None, 'a block keeps its input'
        g, gx, grads = to_layout(g, True), torch.empty_like(x), []
        for own, wanted in zip(weights, needs, strict=True):
            found: list[Tensor | None] = []
            for each, need in zip(own, wanted, strict=True):
                found.append(torch.empty_like(each) if need and each is not None else None)
            grads.append(found)
        scratch = x.new_empty(self._scratch)
        if fake_tensors.stands_in(x):
            return gx, grads
        pointers = self._pointers(*_addresses(weights, grads, kept))
        maps = (ctypes.c_void_p(each.data_ptr()) for each in (g, gx, scratch))
        with named('mdnc::small_block'):
            self.library.small_blocks_backward(ctypes.byref(self._block), self._units, pointers, *maps)
        return gx, grads


_NO_GRADIENTS = (None,) * len(Weights._fields)


def _addresses(
    weights: Sequence[Weights], grads: Sequence[Sequence[Tensor | None]], kept: Sequence[Kept]
) -> list[int | None]:
    found: list[int | None] = []
    for own, own_grads, (x, at) in zip(weights, grads, kept, strict=True):
        for each in (*own, *own_grads, x, *((None, None) if at is None else at)):
            found.append(None if each is None else each.data_ptr())  # noqa: PERF401
    return found


# What was found for the blocks and shapes of before. A block is known by its identity, which its plan holds.
_PLANS: dict[object, tuple[Block, Plan | None]] = {}
_MANY = 1024


def plan(x: Tensor, weights: Sequence[Weights], how: Block, limits: Limits = LIMITS) -> Plan | None:
    """How this block is computed here, or None where it is not small, or nothing that C++ knows."""
    if not fake_tensors.known(x) or not is_channels_last(x):
        return None
    for own in weights:
        for each in own:
            if each is not None and not each.is_contiguous():
                return None
    threads = torch.get_num_threads()
    key = (id(how), x.shape, x.dtype, x.device.type, threads, limits, *_shapes(weights))
    found = _PLANS.get(key)  # another thread may clear what was found at any time
    if found is None:
        if len(_PLANS) >= _MANY:
            _PLANS.clear()
        _PLANS[key] = found = how, _planned(x, weights, how, threads, limits)
    return found[1]


def _shapes(weights: Sequence[Weights]) -> list[torch.Size]:
    shapes = []
    for own in weights:
        for each in (own.slope, own.kernel):
            if each is not None:
                shapes.append(each.shape)  # noqa: PERF401
    return shapes


def _planned(x: Tensor, weights: Sequence[Weights], how: Block, threads: int, limits: Limits) -> Plan | None:
    on_cpu = x.dtype == torch.float32 and x.device.type == 'cpu'
    if (
        not on_cpu
        or not how.units
        or not all(map(_knows, how.units, weights))
        or not _knows_shortcut(how.shortcut, weights[-1])
        or any(own.kernel is None or own.kernel.numel() > limits.small_weights for own in weights)
    ):
        return None
    units = _units(x, weights, how)
    if not _adds_up(units, how):
        return None
    products = sum(len(x) * math.prod(each.out_size) * each.o * each.c * math.prod(each.width) for each in units)
    library = None if products > limits.small_products or units[0].c % processor.lanes() else built()
    if library is None or any(
        each.c % library.small_blocks_lanes() or each.o % library.small_blocks_lanes() for each in units
    ):
        return None
    return Plan(library, how, units, x.shape, threads)


def _adds_up(units: Sequence[_Unit], how: Block) -> bool:
    """Whether what is added has the size of what it is added to; of others torch says that they do not."""
    other = {'nothing': None, 'input': units[0].in_size, 'shortcut': units[-1].out_size}[how.adds]
    return other is None or [*other] == [*units[len(how.units) - 1].out_size]


def _units(x: Tensor, weights: Sequence[Weights], how: Block) -> list[_Unit]:
    size, units = tuple(x.shape[2:]), []
    for unit, own in zip(how.units, weights, strict=False):
        assert own.kernel is not None and unit.geometry is not None, 'such blocks were refused'  # noqa: PT018
        units.append(_unit(own.kernel, size, unit.geometry, unit.norm, _ALPHA.get(unit.activator, unit.alpha)))
        size = tuple(units[-1].out_size)[_AXES - len(size) :]
    if how.shortcut is not None and weights[-1].kernel is not None:
        units.append(_unit(weights[-1].kernel, tuple(x.shape[2:]), how.shortcut.geometry, how.shortcut.norm, 1.0))
    return units


def _knows(unit: Unit, own: Weights) -> bool:
    if unit.resize is not None or unit.geometry is None or unit.geometry.groups > 1 or unit.geometry.transposed:
        return False
    if unit.norm is None:  # whose infinite values a ReLU sets to zero
        return unit.activator in ('null', 'prelu', 'leaky_relu') and _has_slopes(own)
    return (
        unit.norm.kind == 'instance' and unit.activator in ('null', 'prelu', 'relu', 'leaky_relu') and _has_slopes(own)
    )


def _has_slopes(own: Weights) -> bool:
    return own.slope is None or (own.kernel is not None and own.slope.numel() == own.kernel.shape[1])


def _knows_shortcut(shortcut: Shortcut | None, own: Weights) -> bool:
    if shortcut is None:
        return True
    if own.bias is not None or shortcut.resize is not None or shortcut.pool or shortcut.geometry.transposed:
        return False
    return shortcut.norm is not None and shortcut.norm.kind == 'instance'


def _unit(kernel: Tensor, size: tuple[int, ...], where: Geometry, norm: Norm | None, alpha: float) -> _Unit:
    out, width = [], kernel.shape[2:]
    for length, side, step, pad in zip(size, width, where.stride, where.padding, strict=True):
        out.append((length + 2 * pad - side) // step + 1)
    sizes = (_three(size), _three(out), _three(width), _three(where.stride), _three(where.padding, 0))
    return _Unit(kernel.shape[1], kernel.shape[0], *sizes, norm is not None, 0.0 if norm is None else norm.eps, alpha)


def _three(values: Sequence[int], other: int = 1) -> Any:
    return _Three(*(other,) * (_AXES - len(values)), *values)


_RESULTS = {'small_blocks_forward': None, 'small_blocks_backward': None, 'small_blocks_scratch': ctypes.c_int64}


@functools.cache
def built() -> Any:
    """The library; None, after a warning, where it can't be built."""
    return building.loaded(SOURCE, _RESULTS, _prove)


def _prove(library: Any) -> None:
    """Raise if the code gives other values than torch's own kernels in float64."""
    from mdnc.ops import fused  # which comes after this module

    how, weights, x, g = _proof(library.small_blocks_lanes())
    planned = Plan(library, how, _units(x, weights, how), x.shape, torch.get_num_threads())
    y, kept = planned.forward(x, weights)
    gx, grads = planned.backward(g, kept, weights, [[True] * len(own) for own in weights])
    wide = [Weights._make(None if each is None else each.double() for each in own) for own in weights]
    wants = fused.forward_and_backward(x.double().contiguous(), g.double(), wide, how)
    _compare([y, gx, *itertools.chain.from_iterable(grads)], [*wants[:2], *itertools.chain.from_iterable(wants[2])])


def _compare(got: Sequence[Tensor | None], wants: Sequence[Tensor | None]) -> None:
    for mine, want in zip(got, wants, strict=True):
        if mine is None or want is None:
            continue
        building.compare(mine.reshape(want.shape), want)


def _proof(width: int) -> tuple[Block, list[Weights], Tensor, Tensor]:
    drawn = building.random_tensors()
    first, second = Unit(Geometry((1, 1), (1, 1))), Unit(Geometry((2, 1), (1, 1)), None, 'leaky_relu', 0.1)
    weights = [
        Weights(drawn(width), drawn(width), drawn(width), drawn(2 * width, width, 3, 3), drawn(2 * width)),
        Weights(None, None, None, drawn(width, 2 * width, 3, 3), None),
        Weights(drawn(width), drawn(width), None, drawn(width, width, 1, 1), None),
    ]
    x, g = to_layout(drawn(2, width, 7, 5), True), drawn(2, width, 4, 5)
    return Block((first, second), 'shortcut', Shortcut(Geometry((2, 1), (0, 0)))), weights, x, g
