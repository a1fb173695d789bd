"""How far a figure of a test may be from what it stands for: 95 % confidence intervals, the same at every call.

Samples are taken to be independent of each other.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
_SEED = 0
_RESAMPLES = range(100, 1001)  # the fewest and the most
_DRAWN = 20_000_000  # samples that all resamples together may hold, beyond the fewest
_AT_ONCE = 5_000_000
Array = NDArray[Any]
Statistic = Callable[[Array], dict[str, Array]]


@dataclass(frozen=True)
class Figure:
    """A figure and its interval; NaN stands for what is not known.

    Args:
        value: The figure.
        low: Where the interval begins.
        high: Where it ends.
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    def plain(self) -> dict[str, float | None]:
        """As JSON has it: None for what is not known."""
        return {name: known(value) for name, value in vars(self).items()}


def known(value: float) -> float | None:
    """A number, or None for one that no JSON can hold."""
    return float(value) if math.isfinite(value) else None


def wilson(hits: float, total: float) -> Figure:
    """A share with Wilson's interval (E. B. Wilson, 1927); NaN of nothing.

    Example:
        >>> share = wilson(8, 10)
        >>> share.value, round(share.low, 4), round(share.high, 4)
        (0.8, 0.4902, 0.9433)
    """
    if not total:
        return Figure(math.nan)
    share, square = hits / total, Z * Z / total
    middle, spread = share + square / 2, Z * math.sqrt(share * (1 - share) / total + square / total / 4)
    return Figure(share, max((middle - spread) / (1 + square), 0.0), min((middle + spread) / (1 + square), 1.0))


def area(scores: Array, positive: Array) -> Figure:
    """The area under the ROC curve with DeLong's interval (E. R. DeLong et al., 1988).

    Args:
        scores: ``(N,)``, higher for what is rather positive.
        positive: ``(N,)``, which are positive; of one kind alone there is no area.
    """
    above, below = scores[positive], scores[~positive]
    if not len(above) or not len(below):
        return Figure(math.nan)
    ranks = _ranks(scores)
    # Of each positive the share of negatives below it, of each negative the share of positives above it.
    over = (ranks[positive] - _ranks(above)) / len(below)
    under = 1 - (ranks[~positive] - _ranks(below)) / len(above)
    value = float(over.mean())
    if min(len(above), len(below)) < 2:
        return Figure(value)
    half = Z * math.sqrt(over.var(ddof=1) / len(above) + under.var(ddof=1) / len(below))
    return _open(value, max(value - half, 0.0), min(value + half, 1.0))


def _ranks(values: Array) -> Array:
    """Ranks from 1 on, of equal values their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _open(value: float, low: float, high: float) -> Figure:
    # No error seen, or one sample: the width 0 would say that the figure is certain.
    return Figure(value, low, high) if high > low else Figure(value)


def resamples(total: int) -> int:
    """How often the bootstrap draws from so many samples."""
    return int(np.clip(_DRAWN // max(total, 1), _RESAMPLES[0], _RESAMPLES[-1]))


def _draws(counts: Array) -> Iterator[Array]:
    """How often each row is drawn, ``(B, M)``, some resamples at a time."""
    rng, total = np.random.default_rng(_SEED), int(counts.sum())
    pool = np.repeat(np.arange(len(counts)), counts)
    left = resamples(total)
    while left:
        some = min(left, max(1, _AT_ONCE // len(counts)))
        left -= some
        yield np.stack([np.bincount(pool[rng.integers(0, total, total)], minlength=len(counts)) for _ in range(some)])


def bootstrap(statistic: Statistic, rows: Array, counts: Array | None = None) -> dict[str, list[Figure]]:
    """Figures that follow from sums over samples, with percentiles of the bootstrap over samples (B. Efron, 1979).

    Args:
        statistic: Makes figures by name, ``(B, S)``, of sums ``(B, F)``.
        rows: What is summed, ``(M, F)``, a row for each sample, or for samples that are alike.
        counts: For how many samples each row stands; one each by default.
    """
    rows = np.asarray(rows, np.float64)
    counts = np.ones(len(rows), np.int64) if counts is None else counts
    with np.errstate(divide='ignore', invalid='ignore'):
        found = statistic((counts @ rows)[None])
        if counts.sum() < 2:
            return {name: [Figure(float(value)) for value in values[0]] for name, values in found.items()}
        drawn = [statistic(draw.astype(np.float64) @ rows) for draw in _draws(counts)]
    return {
        name: [
            _between(float(value), np.concatenate([part[name][:, place] for part in drawn]))
            for place, value in enumerate(values[0])
        ]
        for name, values in found.items()
    }


def _between(value: float, drawn: Array) -> Figure:
    drawn = drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or not len(drawn):
        return Figure(value)
    low, high = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return _open(value, float(low), float(high))
