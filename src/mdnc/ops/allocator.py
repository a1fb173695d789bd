"""Memory on a CPU: touching fresh pages of it costs more than computing what is written to them."""

import ctypes
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdnc.ops import building

# glibc's mallopt: sizes from which memory comes from and goes back to the system (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30
POOL = Path(__file__).with_name('allocator.cpp')


def keep() -> None:
    """Let the process keep freed memory for the next step; nothing where the C library is not glibc."""
    mallopt = _function('mallopt')
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _KEPT_BYTES - 1)


@functools.cache
def _function(name: str) -> Callable[..., Any] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == 'linux' else None


# ---- The pool ----


@contextmanager
def pooled(like: Tensor) -> Iterator[None]:
    """Have large tensors that this thread makes come from the pool, where ``like`` is a tensor in the CPU's memory."""
    pool = _pool() if type(like) in (Tensor, nn.Parameter) and like.device.type == 'cpu' else None
    if pool is None:
        yield
        return
    pool.pool_enter()
    try:
        yield
    finally:
        pool.pool_leave()


def release() -> None:
    """Give the pool's idle memory back to the system."""
    if _pool.cache_info().currsize and (pool := _pool()) is not None:
        pool.pool_release()


def held() -> tuple[int, int]:
    """Bytes of the pool in use, and bytes that it holds in all."""
    pool = _pool()
    return (0, 0) if pool is None else (pool.pool_bytes(0), pool.pool_bytes(1))


@functools.cache
def _pool() -> ctypes.PyDLL | None:
    with _making:  # threads that begin at once get the same, which was prepared once
        return _made()


_making = threading.Lock()


@functools.cache
def _made() -> ctypes.PyDLL | None:
    if sys.platform != 'linux':
        return None
    # Where torch's headers and libraries lie; torch.utils.cpp_extension knows too, but takes a second to import.
    folder = Path(torch.__file__).parent
    # The version is there to build anew for another torch in the same folder.
    torchs = [f'-DMDNC_TORCH={torch.__version__}', f'-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}']
    options = [f'-I{folder / "include"}', *torchs, f'-L{folder / "lib"}', '-lc10']
    try:
        pool = ctypes.PyDLL(str(building.library(POOL, options)))  # calls of a microsecond, which keep the GIL
    except building.FAILURES as error:
        building.warn(POOL, error)
        return None
    pool.pool_bytes.restype = ctypes.c_size_t
    pool.pool_prepare()
    return pool
