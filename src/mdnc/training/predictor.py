"""A trained network with all it needs to predict: arrays and files in, probabilities, classes or quantities out."""

import copy
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mdnc import _bundle
from mdnc._archive import load_archive, save_archive
from mdnc._files import as_path
from mdnc._plain import plain
from mdnc.checkpoints.loading import revived
from mdnc.modules._checks import flag, integer
from mdnc.modules._ensemble import Ensemble, spread_names
from mdnc.modules._inference import Answer
from mdnc.training.data import ArrayData
from mdnc.training.prediction import Parts, as_array, grid_of_sample, on_own_grid
from mdnc.training.prediction_formats import PredictionKind, Row
from mdnc.training.tasks.batch import cropped
from mdnc.training.tasks.network import describe_network, output_channels
from mdnc.training.tile_batches import size_tiles

# Facts that are needed to read new data in the same way as in training.
_READ_SO = ('spacing', 'resize', 'window', 'hop', 'horizon')


class Predictor:
    """Predicts for new samples, in the units and classes of the training data.

    Args:
        network: A trained network; or an `mdnc.checkpoints.Answer`, such as an `mdnc.checkpoints.Ensemble` of several.
        data: What is known about its data, as a checkpoint keeps it; by default what the network was loaded with.
        batch_size: Samples per batch.
        figures: Results of the test, ``{'test/accuracy': …}``.
        history: A row for each epoch of the training.
        run: The folder of the run.

    Raises:
        ValueError: The meaning of the network's output is not known.

    Example:
        >>> import numpy as np
        >>> from mdnc.training import train
        >>> x = np.random.default_rng(0).normal(size=(60, 1, 32)) * np.repeat([1, 3], 30)[:, None, None]
        >>> predictor = train('EncoderNet', (x, np.repeat(['calm', 'wild'], 30)), epochs=2, channel=4, layers=[1, 1])
        >>> predictor(x[:3]).shape, predictor.classes
        ((3, 2), ['calm', 'wild'])
    """

    def __init__(
        self,
        network: nn.Module,
        data: Mapping[str, Any] | None = None,
        *,
        batch_size: int = 32,
        figures: Mapping[str, float] | None = None,
        history: Sequence[Mapping[str, float]] = (),
        run: str | os.PathLike[str] | None = None,
    ) -> None:
        if isinstance(network, Answer) and data is not None:
            raise TypeError('Predictor: data are known to the Answer that was given; leave them out')
        self._answer = network if isinstance(network, Answer) else Answer(network, data)
        self.batch_size = integer('Predictor', 'batch_size', batch_size)
        self.figures = dict(figures or {})
        self.history = [dict(row) for row in history]
        self.run = None if run is None else Path(run)

    @property
    def network(self) -> nn.Module:
        """The network itself, which takes and gives standard units or logits; of several the first."""
        return self._answer.network

    @property
    def networks(self) -> list[nn.Module]:
        """All networks whose answers are averaged, or the only one."""
        several = self._answer.members if isinstance(self._answer, Ensemble) else [self._answer]
        return [each.network for each in several]

    @property
    def facts(self) -> dict[str, Any]:
        """What is known about the training data."""
        return self._answer.data

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes in the order of the probabilities; None if the data have no names."""
        names: list[str] | None = self.facts.get('classes')
        return None if names is None else list(names)

    def to(self, device: torch.device | str) -> 'Predictor':
        """Move the network to a device, where everything is computed from then on."""
        self._answer.to(device)
        return self

    def __call__(self, x: Any) -> Any:
        """The same as `predict`."""
        return self.predict(x)

    def predict(self, x: Any) -> Any:
        """Predict for samples, as ``mdnc predict`` does.

        Args:
            x: Samples in the units of the data: an array or tensor ``(N, C, L1, ...)``, with one channel also ``(N, L1,
                ...)``; a list of arrays, one per sample, which may differ in size; or files, anything that `ArrayData`
                takes.

        Returns:
            For each sample probabilities, class numbers or quantities: a tensor or array; a list of these for maps
            that differ in size. The map of a file has the size of the file.

        Raises:
            ValueError: The samples do not fit the training data.
        """
        return self._run(self._answer, x)

    def probabilities(self, x: Any) -> Any:
        """The probability of each class, ``(N, K)`` or ``(N, K, L1, ...)``, whatever `predict` gives.

        Raises:
            ValueError: The network does not predict classes.
        """
        answer = self.facts['answer']
        if answer['output'] == 'shares':
            return self.predict(x)
        if answer['output'] not in ('probabilities', 'classes'):
            raise ValueError(f'Predictor: the network predicts {answer["output"]}, which have no probabilities')
        return self._run(self._answer.giving('probabilities'), x)

    def spread(self, x: Any) -> Any:
        """How far the networks are apart that are averaged, for samples as in `predict`.

        Returns:
            Of quantities the standard deviation of each, as large as the answer. Of classes ``(N, 2)`` or ``(N, 2, L1,
            ...)`` in nats: the entropy of the mean probabilities, and what of it is disagreement between the networks
            (mutual information). Of classes that may be there together ``(N, 2 K)``: both for each, entropies first.

        Raises:
            ValueError: There is one network only.
        """
        return self._run(self._several.spread(), x)

    @property
    def _several(self) -> Ensemble:
        if not isinstance(self._answer, Ensemble) or len(self._answer.members) < 2:
            raise ValueError('Predictor: a spread is that of several networks, and there is one; load several runs')
        return self._answer

    def labels(self, x: Any) -> Any:
        """The most probable class of each sample or position: its name, or its number if the classes have no names.

        For multi-label networks, lists of the classes with a probability above one half.

        Raises:
            ValueError: The network does not predict classes.
        """
        found = self.probabilities(x)
        if self.facts['answer']['output'] == 'shares':
            return [self._named(np.flatnonzero(np.asarray(row) > 0.5)).tolist() for row in found]
        if isinstance(found, list):
            return [self._named(np.asarray(each).argmax(0)) for each in found]
        return self._named(np.asarray(found.cpu() if isinstance(found, Tensor) else found).argmax(1))

    def _named(self, numbers: np.ndarray) -> np.ndarray:
        return numbers if self.classes is None else np.asarray(self.classes)[numbers]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the network and what is known about its data to one file for `mdnc.load`.

        Args:
            path: The file, ``.ckpt`` by custom.

        Raises:
            OSError: It cannot be written; an existing file is unchanged.
            ValueError: There are several networks.
        """
        if isinstance(self._answer, Ensemble):
            raise ValueError('Predictor.save: a file holds one network, and these are several: save each by itself')
        target = as_path('Predictor.save', 'path', path)
        weights = {f'{_bundle.OWNER}{key}': value.cpu() for key, value in self.network.state_dict().items()}
        told = {'network': plain(describe_network(self.network), 'network'), 'data': plain(self.facts, 'data')}
        save_archive({'state_dict': weights, 'hyper_parameters': told}, target)

    # Samples and predictions.

    def _run(self, answer: Answer, x: Any) -> Any:
        if names_files(x):
            return gathered(list(self._of_files(answer, x)))
        if isinstance(x, list | tuple) and len(x) and all(isinstance(each, np.ndarray | Tensor) for each in x):
            answer.refuse_broken([torch.as_tensor(each) for each in x])
            self._size_tiles(answer, (1, *self._channelled(x[0]).shape))
            parts = [answer.predict([self._channelled(each) for each in part]) for part in _parts(x, self.batch_size)]
            return [row for part in parts for row in part] if isinstance(parts[0], list) else _joined(parts)
        samples = x if isinstance(x, Tensor) else np.asarray(x)
        if not samples.ndim or (isinstance(samples, np.ndarray) and samples.dtype.kind not in 'biufc'):
            raise TypeError(f'Predictor: x must be samples, an array of numbers, or files, not {x!r:.80}')
        samples = self._channelled(samples, batch=1)
        if not len(samples):
            raise ValueError(f'Predictor: there are no samples to predict: the input has shape {tuple(samples.shape)}')
        answer.refuse_broken(torch.as_tensor(samples))  # of all, so that the sample's number is right
        self._size_tiles(answer, samples[: self.batch_size].shape)
        return _joined([answer.predict(part) for part in _parts(samples, self.batch_size)])

    @staticmethod
    def _size_tiles(answer: Answer, shape: Sequence[int]) -> None:
        for each in answer.members if isinstance(answer, Ensemble) else [answer]:
            size_tiles(each.network, each.steps, shape)

    def _channelled(self, x: Any, batch: int = 0) -> Any:
        known = self.facts.get('input')
        lone = known and known[0] == 1 and x.ndim == len(known) - 1 + batch
        return (x[:, None] if batch else x[None]) if lone else x

    def _of_files(self, answer: Answer, source: Any) -> Iterator[Any]:
        data = self.new_data(source)
        for index, _, values in self._answered(answer, data):
            grid = grid_of_sample(data.predict, index) if answer.steps.dense else None
            yield on_own_grid(grid, values, answer.steps.output)

    def _answered(self, answer: Answer, data: ArrayData) -> Iterator[tuple[int, str, np.ndarray]]:
        for batch in data.predict_dataloader():
            self._size_tiles(answer, batch['input'].shape)
            answers = answer.predict_padded(batch['input'], batch.get('lengths'))
            rows = cropped(answers, batch) if answer.steps.dense else answers
            for index, name, row in zip(batch['index'].tolist(), batch['name'], rows, strict=True):
                yield index, name, as_array(row)

    def write(
        self,
        x: Any,
        output: str | os.PathLike[str] | None = None,
        format: str | None = None,
        spread: bool = False,
    ) -> Path:
        """Write predictions to files, as ``mdnc predict`` does.

        Args:
            x: Files, or samples as in `predict`.
            output: The file, or a folder with one file per sample; None: ``predictions`` in the working directory.
            format: ``'hdf5'``, ``'npz'``, ``'zarr'``, ``'csv'``, ``'nifti'``, ``'png'`` or ``'tiff'``; None: by
                the suffix of the name, or by the kind of data.
            spread: Whether `spread` is written too: in columns of a table, else beside, as ``…_spread``.

        Returns:
            Path of what was written.

        Raises:
            ValueError: Name, format and answers do not go together, or there is no spread.
            OSError: They cannot be written.
        """
        facts, steps = self.facts, self._answer.steps
        several = self._several if flag('Predictor.write', 'spread', spread) else None
        data = self.new_data(x if names_files(x) or isinstance(x, list | tuple) else self._channelled(x, batch=1))
        columns = list(facts.get('columns') or [])
        names = columns or self.classes or [*map(str, range(output_channels(self.network)))]
        spreads = [] if several is None else spread_names(steps.output, names)
        meaning = PredictionKind(steps.dense, steps.output, self.classes, columns, facts.get('values'), spreads)
        parts = Parts(None if output is None else as_path('Predictor.write', 'output', output), format, Path('.'))
        try:
            parts.begin(0, meaning, data.predict)
            for batch in data.predict_dataloader():
                self._put(parts, data.predict, batch, several)
            parts.end()
            parts.write(1)
        except BaseException:
            parts.drop()
            raise
        assert parts.path is not None
        return parts.path

    def _put(self, parts: Parts, samples: Any, batch: dict[str, Any], several: Ensemble | None) -> None:
        """Answer a batch: in slabs where there are tiles, so that no more than these are held."""
        answer, x, lengths = self._answer, batch['input'], batch.get('lengths')
        rows: Any = [None] * len(x)
        apart: Any = rows
        self._size_tiles(answer, x.shape)
        if answer.steps.patch is not None and lengths is None:
            for start, *found in answer.slabs(x, spread=several is not None):
                for row, index in enumerate(batch['index'].tolist()):
                    slab, *more = [as_array(part[row]) for part in found]
                    parts.slab(index, x.shape[2], start, slab, *more)
        else:
            answers = [answer.predict_padded(x, lengths)] if several is None else several.averaged(x, lengths)
            rows, *spreads = [cropped(each, batch) if answer.steps.dense else each for each in answers]
            rows, apart = [as_array(row) for row in rows], [as_array(row) for row in spreads[0]] if spreads else apart
        for row, index in enumerate(batch['index'].tolist()):
            parts.add(index, Row(batch['name'][row], samples.file(index)), rows[row], apart[row])

    def new_data(self, source: Any) -> ArrayData:
        """New samples, read in the same way as in training."""
        known = self.facts
        order = {'order': len(known['input']) - 1} if known.get('input') else {}
        patch = {'patch': known['patch'], 'overlap': known['overlap']} if known.get('patch') else {}
        words = {**order, **patch, **known.get('reading', {})}
        data = ArrayData(source, predict=source, batch_size=self.batch_size, **words)
        data.setup('predict')
        return data


def names_files(x: Any) -> bool:
    """Whether a value names files rather than being samples."""
    texts = x if isinstance(x, list | tuple) and len(x) else [x]
    return all(isinstance(text, str | os.PathLike) for text in texts)


def gathered(rows: Sequence[np.ndarray]) -> Any:
    """Predictions as one array, or as a list if their sizes differ."""
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else list(rows)


def _parts(samples: Any, size: int) -> list[Any]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def _joined(parts: Sequence[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts)) if isinstance(parts[0], Tensor) else np.concatenate(parts)


def load(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    network: nn.Module | None = None,
    allow: Collection[str] = (),
) -> Predictor:
    """Load a trained network as a predictor, on the CPU: from `train`, ``mdnc fit`` or `Predictor.save`.

    No code in the files is run.

    Args:
        source: The folder of a run (its best checkpoint is used), a checkpoint, a folder of ``save_pretrained``, or
            ``'hf://owner/name'``. Of a list of these, such as the folds of a cross-validation or runs of other seeds,
            the answer is the mean of all: of their probabilities, or of their values.
        network: The module that was trained, needed if it cannot be built from its name and arguments; it is copied.
        allow: Full names of classes of ``nn.Module`` outside mdnc that may be imported and built, because you trust
            them.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It is damaged, of an unknown class, or of another network than ``network``; or of several two do not
            go together: they tell other classes, take other channels, or were trained in other units.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import mdnc
        >>> from mdnc.training import train
        >>> x = np.random.default_rng(0).normal(size=(60, 1, 32))
        >>> run = tempfile.mkdtemp()
        >>> predictor = train('EncoderNet', (x, x.std(axis=2)), epochs=1, channel=4, layers=[1, 1], run=run)
        >>> again = mdnc.load(run)
        >>> bool((again(x[:5]) == predictor(x[:5])).all())
        True
    """
    if not isinstance(source, str | os.PathLike) and isinstance(source, Sequence):
        found = [load(each, network=network, allow=allow) for each in source]
        return Predictor(Ensemble([each._answer for each in found], [os.fspath(each) for each in source]))
    run = source if isinstance(source, str | os.PathLike) and (Path(source) / _bundle.BEST).is_file() else None
    if network is None:
        return Predictor(revived(_bundle.read(source), source, allow), run=run)
    if not isinstance(network, nn.Module):
        raise TypeError(f'load: network={network!r:.80} must be a module')
    path = as_path('load', 'source', source)
    path = path / _bundle.BEST if run is not None else path
    bundle = _bundle.of_training(load_archive(path), path, built=True)
    filled = copy.deepcopy(network)
    try:
        filled.load_state_dict(bundle.weights)
    except RuntimeError as error:
        raise ValueError(f'{path} contains {bundle.name} with weights that do not fit network=: {error}') from error
    return Predictor(filled.cpu().eval(), bundle.data, run=run)
