"""What is measured of a network that is ready to run."""

import gc
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mdnc.analysis import cost
from mdnc.analysis.allocated import allocated
from mdnc.analysis.memory import saved_by_part
from mdnc.analysis.parts import PartWatch

TIMED_SECONDS = 0.25  # a value is the mean of as many runs as fit in, one at least


class Subject(NamedTuple):
    """A network that is ready to run, and its input."""

    net: nn.Module
    x: Tensor

    def step(self) -> Tensor:
        """Forward, loss and backward into fresh gradients; the optimizer's update, alike for all, is left out."""
        self.net.zero_grad(set_to_none=True)
        loss = self.net(self.x).float().square().mean()
        loss.backward()
        return loss.detach()

    def infer(self) -> Tensor:
        """Forward alone."""
        with torch.inference_mode():
            return self.net(self.x)  # type: ignore[no-any-return]

    def settle(self) -> None:
        """Wait for the device."""
        if self.x.is_cuda:
            torch.cuda.synchronize()


def seconds(subject: Subject, run: Callable[[], object], times: int = 1) -> float:
    """Seconds that a run takes."""
    subject.settle()
    started = time.perf_counter()
    for _ in range(times):
        run()
    subject.settle()
    return (time.perf_counter() - started) / times


def _warm_seconds(subject: Subject, run: Callable[[], object]) -> float:
    # The first run finds the caches full of the other contenders' data, and says how often to run.
    first = seconds(subject, run)
    return seconds(subject, run, max(1, min(50, math.ceil(TIMED_SECONDS / first))))


def step_seconds(subject: Subject) -> float:
    """Time of a training step."""
    subject.net.train()
    return _warm_seconds(subject, subject.step)


def inference_seconds(subject: Subject) -> float:
    """Time of a forward pass without gradients."""
    subject.net.eval()
    return _warm_seconds(subject, subject.infer)


def kept_bytes(subject: Subject) -> float:
    """Bytes kept for backward: storages, each once, without parameters and input."""
    subject.net.train()
    # The watch of a network without parts: hooks on parts would change what a compiler sees.
    watch, own = PartWatch(nn.Identity()), (*subject.net.parameters(), subject.x)
    return sum(saved_by_part(watch, lambda: subject.net(subject.x), own).values())


def peak_bytes(subject: Subject) -> float:
    """The most that a step holds at a time beyond parameters and input: gradients, what is kept, and workspaces."""
    subject.net.train()
    subject.net.zero_grad(set_to_none=True)
    gc.collect()
    return allocated(subject.step, cuda=subject.x.is_cuda)


def resident_bytes(subject: Subject) -> float:
    """The most memory that the process has during a step, code and parameters among it, as the system counts it."""
    subject.net.train()
    status = Path('/proc/self/status')
    if not status.exists():
        return math.nan
    Path('/proc/self/clear_refs').write_text('5')  # the most so far is forgotten (proc(5))
    subject.step()
    line = next(line for line in status.read_text().splitlines() if line.startswith('VmHWM'))
    return int(line.split()[1]) * 1024


def macs(subject: Subject) -> float:
    """Multiply-adds of a forward pass."""
    return cost(subject.net, tuple(subject.x.shape[1:]), subject.x.shape[0]).macs


def elements_per_mac(subject: Subject) -> float:
    """Values that convolutions read and write for each multiply-add: the more, the more a net is bound by memory."""
    return cost(subject.net, tuple(subject.x.shape[1:]), subject.x.shape[0]).elements_per_mac


STEP, INFERENCE, KEPT, PEAK, FIRST = 'training step', 'inference', 'kept for backward', 'peak of a step', 'first step'
RESIDENT, MACS, ELEMENTS_PER_MAC = 'resident', 'multiply-adds', 'elements per multiply-add'
PROCESSOR = 'processor time of a step'  # of all threads together
TIMED = (STEP, INFERENCE)
COUNTED = (RESIDENT, KEPT, PEAK)  # in this order: a profiler needs memory of its own
MEASURES = {
    STEP: step_seconds,
    INFERENCE: inference_seconds,
    KEPT: kept_bytes,
    PEAK: peak_bytes,
    RESIDENT: resident_bytes,
    MACS: macs,
    ELEMENTS_PER_MAC: elements_per_mac,
}
