"""The fused unit as an operator over tensors."""

import math
from collections.abc import Sequence
from numbers import Real
from operator import index
from typing import Any

import torch
from torch import Tensor

from mdnc.ops import definition
from mdnc.ops.backend import DEFAULT, TABLE
from mdnc.ops.convolution import Geometry
from mdnc.ops.definition import Block, Norm, Resize, Unit, Weights
from mdnc.ops.path import DTYPES, MEMORY_LEVELS, is_small, why_not_now, why_not_with
from mdnc.ops.reading import Fused, fuse

ACTIVATORS = ('prelu', 'relu', 'null')


def norm_act_conv(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    slope: Tensor | None = None,
    activator: str = 'prelu',
    eps: float | None = 1e-5,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    size: int | Sequence[int] | None = None,
    memory: str = 'lean',
) -> Tensor:
    """Norm, activate, (up-sample) and convolve, keeping one tensor for backward where torch keeps three.

    ``y = conv(resize(act(γ·(x − μ)/√(σ² + ε) + β)))`` with the mean μ and the variance σ² of each plane.
    ``mdnc.ops.definition.unit`` says the same in plain torch, and is what runs where the fused path can't: under
    tracers, transforms of ``torch.func``, on other devices than CPU and CUDA; and, at ``'lean'``, of so few values on a
    CPU that it is quicker (``mdnc.ops.limits``).

    Args:
        x: Input.
        kernel: Weight of the convolution.
        bias: Bias of the convolution, if any.
        scale: Weight γ of the norm, if any.
        shift: Bias β of the norm, if any.
        slope: Slope α of the PReLU for negative values, one for each channel or one for all; only with ``'prelu'``.
        activator: ``'prelu'``, ``'relu'`` or ``'null'``.
        eps: ε, added to the variance; ``None`` for no norm.
        stride: Stride of the convolution, one int of at least 1 or one for each axis.
        padding: Zero padding of the convolution, one int of at least 0 or one for each axis.
        size: Size to up-sample to before the convolution (corners aligned), one int or one for each axis.
        memory: What is kept for backward: ``'plain'`` for the definition, ``'fast'`` to keep the convolution's input
            too, any other level to keep x alone.

    Shapes:
        x ``(B, C, L1, …)`` with one, two or three axes, kernel ``(O, C, K1, …)``, bias ``(O,)``, scale, shift and slope
        ``(C,)``, slope also ``(1,)`` → ``(B, O, M1, …)``.

    Raises:
        TypeError: An argument has the wrong type, or a dtype other than x outside autocast.
        ValueError: An argument's word, value, shape or device is not legal.

    References:
        Ulyanov et al., arXiv:1607.08022 (norm); He et al., arXiv:1502.01852 (activation).

    Example:
        >>> import mdnc, torch
        >>> x, kernel = torch.randn(2, 3, 16, 16), torch.randn(8, 3, 3, 3, requires_grad=True)
        >>> mdnc.ops.norm_act_conv(x, kernel, slope=torch.full((3,), 0.25), padding=1, stride=2).shape
        torch.Size([2, 8, 8, 8])
    """
    _refuse('x', x, isinstance(x, Tensor), 'must be a tensor', TypeError)
    _refuse('x', x.dim(), x.dim() in (3, 4, 5), 'must have 3, 4 or 5 dimensions')
    axes = x.dim() - 2
    weights = Weights(scale, shift, slope, kernel, bias)
    resize = None if size is None else Resize(size=_per_axis('size', size, axes))
    _refuse('activator', activator, activator in ACTIVATORS, f'must be one of {ACTIVATORS}')
    _refuse('memory', memory, memory in MEMORY_LEVELS, f'must be one of {MEMORY_LEVELS}')
    strides, paddings = _per_axis('stride', stride, axes), _per_axis('padding', padding, axes, least=0)
    number = _eps(eps)
    norm = None if number is None else Norm('instance', number)
    how = Unit(Geometry(strides, paddings), norm, activator, resize=resize)
    # While compiling, any of the numbers may be symbolic, which checks and the node of a graph have no words for.
    if not torch.compiler.is_compiling():
        _admit(x, weights, how)
        block = fuse(Block((how,)), (weights,))
        if not (why_not_now(memory) or why_not_with(x, block) or _is_small(x, block, memory)):
            return block(x, memory)
    # Contiguous, for torch's own layers are not right in every other layout on a CPU (see path.plainly).
    return definition.unit(x.contiguous(), Weights(scale, shift, slope, kernel.contiguous(), bias), how)


def _is_small(x: Tensor, block: Fused, memory: str) -> bool:
    by = TABLE[DEFAULT, x.device.type]
    return by.few and is_small(x, block, memory, by.tools.limits)


def _refuse(name: str, value: object, legal: bool, wanted: str, error: type[Exception] = ValueError) -> None:
    if not legal:
        text = type(value).__name__ if error is TypeError and not isinstance(value, (int, float, str)) else repr(value)
        raise error(f'norm_act_conv: {name}={text} {wanted}.')


def _per_axis(name: str, value: object, axes: int, least: int = 1) -> tuple[int, ...]:
    if torch.compiler.is_compiling():
        return (value,) * axes if isinstance(value, int) else tuple(value)  # type: ignore[arg-type]
    wanted = f'must be one int of at least {least}, or {axes} of them'
    many: Any = (value,) * axes if _is_index(value) else value
    sequence = isinstance(many, (Sequence, torch.Tensor)) or getattr(many, 'ndim', 0) == 1
    right = sequence and not isinstance(many, str) and all(map(_is_index, many))
    _refuse(name, value, right, wanted, TypeError)
    values = tuple(map(index, many))
    _refuse(name, value, len(values) == axes and min(values) >= least, wanted)
    return values


def _is_index(value: object) -> bool:
    # Whatever is an int to Python, numpy's too, but no bool; nor an array of one int.
    return hasattr(value, '__index__') and not isinstance(value, bool) and getattr(value, 'ndim', 0) == 0


def _eps(value: object) -> float | None:
    if value is None or torch.compiler.is_compiling():
        return value  # type: ignore[return-value]
    wanted = 'must be None or a finite number of at least 0'
    _refuse('eps', value, isinstance(value, Real) and not isinstance(value, bool), wanted, TypeError)
    number = float(value)  # type: ignore[arg-type]
    _refuse('eps', value, math.isfinite(number) and number >= 0, wanted)
    return number


def _admit(x: Tensor, weights: Weights, how: Unit) -> None:
    given = {name: each for name, each in weights._asdict().items() if each is not None or name == 'kernel'}
    for name, each in given.items():
        _refuse(name, each, isinstance(each, Tensor), 'must be a tensor', TypeError)
    _refuse('x', x.dtype, x.dtype.is_floating_point, 'must be of a floating-point dtype', TypeError)
    _admit_shapes(x, weights, how)
    _admit_norm(x, weights, how)
    for name, each in given.items():
        _refuse(name, str(each.device), each.device == x.device, f'must be on the device of x, {x.device}')
        castable = torch.is_autocast_enabled(x.device.type) and {x.dtype, each.dtype} <= set(DTYPES[:3])
        _refuse(name, each.dtype, each.dtype == x.dtype or castable, f'must have the dtype of x, {x.dtype}', TypeError)


def _admit_shapes(x: Tensor, weights: Weights, how: Unit) -> None:
    assert weights.kernel is not None
    assert how.geometry is not None
    shape = tuple(weights.kernel.shape)
    fits = len(shape) == x.dim() and shape[1] == x.shape[1] and 0 not in shape
    _refuse('kernel', shape, fits, 'must fit x')
    slope = None if weights.slope is None else tuple(weights.slope.shape)
    _refuse('slope', slope, (slope is None) == (how.activator != 'prelu'), "must be given with activator='prelu' alone")
    _refuse('slope', slope, slope in (None, (1,), shape[1:2]), f'must have the shape {shape[1:2]} or (1,)')
    for name, length in (('scale', shape[1:2]), ('shift', shape[1:2]), ('bias', shape[:1])):
        each = getattr(weights, name)
        _refuse(
            name,
            each is None or tuple(each.shape),
            each is None or each.shape == length,
            f'must have the shape {length}',
        )
    inner = tuple(x.shape[2:]) if how.resize is None or how.resize.size is None else how.resize.size
    slides = all(n + 2 * pad >= k for n, pad, k in zip(inner, how.geometry.padding, shape[2:], strict=True))
    _refuse('kernel', shape, slides, f'must not be larger than the {inner}, padded, that it slides over')


def _admit_norm(x: Tensor, weights: Weights, how: Unit) -> None:
    size = tuple(x.shape)
    _refuse('x', size, 0 not in size, 'must not be empty')
    _refuse('x', size, how.norm is None or math.prod(size[2:]) > 1, 'must have at least 2 values a plane, for the norm')
    for name in ('scale', 'shift'):
        _refuse(
            name,
            'given',
            how.norm is not None or getattr(weights, name) is None,
            'is of a norm, which eps=None leaves out',
        )
