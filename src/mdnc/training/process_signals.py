"""Signals to a run from a scheduler or keyboard, and how all its processes act on them together."""

import contextlib
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from enum import IntEnum
from types import FrameType
from typing import Any

import torch
from torch import distributed


class SignalAction(IntEnum):
    """The requested action; a larger value has precedence."""

    NOTHING = 0
    SAVE = 1  # SIGUSR1, or a checkpoint is due
    INTERRUPT = 2  # SIGINT
    TERMINATE = 3  # SIGTERM

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as in shells."""
        return 128 + (signal.SIGINT if self is SignalAction.INTERRUPT else signal.SIGTERM)


def _signal_actions() -> dict[int, SignalAction]:
    found = {int(signal.SIGINT): SignalAction.INTERRUPT, int(signal.SIGTERM): SignalAction.TERMINATE}
    if hasattr(signal, 'SIGUSR1'):  # missing on Windows
        found[int(signal.SIGUSR1)] = SignalAction.SAVE
    return found


def _install(handler: Any) -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in _signal_actions()}


class Watchdog:
    """Ends this process if it does not end after a signal because a call never returns.

    This happens if a worker or another process was stopped (SIGSTOP, an unreachable machine): Python runs its signal
    handlers only after the call. But it writes each signal to a file descriptor at once, which a thread reads.
    """

    leaving = 10.0  # seconds for exiting
    again = 5.0  # after a second Ctrl-C
    stepping = 30.0  # for a step, or ten times the longest so far
    saving = 60.0  # for a checkpoint, or ten times the longest so far

    def __init__(self) -> None:
        self.kin: Sequence[subprocess.Popen[bytes]] = ()  # further processes of the run that this one has started
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._before = -1
        self._mark, self._doing = time.monotonic(), 'leaving'
        self._longest: dict[str, float] = {}

    @property
    def running(self) -> bool:
        """Whether it is running."""
        return self._ends is not None

    def start(self) -> None:
        """Start, in the main thread; other threads get no signals."""
        if self.running or threading.current_thread() is not threading.main_thread():
            return
        self._ends = socket.socketpair()
        for end in self._ends:
            end.setblocking(False)
        self._before = signal.set_wakeup_fd(self._ends[1].fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._look, args=(self._ends[0],), daemon=True).start()

    def stop(self) -> None:
        """Stop."""
        if self._ends is not None and threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._before)
            self._ends[1].close()
            self._ends = None

    def forget(self) -> None:
        """Detach in a forked process, which handles its own signals."""
        if self._ends is not None:
            signal.set_wakeup_fd(-1)
            self._ends = None

    def begin(self, what: str) -> None:
        """Set what the process does now: ``'stepping'``, ``'saving'``, or ``'leaving'`` with nothing left to save."""
        now = time.monotonic()
        self._longest[self._doing] = max(self._longest.get(self._doing, 0.0), now - self._mark)
        self._longest['leaving'] = 0.0
        self._mark, self._doing = now, what

    def _allowed(self) -> float:
        least: float = getattr(self, self._doing)
        return max(least, 10 * self._longest.get(self._doing, 0.0))

    def _look(self, signals: socket.socket) -> None:
        told, latest, code = None, float('inf'), 0
        while True:
            if select.select([signals], [], [], 1.0)[0]:
                numbers = signals.recv(4096)
                if not numbers:
                    signals.close()
                    return
                for wish in (_signal_actions().get(number, SignalAction.NOTHING) for number in numbers):
                    if wish > SignalAction.SAVE:
                        if wish is SignalAction.INTERRUPT and code == wish.exit_code:
                            latest = time.monotonic() + self.again
                        told, code = told or time.monotonic(), max(code, wish.exit_code)
            if told and time.monotonic() > min(latest, max(told, self._mark) + self._allowed()):
                self._end(code)

    def kill(self, stopped: bool) -> None:
        """Kill the workers and further processes of the run, all of them or only stopped ones."""
        kin: list[Any] = [*multiprocessing.active_children(), *self.kin]
        for process in kin:
            if not stopped or _is_stopped(process.pid):
                process.kill()  # a stopped process reacts to nothing else, and waiting for it would never end

    def _end(self, code: int) -> None:
        text = 'ended without saving: a call did not return, perhaps because a worker or another process was stopped\n'
        os.write(2, text.encode())
        self.kill(stopped=False)
        os._exit(code)


def _is_stopped(process: int) -> bool:
    try:
        with open(f'/proc/{process}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] in 'Tt'
    except OSError:  # it has ended, or this is not Linux
        return False


WATCHDOG = Watchdog()
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=WATCHDOG.forget)


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Outside of training there is nothing to save: SIGTERM and SIGINT end the process with 143 and 130.

    Afterwards signals are handled as before, and the watchdog is stopped.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        if _signal_actions()[number] > SignalAction.SAVE:
            raise SystemExit(_signal_actions()[number].exit_code)

    looks = not WATCHDOG.running
    WATCHDOG.start()
    before = _install(handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, signal.SIG_DFL if former is None else former)
        if looks:
            WATCHDOG.stop()


def outlive_signals(worker: int) -> None:
    """Keep a worker of a loader alive when a signal reaches the whole process group, until the run has saved."""
    for number in _signal_actions():
        signal.signal(number, signal.SIG_IGN)
    # A parent that exits also sends SIGTERM, and waits: so the worker may live on for a while, but not for ever.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30) if hasattr(signal, 'alarm') else os._exit(0))


class SignalHandler:
    """Collects the signals of this process, and agrees with the other processes on an action.

    A signal may reach only one process, or several at different steps. A collective at each step, finished at the
    next one, makes all of them act after the same step without cost.
    """

    def __init__(self) -> None:
        self._own = self._told = SignalAction.NOTHING
        self._before: dict[int, Any] = {}
        self._group: Any = None
        self._flag = torch.zeros(1, dtype=torch.int64)
        self._work: Any = None
        self._watches = False

    def start(self, kin: Sequence[subprocess.Popen[bytes]] = ()) -> None:
        """Install the signal handlers.

        Args:
            kin: Processes of the run that this one has started, other than workers.
        """
        self._before = _install(self._note)
        self._watches = not WATCHDOG.running
        WATCHDOG.start()
        WATCHDOG.kin = kin
        WATCHDOG.begin('stepping')
        if distributed.is_available() and distributed.is_initialized() and distributed.get_backend() != 'gloo':
            self._group = distributed.new_group(backend='gloo')  # a flag on the host must not wait for the device

    def stop(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._told > SignalAction.SAVE and threading.current_thread() is threading.main_thread():
            if hasattr(signal, 'SIGCHLD'):
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises when a worker was killed
            WATCHDOG.kill(stopped=True)
        WATCHDOG.begin('leaving')
        if self._watches:
            WATCHDOG.stop()

    def _note(self, number: int, frame: FrameType | None) -> None:
        wish = _signal_actions()[number]
        self._told = max(self._told, wish)
        if wish is SignalAction.INTERRUPT and self._own is SignalAction.INTERRUPT:
            raise SystemExit(wish.exit_code)  # a second Ctrl-C does not wait for the checkpoint
        self.add(wish)

    def add(self, wish: SignalAction) -> None:
        """Request an action from this process."""
        self._own = max(self._own, wish)

    def agreed(self, now: bool = False) -> SignalAction:
        """The action of all processes after this step; every process must call this at the same steps.

        Args:
            now: Wait for the other processes instead of using their requests of the step before.
        """
        WATCHDOG.begin('stepping')
        if not (distributed.is_available() and distributed.is_initialized()):
            return self._take()
        decided = self._finish()
        if decided is SignalAction.NOTHING:
            self._flag.fill_(int(self._take()))
            self._work = distributed.all_reduce(self._flag, distributed.ReduceOp.MAX, group=self._group, async_op=True)
            decided = self._finish() if now else decided
        return decided

    def _take(self) -> SignalAction:
        own, self._own = self._own, SignalAction.NOTHING
        return own

    def _finish(self) -> SignalAction:
        if self._work is None:
            return SignalAction.NOTHING
        self._work.wait()
        self._work = None
        return SignalAction(int(self._flag))
