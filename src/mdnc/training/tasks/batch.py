"""Batches of tasks: a dictionary, or inputs and targets from other loaders."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Any]
_LEGAL = "a dictionary with 'input' and usually 'target', a pair (inputs, targets), or inputs alone, as tensors"


def as_batch(owner: str, given: Any) -> Batch:
    """Convert a batch of any loader to the form that tasks use.

    Args:
        owner: Name of the task.
        given: A dictionary, which is returned as it is, a pair ``(inputs, targets)``, or inputs ``(B, C, L1, ...)``.

    Returns:
        ``input``, ``target`` if there is one (whole numbers as int64, others in single precision), and ``name``.

    Raises:
        TypeError: It has another form.
    """
    if isinstance(given, Mapping):
        if not isinstance(given.get('input'), Tensor):
            raise TypeError(
                f"{owner}: a batch must be {_LEGAL}, not a dictionary of {', '.join(map(str, given)) or 'nothing'}"
            )
        return _named(dict(given))
    parts = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not 1 <= len(parts) <= 2 or not all(isinstance(part, Tensor | np.ndarray) for part in parts):
        kinds = ', '.join(type(part).__name__ for part in parts[:5])
        raise TypeError(f'{owner}: a batch must be {_LEGAL}, not a {type(given).__name__} of {kinds or "nothing"}')
    values = [_plain(torch.as_tensor(part)) for part in parts]
    if len(values) == 2 and (not values[1].ndim or len(values[0]) != len(values[1])):
        raise TypeError(
            f'{owner}: a batch has inputs {tuple(values[0].shape)} and targets {tuple(values[1].shape)}, which are '
            'not one target per sample; a data set returns single samples: use a torch DataLoader'
        )
    return _named(dict(zip(('input', 'target'), values, strict=False)))


def _named(batch: Batch) -> Batch:
    batch.setdefault('name', [f'number {row} of its batch' for row in range(len(batch['input']))])
    return batch


def _plain(values: Tensor) -> Tensor:
    return values.float() if values.is_floating_point() else values.long()


def sizes(batch: Batch) -> list[tuple[int, ...]] | None:
    """Spatial size of each sample of a padded batch; None if nothing is padded."""
    lengths = batch.get('lengths')
    return None if lengths is None else [tuple(row) for row in lengths.reshape(len(lengths), -1).tolist()]


def inside(batch: Batch) -> Tensor | None:
    """Mask of a padded batch without its padding, ``(B, L1, ...)``; None if nothing is padded."""
    found = sizes(batch)
    if found is None:
        return None
    given = batch['input']
    mask = torch.zeros(len(given), *given.shape[2:], dtype=torch.bool, device=given.device)
    for row, size in zip(mask, found, strict=True):
        row[tuple(map(slice, size))] = True
    return mask


def cropped(values: Tensor, batch: Batch) -> Tensor | list[Tensor]:
    """Maps ``(B, ..., L1, ...)`` of a padded batch, each cropped to its sample; others unchanged."""
    found = sizes(batch)
    if found is None:
        return values
    return [row[(..., *map(slice, size))] for row, size in zip(values, found, strict=True)]


def real_rows(batch: Batch, known: Tensor | None = None) -> Tensor:
    """Numbers of the samples that count."""
    # Fillers and skipped samples have weight 0, and samples without known targets have no loss.
    given = batch['input']
    real = batch['weight'] > 0 if 'weight' in batch else torch.ones(len(given), dtype=torch.bool, device=given.device)
    if known is not None:
        real = real & known.flatten(1).any(1)
    numbers: Tensor = real.nonzero()[:, 0]
    return numbers


def chosen(batch: Batch, rows: Tensor) -> Batch:
    """Some samples of a batch."""
    if len(rows) == len(batch['input']):
        return batch
    numbers = rows.tolist()
    return {
        key: value[rows] if isinstance(value, Tensor) else [value[number] for number in numbers]
        for key, value in batch.items()
    }
