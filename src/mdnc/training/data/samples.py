"""The samples of one part for a loader: by number, with or without randomness."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from mdnc.training.augmentation import Augmentation
from mdnc.training.data.class_positions import ClassPositions, find_class_positions
from mdnc.training.data.cropping import add_noise, crop_window
from mdnc.training.data.grid import Grid, grid_of
from mdnc.training.data.images import conversion_advice
from mdnc.training.data.normalisation import channel_statistics, read_pieces, windows
from mdnc.training.data.reader import Array, DataError, Window, class_name, refuse_no_numbers, release, uniform
from mdnc.training.data.sources import Pair
from mdnc.training.data.stored_tensor import StoredSample, StoredTensor, large, single_precision


@dataclass(frozen=True)
class View:
    """Preprocessing of stored samples, in training and elsewhere.

    Args:
        crop: Spatial size to which every sample is cropped: at random in training, centrally elsewhere.
        patch: Spatial size of random patches in training; elsewhere samples are whole.
        patches: Number of patches drawn from each sample in an epoch.
        corruption: Standard deviation of the noise added to inputs of every part, in the units of the data; the clean
            array becomes the target (denoising).
        augmentation: Random changes of training samples.
        missing: Whether NaN in a target means that it is unknown, and is ignored in losses and metrics.
        classes: Names of classes; targets with these names become numbers.
        order: Number of spatial axes; samples without a channel axis get one.
        form: Channels and spatial axes that all samples must have; None: those of the first.
        seed: Seed of the noise outside training, where it must be the same each time.
        by_sample: Whether training samples bring the mean and standard deviation that they are normalised by.
    """

    crop: tuple[int, ...] | None = None
    patch: tuple[int, ...] | None = None
    patches: int = 1
    corruption: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    missing: bool = False
    classes: list[str] | None = None
    order: int | None = None
    form: tuple[int, int] | None = None
    seed: int = 0
    by_sample: bool = False


class Cut(NamedTuple):
    """A window of a sample, and the size to which it is padded."""

    window: Window
    size: tuple[int, ...] = ()

    def fill(self, values: Array) -> Array:
        """A window of a sample that is smaller, padded with the values at its ends."""
        first = values.ndim - len(self.size)
        pads = [(0, want - have) for want, have in zip(self.size, values.shape[first:], strict=True)]
        return np.pad(values, [(0, 0)] * first + pads, mode='edge') if any(map(max, pads)) else values


def _class_number(name: str, classes: list[str]) -> int:
    if name not in classes:
        raise DataError(f'its class {name!r} is not one of {classes}')
    return classes.index(name)


class Samples:
    """Samples of one part of the data, each an array ``(C, L1, ...)`` and usually a target.

    Args:
        pair: Inputs and targets.
        numbers: The samples of the pair that are in this part.
        view: Their preprocessing.
        training: Whether windows are drawn.

    Raises:
        DataError: The first sample cannot be used.
    """

    def __init__(self, pair: Pair, numbers: Array, view: View, training: bool = False) -> None:
        self._pair, self._numbers, self._view = pair, numbers, view
        self._window_size = view.crop or (view.patch if training else None)
        self._each = view.patches if training and view.patch else 1
        # Whole volumes may differ in size: each is its own batch.
        self.varied = view.patch is not None and not training
        self.form = view.form
        self._kind: tuple[bool, tuple[int, ...]] | None = None
        self._places: ClassPositions | None = None
        self._figures: dict[int, Array] = {}  # of whole samples that windows are drawn from
        self.first = self._first() if len(self) else None
        free = self.varied or not (self._window_size or uniform(pair.inputs))
        self.shape = None if free else self.first

    def _first(self) -> tuple[int, ...]:
        """Shape of the first preprocessed sample; the others must have the same."""
        number = self._number(0)
        try:
            channels, *size = self._stored_shape(number)
            self.form = channels, len(size)
            self._kind = self._target_kind(number, tuple(size))
            self._cut(tuple(size), None)  # a window that fits no sample
            self._view.augmentation.check(len(size))
            if self._view.patch and len(self._view.patch) != len(size):
                raise DataError(f'patch={list(self._view.patch)} does not fit a sample of spatial size {tuple(size)}')
        except Exception as error:  # the library of each format has its own errors
            reason = ' '.join(str(error).split()) or type(error).__name__
            raise DataError(f'{self.name(0)}: {reason}') from error
        return (channels, *(self._window_size or size))

    def __len__(self) -> int:
        return len(self._numbers) * self._each

    @property
    def maps(self) -> bool | None:
        """Whether targets are maps on the positions of their inputs; None: there are no targets in the files."""
        return None if self._kind is None else self._kind[0]

    def name(self, index: int) -> str:
        """File and number of a sample, known without reading it."""
        return self._pair.inputs.name(self._number(index))

    def file(self, index: int) -> str:
        """Path of the file of a sample, relative to the given path."""
        return self._pair.inputs.file(self._number(index))

    def grid(self, index: int) -> Grid | None:
        """The grid of a whole sample in its file; None if it is unknown, or the sample is cropped."""
        return None if self._window_size else grid_of(self._pair.inputs, self._number(index))

    def release(self) -> None:
        """Let go of what was read of memory maps: a volume that is larger than memory is used a part at a time."""
        release(self._pair.inputs)

    def balance(self, share: float, ignore: int | None) -> None:
        """Draw a fraction of the windows such that they contain a rarer class; all targets are read once.

        Raises:
            DataError: No windows are drawn, or the targets are not maps of class numbers.
        """
        if self._places is not None:
            return
        if self._window_size is None:
            raise DataError(f'balance={share:g} needs windows: set crop or patch')
        self._places = find_class_positions(self._maps(), share, ignore)

    def labels(self) -> list[int]:
        """The class of each sample; all targets are read.

        Raises:
            DataError: A target is not a class number.
        """
        found = list(self.targets())
        if any(target.ndim or target.dtype.kind not in 'iu' for target in found):
            raise DataError('balance needs targets that are class numbers, or maps of them')
        return [int(target) for target in found for _ in range(self._each)]

    def _maps(self) -> Iterator[tuple[int, Array]]:
        for number, target in zip(map(int, self._numbers), self.targets(), strict=True):
            size = self._stored_shape(number)[1:]
            if target.size != math.prod(size):
                raise DataError(
                    f'balance: the target of {self._pair.inputs.name(number)} is not a map of class numbers'
                )
            yield number, target.reshape(size)

    def targets(self) -> Iterator[Array]:
        """The whole target of each stored sample, in order.

        Raises:
            DataError: There are no targets, or one is not valid.
        """
        for number in map(int, self._numbers):
            item = self._target(number, self._stored_shape(number)[1:], Cut(()))
            if not item:
                raise DataError('the data have no targets')
            yield item['target']

    def target_pieces(self) -> Iterator[Array]:
        """The targets of all stored samples in pieces of bounded size: maps part by part, others whole.

        Raises:
            DataError: There are no targets, or one is not valid.
        """
        for number in map(int, self._numbers):
            size = self._stored_shape(number)[1:]
            for window in windows((1, *size)) if self._is_map(number, size) else [()]:
                item = self._target(number, size, Cut(window))
                if not item:
                    raise DataError('the data have no targets')
                yield item['target']

    def item(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Read one sample.

        Args:
            index: Its number in this part.
            rng: Source of random windows and noise; None: no randomness.

        Returns:
            ``input`` ``(C, L1, ...)`` in float32; ``target`` where there is one, in int64 or float32, both a
            `StoredTensor` where they are large and whole; ``known`` beside a target that may have holes; in training,
            where samples are normalised by themselves, ``figures`` ``(C, 2)``: mean and standard deviation of what a
            prediction would have of it, before anything is changed.

        Raises:
            DataError: The sample is not valid.
        """
        number = self._number(index)
        size = self._stored_shape(number)[1:]
        cut = self._cut(size, rng, number)
        stored = self._stored(number)
        if stored is not None:
            return {'input': stored, **self._stored_target(number, size, cut)}
        clean = cut.fill(self._input(number, cut))
        item: dict[str, Any] = self._target(number, size, cut)
        if self._kind is not None and self._kind[0]:
            item = {name: cut.fill(values) for name, values in item.items()}
        # Outside training the noise of a sample is the same each time.
        values = add_noise(clean, self._view.corruption, rng or np.random.default_rng((self._view.seed, number)))
        if not item and values is not clean:
            item['target'] = clean
        if self._view.by_sample and rng is not None:
            item['figures'] = (
                self._whole_figures(number) if self._view.patch else _columns(channel_statistics([values]))
            )
        return {'input': values, **item}

    def bring_figures(self) -> None:
        """Give training samples the mean and standard deviation that each is normalised by."""
        self._view = replace(self._view, by_sample=True)

    def _whole_figures(self, number: int) -> Array:
        # A prediction sees the whole sample that a window is drawn from, with the noise of it.
        if number not in self._figures:
            pieces = read_pieces(self._pair.inputs, [number], self._lone)
            found = _columns(channel_statistics(piece for _, piece in pieces))
            found[:, 1] = np.hypot(found[:, 1], self._view.corruption)
            self._figures[number] = found
        return self._figures[number]

    def _lone(self, number: int) -> bool:
        return len(self._pair.inputs.shape(number)) == self._view.order

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
        if 0 in shape:
            raise DataError(f'its shape is {shape}, which is empty')
        if self.form not in (None, (shape[0], len(shape) - 1)):
            raise DataError(
                f'its shape is {shape}, but others of these data have {self.form[0]} channels and {self.form[1]} '
                f'spatial axes{conversion_advice(shape[0], *self.form)}'
            )
        return shape

    def _target_kind(self, number: int, size: tuple[int, ...]) -> tuple[bool, tuple[int, ...]] | None:
        """Whether the target is a map, and its axes before those of the input; else its shape."""
        targets = self._pair.targets
        if targets is None:
            return None
        shape = tuple(targets.shape(number))
        # A target that ends in the sizes of the input is a map: it is cropped and flipped with its input.
        if getattr(targets, 'vector', False):
            return False, shape
        if shape[-len(size) :] == size:
            return True, shape[: -len(size)]
        moved = self._window_size or self._view.patch or self._view.augmentation.moves
        if moved and (len(shape) > len(size) or len(shape) == len(size) > 1):
            raise DataError(
                f'its target {targets.name(number)} is of shape {shape}, which does not end in the sizes {size} of the '
                'input: it cannot be cropped or augmented with it'
            )
        return False, shape

    def _is_map(self, number: int, size: tuple[int, ...]) -> bool:
        kind = self._target_kind(number, size)
        targets = self._pair.targets
        if targets is not None and self._kind == (False, tuple(targets.shape(number))):
            return False  # a vector that happens to be as long as this sample
        if kind != self._kind and targets is not None:
            raise DataError(
                f'its target {targets.name(number)} is of shape {targets.shape(number)}, beside an input of the sizes '
                f'{size}; the target of the first sample, {self.name(0)}, is of another kind'
            )
        return kind is not None and kind[0]

    def _cut(self, size: tuple[int, ...], rng: np.random.Generator | None, number: int = 0) -> Cut:
        want = self._window_size or ()
        if self._view.patch and len(want) == len(size):
            want = tuple(map(min, want, size))
        place = None if rng is None or self._places is None else self._places.draw(number, rng)
        window = crop_window(size, want, rng, place) if want else ()
        return Cut(window, self._window_size or ())

    def _input(self, number: int, cut: Cut) -> Array:
        values = refuse_no_numbers(self._pair.inputs.read(number, cut.window))
        return single_precision(values[None] if values.ndim == self._view.order else values)

    def _stored(self, number: int) -> StoredTensor | None:
        """A whole sample that is too large to be held; None if it is not, or is changed before it is used."""
        if not self.varied or self._view.corruption or not large(self._stored_shape(number)):
            return None
        sample = StoredSample(self._pair.inputs, number, self._lone(number))
        sample.read((slice(0, 1),) * (len(sample.shape) - 1))  # its type is known now
        return StoredTensor.of(sample)

    def _stored_target(self, number: int, size: tuple[int, ...], cut: Cut) -> dict[str, Any]:
        """The target of a sample that is too large to be held, which is not held either where it is a map."""
        targets = self._pair.targets
        if targets is None or not self._is_map(number, size):
            return self._target(number, size, cut)
        kind = targets.read(number, (slice(0, 1),) * len(size)).dtype.kind
        if kind not in 'biuf' or (kind == 'f' and self._view.missing):
            return self._target(number, size, cut)
        bare = len(targets.shape(number)) == len(size)
        sample = StoredSample(targets, number, bare, whole=kind != 'f')
        return {'target': StoredTensor.of(sample, bare=bare)}

    def _target(self, number: int, size: tuple[int, ...], cut: Cut) -> dict[str, Array]:
        targets, classes = self._pair.targets, self._view.classes
        if targets is None:
            return {}
        values = targets.read(number, cut.window) if self._is_map(number, size) else targets.read(number)
        name = class_name(values)
        if name is not None:
            values = np.asarray(_class_number(name, classes or []))
        if values.dtype.kind not in 'biuf':
            raise DataError(f'its target {targets.name(number)} is of type {values.dtype}, not numbers or class names')
        values = _plain(values, np.float32 if values.dtype.kind == 'f' else np.int64)
        if not self._view.missing or values.dtype.kind != 'f':
            return {'target': values}
        known = ~np.isnan(values)
        return {'target': np.where(known, values, np.float32(0)), 'known': known}


def _columns(statistics: dict[str, list[float]]) -> Array:
    return np.array([statistics['mean'], statistics['std']], np.float32).T


def _plain(values: Array, dtype: type) -> Array:
    with np.errstate(over='ignore'):  # Inf is reported later
        return np.array(values, dtype, order='C')
