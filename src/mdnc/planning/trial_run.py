"""A real step and a real prediction of a plan, whose memory is set against the forecast."""

from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch

from mdnc.analysis.allocated import allocated
from mdnc.analysis.table import bytes_text
from mdnc.planning.budget import Budget
from mdnc.planning.fingerprint import Fingerprint
from mdnc.planning.planner import planned
from mdnc.planning.plans import Plan
from mdnc.planning.resources import Job, TileLayout, prediction_need
from mdnc.planning.running_statistics import rounded
from mdnc.planning.timing import TrialRun, trial_run

_TRIES = 3
_FEW_TILES = 2  # along each axis of the sample that is predicted
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
        record = {'measured': found.pop('step'), 'error': rounded(error, 3), **found}
        plan = replace(plan, notes=plan.notes + notes, measured={**plan.measured, 'check': record})
        if record['measured'] <= budget.bytes:
            return plan
        notes = (
            f'a real step of {plan.forecast["batch"]} × {plan.forecast["window"]} took '
            f'{bytes_text(record["measured"])}, over the budget: this is the next smaller plan',
        )
        room = int(budget.bytes / (1 + error) * _MARGIN)
        plan = replace(
            planned(data, replace(budget, memory=room, reserve=0), given),
            budget=plan.budget,
        )
    raise RuntimeError(
        f'a real step took {bytes_text(record["measured"])} of {bytes_text(budget.bytes)} after {_TRIES} plans'
    )


def _measured(plan: Plan, budget: Budget) -> dict[str, Any]:
    """Bytes at the worst moment of a training step and of a prediction."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        made = trial_run(plan, budget)
        made.step()  # the optimizer's state is made by the first
        there = torch.cuda.memory_allocated() if made.x.is_cuda else made.resident
        step = there + allocated(made.step, cuda=made.x.is_cuda)
        return {'step': step, **_prediction(plan, made, budget)}


def _prediction(plan: Plan, made: TrialRun, budget: Budget) -> dict[str, Any]:
    """Bytes of a prediction laid as planned, of a sample that is a few tiles large, and its forecast's error."""
    told, job = plan.forecast['prediction']['largest'], Job(**plan.forecast['job'])
    laid = TileLayout(**{field.name: told[field.name] for field in fields(TileLayout)})
    size = tuple(told['size'])
    if laid.tile is not None:
        laid = replace(laid, tile=tuple(laid.tile))
        size = tuple(min(length, _FEW_TILES * tile) for length, tile in zip(size, told['tile'], strict=True))
    made.net.eval()
    need = prediction_need(made.net, size, laid, job, budget)
    x = torch.randn(laid.samples, job.channels, *size, device=made.x.device, dtype=made.x.dtype)
    run = partial(made.predict, laid.steps(job), x, slabs=laid.result == 'host')
    found = need.parameters + need.sample + allocated(run, cuda=x.is_cuda)
    return {'prediction': found, 'prediction_size': list(size), 'prediction_error': rounded(found / need.device - 1, 3)}
