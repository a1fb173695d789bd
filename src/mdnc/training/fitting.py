"""Training in one call: a network and data in, a predictor out."""

import contextlib
import difflib
import inspect
import io
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, random_split

from mdnc import _bundle
from mdnc._archive import load_archive
from mdnc._files import as_path
from mdnc._side_effects import random_state_kept
from mdnc.modules import resnet
from mdnc.modules._checks import integer
from mdnc.training import run as runs
from mdnc.training.checkpoint import FOLDER, numbered
from mdnc.training.data import ArrayData, SampleData
from mdnc.training.data.label_values import UNKNOWN
from mdnc.training.data.memory import plain_array
from mdnc.training.data.reader import DataError
from mdnc.training.data.split import PARTS
from mdnc.training.predictor import Predictor
from mdnc.training.sampler import EvenBatches
from mdnc.training.saving import Keeper
from mdnc.training.tasks import (
    Classification,
    DenseRegression,
    MultiLabel,
    Reconstruction,
    Regression,
    Segmentation,
    Task,
)
from mdnc.training.tasks.batch import as_batch
from mdnc.training.tasks.network import as_network

TASKS: dict[str, type[Task]] = {
    'classification': Classification,
    'multilabel': MultiLabel,
    'regression': Regression,
    'segmentation': Segmentation,
    'dense_regression': DenseRegression,
    'reconstruction': Reconstruction,
}
_FEW = 1000  # classes; more distinct whole numbers are probably quantities
_CERTAIN = 10  # distinct whole numbers that are classes however few samples there are
Loaders = dict[str, Any]


@dataclass(frozen=True)
class FirstSample:
    """Properties of the data, from the first sample.

    Args:
        shape: Shape of the input, ``(C, L1, ...)``.
        target: The target; None where there is none.
        targets: Returns all targets, to count classes.
        names: Names of the classes; None if the data have none.
    """

    shape: tuple[int, ...]
    target: Tensor | None
    targets: Callable[[], Iterable[Tensor]]
    names: Sequence[str] | None = None

    @property
    def order(self) -> int:
        """Number of spatial axes."""
        return len(self.shape) - 1

    @property
    def is_map(self) -> bool:
        """Whether the target has a value at each position."""
        return self.target is not None and tuple(self.target.shape[-self.order :]) == self.shape[1:]

    @cached_property
    def numbers(self) -> Counter[int]:
        """How often each whole number stands in the targets."""
        found: Counter[int] = Counter()
        for each in self.targets():
            numbers, counts = torch.unique(each, return_counts=True)
            found.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        return found

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.names) if self.names is not None else 1 + max(self.numbers)

    @property
    def holds_labels(self) -> bool:
        """Whether all targets are vectors of 0 and 1."""
        one = self.target
        there = one is not None and one.ndim == 1 and len(one) > 1 and bool(((one == 0) | (one == 1)).all())
        return there and {*self.numbers} <= {0, 1}

    @property
    def may_be_quantities(self) -> bool:
        """Whether whole numbers, one a sample, are too many, or too rarely the same, to be certainly classes."""
        if self.names is not None:
            return False
        different = len(self.numbers)
        return self.classes > _FEW or (different > _CERTAIN and 2 * different > self.numbers.total())

    def check_classes(self, ignore: int) -> None:
        """Refuse targets from which the number of classes cannot be told.

        Args:
            ignore: The number that stands for "not known".

        Raises:
            ValueError: They hold one class only, numbers below 0, or few numbers far apart.
        """
        numbers = [] if self.names is not None else sorted({*self.numbers} - {ignore})
        held = self.names or numbers
        if len(held) < 2:
            only = f'one class only, {held[0]!r}' if held else 'no class'
            raise ValueError(f'train: the targets hold {only}: there must be at least two to be told apart')
        if not numbers:
            return
        shown = ', '.join(map(str, numbers[:8])) + (', …' if len(numbers) > 8 else '')
        if numbers[0] < 0 or numbers[-1] + 1 > 2 * len(numbers):
            raise ValueError(
                f'train: classes are numbered 0, 1, …, but the targets hold {shown}: values=[{shown}] says which '
                'numbers stand for the classes; with missing=True, numbers that are not among them are not known'
            )

    def outputs(self, kind: type[Task]) -> int:
        """Number of outputs or output channels that a network needs for a task."""
        if self.target is None or issubclass(kind, Reconstruction):
            return self.shape[0]
        if issubclass(kind, Classification | Segmentation):
            return self.classes
        if issubclass(kind, Regression | MultiLabel):
            return max(1, self.target.numel())
        return self.target.shape[0] if self.target.ndim > self.order else 1


def train(
    network: nn.Module | str | Mapping[str, Any],
    data: Any,
    *,
    task: str | type[Task] | None = None,
    epochs: int = 20,
    batch_size: int = 32,
    device: str = 'auto',
    run: str | os.PathLike[str] | None = None,
    progress: bool = False,
    seed: int = 0,
    **options: Any,
) -> Predictor:
    """Train a network and return a predictor that uses the checkpoint with the best validation result.

    Args:
        network: A module, which is trained in place; the name of a network or preset of `mdnc.list_models`, or of a
            family (``'EncoderNet'``, ``'UNet'``); or ``{'name': …, 'arguments': {…}}``. For a name, channels, number
            of outputs and order are taken from the data if they are not given.
        data: ``(inputs, targets)``, or inputs alone, each an array ``(N, C, L1, ...)`` or files, anything that
            `ArrayData` takes; ``{'train': (inputs, targets), 'val': …, 'test': …}``; a data module of Lightning; or a
            torch data set of ``(x, y)``, a loader of such batches, or ``{'train': …, 'val': …}`` of these.
        task: ``'classification'``, ``'multilabel'``, ``'regression'``, ``'segmentation'``, ``'dense_regression'``,
            ``'reconstruction'``, or a subclass of `Task`; None: chosen by the targets. Names and whole numbers are
            classes, vectors of 0 and 1 are multi-label classes, others are quantities.
        epochs: Number of epochs, at least 1.
        batch_size: The most samples of a step; a data module or loader has its own.
        device: ``'auto'``, ``'cpu'``, ``'cuda'``, ``'cuda:1'``, ``'mps'``.
        run: Folder for the run, which `mdnc.load` can open later; None saves nothing.
        progress: Whether to show progress and metrics.
        seed: Seed of all random choices; the caller's random state does not change.
        **options: Arguments of the data (``split=``, ``normalise=``, …), of the task (``lr=``, ``monitor=``, …), of a
            network given by name (``channel=``, ``layers=``, …), and of Lightning's trainer.

    Returns:
        The trained network, see `Predictor`.

    Raises:
        TypeError: The data are of another kind, or an option is unknown.
        ValueError: The data, or an option, cannot be used.

    Example:
        >>> import numpy as np
        >>> from mdnc.training import train
        >>> x = np.random.default_rng(0).normal(size=(60, 1, 32))
        >>> predictor = train('EncoderNet', (x, x.std(axis=2)), epochs=1, channel=4, layers=[1, 1])
        >>> predictor(x[:5]).shape, sorted(predictor.figures)
        ((5, 1), ['test/loss', 'test/mae', 'test/rmse'])
    """
    epochs, devices = integer('train', 'epochs', epochs), trainer_devices('train', device)
    with _quiet(not progress), random_state_kept(), _folder(run) as folder:
        torch.manual_seed(integer('train', 'seed', seed, minimum=0))  # read by the callback `Repeatable`
        words = _sorted_options(options, task, network)
        source = _source(data, integer('train', 'batch_size', batch_size), seed, words['data'])
        made = _task(network, task, _seen(source), words)
        if words['keeper']:
            words['trainer']['callbacks'] = [*words['trainer'].get('callbacks', []), Keeper(**words['keeper'])]
        trainer = runs.make_trainer(
            folder, max_epochs=epochs, enable_progress_bar=progress, **devices, **words['trainer']
        )
        figures, rows = _fitted(trainer, made, source, keeps=run is not None)
    network = getattr(made.network, '_orig_mod', made.network).eval()
    facts = {**made.facts, 'answer': made.answer}
    return Predictor(network, facts, batch_size=batch_size, figures=figures, history=rows, run=run)


# Which arguments belong where.


def _parameters(kind: Any) -> set[str]:
    """Names of the arguments of a class, with those that it passes on."""
    found: set[str] = set()
    for base in getattr(kind, '__mro__', ()):
        if '__init__' in vars(base) and base is not object:
            found |= set(inspect.signature(base).parameters)
    return found - {'self', 'args', 'kwargs', 'options'}


def _sorted_options(options: dict[str, Any], task: Any, network: Any) -> dict[str, dict[str, Any]]:
    maker = _maker(network)
    tasks = [task] if isinstance(task, type) else list(TASKS.values())
    known = {
        'data': _parameters(ArrayData) - {'inputs', 'targets', 'batch_size', 'seed'},
        'task': set().union(*map(_parameters, tasks)) - {'network', 'data'},
        'trainer': set(inspect.signature(L.Trainer).parameters)
        - {'default_root_dir', 'max_epochs', 'accelerator', 'devices', 'enable_progress_bar'},
        'network': set(inspect.signature(maker).parameters) if maker is not None else set(),
    }
    known['keeper'] = {'monitor', 'mode', 'patience'}
    found: dict[str, dict[str, Any]] = {room: {} for room in known}
    for name, value in options.items():
        room = next((room for room, names in known.items() if name in names), None)
        if room is None:
            near = difflib.get_close_matches(name, sorted(set().union(*known.values())), n=1)
            raise TypeError(f'train: unknown option {name}' + ''.join(f'; did you mean {word}?' for word in near))
        found[room][name] = value
    return found


def trainer_devices(owner: str, device: Any) -> dict[str, Any]:
    """The arguments of Lightning's trainer for a device.

    Raises:
        ValueError: It is not a device.
    """
    if device == 'auto':
        return {'accelerator': 'auto', 'devices': 1}
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{owner}: device={device!r} must be 'auto' or a device of torch, such as 'cuda'") from error
    number = 0 if wanted.index is None else wanted.index
    return {'accelerator': wanted.type, 'devices': 1 if wanted.type in ('cpu', 'mps') else [number]}


@contextlib.contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _folder(run: Any) -> Iterator[Path]:
    if run is None:
        with tempfile.TemporaryDirectory(prefix='mdnc-') as folder:
            yield Path(folder)
        return
    place = as_path('train', 'run', run)
    if numbered(place / FOLDER):
        raise ValueError(f'train: {place} already contains a run; choose another folder')
    yield place


# The data.


def _is_loader(value: Any) -> bool:
    # Iterables of batches or samples, other than the arrays and locations that `ArrayData` takes.
    plain = isinstance(value, str | os.PathLike | list | tuple | Mapping) or hasattr(value, '__array__')
    return isinstance(value, Dataset | DataLoader) or (
        not plain and not hasattr(value, 'read') and hasattr(value, '__iter__')
    )


def _source(data: Any, batch_size: int, seed: int, words: dict[str, Any]) -> L.LightningDataModule | Loaders:
    """A data module, or loaders by part."""
    if isinstance(data, L.LightningDataModule) or _is_loader(data) or _is_loaders(data):
        if words:
            raise TypeError(f'train: {", ".join(words)} apply to arrays and files only, not to a {type(data).__name__}')
        if isinstance(data, L.LightningDataModule):
            return data
        given = data if isinstance(data, Mapping) else {'train': data}
        return _loaders(given, batch_size, seed)
    inputs, targets = _pair(data)
    targets = {part: _column(each) for part, each in targets.items()} if isinstance(targets, dict) else _column(targets)
    return ArrayData(inputs, targets, batch_size=batch_size, seed=seed, **words)


def _column(targets: Any) -> Any:
    """Class numbers or names ``(N, 1)`` of an array as ``(N,)``."""
    if not hasattr(targets, '__array__') or getattr(targets, 'shape', ())[1:] != (1,):
        return targets
    values = plain_array(targets)
    return values if values.dtype.kind == 'f' else values[:, 0]


def _is_loaders(data: Any) -> bool:
    return isinstance(data, Mapping) and bool(data) and set(data) <= set(PARTS) and any(map(_is_loader, data.values()))


def _pair(data: Any) -> tuple[Any, Any]:
    if isinstance(data, tuple) and len(data) == 2:
        return data
    if isinstance(data, Mapping) and set(data) <= set(PARTS) and 'train' in data:
        pairs = {part: _pair(value) for part, value in data.items()}
        targets = {part: pair[1] for part, pair in pairs.items() if pair[1] is not None}
        return {part: pair[0] for part, pair in pairs.items()}, targets or None
    if isinstance(data, Mapping) or data is None:
        raise TypeError(
            'train: data must be (inputs, targets), inputs, a data module, a torch data set or loader, or a dictionary '
            f'of these for the parts {", ".join(PARTS)}; not {data!r:.80}'
        )
    return data, None


def _loaders(given: Mapping[str, Any], batch_size: int, seed: int) -> Loaders:
    parts = dict(given)
    whole = parts['train']
    if set(parts) == {'train'} and isinstance(whole, Dataset) and hasattr(whole, '__len__'):
        shares = [0.8, 0.1, 0.1] if len(whole) >= 10 else [1.0, 0.0, 0.0]
        parts = dict(zip(PARTS, random_split(whole, shares, torch.Generator().manual_seed(seed)), strict=True))
    return {
        part: _loader(value, batch_size, part == 'train') if isinstance(value, Dataset) else value
        for part, value in parts.items()
        if not (isinstance(value, Dataset) and hasattr(value, '__len__') and not len(value))
    }


def _loader(samples: Dataset[Any], batch_size: int, training: bool) -> DataLoader[Any]:
    if not training or not hasattr(samples, '__len__'):
        return DataLoader(samples, batch_size)
    order = RandomSampler(samples)
    return DataLoader(samples, batch_sampler=EvenBatches(order, batch_size, drop_last=False))


def _seen(source: Any) -> FirstSample:
    """Look at a sample of the training."""
    if isinstance(source, SampleData):
        source.setup()
        item = {key: torch.as_tensor(value) for key, value in source.train.item(0, None).items()}
        lone = source._parts['train'][0].targets is None  # a target is then the clean input
        target = None if lone else item.get('target')
        return FirstSample(tuple(item['input'].shape), target, partial(_all_targets, source), source.classes)
    if isinstance(source, L.LightningDataModule):
        source.prepare_data()
        source.setup('fit')
        loader = source.train_dataloader()
    else:
        loader = source['train']
    first = next(iter(loader), None)
    if first is None:
        raise DataError('train: the data have no samples')
    batch = as_batch('train', first)
    target = batch['target'][0] if 'target' in batch else None
    return FirstSample(
        tuple(batch['input'].shape[1:]), target, lambda: (as_batch('train', each)['target'] for each in loader)
    )


def _all_targets(source: SampleData) -> Iterator[Tensor]:
    for part in (source.train, source.val, source.test):
        yield from map(torch.as_tensor, part.target_pieces())


# Task and network.


def _task(network: Any, task: Any, seen: FirstSample, words: dict[str, dict[str, Any]]) -> Task:
    kind = _kind(task, seen)
    unknown = sorted(set(words['task']) - _parameters(kind))
    if unknown:
        raise TypeError(f'train: {", ".join(unknown)}: unknown option of the task {kind.__name__}')
    if isinstance(network, nn.Module):
        return kind(network, **words['task'])
    told: dict[str, Any] = {'order': seen.order, 'in_planes': seen.shape[0]}
    given = network.get('arguments') if isinstance(network, Mapping) else None
    if issubclass(kind, Classification | Segmentation) and not {'out_length', 'out_planes'} & {
        *words['network'],
        *(given or {}),
    }:
        seen.check_classes(words['task'].get('ignore', UNKNOWN))
    outputs = seen.outputs(kind)
    return kind(
        named_network(network, {**told, 'out_length': outputs, 'out_planes': outputs}, words['network']),
        **words['task'],
    )


def named_network(network: Any, told: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Name and arguments of a network given by name.

    Args:
        network: A name, also of a family, or a dictionary with ``name`` and ``arguments``.
        told: ``order`` and arguments from the data; used if the network has them.
        more: Arguments with precedence over all others.
    """
    found = as_network({'name': network} if isinstance(network, str) else network)
    full = f'{found.name}{told["order"]}d'
    name = full if full in resnet.__all__ else found.name
    maker = getattr(resnet, name, None)
    known = inspect.signature(maker).parameters if maker is not None else {}
    arguments = {key: value for key, value in told.items() if key in known}
    return {'name': name, 'arguments': {**arguments, **(found.arguments or {}), **(more or {})}}


def _kind(task: Any, seen: FirstSample) -> type[Task]:
    if isinstance(task, type) and issubclass(task, Task):
        return task
    if task is not None:
        if task not in TASKS:
            raise ValueError(f'train: task={task!r} must be one of {", ".join(TASKS)}, or a class of Task')
        return TASKS[task]
    target = seen.target
    if target is None:
        return Reconstruction
    if target.is_floating_point():
        return DenseRegression if seen.is_map else MultiLabel if seen.holds_labels else Regression
    if seen.is_map and (target.ndim == seen.order or target.shape[0] == 1):
        return Segmentation
    if target.ndim > 1:
        raise ValueError(
            f'train: a target has the shape {tuple(target.shape)} beside an input {seen.shape}: maps of classes have '
            f'one number at each position, of the shape {seen.shape[1:]} (of one-hot maps their argmax); others are '
            'one value or a vector'
        )
    if target.ndim:  # several whole numbers per sample
        return MultiLabel if seen.holds_labels else Regression
    if seen.may_be_quantities:
        raise ValueError(
            f'train: the targets are {len(seen.numbers)} different whole numbers up to {max(seen.numbers)}: say '
            "whether they are classes or quantities, task='classification' or task='regression'"
        )
    return Classification


def _maker(network: Any) -> Any:
    """The class or function that builds a network of that name, of any order."""
    if isinstance(network, nn.Module):
        return None
    name = network if isinstance(network, str) else as_network(dict(network)).name
    return getattr(resnet, name, None) or getattr(resnet, f'{name}1d', None)


# The run.


def _fitted(trainer: L.Trainer, task: Task, source: Any, keeps: bool) -> tuple[dict[str, float], list[Any]]:
    """Train, load the best checkpoint, and test; returns metrics, and the rows of the epochs."""
    module = isinstance(source, L.LightningDataModule)
    given: dict[str, Any] = {'datamodule': source} if module else {'dataloaders': source.get('test')}
    trainer.fit(
        task, **(given if module else {'train_dataloaders': source['train'], 'val_dataloaders': source.get('val')})
    )
    keeper = next(callback for callback in trainer.callbacks if isinstance(callback, Keeper))  # type: ignore[attr-defined]
    rows = list(keeper.history.rows)  # the best checkpoint has the rows up to its own epoch
    best = runs.best_checkpoint(Path(trainer.default_root_dir))
    if keeps and module:
        runs.test(trainer, task, source, best)
    elif module or given['dataloaders'] is not None:
        trainer.test(task, ckpt_path=best, verbose=False, **given)
    task.network.load_state_dict(_bundle.of_training(load_archive(best), best, built=True).weights)
    found = trainer.callback_metrics.items()
    return {name: float(value) for name, value in sorted(found) if name.startswith('test/')}, rows
