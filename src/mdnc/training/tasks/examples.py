"""Test samples for a picture."""

from typing import Any

from torch import Tensor

from mdnc.training.pictures import Example, Style
from mdnc.training.tasks.batch import Batch, sizes

# By order: one volume takes three rows of slices. Of several channels the first three are shown.
_SHOWN = {1: 3, 2: 4, 3: 1}
CHANNELS = 3


def keep_examples(kept: list[Example], batch: Batch, target: Tensor, output: Tensor, style: Style) -> None:
    """Append samples to ``kept`` until there are enough for a picture, separately for each channel.

    Args:
        kept: Samples of earlier batches.
        batch: The batch; ``step`` if only every so many-th position of its samples is in it.
        target: Truths, class numbers ``(B, L1, ...)`` or quantities ``(B, K, L1, ...)``.
        output: Predictions of the same shape.
        style: What the values are.
    """
    if style.classes is not None:
        target, output = target[:, None], output[:, None]
    channels = min(output.shape[1], CHANNELS)
    room = max(1, _SHOWN[output.ndim - 2] // channels) - len(kept) // channels
    real = sizes(batch)
    for number in range(min(room, len(output))):
        for channel in range(channels):
            given = batch['input'][number]
            alike = style.alike and len(given) >= output.shape[1]  # a residual is added to the first channels
            maps = (given[channel : channel + 1] if alike else given, target[number, channel], output[number, channel])
            place: Any = ... if real is None else (..., *map(slice, real[number]))
            arrays = [part[place].cpu().numpy() for part in maps]
            which = channel if output.shape[1] > 1 else None
            name, step = batch['name'][number], batch.get('step', 1)
            kept.append(Example(name, arrays[0], arrays[1], arrays[2], which, step=step))
