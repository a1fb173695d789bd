"""The fused unit as an operator over tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mdnc.ops import definition
from mdnc.ops.definition import Block, Resize, Unit, Weights
from mdnc.ops.fused import Manner
from mdnc.ops.path import MEMORY_LEVELS, Fused, why_not_now, why_not_with

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
    tracers, transforms of ``torch.func``, on other devices than CPU and CUDA.

    Args:
        x: Input.
        kernel: Weight of the convolution.
        bias: Bias of the convolution, if any.
        scale: Weight γ of the norm, if any.
        shift: Bias β of the norm, if any.
        slope: Slope α of the PReLU for negative values, one for each channel or one for all; only with ``'prelu'``.
        activator: ``'prelu'``, ``'relu'`` or ``'null'``.
        eps: ε, added to the variance; ``None`` for no norm.
        stride: Stride of the convolution, one int or one for each axis.
        padding: Zero padding of the convolution, one int or one for each axis.
        size: Size to up-sample to before the convolution (corners aligned), one int or one for each axis.
        memory: What is kept for backward: ``'plain'`` for the definition, ``'fast'`` to keep the convolution's input
            too, any other level to keep x alone.

    Shapes:
        x ``(B, C, L1, …)`` with one, two or three axes, kernel ``(O, C, K1, …)``, bias ``(O,)``, scale, shift and slope
        ``(C,)``, slope also ``(1,)`` → ``(B, O, M1, …)``.

    Raises:
        ValueError: An argument's word, rank or number of axes is not legal.

    References:
        Ulyanov et al., arXiv:1607.08022 (norm); He et al., arXiv:1502.01852 (activation).

    Example:
        >>> import mdnc, torch
        >>> x, kernel = torch.randn(2, 3, 16, 16), torch.randn(8, 3, 3, 3, requires_grad=True)
        >>> mdnc.ops.norm_act_conv(x, kernel, slope=torch.full((3,), 0.25), padding=1, stride=2).shape
        torch.Size([2, 8, 8, 8])
    """
    axes = x.dim() - 2
    _refuse('x', x.dim(), x.dim() in (3, 4, 5), 'must have 3, 4 or 5 dimensions')
    _refuse('kernel', tuple(kernel.shape), kernel.shape[1:2] == x.shape[1:2] and kernel.dim() == x.dim(), 'must fit x')
    _refuse('activator', activator, activator in ACTIVATORS, f'must be one of {ACTIVATORS}')
    _refuse(
        'slope',
        None if slope is None else tuple(slope.shape),
        (slope is None) == (activator != 'prelu'),
        "must be given with activator='prelu' alone",
    )
    _refuse('memory', memory, memory in MEMORY_LEVELS, f'must be one of {MEMORY_LEVELS}')
    resize = None if size is None else Resize(size=_per_axis('size', size, axes))
    how = Unit(_per_axis('stride', stride, axes), _per_axis('padding', padding, axes), eps, activator, resize)
    block = Fused(Block((how,)), (Weights(scale, shift, slope, kernel, bias),))
    # While compiling, any of the numbers may be symbolic, which the node of a graph has no words for.
    if torch.compiler.is_compiling() or why_not_now(memory) or why_not_with(x, block):
        return definition.unit(x, block.weights[0], how)
    return block(x, Manner(memory))


def _refuse(name: str, value: object, legal: bool, wanted: str) -> None:
    if not legal:
        raise ValueError(f'norm_act_conv: {name}={value!r} {wanted}.')


def _per_axis(name: str, value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    _refuse(name, value, len(values) == axes, f'must be one int, or {axes} of them')
    return values
