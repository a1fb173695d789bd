"""The largest window, batch and width that fit into a budget, at the memory level that recomputes least."""

import bisect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from mdnc import analysis
from mdnc.analysis.budget import largest
from mdnc.analysis.table import bytes_text
from mdnc.modules._sizes import text as size_text
from mdnc.planning.budget import Budget
from mdnc.planning.resources import Job, training_bytes

Size = tuple[int, ...]

LEVELS = ('lean', 'leaner', 'least')  # from the quicker to the more thrifty; 'fast' is taken where there is room
_FULL = 0.85  # of the budget: below, what is left is put to use
_TIGHT = 0.93  # of the budget: above, no larger window is looked for
_FINE = {1: 32, 2: 32, 3: 16}  # shortest side of a window
_ENOUGH = {1: 2048, 2: 192, 3: 64}  # side of a window from which a wider network is preferred
_FEW = 8  # samples of a step below which its gradient says little


class BudgetError(ValueError):
    """Nothing fits into a budget; the text says the least that works."""


@dataclass(frozen=True)
class Trial:
    """A network and a batch.

    Args:
        window: Spatial size of its input.
        width: Channels of its first level.
        level: Memory level.
        batch: Samples or windows on one device at once.
    """

    window: Size
    width: int
    level: str
    batch: int

    @property
    def positions(self) -> int:
        """Positions of one window."""
        return positions(self.window)


def positions(size: Size) -> int:
    """Positions of a size."""
    count = 1
    for length in size:
        count *= length
    return count


@dataclass(frozen=True)
class Limits:
    """What trials must stay within.

    Args:
        widths: Widths in the order in which they are tried; one, where it is given.
        levels: Memory levels in the order in which they are tried.
        goal: The largest window that makes sense.
        spacing: Distance of values along each axis, so that windows are cut in proportion.
        aim: Samples of a step that are wanted.
        most: Samples of a step that make sense.
        window: The window, where it is given.
        batch: The batch, where it is given.
        macs: Multiply-adds of a step that the hours allow.
        widest: Channels of the first level that the data are many enough for.
    """

    widths: tuple[int, ...]
    levels: tuple[str, ...]
    goal: Size
    spacing: tuple[float, ...]
    aim: int
    most: int
    window: Size | None = None
    batch: int | None = None
    macs: float | None = None
    widest: int = 64


class TrialCosts:
    """Answers what a trial takes, each once.

    Args:
        make: Makes the network of a window, a width and a level, on ``'meta'``.
        job: What it is trained for.
        budget: What it may take.
    """

    def __init__(self, make: Callable[[Size, int, str], nn.Module], job: Job, budget: Budget) -> None:
        self._make, self.job, self.budget = make, job, budget
        self._bytes: dict[Trial, int] = {}
        self._macs: dict[tuple[Size, int, str], int] = {}

    def network(self, trial: Trial) -> nn.Module:
        """The network of a trial."""
        with torch.device('meta'):
            return self._make(trial.window, trial.width, trial.level)

    def bytes(self, trial: Trial) -> int:
        """Bytes that a training step takes on one device."""
        if trial not in self._bytes:
            self._bytes[trial] = training_bytes(self.network(trial), trial.window, trial.batch, self.job, self.budget)
        return self._bytes[trial]

    def macs(self, trial: Trial) -> int:
        """Multiply-adds of a training step."""
        key = (trial.window, trial.width, trial.level)
        if key not in self._macs:
            cost = analysis.cost(self.network(trial), (self.job.channels, *trial.window), 1, training=True)
            self._macs[key] = cost.macs
        return self._macs[key] * trial.batch


class Fitter:
    """Looks for the best trial within limits.

    Args:
        bench: Answers what a trial takes.
        limits: What trials must stay within.
    """

    def __init__(self, bench: TrialCosts, limits: Limits) -> None:
        self._bench, self._limits = bench, limits
        self._room = bench.budget.bytes

    def fits(self, trial: Trial) -> bool:
        """Whether a trial is within memory and time."""
        macs = self._limits.macs
        return self._bench.bytes(trial) <= self._room and (macs is None or self._bench.macs(trial) <= macs)

    def best(self) -> Trial:
        """The trial to train.

        Raises:
            BudgetError: Not even the smallest fits.
        """
        found = self._start()
        if self._limits.window is None:
            found = self._grown(found)
        if self._limits.batch is None:
            found = self._filled(found)
        return self._used_up(found)

    def share(self, trial: Trial) -> float:
        """Share of the budget that a trial takes."""
        return self._bench.bytes(trial) / self._room

    @cached_property
    def fine(self) -> Size:
        """The smallest window that makes sense."""
        least = _FINE[len(self._limits.goal)]
        return tuple(min(least, length) for length in self._limits.goal)

    @cached_property
    def enough(self) -> Size:
        """A window that shows enough."""
        return self.cut(_ENOUGH[len(self._limits.goal)])

    def cut(self, edge: int) -> Size:
        """The window of an edge, counted in the distance of the finest axis, within what makes sense."""
        finest = min(self._limits.spacing)
        wanted = (round(edge * finest / each) for each in self._limits.spacing)
        triple = zip(wanted, self.fine, self._limits.goal, strict=True)
        return tuple(max(least, min(length, most)) for length, least, most in triple)

    def _start(self) -> Trial:
        limits = self._limits
        window, batch = limits.window or self.enough, limits.batch or min(limits.aim, _FEW)
        few = limits.batch or min(2, batch)
        for each in dict.fromkeys((batch, few)):
            for width in limits.widths:
                thrifty = Trial(window, width, limits.levels[-1], each)
                # What fewer samples need says at once that more of them are too many.
                if self._bench.bytes(replace(thrifty, batch=few)) * max(each / few / 2, 1) > self._room:
                    continue
                if self.fits(thrifty):
                    quicker = (replace(thrifty, level=level) for level in limits.levels[:-1])
                    return next(filter(self.fits, quicker), thrifty)
        return self._least(window, few)

    def _least(self, window: Size, few: int) -> Trial:
        """The smallest trial that makes sense.

        Raises:
            BudgetError: Not even that fits.
        """
        limits = self._limits
        least = Trial(limits.window or self.fine, limits.widths[-1], limits.levels[-1], few)
        lone = replace(least, batch=limits.batch or 1)
        for each in (replace(lone, window=window), least, lone):
            if self.fits(each):
                return each
        needed, shown = bytes_text(self._bench.bytes(lone)), size_text(lone.window)
        raise BudgetError(
            f'the budget of {bytes_text(self._room)} is too small: the least that works is {needed} '
            f'(batch {lone.batch} of {shown}, {lone.width} channels, memory {lone.level})'
        )

    def _grown(self, trial: Trial) -> Trial:
        """The largest window; what a step takes is nearly linear in its positions, so a few forecasts find it."""
        goal = replace(trial, window=self._limits.goal)
        if trial.window == goal.window or self.fits(goal):
            return goal
        low, high = 1, self._edge
        best, worst = trial, goal
        while high - low > 1 and self.share(best) < _TIGHT:
            edge = min(max(self._between(best, worst, low, high), low + 1), high - 1)
            found = replace(trial, window=self.cut(edge))
            if found.positions <= best.positions or self.fits(found):
                low, best = edge, max(best, found, key=lambda each: each.positions)
            else:
                high, worst = edge, found
        return best

    def holding(self, wanted: float) -> Size:
        """The largest window, in proportion, of no more positions than that."""
        edges = range(1, self._edge + 1)
        place = bisect.bisect_right(edges, wanted, key=lambda edge: positions(self.cut(edge)))
        return self.cut(max(place, 1))

    @property
    def _edge(self) -> int:
        """The edge of the largest window."""
        finest = min(self._limits.spacing)
        pairs = zip(self._limits.goal, self._limits.spacing, strict=True)
        return max(round(length * each / finest) for length, each in pairs)

    def _between(self, best: Trial, worst: Trial, low: int, high: int) -> int:
        """The edge at which the budget should be used up, by a line between what fits and what does not."""
        taken, more = self._bench.bytes(best), self._bench.bytes(worst)
        if more <= self._room:  # it is the hours that are too short
            return (low + high) // 2
        share = 0.99 * (self._room - taken) / max(more - taken, 1)
        wanted = best.positions + share * (worst.positions - best.positions)
        return bisect.bisect_right(range(low, high), wanted, key=lambda edge: positions(self.cut(edge))) + low - 1

    def _filled(self, trial: Trial) -> Trial:
        """The largest batch."""
        most = max(self._limits.most, trial.batch)
        if trial.batch >= most:
            return trial
        if self.fits(whole := replace(trial, batch=most)):
            return whole
        base = max(trial.batch, 2)
        two, three = (self._bench.bytes(replace(trial, batch=each)) for each in (base, base + 1))
        guess = base + max(self._room - two, 0) // max(three - two, 1)
        if self._limits.macs is not None:
            guess = min(guess, int(self._limits.macs * trial.batch / self._bench.macs(trial)))
        batch = largest(
            lambda each: each < most and self.fits(replace(trial, batch=each)), min(most - 1, guess), least=trial.batch
        )
        return replace(trial, batch=batch)

    def _used_up(self, trial: Trial) -> Trial:
        """What is left put to use: less recomputation, then a wider network."""
        limits = self._limits
        if self.share(trial) < _FULL and limits.levels[0] == 'lean' and trial.level == 'lean':
            fast = replace(trial, level='fast')
            trial = fast if self.fits(fast) else trial
        if len(limits.widths) == 1 or self.share(trial) >= _FULL:
            return trial
        if trial.batch >= limits.most and limits.widest <= 64:
            return trial
        most = limits.widest
        steps = (most - trial.width) // 4
        if steps < 1 or not self.fits(replace(trial, width=trial.width + 4)):
            return trial
        # What is kept grows with the width, what is learnt with its square.
        guess = min(steps, int(trial.width * (1 / self.share(trial) - 1) / 4))
        found = largest(
            lambda each: each <= steps and self.fits(replace(trial, width=trial.width + 4 * each)), max(guess, 1)
        )
        return replace(trial, width=trial.width + 4 * found)


def runner_up(bench: TrialCosts, limits: Limits, trial: Trial) -> str:
    """The most thrifty memory level, with the window or batch that it makes room for and what it costs in a step."""
    other = replace(trial, level=limits.levels[-1])
    if other.level == trial.level:
        return ''
    needed, room = bench.bytes(other), bench.budget.bytes
    gain = bench.bytes(trial) / max(needed, 1)
    fitter = Fitter(bench, limits)
    if trial.window == limits.goal:
        what = f'{bytes_text(needed)} instead of {bytes_text(bench.bytes(trial))}'
        if trial.batch < limits.most and limits.batch is None:
            batch = min(limits.most, int(trial.batch * room / needed))
            what = f'a batch of about {batch} instead of {trial.batch}'
    else:
        window = fitter.holding(trial.positions * gain)
        what = f'about {size_text(window)} instead of {size_text(trial.window)}'
    return f'memory {other.level}: {what}; blocks are run again in backward'


def text_of(size: Any) -> str:
    """A size as people write it."""
    return size_text(tuple(size))
