"""Norm and activation on a CPU by a C++ kernel, ``norm_act.cpp``, built at first use for the machine that runs it.

Inductor's kernels of the same definition took five times as long to build. Of the shapes that ``python -m benchmarks
--parts kernels`` times (docs/performance.md) they are slower on all but the smallest, contiguous.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdnc.ops import building, fake_tensors, norm_act
from mdnc.ops.norm_act import Affine, Gradients, Moments, Running, Step
from mdnc.ops.profiling import named

SOURCE = Path(__file__).with_name('norm_act.cpp')

# Types of x, of the activation, and of statistics and sums, as C++ names them.
_TYPES = {
    (torch.float32, torch.float32): ('float', 'float', 'float'),
    (torch.float64, torch.float64): ('double', 'double', 'double'),
    (torch.bfloat16, torch.bfloat16): ('bfloat16', 'bfloat16', 'float'),
    (torch.float16, torch.float16): ('float16', 'float16', 'float'),
    (torch.float32, torch.bfloat16): ('float', 'bfloat16', 'float'),
    (torch.float32, torch.float16): ('float', 'float16', 'float'),
}
_ACTIVATORS = {'null': 0, 'relu': 1, 'prelu': 2, 'leaky_relu': 2, 'elu': 3, 'gelu': 4, 'silu': 5}
_SMOOTH = ('elu', 'gelu', 'silu')  # are built by themselves
_NORMS = {'instance': 0, 'group': 1, 'batch': 2, 'fixed': 3}
_FORWARD, _REBUILD, _BACKWARD = range(3)


class _Call(ctypes.Structure):
    # As in norm_act.cpp.
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ('x', 'g', 'out', 'mean', 'rate', 'scale', 'shift', 'slope')),
        *((name, ctypes.c_void_p) for name in ('gscale', 'gshift', 'gslope', 'running_mean', 'running_variance')),
        *((name, ctypes.c_int64) for name in ('n', 'c', 'length', 'groups')),
        *((name, ctypes.c_double) for name in ('eps', 'alpha', 'momentum')),
        *((name, ctypes.c_int32) for name in ('job', 'activator', 'norm', 'channels_last', 'threads')),
    )


def forward(x: Tensor, affine: Affine, step: Step, running: Running | None = None) -> tuple[Tensor, Moments]:
    """See ``norm_act.forward``."""
    function = _function(x, step)
    if function is None:
        return norm_act.forward(x, affine, step, running)
    x, n, c = _dense(x), x.shape[0], x.shape[1]
    wide = norm_act.accumulator(x.dtype)
    mean, rate = x.new_empty((2, 1 if step.norm == 'batch' else n, c, 1), dtype=wide)
    z = torch.empty_like(x, dtype=step.dtype)
    direct = running is not None and running.mean.dtype == wide == running.variance.dtype
    _call(function, _FORWARD, (x, None, z, mean, rate), affine, step, running=running if direct else None)
    if running is not None and not direct:
        running.take(mean.view(-1), rate.view(-1).pow(-2) - step.eps, x.numel() // c)
    return z, Moments(mean, rate)


def rebuild(x: Tensor, at: Moments, affine: Affine, step: Step) -> tuple[Tensor, Tensor | None]:
    """See ``norm_act.rebuild``; h is left to ``backward``, which computes it on the way."""
    function = _function(x, step)
    if function is None:
        return norm_act.rebuild(x, at, affine, step)
    x = _dense(x)
    z = torch.empty_like(x, dtype=step.dtype)
    _call(function, _REBUILD, (x, None, z, at.mean.contiguous(), at.rate.contiguous()), affine, step)
    return z, None


def backward(
    g: Tensor, h: Tensor | None, x: Tensor, at: Moments, affine: Affine, step: Step, in_place: bool = True
) -> Gradients:
    """See ``norm_act.backward``; ``in_place`` lets the gradient of x be written over ``g``."""
    function = _function(x, step)
    if function is None:
        return norm_act.backward(g, h, x, at, affine, step)
    x = _dense(x)
    g = _as(g, x, step.dtype)
    gx = g if in_place and g.dtype == x.dtype and step.activator != 'null' else torch.empty_like(x)
    sums = x.new_empty((3, 1, x.shape[1], 1), dtype=norm_act.accumulator(x.dtype))
    _call(function, _BACKWARD, (x, g, gx, at.mean.contiguous(), at.rate.contiguous()), affine, step, sums)
    scale, shift, slope = (own if given is not None else None for own, given in zip(sums.unbind(), affine, strict=True))
    return Gradients(gx, scale, shift, slope)


def _function(x: Tensor, step: Step) -> Callable[..., Any] | None:
    # A type that no network mixes is not worth a build.
    known = (x.dtype, step.dtype) in _TYPES and fake_tensors.known(x)
    return built(x.dtype, step.dtype, step.activator in _SMOOTH) if known else None


def _call(
    function: Callable[..., Any],
    job: int,
    tensors: tuple[Tensor | None, ...],
    affine: Affine,
    step: Step,
    sums: Tensor | None = None,
    running: Running | None = None,
) -> None:
    x = tensors[0]
    assert x is not None
    n, c, length = x.shape
    wide = norm_act.accumulator(x.dtype)
    slope = None if affine.slope is None else affine.slope.to(step.dtype).expand(1, c, 1)
    parameters = [None if each is None else each.to(wide).contiguous() for each in (affine.scale, affine.shift, slope)]
    if fake_tensors.stands_in(x):
        return
    outputs = (None,) * 3 if sums is None else sums.unbind()
    mean, variance, momentum = running or (None, None, 0.0)
    every = (*tensors, *parameters, *outputs, mean, variance)
    pointers = [None if each is None else each.data_ptr() for each in every]
    words = (_ACTIVATORS[step.activator], _NORMS[step.norm], not x.is_contiguous(), torch.get_num_threads())
    call = _Call(*pointers, n, c, length, step.groups, step.eps, step.alpha, momentum, job, *words)
    with named('mdnc::norm_and_activation'):
        function(ctypes.byref(call))


def _dense(x: Tensor) -> Tensor:
    """x itself where its planes, or the channels of its positions, lie dense, else a dense copy."""
    return x if x.is_contiguous() or x.transpose(1, 2).is_contiguous() else x.contiguous()


def _as(value: Tensor, like: Tensor, dtype: torch.dtype) -> Tensor:
    """The same values in this dtype and in the layout of ``like``, which is dense."""
    if value.stride() == like.stride() and value.dtype == dtype:
        return value
    return torch.empty_like(like, dtype=dtype).copy_(value)


# ---- Building ----


@functools.cache
def built(dtype: torch.dtype, activation: torch.dtype, smooth: bool = False) -> Callable[..., Any] | None:
    """The kernel for x and activations of these dtypes; None, after a warning, where it can't be built."""
    if _failures:  # what can't be built for one dtype can't for another
        return None
    try:
        options = _options(_TYPES[dtype, activation], smooth)
        function = ctypes.CDLL(str(building.library(SOURCE, options))).norm_act
        function.restype = None
        with fake_tensors.on_real_tensors():
            for case in _SMOOTH_CASES if smooth else _CASES:
                _prove(function, case, dtype, activation)
    except building.FAILURES as error:
        _failures.append(error)
        building.warn(SOURCE, error)
        return None
    return function


_failures: list[Exception] = []


# What is proved of a build: activation, norm, groups and α.
_CASES = ('prelu', 'instance', 0, 0.0), ('leaky_relu', 'batch', 0, 0.1), ('relu', 'group', 4, 0.0)
_SMOOTH_CASES = ('elu', 'instance', 0, 0.7), ('gelu', 'batch', 0, 0.0), ('silu', 'group', 4, 0.0)


def _prove(
    function: Callable[..., Any], case: tuple[str, str, int, float], dtype: torch.dtype, activation: torch.dtype
) -> None:
    """Raise if the code gives other values than its definition: GCC 12 made wrong code of an earlier form of it."""
    activator, norm, groups, alpha = case
    steps = [Step(1e-5, activator, each, norm, groups, alpha) for each in (activation, torch.float64)]
    drawn = building.random_tensors()
    tolerance = 16 * torch.finfo(activation).eps ** 0.75
    for shape, order in (((2, 36, 131), (0, 1, 2)), ((2, 131, 36), (0, 2, 1))):
        x, g = (drawn(*shape).permute(order) for _ in range(2))
        x, g = x.to(dtype), g.to(activation)
        parameters = drawn(3, 1, 36, 1).double().sigmoid()
        slopes = activator == 'prelu'
        wide, affine = x.double().contiguous(), Affine(parameters[0], parameters[1], parameters[2] if slopes else None)
        z, at = norm_act.forward(wide, affine, steps[1])
        grads = norm_act.backward(
            g.double().clone(memory_format=torch.contiguous_format), None, wide, at, affine, steps[1]
        )
        narrow = parameters.to(norm_act.accumulator(dtype))
        own = Affine(narrow[0], narrow[1], narrow[2] if slopes else None)
        got = _proof(function, x, g, own, steps[0])
        for mine, theirs in zip(got, (z, *grads), strict=True):
            if theirs is not None:  # there may be no slopes
                building.compare(mine, theirs, tolerance)


def _proof(function: Callable[..., Any], x: Tensor, g: Tensor, affine: Affine, step: Step) -> tuple[Tensor, ...]:
    wide = norm_act.accumulator(x.dtype)
    mean, rate = x.new_empty((2, *x.shape[:2], 1), dtype=wide)
    z, gx, sums = (
        torch.empty_like(x, dtype=step.dtype),
        torch.empty_like(x),
        x.new_empty((3, 1, x.shape[1], 1), dtype=wide),
    )
    _call(function, _FORWARD, (x, None, z, mean, rate), affine, step)
    _call(function, _BACKWARD, (x, g, gx, mean, rate), affine, step, sums)
    return (z, gx, *sums)


def _options(types: tuple[str, str, str], smooth: bool) -> list[str]:
    kinds = [f'-DMDNC_{name}={type_}' for name, type_ in zip('XZW', types, strict=True)]
    return [*building.threads(), *kinds, *(['-DMDNC_SMOOTH'] if smooth else [])]
