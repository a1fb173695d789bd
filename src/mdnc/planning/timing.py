"""Time: real steps of a plan's network on the device, and the epochs that fit into the hours."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mdnc import analysis
from mdnc.analysis.memory import OPTIMIZERS
from mdnc.analysis.table import seconds_text
from mdnc.modules._inference import Steps
from mdnc.planning.budget import Budget
from mdnc.planning.fingerprint import Fingerprint
from mdnc.planning.planner import planned
from mdnc.planning.plans import Plan
from mdnc.planning.resources import Job
from mdnc.planning.running_statistics import rounded
from mdnc.training.tasks.network import build_network

_LIGHT = {'cpu': 3e10, 'cuda': 5e12}  # multiply-adds of a step that is timed: about a second
_STEPS = 3
_TRAINING = 0.8  # of the hours: the rest goes to validation, test and reading
_LEAST_STEPS = 500  # below, a smaller network that makes as many learns more
_TRIES = 3


class TrialRun:
    """A network with its optimizer and random values, on the budget's device.

    Args:
        net: The network.
        size: Spatial size of the values.
        batch: How many.
        job: What it is trained for.
        budget: Device, precision, optimizer.
    """

    def __init__(self, net: nn.Module, size: tuple[int, ...], batch: int, job: Job, budget: Budget) -> None:
        device = torch.device(str(budget.device))
        kinds = {'bf16-mixed': torch.bfloat16, '16-mixed': torch.float16}
        self._cast = kinds.get(str(budget.precision))
        self.net = net.to(device).train()
        if budget.precision == 'bf16-true':
            self.net = self.net.bfloat16()
        self._job, self._optimizer = job, OPTIMIZERS[budget.optimizer](list(self.net.parameters()))
        dtype = next(self.net.parameters()).dtype
        self.x = torch.randn(batch, job.channels, *size, device=device, dtype=dtype)

    def step(self) -> None:
        """Forward, loss, backward, optimizer."""
        with torch.autocast(self.x.device.type, self._cast, enabled=self._cast is not None):
            loss = self._job.loss(self.net(self.x))
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self.x.is_cuda:
            torch.cuda.synchronize()

    def predict(self, steps: Steps, x: Tensor, *, slabs: bool) -> None:
        """Answer values as the task does, as a whole or slab by slab."""
        with torch.no_grad(), torch.autocast(x.device.type, self._cast, enabled=self._cast is not None):
            if not slabs:
                steps.last(steps.whole(self.net, x))
                return
            for _, part in steps.slabs(self.net, x):
                del part

    @property
    def resident(self) -> int:
        """Bytes that are there between steps: parameters, buffers, optimizer's state, values."""
        states = [each for state in self._optimizer.state.values() for each in state.values()]
        held = [*self.net.parameters(), *self.net.buffers(), self.x]
        held += [each for each in states if isinstance(each, Tensor)]
        return sum(each.numel() * each.element_size() for each in held)


def trial_run(plan: Plan, budget: Budget) -> TrialRun:
    """What a plan trains, as large as planned."""
    network = build_network(plan.recipe['model']['init_args']['network'])
    forecast = plan.forecast
    return TrialRun(network, tuple(forecast['window']), forecast['batch'], Job(**forecast['job']), budget)


@dataclass(frozen=True)
class StepTiming:
    """How fast a device trains a network.

    Args:
        seconds: Of a step, as planned.
        timed: What was timed: window, batch, seconds.
        rate: Multiply-adds a second.
    """

    seconds: float
    timed: dict[str, Any]
    rate: float


def paced(
    network: dict[str, Any], size: tuple[int, ...], batch: int, job: Job, budget: Budget, macs: int
) -> StepTiming:
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
        step = TrialRun(build_network(network), window, few, job, budget).step
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
    return StepTiming(planned, {'window': list(window), 'batch': few, 'seconds': seconds}, rate)


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


def _pace_of(plan: Plan, budget: Budget) -> StepTiming:
    words, forecast = plan.words, plan.forecast
    network = plan.recipe['model']['init_args']['network']
    job = Job(**forecast['job'])
    assert isinstance(words, dict)
    return paced(network, tuple(forecast['window']), forecast['batch'], job, budget, forecast['macs'])


def _with_epochs(plan: Plan, pace: StepTiming, seconds: float) -> Plan:
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


def _told(plan: Plan, pace: StepTiming, budget: Budget) -> Plan:
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
