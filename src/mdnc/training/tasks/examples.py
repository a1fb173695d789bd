"""The few test samples that a picture shows."""

from torch import Tensor

from mdnc.training.pictures import Example
from mdnc.training.tasks.task import Batch

# By order: a volume alone takes three rows of slices.
_SHOWN = {1: 3, 2: 4, 3: 1}


def keep_examples(kept: list[Example], batch: Batch, target: Tensor, output: Tensor) -> None:
    """Append samples to ``kept`` until there are enough for a picture.

    Args:
        kept: What was kept of earlier batches.
        batch: The batch.
        target: Truths ``(B, L1, ...)``.
        output: Predictions ``(B, L1, ...)``.
    """
    room = _SHOWN[output.ndim - 1] - len(kept)
    for number in range(min(room, len(output))):
        maps = (part[number].cpu().numpy() for part in (batch['input'], target, output))
        kept.append(Example(batch['name'][number], *maps))
