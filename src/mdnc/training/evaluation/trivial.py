"""Whether a network answers better than what needs none: always the most frequent class, or the mean."""

import numpy as np

from mdnc.training.evaluation.result import Evaluation

_FEWEST = 20  # samples that tell it


def no_better(found: Evaluation) -> str | None:
    """In words, which answer that needs no network is as good; None: none is, or too few samples tell it.

    Args:
        found: What a test found.
    """
    if found.kind == 'quantities':
        worse = [name for name, figures in found.each.items() if figures['r2'].value <= 0]
        several = f' for {", ".join(worse[:3])}{", …" if len(worse) > 3 else ""}' if len(found.each) > 1 else ''
        return f'the mean of its targets{several}' if worse and found.samples >= _FEWEST else None
    if 'dice_foreground' in found.overall:
        return 'answering the first class everywhere' if found.overall['dice_foreground'].value == 0 else None
    if found.samples < _FEWEST:
        return None
    if found.confusion is None:
        there = np.stack([found.columns[f'target {name}'] for name in found.each], 1).mean(0)
        share = float(np.maximum(there, 1 - there).mean())
        return 'what is usual of each class' if found.overall['accuracy'].value <= share else None
    counts = found.confusion.sum(1)
    most = int(counts.argmax())
    as_good = found.overall['accuracy'].value <= counts[most] / counts.sum()
    return f'always answering {[*found.each][most]}' if as_good else None
