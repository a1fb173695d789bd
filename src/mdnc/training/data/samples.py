"""The samples of one part, as a loader asks for them: by number, with a source of chance or without."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mdnc.training.data.augmentation import Augmentation, add_noise, crop_window
from mdnc.training.data.location import Pair
from mdnc.training.data.reader import Array, DataError, Reader, Window, class_name


@dataclass(frozen=True)
class View:
    """What is made of a stored sample, in training and elsewhere.

    Args:
        crop: Spatial size cut from every sample: at random in training, central elsewhere.
        patch: Spatial size of the windows that training draws; elsewhere samples are whole.
        patches: Windows that training draws from each sample in an epoch.
        corruption: Standard deviation of the noise added to inputs of every part, in the data's own units; the clean
            array becomes the target (denoising).
        augmentation: What is done to training samples only.
        missing: Whether NaN in a target means "not known": left out of losses and metrics.
        classes: Names of classes; targets that are such names become their numbers.
        order: Number of spatial axes; samples that have no channel axis get one.
        seed: Seed of the noise outside training, where it must be the same each time.
    """

    crop: tuple[int, ...] | None = None
    patch: tuple[int, ...] | None = None
    patches: int = 1
    corruption: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    missing: bool = False
    classes: list[str] | None = None
    order: int | None = None
    seed: int = 0


class Cut(NamedTuple):
    """A window of a sample and the axes along which it is reversed."""

    window: Window
    flips: Window

    def read(self, reader: Reader, number: int) -> Array:
        place: Any = (..., *self.flips)
        values: Array = reader.read(number, self.window)[place]
        return values


def _class_number(name: str, classes: list[str]) -> int:
    if name not in classes:
        raise DataError(f'its class {name!r} is none of {classes}')
    return classes.index(name)


class Samples:
    """Samples of one part of the data, each an array ``(C, L1, ...)`` and mostly a target.

    Args:
        pair: Inputs and targets.
        numbers: The samples of the pair that are in this part.
        view: What is made of them.
        training: Whether windows are drawn.
    """

    def __init__(self, pair: Pair, numbers: Array, view: View, training: bool = False) -> None:
        self._pair, self._numbers, self._view = pair, numbers, view
        self._window_size = view.crop or (view.patch if training else None)
        self._each = view.patches if training and view.patch else 1
        # Whole volumes may differ in size: each is a batch of its own.
        self.varied = view.patch is not None and not training
        self.shape = None if self.varied or not len(self) else self._item_shape()

    def _item_shape(self) -> tuple[int, ...]:
        try:
            channels, *size = self._stored_shape(self._number(0))
        except DataError as error:
            raise DataError(f'{self.name(0)}: {error}') from error
        return (channels, *(self._window_size or size))

    def __len__(self) -> int:
        return len(self._numbers) * self._each

    def name(self, index: int) -> str:
        """File and number of a sample, known without reading it."""
        return self._pair.inputs.name(self._number(index))

    def item(self, index: int, rng: np.random.Generator | None) -> dict[str, Array]:
        """Read one sample.

        Args:
            index: Its number in this part.
            rng: Where windows and augmentation take their chance from; None means none of it.

        Returns:
            ``input`` ``(C, L1, ...)`` in float32; ``target`` where there is one, in int64 or float32; ``known`` beside
            a target that may have holes.

        Raises:
            DataError: The sample is not what it should be.
        """
        number = self._number(index)
        size = self._stored_shape(number)[1:]
        cut = self._cut(size, rng)
        clean = self._input(number, cut)
        item = self._target(number, size, cut)
        values = clean if rng is None else self._view.augmentation.disturb(clean, rng)
        # Outside training the noise of a sample is the same each time.
        values = add_noise(values, self._view.corruption, rng or np.random.default_rng((self._view.seed, number)))
        if not item and values is not clean:
            item['target'] = clean
        return {'input': values, **item}

    def _number(self, index: int) -> int:
        return int(self._numbers[index // self._each])

    def _stored_shape(self, number: int) -> tuple[int, ...]:
        shape = self._pair.inputs.shape(number)
        if self._view.order is not None and len(shape) == self._view.order:
            shape = (1, *shape)
        if not 2 <= len(shape) <= 4 or self._view.order not in (None, len(shape) - 1):
            raise DataError(
                f'its shape is {shape}, but samples are (C, L1), (C, L1, L2) or (C, L1, L2, L3), channels first'
                + ('' if self._view.order is None else f'; order={self._view.order} was given')
                + '; samples without a channel axis need order='
            )
        return shape

    def _cut(self, size: tuple[int, ...], rng: np.random.Generator | None) -> Cut:
        window = crop_window(size, self._window_size, rng) if self._window_size else ()
        return Cut(window, self._view.augmentation.flips(len(size), rng) if rng is not None else ())

    def _input(self, number: int, cut: Cut) -> Array:
        values = cut.read(self._pair.inputs, number)
        if values.dtype.kind not in 'biuf':
            raise DataError(f'its values are of type {values.dtype}, not numbers')
        if values.ndim == self._view.order:
            values = values[None]
        return np.array(values, np.float32, order='C')

    def _target(self, number: int, size: tuple[int, ...], cut: Cut) -> dict[str, Array]:
        targets, classes = self._pair.targets, self._view.classes
        if targets is None:
            return {}
        # A target that ends in the input's own sizes is a map: it is cut and reversed with its input.
        is_map = targets.shape(number)[-len(size) :] == size
        values = cut.read(targets, number) if is_map else targets.read(number)
        name = class_name(values)
        if name is not None:
            values = np.asarray(_class_number(name, classes or []))
        if values.dtype.kind not in 'biuf':
            raise DataError(f'its target {targets.name(number)} is of type {values.dtype}, not numbers or class names')
        values = np.array(values, np.float32 if values.dtype.kind == 'f' else np.int64, order='C')
        if not self._view.missing or values.dtype.kind != 'f':
            return {'target': values}
        known = np.isfinite(values)
        return {'target': np.where(known, values, np.float32(0)), 'known': known}
