"""What fits into a number of bytes: the largest batch, the largest size, the memory level."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn

from mdnc.analysis.fake_run import undisturbed
from mdnc.analysis.memory import Optimizer, left_out, memory_forecast
from mdnc.analysis.table import bytes_text
from mdnc.modules import Network, _checks
from mdnc.modules._sizes import Size
from mdnc.ops.path import MEMORY_LEVELS

# From the fastest to the one that keeps least; the plain path keeps more than any of them.
LEVELS = tuple(level for level in MEMORY_LEVELS if level != 'plain')


@dataclass(frozen=True)
class Setting:
    """Fixed arguments of `memory_forecast` during a search, for the function ``owner``."""

    owner: str
    net: nn.Module
    dtype: torch.dtype | None
    optimizer: str | Optimizer | None
    _said: set[str] = field(default_factory=set)

    def needs(self, input_size: Any, batch_size: int) -> int:
        """Bytes at the peak; warns of operators whose workspaces it leaves out."""
        found = memory_forecast(self.net, input_size, batch_size, self.dtype, self.optimizer)
        if not self._said.issuperset(found.unmeasured):
            self._said.update(found.unmeasured)
            warnings.warn(f'{self.owner}: {left_out(found.unmeasured)}', stacklevel=4)
        return found.peak


def largest(fits: Callable[[int], bool], guess: int, least: int = 1) -> int:
    """The largest whole number that fits, if ``least`` does; a good guess saves evaluations."""
    low, step = max(guess, least), 1
    high = low + 1
    while low > least and not fits(low):
        low, high, step = max(least, low - step), low, 2 * step
    while fits(high):
        low, high, step = high, high + step, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def max_batch(
    net: nn.Module,
    size: Any,
    budget: int,
    dtype: torch.dtype | None = None,
    optimizer: str | Optimizer | None = 'adamw',
) -> int:
    """The largest batch with an estimated peak within a budget.

    Args:
        net: See `memory_forecast`.
        size: Its ``input_size``.
        budget: Largest estimated peak in bytes. Leave room for what is not estimated: the process itself,
            fragmentation, and on devices other than the CPU the workspaces of their kernels.
        dtype: See `memory_forecast`.
        optimizer: See `memory_forecast`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has an illegal value, or neither a batch of 1 nor one of 2 is within the
            budget.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.UNet2d(8, [1, 1])
        >>> batch = max_batch(net, (64, 63), budget=2**24)
        >>> memory_forecast(net, (64, 63), batch).peak <= 2**24 < memory_forecast(net, (64, 63), batch + 1).peak
        True
    """
    budget = _checks.integer('max_batch', 'budget', budget)
    setting = Setting('max_batch', net, dtype, optimizer)
    needs = cache(lambda batch: setting.needs(size, batch))
    # For a single sample torch computes convolutions in another way, which may need more than two samples.
    least = next((batch for batch in (1, 2) if needs(batch) <= budget), None)
    if least is None:
        raise ValueError(
            f'max_batch: a batch of 1 needs {bytes_text(needs(1))}, more than the budget of {bytes_text(budget)}.'
        )
    growth = needs(3) - needs(2)
    guess = 2 + (budget - needs(2)) // growth if growth > 0 else least
    return largest(lambda batch: needs(batch) <= budget, guess, least)


def max_size(
    net: nn.Module,
    batch: int,
    budget: int,
    dtype: torch.dtype | None = None,
    optimizer: str | Optimizer | None = 'adamw',
) -> Size:
    """The largest equal-sided input with an estimated peak within a budget.

    Args:
        net: One of mdnc's networks that take inputs of any size.
        batch: Size of the batch, at least 1.
        budget: See `max_batch`.
        dtype: See `memory_forecast`.
        optimizer: See `memory_forecast`.

    Returns:
        The spatial size.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has an illegal value, or the smallest size needs more than the budget.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.UNet2d(8, [1, 1])
        >>> side, _ = max_size(net, batch=2, budget=2**24)
        >>> memory_forecast(net, side, 2).peak <= 2**24 < memory_forecast(net, side + 1, 2).peak
        True
    """
    if not isinstance(net, Network) or net.plan.in_size is not None:
        raise TypeError(f'max_size: net must be a network of mdnc that takes any size, not {type(net).__name__}.')
    batch, budget = _checks.integer('max_size', 'batch', batch), _checks.integer('max_size', 'budget', budget)
    setting, least = Setting('max_size', net, dtype, optimizer), net.plan.min_side
    needs = cache(lambda side: setting.needs(side, batch))
    smallest = needs(least)
    if smallest > budget:
        raise ValueError(
            f'max_size: the smallest size, {net.min_size}, needs {bytes_text(smallest)}, '
            f'more than the budget of {bytes_text(budget)}.'
        )
    guess = _side(setting, batch, budget, least)
    return (largest(lambda side: needs(side) <= budget, guess, least),) * net.plan.order


def fitting_level(
    net: nn.Module,
    size: Any,
    batch: int,
    budget: int,
    dtype: torch.dtype | None = None,
    optimizer: str | Optimizer | None = 'adamw',
) -> str:
    """The memory level with the least recomputation among those with a peak within a budget.

    Args:
        net: One of mdnc's networks; its own level does not matter and is not changed.
        size: The ``input_size`` of `memory_forecast`.
        batch: Size of the batch, at least 1.
        budget: See `max_batch`.
        dtype: See `memory_forecast`.
        optimizer: See `memory_forecast`.

    Returns:
        The first that fits of ``'fast'``, ``'lean'``, ``'leaner'`` and ``'least'``, to set ``net.memory`` to.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has an illegal value, or no level fits.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.UNet2d(8, [1, 1])
        >>> net.memory = fitting_level(net, (64, 63), batch=8, budget=2**30)
    """
    if not isinstance(net, Network):
        raise TypeError(f'fitting_level: net must be one of the networks of mdnc, not {type(net).__name__}.')
    batch, budget = _checks.integer('fitting_level', 'batch', batch), _checks.integer('fitting_level', 'budget', budget)
    setting = Setting('fitting_level', net, dtype, optimizer)
    with undisturbed(net):
        for level in LEVELS:
            net.memory = level
            needed = setting.needs(size, batch)
            if needed <= budget:
                return level
    raise ValueError(
        f'fitting_level: even level {level!r} needs {bytes_text(needed)}, more than the budget of {bytes_text(budget)}.'
    )


def _side(setting: Setting, batch: int, budget: int, least: int) -> int:
    # Maps grow with a power of the side; rounding matters only for small ones, so the second guess is good.
    order, side = len(setting.net.min_size), 16 * least  # type: ignore[arg-type]
    for _ in range(2):
        forecast = memory_forecast(setting.net, side, batch, setting.dtype, setting.optimizer)
        fixed = forecast.total - forecast.saved
        side = max(int(side * (max(budget - fixed, 0) / max(forecast.peak - fixed, 1)) ** (1 / order)), least)
    return side
