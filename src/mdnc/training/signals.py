"""What a scheduler or a keyboard asks of a run, and how all its processes agree on it."""

import os
import signal
import threading
from enum import IntEnum
from types import FrameType
from typing import Any

import torch
from torch import distributed


class Wish(IntEnum):
    """What was asked for; the greater outweighs the smaller."""

    NOTHING = 0
    SAVE = 1  # SIGUSR1, or the time for a checkpoint has come
    INTERRUPT = 2  # SIGINT
    TERMINATE = 3  # SIGTERM

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells count."""
        return 128 + (signal.SIGINT if self is Wish.INTERRUPT else signal.SIGTERM)


def _wishes() -> dict[int, Wish]:
    found = {int(signal.SIGINT): Wish.INTERRUPT, int(signal.SIGTERM): Wish.TERMINATE}
    if hasattr(signal, 'SIGUSR1'):  # Windows has none
        found[int(signal.SIGUSR1)] = Wish.SAVE
    return found


def _install(handler: Any) -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in _wishes()}


def leave_at_once() -> None:
    """Outside of training there is nothing to save: SIGTERM and SIGINT end the process with 143 and 130."""

    def handler(number: int, frame: FrameType | None) -> None:
        if _wishes()[number] > Wish.SAVE:
            raise SystemExit(_wishes()[number].exit_code)

    _install(handler)


def outlive_signals(worker: int) -> None:
    """Keep a loader's worker alive when a signal reaches the whole process group, until the run has saved."""
    for number in _wishes():
        signal.signal(number, signal.SIG_IGN)
    # A parent that leaves sends SIGTERM too, and waits: so the worker may outlive it for a while, not for ever.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30) if hasattr(signal, 'alarm') else os._exit(0))


class Wishes:
    """Collects the signals of this process, and agrees with the other processes on what to do.

    A signal may reach one process only, or several at different steps. A collective at each step, waited for at the
    next one, makes all of them act after the same step and costs no time.
    """

    def __init__(self) -> None:
        self._own = Wish.NOTHING
        self._before: dict[int, Any] = {}
        self._group: Any = None
        self._flag = torch.zeros(1, dtype=torch.int64)
        self._work: Any = None

    def start(self) -> None:
        """Take over the signals."""
        self._before = _install(self._note)
        if distributed.is_available() and distributed.is_initialized() and distributed.get_backend() != 'gloo':
            self._group = distributed.new_group(backend='gloo')  # a flag on the host must not wait for the device

    def stop(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        wish = _wishes()[number]
        if wish is Wish.INTERRUPT and self._own is Wish.INTERRUPT:
            raise SystemExit(wish.exit_code)  # a second Ctrl-C will not wait for the save
        self.add(wish)

    def add(self, wish: Wish) -> None:
        """Ask for something on behalf of this process."""
        self._own = max(self._own, wish)

    def agreed(self, now: bool = False) -> Wish:
        """What all processes shall do after this step; every process calls this at the same steps.

        Args:
            now: Wait for the other processes instead of taking what they said a step ago.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            return self._take()
        decided = self._finish()
        if decided is Wish.NOTHING:
            self._flag.fill_(int(self._take()))
            self._work = distributed.all_reduce(self._flag, distributed.ReduceOp.MAX, group=self._group, async_op=True)
            decided = self._finish() if now else decided
        return decided

    def _take(self) -> Wish:
        own, self._own = self._own, Wish.NOTHING
        return own

    def _finish(self) -> Wish:
        if self._work is None:
            return Wish.NOTHING
        self._work.wait()
        self._work = None
        return Wish(int(self._flag))
