"""Layouts of tensors ``(N, C, L1, …)``: contiguous, or channels last, of signals too, for which torch has no word."""

from typing import Any

import torch
from torch import Tensor

from mdnc._torch import batched


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels lie innermost. Of one channel alone only the strides tell: its values lie alike in both."""
    if x.dim() < 3 or not x.movedim(1, -1).is_contiguous():
        return False
    return not x.is_contiguous() or (x.shape[1] == 1 and x.stride(1) == 1 and x.numel() > len(x))


def as_given(y: Tensor, x: Tensor) -> Tensor:
    """An output as torch's layers would leave it, contiguous where the input is, whatever the layout inside."""
    return y.contiguous() if x.is_contiguous() and not y.is_contiguous() else y


def to_layout(x: Tensor, channels_last: bool) -> Tensor:
    """``x`` itself, or its copy in that layout."""
    # By views made anew, whose strides are those of the layout, of axes of length one too.
    if not channels_last:
        y = x.contiguous()
        return y.view(-1).view(x.shape) if x.dim() > 2 and x.shape[1] == 1 else y
    inner = x.movedim(1, -1)
    return inner.contiguous().view(-1).view(inner.shape).movedim(-1, 1)


def to_layout_both_ways(x: Tensor, channels_last: bool, back: bool) -> Tensor:
    """``x`` in that layout; its gradient comes in the layout ``back``, also where torch would give another."""
    return _ToLayout.apply(x, channels_last, back)  # type: ignore[no-any-return, no-untyped-call]


class _ToLayout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, channels_last: bool, back: bool) -> Tensor:
        ctx.layouts = back, channels_last
        return to_layout(x, channels_last)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        channels_last, back = ctx.layouts
        if batched(g):  # torch.vmap has no rule for functions of autograd such as this one
            return to_layout(g, channels_last), None, None
        return to_layout_both_ways(g, channels_last, back), None, None
