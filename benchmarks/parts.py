"""The parts of the benchmark. Each gives rows; contenders take turns within a round, in an order drawn for each."""

import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from tempfile import TemporaryDirectory

import torch

from benchmarks import measures
from benchmarks.cases import (
    CASES,
    CPU_CASES,
    CUDA_CASES,
    DOCUMENTED,
    ENLARGING,
    GROWTH_CASES,
    NORM_CASES,
    PEER_CASES,
    SAVING_CASES,
    SMALL_CASES,
)
from benchmarks.contenders import (
    BASELINES,
    BFLOAT16,
    COMPILED,
    EAGER,
    LOW_PRECISION,
    QUICK,
    SAVINGS,
    SHORTCUTS,
    WAYS,
    fits,
    saves,
)
from benchmarks.floor import floor_seconds
from benchmarks.kernels import KERNEL_CASES, kernel_jobs
from benchmarks.limits import AVX2_ALONE, KINDS, avx2_alone, taken
from benchmarks.peaks import MEASURED, peak_bytes
from benchmarks.peers import PEERS
from benchmarks.results import Row, Setting, rows
from benchmarks.worker import Failed, Job, Worker
from mdnc.ops import building

# Large buffers are kept for the next step instead of being handed back and asked for anew, in huge pages.
PAGES_KEPT = {
    'MALLOC_MMAP_THRESHOLD_': str(2**33),
    'MALLOC_TRIM_THRESHOLD_': str(2**34),
    'THP_MEM_ALLOC_ENABLE': '1',
}
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}

Values = dict[str, dict[str, list[float]]]  # measure → contender → a value for each round


@dataclass(frozen=True)
class Race:
    """A case, who runs it and how often.

    Args:
        setting: What its rows share.
        case: Name of the case.
        contenders: Their names; those that can't run inputs of this shape stay out.
        rounds: Number of rounds of the timed measures. The counted ones are taken once.
        counted: The counted measures.
    """

    setting: Setting
    case: str
    contenders: Sequence[str]
    rounds: int
    counted: Sequence[str] = measures.COUNTED

    def rows(self) -> list[Row]:
        """Run it."""
        with ExitStack() as stack:
            workers = dict(self._started(stack))
            values = self._values(workers)
        return [row for measure, own in values.items() for row in rows(self.setting, self.case, measure, own)]

    def _started(self, stack: ExitStack) -> Iterator[tuple[str, Worker]]:
        losses: dict[str, float] = {}
        for name in self.contenders:
            if not fits(name, CASES[self.case].shape):
                continue
            try:
                worker = stack.enter_context(running(self._job(name, stack.enter_context(TemporaryDirectory()))))
            except Failed as reason:
                say_left_out(name, reason)
                continue
            if name in WAYS:
                losses[name] = worker.first['loss']
                low = any(each.endswith(BFLOAT16) for each in losses)
                check_alike(losses, TOLERANCE[torch.bfloat16 if low else CASES[self.case].dtype])
            yield name, worker

    def _job(self, contender: str, cache: str) -> Job:
        kept = PAGES_KEPT if self.setting.allocator == 'pages kept' else {}
        environment = cached_in(cache) | kept
        return Job(self.case, contender, self.setting.device, self.setting.threads, environment)

    def _values(self, workers: Mapping[str, Worker]) -> Values:
        values: Values = defaultdict(dict)
        for name, worker in workers.items():
            values[measures.FIRST][name] = [worker.first['seconds']]
            for measure in self.counted:
                values[measure][name] = [worker.ask(measure)]
        for measure in measures.TIMED:
            takes = {name: partial(worker.ask, measure) for name, worker in workers.items()}
            values[measure] = in_turns(takes, self.rounds)
        return values


def cached_in(folder: str) -> dict[str, str]:
    """Have what is compiled kept in this folder."""
    return {'TORCHINDUCTOR_CACHE_DIR': folder, building.CACHE_VARIABLE: folder}


def check_alike(losses: Mapping[str, float], tolerance: float) -> None:
    """Refuse to compare contenders whose first losses differ: they don't compute the same."""
    first = next(iter(losses.values()))
    if not all(abs(loss - first) <= tolerance * abs(first) for loss in losses.values()):
        raise ArithmeticError(f'The contenders compute different things; losses of the first step: {losses}')


def in_turns(takes: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """A value of each for each round, so that what disturbs the machine meets all alike."""
    values: dict[str, list[float]] = {name: [] for name in takes}
    order, chance = list(takes), random.Random(0)
    for _ in range(rounds):
        chance.shuffle(order)
        for name in order:
            values[name].append(takes[name]())
    return values


@contextmanager
def running(job: Job) -> Iterator[Worker]:
    """A contender's process while it is needed."""
    worker = Worker(job)
    try:
        yield worker
    finally:
        worker.close()


def say(text: str) -> None:
    """Tell how far it is."""
    print(f'{time.strftime("%H:%M:%S")} {text}', file=sys.stderr, flush=True)


def say_left_out(name: str, reason: Failed) -> None:
    """Tell who could not run, and the last line of why."""
    say(f'{name} is left out: {str(reason).strip().splitlines()[-1]}')


# ---- The parts ----


def networks(setting: Setting, quick: bool) -> Iterator[Row]:
    """Every network by every contender that runs it eagerly."""
    for case in CUDA_CASES if setting.device == 'cuda' else CPU_CASES:
        say(case)
        yield from Race(setting, case, QUICK if quick else EAGER, 5 if quick else 21).rows()


def norms(setting: Setting, quick: bool) -> Iterator[Row]:
    """Networks with batch and group norm."""
    for case in NORM_CASES:
        say(case)
        yield from Race(setting, case, QUICK, 5 if quick else 21).rows()


def small(setting: Setting, quick: bool) -> Iterator[Row]:
    """Small networks, as the recipes have them."""
    for case in SMALL_CASES:
        say(case)
        yield from Race(setting, case, QUICK if quick else EAGER, 5 if quick else 21).rows()


def bfloat16(setting: Setting, quick: bool) -> Iterator[Row]:
    """Every network under autocast, beside float32."""
    for case in () if setting.device == 'cuda' else CPU_CASES:
        say(case)
        yield from Race(setting, case, LOW_PRECISION, 5 if quick else 21, (measures.KEPT, measures.PEAK)).rows()


def compiled(setting: Setting, quick: bool) -> Iterator[Row]:
    """Every network through ``torch.compile``, with torch's own layers and with the fused blocks as operators."""
    for case in CUDA_CASES if setting.device == 'cuda' else CPU_CASES:
        say(case)
        yield from Race(setting, case, COMPILED, 5 if quick else 21).rows()


def savings(setting: Setting, quick: bool) -> Iterator[Row]:
    """What each saving brings: the network, optimized and by default, with one undone at a time."""
    for case in CUDA_CASES if setting.device == 'cuda' else SAVING_CASES:
        say(case)
        names = [name for name in SAVINGS if saves(name, case)]
        yield from Race(setting, case, names, 5 if quick else 11, (measures.KEPT, measures.PEAK)).rows()


def shortcuts(setting: Setting, quick: bool) -> Iterator[Row]:
    """What it brings that a shortcut's 1 × … × 1 convolution comes before its up-sampling."""
    say(ENLARGING)
    yield from Race(setting, ENLARGING, SHORTCUTS, 5 if quick else 11, (measures.KEPT, measures.PEAK)).rows()


def pages(setting: Setting, quick: bool) -> Iterator[Row]:
    """The same with the C library told to keep pages; it matters on a CPU alone."""
    for case in () if setting.device == 'cuda' else CPU_CASES:
        say(f'{case}, pages kept')
        yield from Race(replace(setting, allocator='pages kept'), case, QUICK, 5 if quick else 21, ()).rows()


def growth(setting: Setting, quick: bool) -> Iterator[Row]:
    """How cost grows with voxels and with channels."""
    for case in list(GROWTH_CASES)[: 2 if quick else None]:
        say(case)
        yield from Race(setting, case, QUICK, 3 if quick else 7, (measures.KEPT,)).rows()


def start(setting: Setting, quick: bool) -> Iterator[Row]:
    """Time to the first step, without and with a cache on disk, and times of imports."""
    case = next(iter(CUDA_CASES)) if setting.device == 'cuda' else DOCUMENTED
    names = ('plain', 'lean (default)', 'optimized', *(() if quick else ('plain, compiled',)))
    say('first steps')
    cold: dict[str, list[float]] = defaultdict(list)
    cached: dict[str, list[float]] = defaultdict(list)
    for _ in range(1 if quick else 3):
        for name in names:
            with TemporaryDirectory() as cache:
                job = Job(case, name, setting.device, setting.threads, cached_in(cache))
                try:
                    both = _first_seconds(job), _first_seconds(job)
                except Failed as reason:
                    say_left_out(name, reason)
                    continue
                cold[name].append(both[0])
                cached[name].append(both[1])
    yield from rows(setting, case, 'first step, nothing cached', cold)
    yield from rows(setting, case, 'first step, cached', cached)
    say('imports')
    takes = {name: partial(_process_seconds, words) for name, words in IMPORTS.items()}
    yield from rows(setting, 'a new process', 'start', in_turns(takes, 3 if quick else 21), ['import torch'])


def _first_seconds(job: Job) -> float:
    with running(job) as worker:
        return worker.first['seconds']


IMPORTS = {
    'import torch': ('-c', 'import torch'),
    'import mdnc': ('-c', 'import mdnc'),
    'mdnc --help': ('-m', 'mdnc.cli', '--help'),
}


def _process_seconds(words: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def kernels(setting: Setting, quick: bool) -> Iterator[Row]:
    """Norm and activation alone: torch's kernels, Inductor's, and those that `mdnc.optimize` takes, in one process."""
    for case in KERNEL_CASES:
        say(case)
        for measure, takes in kernel_jobs(case, setting).items():
            yield from rows(setting, case, measure, in_turns(takes, 5 if quick else 21), ['torch'])


def floor(setting: Setting, quick: bool) -> Iterator[Row]:
    """Where the time of a step goes on a CPU, and what its arithmetic alone would take."""
    for case in () if setting.device == 'cuda' else CPU_CASES:
        say(case)
        values: Values = defaultdict(lambda: defaultdict(list))
        for _ in range(1 if quick else 5):
            for name, measure, seconds in floor_seconds(case, setting.threads):
                values[measure][name].append(seconds)
        for measure, own in values.items():
            yield from rows(setting, case, measure, own, ['plain'])


def limits(setting: Setting, quick: bool) -> Iterator[Row]:
    """Steps with each limit of shapes halved and doubled, where that changes anything; again with AVX2 alone."""
    with avx2_alone() as narrow:
        for case in () if setting.device == 'cuda' else (CPU_CASES | SMALL_CASES):
            for words, environment in (('', {}), (AVX2_ALONE, narrow)):
                say(f'{case}{words}')
                values = taken(case, setting.threads, 3 if quick else 11, environment)
                yield from limit_rows(setting, f'{case}{words}', values)


def limit_rows(setting: Setting, case: str, values: Mapping[str, list[float]]) -> Iterator[Row]:
    """Rows of those steps, relative to the same contender with the limits as they are."""
    for name in (way for way in values if way in KINDS):
        own = {way: seconds for way, seconds in values.items() if way.startswith(name)}
        yield from rows(setting, case, measures.PROCESSOR, own, [name])


def peak(setting: Setting, quick: bool) -> Iterator[Row]:
    """The peak of a step on a CPU, as forecast and as measured."""
    torch.set_num_threads(setting.threads)
    for case, values in () if setting.device == 'cuda' else peak_bytes(quick):
        say(case)
        yield from rows(setting, case, measures.PEAK, values, [MEASURED])


def peers(setting: Setting, quick: bool) -> Iterator[Row]:
    """Networks of other packages with as many multiply-adds."""
    ours = ('lean (default)', 'optimized')
    counted = (*measures.COUNTED, measures.MACS, measures.ELEMENTS_PER_MAC)
    for case, about in PEER_CASES.items():
        say(case)
        names = [name for name in PEERS if len(about.shape) == 4 or 'timm' not in name]
        found = Race(setting, case, (*BASELINES, *ours, *names), 5 if quick else 21, counted).rows()
        uneven = [row for row in found if row.measure == measures.MACS and not abs(row.ratio - 1) <= 0.03]
        if uneven:
            raise ArithmeticError(f'{case}: more than 3 % from its multiply-adds: {uneven}')
        yield from found


PARTS = {
    part.__name__: part
    for part in (
        networks,
        norms,
        small,
        bfloat16,
        compiled,
        savings,
        shortcuts,
        pages,
        growth,
        start,
        kernels,
        floor,
        limits,
        peak,
        peers,
    )
}
