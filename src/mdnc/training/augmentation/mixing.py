"""Samples mixed with others of their batch, with targets that follow: mixup and cutmix."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mdnc.training.augmentation.random_numbers import RandomNumbers

Batch = dict[str, Any]
_OTHER = 'mixed_'  # before the names of what is the other sample's
_SHARE = 'mixed_share'


def partners(batch: Batch, chance: RandomNumbers) -> Tensor | None:
    """Another sample of the batch for each, none of them a filler; None where there is no other."""
    count = len(batch['input'])
    weight = batch.get('weight', torch.ones(count)).cpu()
    real = weight.nonzero()[:, 0]
    if len(real) < 2:
        return None
    place = torch.cumsum(weight != 0, 0) - 1  # of each sample among the real ones
    step = 1 + (chance.even() * (len(real) - 1)).long()
    return torch.where(weight != 0, real[(place + step) % len(real)], torch.arange(count))


def mixed_up(batch: Batch, others: Tensor, share: Tensor) -> Batch:
    """Mixup (Zhang et al., 2018): inputs are averaged, and the loss is that of both targets, by the same shares.

    Args:
        batch: ``input``, and mostly ``target``.
        others: The sample that each is mixed with, ``(B,)``.
        share: What each sample itself counts, ``(B,)``; 1 leaves it as it is.
    """
    others = others.to(batch['input'].device)
    own = _wide(share, batch['input'])
    values = own * batch['input'] + (1 - own) * _brought(batch, others)
    return _follow({**batch, 'input': values}, batch, others, share)


def cut_mixed(batch: Batch, source: Batch, others: Tensor, inside: Tensor, maps: list[str]) -> Batch:
    """Cutmix (Yun et al., 2019): a box of another sample is set in; maps follow, other targets by their shares.

    Args:
        batch: ``input``, and mostly ``target``.
        source: The batch before anything was mixed, which boxes are taken from.
        others: The sample that each box is from, ``(B,)``.
        inside: The positions of the boxes, ``(B, L1, ...)``.
        maps: Names of what has the positions of the input.
    """
    device = batch['input'].device
    others, there = others.to(device), inside.to(device)
    found = dict(batch)
    for name in ('input', *maps):
        values = batch[name]
        wide = there.view(len(there), *(1,) * (values.ndim - there.ndim), *there.shape[1:])
        found[name] = torch.where(wide, _brought(source, others) if name == 'input' else source[name][others], values)
    if 'target' in maps:
        return found
    return _follow(found, source, others, 1 - inside.flatten(1).float().mean(1))


def _brought(batch: Batch, others: Tensor) -> Tensor:
    """The inputs of other samples; where each is normalised by itself, in the units of the sample that they come to."""
    values: Tensor = batch['input'][others]
    if 'figures' not in batch:
        return values
    mean, std = _beside(batch['figures'][others], values)
    own, spread = _beside(batch['figures'], values)
    return (values - mean) / std * spread + own


def _follow(found: Batch, batch: Batch, others: Tensor, share: Tensor) -> Batch:
    if 'target' not in batch:
        return found  # what is to be given back is the mixed sample itself
    kept = {_OTHER + name: batch[name][others] for name in ('target', 'known') if name in batch}
    share = share.to(others.device)
    return {**found, **kept, _SHARE: torch.minimum(share, found.get(_SHARE, share))}  # each is mixed in one way only


def _wide(share: Tensor, values: Tensor) -> Tensor:
    return share.to(values.device, values.dtype).view(-1, *(1,) * (values.ndim - 1))


def _beside(figures: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    figures = figures.to(values).view(*values.shape[:2], *(1,) * (values.ndim - 2), 2)
    return figures[..., 0], figures[..., 1]


def mixed_losses(losses: Callable[[Tensor, Batch], Tensor], output: Tensor, batch: Batch) -> Tensor:
    """Losses ``(B,)`` of a batch whose samples may be mixed: those of both targets, by their shares.

    For losses that are linear in the target's share, cross-entropy among them, this is the loss of the mixed target.
    """
    own = losses(output, batch)
    if _SHARE not in batch:
        return own
    other = {name.removeprefix(_OTHER): value for name, value in batch.items() if name.startswith(_OTHER)}
    share: Tensor = batch[_SHARE].to(own.dtype)
    return share * own + (1 - share) * losses(output, {**batch, **other})
