"""Stand-ins for tensors: kernels of our own make for them what they make for tensors, and compute nothing.

That way a forecast sees every buffer that a real run has. A compiler's stand-ins, whose sizes may be symbols, are
others.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from mdnc import _torch
from mdnc._torch import FakeTensor


def stands_in(x: Tensor) -> bool:
    """Whether ``x`` stands in for a tensor in a forecast."""
    return type(x) is FakeTensor and x.fake_mode.shape_env is None


def known(x: Tensor) -> bool:
    """Whether ``x`` is a tensor, or stands in for one, rather than of another make."""
    return type(x) in (Tensor, nn.Parameter) or stands_in(x)


def on_real_tensors() -> AbstractContextManager[Any]:
    """Within it what is made are tensors, also where a forecast runs: kernels are proven on real ones."""
    # Without it kernels can be built before a forecast, not within one.
    return nullcontext() if _torch.no_dispatch_modes is None else _torch.no_dispatch_modes()
