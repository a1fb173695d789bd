"""Data modules: parts, what is made of their samples, and the facts that a network of them must carry along."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

import lightning as L
import numpy as np
from lightning.pytorch.utilities import CombinedLoader

from mdnc.training.data.augmentation import Augmentation
from mdnc.training.data.location import Pair, open_pair
from mdnc.training.data.normalisation import channel_statistics, read_pieces
from mdnc.training.data.reader import class_name
from mdnc.training.data.samples import Samples, View
from mdnc.training.data.split import PARTS, Split, split_samples
from mdnc.training.sample import Nonfinite
from mdnc.training.sampler import Loader, make_loader

Words = TypeVar('Words', Split, Augmentation)


def divide(pairs: Mapping[str, Pair], split: Split) -> dict[str, tuple[Pair, np.ndarray]]:
    """Each part's pair and the numbers of its samples; validation and test, where not given, come out of ``train``."""
    rest = [part for part in ('val', 'test') if part in pairs]
    taken = split_samples(pairs['train'].inputs, replace(split, **dict.fromkeys(rest, 0.0)))  # type: ignore[arg-type]
    return {part: (pairs['train'], taken[part]) for part in PARTS} | {
        part: (pairs[part], np.arange(len(pairs[part].inputs))) for part in rest
    }


def find_classes(pairs: Iterable[Pair]) -> list[str] | None:
    """Names of the classes in ascending order, where targets are names and not numbers."""
    targets = [pair.targets for pair in pairs if pair.targets is not None and len(pair.targets)]
    if not targets or class_name(targets[0].read(0)) is None:
        return None
    names = {class_name(reader.read(number)) for reader in targets for number in range(len(reader))}
    return sorted(name for name in names if name is not None)


class SampleData(L.LightningDataModule):
    """What every source of samples shares; a source says in `parts` what its samples are.

    Args:
        batch_size: Samples of a step, over all processes together.
        workers: Processes that read; 0 reads in the training process.
        seed: Start of order, windows and augmentation.
        split: How samples are divided, where the source does not say it.
        augmentation: What is done to training samples at random.
        normalise: Whether a task brings each channel of the input to mean 0 and standard deviation 1 of the training
            part (and, for regression, the target).
        crop: Spatial size cut from every sample: at random in training, central elsewhere.
        patch: Spatial size of the windows that training draws from images or volumes; elsewhere samples are whole, and
            a task runs the network on overlapping tiles of this size.
        patches: Windows that training draws from each sample in an epoch.
        overlap: Share of a tile, in [0, 1), that it has in common with the next.
        corruption: Standard deviation, in the data's own units, of the noise added to the inputs of every part; where
            there are no targets, the clean sample is the target.
        missing: Whether NaN in a target means "not known", to be left out of losses and metrics.
        nonfinite: What a sample with NaN or Inf does: ``'stop'`` the run, or ``'skip'`` it.

    Raises:
        ValueError: An argument is out of its range.
    """

    order: int | None = None

    def __init__(
        self,
        batch_size: int = 32,
        workers: int = 0,
        seed: int = 0,
        split: Split = Split(),  # noqa: B008 frozen
        augmentation: Augmentation = Augmentation(),  # noqa: B008 frozen
        normalise: bool = True,
        crop: list[int] | None = None,
        patch: list[int] | None = None,
        patches: int = 1,
        overlap: float = 0.25,
        corruption: float = 0.0,
        missing: bool = False,
        nonfinite: Nonfinite = 'stop',
    ) -> None:
        super().__init__()
        self.batch_size, self.workers, self.seed, self.nonfinite = batch_size, workers, seed, nonfinite
        self.split = self._record(Split, 'split', split)
        augmentation = self._record(Augmentation, 'augmentation', augmentation)
        self.normalise, self.patch, self.overlap = normalise, patch, overlap
        for name, value, legal in (
            ('batch_size', batch_size, batch_size >= 1),
            ('workers', workers, workers >= 0),
            ('patches', patches, patches >= 1),
            ('overlap', overlap, 0 <= overlap < 1),
            ('corruption', corruption, corruption >= 0),
            ('crop', crop, crop is None or (patch is None and min(crop, default=0) >= 1)),
            ('patch', patch, patch is None or min(patch, default=0) >= 1),
        ):
            if not legal:
                raise ValueError(
                    f'{type(self).__name__}: {name}={value!r} is out of range, or meets crop and patch both'
                )
        self.classes: list[str] | None = None
        self._view = View(
            crop=tuple(crop) if crop else None,
            patch=tuple(patch) if patch else None,
            patches=patches,
            corruption=corruption,
            augmentation=augmentation,
            missing=missing,
            seed=seed,
        )

    def _record(self, kind: type[Words], name: str, value: Any) -> Words:
        # From Python a dictionary of a recipe's words does as well.
        try:
            return value if isinstance(value, kind) else kind(**value)
        except TypeError as error:
            words = ', '.join(each.name for each in fields(kind))
            raise TypeError(
                f'{type(self).__name__}: {name}={value!r} must be a {kind.__name__}, or a dictionary of {words}'
            ) from error

    @abstractmethod
    def pairs(self) -> Mapping[str, Pair]:
        """Open the source: ``'train'``, and ``'val'`` or ``'test'`` where the source itself says what they are."""

    def setup(self, stage: str | None = None) -> None:
        """Open the source and divide its samples; once, for all stages."""
        if hasattr(self, 'train'):
            return
        pairs = self.pairs()
        self.classes = self.classes or find_classes(pairs.values())
        self._view = replace(self._view, classes=self.classes, order=self.order)
        self._parts = divide(pairs, self.split)
        self.train, self.val, self.test = (
            Samples(*self._parts[part], self._view, training=part == 'train') for part in PARTS
        )
        self.predict = self.test

    @property
    def facts(self) -> dict[str, Any]:
        """What a network trained on these samples must know of them, as plain values.

        The training part is read once for ``normalisation``, piece by piece.
        """
        return {
            'normalisation': self._statistics(targets=False) if self.normalise else None,
            'classes': self.classes,
            'patch': self.patch,
            'overlap': self.overlap,
        }

    @property
    def target_normalisation(self) -> dict[str, list[float]] | None:
        """Mean and standard deviation of the training part's targets, for tasks whose targets are quantities."""
        return self._statistics(targets=True) if self.normalise else None

    def _statistics(self, targets: bool) -> dict[str, list[float]] | None:
        pair, numbers = self._parts['train']
        shape = pair.inputs.shape(int(numbers[0]))
        reader, lone = pair.inputs, len(shape) == self.order
        if targets:
            if pair.targets is None:
                return None
            reader, shape = pair.targets, shape if lone else shape[1:]
            lone = reader.shape(int(numbers[0])) in ((), shape)
        return channel_statistics(read_pieces(reader, numbers, lone))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        # Here targets are still in main memory: to look at them on a device would hold it up in every step.
        if self.trainer is not None and not self.trainer.predicting:
            getattr(self.trainer.lightning_module, 'check', lambda batch: None)(batch)
        return batch

    def _loader(self, samples: Samples, shuffle: bool = False) -> Loader | CombinedLoader:
        if not len(samples):
            return CombinedLoader({})  # Lightning leaves such a part out without a word
        world = self.trainer.world_size if self.trainer is not None else 1
        return make_loader(
            samples,
            batch_size=world if samples.varied else self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            workers=self.workers,
            nonfinite=self.nonfinite,
        )

    def train_dataloader(self) -> Any:
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> Any:
        return self._loader(self.val)

    def test_dataloader(self) -> Any:
        return self._loader(self.test)

    def predict_dataloader(self) -> Any:
        return self._loader(self.predict)


class ArrayData(SampleData):
    """Samples in files or in memory.

    Args:
        inputs: Where they are: ``'x.npy'``, ``'runs.npz::x'``, ``'run_*.h5::x'``, ``'store.zarr::x'`` (samples along
            the first axis), a folder or pattern of images or arrays (one sample a file), a list of these, or an array
            ``(N, C, L1, ...)``; or a dictionary of these for the parts ``train``, ``val`` and ``test``.
        targets: The same for the targets, ``'labels.csv::column'`` too; None where there are none (auto-encoders).
        order: Number of spatial axes; needed where samples have no channel axis, which they then get.
        classes: Names of the classes 0, 1, …; targets that are names themselves bring their own.
        predict: Inputs that ``mdnc predict`` runs on; None means the test part.
        **options: Those of `SampleData`.

    Raises:
        FileNotFoundError: Nothing has that name.
        DataError: A file cannot be used; the text names it.
        ValueError: An argument is out of its range.

    Example:
        >>> import numpy as np
        >>> data = ArrayData(np.zeros((20, 1, 32)), np.arange(20) % 2, batch_size=5)
        >>> data.setup()
        >>> len(data.train), len(data.val), len(data.test), data.train.shape
        (16, 2, 2, (1, 32))
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any = None,
        order: int | None = None,
        classes: list[str] | None = None,
        predict: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if order not in (None, 1, 2, 3):
            raise ValueError(f'ArrayData: order must be 1, 2, 3 or None, not {order!r}')
        if isinstance(inputs, Mapping) and (
            'train' not in inputs or set(inputs) - set(PARTS) or (targets is not None and set(targets) != set(inputs))
        ):
            raise ValueError(
                f'ArrayData: parts are called train (needed), val and test, the same for inputs and targets; '
                f'got inputs of {sorted(inputs)} and targets of {sorted(targets or ())}'
            )
        self.order, self.classes = order, classes
        self._inputs, self._targets, self._new = inputs, targets, predict

    def pairs(self) -> Mapping[str, Pair]:
        if not isinstance(self._inputs, Mapping):
            return {'train': open_pair(self._inputs, self._targets)}
        targets = self._targets or {}
        return {part: open_pair(where, targets.get(part)) for part, where in self._inputs.items()}

    def setup(self, stage: str | None = None) -> None:
        if stage != 'predict' or self._new is None:
            super().setup(stage)
        if self._new is not None:
            pair = open_pair(self._new, None)
            # They are what they are: noise that was added for training is not added to them.
            view = replace(self._view, order=self.order, corruption=0.0)
            self.predict = Samples(pair, np.arange(len(pair.inputs)), view)
