"""Copies into another order of axes on a CPU, ``copies.cpp``: torch's own go value by value, a nanosecond each.

An optimized network's tensors have their channels innermost, and its parameters lie as torch lays them: weights are
laid anew where they are used, and their gradients before they are given out.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdnc.ops import building, fake_tensors
from mdnc.ops.profiling import named

SOURCE = Path(__file__).with_name('copies.cpp')
_LEAST = 512  # values from which a copy takes longer than to find out how it lies
_WIDTHS = (2, 4, 8)


class _Call(ctypes.Structure):
    # As in copies.cpp.
    _fields_ = (
        ('from', ctypes.c_void_p),
        ('to', ctypes.c_void_p),
        ('sizes', ctypes.c_int64 * 3),
        ('strides', ctypes.c_int64 * 3),
        ('bytes', ctypes.c_int32),
        ('threads', ctypes.c_int32),
    )


def contiguous(x: Tensor) -> Tensor:
    """See ``channels_last.contiguous``."""
    if x.is_contiguous() or x.numel() < _LEAST or not fake_tensors.known(x) or x.device.type != 'cpu':
        return x.contiguous()
    axes, width = _collapsed(x), x.element_size()
    library = built() if len(axes) <= 3 and width in _WIDTHS and not (x.is_conj() or x.is_neg()) else None
    if library is None:
        return x.contiguous()
    copy = torch.empty(x.shape, dtype=x.dtype)
    if fake_tensors.stands_in(x):
        return copy
    sizes, strides = zip(*[(1, 0)] * (3 - len(axes)), *axes, strict=True)
    with named('mdnc::copy'):
        library.copies(ctypes.byref(_call(x, copy, sizes, strides)))
    return copy


def _call(x: Tensor, copy: Tensor, sizes: tuple[int, ...], strides: tuple[int, ...]) -> _Call:
    threes = (ctypes.c_int64 * 3)(*sizes), (ctypes.c_int64 * 3)(*strides)
    return _Call(x.data_ptr(), copy.data_ptr(), *threes, x.element_size(), torch.get_num_threads())


def _collapsed(x: Tensor) -> list[tuple[int, int]]:
    """Sizes and strides of the axes, neighbours that lie as one taken together."""
    axes: list[tuple[int, int]] = []
    for size, stride in zip(x.shape, x.stride(), strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1] == size * stride:
            axes[-1] = axes[-1][0] * size, stride
        else:
            axes.append((size, stride))
    return axes


@functools.cache
def built() -> Any:
    """The library; None, after a warning, where it can't be built."""
    return building.loaded(SOURCE, {'copies': None})
