"""Samples of a data set: read, checked, and collated to batches."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset, default_collate

from mdnc.training.seed import seed_from

Nonfinite = Literal['stop', 'skip']
_PART = 2**22  # values


class SampleError(ValueError):
    """A sample cannot be read, has another shape than its data set, or contains NaN or Inf; the message names it."""


@dataclass(frozen=True)
class Key:
    """What the sampler requests from a data set."""

    index: int
    seed: tuple[int, ...] | None  # (seed, epoch, index, …) of a training sample; None: no augmentation
    weight: float  # weight of the sample's loss in its optimizer step; 0: filler


class Samples(Protocol):
    """A set of samples that can be read in any order, from any process."""

    shape: tuple[int, ...] | None  # (C, L1, …) of every input; None: it differs from sample to sample

    def __len__(self) -> int:
        """Number of samples."""

    def item(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Read one sample: ``input`` and usually ``target``; ``rng`` is the only source of randomness, if any."""

    def name(self, index: int) -> str:
        """Name of the sample, ``'file.h5[17]'``, without reading it."""


class Checked(Dataset[dict[str, Any]]):
    """Reads the requested samples, and reports errors with the name of the sample.

    Args:
        samples: The data set.
        nonfinite: ``'stop'`` the run at a sample with NaN or Inf, or ``'skip'`` it.
    """

    def __init__(self, samples: Samples, nonfinite: Nonfinite) -> None:
        self.samples = samples
        self.nonfinite = nonfinite

    def __getitem__(self, key: Key) -> dict[str, Any]:
        # Exceptions of workers are wrapped in their traceback, so the message is passed as a value.
        try:
            return self._read(key)
        except Exception as error:
            text = ' '.join(str(error).split())
            reason = text if isinstance(error, ValueError) and text else f'{type(error).__name__}: {text}'
            return {'error': f'sample {key.index} ({self.samples.name(key.index)}): {reason}'}

    def _read(self, key: Key) -> dict[str, Any]:
        rng = None if key.seed is None else np.random.default_rng(key.seed)
        item = {
            name: value if isinstance(value, Tensor) else torch.as_tensor(value)
            for name, value in self.samples.item(key.index, rng).items()
        }
        if 'input' not in item:
            raise SampleError(f'it has no input, only {", ".join(item) or "nothing"}')
        shape, due = tuple(item['input'].shape), self.samples.shape
        if due is not None and shape != tuple(due):
            raise SampleError(f'its shape is {shape}, but the data set has {tuple(due)}')
        weight = key.weight
        broken = [name for name, value in item.items() if not _finite(value)]
        if broken and self.nonfinite == 'stop':
            raise SampleError(
                f'its {" and ".join(broken)} contains NaN or Inf, as values beyond single precision (3.4e38) are too '
                '(the data option nonfinite=skip skips such samples)'
            )
        if broken:
            # 0 × NaN is NaN, so a weight of 0 is not enough.
            item, weight = {name: torch.nan_to_num(value, 0, 0, 0) for name, value in item.items()}, 0.0
        if getattr(self.samples, 'varied', False):
            self.samples.release()  # type: ignore[attr-defined]
        read: dict[str, Any] = {**item, 'index': key.index, 'name': self.samples.name(key.index), 'weight': weight}
        # 63 bits, as torch's generators need; reading has its own stream of random numbers.
        return read if key.seed is None else {**read, 'seed': seed_from(*key.seed, 1) >> 1}


def _finite(value: Tensor) -> bool:
    if not value.is_floating_point():
        return True
    # A part at a time: what says it of each value is larger than the values, which may not be held.
    if value.ndim < 2:
        return bool(value.isfinite().all())
    step = max(1, _PART * value.shape[1] // max(1, value.numel()))
    return all(bool(value[:, start : start + step].isfinite().all()) for start in range(0, value.shape[1], step))


def _maps(items: list[dict[str, Any]]) -> set[str]:
    """Names of values with the spatial size of the input, in every sample."""
    sizes = [item['input'].shape[1:] for item in items]
    return {
        name
        for name, first in items[0].items()
        if isinstance(first, Tensor)
        and all(
            len(size) and name in item and item[name].shape[-len(size) :] == size
            for item, size in zip(items, sizes, strict=True)
        )
    }


def _form(item: dict[str, Any], maps: set[str]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Types and shapes, without the spatial axes of maps, which may differ."""
    lead = 1 - item['input'].ndim
    return {
        name: (value.dtype, tuple(value.shape[:lead] if name in maps else value.shape))
        for name, value in item.items()
        if isinstance(value, Tensor)
    }


def _difference(item: dict[str, Any], first: dict[str, Any], maps: set[str]) -> str:
    own, other = _form(item, maps), _form(first, maps)
    name = next(name for name in {**own, **other} if own.get(name) != other.get(name))
    told = [
        f'{str(each[name].dtype).removeprefix("torch.")} {tuple(each[name].shape)}' if name in each else 'not there'
        for each in (item, first)
    ]
    return f'cannot be batched with {first["name"]}: its {name} is {told[0]}, the other is {told[1]}'


def _padded(items: list[dict[str, Any]], maps: set[str]) -> tuple[list[dict[str, Any]], Tensor]:
    """Samples of one size, padded with zeros at the end of each axis, and their original sizes, ``(B, axes)``."""
    sizes = torch.tensor([item['input'].shape[1:] for item in items])
    most = sizes.amax(0).tolist()
    padded = []
    for item in items:
        own = reversed(item['input'].shape[1:])
        pads = [each for have, want in zip(own, reversed(most), strict=True) for each in (0, want - have)]
        padded.append({**item, **{name: pad(item[name], pads) for name in maps}})
    return padded, sizes


def _alone(item: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value[None] if isinstance(value, Tensor) else default_collate([value]) for name, value in item.items()
    }


def collate(items: list[dict[str, Any]], copy: bool = True) -> dict[str, Any]:
    """Stack samples to a batch, or pass on the first error among them.

    If samples differ in size, inputs and target maps are padded with zeros, and ``lengths`` contains the
    size of each, ``(B, axes)``. Without ``copy`` a sample that is alone in its batch is not copied: it may be larger
    than main memory, and read where it is used.
    """
    error = next((item for item in items if 'error' in item), None)
    if error is not None:
        return error
    maps = _maps(items)
    form = _form(items[0], maps)
    for item in items:
        if _form(item, maps) != form:
            return {'error': f'sample {item["index"]} ({item["name"]}) {_difference(item, items[0], maps)}'}
    lengths = None
    if len({item['input'].shape for item in items}) > 1:
        items, lengths = _padded(items, maps)
    seeds = [item.pop('seed') for item in items if 'seed' in item]
    batch: dict[str, Any] = default_collate(items) if copy or len(items) > 1 else _alone(items[0])
    if seeds:
        batch['seed'] = seeds  # not a tensor: it stays on the host, where random numbers are drawn
    batch['weight'] = batch['weight'].float()
    return batch if lengths is None else {**batch, 'lengths': lengths}
