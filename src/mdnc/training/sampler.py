"""The order of samples in epochs, processes and steps, computed so that it can be resumed at any point.

The order of an epoch depends only on (seed, epoch), the batch size counts all processes together, and each sample has
a weight for its loss. So one process and many see the same batches, a continued run sees the remaining batches, and
batches of unequal size count every sample once. Batches of training differ in size by one sample at most, since batch
norm suffers from a last batch of a few samples.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, get_args

import lightning as L
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, distributed
from torch.utils.data import BatchSampler, DataLoader

from mdnc.modules._checks import flag, integer, number, word
from mdnc.training.process_signals import outlive_signals
from mdnc.training.sample import Checked, Key, Nonfinite, SampleError, Samples, collate
from mdnc.training.seed import seed_from


def _process() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


class WorkerError(RuntimeError):
    """A worker process died."""


def even_starts(samples: int, batch_size: int) -> list[int]:
    """Where batches begin, and the last one ends, if their sizes differ by one sample at most.

    Args:
        samples: Number of samples.
        batch_size: The most samples of a batch.

    Example:
        >>> even_starts(50, 16)
        [0, 13, 26, 38, 50]
    """
    batches = -(-samples // batch_size)
    size, larger = divmod(samples, max(1, batches))
    return [batch * size + min(batch, larger) for batch in range(batches + 1)]


class EvenBatches(BatchSampler):
    """torch's `BatchSampler` with batches whose sizes differ by one sample at most, for loaders of torch."""

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        starts = even_starts(len(order), self.batch_size)
        for first, end in pairwise(starts):
            yield order[first:end]


class Batches:
    """The batches of one process, as lists of keys.

    Args:
        samples: Number of samples.
        batch_size: The most samples of a batch, over all processes together.
        shuffle: Shuffle in each epoch, give each sample a seed for its augmentation, and make batches of even size.
        seed: Seed of all random choices.
        balance: Class of each sample, and the fraction of an epoch's samples drawn equally from all classes.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        balance: tuple[Sequence[int], float] | None = None,
    ) -> None:
        self.balance = balance
        self.samples = samples
        self.batch_size = batch_size
        self.sampler = self  # where Lightning looks for `set_epoch`
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.start = 0  # number of batches of this epoch before
        self.even = shuffle
        self.accumulate = 1  # number of batches per optimizer step
        self.limit: int | None = None  # number of batches per epoch, if limited

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Key]]:
        rank, world = _process()
        order = self._order()
        starts = self._starts()
        for batch in range(self.start, len(self)):
            first, end = starts[batch], starts[batch + 1]
            weight = world * self.accumulate / self._counted(batch, starts)
            # A process without samples repeats one with weight 0: it must take part in the gradient reduction.
            places = range(first, end)[rank::world]
            yield [self._key(order, place, weight) for place in places] or [self._key(order, first, 0.0)]

    def _starts(self) -> list[int]:
        if self.even:
            return even_starts(self.samples, self.batch_size)
        return [*range(0, self.samples, self.batch_size), self.samples]

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.samples))
        # Mixed: with a plain sum, neighbouring seeds would have the same orders, one epoch apart.
        generator = torch.Generator().manual_seed(seed_from(self.seed, self.epoch))
        order = torch.randperm(self.samples, generator=generator)
        return (order if self.balance is None else _balanced(order, *self.balance, generator)).tolist()

    def _counted(self, batch: int, starts: list[int]) -> int:
        # Samples of the optimizer step that this batch belongs to. Lightning divides by `accumulate`, and the
        # processes' gradients are averaged: world × accumulate / samples makes it the mean over samples.
        first = batch // self.accumulate * self.accumulate
        last = self.limit or len(self)
        # Batches after the limit are read ahead by workers, and not used.
        return starts[min(first + self.accumulate, last if first < last else len(self))] - starts[first]

    def _key(self, order: list[int], place: int, weight: float) -> Key:
        index = order[place]
        if not self.shuffle:
            return Key(index, None, weight)
        # A sample drawn again gets another seed.
        more = () if self.balance is None else (place,)
        return Key(index, (self.seed, self.epoch, index, *more), weight)


def _balanced(order: Tensor, labels: Sequence[int], share: float, generator: torch.Generator) -> Tensor:
    """An order in which a fraction of the samples is redrawn: first a class, then one of its samples."""
    classes, which, counts = torch.unique(torch.tensor(labels), return_inverse=True, return_counts=True)
    sorted_by_class, first = which.argsort(stable=True), counts.cumsum(0) - counts
    anew = torch.rand(len(order), generator=generator) < share
    drawn = torch.randint(len(classes), (len(order),), generator=generator)
    within = (torch.rand(len(order), generator=generator, dtype=torch.float64) * counts[drawn]).long()
    return torch.where(anew, sorted_by_class[first[drawn] + within], order)


_DEAD = 'DataLoader worker'
_SIGNAL_SECONDS = 5
_latest: 'Loader | None' = None  # the loader in use: torch reports a dead worker wherever the program is then


class Loader:
    """A data loader that knows its position in the epoch.

    Lightning stores `state_dict` in checkpoints and calls `set_epoch` of ``batch_sampler.sampler``; since this is not
    a torch `DataLoader`, it does not replace the sampler.

    Args:
        loader: Loads the batches.
        batches: The batch sampler; the same object that ``loader`` uses.
    """

    def __init__(self, loader: DataLoader[Any], batches: Batches) -> None:
        self.batch_sampler = batches
        self.seen = 0
        self._loader = loader
        self._taken_up: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.batch_sampler)

    @property
    def _iterator(self) -> Any:
        # Lightning ends the workers of a DataLoader through this attribute.
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, value: None) -> None:
        self._loader._iterator = value

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # A generator starts at its first `next`, when Lightning has set the epoch; workers read ahead, so the
        # position is counted here and not in the sampler.
        global _latest
        _latest = self
        state, self._taken_up = self._taken_up, {}
        if state.get('epoch') != self.batch_sampler.epoch:
            state = {}
        self.seen = self.batch_sampler.start = state.get('seen', 0)
        # Versions before 0.3 recorded no `even`: an epoch that they began ends with batches as they made them.
        self.batch_sampler.even = self.batch_sampler.shuffle and (not self.seen or bool(state.get('even', 0)))
        try:
            for batch in self._loader:
                if 'error' in batch:
                    raise SampleError(batch['error'])
                self.seen += 1
                yield batch
        except (RuntimeError, ConnectionError, EOFError) as error:
            signalled = self._signalled(error)
            if _DEAD not in str(signalled):
                raise
            raise WorkerError(self.obituary(signalled)) from signalled

    def _signalled(self, error: Exception) -> Exception:
        """What torch raises at the signal of a dead worker, whose connection may break a moment before it comes."""
        if isinstance(error, RuntimeError) or not self._loader.num_workers:
            return error
        try:
            time.sleep(_SIGNAL_SECONDS)
        except RuntimeError as found:
            return found
        return error

    def obituary(self, error: Exception) -> str:
        """The message about a dead worker of this loader."""
        return (
            f'a worker process died (out of memory, or killed) before batch {self.seen} of epoch '
            f'{self.batch_sampler.epoch} was read: {error}'
        )

    def first_batch(self) -> dict[str, Any]:
        """Read the first batch of the epoch in this process, as a check."""
        batch = collate([self._loader.dataset[key] for key in next(iter(self.batch_sampler))])
        if 'error' in batch:
            raise SampleError(batch['error'])
        return batch

    def state_dict(self) -> dict[str, int]:
        """Epoch, number of its batches so far, and whether they are of even size."""
        return {'epoch': self.batch_sampler.epoch, 'seen': self.seen, 'even': int(self.batch_sampler.even)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue an epoch after the batches of the saved state."""
        self._taken_up = dict(state)


def _checked_balance(balance: Any, samples: int) -> tuple[list[int], float]:
    if not isinstance(balance, tuple | list) or len(balance) != 2:
        raise TypeError(f'make_loader: balance={balance!r:.80} must be the class of each sample, and a fraction')
    labels, share = balance
    share = number('make_loader', 'balance', share, least=0)
    if share > 1 or len(labels) != samples:
        raise ValueError(
            f'make_loader: balance must be one class for each of {samples} samples, and a fraction in [0, 1], not '
            f'{len(labels)} classes and {share:g}'
        )
    return [integer('make_loader', 'balance', label, minimum=-(2**31)) for label in labels], share


def make_loader(
    samples: Samples,
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
    nonfinite: Nonfinite = 'stop',
    balance: tuple[Sequence[int], float] | None = None,
) -> Loader:
    """Make the loader of one data set.

    Args:
        samples: The data set.
        batch_size: Samples per batch, over all processes together: the run is the same on one device and on many. If
            it does not divide their number, the last batch is smaller; with ``shuffle``, all batches are, as evenly as
            they divide: 50 samples in batches of 16 are 13, 13, 12 and 12.
        shuffle: Shuffle in each epoch, and augment; for training.
        seed: Seed of order and augmentation.
        workers: Number of worker processes; 0: samples are read in the training process.
        nonfinite: ``'stop'`` at a sample with NaN or Inf, or ``'skip'`` it.
        balance: Class of each sample, and the fraction in [0, 1] of an epoch's samples drawn equally from all classes,
            with ``shuffle``; None: each sample once.

    Raises:
        ValueError: There are no samples, or an argument is out of range.
        TypeError: An argument has the wrong type.

    Example:
        >>> import numpy as np
        >>> from mdnc.training import ArrayData, make_loader
        >>> data = ArrayData(np.zeros((20, 1, 32)), np.arange(20) % 2)
        >>> data.setup()
        >>> len(make_loader(data.train, batch_size=5, shuffle=True))
        4
    """
    if len(samples) == 0:
        raise ValueError('make_loader: the data set has no samples')
    word('make_loader', 'nonfinite', nonfinite, get_args(Nonfinite))
    workers = integer('make_loader', 'workers', workers, minimum=0)
    batches = Batches(
        len(samples),
        integer('make_loader', 'batch_size', batch_size),
        flag('make_loader', 'shuffle', shuffle),
        integer('make_loader', 'seed', seed, minimum=0),
        None if balance is None else _checked_balance(balance, len(samples)),
    )
    loader = DataLoader(
        Checked(samples, nonfinite),
        batch_sampler=batches,  # keys instead of numbers
        collate_fn=partial(collate, copy=not getattr(samples, 'varied', False)),
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=outlive_signals,
        pin_memory=torch.cuda.is_available(),
    )
    return Loader(loader, batches)


class LoaderState(L.Callback):
    """Saves the position of the training loader in checkpoints, and passes on the trainer's limits to it."""

    state_key = 'Place'  # in checkpoints, since the first version

    def __init__(self) -> None:
        self._loader: Loader | None = None
        self._state: dict[str, int] = {}
        self._now: dict[str, int] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):  # it acts at the start of epochs only
                trainer.accumulate_grad_batches = callback.get_accumulate_grad_batches(trainer.current_epoch)
        self._loader = None
        self._look(trainer)
        if self._loader is not None:
            self._refuse_others(self._state)
            # Lightning does so only for loaders that are made after the checkpoint was read.
            self._loader.load_state_dict(self._state)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer)

    def _refuse_others(self, state: dict[str, int]) -> None:
        within = 0 < state.get('seen', 0) < state.get('batches', 0)
        changed = [f'{name}={value}' for name, value in self._now.items() if state.get(name, value) != value]
        if within and changed:
            raise ValueError(
                f'the run stopped within epoch {state["epoch"]}, after {state["seen"]} of {state["batches"]} batches '
                f'of {state["batch_size"]} samples, and can only be continued there with the same settings, not with '
                f'{", ".join(changed)}: change these at the end of an epoch, or start from the checkpoint of one'
            )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if type(exception) is RuntimeError and _DEAD in str(exception) and _latest is not None:
            exception.args = (_latest.obituary(exception),)

    def _look(self, trainer: L.Trainer) -> None:
        # A scheduler may change the number of accumulated batches, and a trainer may recreate its loaders.
        if isinstance(trainer.train_dataloader, Loader):
            self._loader = trainer.train_dataloader
            batches = self._loader.batch_sampler
            batches.limit = int(trainer.num_training_batches)
            batches.accumulate = trainer.accumulate_grad_batches
            self._now = {
                'batch_size': batches.batch_size,
                'samples': batches.samples,
                'batches': batches.limit,
                'accumulate_grad_batches': batches.accumulate,
            }

    def state_dict(self) -> dict[str, int]:
        return {**self._loader.state_dict(), **self._now} if self._loader is not None else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._state = state
