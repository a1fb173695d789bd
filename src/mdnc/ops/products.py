"""Products of matrices, by oneDNN where torch has it.

``torch.mm`` goes to BLAS, and the MKL of torch's wheels takes AVX2 on processors that are not Intel's: 240 GFLOP/s on
two cores of an EPYC 9005 where oneDNN, which the same wheels carry for convolutions, gives 530. What that brings a
network stands in docs/performance.md under "What each saving brings".
"""

import torch
from torch import Tensor


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a (M, K)``, ``b (N, K)`` → ``a bᵀ (M, N)``."""
    if suits(a):
        a, b = _dense(a), _dense(b)
        return torch.ops.mkldnn._linear_pointwise(a, b, None, 'none', [], '')  # type: ignore[no-any-return]
    return a @ b.t()


def suits(x: Tensor) -> bool:
    """Whether oneDNN computes products of such tensors."""
    return _AVAILABLE and x.dtype == torch.float32 and x.device.type == 'cpu' and x.numel() > 0


def _dense(x: Tensor) -> Tensor:
    # Of a matrix with gaps, as rows that a stride has left, oneDNN takes values one by one.
    if x.is_contiguous() or x.t().is_contiguous():
        return x
    return x.t().contiguous().t() if x.stride(0) == 1 else x.contiguous()


# The operator that Inductor has a linear layer computed by.
_AVAILABLE = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, '_linear_pointwise')
