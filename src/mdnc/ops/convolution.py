"""Convolutions by the route that suits their shape.

On a CPU torch lays the weights anew at each call, which costs more than the arithmetic where they are many and the
maps small; and 1 × … × 1 convolutions are matrix products, which need no laying at all on channels-last maps.
Everywhere else torch's convolution is the quickest, and the only one on other devices; signals with the channels
innermost go through that of images, since torch knows no such layout of signals.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mdnc._torch import aten
from mdnc.ops import processor
from mdnc.ops.channels_last import is_channels_last, to_layout
from mdnc.ops.limits import LIMITS, Limits
from mdnc.ops.matmul import matmul, suits


class Geometry(NamedTuple):
    """Where a kernel goes; stride and padding have one value for each spatial axis.

    Args:
        stride: Its steps.
        padding: Zeros at both ends.
        groups: Groups of channels, each of which has kernels of its own.
        transposed: Whether it goes the other way, from few positions to many.
        output_padding: Of a transposed one, by how much its output is longer at the end; empty for not at all.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = ()


ROUTES = frozenset(('matmul', 'matmul by sample', 'im2col', 'winograd', 'winograd_1d', 'strided winograd_1d', 'taps'))


class Tools(NamedTuple):
    """What convolutions are made of.

    Args:
        matmul: See ``matmul.matmul``.
        onednn: See ``matmul.suits``.
        routes: Those that may be taken, where they suit; a convolution without one is torch's.
        limits: For which shapes they suit.
    """

    matmul: Callable[[Tensor, Tensor], Tensor] = matmul
    onednn: Callable[[Tensor], bool] = suits
    routes: frozenset[str] = ROUTES
    limits: Limits = LIMITS


TORCH = Tools()


class Convolution(NamedTuple):
    """Who computes convolutions; see `forward` and `backward`."""

    forward: Callable[..., Tensor]
    backward: Callable[..., tuple[Tensor | None, Tensor | None, Tensor | None]]


def route(z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools = TORCH) -> str:
    """How it is computed: ``'torch'``, ``'matmul'`` or ``'matmul by sample'`` (1 × … × 1), ``'im2col'``, ``'taps'``."""
    found = _by_shape(z, kernel, geometry, tools)
    return found if found in tools.routes else 'torch'


def _by_shape(z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> str:
    special = geometry.groups > 1 or geometry.transposed
    if special or z.device.type != 'cpu' or z.dtype not in (torch.float32, torch.float64):
        return 'torch'
    if kernel[0, 0].numel() == 1 and not any(geometry.padding) and max(geometry.stride) == 1:
        return _pointwise_route(z, kernel, tools)
    if _is_deep(z, kernel, geometry, tools):
        return 'im2col'
    return 'taps' if _is_narrow(z, kernel, geometry, tools) else 'torch'


def _is_deep(z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> bool:
    few = z.shape[0] * math.prod(_output_size(z, kernel, geometry)) <= tools.limits.im2col_positions
    return few and kernel.numel() >= tools.limits.im2col_weights


def _is_narrow(z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> bool:
    if len(kernel) > tools.limits.tap_outputs or kernel[:, 0, 0].numel() > z.shape[1] or not is_channels_last(z):
        return False
    return len(z) * math.prod(_output_size(z, kernel, geometry)) * kernel[0].numel() >= tools.limits.tap_products


def _pointwise_route(z: Tensor, kernel: Tensor, tools: Tools) -> str:
    length = z[0, 0].numel()
    if not z.is_contiguous() or z.shape[0] * length < max(kernel.shape[:2]):
        return 'matmul'
    if not tools.onednn(z):  # nor does oneDNN's convolution
        return 'matmul by sample' if length > kernel.shape[0] else 'matmul'
    return 'matmul by sample' if length >= tools.limits.sample_positions else 'torch'


def forward(z: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry, tools: Tools = TORCH) -> Tensor:
    """``z (N, C, L1, …)``, ``kernel (O, C, K1, …)`` → ``(N, O, M1, …)``, by the route that `route` says."""
    if kernel.dtype != z.dtype:
        return mixed_forward(forward, z, kernel, bias, geometry, tools)
    if (direct := _direct(z, kernel, geometry, tools)) is not None:
        return aten.convolution(z, kernel, bias, *direct)  # type: ignore[no-any-return]
    if _skips(kernel, geometry):
        return forward(read(z, geometry.stride), kernel, bias, _unstrided(geometry), tools)
    way = route(z, kernel, geometry, tools)
    if way == 'torch':
        maps, weights = _fitted(z, kernel, tools)
        y = _torch_forward(maps, weights, bias, geometry)
        return y if maps is z else to_layout(y, True)
    return biased(_FORWARD[way](z, kernel, geometry, tools), bias)


def backward(
    g: Tensor,
    z: Tensor,
    kernel: Tensor,
    geometry: Geometry,
    needs: tuple[bool, bool, bool],
    tools: Tools = TORCH,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """∂z, ∂kernel and ∂bias, each only if needed, from g = ∂L/∂y; ∂kernel lies as the kernel."""
    if kernel.dtype != z.dtype:
        return mixed_backward(backward, g, z, kernel, geometry, needs, tools)
    if (direct := _direct(z, kernel, geometry, tools)) is not None:
        return aten.convolution_backward(g, z, kernel, [g.shape[1]], *direct, needs)  # type: ignore[no-any-return]
    if _skips(kernel, geometry):
        return _skipping_backward(g, z, kernel, geometry, needs, tools)
    way = route(z, kernel, geometry, tools)
    if way == 'torch':
        return _fitted_backward(g, z, kernel, geometry, needs, tools)
    inputs, weights = _BACKWARD[way]
    gkernel = weights(g, z, kernel, geometry, tools) if needs[1] else None  # first: it may take as much memory as z
    return inputs(g, z, kernel, geometry, tools) if needs[0] else None, gkernel, bias_gradient(g) if needs[2] else None


# ---- Maps of bfloat16 or float16 and weights of float32, as autocast has them ----


def mixed_forward(
    compute: Callable[..., Tensor], z: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry, tools: Tools
) -> Tensor:
    """``compute`` in the type of the maps or, where that is slow, in that of the weights; the result is as the maps."""
    dtype = kernel.dtype if is_slow(z, kernel, geometry, tools) else z.dtype
    return compute(z.to(dtype), kernel.to(dtype), None if bias is None else bias.to(dtype), geometry, tools).to(z.dtype)


def mixed_backward(
    compute: Callable[..., Any],
    g: Tensor,
    z: Tensor,
    kernel: Tensor,
    geometry: Geometry,
    needs: tuple[bool, bool, bool],
    tools: Tools,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients likewise; those of the parameters stay in the type in which they were computed."""
    dtype = kernel.dtype if is_slow(z, kernel, geometry, tools) else z.dtype
    gz, gkernel, gbias = compute(g.to(dtype), z.to(dtype), kernel.to(dtype), geometry, needs, tools)
    return None if gz is None else gz.to(z.dtype), gkernel, gbias


def is_slow(z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> bool:
    """Whether maps of this type are multiplied more slowly than in float32, weights of which are at hand.

    On a CPU that is so of all where the processor has no instructions for the type, and of many weights over few
    positions of images and volumes, which would be copied into the type and laid anew at each call.
    """
    if z.device.type != 'cpu' or kernel.dtype != torch.float32 or z.dtype not in processor.HALF_TYPES:
        return False
    if not processor.multiplies(z.dtype):
        return True
    special = geometry.groups > 1 or geometry.transposed or kernel[0, 0].numel() == 1 or z.dim() < 4
    return not special and 'im2col' in tools.routes and _is_deep(z, kernel, geometry, tools)


# What was found for the shapes of before, for the questions below take as long as a small convolution.
_DIRECT: dict[object, tuple[object, ...] | None] = {}
_UNKNOWN: Any = object()
_MANY = 1024


def _direct(z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> tuple[object, ...] | None:
    """What torch's convolution is to be told of z and kernel as they lie, or None where it is not to be called so."""
    shapes = (z.shape, z.stride(), kernel.shape, kernel.stride())
    key = (*shapes, z.dtype, z.device.type, geometry, tools)
    found = _DIRECT.get(key, _UNKNOWN)
    if found is not _UNKNOWN:  # another thread may clear what was found at any time
        return found  # type: ignore[no-any-return]
    if len(_DIRECT) >= _MANY:
        _DIRECT.clear()
    in_order = all(each.is_contiguous() and not is_channels_last(each) for each in (z, kernel))
    special = _skips(kernel, geometry) or is_shallow(z, kernel, z.dtype)
    direct = in_order and not special and route(z, kernel, geometry, tools) == 'torch'
    found = _arguments(geometry) if direct else None
    _DIRECT[key] = found
    return found


def read(z: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The positions of ``z`` that a stride leaves, in the layout of z."""
    return to_layout(z[strided(stride)], is_channels_last(z))


# A 1 × … × 1 convolution reads no more than the positions that its stride leaves. Told of the stride, oneDNN of torch
# 2.13 writes out of bounds in its gradient of the weights, where the channels lie innermost (docs/performance.md).


def _skips(kernel: Tensor, geometry: Geometry) -> bool:
    strides = max(geometry.stride) > 1 and not any(geometry.padding) and not geometry.transposed
    return strides and kernel[0, 0].numel() == 1


def strided(stride: tuple[int, ...]) -> Any:
    """Index of the positions that a stride leaves."""
    return (..., *(slice(None, None, step) for step in stride))


def _unstrided(geometry: Geometry) -> Geometry:
    return geometry._replace(stride=(1,) * len(geometry.stride))


def _skipping_backward(
    g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, needs: tuple[bool, bool, bool], tools: Tools
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    gread, *rest = backward(g, read(z, geometry.stride), kernel, _unstrided(geometry), needs, tools)
    if gread is None:
        return None, rest[0], rest[1]
    gz = torch.zeros_like(z)
    gz[strided(geometry.stride)] = gread
    return gz, rest[0], rest[1]


def biased(y: Tensor, bias: Tensor | None) -> Tensor:
    """``y (N, O, M1, …)`` plus ``bias (O,)``, in place."""
    return y if bias is None else y.add_(bias.view(-1, *(1 for _ in y.shape[2:])))


def bias_gradient(g: Tensor) -> Tensor:
    """∂bias ``(O,)`` from g = ∂L/∂y."""
    return g.sum((0, *range(2, g.dim())))


def _torch_forward(z: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    if _signal_channels_last(z, kernel):
        return _torch_forward(z.unsqueeze(2), kernel.unsqueeze(2), bias, _of_images(geometry)).squeeze(2)
    return aten.convolution(z, kernel, bias, *_arguments(geometry))  # type: ignore[no-any-return]


# Maps and kernel must lie alike, or torch lays the kernel anew, value by value; the smaller of the two is brought into
# the other's layout.


def _fitted(z: Tensor, kernel: Tensor, tools: Tools) -> tuple[Tensor, Tensor]:
    if z.device.type != 'cpu' or not is_channels_last(z) or is_channels_last(kernel):
        return z, kernel
    if z.numel() < kernel.numel():
        return to_layout(z, False), kernel
    return z, to_layout(kernel, True)


def _fitted_backward(
    g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, needs: tuple[bool, bool, bool], tools: Tools
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    maps, weights = _fitted(z, kernel, tools)
    g = g if maps is z else to_layout(g, False)
    alone = geometry.groups > 1 and len(z) == 1  # whose strides torch takes for others, see path.in_turn
    own = to_layout(maps, is_channels_last(maps)) if alone else maps
    gz, gkernel, gbias = _torch_backward(g, own, weights, geometry, needs)
    gz = gz if gz is None or maps is z else to_layout(gz, True)
    return gz, None if gkernel is None else to_layout(gkernel, is_channels_last(kernel)), gbias


def _torch_backward(
    g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if needs[1] and not geometry.transposed and is_shallow(z, kernel, z.dtype):
        wide = _torch_backward(g.float(), z.float(), kernel.float(), geometry, needs)
        gz, gkernel, gbias = (None if each is None else each.to(z.dtype) for each in wide)
        return gz, gkernel, gbias
    if _signal_channels_last(z, kernel):
        maps = (g.unsqueeze(2), z.unsqueeze(2), kernel.unsqueeze(2))
        gz, gkernel, gbias = _torch_backward(*maps, _of_images(geometry), needs)
        return gz if gz is None else gz.squeeze(2), gkernel if gkernel is None else gkernel.squeeze(2), gbias
    return aten.convolution_backward(g, z, kernel, [g.shape[1]], *_arguments(geometry), needs)  # type: ignore[no-any-return]


def is_shallow(z: Tensor, kernel: Tensor, dtype: torch.dtype) -> bool:
    """Whether maps are volumes less deep than the kernel, to be convolved in bfloat16 on a CPU.

    The gradient of the weights is then written out of bounds by torch 2.13 (docs/performance.md).
    """
    known = dtype == torch.bfloat16 and z.dim() == 5 and z.device.type == 'cpu'
    return known and kernel.dim() == 5 and z.shape[2] < kernel.shape[2]


def _arguments(geometry: Geometry) -> tuple[object, ...]:
    stride, padding, groups, transposed, longer = geometry
    none = (0,) * len(stride)
    return stride, padding, (1,) * len(stride), transposed, longer or none, groups


def _signal_channels_last(z: Tensor, kernel: Tensor) -> bool:
    in_order = all(each.is_contiguous() and not is_channels_last(each) for each in (z, kernel))
    return z.dim() == 3 and z.device.type == 'cpu' and not in_order


def _of_images(geometry: Geometry) -> Geometry:
    longer = (0, *geometry.output_padding) if geometry.output_padding else ()
    return geometry._replace(stride=(1, *geometry.stride), padding=(0, *geometry.padding), output_padding=longer)


def output_shape(z: Tensor, kernel: Tensor, geometry: Geometry) -> tuple[int, ...]:
    """The shape that a convolution gives."""
    stride, padding, groups, transposed, longer = geometry
    sizes = zip(z.shape[2:], kernel.shape[2:], stride, padding, longer or (0,) * len(stride), strict=True)
    if transposed:
        return (
            z.shape[0],
            kernel.shape[1] * groups,
            *((n - 1) * step - 2 * pad + k + more for n, k, step, pad, more in sizes),
        )
    return z.shape[0], kernel.shape[0], *((n + 2 * pad - k) // step + 1 for n, k, step, pad, _ in sizes)


def _output_size(z: Tensor, kernel: Tensor, geometry: Geometry) -> tuple[int, ...]:
    return output_shape(z, kernel, geometry)[2:]


BY_SHAPE = Convolution(forward, backward)

# ---- 1 × … × 1 convolutions ----


def _matmul_forward(z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    return _as_maps(tools.matmul(_as_matrix(z), kernel.flatten(1)), z, z.shape[2:])


def _matmul_inputs(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    return _as_maps(tools.matmul(_as_matrix(g), kernel.flatten(1).t()), z, z.shape[2:])


def _matmul_weights(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    positions = len(g) * g[0, 0].numel()
    # Sums over many rows are spread over the threads by oneDNN's convolution alone, which torch leaves to several.
    if positions >= max(kernel.shape[:2]) and tools.onednn(z) and torch.get_num_threads() > 1:
        gkernel = _torch_backward(g, z, kernel, geometry, (False, True, False))[1]
        assert gkernel is not None
        return gkernel
    return tools.matmul(_as_matrix(g).t(), _as_matrix(z).t()).view_as(kernel)


def _sample_forward(z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    return _by_sample(kernel.flatten(1), z, tools)


def _sample_inputs(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    return _by_sample(kernel.flatten(1).t(), g, tools)


def _by_sample(matrix: Tensor, maps: Tensor, tools: Tools) -> Tensor:
    """``matrix (O, C)``, ``maps (N, C, L1, …)`` → ``(N, O, L1, …)``, contiguous."""
    flat = maps.flatten(2)
    if not tools.onednn(flat):
        return torch.bmm(matrix.expand(len(flat), -1, -1), flat).view(len(flat), -1, *maps.shape[2:])
    y = flat.new_empty(len(flat), len(matrix), flat.shape[2])
    for own, place in zip(flat, y, strict=True):
        place.copy_(tools.matmul(matrix, own.t()))
    return y.view(len(flat), -1, *maps.shape[2:])


def _sample_weights(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    pairs = zip(g.flatten(2), z.flatten(2), strict=True)
    gkernel = tools.matmul(*next(pairs))
    for pair in pairs:
        gkernel += tools.matmul(*pair)
    return gkernel.view_as(kernel)


def _as_matrix(x: Tensor) -> Tensor:
    """``(N, C, L1, …)`` → ``(N·L1·…, C)``; no copy where x is channels-last."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def _as_maps(rows: Tensor, like: Tensor, size: tuple[int, ...]) -> Tensor:
    """``(N·M1·…, O)`` → ``(N, O, M1, …)``, contiguous where ``like`` is."""
    return _like(rows.view(like.shape[0], *size, -1).movedim(-1, 1), like)


def _like(x: Tensor, like: Tensor) -> Tensor:
    return x.contiguous() if like.is_contiguous() and not is_channels_last(like) else x


# ---- Convolutions with many weights over small maps ----


# Columns hold the values under the kernel at each position. They are made with the channels innermost, (N·M1·…, K·C),
# in long runs, and then brought into the order of a contiguous kernel, (N·M1·…, C·K), as their gradient is out of it.


def _im2col_forward(z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    rows = tools.matmul(_columns(z, kernel, geometry, tools), _matrix(kernel))
    return _as_maps(rows, z, _output_size(z, kernel, geometry))


def _im2col_inputs(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    return _gathered(tools.matmul(_as_matrix(g), _matrix(kernel).t()), z, kernel, geometry, tools)


def _im2col_weights(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    flat = tools.matmul(_as_matrix(g).t(), _columns(z, kernel, geometry, tools).t())  # (O, C·K) or (O, K·C)
    if kernel.is_contiguous():
        return flat.view_as(kernel)
    return flat.view(kernel.shape[0], *kernel.shape[2:], -1).movedim(-1, 1)


def _matrix(kernel: Tensor) -> Tensor:
    # (O, C·K) of a contiguous kernel, (O, K·C) of a channels-last one: in either case a view.
    return kernel.flatten(1) if kernel.is_contiguous() else kernel.movedim(1, -1).flatten(1)


def _columns(z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    """``(N·M1·…, C·K)``, in the kernel's own order."""
    axes = range(2, z.dim())
    windows = F.pad(z, [pad for pad in reversed(geometry.padding) for _ in (0, 1)])
    for axis, width, step in zip(axes, kernel.shape[2:], geometry.stride, strict=True):
        windows = windows.unfold(axis, width, step)  # (N, C, M1, …, K1, …)
    taps = [axis + len(axes) for axis in axes]
    rows = windows.permute(0, *axes, *taps, 1).reshape(-1, kernel[0, 0].numel(), z.shape[1])
    return (rows.transpose(1, 2) if kernel.is_contiguous() else rows).flatten(1)


def _gathered(rows: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    """∂z from the gradient of its columns: every tap adds its part where it had read."""
    size = _output_size(z, kernel, geometry)
    if kernel.is_contiguous():
        rows = rows.view(len(rows), z.shape[1], -1).transpose(1, 2).contiguous()
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


# ---- Convolutions to few channels ----


# Torch's convolution computes as many channels as a register holds. A product of matrices gives, for each tap, what it
# makes of every position of the input, and each output position adds up those that it reads. Kernels of many taps go
# part by part, so that this takes no more memory than the input.


def _taps_forward(z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    y = z.new_zeros(len(kernel), len(z), *_output_size(z, kernel, geometry))
    for first, part in _parts(kernel):
        products = tools.matmul(part.movedim(1, -1).reshape(-1, z.shape[1]), _as_matrix(z))
        products = products.view(len(part), *part.shape[2:], len(z), *z.shape[2:])
        for tap, inside, read in _reached(part, first, z, y, geometry):
            y[inside] += products[tap][read]
    return to_layout(y.transpose(0, 1), True)


def _taps_inputs(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    gz = _fitted_backward(g, z, kernel, geometry, (True, False, False), tools)[0]
    assert gz is not None
    return gz


def _taps_weights(g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry, tools: Tools) -> Tensor:
    found = z.new_empty(len(kernel), *kernel.shape[2:], z.shape[1])
    given, size = g.transpose(0, 1), (len(z), *z.shape[2:])
    for first, part in _parts(kernel):
        shifted = z.new_zeros(len(part), *part.shape[2:], *size)
        for tap, inside, read in _reached(part, first, z, g, geometry):
            shifted[tap][read] = given[inside]
        rows = tools.matmul(shifted.flatten(-len(size)).flatten(0, -2), _as_matrix(z).t())
        found[:, first : first + part.shape[2]] = rows.view(len(part), *part.shape[2:], -1)
    return to_layout(found.movedim(-1, 1), is_channels_last(kernel))


def _parts(kernel: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Parts of the kernel along its first axis with no more taps than the input has channels, and where they begin."""
    step = max(1, kernel.shape[1] // kernel[:, 0, 0].numel())
    for first in range(0, kernel.shape[2], step):
        yield first, kernel[:, :, first : first + step]


def _reached(part: Tensor, first: int, x: Tensor, y: Tensor, geometry: Geometry) -> Iterator[tuple[Any, Any, Any]]:
    """Of each tap its place in the part, the positions ``(…, M1, …)`` of y that it serves, and those of x they read."""
    sizes = [*zip(x.shape[2:], y.shape[2:], geometry.stride, geometry.padding, strict=True)]
    for tap in itertools.product(*map(range, part.shape[2:])):
        inside, read = [], []
        for at, (length, out, step, pad) in zip((tap[0] + first, *tap[1:]), sizes, strict=True):
            start = max(0, -((at - pad) // step))
            stop = max(start, min(out, (length - 1 + pad - at) // step + 1))
            inside.append(slice(start, stop))
            read.append(slice(start * step + at - pad, max(0, (stop - 1) * step + at - pad + 1), step))
        yield (slice(None), *tap), (..., *inside), (..., *read)


_FORWARD = {
    'matmul': _matmul_forward,
    'matmul by sample': _sample_forward,
    'im2col': _im2col_forward,
    'taps': _taps_forward,
}
_BACKWARD = {
    'matmul': (_matmul_inputs, _matmul_weights),
    'matmul by sample': (_sample_inputs, _sample_weights),
    'im2col': (_im2col_inputs, _im2col_weights),
    'taps': (_taps_inputs, _taps_weights),
}
