"""Convolutions by the route that suits their shape.

On a CPU torch lays the weights anew at each call, which costs more than the arithmetic where they are many and the
maps small; and 1 × … × 1 convolutions are matrix products, which need no laying at all on channels-last maps.
Everywhere else torch's convolution is the quickest, and the only one on other devices; signals with the channels
innermost go through that of images, since torch knows no such layout of signals.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdnc.ops.layout import Dense, contiguous, is_last, laid
from mdnc.ops.products import product, suits

_aten = torch.ops.aten

# From this number of weights on (8 MB in float32) they do not stay in the caches while they are laid anew, and up to
# this number of positions there is not enough arithmetic to hide it.
DEEP = 2_000_000, 1024
# From this number of positions a sample on, contiguous maps (C, L) are multiplied sample by sample, without the copies
# in blocks of channels that torch's convolution makes of them.
LONG = 4096


@dataclass(frozen=True)
class Geometry:
    """Stride and zero padding, one value for each spatial axis."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]


class Convolution(NamedTuple):
    """Who computes convolutions; see `forward` and `backward`."""

    forward: Callable[..., Tensor]
    backward: Callable[..., tuple[Tensor | None, Tensor | None, Tensor | None]]


def route(z: Tensor, kernel: Tensor, geometry: Geometry) -> str:
    """How it is computed: ``'torch'``, ``'rows'`` or ``'samples'`` (1 × … × 1, as products), ``'columns'`` (im2col)."""
    if z.device.type != 'cpu' or z.dtype not in (torch.float32, torch.float64):
        return 'torch'
    if kernel[0, 0].numel() == 1 and not any(geometry.padding) and max(geometry.stride) == 1:
        return _pointwise_route(z, kernel)
    weights, positions = DEEP
    few = z.shape[0] * math.prod(_output_size(z, kernel, geometry)) <= positions
    return 'columns' if few and kernel.numel() >= weights else 'torch'


def _pointwise_route(z: Tensor, kernel: Tensor) -> str:
    length = z[0, 0].numel()
    if not z.is_contiguous() or z.shape[0] * length < max(kernel.shape[:2]):
        return 'rows'
    if not suits(z):  # nor does oneDNN's convolution
        return 'samples' if length > kernel.shape[0] else 'rows'
    return 'samples' if length >= LONG else 'torch'


def forward(z: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry, dense: Dense = contiguous) -> Tensor:
    """``z (N, C, L1, …)``, ``kernel (O, C, K1, …)`` → ``(N, O, M1, …)``; ``dense`` lays what has to be laid anew."""
    if (direct := _direct(z, kernel, geometry)) is not None:
        return _aten.convolution(z, kernel, bias, *direct)  # type: ignore[no-any-return]
    if _skips(kernel, geometry):
        return forward(read(z, geometry.stride, dense), kernel, bias, _still(geometry), dense)
    way = route(z, kernel, geometry)
    if way == 'torch':
        maps, weights = _fitted(z, kernel, dense)
        y = _torch_forward(maps, weights, bias, geometry)
        return y if maps is z else laid(y, True, dense)
    return biased(_FORWARD[way](z, kernel, geometry, dense), bias)


def backward(
    g: Tensor,
    z: Tensor,
    kernel: Tensor,
    geometry: Geometry,
    needs: tuple[bool, bool, bool],
    dense: Dense = contiguous,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """∂z, ∂kernel and ∂bias, each only if needed, from g = ∂L/∂y; ∂kernel lies as the kernel."""
    if (direct := _direct(z, kernel, geometry)) is not None:
        sizes = [kernel.shape[0]]
        return _aten.convolution_backward(g, z, kernel, sizes, *direct, needs)  # type: ignore[no-any-return]
    if _skips(kernel, geometry):
        return _skipping_backward(g, z, kernel, geometry, needs, dense)
    way = route(z, kernel, geometry)
    if way == 'torch':
        return _fitted_backward(g, z, kernel, geometry, needs, dense)
    inputs, weights = _BACKWARD[way]
    gz = inputs(g, z, kernel, geometry, dense) if needs[0] else None
    return gz, weights(g, z, kernel, geometry, dense) if needs[1] else None, bias_gradient(g) if needs[2] else None


# What was found for the shapes of before, for the questions below take as long as a small convolution.
_DIRECT: dict[object, tuple[object, ...] | None] = {}
_MANY = 1024


def _direct(z: Tensor, kernel: Tensor, geometry: Geometry) -> tuple[object, ...] | None:
    """What torch's convolution is to be told of z and kernel as they lie, or None where it is not to be called so."""
    shapes = (z.shape, z.stride(), kernel.shape, kernel.stride())
    key = (*shapes, z.dtype, z.device.type, geometry.stride, geometry.padding, DEEP, LONG)
    if key in _DIRECT:
        return _DIRECT[key]
    if len(_DIRECT) >= _MANY:
        _DIRECT.clear()
    in_order = all(each.is_contiguous() and not is_last(each) for each in (z, kernel))
    direct = in_order and not _skips(kernel, geometry) and route(z, kernel, geometry) == 'torch'
    return _DIRECT.setdefault(key, _arguments(geometry) if direct else None)


def read(z: Tensor, stride: tuple[int, ...], dense: Dense = contiguous) -> Tensor:
    """The positions of ``z`` that a stride leaves, in the layout of z."""
    return laid(z[_left(stride)], is_last(z), dense)


# A 1 × … × 1 convolution reads no more than the positions that its stride leaves. Told of the stride, oneDNN of torch
# 2.13 writes out of bounds in its gradient of the weights, where the channels lie innermost (docs/performance.md).


def _skips(kernel: Tensor, geometry: Geometry) -> bool:
    return max(geometry.stride) > 1 and not any(geometry.padding) and kernel[0, 0].numel() == 1


def _left(stride: tuple[int, ...]) -> Any:
    return (..., *(slice(None, None, step) for step in stride))


def _still(geometry: Geometry) -> Geometry:
    return Geometry((1,) * len(geometry.stride), geometry.padding)


def _skipping_backward(
    g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, needs: tuple[bool, bool, bool], dense: Dense
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    gread, *rest = backward(g, read(z, geometry.stride, dense), kernel, _still(geometry), needs, dense)
    if gread is None:
        return None, rest[0], rest[1]
    gz = torch.zeros_like(z)
    gz[_left(geometry.stride)] = gread
    return gz, rest[0], rest[1]


def biased(y: Tensor, bias: Tensor | None) -> Tensor:
    """``y (N, O, M1, …)`` plus ``bias (O,)``, in place."""
    return y if bias is None else y.add_(bias.view(-1, *(1 for _ in y.shape[2:])))


def bias_gradient(g: Tensor) -> Tensor:
    """∂bias ``(O,)`` from g = ∂L/∂y."""
    return g.sum((0, *range(2, g.dim())))


def _torch_forward(z: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    if _signal_in_rows(z, kernel):
        return _torch_forward(z.unsqueeze(2), kernel.unsqueeze(2), bias, _of_images(geometry)).squeeze(2)
    return _aten.convolution(z, kernel, bias, *_arguments(geometry))  # type: ignore[no-any-return]


# Maps and kernel must lie alike, or torch lays the kernel anew, value by value; the smaller of the two is brought into
# the other's layout.


def _fitted(z: Tensor, kernel: Tensor, dense: Dense) -> tuple[Tensor, Tensor]:
    if z.device.type != 'cpu' or not is_last(z) or is_last(kernel):
        return z, kernel
    return (laid(z, False, dense), kernel) if z.numel() < kernel.numel() else (z, laid(kernel, True, dense))


def _fitted_backward(
    g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, needs: tuple[bool, bool, bool], dense: Dense
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    maps, weights = _fitted(z, kernel, dense)
    g = g if maps is z else laid(g, False, dense)
    gz, gkernel, gbias = _torch_backward(g, maps, weights, geometry, needs)
    gz = gz if gz is None or maps is z else laid(gz, True, dense)
    return gz, None if gkernel is None else laid(gkernel, is_last(kernel), dense), gbias


def _torch_backward(
    g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if _signal_in_rows(z, kernel):
        maps = (g.unsqueeze(2), z.unsqueeze(2), kernel.unsqueeze(2))
        gz, gkernel, gbias = _torch_backward(*maps, _of_images(geometry), needs)
        return gz if gz is None else gz.squeeze(2), gkernel if gkernel is None else gkernel.squeeze(2), gbias
    sizes = [kernel.shape[0]]
    return _aten.convolution_backward(g, z, kernel, sizes, *_arguments(geometry), needs)  # type: ignore[no-any-return]


def _arguments(geometry: Geometry) -> tuple[object, ...]:
    axes = len(geometry.stride)
    return geometry.stride, geometry.padding, (1,) * axes, False, (0,) * axes, 1


def _signal_in_rows(z: Tensor, kernel: Tensor) -> bool:
    in_order = all(each.is_contiguous() and not is_last(each) for each in (z, kernel))
    return z.dim() == 3 and z.device.type == 'cpu' and not in_order


def _of_images(geometry: Geometry) -> Geometry:
    return Geometry((1, *geometry.stride), (0, *geometry.padding))


def _output_size(z: Tensor, kernel: Tensor, geometry: Geometry) -> tuple[int, ...]:
    sizes = zip(z.shape[2:], kernel.shape[2:], geometry.stride, geometry.padding, strict=True)
    return tuple((size + 2 * pad - width) // step + 1 for size, width, step, pad in sizes)


BY_SHAPE = Convolution(forward, backward)

# ---- 1 × … × 1 convolutions ----


def _rows_forward(z: Tensor, kernel: Tensor, geometry: Geometry, dense: Dense) -> Tensor:
    return _maps(product(_rows(z), kernel.flatten(1)), z, z.shape[2:])


def _rows_inputs(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, dense: Dense) -> Tensor:
    return _maps(product(_rows(g), kernel.flatten(1).t()), z, z.shape[2:])


def _rows_weights(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, dense: Dense) -> Tensor:
    positions = len(g) * g[0, 0].numel()
    # Sums over many rows are spread over the threads by oneDNN's convolution alone, which torch leaves to several.
    if positions >= max(kernel.shape[:2]) and suits(z) and torch.get_num_threads() > 1:
        gkernel = _torch_backward(g, z, kernel, geometry, (False, True, False))[1]
        assert gkernel is not None
        return gkernel
    return product(_rows(g).t(), _rows(z).t()).view_as(kernel)


def _samples_forward(z: Tensor, kernel: Tensor, geometry: Geometry, dense: Dense) -> Tensor:
    return _by_sample(kernel.flatten(1), z)


def _samples_inputs(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, dense: Dense) -> Tensor:
    return _by_sample(kernel.flatten(1).t(), g)


def _by_sample(matrix: Tensor, maps: Tensor) -> Tensor:
    """``matrix (O, C)``, ``maps (N, C, L1, …)`` → ``(N, O, L1, …)``, contiguous."""
    flat = maps.flatten(2)
    if not suits(flat):
        return torch.bmm(matrix.expand(len(flat), -1, -1), flat).view(len(flat), -1, *maps.shape[2:])
    y = flat.new_empty(len(flat), len(matrix), flat.shape[2])
    for own, place in zip(flat, y, strict=True):
        place.copy_(product(matrix, own.t()))
    return y.view(len(flat), -1, *maps.shape[2:])


def _samples_weights(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, dense: Dense) -> Tensor:
    pairs = zip(g.flatten(2), z.flatten(2), strict=True)
    gkernel = product(*next(pairs))
    for pair in pairs:
        gkernel += product(*pair)
    return gkernel.view_as(kernel)


def _rows(x: Tensor) -> Tensor:
    """``(N, C, L1, …)`` → ``(N·L1·…, C)``; no copy where x is channels-last."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def _maps(rows: Tensor, like: Tensor, size: tuple[int, ...]) -> Tensor:
    """``(N·M1·…, O)`` → ``(N, O, M1, …)``, contiguous where ``like`` is."""
    return _like(rows.view(like.shape[0], *size, -1).movedim(-1, 1), like)


def _like(x: Tensor, like: Tensor) -> Tensor:
    return x.contiguous() if like.is_contiguous() and not is_last(like) else x


# ---- Convolutions with many weights over small maps ----


# Columns hold the values under the kernel at each position. They are made with the channels innermost, (N·M1·…, K·C),
# in long runs, and then brought into the order of a contiguous kernel, (N·M1·…, C·K), as their gradient is out of it.


def _columns_forward(z: Tensor, kernel: Tensor, geometry: Geometry, dense: Dense) -> Tensor:
    rows = product(_columns(z, kernel, geometry, dense), _matrix(kernel))
    return _maps(rows, z, _output_size(z, kernel, geometry))


def _columns_inputs(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, dense: Dense) -> Tensor:
    return _gathered(product(_rows(g), _matrix(kernel).t()), z, kernel, geometry, dense)


def _columns_weights(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, dense: Dense) -> Tensor:
    flat = product(_rows(g).t(), _columns(z, kernel, geometry, dense).t())  # (O, C·K) or (O, K·C)
    if kernel.is_contiguous():
        return flat.view_as(kernel)
    return flat.view(kernel.shape[0], *kernel.shape[2:], -1).movedim(-1, 1)


def _matrix(kernel: Tensor) -> Tensor:
    # (O, C·K) of a contiguous kernel, (O, K·C) of a channels-last one: in either case a view.
    return kernel.flatten(1) if kernel.is_contiguous() else kernel.movedim(1, -1).flatten(1)


def _columns(z: Tensor, kernel: Tensor, geometry: Geometry, dense: Dense) -> Tensor:
    """``(N·M1·…, C·K)``, in the kernel's own order."""
    axes = range(2, z.dim())
    windows = F.pad(z, [pad for pad in reversed(geometry.padding) for _ in (0, 1)])
    for axis, width, step in zip(axes, kernel.shape[2:], geometry.stride, strict=True):
        windows = windows.unfold(axis, width, step)  # (N, C, M1, …, K1, …)
    taps = [axis + len(axes) for axis in axes]
    rows = windows.permute(0, *axes, *taps, 1).reshape(-1, kernel[0, 0].numel(), z.shape[1])
    return (dense(rows.transpose(1, 2)) if kernel.is_contiguous() else rows).flatten(1)


def _gathered(rows: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, dense: Dense) -> Tensor:
    """∂z from the gradient of its columns: every tap adds its part where it had read."""
    size = _output_size(z, kernel, geometry)
    if kernel.is_contiguous():
        rows = dense(rows.view(len(rows), z.shape[1], -1).transpose(1, 2))
    parts = rows.view(z.shape[0], *size, *kernel.shape[2:], z.shape[1])  # (N, M1, …, K1, …, C)
    sides = list(zip(z.shape[2:], geometry.padding, strict=True))
    total = rows.new_zeros(z.shape[0], *(length + 2 * pad for length, pad in sides), z.shape[1])
    for tap, place in _placed(kernel, size, geometry):
        total[place] += parts[tap]
    inside: Any = (slice(None), *(slice(pad, pad + length) for length, pad in sides))
    inner = total[inside]
    return _like(inner.contiguous().movedim(-1, 1), z)


def _placed(kernel: Tensor, size: tuple[int, ...], geometry: Geometry) -> Iterator[tuple[Any, Any]]:
    for tap in itertools.product(*map(range, kernel.shape[2:])):
        spans = zip(tap, size, geometry.stride, strict=True)
        yield (
            (..., *tap, slice(None)),
            (slice(None), *(slice(at, at + step * (n - 1) + 1, step) for at, n, step in spans)),
        )


_FORWARD = {'rows': _rows_forward, 'samples': _samples_forward, 'columns': _columns_forward}
_BACKWARD = {
    'rows': (_rows_inputs, _rows_weights),
    'samples': (_samples_inputs, _samples_weights),
    'columns': (_columns_inputs, _columns_weights),
}
