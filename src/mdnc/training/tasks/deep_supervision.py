"""Deep supervision: losses of networks with outputs at several levels in training."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mdnc.training.tasks.batch import Batch

_MAPS = ('target', 'known', 'mixed_target', 'mixed_known')


def level_losses(
    losses: Callable[[Tensor, Batch], Tensor], outputs: Sequence[Tensor], batch: Batch, owner: str
) -> Tensor:
    """Losses ``(B,)`` of all levels, each weighted half as much as the finer one (Isensee et al., nnU-Net, 2021).

    Args:
        losses: Losses ``(B,)`` of one output.
        outputs: ``(B, K, L1, ...)``, the finest first.
        batch: Its maps are reduced to the size of each output: class numbers and masks to the nearest
            value, quantities to means.
        owner: Name of the task, for error messages.

    Raises:
        ValueError: The outputs are not from several levels, or the batch contains samples of several sizes.
    """
    if len({(output.ndim, output.shape[1]) for output in outputs}) > 1 or outputs[0].ndim < 3:
        raise ValueError(
            f'{owner}: the network returns a tuple of {len(outputs)} in training, {[tuple(y.shape) for y in outputs]}, '
            'but a task needs one output, or one at each level of a U-Net (deep_supervision)'
        )
    if 'lengths' in batch:
        raise ValueError(f'{owner}: deep_supervision needs samples of one size, but those of a batch differ: set crop')
    weights = [0.5**level for level in range(len(outputs))]
    rows = [
        losses(output, _scaled(batch, output.shape[2:])) * (weight / sum(weights))
        for output, weight in zip(outputs, weights, strict=True)
    ]
    return torch.stack(rows).sum(0)


def _scaled(batch: Batch, size: torch.Size) -> Batch:
    whole = batch['input'].shape[2:]
    if size == whole:
        return batch
    found = {**batch, 'target': batch.get('target', batch['input'])}
    holes = 'known' in batch
    for name in _MAPS:
        values = found.get(name)
        if values is not None and values.shape[-len(whole) :] == whole:
            found[name] = _resized(values, size, holes)
    return found


def _resized(values: Tensor, size: torch.Size, nearest: bool) -> Tensor:
    lone = values.ndim == len(size) + 1
    maps = (values[:, None] if lone else values.flatten(1, -len(size) - 1)).double()
    if nearest or not values.is_floating_point():
        maps = functional.interpolate(maps, tuple(size), mode='nearest-exact')
    else:
        pool = getattr(functional, f'adaptive_avg_pool{len(size)}d')
        maps = pool(maps, tuple(size))
    return maps.view(*values.shape[: -len(size)], *size).to(values.dtype)
