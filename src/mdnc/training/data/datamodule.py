"""Data modules: parts, preprocessing of their samples, and facts about the data for networks."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from reprlib import repr as short_repr
from typing import Any, Literal, TypeVar, get_args

import lightning as L
import numpy as np
from lightning.pytorch.utilities import CombinedLoader

from mdnc.modules._checks import flag, integer, integers, number, spatial_order, word
from mdnc.modules._standardization import reads_amplitude
from mdnc.modules._tiling import BLENDS, usual_overlap
from mdnc.training.augmentation.augmentation import Augmentation, PresetName, share
from mdnc.training.data.class_positions import count_classes
from mdnc.training.data.grid import grid_of
from mdnc.training.data.images import Colours, PixelOptions
from mdnc.training.data.label_values import ClassNumbers, check_values
from mdnc.training.data.labels import check_names, find_classes, read_names, refuse_holes, with_target
from mdnc.training.data.normalisation import (
    BLURRED,
    COLUMNS,
    AmplitudeSpread,
    clipped_statistics,
    drawn_values,
    input_figures,
    mixed_depths,
    moments,
    read_pieces,
    small_samples,
    target_sizes,
    whole_samples,
)
from mdnc.training.data.path_parts import is_path_part
from mdnc.training.data.reader import DataError, Window, channels_last, class_name
from mdnc.training.data.resampling import Resampled, Sampling
from mdnc.training.data.samples import Samples, View
from mdnc.training.data.sources import (
    Pair,
    ReadOptions,
    Role,
    holds_tables,
    input_columns,
    open_pair,
    open_reader,
    table_columns,
    written_columns,
)
from mdnc.training.data.split import PARTS, Split
from mdnc.training.data.splitting import divide, divide_recordings
from mdnc.training.data.windowing import Stretch, Windowing, cut, recording_length
from mdnc.training.sample import Nonfinite
from mdnc.training.sampler import Loader, make_loader

Words = TypeVar('Words', Split, Augmentation)


def _lengths(owner: str, name: str, value: Any) -> list[int] | None:
    found = None if value is None else list(integers(owner, name, value))
    if found is not None and len(found) > 3:
        raise ValueError(f'{owner}: {name}={value!r} must be one length for each of 1, 2 or 3 spatial axes.')
    return found


_MOST_TARGETS = 50_000  # that are read to look for classes that are not taught
_BY = ('set', 'sample', 'percentiles', 'auto')


def normalisation(owner: str, value: Any) -> bool | str:
    """The word ``normalise``; ``'set'`` and True are one."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value not in _BY:
        error = ValueError if isinstance(value, str) else TypeError
        raise error(f'{owner}: normalise={value!r:.80} must be true, false, {", ".join(map(repr, _BY))}.')
    return True if value == 'set' else str(value)


def _mirror(owner: str, value: Any) -> list[int]:
    found = integers(owner, 'mirror', value, minimum=0, least=0)
    if max(found, default=0) > 2 or len(set(found)) < len(found):
        raise ValueError(f'{owner}: mirror={value!r} must be a list of the spatial axes 0, 1 or 2, each once.')
    return list(found)


def _most_one(owner: str, name: str, value: Any) -> float:
    found = number(owner, name, value, least=0)
    if found > 1:
        raise ValueError(f'{owner}: {name}={value!r} must be in [0, 1].')
    return found


def _baselines(owner: str, value: Any) -> dict[str, dict[str, float]]:
    legal = 'figures of other methods by metric and method, such as {"accuracy": {"1-NN": 0.9}}'
    if not isinstance(value, Mapping) or not all(isinstance(each, Mapping) and each for each in value.values()):
        raise TypeError(f'{owner}: baselines={value!r} must be {legal}.')
    return {
        str(metric): {
            str(name): number(owner, f'baselines[{metric!r}][{name!r}]', found) for name, found in each.items()
        }
        for metric, each in value.items()
    }


def _distances(owner: str, name: str, value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    found = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(found, list | tuple) or not 1 <= len(found) <= 3:
        raise ValueError(f'{owner}: {name}={value!r} must be one distance for each of 1, 2 or 3 spatial axes.')
    return tuple(number(owner, name, each, above=0) for each in found)


def _sampling(owner: str, spacing: Any, stored: Any, resize: Any) -> Sampling:
    size = _lengths(owner, 'resize', resize)
    if spacing is not None and size is not None:
        raise ValueError(
            f'{owner}: spacing={spacing!r} and resize={resize!r} exclude each other; give only one of them.'
        )
    found = Sampling(
        _distances(owner, 'spacing', spacing),
        _distances(owner, 'stored_spacing', stored),
        None if size is None else tuple(size),
    )
    if found.stored and found.spacing and len(found.stored) != len(found.spacing):
        raise ValueError(f'{owner}: spacing={spacing!r} and stored_spacing={stored!r} must have one value per axis.')
    return found


def _windowing(owner: str, window: Any, hop: Any, horizon: Any) -> Windowing | None:
    if window is None:
        for name, value in (('hop', hop), ('horizon', horizon)):
            if value is not None:
                raise ValueError(f'{owner}: {name}={value!r} needs window, the length of a window.')
        return None
    length = integer(owner, 'window', window)
    return Windowing(
        length,
        length if hop is None else integer(owner, 'hop', hop),
        0 if horizon is None else integer(owner, 'horizon', horizon),
    )


_WINDOWING = ('window', 'hop', 'horizon')
_SAMPLING = {'spacing': 'spacing', 'stored_spacing': 'stored', 'resize': 'resize'}


def _too_short(part: str, stretches: Sequence[Stretch], windowing: Windowing) -> str:
    longest = max(stretch.end - stretch.begin for stretch in stretches)
    ahead = f' and horizon={windowing.horizon}' if windowing.horizon else ''
    needed = f'window={windowing.window}{ahead}'
    return f'the part {part} has no recording of at least {needed}: the longest has {longest} values'


class SampleData(L.LightningDataModule):
    """Base of all data modules; subclasses define their samples in `parts`.

    Args:
        batch_size: Samples per step, at most, of all processes together; in training as even as they divide.
        workers: Number of worker processes; 0: samples are read in the training process.
        seed: Seed of order, windows and augmentation.
        split: How samples are divided into parts.
        augmentation: Random changes of training samples.
        normalise: Normalisation of each channel to mean 0 and standard deviation 1: ``'set'`` or true, over the
            training part; ``'sample'``, over each sample; ``'percentiles'``, over the training part, clipped to its
            0.5th and 99.5th percentile, and without the first class if targets are maps of classes (as nnU-Net for CT);
            false: none; ``'auto'``: ``'set'``, or ``'sample'`` where log10 of the samples' deviations deviates by more
            than 1.5, unless the network has ``amplitude`` or target quantities depend on it. The latter: set, or none.
        crop: Spatial size of crops of all samples: random in training, central elsewhere.
        patch: Spatial size of random patches of images or volumes in training; elsewhere samples are whole, and a task
            runs the network on overlapping tiles of this size.
        patches: Number of patches drawn from each sample in an epoch.
        balance: Fraction, in [0, 1], of the patches of an epoch that contain a class other than the most frequent one;
            or, if a sample has one class, of the samples that are drawn equally from all classes.
        spacing: Distance between neighbouring values along each spatial axis to which samples, and target maps, are
            resampled: in mm for volumes, in seconds for signals (1 / rate). None: no resampling.
        stored_spacing: The spacing in files that do not contain it.
        resize: Spatial size to which every sample, and target maps, are resized.
        window: Length of the windows that long recordings are cut into, each a sample; a shorter recording is one
            window. None: recordings are not cut.
        hop: Distance between the starts of windows; None: ``window``, without overlap.
        horizon: Forecasting: number of values after a window that are its target, from the targets, which must be
            series as long as the inputs, or else from the inputs. They become a vector, channel by channel.
        overlap: Overlap of neighbouring tiles as a fraction of a tile, in [0, 1). None: a half with ``blend: gaussian``
            (nnU-Net), a quarter with a tent; without ``blend``, as the run was trained.
        blend: Weights of overlapping tiles: ``'tent'``, or ``'gaussian'`` as in nnU-Net. None: as in the training run,
            else ``'tent'``.
        tiles: Number of tiles in one batch, or ``'auto'``: as many as fit into half of the free memory by estimate, at
            most 16. None: as in the training run, else 1.
        mirror: Spatial axes, counted from 0: predictions are averaged over a sample, or each tile, and all its mirror
            images along them. None: as in the training run, else none.
        corruption: Standard deviation, in the units of the data, of the noise added to the inputs of every part;
            without targets, the clean sample is the target.
        missing: Whether NaN in a target means unknown, and is ignored in losses and metrics.
        nonfinite: ``'stop'`` the run at a sample with NaN or Inf, or ``'skip'`` it.
        baselines: Results of other methods on the test part, by metric and method, ``{'accuracy': {'1-NN': 0.9}}``,
            written beside those of a test.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import numpy as np
        >>> from mdnc.training import ArrayData, SampleData
        >>> x = np.random.default_rng(0).normal(size=(20, 1, 64))
        >>> data = ArrayData(x, np.arange(20) % 2, crop=[48], batch_size=4)
        >>> data.setup()
        >>> batch = next(iter(data.train_dataloader()))
        >>> isinstance(data, SampleData), batch['input'].shape
        (True, torch.Size([4, 1, 48]))
    """

    order: int | None = None

    def __init__(
        self,
        batch_size: int = 32,
        workers: int = 0,
        seed: int = 0,
        split: Split = Split(),  # noqa: B008 frozen
        augmentation: Augmentation | PresetName = Augmentation(),  # noqa: B008 frozen
        normalise: bool | Literal['auto', 'set', 'sample', 'percentiles'] = 'auto',
        crop: list[int] | None = None,
        patch: list[int] | None = None,
        patches: int = 1,
        overlap: float | None = None,
        corruption: float = 0.0,
        missing: bool = False,
        nonfinite: Nonfinite = 'stop',
        spacing: list[float] | None = None,
        stored_spacing: list[float] | None = None,
        resize: list[int] | None = None,
        balance: float = 0.0,
        blend: Literal['tent', 'gaussian'] | None = None,
        tiles: int | Literal['auto'] | None = None,
        mirror: list[int] | None = None,
        window: int | None = None,
        hop: int | None = None,
        horizon: int | None = None,
        baselines: dict[str, dict[str, float]] | None = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.batch_size = integer(owner, 'batch_size', batch_size)
        self.workers = integer(owner, 'workers', workers, minimum=0)
        self.seed = integer(owner, 'seed', seed, minimum=0)
        self.nonfinite: Nonfinite = word(owner, 'nonfinite', nonfinite, get_args(Nonfinite))  # type: ignore[assignment]
        self.split = self._record(Split, 'split', split)
        self.normalise, self.missing = normalisation(owner, normalise), flag(owner, 'missing', missing)
        self.patch = _lengths(owner, 'patch', patch)
        self.balance = _most_one(owner, 'balance', balance)
        self.blend = None if blend is None else word(owner, 'blend', blend, BLENDS)
        usual = None if self.blend is None else usual_overlap(self.blend)
        self.overlap = usual if overlap is None else share(owner, 'overlap', overlap)
        if isinstance(tiles, str) and tiles != 'auto':
            raise ValueError(f"{owner}: tiles={tiles!r} must be 'auto', or a number of tiles, at least 1.")
        self.tiles = tiles if tiles is None or tiles == 'auto' else integer(owner, 'tiles', tiles)
        self.mirror = None if mirror is None else _mirror(owner, mirror)
        self.baselines = {} if baselines is None else _baselines(owner, baselines)
        cropped = _lengths(owner, 'crop', crop)
        if cropped and self.patch:
            raise ValueError(f'{owner}: crop={crop!r} and patch={patch!r} exclude each other; give only one of them.')
        self.sampling = _sampling(owner, spacing, stored_spacing, resize)
        self.windowing = _windowing(owner, window, hop, horizon)
        other = 'crop' if cropped else 'patch' if self.patch else None
        if self.windowing and other:
            raise ValueError(f'{owner}: window={window!r} and {other} exclude each other; give only one of them.')
        self.classes: list[str] | None = None
        self.values: list[int] | None = None
        self._named = False
        self._statistics: dict[str, dict[str, list[float]]] = {}
        self._spread = AmplitudeSpread()
        self._depths: dict[str, int] = {}  # the first sample of each type of values
        self._chosen: str | None = None  # what normalise: auto is, once it is known
        self._class_counts: dict[int, int] | None = None
        self.augmentation = self._record(Augmentation, 'augmentation', augmentation)
        self._view = View(
            crop=tuple(cropped) if cropped else None,
            patch=tuple(self.patch) if self.patch else None,
            patches=integer(owner, 'patches', patches),
            corruption=number(owner, 'corruption', corruption, least=0),
            augmentation=self.augmentation,
            missing=self.missing,
            seed=self.seed,
            by_sample=self.normalise == 'sample',
        )

    def _record(self, kind: type[Words], name: str, value: Any) -> Words:
        # In Python, a dictionary as in a recipe is also accepted.
        if isinstance(value, kind):
            return value
        presets = get_args(PresetName) if kind is Augmentation else ()
        if isinstance(value, str) and value in presets:
            return Augmentation(preset=value)  # type: ignore[return-value,arg-type]
        words = [each.name for each in fields(kind)]
        if not isinstance(value, Mapping) or set(value) - set(words):
            raise TypeError(
                f'{type(self).__name__}: {name}={value!r} must be of {kind.__name__}, '
                f'{"".join(f"{each!r}, " for each in presets)}or a dictionary of {", ".join(words)}'
            )
        return kind(**value)

    @abstractmethod
    def pairs(self) -> Mapping[str, Pair]:
        """Open the source: ``'train'``, and ``'val'`` or ``'test'`` if the source itself defines them."""

    def setup(self, stage: str | None = None) -> None:
        """Open the source and divide its samples; once, for all stages."""
        if hasattr(self, 'train'):
            return
        pairs = self._opened = self.pairs()
        names = {part: read_names(pair.targets) for part, pair in pairs.items()}
        self._named = any(names.values())
        if self._named and self.values:
            raise DataError(f'the targets are names of classes, so values={self.values} cannot be used')
        for part, pair in pairs.items():
            refuse_holes(pair, names[part], self.nonfinite == 'skip', self.missing)
        self.classes = find_classes(pairs, names, self.classes)
        known = {part: with_target(pair, names[part]) for part, pair in pairs.items()}
        prepared = {part: self._prepared(pair) for part, pair in pairs.items()}
        self._parts = self._divided(pairs, prepared, names['train'], known)
        if not len(self._parts['train'][1]):
            raise DataError('no sample of the training part has a target')
        self._view = replace(self._view, classes=self.classes, order=self.order)
        self._open_parts()

    def _divided(
        self, pairs: Mapping[str, Pair], prepared: Mapping[str, Pair], names: list[str] | None, known: Mapping[str, Any]
    ) -> dict[str, tuple[Pair, np.ndarray]]:
        if self.windowing is None:
            return {
                part: (prepared[source], numbers[np.isin(numbers, known[source])])
                for part, (source, numbers) in divide(pairs, self.split, names).items()
            }
        like = {part: replace(pair, inputs=prepared[part].inputs) for part, pair in pairs.items()}
        found = {}
        for part, (source, stretches) in divide_recordings(like, self.split, names, self.windowing).items():
            whole = {*known[source].tolist()}
            held = [stretch for stretch in stretches if stretch.number in whole]
            pair = cut(prepared[source], held, self.windowing)
            if pair is None and held:
                raise DataError(_too_short(part, held, self.windowing))
            found[part] = (pair or prepared[source], np.arange(0 if pair is None else len(pair.inputs)))
        return found

    def _fresh(self, pair: Pair) -> Pair:
        """New samples, preprocessed as in training."""
        pair = self._prepared(pair)
        if self.windowing is None:
            return pair
        lengths = [recording_length(pair.inputs, number) for number in range(len(pair.inputs))]
        stretches = [Stretch(number, 0, length) for number, length in enumerate(lengths)]
        return cut(pair, stretches, self.windowing, ahead=False) or pair

    def _prepared(self, pair: Pair) -> Pair:
        if pair.targets is not None and (self.values or self.classes) and not self._named:
            pair = replace(pair, targets=ClassNumbers(pair.targets, self.values, self.missing))
        if not self.sampling.count:
            return pair
        targets = pair.targets and Resampled(pair.targets, self.sampling, pair.inputs)
        return Pair(Resampled(pair.inputs, self.sampling), targets)

    def _open_parts(self) -> None:
        self.train = Samples(*self._parts['train'], self._view, training=True)
        if self.train.first and (said := channels_last(self.train.first)):
            warnings.warn(f'{type(self).__name__}: {said}', stacklevel=2)
        # All parts have the channels and axes of the training part.
        self._view = replace(self._view, form=self.train.form)
        self.val, self.test = (Samples(*self._parts[part], self._view) for part in ('val', 'test'))
        if not hasattr(self, 'predict'):
            self.predict = self.test

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the data that a network trained on them needs, as plain values.

        The training part is read once for ``normalisation``, in pieces.
        """
        return {
            'normalisation': self._normalisation,
            'classes': self.classes,
            'patch': self.patch,
            'overlap': usual_overlap(self.blend or 'tent') if self.overlap is None else self.overlap,
            **{name: value for name, value in self._predicted_by().items() if value is not None},
            'input': list(self._first),
            'spacing': self._spacing,
            'values': self.values,
            'channels': self.channels,
            'columns': self._read_columns(targets=True),
            'reading': {name: value for name, value in self._reading().items() if value is not None},
        }

    @property
    def channels(self) -> list[str] | None:
        """Names of the input channels, if they are columns of tables."""
        return self._read_columns(targets=False)

    def _read_columns(self, targets: bool) -> list[str] | None:
        SampleData.setup(self)
        pair = self._opened['train']
        return table_columns(pair.targets if targets else pair.inputs) or None

    def _predicted_by(self) -> dict[str, Any]:
        return {'blend': self.blend, 'tiles': self.tiles, 'mirror': self.mirror}

    def _reading(self) -> dict[str, Any]:
        """The arguments with which new samples are read in the same way as in training."""
        options = {name: getattr(self.sampling, field) for name, field in _SAMPLING.items()}
        lists = {name: None if value is None else list(value) for name, value in options.items()}
        cut = self.windowing
        return {**lists, **({} if cut is None else {name: getattr(cut, name) or None for name in _WINDOWING})}

    @property
    def _first(self) -> tuple[int, ...]:
        SampleData.setup(self)
        assert self.train.first is not None
        return self.train.first

    @property
    def _spacing(self) -> list[float] | None:
        SampleData.setup(self)
        pair, numbers = self._parts['train']
        grid = grid_of(pair.inputs, int(numbers[0]))
        return None if grid is None or grid.distances is None else list(grid.distances)

    @property
    def maps(self) -> bool | None:
        """Whether the targets are maps of the input's size; None: there are no targets in the files."""
        SampleData.setup(self)
        return self.train.maps

    @property
    def _normalisation(self) -> dict[str, Any] | None:
        if self.normalise == 'auto' and self._chosen is None:
            self.normalise_as(self._choice())
        by = self._chosen if self.normalise == 'auto' else self.normalise
        if by == 'sample':
            return {'by': 'sample'}
        if by == 'percentiles':
            return self._clipped()
        return self._scale('input') if by else None

    def normalise_as(self, by: str) -> None:
        """Let ``normalise: auto`` be what a network was trained with; any other word stays.

        Args:
            by: ``'set'``, ``'sample'``, ``'percentiles'`` or ``'false'``.
        """
        if self.normalise != 'auto':
            return
        self._chosen = by
        if by == 'sample':
            SampleData.setup(self)
            self.train.bring_figures()

    def _choice(self) -> str:
        differing = self._differing()
        if differing is None or reads_amplitude(self._network):
            return 'set'
        wanted = self._wanted()
        if wanted is None:
            print(f'normalise=auto: {differing}: each is normalised by itself (normalise=sample)', flush=True)
            return 'sample'
        print(f'normalise=auto: {differing}, but {wanted}: all have one scale (normalise=set)', flush=True)
        return 'set'

    def _differing(self) -> str | None:
        """In words, that samples differ in amplitude by orders of magnitude, or in bits; None: they do not."""
        self._scale('input')
        found = self._spread.differing(self.channels)
        if found is None and {'uint8', 'uint16'} <= {*self._depths}:
            names = (self._parts['train'][0].inputs.name(self._depths[kind]) for kind in ('uint8', 'uint16'))
            return mixed_depths(*names)
        return found

    def _wanted(self) -> str | None:
        """In words, why the answer needs the amplitude of its sample; None: no reason is seen."""
        pair, task = self._parts['train'][0], None if self.trainer is None else self.trainer.lightning_module
        output = getattr(task, 'answer', {}).get('output')
        if pair.targets is None:
            return 'the answer is in the units of the sample' if output == 'values' else None
        number = self._parts['train'][1][0]
        quantities = output == 'values' if output else pair.targets.read(int(number)).dtype.kind == 'f'
        if self._named or self.classes or not quantities:
            return None
        sizes = target_sizes(read_pieces(pair.targets, self._counted(), self._lone_target))
        found = self._spread.explains(sizes)
        hint = '' if self.maps else '; a network with amplitude=True reads it'
        return found and found + hint

    @property
    def _network(self) -> Any:
        return None if self.trainer is None else getattr(self.trainer.lightning_module, 'network', None)

    @property
    def input_scale(self) -> dict[str, list[float]]:
        """Mean and standard deviation of the training part's inputs, for tasks whose answer is of their kind.

        Of as many channels as the targets have, where these are maps with channels.
        """
        found = self._scale('input')
        assert found is not None
        pair, numbers = self._parts['train']
        number = int(numbers[0])
        order = len(pair.inputs.shape(number)) - (not self._lone_input(number))
        shape = () if pair.targets is None else pair.targets.shape(number)
        channels = shape[0] if len(shape) == order + 1 else None
        return {name: figures[:channels] for name, figures in found.items()}

    def _clipped(self) -> dict[str, list[float]]:
        SampleData.setup(self)
        if 'clipped' not in self._statistics:
            pair, numbers = self._parts['train'][0], self._counted()
            kept = drawn_values(pair.inputs, numbers.tolist(), self._lone_input, self._foreground(pair))
            if not kept.shape[1]:
                kept = drawn_values(pair.inputs, numbers.tolist(), self._lone_input, None)
            self._statistics['clipped'] = clipped_statistics(kept)
        return self._statistics['clipped']

    def _foreground(self, pair: Pair) -> Callable[[int, Window], np.ndarray] | None:
        """Which positions are of a class that is not the first, where the targets are maps of classes."""
        targets, number = pair.targets, int(self._parts['train'][1][0])
        if targets is None or self._named or not self.maps or targets.read(number).dtype.kind not in 'iu':
            return None
        task = None if self.trainer is None else self.trainer.lightning_module
        ignore = getattr(task, 'ignore', -100)

        def marked(number: int, window: Window) -> np.ndarray:
            values = targets.read(number, window)
            found: np.ndarray = (values != 0) & (values != ignore)
            return found

        return marked

    @property
    def target_normalisation(self) -> dict[str, list[float]] | None:
        """Mean and standard deviation of the training targets, for tasks with quantities as targets.

        Raises:
            DataError: The targets are names of classes.
        """
        if self._named:
            raise DataError(
                f'the targets are names of classes ({", ".join((self.classes or [])[:3])}, …), not quantities'
            )
        return self._scale('target') if self.normalise else None

    @property
    def class_counts(self) -> dict[int, int]:
        """Number of training samples, or positions of their maps, of each class; the targets are read once.

        Raises:
            DataError: The targets are not class numbers.
        """
        SampleData.setup(self)
        if self._class_counts is None:
            self._class_counts = count_classes(self.train.target_pieces())
        return self._class_counts

    def _scale(self, name: str) -> dict[str, list[float]] | None:
        SampleData.setup(self)
        pair = self._parts['train'][0]
        if name == 'target' and pair.targets is None:
            return None
        if name not in self._statistics:
            numbers = self._counted()
            if name == 'input':
                found = input_figures(read_pieces(pair.inputs, numbers, self._lone_input))
                self._statistics[name], self._spread, self._depths = found.statistics, found.spread, found.depths
                self._warn_of_small_samples()
                self._warn(COLUMNS, self._called(found.vanishing if self.normalise else None))
                self._warn(BLURRED, self._called(found.blurred, 'channel '))
            elif pair.targets is not None:
                pieces = read_pieces(pair.targets, numbers, self._lone_target)
                figures = moments(piece for _, piece in pieces)
                self._statistics[name] = figures.statistics()
                self._warn(BLURRED, None if figures.blurred is None else f'quantity {figures.blurred} of the targets')
        return self._statistics[name]

    def classes_not_taught(self) -> dict[str, list[str]]:
        """Classes of samples of ``val`` and ``test`` that no training sample has, by part: names, or numbers as text.

        Nothing where targets are maps, or samples are so many that reading their targets would take long.
        """
        SampleData.setup(self)
        if self.maps is not False or sum(len(numbers) for _, numbers in self._parts.values()) > _MOST_TARGETS:
            return {}
        taught = self._classes_held('train')
        lacking = {part: sorted(self._classes_held(part) - taught) for part in ('val', 'test') if part in self._parts}
        return {part: classes for part, classes in lacking.items() if classes}

    def _classes_held(self, part: str) -> set[str]:
        pair, numbers = self._parts[part]
        if pair.targets is None:
            return set()
        values = map(pair.targets.read, map(int, numbers))
        found = {class_name(value) if value.dtype.kind in 'SUT' else str(value) for value in values}
        return {name for name in found if name}

    def _warn_of_small_samples(self) -> None:
        if self.normalise is True and (differing := self._differing()) and not reads_amplitude(self._network):
            warnings.warn(small_samples(type(self).__name__, differing), stacklevel=2)

    def _counted(self) -> np.ndarray:
        """Numbers of the training samples that statistics are of: those that training skips are left out."""
        pair, numbers = self._parts['train']
        return self._whole(pair, numbers) if self.nonfinite == 'skip' else numbers

    def _called(self, channel: int | None, before: str = '') -> str | None:
        name = channel if channel is None or not self.channels else repr(self.channels[channel])
        return None if name is None else f'{before}{name}'

    def _warn(self, words: str, name: str | None) -> None:
        if name is not None:
            warnings.warn(f'{type(self).__name__}: {words.format(name)}', stacklevel=2)

    def _whole(self, pair: Pair, numbers: np.ndarray) -> np.ndarray:
        numbers = whole_samples(pair.inputs, numbers)
        if pair.targets is not None and not self._named:
            numbers = whole_samples(pair.targets, numbers, gaps=self.missing)
        if not len(numbers):
            raise DataError('all samples of the training part contain NaN or Inf')
        return numbers

    def _lone_input(self, number: int) -> bool:
        return len(self._parts['train'][0].inputs.shape(number)) == self.order

    def _lone_target(self, number: int) -> bool:
        """Whether a target is one number, or a map without a channel axis."""
        pair = self._parts['train'][0]
        assert pair.targets is not None
        if getattr(pair.targets, 'vector', False):
            return False
        shape = tuple(pair.inputs.shape(number))
        return tuple(pair.targets.shape(number)) in ((), shape if self._lone_input(number) else shape[1:])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer is not None and self.trainer.training and isinstance(batch, dict):
            return self.augmentation(batch, self.train.maps)
        return batch

    def _loader(self, samples: Samples, shuffle: bool = False) -> Loader | CombinedLoader:
        if not len(samples):
            return CombinedLoader({})  # Lightning skips such a part silently
        world = self.trainer.world_size if self.trainer is not None else 1
        labels = samples.labels() if shuffle and self.balance and not samples.maps else None
        return make_loader(
            samples,
            batch_size=world if samples.varied else self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            workers=self.workers,
            nonfinite=self.nonfinite,
            balance=None if labels is None else (labels, self.balance),
        )

    def train_dataloader(self) -> Any:
        if self.balance and self.train.maps:
            task = None if self.trainer is None else self.trainer.lightning_module
            self.train.balance(self.balance, getattr(task, 'ignore', None))
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
        inputs: The inputs: ``'x.npy'``, ``'runs.npz::x'``, ``'run_*.h5::x'``, ``'store.zarr::x'``, ``'a.mat::x'``
            (samples along the first axis), a table (one row per sample), an archive ``'x.ts'``; a folder or pattern of
            images, volumes, recordings or arrays (one sample per file); ``'*_t1.nii + *_t2.nii'`` (files that are the
            channels of one sample); a list of these, an array ``(N, C, L1, ...)``, a list of arrays or DataFrames, one
            per sample, or a torch `Dataset`; or a dictionary of these for the parts ``train``, ``val`` and ``test``.
        targets: The same for the targets, also ``'labels.csv::column'``; ``'folder'`` if the folder of a file is its
            class
            (``'folder::1'``: the first folder below the given path; ``'path::PATTERN'``: the group of a regular
            expression in its path); None: no targets (auto-encoders).
        order: Number of spatial axes; needed for samples without a channel axis.
        classes: Names of the classes 0, 1, …; not needed if the targets are names.
        predict: Inputs for ``mdnc predict``; None: the test part.
        values: Label values of the classes 0, 1, …, for example ``[0, 255]`` in many masks.
        colours: Convert images to ``'rgb'`` or ``'grey'``, for folders with both; None: no conversion.
        columns: Columns of tables that are inputs, as also in ``inputs: 'runs::ax,ay'``; None: all with numbers,
            except a
            first one called time, timestamp, date or t, and targets.
        recordings: Whether each table (CSV, TSV, Parquet) is one sample with one channel per column, rather than one
            sample per row; None: if they are in a folder, or ``window`` is given.
        **options: Those of `SampleData`.

    Raises:
        FileNotFoundError: A file does not exist.
        DataError: A file cannot be used; the message names it.
        ValueError: An argument is out of range.

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
        values: list[int] | None = None,
        colours: Colours | None = None,
        columns: list[str] | None = None,
        recordings: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.order = None if order is None else spatial_order('ArrayData', order)
        self.classes = None if classes is None else check_names('ArrayData', classes)
        self.values = None if values is None else check_values('ArrayData', values)
        if self.values and self.classes is not None and len(self.values) != len(self.classes):
            raise ValueError(
                f'ArrayData: values={values!r} and classes={classes!r} must have the same length: one each per class.'
            )
        if self.values and self.classes is None:
            self.classes = list(map(str, self.values))
        self._look = PixelOptions(colours=None if colours is None else _colours(colours))
        self._columns = [] if columns is None else check_names('ArrayData', columns, 'columns', 'a column')
        apart = (True if self.windowing else None) if recordings is None else recordings
        self._recordings = None if apart is None else flag('ArrayData', 'recordings', apart)
        _check_parts(inputs, targets, predict)
        self._inputs, self._targets, self._new = inputs, targets, predict

    def _reading(self) -> dict[str, Any]:
        return {
            **super()._reading(),
            'order': self.order,
            'values': self.values,
            'colours': self._look.colours,
            'recordings': self._apart,
            'columns': self.channels,
        }

    def pairs(self) -> Mapping[str, Pair]:
        if not isinstance(self._inputs, Mapping):
            return {'train': open_pair(self._inputs, self._targets, how=self._manner)}
        parts = sorted(self._inputs, key=PARTS.index)  # the training part determines which columns of tables are read
        pairs: dict[str, Pair] = {}
        for part in parts:
            pairs[part] = self._open_part(part, pairs.get('train'))
        return pairs

    @property
    def _manner(self) -> ReadOptions:
        flat = self.values is not None or self.classes is not None
        ahead = self.windowing is not None and self.windowing.horizon > 0
        return ReadOptions(self._look, PixelOptions(palette=False, flat=flat), self._columns, self._recordings, ahead)

    def _open_part(self, part: str, like: Pair | None) -> Pair:
        try:
            targets = self._targets if is_path_part(self._targets) else (self._targets or {}).get(part)
            return open_pair(self._inputs[part], targets, like, self._manner)
        except (DataError, TypeError, FileNotFoundError) as error:
            raise type(error)(f'{part}: {error}') from error

    def setup(self, stage: str | None = None) -> None:
        if stage != 'predict' or self._new is None:
            super().setup(stage)
        if self._new is not None:
            reader = open_reader(self._new, self._role())
            # New inputs are used as they are: noise as in training is not added.
            view = replace(self._view, order=self.order, corruption=0.0)
            pair = self._fresh(Pair(reader))
            self.predict = Samples(pair, np.arange(len(pair.inputs)), view)

    def _role(self) -> Role:
        inputs, targets = (
            where.get('train') if isinstance(where, Mapping) else where for where in (self._inputs, self._targets)
        )
        columns = self._columns or input_columns(inputs, targets, self._manner)
        return Role('predict', self._look, columns, written_columns(targets), self._apart)

    @property
    def _apart(self) -> bool | None:
        # New files are read as those of the training: where each was one sample there, each is one here.
        trained = self._inputs.get('train') if isinstance(self._inputs, Mapping) else self._inputs
        return True if self._recordings is None and holds_tables(trained) else self._recordings


def _colours(colours: Any) -> Colours:
    found: Colours = word('ArrayData', 'colours', colours, get_args(Colours))  # type: ignore[assignment]
    return found


def _check_parts(inputs: Any, targets: Any, predict: Any) -> None:
    if isinstance(predict, Mapping):
        raise TypeError(f'ArrayData: predict={short_repr(predict)} must not have parts; give the inputs themselves.')
    if not isinstance(inputs, Mapping):
        if isinstance(targets, Mapping):
            raise TypeError('ArrayData: targets are given for each part, so inputs must be too.')
        return
    parts = f'got inputs of {sorted(map(str, inputs))}'
    named = is_path_part(targets)
    if targets is not None and not isinstance(targets, Mapping) and not named:
        raise TypeError('ArrayData: inputs are given for each part, so targets must be too.')
    if (
        'train' not in inputs
        or set(inputs) - set(PARTS)
        or not (targets is None or named or set(targets) == set(inputs))
    ):
        raise ValueError(
            f'ArrayData: parts are called train (needed), val and test, the same for inputs and targets; {parts} and '
            f'targets of {sorted(map(str, targets or ()))}'
        )
