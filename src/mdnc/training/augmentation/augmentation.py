"""The words of a recipe for what is done to training samples at random: their ranges, and what a preset says."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mdnc.modules._checks import integers, near, number, word
from mdnc.training.augmentation.application import MOVES, augmented
from mdnc.training.augmentation.presets import PRESETS

PresetName = Literal['signal', 'image', 'volume']
Units = Literal['own', 'sample']
_INF = math.inf


def share(owner: str, name: str, value: object) -> float:
    """Return ``value`` as a float in [0, 1)."""
    found = number(owner, name, value, least=0)
    if found < 1:
        return found
    raise ValueError(f'{owner}: {name}={value!r} must be in [0, 1).')


def _axes(name: str, value: Any) -> list[int]:
    found = integers('Augmentation', name, value, minimum=0, least=0)
    if max(found, default=0) > 2 or len(set(found)) < len(found):
        raise ValueError(f'Augmentation: {name}={value!r} must hold spatial axes 0, 1 or 2, each once.')
    return list(found)


def _is_listed(value: Any) -> bool:
    return isinstance(value, list | tuple) or getattr(value, 'ndim', 0) > 0


def _numbers(name: str, value: Any, legal: str) -> list[float]:
    listed = value.tolist() if hasattr(value, 'tolist') else value
    if not isinstance(listed, list | tuple):
        raise TypeError(f'Augmentation: {name}={value!r} must be {legal}.')
    return [number('Augmentation', name, each) for each in listed]


def _pair(name: str, value: Any, least: float, most: float = _INF) -> list[float]:
    legal = f'two numbers, the first not above the second, from {least:g}' + (f' to {most:g}' if most < _INF else '')
    found = _numbers(name, value, legal)
    if (
        len(found) != 2
        or not least <= found[0] <= found[1] <= most
        or (least == 0 and not found[0] and name in _FACTORS)
    ):
        raise ValueError(f'Augmentation: {name}={value!r} must be {legal}{" (not 0)" * (name in _FACTORS)}.')
    return found


def _amount(name: str, value: Any) -> float | list[float]:
    if _is_listed(value):
        return _pair(name, value, 0.0)
    return number('Augmentation', name, value, least=0)


def _factor(name: str, value: Any) -> list[float]:
    off = isinstance(value, list | tuple) and not value
    return [] if off else _pair(name, value, 0.0, 1.0 if name == _LOW else _INF)


def _angles(name: str, value: Any) -> float | list[float]:
    if not _is_listed(value):
        return number('Augmentation', name, value, least=0)
    found = _numbers(name, value, 'a number of degrees, or three, one about each axis')
    if len(found) != 3 or min(found) < 0:
        raise ValueError(f'Augmentation: {name}={value!r} must be a number of degrees of at least 0, or three of them.')
    return found


def _extent(name: str, value: Any) -> float:
    return number('Augmentation', name, value, least=0)


def _part(name: str, value: Any) -> float:
    return share('Augmentation', name, value)


_LOW = 'low_resolution'
_FACTORS = ('scaling', 'brightness', 'contrast', 'gamma', 'gamma_inverted', _LOW)
_CHECKS: dict[str, Any] = {
    'flip': _axes,
    'rotation': _angles,
    **dict.fromkeys(_FACTORS, _factor),
    **dict.fromkeys(('shift', 'mask', 'gain'), _part),
    **dict.fromkeys(('elastic', 'time_warp', 'magnitude_warp', 'mixup', 'cutmix'), _extent),
    **dict.fromkeys(('noise', 'blur'), _amount),
}


@dataclass(frozen=True)
class Augmentation:
    """What is done at random to training samples, anew in each epoch, on the device that trains.

    A preset alone may be given by its name, ``augmentation: signal``.

    A word that is not given is as the preset says, or not done; 0 or ``[]`` turns one of a preset's off. Flip,
    rotation, scaling, shift, elastic and time warp move maps among the targets with their input (class numbers by the
    nearest value, quantities linearly); beyond its ends a sample is mirrored. All others change inputs only. Each
    sample draws from its own seed, of (seed, epoch, sample), so that nothing depends on processes, workers or where a
    run stopped; what mixup and cutmix mix it with is of the same batch and process.

    Args:
        flip: Spatial axes, counted from 0, each of which is reversed with probability ½.
        noise: Standard deviation of normal noise; ``[low, high]`` draws it from this range.
        gain: Inputs are multiplied by a factor drawn evenly from [1 − gain, 1 + gain], all channels alike.
        preset: ``'signal'``, ``'image'``, or ``'volume'``, which is nnU-Net's list with its chances.
        rotation: Largest angle in degrees, for images and volumes; three for volumes, one about each axis.
        scaling: Range ``[low, high]`` of a factor by which a sample is enlarged about its centre.
        shift: Largest way along each axis, as a share of its length, in [0, 1).
        elastic: Standard deviation of the knots of a smooth deformation, as a share of each axis.
        time_warp: Standard deviation of the logarithm of a speed at which each axis is run through, its ends held.
        blur: Standard deviation, in positions, of a Gaussian; ``[low, high]`` draws it from this range for each axis.
        brightness: Range ``[low, high]`` of a factor on each channel.
        contrast: Range of a factor by which each channel is stretched about its mean, within its range.
        gamma: Range of a power that each channel, scaled to [0, 1], is raised to, mean and deviation kept.
        gamma_inverted: The same of the negated channel.
        low_resolution: Range, within (0, 1], of the share of each axis's positions that are kept and interpolated.
        magnitude_warp: Standard deviation of a smooth curve about 1 that multiplies each channel.
        mask: Largest share of each axis, in [0, 1), of a box that is set to the channels' means.
        mixup: α of the Beta(α, α) distribution that says by which shares two samples are averaged.
        cutmix: α of the Beta(α, α) distribution of the part that is not replaced by another sample's.
        chance: With what probability in [0, 1] each word is used on a sample, by word: else as the preset says, else 1
            (½ each where both mixup and cutmix are given). For flip, that of each axis.
        channel_chance: With what probability each channel takes part, of words on channels: else as the preset says,
            else 1.
        units: Of noise: ``'own'``, those of the data, or ``'sample'``, standard deviations of the sample's channel.
            None: ``'sample'`` with a preset, else ``'own'``.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument is out of its range.

    Example:
        >>> import torch
        >>> augment = Augmentation(flip=[0], noise=0.1, preset='signal')
        >>> batch = {'input': torch.zeros(2, 1, 64), 'target': torch.tensor([0, 1]), 'seed': [7, 8]}
        >>> augment(batch)['input'].shape
        torch.Size([2, 1, 64])
    """

    flip: list[int] | None = None
    noise: float | list[float] | None = None
    gain: float | None = None
    preset: PresetName | None = None
    rotation: float | list[float] | None = None
    scaling: list[float] | None = None
    shift: float | None = None
    elastic: float | None = None
    time_warp: float | None = None
    blur: float | list[float] | None = None
    brightness: list[float] | None = None
    contrast: list[float] | None = None
    gamma: list[float] | None = None
    gamma_inverted: list[float] | None = None
    low_resolution: list[float] | None = None
    magnitude_warp: float | None = None
    mask: float | None = None
    mixup: float | None = None
    cutmix: float | None = None
    chance: dict[str, float] = field(default_factory=dict)
    channel_chance: dict[str, float] = field(default_factory=dict)
    units: Units | None = None

    def __post_init__(self) -> None:
        # What is recorded is plain, whatever it was given as.
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check(name, value))
        for name, legal in (('preset', get_args(PresetName)), ('units', get_args(Units))):
            if getattr(self, name) is not None:
                word('Augmentation', name, getattr(self, name), legal)
        object.__setattr__(self, 'chance', _chances('chance', self.chance, tuple(_CHECKS)))
        object.__setattr__(self, 'channel_chance', _chances('channel_chance', self.channel_chance, CHANNELS))
        both = [self.probability(name) for name in ('mixup', 'cutmix') if self.strength(name)]
        if sum(both) > 1:
            raise ValueError(
                f'Augmentation: chance={self.chance!r}: a sample gets mixup or cutmix, so both must be ≤ 1 together.'
            )

    def strength(self, name: str) -> Any:
        """What a word says: as given, else as the preset has it; None or 0 where it is not done."""
        given = getattr(self, name)
        if given is None and self.preset is not None:
            return PRESETS[self.preset].strengths.get(name)
        return given

    def probability(self, name: str) -> float:
        """With what probability a word is used."""
        preset = PRESETS[self.preset].chance if self.preset is not None else {}
        usual = {'flip': 0.5}
        if self.strength('mixup') and self.strength('cutmix'):
            usual |= {'mixup': 0.5, 'cutmix': 0.5}
        return self.chance.get(name, preset.get(name, usual.get(name, 1.0)))

    def channel_probability(self, name: str) -> float:
        """With what probability a channel takes part."""
        preset = PRESETS[self.preset].channel_chance if self.preset is not None else {}
        return self.channel_chance.get(name, preset.get(name, 1.0))

    @property
    def relative(self) -> bool:
        """Whether noise is in standard deviations of the sample."""
        return (self.units or ('sample' if self.preset else 'own')) == 'sample'

    @property
    def moves(self) -> bool:
        """Whether values go to other positions, so that maps among the targets must go with them."""
        return any(self.strength(name) for name in ('flip', *MOVES))

    def active(self) -> bool:
        """Whether anything is done."""
        return any(self.strength(name) for name in _CHECKS)

    def check(self, order: int) -> None:
        """Refuse words that samples of ``order`` spatial axes cannot follow.

        Raises:
            ValueError: An axis is named that they do not have, or they cannot be turned.
        """
        if any(axis >= order for axis in self.flip or ()):
            raise ValueError(f'Augmentation: flip={self.flip} names an axis that samples of {order} axes do not have')
        if self.rotation and order == 1:
            raise ValueError(f'Augmentation: rotation={self.rotation!r}: samples of one axis cannot be turned')
        if isinstance(self.rotation, list) and order == 2:
            raise ValueError(f'Augmentation: rotation={self.rotation!r}: samples of two axes turn by one angle')

    def __call__(self, batch: dict[str, Any], maps: bool | None = None) -> dict[str, Any]:
        """Augment a batch, on its device.

        Args:
            batch: ``input`` ``(B, C, L1, ...)``, mostly ``target``, and ``seed``, a number for each sample, as training
                loaders give it; without ``seed`` it is handed back as it is.
            maps: Whether targets lie on the positions of the inputs; None: if their last axes have the input's sizes.

        Returns:
            A new batch without ``seed``; where samples are mixed, with ``mixed_target`` and ``mixed_share``.
        """
        return augmented(batch, self, maps)


# Words that draw for each channel.
CHANNELS = ('blur', 'brightness', 'contrast', 'gamma', 'gamma_inverted', _LOW, 'magnitude_warp', 'noise')


def _chances(owner: str, value: Any, words: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise TypeError(f'Augmentation: {owner}={value!r} must be a dictionary of probabilities by word.')
    for name in value:
        if name not in words:
            raise ValueError(
                f'Augmentation: {owner}={value!r}: {name!r} is none of {", ".join(words)}.{near(name, words)}'
            )
    found = {str(name): number('Augmentation', f'{owner}.{name}', each, least=0) for name, each in value.items()}
    if max(found.values(), default=0) > 1:
        raise ValueError(f'Augmentation: {owner}={value!r} must hold probabilities in [0, 1].')
    return found
