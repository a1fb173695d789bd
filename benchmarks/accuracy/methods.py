"""What answers: baselines of classical methods, and networks with one recipe for all sets."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.accuracy.sets import Data, Part
from mdnc.training import train

Array = NDArray[Any]


class Length(NamedTuple):
    """The least that a network is trained: steps of the optimizer, and how often it sees each sample."""

    steps: int
    epochs: int


FORMS = {'quick': Length(1000, 100), 'full': Length(5000, 500)}


def figure(answers: Array, part: Part, quantity: bool) -> float:
    """Accuracy in per cent of scores ``(N, K)``, or the root mean square error of quantities."""
    if quantity:
        return float(np.sqrt(np.mean((answers.reshape(-1) - part.targets.reshape(-1)) ** 2)))
    return 100 * float(np.mean(answers.argmax(1) == part.targets))


# ---- Baselines ----


def _stretched(part: Part, length: int) -> Array:
    """Signals brought to one length, ``(N, C, length)``."""
    rows = [
        functional.interpolate(torch.as_tensor(each)[None], length, mode='linear', align_corners=True)[0]
        for each in part.inputs
    ]
    return torch.stack(rows).numpy()


def _length(data: Data) -> int:
    return int(np.median([each.shape[1] for each in data.train.inputs]))


def nearest(data: Data, quantity: bool, seed: int) -> Array:
    """The target of the nearest training sample, by the Euclidean distance."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    length = _length(data)
    x, new = (_stretched(part, length).reshape(len(part.inputs), -1) for part in data)
    if quantity:
        return np.asarray(KNeighborsRegressor(1).fit(x, data.train.targets).predict(new))
    return np.asarray(KNeighborsClassifier(1).fit(x, data.train.targets).predict_proba(new))


def rocket(data: Data, quantity: bool, seed: int, kernels: int = 2000) -> Array:
    """Random convolutions and a ridge regression, after ROCKET (Dempster et al. 2020, arXiv:1910.13051)."""
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    length, alphas = _length(data), np.logspace(-3, 3, 10)
    features = _Kernels(kernels, data.train.inputs[0].shape[0], length, seed)
    x, new = (features(_stretched(part, length)) for part in data)
    model = make_pipeline(StandardScaler(), RidgeCV(alphas) if quantity else RidgeClassifierCV(alphas))
    model.fit(x, data.train.targets)
    if quantity:
        return np.asarray(model.predict(new))
    return np.eye(int(data.train.targets.max()) + 1)[model.predict(new)]


class _Kernels:
    """Convolutions with random kernels, dilations and offsets: their maximum, and the share of positive values."""

    def __init__(self, count: int, channels: int, length: int, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self._kernels = [self._kernel(channels, length) for _ in range(count)]

    def _kernel(self, channels: int, length: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
        size = min((7, 9, 11)[self._draw(3)], length)
        weight = torch.randn(1, channels, size, generator=self._random)
        most = math.log2(max(1, (length - 1) / max(1, size - 1)))
        dilation = int(2 ** (float(torch.rand(1, generator=self._random)) * most))
        padding = (size - 1) * dilation // 2 * self._draw(2)
        shift = 2 * torch.rand(1, generator=self._random) - 1
        return weight - weight.mean(2, keepdim=True), shift, dilation, padding

    def _draw(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self._random))

    def __call__(self, x: Array) -> Array:
        signals = torch.as_tensor(x)
        # As in the paper, each signal has mean 0 and deviation 1.
        signals = (signals - signals.mean((1, 2), keepdim=True)) / signals.std((1, 2), keepdim=True).clamp_min(1e-8)
        columns = []
        for weight, shift, dilation, padding in self._kernels:
            y = functional.conv1d(signals, weight, shift, dilation=dilation, padding=padding)[:, 0]
            columns += [y.amax(1), (y > 0).float().mean(1)]
        return torch.stack(columns, 1).numpy()


# ---- Networks ----

_BATCH = 16


@dataclass(frozen=True)
class Network:
    """A network, with the recipe that serves for all sets.

    Args:
        name: Its name in `mdnc.list_models`.
        arguments: Its arguments.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __call__(self, data: Data, quantity: bool, seed: int, length: Length) -> Array:
        """Train for so long, and answer the test part with what the last step left."""
        batches = math.ceil(len(data.train.inputs) / _BATCH)
        predictor = train(
            {'name': self.name, 'arguments': self.arguments},
            {'train': (_given(data.train), data.train.targets)},
            task='regression' if quantity else 'classification',
            epochs=max(length.epochs, round(length.steps / batches)),
            batch_size=_BATCH,
            device='cpu',
            seed=seed,
            split={'val': 0.0, 'test': 0.0},
            lr=0.003,
            **({} if quantity else {'smoothing': 0.1}),
        )
        given = _given(data.test)
        return np.asarray(predictor(given) if quantity else predictor.probabilities(given))


def _given(part: Part) -> Any:
    equal = len({each.shape for each in part.inputs}) == 1
    return np.stack(part.inputs) if equal else list(part.inputs)


def documented(data: Data, quantity: bool, seed: int, length: Length) -> Array:
    """A network of the documented arguments alone: four stages, or two where signals are too short for four."""
    stages = 4 if min(each.shape[1] for each in data.train.inputs + data.test.inputs) >= 40 else 2
    arguments = {'channel': 16, 'layers': [1] * stages, 'block': 'plain', 'kernel_size': 5}
    return Network('EncoderNet1d', arguments)(data, quantity, seed, length)


BASELINES: dict[str, Callable[[Data, bool, int], Array]] = {'1-NN': nearest, 'ROCKET-like': rocket}
NETWORKS: dict[str, Callable[[Data, bool, int, Length], Array]] = {
    'documented': documented,
    'advised': Network('encnet_signals'),
}


def averaged(answers: Sequence[Array]) -> Array:
    """What several networks say together."""
    return np.mean(np.stack(answers), axis=0)
