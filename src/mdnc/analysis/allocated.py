"""Measured peak memory of a real run, as counted by torch's allocator, for comparison with estimates."""

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity, profile


def allocated(run: Callable[[], object], *, cuda: bool = False) -> int:
    """Peak of the bytes allocated by torch, relative to those before.

    Args:
        run: The function to run.
        cuda: Whether to measure the current CUDA device rather than the CPU.
    """
    return _on_cuda(run) if cuda else _on_cpu(run)


def _on_cuda(run: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated()) - before


def _on_cpu(run: Callable[[], object]) -> int:
    with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress stderr, where the profiler prints a message whatever its log level."""
    own = os.dup(2)
    with open(os.devnull, 'w') as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)
