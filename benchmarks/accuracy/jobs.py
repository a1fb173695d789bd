"""What is to be run on a set, and running it."""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy.methods import BASELINES, FORMS, NETWORKS, averaged, figure
from benchmarks.accuracy.results import Row, add, average_of, read
from benchmarks.accuracy.sets import SETS, Set


@dataclass(frozen=True)
class Job:
    """A method to be run once on a set.

    Args:
        set: Name of the set.
        form: Key of `FORMS`.
        method: Key of `BASELINES` or `NETWORKS`.
        seed: Of the run.
    """

    set: str
    form: str
    method: str
    seed: int

    def answers(self, results: Path) -> Path:
        """Where the answers to the test part are kept, for averages over seeds: in a folder beside the results."""
        return results.with_suffix('') / f'{self.form} {self.set} {self.method} {self.seed}.npy'


def jobs(sets: Sequence[Set], form: str, seeds: Sequence[int], results: Path) -> Iterator[Job]:
    """What is not known: runs without a row, and runs without answers where their average is missing."""
    keys = {row.key for row in read(results)}
    for each in sets:
        for method in BASELINES:
            if (form, each.name, method, '0') not in keys:
                yield Job(each.name, form, method, 0)
        for method in NETWORKS:
            average = (form, each.name, method, average_of(seeds)) in keys
            for job in (Job(each.name, form, method, seed) for seed in seeds):
                known = (form, each.name, method, str(job.seed)) in keys
                if not known or not (average or job.answers(results).is_file()):
                    yield job


def run(job: Job, results: Path) -> Row:
    """Run a job: its row; answers of networks are kept."""
    start = time.process_time()
    each = _set(job.set)
    data = each.load()
    if job.method in BASELINES:
        answers = BASELINES[job.method](data, each.quantity, job.seed)
    else:
        answers = NETWORKS[job.method](data, each.quantity, job.seed, FORMS[job.form])
        _keep(job.answers(results), answers)
    found = round(figure(answers, data.test, each.quantity), 4)
    return Row(job.form, each.name, job.method, str(job.seed), found, round(time.process_time() - start, 1))


def run_all(todo: Sequence[Job], workers: int, results: Path) -> None:
    """Run jobs side by side, each with one thread, and keep what each gives as soon as it is done."""
    context = multiprocessing.get_context('spawn')
    keys = {row.key for row in read(results)}
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        for done in as_completed([pool.submit(run, job, results) for job in todo]):
            if done.result().key not in keys:
                add(results, done.result())


def average_all(sets: Sequence[Set], form: str, seeds: Sequence[int], results: Path) -> None:
    """The rows of averages over the seeds, of what was run with all of them."""
    keys = {row.key for row in read(results)}
    for each in sets:
        for method in NETWORKS:
            files = [Job(each.name, form, method, seed).answers(results) for seed in seeds]
            key = (form, each.name, method, average_of(seeds))
            if key not in keys and all(file.is_file() for file in files):
                answers = averaged([np.load(file) for file in files])
                found = round(figure(answers, each.load().test, each.quantity), 4)
                add(results, Row(*key, found, 0.0))


def _set(name: str) -> Set:
    return next(each for each in SETS if each.name == name)


def _keep(path: Path, answers: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix('.part')
    with part.open('wb') as file:
        np.save(file, answers)
    part.replace(path)
