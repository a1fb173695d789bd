"""Figures over more values than memory holds: moments, extremes and percentiles of each channel."""

from typing import Any

import numpy as np

from mdnc.training.data.reader import Array

PERCENTILES = (0.5, 50.0, 99.5)
_SLOTS = 10_000  # values kept of each channel, from which percentiles are read


class Reservoir:
    """A fixed number of values drawn evenly from all that were seen, each slot for itself.

    When ``new`` values follow ``seen`` others, each slot takes one of the new ones with the chance new / (seen + new):
    so it holds each value seen so far with the same chance, whatever the pieces were.

    Args:
        slots: Number of values kept.
        seed: Start of the random choices; the same values in the same pieces give the same sample.
    """

    def __init__(self, slots: int = _SLOTS, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._kept = np.empty(slots)
        self._head: list[Array] = []  # all values, as long as they fit
        self.seen = 0

    def add(self, values: Array) -> None:
        """Take further values into account; those that are not finite are none."""
        values = np.asarray(values, np.float64).ravel()
        values = values[np.isfinite(values)]
        before, self.seen = self.seen, self.seen + values.size
        if not values.size:
            return
        if self.seen <= len(self._kept):
            self._head.append(values)
            return
        if self._head:
            values, before = np.concatenate([*self._head, values]), 0
            self._head = []
        taken = self._rng.random(len(self._kept)) * self.seen >= before
        self._kept[taken] = values[self._rng.integers(0, values.size, int(taken.sum()))]

    def percentiles(self) -> list[float]:
        """Those of `PERCENTILES`; exact as long as no more values were seen than are kept."""
        if not self.seen:
            return []
        values = np.concatenate(self._head) if self._head else self._kept
        return [rounded(value) for value in np.percentile(values, PERCENTILES)]


class RunningStatistics:
    """Mean, standard deviation, extremes and percentiles of each channel, and how many values were not finite.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        self._count = np.zeros(channels)
        self._mean = np.zeros(channels)
        self._scatter = np.zeros(channels)
        self._low, self._high = np.full(channels, np.inf), np.full(channels, -np.inf)
        self._reservoirs = [Reservoir(seed=channel) for channel in range(channels)]
        self.holes = 0

    def add(self, values: Array) -> None:
        """Take values ``(C, n)`` into account (Chan, Golub, LeVeque 1979: sums merged piece by piece)."""
        values = np.asarray(values, np.float64)
        known = np.isfinite(values)
        whole = bool(known.all())
        new = known.sum(1)
        self.holes += int(known.size - new.sum())
        filled = values if whole else np.where(known, values, 0)
        mean = filled.sum(1) / np.maximum(new, 1)
        deviation = (values - mean[:, None]) if whole else np.where(known, values - mean[:, None], 0)
        scatter = np.einsum('cn,cn->c', deviation, deviation)
        total = np.maximum(self._count + new, 1)
        shift = mean - self._mean
        self._scatter += scatter + shift**2 * self._count * new / total
        self._mean += shift * new / total
        self._count += new
        if values.shape[1]:
            self._low = np.minimum(self._low, (values if whole else np.where(known, values, np.inf)).min(1))
            self._high = np.maximum(self._high, (values if whole else np.where(known, values, -np.inf)).max(1))
        for reservoir, row in zip(self._reservoirs, values, strict=True):
            reservoir.add(row)

    def to_list(self) -> list[dict[str, Any]]:
        """The figures of each channel that has any, as plain values."""
        deviation = np.sqrt(self._scatter / np.maximum(self._count, 1))
        return [
            {
                'min': rounded(self._low[channel]),
                'max': rounded(self._high[channel]),
                'mean': rounded(self._mean[channel]),
                'std': rounded(deviation[channel]),
                'percentiles': reservoir.percentiles(),
            }
            for channel, reservoir in enumerate(self._reservoirs)
            if reservoir.seen
        ]


def rounded(value: float, digits: int = 6) -> float:
    """A figure with the digits that a person reads, so that the last bits of a sum decide nothing."""
    return float(f'{float(value):.{digits}g}')
