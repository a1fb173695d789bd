"""Time: real steps of a plan's network on the device, and the epochs that fit into the hours."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from mdnc import analysis
from mdnc.analysis.memory import OPTIMIZERS
from mdnc.analysis.table import seconds_text
from mdnc.planning.budget import Budget
from mdnc.planning.fingerprint import Fingerprint
from mdnc.planning.need import Job
from mdnc.planning.planner import planned
from mdnc.planning.plans import Plan
from mdnc.planning.tally import rounded
from mdnc.training.tasks.network import build_network

_LIGHT = {'cpu': 3e10, 'cuda': 5e12}  # multiply-adds of a step that is timed: about a second
_STEPS = 3
_TRAINING = 0.8  # of the hours: the rest goes to validation, test and reading
_LEAST_STEPS = 500  # below, a smaller network that makes as many learns more
_TRIES = 3


def make_step(net: nn.Module, size: tuple[int, ...], batch: int, job: Job, budget: Budget) -> Callable[[], None]:
    """A training step on random values, on the budget's device."""
    device = torch.device(str(budget.device))
    net = net.to(device).train()
    if budget.precision == 'bf16-true':
        net = net.bfloat16()
    optimizer = OPTIMIZERS[budget.optimizer](list(net.parameters()))
    first = next(net.parameters())
    x = torch.randn(batch, job.channels, *size, device=device, dtype=first.dtype)
    kinds = {'bf16-mixed': torch.bfloat16, '16-mixed': torch.float16}
    enabled = budget.precision in kinds

    def step() -> None:
        with torch.autocast(device.type, kinds.get(str(budget.precision)), enabled=enabled):
            loss = job.loss(net(x))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == 'cuda':
            torch.cuda.synchronize()

    return step


@dataclass(frozen=True)
class Pace:
    """How fast a device trains a network.

    Args:
        seconds: Of a step, as planned.
        timed: What was timed: window, batch, seconds.
        rate: Multiply-adds a second.
    """

    seconds: float
    timed: dict[str, Any]
    rate: float


def paced(network: dict[str, Any], size: tuple[int, ...], batch: int, job: Job, budget: Budget, macs: int) -> Pace:
    """Time a few steps; where one would take long, of fewer samples or a smaller window, from which it is reckoned.

    Args:
        network: Name and arguments.
        size: Window of the plan.
        batch: Batch of the plan on one device.
        job: What it is trained for.
        budget: Its device, precision, optimizer.
        macs: Multiply-adds of the plan's step.
    """
    light = _LIGHT[str(budget.device)]
    few = max(2, min(batch, int(batch * light / max(macs, 1))))
    few = min(few, batch)
    left = macs * few / batch
    window = size
    if left > light:
        shrink = (light / left) ** (1 / len(size))
        window = tuple(max(min(length, 16), int(length * shrink)) for length in size)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        step = make_step(build_network(network), window, few, job, budget)
        step()
        times = []
        for _ in range(_STEPS):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    seconds = sorted(times)[_STEPS // 2]
    with torch.device('meta'):
        own = analysis.cost(build_network(network), (job.channels, *window), few, training=True).macs
    rate = own / seconds
    planned = seconds if (window, few) == (size, batch) else macs / rate
    return Pace(planned, {'window': list(window), 'batch': few, 'seconds': seconds}, rate)


def in_time(plan: Plan, data: Fingerprint, budget: Budget, given: Mapping[str, Any]) -> Plan:
    """Time a plan, and where its hours are too short for it, plan what they suffice for.

    Returns:
        A plan with what was timed, and the epochs that fit into the hours.
    """
    pace = _pace_of(plan, budget)
    if budget.hours is None or 'trainer.max_epochs' in given:
        return _told(plan, pace, budget)
    seconds = budget.hours * 3600 * _TRAINING
    for _ in range(_TRIES):
        wanted = plan.words['trainer.max_epochs'] * plan.forecast['steps']
        if pace.seconds * min(wanted, _LEAST_STEPS) <= seconds:
            break
        cap = pace.rate * seconds / min(wanted, _LEAST_STEPS)
        plan = planned(data, budget, given, macs=cap)
        pace = _pace_of(plan, budget)
    return _told(_with_epochs(plan, pace, seconds), pace, budget)


def _pace_of(plan: Plan, budget: Budget) -> Pace:
    words, forecast = plan.words, plan.forecast
    network = plan.recipe['model']['init_args']['network']
    job = Job(**forecast['job'])
    assert isinstance(words, dict)
    return paced(network, tuple(forecast['window']), forecast['batch'], job, budget, forecast['macs'])


def _with_epochs(plan: Plan, pace: Pace, seconds: float) -> Plan:
    steps, usual = plan.forecast['steps'], plan.words['trainer.max_epochs']
    possible = int(seconds / (pace.seconds * steps))
    epochs = max(1, min(_even(possible), 10 * usual))
    bound = (
        'the hours' if epochs < 10 * usual else f'ten times the usual {usual}: the hours would suffice for {possible}'
    )
    because = f'{bound}; {steps} steps an epoch of {seconds_text(pace.seconds)}'
    return replace(
        plan,
        choices=tuple(
            replace(choice, value=epochs, because=because) if choice.word == 'trainer.max_epochs' else choice
            for choice in plan.choices
        ),
    )


def _even(count: int) -> int:
    """A count rounded down to one or two digits, so that a little noise in times changes nothing."""
    unit: int = 10 ** max(len(str(max(count, 1))) - 2, 0)
    return count // unit * unit


def _told(plan: Plan, pace: Pace, budget: Budget) -> Plan:
    run = pace.seconds * plan.forecast['steps'] * plan.words['trainer.max_epochs'] / _TRAINING
    measured = {
        'step_seconds': rounded(pace.seconds, 3),
        'timed': {**pace.timed, 'seconds': rounded(pace.timed['seconds'], 3)},
        'macs_a_second': rounded(pace.rate, 3),
        'hours': rounded(run / 3600, 3),
    }
    notes = plan.notes
    if budget.hours is not None and run > budget.hours * 3600 * 1.1:
        notes += (f'the run takes about {run / 3600:.2g} h, more than the {budget.hours:g} h that were given',)
    return replace(plan, measured=measured, notes=notes)
