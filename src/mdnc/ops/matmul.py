"""Products of matrices, by oneDNN where torch has it.

``torch.mm`` goes to BLAS, and the MKL of torch's wheels takes AVX2 on processors that are not Intel's: 240 GFLOP/s on
two cores of an EPYC 9005 where oneDNN, which the same wheels carry for convolutions, gives 530. What that brings a
network stands in docs/performance.md under "What each saving brings".
"""

import torch
from torch import Tensor

from mdnc import _torch


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a (M, K)``, ``b (N, K)`` → ``a bᵀ (M, N)``."""
    if suits(a):
        return _torch.linear(_dense(a), _dense(b), None, 'none', [], '')  # type: ignore[no-any-return]
    return a @ b.t()


def suits(x: Tensor) -> bool:
    """Whether oneDNN computes products of such tensors."""
    return _AVAILABLE and x.dtype == torch.float32 and x.device.type == 'cpu' and x.numel() > 0


def by_blas(a: Tensor, b: Tensor) -> Tensor:
    """As `matmul`, without oneDNN."""
    return a @ b.t()


def never(x: Tensor) -> bool:
    """As `suits`, where there is no oneDNN."""
    return False


def _dense(x: Tensor) -> Tensor:
    # Of a matrix with gaps, as rows that a stride has left, oneDNN takes values one by one.
    if x.is_contiguous() or x.t().is_contiguous():
        return x
    return x.t().contiguous().t() if x.stride(0) == 1 else x.contiguous()


_AVAILABLE = _torch.linear is not None
