"""Norm and activation compiled for the device that the input is on: C++ on a CPU, Inductor's kernels elsewhere.

On a CPU the convolutions that suit it are computed by minimal filtering, and results lie in a pool of memory that is
kept from step to step.
"""

from types import ModuleType

from torch import Tensor

from mdnc.ops import copies, fused, inductor, native, pages, winograd
from mdnc.ops.planes import Affine, Gradients, Moments, Step


def forward(x: Tensor, affine: Affine, step: Step) -> tuple[Tensor, Moments]:
    """See ``planes.forward``."""
    return _for(x).forward(x, affine, step)  # type: ignore[no-any-return]


def rebuild(x: Tensor, at: Moments, affine: Affine, step: Step) -> tuple[Tensor, Tensor | None]:
    """See ``planes.rebuild``."""
    return _for(x).rebuild(x, at, affine, step)  # type: ignore[no-any-return]


def backward(g: Tensor, h: Tensor | None, x: Tensor, at: Moments, affine: Affine, step: Step) -> Gradients:
    """See ``planes.backward``."""
    return _for(x).backward(g, h, x, at, affine, step)  # type: ignore[no-any-return]


def _for(x: Tensor) -> ModuleType:
    return native if x.device.type == 'cpu' else inductor


KERNELS = fused.Kernels(
    forward, rebuild, backward, winograd.CONVOLUTION, pages.pooled, last=True, dense=copies.contiguous
)
