"""Convolutions of signals, of width 3 with stride 1 or 2, on a CPU by minimal filtering, ``winograd_1d.cpp``.

Half of the multiplications for stride 1, three quarters for stride 2, at rounding errors like those of the direct sum.
Weights are read as torch lays them. Which convolutions take it follows from their shape alone.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdnc.ops import building, convolution, fake_tensors, processor
from mdnc.ops.channels_last import is_channels_last, to_layout
from mdnc.ops.convolution import TORCH, Geometry, Tools
from mdnc.ops.limits import LIMITS, Limits
from mdnc.ops.profiling import named

SOURCE = Path(__file__).with_name('winograd_1d.cpp')
_OUT = 4
_CONVOLUTION, _WEIGHTS, _INPUTS = range(3)


class _Call(ctypes.Structure):
    # As in winograd_1d.cpp.
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ('maps', 'weights', 'out', 'scratch')),
        *((name, ctypes.c_int64) for name in ('n', 'longer', 'shorter', 'c', 'o')),
        *((name, ctypes.c_int64) for name in ('out_stride', 'in_stride', 'tap_stride')),
        *((name, ctypes.c_int32) for name in ('job', 'stride', 'threads')),
    )


def suits(z: Tensor, kernel: Tensor, geometry: Geometry, limits: Limits = LIMITS) -> bool:
    """Whether this convolution, of ``z (N, C, L)``, is computed here rather than by ``convolution``."""
    if not fake_tensors.known(z) or z.device.type != 'cpu' or z.dtype != torch.float32 or z.dim() != 3:
        return False
    still = geometry.groups == 1 and not geometry.transposed and geometry.padding == (1,)
    if not still or geometry.stride not in ((1,), (2,)) or kernel.shape[2] != 3 or not is_channels_last(z):
        return False
    tiles = len(z) * -(-_shorter(z, geometry) // _OUT)
    pays = tiles >= limits.signal_tiles or kernel.numel() <= limits.signal_weights
    if not tiles or not pays or kernel.shape[0] % processor.lanes():
        return False
    library = built()
    return library is not None and not any(channels % library.winograd_1d_lanes() for channels in kernel.shape[:2])


def forward(z: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry, tools: Tools = TORCH) -> Tensor:
    """See ``convolution.forward``."""
    if kernel.dtype != z.dtype:
        return convolution.mixed_forward(forward, z, kernel, bias, geometry, tools)
    if _name(geometry) not in tools.routes or not suits(z, kernel, geometry, tools.limits):
        return convolution.forward(z, kernel, bias, geometry, tools)
    return convolution.biased(_convolved(built(), z, kernel, geometry), bias)


def backward(
    g: Tensor,
    z: Tensor,
    kernel: Tensor,
    geometry: Geometry,
    needs: tuple[bool, bool, bool],
    tools: Tools = TORCH,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """See ``convolution.backward``."""
    if kernel.dtype != z.dtype:
        return convolution.mixed_backward(backward, g, z, kernel, geometry, needs, tools)
    if _name(geometry) not in tools.routes or not suits(z, kernel, geometry, tools.limits):
        return convolution.backward(g, z, kernel, geometry, needs, tools)
    library, g = built(), to_layout(g, True)
    gz = _inputs(library, g, z, kernel, geometry) if needs[0] else None
    gkernel = _weights(library, g, z, kernel, geometry) if needs[1] else None
    return gz, gkernel, convolution.bias_gradient(g) if needs[2] else None


def _name(geometry: Geometry) -> str:
    return 'winograd_1d' if geometry.stride == (1,) else 'strided winograd_1d'


def _shorter(z: Tensor, geometry: Geometry) -> int:
    return (z.shape[2] - 1) // geometry.stride[0] + 1


def _convolved(library: Any, z: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
    shorter = _shorter(z, geometry)
    y = z.new_empty(len(z), shorter, len(kernel))
    _call(library, _CONVOLUTION, (z, kernel, y), kernel, (z.shape[2], shorter, geometry.stride[0]))
    return y.movedim(-1, 1)


def _inputs(library: Any, g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
    gz = g.new_empty(len(z), z.shape[2], z.shape[1])
    _call(library, _INPUTS, (g, kernel, gz), kernel, (z.shape[2], g.shape[2], geometry.stride[0]))
    return gz.movedim(-1, 1)


def _weights(library: Any, g: Tensor, z: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
    gkernel = torch.empty_like(kernel)
    _call(library, _WEIGHTS, (z, g, gkernel), gkernel, (z.shape[2], g.shape[2], geometry.stride[0]))
    return gkernel


def _call(
    library: Any, job: int, tensors: tuple[Tensor, Tensor, Tensor], kernel: Tensor, sizes: tuple[int, int, int]
) -> None:
    *lengths, stride = sizes
    computes = not fake_tensors.stands_in(tensors[0])
    pointers = [each.data_ptr() if computes else None for each in tensors]
    widths = (kernel.shape[1], kernel.shape[0], *kernel.stride())
    call = _Call(*pointers, None, len(tensors[0]), *lengths, *widths, job, stride, torch.get_num_threads())
    scratch = tensors[0].new_empty(library.winograd_1d_scratch(ctypes.byref(call)))
    if not computes:
        return
    call.scratch = scratch.data_ptr()
    with named('mdnc::winograd_convolution'):
        library.winograd_1d(ctypes.byref(call))


@functools.cache
def built() -> Any:
    """The library; None, after a warning, where it can't be built."""
    return building.loaded(SOURCE, {'winograd_1d': None, 'winograd_1d_scratch': ctypes.c_int64}, _prove)


def _prove(library: Any) -> None:
    """Raise if the code gives other values than torch's convolution in float64."""
    drawn, width = building.random_tensors(), library.winograd_1d_lanes()
    for stride in (1, 2):
        how = Geometry((stride,), (1,))
        shapes = (2, width, 37), (3 * width, width, 3), (2, 3 * width, 36 // stride + 1)
        z, kernel, g = (drawn(*shape) for shape in shapes)
        z, g = (to_layout(each, channels_last=True) for each in (z, g))
        z64, kernel64, g64 = (each.double() for each in (z, kernel, g))
        inputs, weights, _ = convolution.backward(g64, z64, kernel64, how, (True, True, False))
        assert inputs is not None
        assert weights is not None
        pairs = [
            (_convolved(library, z, kernel, how), convolution.forward(z64, kernel64, None, how)),
            (_inputs(library, g, z, kernel, how), inputs),
            (_weights(library, g, z, kernel, how), weights),
        ]
        for got, want in pairs:
            building.compare(got, want)
