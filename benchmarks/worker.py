"""A contender in a process of its own, and its parent's handle on it."""

import multiprocessing
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any


@dataclass(frozen=True)
class Job:
    """What a process is to run.

    Args:
        case: Name of a case.
        contender: Name of a contender.
        device: ``'cpu'`` or ``'cuda'``.
        threads: Threads that torch computes with.
        environment: Variables that the process starts with.
    """

    case: str
    contender: str
    device: str = 'cpu'
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


class Failed(Exception):
    """A contender could not run; the text is its traceback."""


class Worker:
    """Starts a contender's process, waits for its first training step, and asks it for values."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context('spawn')
        self._connection, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(far, job))
        with _environment(job.environment):
            self._process.start()
        far.close()
        try:
            self.first: dict[str, float] = self._answer()
        except Failed:
            self.close()
            raise

    def ask(self, measure: str) -> float:
        """The value of a measure, taken now."""
        self._connection.send(measure)
        return self._answer()  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def _answer(self) -> Any:
        try:
            good, value = self._connection.recv()
        except EOFError:
            good, value = False, 'the process died'
        if not good:
            raise Failed(value)
        return value


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(connection: Connection, job: Job) -> None:
    try:
        from benchmarks.measures import MEASURES

        subject, first = _ready(job)
        connection.send((True, first))
        while True:
            connection.send((True, MEASURES[connection.recv()](subject)))
    except EOFError:  # the parent has closed its end
        pass
    except Exception:
        connection.send((False, traceback.format_exc()))


def _ready(job: Job) -> tuple[Any, dict[str, float]]:
    import time

    import torch

    from benchmarks.cases import CASES
    from benchmarks.contenders import WAYS
    from benchmarks.measures import Subject
    from benchmarks.peers import PEERS

    torch.set_num_threads(job.threads)
    net, x = CASES[job.case].setup(job.device)
    started = time.perf_counter()
    for step in (WAYS | PEERS)[job.contender]:
        net, x = step(net, x)
    subject = Subject(net, x)
    loss = subject.step().item()
    return subject, {'seconds': time.perf_counter() - started, 'loss': loss}
