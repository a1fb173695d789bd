"""Whether the probability of an answer is how often such answers are right."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BINS = 10


def binned(confidence: Array, correct: Array) -> tuple[Array, Array, Array]:
    """Answers in bins of equal width by their probability: how many, their mean probability, the share that is right.

    Args:
        confidence: ``(N,)`` probabilities of the answers.
        correct: ``(N,)``, which are right.

    Returns:
        Arrays ``(10,)``; NaN for means of empty bins.
    """
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts, sums, hits = (np.bincount(place, weights, BINS) for weights in (None, confidence, correct))
    with np.errstate(invalid='ignore'):
        return counts, sums / counts, hits / counts


def calibration_error(confidence: Array, correct: Array) -> float:
    """The expected calibration error (C. Guo et al., 2017): the mean over answers of |probability − share right|."""
    counts, means, shares = binned(confidence, correct)
    there = counts > 0
    return float(np.sum(counts[there] * np.abs(means - shares)[there]) / max(counts.sum(), 1))
