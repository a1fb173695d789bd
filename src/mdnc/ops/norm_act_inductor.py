"""Norm and activation compiled by Inductor from the definition in ``norm_act``: one pass for several of eager torch."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from mdnc._torch import FakeTensor
from mdnc.ops import norm_act
from mdnc.ops.norm_act import Affine, Gradients, Moments, Running, Step


def forward(x: Tensor, affine: Affine, step: Step, running: Running | None = None) -> tuple[Tensor, Moments]:
    """See ``norm_act.forward``."""
    if running is not None:
        return norm_act.forward(x, affine, step, running)
    z, at = _run(_forward, norm_act.forward, (x, affine, step))
    return z, Moments(*at)


def rebuild(x: Tensor, at: Moments, affine: Affine, step: Step) -> tuple[Tensor, Tensor | None]:
    """See ``norm_act.rebuild``; h is left to ``backward``, which computes it on the way."""
    z, h = _run(_rebuild, norm_act.rebuild, (x, at, affine, step))
    return z, h


def backward(g: Tensor, h: Tensor | None, x: Tensor, at: Moments, affine: Affine, step: Step) -> Gradients:
    """See ``norm_act.backward``."""
    if g.stride() != x.stride():
        # Inductor of torch 2.13 gives wrong values on a CPU where the layouts of g and x differ (test_optimization.py).
        g = torch.empty_like(x, dtype=g.dtype).copy_(g)
    grads = Gradients(*_run(_backward, norm_act.backward, (g, None, x, at, affine, step)))
    return grads if affine.slope is not None else grads._replace(slope=None)


def _forward(x: Tensor, affine: Affine, step: Step) -> tuple[Tensor, Moments]:
    at = norm_act.moments(x, step)
    return norm_act.activated(norm_act.normalised(x, at, affine), affine.slope, step), at


def _rebuild(x: Tensor, at: Moments, affine: Affine, step: Step) -> tuple[Tensor, None]:
    return norm_act.activated(norm_act.normalised(x, at, affine), affine.slope, step), None


def _backward(g: Tensor, h: Tensor | None, x: Tensor, at: Moments, affine: Affine, step: Step) -> Gradients:
    g, slope = norm_act.activation_backward(g, norm_act.normalised(x, at, affine), affine.slope, step)
    gx, scale, shift = norm_act.norm_backward(g, x, at, affine, step)
    return Gradients(gx, scale, shift, slope)


class _Compiler:
    """Compiled functions by what they were compiled for; eager ones once compiling has failed."""

    def __init__(self) -> None:
        self.compiled: dict[object, Callable[..., Any]] = {}
        self.failed = False

    def __call__(self, function: FunctionType, key: object) -> Callable[..., Any]:
        key = (function.__name__, key)
        if key not in self.compiled:
            # Dynamo counts its attempts by code object and gives up after eight: each kind of arguments gets its own.
            own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
            self.compiled[key] = torch.compile(own, dynamic=True)
        return self.compiled[key]


_compiler = _Compiler()


def _run(function: Any, eager: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    x = arguments[0]
    if _compiler.failed or isinstance(x, FakeTensor):
        return eager(*arguments)
    affine, step = arguments[-2:]
    if step.activator == 'null':  # a PReLU of slope 1 is no activation, and spares half of the compiling
        dtype = norm_act.accumulator(x.dtype) if affine.scale is None else affine.scale.dtype
        one = x.new_ones(x.shape[1], dtype=dtype).view(1, -1, 1)  # a view, as the parameters are
        arguments = (*arguments[:-2], affine._replace(slope=one), replace(step, activator='prelu'))
    # Plain tensors, for Dynamo would compile anew for each Parameter.
    arguments = tuple(each.detach() if isinstance(each, Tensor) else each for each in arguments)
    try:
        return _compiler(function, _kind(arguments))(*arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler may fail in any way
        _compiler.failed = True
        reason = f'{type(error).__name__}: {str(error).strip().splitlines()[0]}' if str(error) else type(error).__name__
        warnings.warn(f'mdnc.optimize: norm and activation run uncompiled: {reason}', stacklevel=2)
        return eager(*arguments)


def _kind(arguments: tuple[Any, ...]) -> object:
    # What Dynamo would compile anew for: lengths of one are constants to it.
    *tensors, affine, step = arguments
    x = tensors[0]
    return (
        x.device,
        x.dtype,
        x.is_contiguous(),
        min(x.shape[0], 2),
        min(x.shape[1], 2),
        *(each is None for each in affine),
        step,
    )
