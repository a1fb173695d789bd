"""Random and central crops, and noise added to data."""

import numpy as np

from mdnc.training.data.reader import Array, DataError, Window


def add_noise(values: Array, deviation: float, rng: np.random.Generator) -> Array:
    """Add Gaussian noise with a standard deviation in the units of the data; 0 draws no random numbers."""
    if not deviation:
        return values
    noise: Array = np.float32(deviation) * rng.standard_normal(values.shape, np.float32)
    return values + noise


def crop_window(
    size: tuple[int, ...], want: tuple[int, ...], rng: np.random.Generator | None, place: Array | None = None
) -> Window:
    """A window of size ``want`` in a sample: random, containing ``place`` if given; central without ``rng``."""
    if len(want) != len(size) or any(w > have for w, have in zip(want, size, strict=True)):
        raise DataError(f'a window of {want} does not fit into a sample of spatial size {size}')
    spare = [have - w for have, w in zip(size, want, strict=True)]
    if place is None or rng is None:
        starts = [room // 2 if rng is None else int(rng.integers(room + 1)) for room in spare]
    else:
        axes = zip(place.tolist(), want, spare, strict=True)
        starts = [min(max(at - int(rng.integers(wide)), 0), room) for at, wide, room in axes]
    return tuple(slice(start, start + w) for start, w in zip(starts, want, strict=True))
