"""Layouts of tensors ``(N, C, L1, …)``: contiguous, or channels last, of signals too, for which torch has no word."""

from torch import Tensor


def is_last(x: Tensor) -> bool:
    """Whether the channels lie innermost. Of one channel alone only the strides tell: its values lie alike in both."""
    if x.dim() < 3 or not x.movedim(1, -1).is_contiguous():
        return False
    return not x.is_contiguous() or (x.shape[1] == 1 and x.stride(1) == 1 and x.numel() > len(x))


def laid(x: Tensor, last: bool) -> Tensor:
    """``x`` itself, or its copy in that layout."""
    if not last:
        return x.contiguous()
    inner = x.movedim(1, -1)
    return inner.reshape(-1).view(inner.shape).movedim(-1, 1)  # a view anew, whose strides are those of the layout
