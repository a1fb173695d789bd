"""What becomes of a step where one of the limits of ``mdnc.ops.limits`` is half as large, or twice.

``python -m benchmarks.limits CASE THREADS ROUNDS`` prints seconds of steps by contender, as JSON. It is a process of
its own, since instruction sets are chosen when torch is imported. The seconds are those of the processor, of all
threads together: a limit is judged by a few per cent, which other programs would hide in the time on the clock.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import CASES
from benchmarks.contenders import WAYS, exchanged
from benchmarks.measures import Subject
from mdnc.analysis.allocated import quiet
from mdnc.ops import building
from mdnc.ops.backend import DEFAULT, OPTIMIZED, TABLE
from mdnc.ops.limits import LIMITS, Limits

# Which limits a contender has, by the beginnings of their names.
KINDS = {
    'optimized': (OPTIMIZED, ('im2col', 'sample', 'tap', 'winograd', 'signal', 'small')),
    'lean (default)': (DEFAULT, ('few', 'im2col', 'sample')),
}
FACTORS = {'halved': 0.5, 'doubled': 2.0}
AVX2_ALONE = ', AVX2 alone'
# Another kind of processor: half as wide registers. The last option is the one that a compiler follows.
AVX2 = {'ONEDNN_MAX_CPU_ISA': 'AVX2', 'ATEN_CPU_CAPABILITY': 'avx2'}
_COMPILER = '#!/bin/sh\nexec {compiler} "$@" -march=haswell\n'
STEPS_SECONDS = 0.15

Taken = dict[str, list[float]]


@contextmanager
def avx2_alone() -> Iterator[dict[str, str]]:
    """Variables of a process that computes with AVX2 alone, kernels of this library too."""
    with TemporaryDirectory() as folder:
        compiler = Path(folder) / 'c++'
        compiler.write_text(_COMPILER.format(compiler=os.environ.get('CXX', 'g++')))
        compiler.chmod(0o700)
        yield {**AVX2, 'CXX': str(compiler), building.CACHE_VARIABLE: folder}


def changed(limit: str, factor: float) -> Limits:
    """The limits with one of them changed; a fraction stays one."""
    value = getattr(LIMITS, limit)
    return LIMITS._replace(**{limit: min(1.0, value * factor) if isinstance(value, float) else int(value * factor)})


def step_seconds(case: str, threads: int, rounds: int) -> Taken:
    """Seconds of a step by contender, round by round, of those limits that change how the network is computed."""
    torch.set_num_threads(threads)
    found: Taken = {}
    for name, (backend, kinds) in KINDS.items():
        net, x = CASES[case].setup('cpu')
        for step in WAYS[name]:
            net, x = step(net, x)
        found |= _in_turns(Subject(net.train(), x), name, backend, kinds, rounds)
    return found


def _in_turns(subject: Subject, name: str, backend: str, kinds: tuple[str, ...], rounds: int) -> Taken:
    ways = {name: LIMITS}
    for limit in (each for each in Limits._fields if each.startswith(kinds)):
        ways |= {f'{name}, {limit} {word}': changed(limit, factor) for word, factor in FACTORS.items()}
    _operators(subject, backend, LIMITS)  # what is compiled at first use is compiled
    usual = _operators(subject, backend, LIMITS)
    ways = {way: own for way, own in ways.items() if way == name or _changes(subject, backend, own, usual)}
    found: Taken = {way: [] for way in ways}
    for number in range(rounds):
        order = [*ways] if number % 2 else [*reversed(ways)]
        for way in order:
            _set(backend, ways[way])
            first = _processor_seconds(subject)
            found[way].append(_processor_seconds(subject, max(1, round(STEPS_SECONDS / first))))
    _set(backend, LIMITS)
    return found


def _processor_seconds(subject: Subject, steps: int = 1) -> float:
    started = time.process_time()
    for _ in range(steps):
        subject.step()
    return (time.process_time() - started) / steps


def _changes(subject: Subject, backend: str, limits: Limits, usual: Mapping[str, int]) -> bool:
    # Twice, for the first step with these limits may compile something.
    return all(_operators(subject, backend, limits) != usual for _ in range(2))


def _operators(subject: Subject, backend: str, limits: Limits) -> Mapping[str, int]:
    """The operators of a step and how often they are called, which say how it was computed."""
    _set(backend, limits)
    with quiet(), profile(activities=[ProfilerActivity.CPU]) as profiler:
        subject.step()
    return Counter({each.key: each.count for each in profiler.key_averages()})


def _set(backend: str, limits: Limits) -> None:
    tools = TABLE[backend, 'cpu'].tools._replace(limits=limits)
    exchanged(backend, tools=tools)(torch.nn.Identity(), torch.empty(0))


def taken(case: str, threads: int, rounds: int, environment: Mapping[str, str]) -> Taken:
    """`step_seconds` in a process with these variables."""
    command = [sys.executable, '-m', 'benchmarks.limits', case, str(threads), str(rounds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


if __name__ == '__main__':
    print(json.dumps(step_seconds(sys.argv[1], *map(int, sys.argv[2:]))))
