"""What a real run holds at its worst moment, as torch's allocator counts it: what forecasts are set against."""

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity, profile


def allocated(run: Callable[[], object], *, cuda: bool = False) -> int:
    """The most bytes that torch's allocator holds at a time beyond what it held before.

    Args:
        run: What is run.
        cuda: Whether the allocator of the current CUDA device is asked, rather than that of the CPU.
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
    """Nothing on stderr: the profiler's C++ announces itself there, whatever its log level."""
    own = os.dup(2)
    with open(os.devnull, 'w') as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)
