"""A batch augmented: what each word of a recipe does to which samples, in the order it is done."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mdnc.training.augmentation import intensity, spatial
from mdnc.training.augmentation.mixing import Batch, cut_mixed, mixed_up, partners
from mdnc.training.augmentation.random_numbers import RandomNumbers

if TYPE_CHECKING:
    from mdnc.training.augmentation.augmentation import Augmentation

MOVES = ('rotation', 'scaling', 'shift', 'elastic', 'time_warp')
# In the order of nnU-Net's list.
_VALUES = (
    'noise',
    'blur',
    'gain',
    'brightness',
    'contrast',
    'low_resolution',
    'gamma_inverted',
    'gamma',
    'magnitude_warp',
    'mask',
)


def augmented(batch: Batch, words: 'Augmentation', mapped: bool | None = None) -> Batch:
    """A batch ``input (B, C, L1, ...)``, ``target``, ``seed`` as `Augmentation` says; see there."""
    seeds = batch.get('seed')
    if seeds is None:
        return batch
    batch = {name: value for name, value in batch.items() if name != 'seed'}
    if not words.active():
        return batch
    words.check(batch['input'].ndim - 2)
    with torch.no_grad():
        maps = maps_of(batch, mapped)
        if 'lengths' in batch:
            return _ragged(batch, words, maps, seeds)
        return _whole(batch, words, maps, RandomNumbers(seeds))


def _whole(batch: Batch, words: 'Augmentation', maps: list[str], chance: RandomNumbers) -> Batch:
    batch = {**batch, 'input': batch['input'].float()}
    batch = _warp(_flip(batch, words, chance, maps), words, chance, maps)
    values = batch['input']
    for name in _VALUES:
        if words.strength(name):
            values = _changed(name, values, words, chance)
    if values is not batch['input'] and 'target' not in batch:
        batch['target'] = batch['input']  # an auto-encoder's: the clean sample
    batch['input'] = values
    return _mix(batch, words, chance, maps)


def maps_of(batch: Batch, mapped: bool | None) -> list[str]:
    """Names of what lies on the positions of the input: targets whose last axes have its sizes."""
    size = batch['input'].shape[2:]
    target = batch.get('target')
    placed = isinstance(target, Tensor) and target.ndim > len(size) and target.shape[-len(size) :] == size
    return [name for name in ('target', 'known') if placed and mapped is not False and name in batch]


def _ragged(batch: Batch, words: 'Augmentation', maps: list[str], seeds: list[int]) -> Batch:
    if words.strength('mixup') or words.strength('cutmix'):
        raise ValueError(
            'Augmentation: mixup and cutmix mix samples of one size; these of a batch differ: give crop or patch'
        )
    found = {name: value.clone() for name, value in batch.items() if name in ('input', *maps)}
    others = {name: value for name, value in batch.items() if name not in found}
    for row, lengths in enumerate(batch['lengths'].view(len(batch['input']), -1).tolist()):
        place: Any = (slice(row, row + 1), ..., *(slice(0, length) for length in lengths))
        mine = {name: batch[name][place] for name in ('input', *maps)}
        part = _whole({**others, **mine}, words, maps, RandomNumbers([seeds[row]]))
        if 'target' in part and 'target' not in batch:
            found.setdefault('target', batch['input'].clone())
        for name, value in found.items():
            value[place] = part[name]
    return {**batch, **found}


def _uses(name: str, words: 'Augmentation', chance: RandomNumbers) -> Tensor:
    return chance.even() < words.probability(name)


# ---- Positions ----


def _flip(batch: Batch, words: 'Augmentation', chance: RandomNumbers, maps: list[str]) -> Batch:
    order = batch['input'].ndim - 2
    named = [axis for axis in words.strength('flip') or () if axis < order]
    if not named:
        return batch
    drawn = torch.zeros(len(chance), order, dtype=torch.bool)
    drawn[:, named] = chance.even(len(named)) < words.probability('flip')
    return {**batch, **{name: spatial.flipped(batch[name], drawn) for name in ('input', *maps)}}


def _warp(batch: Batch, words: 'Augmentation', chance: RandomNumbers, maps: list[str]) -> Batch:
    size = batch['input'].shape[2:]
    used = {name: _uses(name, words, chance) for name in MOVES if words.strength(name)}
    if len(size) == 1:
        used.pop('rotation', None)
    if not used:
        return batch
    linear, shift = _linear(len(size), used, words, chance), torch.zeros(len(chance), len(size))
    if 'shift' in used:
        most = words.strength('shift')
        drawn = chance.even(len(size), low=-most, high=most) * torch.tensor([float(length) for length in size])
        shift = torch.where(used['shift'][:, None], drawn, shift)
    knots = _knots(len(size), used, words, chance)
    rows = torch.stack(list(used.values())).any(0).nonzero()[:, 0]
    if not len(rows):
        return batch
    moved = _moved(size, {name: value[rows] for name, value in knots.items()}, batch['input'].device)
    places = spatial.positions(size, linear[rows].to(batch['input'].device), shift[rows], moved)
    return {**batch, **{name: _resampled(batch[name], places, rows) for name in ('input', *maps)}}


def _linear(order: int, used: dict[str, Tensor], words: 'Augmentation', chance: RandomNumbers) -> Tensor:
    found = torch.eye(order).expand(len(chance), order, order)
    if 'rotation' in used:
        most = torch.tensor(words.strength('rotation')) * (math.pi / 180)
        angles = chance.even(3 if order == 3 else 1, low=-1.0) * most
        found = spatial.rotations(torch.where(used['rotation'][:, None], angles, 0), order)
    if 'scaling' in used:
        low, high = words.strength('scaling')
        factor = torch.where(used['scaling'], chance.even(low=low, high=high), 1)
        found = found / factor[:, None, None]
    return found


def _knots(order: int, used: dict[str, Tensor], words: 'Augmentation', chance: RandomNumbers) -> dict[str, Tensor]:
    shapes = {'elastic': (order, *(spatial.KNOTS,) * order), 'time_warp': (order, spatial.KNOTS)}
    found = {}
    for name, shape in shapes.items():
        if name in used:
            drawn = chance.normal(*shape) * words.strength(name)
            found[name] = drawn * used[name].view(-1, *(1,) * len(shape))
    return found


def _moved(size: torch.Size, knots: dict[str, Tensor], device: torch.device) -> Tensor | None:
    found = None
    if 'elastic' in knots:
        lengths = torch.tensor([float(length) for length in size]).view(-1, *(1,) * len(size))
        found = spatial.smooth((knots['elastic'] * lengths).to(device), size)
    if 'time_warp' in knots:
        moved = spatial.stretched(knots['time_warp'], size).to(device)
        found = moved if found is None else found + moved
    return found


def _resampled(values: Tensor, places: Tensor, rows: Tensor) -> Tensor:
    rows = rows.to(values.device)
    chosen, order = values[rows], places.shape[1]
    channels = chosen.flatten(1, -order - 1) if chosen.ndim > order + 1 else chosen[:, None]
    if values.dtype == torch.bool:  # known where all is that it is made of
        found = spatial.resampled(channels.float(), places) > 1 - 1e-4
    else:
        nearest = not values.is_floating_point()
        exact = channels.double() if nearest else channels  # class numbers of any size
        found = spatial.resampled(exact, places.to(exact.dtype), nearest)
    changed: Tensor = values.clone()
    changed[rows] = found.view_as(chosen).to(values.dtype)
    return changed


# ---- Values ----


def _changed(name: str, values: Tensor, words: 'Augmentation', chance: RandomNumbers) -> Tensor:
    """Values after one word, on the samples and channels that are drawn."""
    channels = values.shape[1]
    used = _uses(name, words, chance)[:, None].expand(-1, channels)
    share = words.channel_probability(name)
    if share < 1:
        used = used & (chance.even(channels) < share)
    drawn = _strengths(name, words, chance, values)
    rows = used.any(1).nonzero()[:, 0]
    if not len(rows):
        return values
    there = rows.to(values.device)
    found = _apply(name, values[there], drawn[rows], (words, chance, rows.tolist()))
    kept = used[rows].to(values.device).view(len(rows), channels, *(1,) * (values.ndim - 2))
    changed: Tensor = values.clone()
    changed[there] = torch.where(kept, found, values[there])
    return changed


def _strengths(name: str, words: 'Augmentation', chance: RandomNumbers, values: Tensor) -> Tensor:
    """What is drawn for a word, samples first, on the CPU."""
    channels, order, strength = values.shape[1], values.ndim - 2, words.strength(name)
    if name == 'mask':
        return torch.stack([(chance.even(1) * strength).expand(-1, order), chance.even(order)], 1)
    if name == 'magnitude_warp':
        return chance.normal(channels, *(spatial.KNOTS,) * order) * float(strength)
    if name == 'gain':
        return chance.even(1, low=1 - strength, high=1 + strength).expand(-1, channels)
    if name in ('noise', 'blur'):
        low, high = strength if isinstance(strength, list) else (strength, strength)
        if name == 'blur':  # each axis by itself
            return chance.even(channels, order, low=low, high=high)
        return chance.even(1, low=low, high=high).expand(-1, channels)
    low, high = strength
    if name == 'low_resolution':
        return chance.even(channels, low=low, high=high)
    return chance.factor(channels, low=low, high=high)


def _apply(name: str, values: Tensor, drawn: Tensor, rest: tuple['Augmentation', RandomNumbers, list[int]]) -> Tensor:
    words, chance, rows = rest
    if name == 'noise':
        deviation = intensity.deviations(values) if words.relative else 1.0
        return values + chance.noise(values, rows) * deviation * _wide(drawn, values)
    if name == 'mask':
        return intensity.masked(values, intensity.box(values.shape[2:], drawn[:, 0], drawn[:, 1]))
    if name == 'gamma_inverted':
        return intensity.curved(values, drawn, inverted=True)
    changed: Tensor = _FUNCTIONS[name](values, drawn)
    return changed


def _wide(drawn: Tensor, values: Tensor) -> Tensor:
    return drawn.to(values.device).view(*drawn.shape, *(1,) * (values.ndim - 2))


_FUNCTIONS: dict[str, Any] = {
    'blur': intensity.blurred,
    'gain': intensity.brightened,
    'brightness': intensity.brightened,
    'contrast': intensity.contrasted,
    'low_resolution': intensity.coarsened,
    'gamma': intensity.curved,
    'magnitude_warp': intensity.magnified,
}


# ---- Others ----


def _mix(batch: Batch, words: 'Augmentation', chance: RandomNumbers, maps: list[str]) -> Batch:
    up, cut = words.strength('mixup'), words.strength('cutmix')
    if not up and not cut:
        return batch
    others = partners(batch, chance)
    if others is None:
        return batch
    source, place = batch, chance.even()
    limit = words.probability('mixup') if up else 0.0
    if up:
        share = chance.beta(up)
        share = torch.where(place < limit, torch.maximum(share, 1 - share), 1)  # itself is the larger part
        batch = mixed_up(batch, others, share)
    if cut:
        used = (place >= limit) & (place < limit + words.probability('cutmix'))
        inside = _boxes(batch['input'].shape[2:], torch.where(used, 1 - chance.beta(cut), 0), chance)
        batch = cut_mixed(batch, source, others, inside, maps)
    return batch


def _boxes(size: torch.Size, part: Tensor, chance: RandomNumbers) -> Tensor:
    sides = part[:, None].expand(-1, len(size)) ** (1 / len(size))
    return intensity.box(size, sides, chance.even(len(size)))
