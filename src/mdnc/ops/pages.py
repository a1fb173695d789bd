"""Pages of memory on a CPU: touching fresh ones costs more than computing what is written to them."""

import ctypes
import functools
import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor

_HUGE_PAGE = 2 * 2**20
_MADV_HUGEPAGE = 14  # mman.h
LARGE_BYTES = 2 * _HUGE_PAGE  # one whole page lies in it wherever it begins
# glibc's mallopt: sizes from which memory comes from and goes back to the system (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30


def in_huge_pages(fresh: Tensor) -> Tensor:
    """``fresh`` itself, not yet written to; if it is large, the system is asked for pages of 2 MiB."""
    size, madvise = fresh.numel() * fresh.element_size(), _function('madvise')
    if size >= LARGE_BYTES and madvise is not None and type(fresh) is Tensor:  # a fake tensor has no memory
        start = fresh.data_ptr()
        first, last = -(-start // _HUGE_PAGE) * _HUGE_PAGE, (start + size) // _HUGE_PAGE * _HUGE_PAGE
        madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_HUGEPAGE)  # advice: may be refused
    return fresh


def keep() -> None:
    """Let the process keep freed memory for the next step; nothing where the C library is not glibc."""
    mallopt = _function('mallopt')
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _KEPT_BYTES - 1)


@functools.cache
def _function(name: str) -> Callable[..., Any] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == 'linux' else None
