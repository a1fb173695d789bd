"""Names for code that torch's profiler does not see."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from mdnc import _torch


def named(name: str) -> AbstractContextManager[Any]:
    """In torch's profiler, if it is on, what runs within stands under this name."""
    return torch.profiler.record_function(name) if _torch.profiling() else nullcontext()
