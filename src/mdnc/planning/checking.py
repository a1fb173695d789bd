"""A real step and a real prediction of a plan, whose memory is set against the forecast."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from mdnc.analysis.table import bytes_text
from mdnc.planning.budget import Budget
from mdnc.planning.fingerprint import Fingerprint
from mdnc.planning.pacing import Rehearsal, rehearsal
from mdnc.planning.planner import planned
from mdnc.planning.plans import Plan
from mdnc.planning.tally import rounded

_TRIES = 3
_MARGIN = 0.98  # of what a smaller plan may take, beside the error that was found


def checked(plan: Plan, data: Fingerprint, budget: Budget, given: dict[str, Any]) -> Plan:
    """Run a step of a plan; where it takes more than the budget, take the next smaller plan and say so.

    Raises:
        RuntimeError: Even smaller plans take more than the budget.
    """
    notes: tuple[str, ...] = ()
    for _ in range(_TRIES):
        found = _measured(plan, budget)
        error = found['step'] / plan.forecast['bytes'] - 1
        record = {'measured': found['step'], 'error': rounded(error, 3), 'prediction': found['prediction']}
        plan = replace(plan, notes=plan.notes + notes, measured={**plan.measured, 'check': record})
        if found['step'] <= budget.bytes:
            return plan
        notes = (
            f'a real step of {plan.forecast["batch"]} × {plan.forecast["window"]} took '
            f'{bytes_text(found["step"])}, over the budget: this is the next smaller plan',
        )
        room = int(budget.bytes / (1 + error) * _MARGIN)
        plan = replace(
            planned(data, replace(budget, memory=room, reserve=0), given),
            budget=plan.budget,
        )
    raise RuntimeError(
        f'a real step took {bytes_text(found["step"])} of {bytes_text(budget.bytes)} after {_TRIES} plans'
    )


def _measured(plan: Plan, budget: Budget) -> dict[str, int]:
    """Bytes at the worst moment of a training step and of a prediction of one window."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        made = rehearsal(plan, budget)
        made.step()  # the optimizer's state is made by the first
        step = _peak(made.step, made)
        made.net.eval()
        return {'step': step, 'prediction': _peak(made.predict, made)}


def _peak(run: Callable[[], None], made: Rehearsal) -> int:
    if made.x.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated())
    with _quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    held = most = 0
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most + made.resident


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on stderr: the profiler's C++ announces itself there."""
    own = os.dup(2)
    with open(os.devnull, 'w') as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)
