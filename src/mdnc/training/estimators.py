"""Networks as scikit-learn estimators, for arrays and lists in memory."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.utils import assert_all_finite, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from mdnc._side_effects import random_state_kept
from mdnc.modules._checks import integer, spatial_order
from mdnc.modules._inference import Answer
from mdnc.modules._standardization import reads_amplitude
from mdnc.modules.ragged import pad_batch
from mdnc.training.data.datamodule import normalisation
from mdnc.training.data.normalisation import (
    BLURRED,
    COLUMNS,
    AmplitudeSpread,
    InputFigures,
    clipped_statistics,
    input_figures,
    moments,
    small_samples,
    target_sizes,
)
from mdnc.training.data.reader import channels_last
from mdnc.training.fitting import named_network, trainer_devices
from mdnc.training.nonfinite_loss import Guard
from mdnc.training.predictor import Predictor
from mdnc.training.run import quieten
from mdnc.training.tasks import Classification, Regression, Task

_TOGETHER = 256  # samples per batch of a prediction
_MOST_SEED = 2**31 - 1
_PRECISE = [np.float64, np.float32]


class _Epochs:
    """Batches of samples in memory, as even as they divide, in a new order each time.

    Args:
        samples: Samples ``(C, L1, ...)``, of one size in a tensor ``(N, C, L1, ...)``, or in a list.
        targets: One per sample.
        size: The most samples of a batch.
        seed: Seed of the order.
    """

    def __init__(self, samples: Tensor | list[Tensor], targets: Tensor, size: int, seed: int) -> None:
        self._samples, self._targets, self._size = samples, targets, size
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self._targets) // self._size)

    def _order(self) -> Sequence[Tensor]:
        order = torch.randperm(len(self._targets), generator=self._generator)
        return torch.tensor_split(order, len(self))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for rows in self._order():
            yield {**_batch(self._samples, rows), 'target': self._targets[rows]}


def _batch(samples: Tensor | list[Tensor], rows: Tensor) -> dict[str, Any]:
    if isinstance(samples, Tensor):
        return {'input': samples[rows]}
    chosen = [samples[row] for row in rows.tolist()]
    x, lengths = pad_batch(chosen)
    return {'input': x} if len({each.shape for each in chosen}) == 1 else {'input': x, 'lengths': lengths}


class _NetEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of both estimators.

    Args:
        network: None for a small residual encoder chosen by the samples; the name of a network or preset of
            `mdnc.list_models`, or of a family (``'EncoderNet'``); ``{'name': …, 'arguments': {…}}``; or a module, of
            which a copy is trained. Channels, order and outputs are taken from the data if they are not given.
        epochs: Number of epochs, at least 1.
        batch_size: Samples per step, at least 1.
        lr: Highest learning rate, above 0; after a warm-up it decreases along a half cosine.
        weight_decay: Weight decay, at least 0.
        order: Number of spatial axes, for samples without a channel axis; None: an array ``(n, length)`` contains
            signals, and others have channels as second axis, ``(n, channels, length)``.
        normalise: Whether each channel is normalised to mean 0 and standard deviation 1 over the training samples;
            in regression also the targets. ``'sample'``: of each sample itself; ``'percentiles'``: of the training
            samples, clipped to their 0.5th and 99.5th percentile; ``'auto'``: ``'sample'`` where samples differ in
            amplitude by orders of magnitude, unless the network has ``amplitude``, or quantities depend on the
            amplitude; else true. The small network of None has ``amplitude`` unless it is ``'sample'``.
        device: ``'cpu'``, ``'cuda'``, ``'auto'``, ….
        progress: Whether to show a progress bar.
        random_state: Seed of weights and order: an int, a ``RandomState``, or None for a random one.

    Attributes:
        predictor_: The trained network as `Predictor`.
        n_features_in_: Length of signals ``(n, length)``; for other samples, and for lists, the number of channels.
    """

    def __init__(
        self,
        network: Any = None,
        *,
        epochs: int = 30,
        batch_size: int = 32,
        lr: float = 0.01,
        weight_decay: float = 0.01,
        order: int | None = None,
        normalise: bool | Literal['auto', 'set', 'sample', 'percentiles'] = 'auto',
        device: str = 'cpu',
        progress: bool = False,
        random_state: Any = None,
    ) -> None:
        self.network = network
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.order = order
        self.normalise = normalise
        self.device = device
        self.progress = progress
        self.random_state = random_state

    # Samples.

    def _samples(self, x: Any, fitting: bool = False) -> Tensor | list[Tensor]:
        """Samples with a channel axis, checked."""
        listed = _as_list(x)
        if fitting:
            self._listed = listed is not None
        elif listed is None and self._listed:
            listed = list(np.asarray(x))
        if listed is None:
            array = validate_data(self, x, allow_nd=True, dtype=_PRECISE, reset=fitting)
            _refuse_beyond_single(type(self).__name__, 'X', array)
            return torch.from_numpy(np.array(self._channelled(array, 1)))
        return self._one_by_one(listed, fitting)

    def _one_by_one(self, listed: list[Any], fitting: bool) -> list[Tensor]:
        arrays = []
        for number, each in enumerate(listed):
            checked = check_array(each, ensure_2d=False, allow_nd=True, dtype=_PRECISE, input_name=f'X[{number}]')
            _refuse_beyond_single(type(self).__name__, f'X[{number}]', checked)
            arrays.append(self._channelled(checked, 0))
        forms = sorted({(each.shape[0], each.ndim - 1) for each in arrays})
        if len(forms) > 1:
            raise ValueError(f'{type(self).__name__}: samples of X differ in (channels, axes): {forms}')
        if fitting:
            self.n_features_in_ = forms[0][0]
        known = forms[0][0] if fitting else self.predictor_.facts['input'][0]
        if forms[0][0] != known:
            raise ValueError(
                f'X has {forms[0][0]} features, but {type(self).__name__} is expecting {known} features as input'
            )
        return [torch.from_numpy(np.array(each)) for each in arrays]

    def _channelled(self, array: np.ndarray, batch: int) -> np.ndarray:
        order = None if self.order is None else spatial_order(type(self).__name__, self.order)
        if array.ndim == batch + (order or 1):
            array = np.expand_dims(array, batch)
        if not 2 <= array.ndim - batch <= 4 or order not in (None, array.ndim - batch - 1):
            raise ValueError(
                f'{type(self).__name__}: samples of shape {array.shape[batch:]} are not signals, images or '
                f'volumes with '
                f'channels first, for order={self.order}'
            )
        return array

    # Training.

    def _fit(self, kind: type[Task], samples: Tensor | list[Tensor], targets: Tensor, outputs: int, facts: Any) -> None:
        owner = type(self).__name__
        seed = int(check_random_state(self.random_state).randint(_MOST_SEED))
        size, epochs = integer(owner, 'batch_size', self.batch_size), integer(owner, 'epochs', self.epochs)
        if said := channels_last(samples[0].shape):
            warnings.warn(f'{owner}: {said}', stacklevel=3)
        by = normalisation(owner, self.normalise)
        figures: InputFigures | None = None
        if by:
            figures = input_figures((number, sample.numpy()) for number, sample in enumerate(samples))
            by = self._normalised_by(by, figures.spread, targets if kind is Regression else None)
            if figures.vanishing is not None:
                warnings.warn(f'{owner}: {COLUMNS.format(figures.vanishing)}', stacklevel=3)
            if figures.blurred is not None:
                warnings.warn(f'{owner}: {BLURRED.format(f"channel {figures.blurred}")}', stacklevel=3)
        known = {'input': list(samples[0].shape), 'normalisation': _statistics(samples, by, figures)}
        with _in_silence(not self.progress), random_state_kept():
            torch.manual_seed(seed)
            task = kind(self._network(samples, outputs, by), lr=self.lr, weight_decay=self.weight_decay)
            task.learn({**known, **facts})
            trainer = L.Trainer(
                max_epochs=epochs,
                callbacks=[Guard()],
                enable_progress_bar=bool(self.progress),
                enable_model_summary=False,
                enable_checkpointing=False,
                logger=False,
                **trainer_devices(owner, self.device),
            )
            trainer.fit(task, _Epochs(samples, targets, size, seed))
        self.predictor_ = Predictor(task.network.eval(), task.facts)
        self._n_features_out = self._features(samples[:1]).shape[1]

    def _normalised_by(self, by: bool | str, spread: AmplitudeSpread, quantities: Tensor | None) -> bool | str:
        """How samples are normalised, with a warning where one scale suits them badly."""
        owner = type(self).__name__
        if by not in (True, 'auto'):
            return by
        differing, explains = spread.differing(), None
        if differing is None or _reads_amplitude(self.network):
            return True
        if by == 'auto' and quantities is not None:
            explains = spread.explains(target_sizes((number, row.numpy()) for number, row in enumerate(quantities)))
        if by == 'auto' and explains is None:
            return 'sample'
        if self.network is not None:  # else the network is one that reads the amplitude
            warnings.warn(small_samples(owner, differing, explains), stacklevel=3)
        return True

    def _network(self, samples: Tensor | list[Tensor], outputs: int, by: bool | str) -> Any:
        if isinstance(self.network, nn.Module):
            return copy.deepcopy(self.network)
        channels, *_ = samples[0].shape
        sizes = [each.shape[1:] for each in samples] if isinstance(samples, list) else [samples[0].shape[1:]]
        told = {'order': len(sizes[0]), 'in_planes': channels, 'out_length': outputs}
        if self.network is not None:
            return named_network(self.network, told)
        least = min(min(size) for size in sizes)
        # As many stages as reduce the smallest side to a few values; a norm over a whole sample works at any size.
        stages = max(2, min(4, int(np.log2(max(least, 1))) - 1))
        small = {
            'channel': 16,
            'layers': [1] * stages,
            'small': 'keep',
            'tail': 'act',
            'normalizer': 'layer',
            'amplitude': by != 'sample',
        }
        return named_network({'name': 'EncoderNet', 'arguments': small}, told)

    # Predictions.

    def _answers(self, x: Any) -> np.ndarray:
        check_is_fitted(self, 'predictor_')
        answer = Answer(_exact(self.predictor_.network), self.predictor_.facts)
        parts = [np.asarray(answer.predict(part)) for part in self._parts(self._samples(x))]
        return np.concatenate(parts)

    def _parts(self, samples: Tensor | list[Tensor]) -> Iterator[Any]:
        for start in range(0, len(samples), _TOGETHER):
            part = samples[start : start + _TOGETHER]
            yield part.numpy() if isinstance(part, Tensor) else [each.numpy() for each in part]

    def transform(self, X: Any) -> np.ndarray:
        """The input of the last layer: one vector of pooled features per sample.

        Args:
            X: Samples as in ``fit``.

        Returns:
            Array ``(n, features)``.

        Raises:
            ValueError: The network has no linear layer at its end, or the samples differ from those of ``fit``.
        """
        check_is_fitted(self, 'predictor_')
        return self._features(self._samples(X))

    def _features(self, samples: Tensor | list[Tensor]) -> np.ndarray:
        network = _exact(self.predictor_.network)
        layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
        if not layers:
            raise ValueError(f'{type(self).__name__}: {type(network).__name__} has no linear layer that reads features')
        read: list[Tensor] = []
        layers[-1].register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].detach().flatten(1)))
        answer = Answer(network, self.predictor_.facts)
        for part in self._parts(samples):
            answer.predict(part)
        found: np.ndarray = torch.cat(read).cpu().numpy()
        return found


class NetClassifier(ClassifierMixin, _NetEstimator):  # type: ignore[misc]
    """Classifier for signals, images or volumes with a residual network, for scikit-learn.

    Samples are an array ``(n, length)``, ``(n, channels, length)``, ``(n, channels, height, width)`` or of volumes, or
    a list of arrays, one per sample, which may differ in size. `transform` returns the pooled features.

    Example:
        >>> import numpy as np
        >>> from sklearn.model_selection import cross_val_score
        >>> from mdnc.training import NetClassifier
        >>> x = np.sin(np.linspace(0, 6, 32) * np.repeat([2, 5], 30)[:, None] + np.linspace(0, 9, 60)[:, None])
        >>> y = np.repeat(['slow', 'fast'], 30)
        >>> len(cross_val_score(NetClassifier(epochs=2, random_state=0), x, y, cv=3))
        3
    """

    def fit(self, X: Any, y: Any) -> 'NetClassifier':
        """Train on samples and their classes.

        Args:
            X: Samples.
            y: One class per sample: names or numbers.

        Raises:
            ValueError: The samples cannot be used, or there is only one class.
        """
        samples, y = self._samples(_both(self, X, y), fitting=True), _given(self, y)
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name='y')
        check_classification_targets(y)
        _same_count(samples, y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f'{type(self).__name__}: y contains only one class, {self.classes_[0]!r}; two are needed')
        names = [str(name) for name in self.classes_]
        self._fit(Classification, samples, torch.from_numpy(numbers), len(names), {'classes': names})
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, in the order of ``classes_``: ``(n, classes)``."""
        return self._answers(X)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each sample."""
        found = self.predict_proba(X).argmax(1)
        classes: np.ndarray = self.classes_[found]
        return classes


class NetRegressor(RegressorMixin, _NetEstimator):  # type: ignore[misc]
    """Regressor for signals, images or volumes with a residual network, for scikit-learn.

    Samples as for `NetClassifier`; targets are one or several quantities per sample.

    Example:
        >>> import numpy as np
        >>> from mdnc.training import NetRegressor
        >>> signals = [np.random.default_rng(n).normal(size=20 + n) * (1 + n % 5) for n in range(50)]
        >>> model = NetRegressor(epochs=2, random_state=0).fit(signals, [each.std() for each in signals])
        >>> model.predict(signals[:4]).shape, model.transform(signals).shape
        ((4,), (50, 65))
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> 'NetRegressor':
        """Train on samples and their quantities.

        Args:
            X: Samples.
            y: ``(n,)`` or ``(n, quantities)``.

        Raises:
            ValueError: The samples or quantities cannot be used.
        """
        samples, y = self._samples(_both(self, X, y), fitting=True), _given(self, y)
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name='y')
        _same_count(samples, y)
        self._lone = y.ndim == 1
        rows = y.reshape(len(y), -1)
        _refuse_beyond_single(type(self).__name__, 'y', rows)
        figures = moments([rows.T])
        if figures.blurred is not None:
            words = BLURRED.format(f'quantity {figures.blurred} of the targets')
            warnings.warn(f'{type(self).__name__}: {words}', stacklevel=2)
        scale = figures.statistics() if normalisation(type(self).__name__, self.normalise) else None
        targets = torch.from_numpy(rows.astype(np.float32))
        self._fit(Regression, samples, targets, rows.shape[1], {'target_normalisation': scale})
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Quantities, in the shape of the targets of ``fit``."""
        found = self._answers(X)
        return found[:, 0] if self._lone else found


# Checks and statistics of samples.


def _as_list(x: Any) -> list[Any] | None:
    """A list of samples, if they are a list of arrays; None if they are one array."""
    if isinstance(x, np.ndarray) and x.dtype == object and x.ndim == 1 and len(x) and isinstance(x[0], np.ndarray):
        x = list(x)
    if not isinstance(x, list | tuple) or not x or not all(isinstance(each, np.ndarray | Tensor) for each in x):
        return None
    arrays = [each.detach().cpu().numpy() if isinstance(each, Tensor) else each for each in x]
    return arrays if all(each.ndim for each in arrays) else None


def _both(estimator: Any, x: Any, y: Any) -> Any:
    # In scikit-learn's own words.
    if y is None:
        raise ValueError(f'{type(estimator).__name__} requires y to be passed, but the target y is None')
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x


def _given(estimator: Any, y: Any) -> Any:
    return y.detach().cpu().numpy() if isinstance(y, Tensor) else y


def _same_count(samples: Sequence[Any] | Tensor, y: np.ndarray) -> None:
    if len(samples) != len(y):
        raise ValueError(f'Found input variables with inconsistent numbers of samples: {[len(samples), len(y)]}')


def _refuse_beyond_single(owner: str, name: str, values: np.ndarray) -> None:
    most = np.finfo(np.float32).max
    if values.size and np.abs(values).max() > most:
        raise ValueError(f'{owner}: {name} holds values beyond single precision ({most:.2g}): give it in other units')


def _reads_amplitude(network: Any) -> bool:
    words = network.get('arguments') or {} if isinstance(network, Mapping) else {}
    return reads_amplitude(network) or bool(words.get('amplitude'))


def _statistics(samples: Tensor | list[Tensor], by: bool | str, figures: InputFigures | None) -> dict[str, Any] | None:
    if figures is None or by == 'sample':
        return None if figures is None else {'by': 'sample'}
    if by != 'percentiles':
        return figures.statistics
    # Channel by channel: (C, values of all samples).
    rows = (
        samples.transpose(0, 1).flatten(1)
        if isinstance(samples, Tensor)
        else torch.cat([s.flatten(1) for s in samples], 1)
    )
    return clipped_statistics(rows.double().numpy())


def _exact(network: nn.Module) -> nn.Module:
    """A copy on the CPU in double precision: so predictions do not depend on the other samples of a batch."""
    copied = copy.deepcopy(network)
    on_cpu = all(weight.device.type == 'cpu' for weight in copied.parameters())
    return copied.double() if on_cpu else copied


@contextlib.contextmanager
def _in_silence(silent: bool) -> Iterator[None]:
    logs = [logging.getLogger(name) for name in ('lightning.pytorch', 'lightning.fabric')]
    levels = [log.level for log in logs]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) if silent else contextlib.nullcontext():
        try:
            quieten()
            yield
        finally:
            for log, level in zip(logs, levels, strict=True):
                log.setLevel(level)
