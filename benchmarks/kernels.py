"""Norm and activation by themselves, as a network's deepest and shallowest maps need them."""

import math
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.results import Setting
from mdnc.ops.backend import DEFAULT, OPTIMIZED, TABLE, NormAct
from mdnc.ops.norm_act import Affine, Moments, Step

# Shape (N, C, L) and whether the channels lie innermost.
KERNEL_CASES = {
    f'{" × ".join(map(str, shape))}, {"channels last" if last else "contiguous"}': (shape, last)
    for shape in ((8, 64, 4032), (2, 32, 64000), (8, 512, 16))
    for last in (False, True)
}
CONTENDERS = {
    'torch': TABLE[DEFAULT, 'cpu'].norm_act,
    'Inductor': TABLE[OPTIMIZED, 'cuda'].norm_act,
    'optimized': TABLE[OPTIMIZED, 'cpu'].norm_act,
}
SECONDS = 0.05


def kernel_jobs(case: str, setting: Setting) -> dict[str, dict[str, Callable[[], float]]]:
    """For each measure and each contender what gives seconds a call."""
    torch.set_num_threads(setting.threads)
    (n, c, length), last = KERNEL_CASES[case]
    x = torch.randn((n, length, c) if last else (n, c, length), device=setting.device)
    x = x.transpose(1, 2) if last else x
    g, step = torch.randn_like(x), Step(1e-5, 'prelu', torch.float32)
    affine = Affine(*torch.rand(3, 1, c, 1, device=setting.device))
    _, at = NormAct().forward(x, affine, step)
    jobs = {
        'forward': lambda own: own.forward(x, affine, step),
        'rebuild': lambda own: own.rebuild(x, at, affine, step),
        'backward': lambda own: _backward(own, g, x, at, affine, step),
    }
    return {
        f'norm and activation, {measure}': {name: partial(_seconds, job, own) for name, own in CONTENDERS.items()}
        for measure, job in jobs.items()
    }


def _backward(own: NormAct, g: torch.Tensor, x: torch.Tensor, at: Moments, affine: Affine, step: Step) -> object:
    # The gradient may be overwritten; its values don't matter to the time, but they must stay finite.
    return own.backward(g.fill_(0.5), None, x, at, affine, step)


def _seconds(job: Callable[[NormAct], object], own: NormAct) -> float:
    started = time.perf_counter()
    job(own)
    first = time.perf_counter() - started
    times = max(1, min(200, math.ceil(SECONDS / first)))
    started = time.perf_counter()
    for _ in range(times):
        job(own)
    return (time.perf_counter() - started) / times
