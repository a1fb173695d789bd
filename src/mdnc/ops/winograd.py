"""3 × 3 (× 3) convolutions on a CPU by minimal filtering, ``winograd.cpp``, in float32 where it is quicker.

A quarter of the multiplications, at rounding errors that are twice those of the direct sum forward and up to six times
for weights (docs/performance.md). Which convolutions take it follows from their shape alone.
"""

import ctypes
import functools
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdnc.ops import building, convolution, fake_tensors, winograd_1d
from mdnc.ops.channels_last import is_channels_last, to_layout
from mdnc.ops.convolution import TORCH, Geometry, Tools
from mdnc.ops.limits import LIMITS, Limits
from mdnc.ops.profiling import named

SOURCE = Path(__file__).with_name('winograd.cpp')
_OUT = 4
_CONVOLUTION, _WEIGHTS, _INPUTS = range(3)


class _Call(ctypes.Structure):
    # As in winograd.cpp.
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ('maps', 'weights', 'out', 'scratch')),
        *((name, ctypes.c_int64) for name in ('n', 'd', 'h', 'w', 'c', 'o', 'slices')),
        *((name, ctypes.c_int32) for name in ('job', 'threads')),
    )


def suits(z: Tensor, kernel: Tensor, geometry: Geometry, limits: Limits = LIMITS) -> bool:
    """Whether this convolution, of ``z (N, C, [L1,] L2, L3)``, is computed here rather than by ``convolution``."""
    plain = fake_tensors.known(z) and z.device.type == 'cpu' and z.dtype == torch.float32
    if not plain or z.dim() not in (4, 5) or tuple(kernel.shape[2:]) != (3,) * (z.dim() - 2):
        return False
    if geometry.groups > 1 or geometry.transposed or not is_channels_last(z):
        return False
    if set(geometry.stride) | set(geometry.padding) != {1} or max(kernel.shape[:2]) > limits.winograd_channels:
        return False
    tiles = math.prod(-(-size // _OUT) for size in z.shape[-2:])
    fill = math.prod(z.shape[-2:]) / (tiles * _OUT**2)
    enough = tiles * (z.shape[0] * math.prod(z.shape[2:-2])) >= limits.winograd_tiles
    if not enough or fill < limits.winograd_fill:
        return False
    library = built()
    return library is not None and not any(channels % library.winograd_lanes() for channels in kernel.shape[:2])


def forward(z: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry, tools: Tools = TORCH) -> Tensor:
    """See ``convolution.forward``; signals go to ``winograd_1d``."""
    if z.dim() == 3:
        return winograd_1d.forward(z, kernel, bias, geometry, tools)
    if kernel.dtype != z.dtype:
        return convolution.mixed_forward(forward, z, kernel, bias, geometry, tools)
    if 'winograd' not in tools.routes or not suits(z, kernel, geometry, tools.limits):
        return convolution.forward(z, kernel, bias, geometry, tools)
    return convolution.biased(_convolved(built(), z, kernel), bias)


def backward(
    g: Tensor,
    z: Tensor,
    kernel: Tensor,
    geometry: Geometry,
    needs: tuple[bool, bool, bool],
    tools: Tools = TORCH,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """See ``convolution.backward``; signals go to ``winograd_1d``."""
    if z.dim() == 3:
        return winograd_1d.backward(g, z, kernel, geometry, needs, tools)
    if kernel.dtype != z.dtype:
        return convolution.mixed_backward(backward, g, z, kernel, geometry, needs, tools)
    if 'winograd' not in tools.routes or not suits(z, kernel, geometry, tools.limits):
        return convolution.backward(g, z, kernel, geometry, needs, tools)
    library, g = built(), to_layout(g, True)
    gz = _convolved(library, g, kernel.transpose(0, 1), _INPUTS) if needs[0] else None
    gkernel = _weights(library, g, z, kernel) if needs[1] else None
    return gz, gkernel, convolution.bias_gradient(g) if needs[2] else None


CONVOLUTION = convolution.Convolution(forward, backward)


def _convolved(library: Any, z: Tensor, kernel: Tensor, job: int = _CONVOLUTION) -> Tensor:
    weights = kernel.movedim((0, 1), (-1, -2)).contiguous()  # ([3,] 3, 3, C, O)
    y = z.new_empty(z.shape[0], *z.shape[2:], kernel.shape[0])
    _call(library, job, (z, weights, y), kernel)
    return y.movedim(-1, 1)


def _weights(library: Any, g: Tensor, z: Tensor, kernel: Tensor) -> Tensor:
    found = z.new_empty(*kernel.shape[2:], kernel.shape[1], kernel.shape[0])
    _call(library, _WEIGHTS, (z, g, found), kernel)
    return to_layout(found.movedim((-1, -2), (0, 1)), is_channels_last(kernel))


def _call(library: Any, job: int, tensors: tuple[Tensor, Tensor, Tensor], kernel: Tensor) -> None:
    z = tensors[0]
    depth, slices = (z.shape[2], 3) if z.dim() == 5 else (1, 1)
    sizes = (len(z), depth, *z.shape[-2:], z.shape[1], len(kernel), slices)
    computes = not fake_tensors.stands_in(z)
    pointers = [each.data_ptr() if computes else None for each in tensors]
    call = _Call(*pointers, None, *sizes, job, torch.get_num_threads())
    scratch = z.new_empty(library.winograd_scratch(ctypes.byref(call)))
    if not computes:
        return
    call.scratch = scratch.data_ptr()
    with named('mdnc::winograd_convolution'):
        library.winograd(ctypes.byref(call))


@functools.cache
def built() -> Any:
    """The library; None, after a warning, where it can't be built."""
    return building.loaded(SOURCE, {'winograd': None, 'winograd_scratch': ctypes.c_int64}, _prove)


def _prove(library: Any) -> None:
    """Raise if the code gives other values than torch's convolution in float64."""
    drawn, width = building.random_tensors(), library.winograd_lanes()
    for size in ((5, 7), (3, 5, 7)):
        shapes = (2, width, *size), (2 * width, width, *(3 for _ in size)), (2, 2 * width, *size)
        z, kernel, g = (drawn(*shape) for shape in shapes)
        z, g = (to_layout(each, channels_last=True) for each in (z, g))
        z64, kernel64, g64 = (each.double() for each in (z, kernel, g))
        still = Geometry((1,) * len(size), (1,) * len(size))
        inputs, weights, _ = convolution.backward(g64, z64, kernel64, still, (True, True, False))
        assert inputs is not None
        assert weights is not None
        pairs = [
            (_convolved(library, z, kernel), convolution.forward(z64, kernel64, None, still)),
            (_convolved(library, g, kernel.transpose(0, 1), _INPUTS), inputs),
            (_weights(library, g, z, kernel), weights),
        ]
        for got, want in pairs:
            building.compare(got, want)
