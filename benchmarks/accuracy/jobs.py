"""What is to be run on a set, and running it."""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.methods import BASELINES, FORMS, NETWORKS, averaged, figure
from benchmarks.accuracy.results import Row, add, read
from benchmarks.accuracy.sets import SETS, Set

Job = tuple[str, str, str, Sequence[int]]  # set, form, method, seeds


def jobs(sets: Sequence[Set], form: str, seeds: Sequence[int], known: Sequence[Row]) -> Iterator[Job]:
    """What is not known. All seeds of a network are one job, since an average needs the answers of all."""
    keys = {row.key for row in known}
    for each in sets:
        for method in [*BASELINES, *NETWORKS]:
            wanted = ['0'] if method in BASELINES else [*map(str, seeds), average_of(seeds)]
            if any((form, each.name, method, seed) not in keys for seed in wanted):
                yield each.name, form, method, seeds


def average_of(seeds: Sequence[int]) -> str:
    """How an average over these seeds is called."""
    return f'{seeds[0]}-{seeds[-1]}'


def run(job: Job) -> list[Row]:
    """The rows of a job."""
    name, form, method, seeds = job
    each = next(each for each in SETS if each.name == name)
    data = each.load()

    def row(seed: str, answers: Any, start: float) -> Row:
        found = round(figure(answers, data.test, each.quantity), 4)
        return Row(form, each.name, method, seed, found, round(time.process_time() - start, 1))

    start = time.process_time()
    if method in BASELINES:
        return [row('0', BASELINES[method](data, each.quantity, 0), start)]
    rows, answers = [], []
    for seed in seeds:
        start = time.process_time()
        answers.append(NETWORKS[method](data, each.quantity, seed, FORMS[form]))
        rows.append(row(str(seed), answers[-1], start))
    return [*rows, row(average_of(seeds), averaged(answers), time.process_time())]


def run_all(todo: Sequence[Job], workers: int, path: Path) -> None:
    """Run jobs side by side, each with one thread, and keep what each gives as soon as it is done."""
    context = multiprocessing.get_context('spawn')
    keys = {row.key for row in read(path)}
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        for done in as_completed([pool.submit(run, job) for job in todo]):
            for row in done.result():
                if row.key not in keys:
                    add(path, row)
