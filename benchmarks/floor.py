"""Where the time of a step and of inference goes, and what their convolutions would take at the rate of products."""

import time
from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import CASES
from benchmarks.contenders import PLAIN, WAYS
from benchmarks.measures import Subject
from mdnc.analysis.allocated import quiet
from mdnc.ops.matmul import matmul

WHOLE, CONVOLUTIONS = 'a step', 'its convolutions'
RESULT, FORWARD = 'inference', 'its convolutions, forward'
FLOOR = 'arithmetic alone'
# What computes convolutions; the profiler gives each the time that no operator inside it takes.
OPERATORS = ('conv', 'aten::mm', 'aten::bmm', 'aten::addmm', 'mkldnn::_linear')
STEPS = 3


def floor_seconds(case: str, threads: int) -> Iterator[tuple[str, str, float]]:
    """Contender, measure, seconds: in each way, and of the multiply-adds at the rate of products of matrices."""
    torch.set_num_threads(threads)
    for name in ('plain', 'lean (default)', 'optimized'):
        subject = _subject(case, WAYS[name])
        for run, whole, convolutions in ((subject.step, WHOLE, CONVOLUTIONS), (subject.infer, RESULT, FORWARD)):
            taken, own = _split(run)
            yield name, whole, taken
            yield name, convolutions, own
    subject, rate = _subject(case, (PLAIN,)), _flops_per_second()
    for run, measure in ((subject.step, CONVOLUTIONS), (subject.infer, FORWARD)):
        with FlopCounterMode(display=False) as counter:
            run()
        yield FLOOR, measure, counter.get_total_flops() / rate


def _subject(case: str, way: tuple) -> Subject:  # type: ignore[type-arg]
    net, x = CASES[case].setup('cpu')
    for step in way:
        net, x = step(net, x)
    net.train()
    return Subject(net, x)


def _split(run: Callable[[], object]) -> tuple[float, float]:
    for _ in range(STEPS):
        run()
    started = time.perf_counter()
    for _ in range(STEPS):
        run()
    whole = (time.perf_counter() - started) / STEPS
    with quiet(), profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            run()
    own = [each.self_cpu_time_total for each in profiler.key_averages() if any(op in each.key for op in OPERATORS)]
    return whole, sum(own) / 1e6 / STEPS


def _flops_per_second() -> float:
    """The best of some products of square matrices."""
    best = 0.0
    for side in (512, 1024, 2048):
        a, b = torch.randn(2, side, side)
        for _ in range(20):
            started = time.perf_counter()
            matmul(a, b)
            best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best
