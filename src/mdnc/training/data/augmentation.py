"""Random crops, flips and noise for signals, images and volumes alike."""

from dataclasses import dataclass, field

import numpy as np

from mdnc.modules._checks import integers, number
from mdnc.training.data.reader import Array, DataError, Window


def share(owner: str, name: str, value: object) -> float:
    """Return ``value`` as a float in [0, 1)."""
    found = number(owner, name, value, least=0)
    if found < 1:
        return found
    raise ValueError(f'{owner}: {name}={value!r} must be in [0, 1).')


@dataclass(frozen=True)
class Augmentation:
    """What is done at random to training samples, anew in each epoch.

    Args:
        flip: Spatial axes, counted from 0, each of which is reversed with probability ½; a target that is a map is
            reversed with its input.
        noise: Standard deviation of the normal noise added to inputs, in the data's own units.
        gain: Inputs are multiplied by a factor drawn evenly from [1 − gain, 1 + gain].
    """

    flip: list[int] = field(default_factory=list)
    noise: float = 0.0
    gain: float = 0.0

    def __post_init__(self) -> None:
        flip = integers('Augmentation', 'flip', self.flip, minimum=0, least=0)
        if max(flip, default=0) > 2 or len(set(flip)) < len(flip):
            raise ValueError(f'Augmentation: flip={self.flip!r} must hold spatial axes 0, 1 or 2, each once.')
        # What is recorded is plain, whatever it was given as.
        object.__setattr__(self, 'flip', list(flip))
        object.__setattr__(self, 'noise', number('Augmentation', 'noise', self.noise, least=0))
        object.__setattr__(self, 'gain', share('Augmentation', 'gain', self.gain))

    def flips(self, order: int, rng: np.random.Generator) -> tuple[slice, ...]:
        """Slices of the last ``order`` axes that reverse the axes drawn."""
        if any(axis >= order for axis in self.flip):
            raise DataError(f'Augmentation: flip={self.flip} names an axis that samples of {order} axes do not have')
        drawn = {axis: rng.random() < 0.5 for axis in self.flip}
        return tuple(slice(None, None, -1 if drawn.get(axis) else None) for axis in range(order))

    def disturb(self, values: Array, rng: np.random.Generator) -> Array:
        """Gain and noise on an input."""
        if self.gain:
            values = values * np.float32(rng.uniform(1 - self.gain, 1 + self.gain))
        return add_noise(values, self.noise, rng)


def add_noise(values: Array, deviation: float, rng: np.random.Generator) -> Array:
    """Add normal noise of a standard deviation in the data's own units; 0 draws nothing."""
    if not deviation:
        return values
    noise: Array = np.float32(deviation) * rng.standard_normal(values.shape, np.float32)
    return values + noise


def crop_window(size: tuple[int, ...], want: tuple[int, ...], rng: np.random.Generator | None) -> Window:
    """A window of size ``want`` in a sample: at random, or central where ``rng`` is None."""
    if len(want) != len(size) or any(w > have for w, have in zip(want, size, strict=True)):
        raise DataError(f'a window of {want} does not fit into a sample of spatial size {size}')
    spare = [have - w for have, w in zip(size, want, strict=True)]
    starts = [room // 2 if rng is None else int(rng.integers(room + 1)) for room in spare]
    return tuple(slice(start, start + w) for start, w in zip(starts, want, strict=True))
