"""What classical methods reach on the test part of each recipe: figures beside which a recipe prints its own.

pip install --no-deps -r benchmarks/recipes.txt  # BM3D, for non-commercial use
python -m benchmarks.recipes              # all; some minutes on one core
python -m benchmarks.recipes digits fat
"""

import argparse
import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

import mdnc.training
from benchmarks.accuracy.methods import nearest, rocket
from benchmarks.accuracy.sets import Data, Part

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'benchmarks' / 'results' / 'recipes.csv'
COLUMNS = ('recipe', 'metric', 'method', 'figure')
Array = NDArray[Any]
Found = Iterator[tuple[str, str, float]]  # metric, method, figure


def parts(recipe: str) -> tuple[Part, Part]:
    """Training and test part of a recipe's data, whole samples; what validates counts as training."""
    words = yaml.safe_load((ROOT / 'recipes' / f'{recipe}.yaml').read_text(encoding='utf-8'))['data']
    drawn = ('augmentation', 'balance', 'patch', 'patches', 'mirror', 'baselines')
    given = {name: value for name, value in words['init_args'].items() if name not in drawn}
    source = getattr(mdnc.training, words['class_path'])(**given)
    source.setup()
    learnt, tested = (
        [part.item(index, None) for part in group for index in range(len(part))]
        for group in (
            (source.train, source.val),
            (source.test,),
        )
    )
    made = [
        Part([each['input'] for each in items], _stacked([each['target'] for each in items]))
        for items in (learnt, tested)
    ]
    return made[0], made[1]


def _stacked(targets: list[Array]) -> Array:
    return np.stack(targets) if len({each.shape for each in targets}) == 1 else np.array([*targets, None], object)[:-1]


def rmse(answers: Array, truth: Array) -> float:
    return float(np.sqrt(np.mean((answers.reshape(truth.shape) - truth) ** 2)))


def _flat(part: Part) -> Array:
    return np.stack([each.reshape(-1) for each in part.inputs])


def digits() -> Found:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    train, test = parts('digits')
    for name, model in (('SVC', SVC(C=10, gamma=0.001)), ('1-NN', KNeighborsClassifier(1))):
        yield 'accuracy', name, model.fit(_flat(train), train.targets).score(_flat(test), test.targets)


def gunpoint() -> Found:
    data = Data(*parts('gunpoint'))
    for name, method in (('1-NN', nearest), ('ROCKET-like', rocket)):
        yield 'accuracy', name, float(np.mean(method(data, False, 0).argmax(1) == data.test.targets))


def fat() -> Found:
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    train, test = parts('fat')
    data = Data(*(Part(part.inputs, part.targets.reshape(-1)) for part in (train, test)))
    yield 'rmse', '1-NN', rmse(nearest(data, True, 0), test.targets)
    yield 'rmse', 'ROCKET-like', rmse(rocket(data, True, 0), test.targets)
    x, new = _flat(train), _flat(test)
    grid = {'svr__C': [10, 100, 1e3, 1e4], 'svr__gamma': [1e-4, 1e-3, 0.01, 0.1]}
    support = GridSearchCV(make_pipeline(StandardScaler(), SVR()), grid, cv=5, scoring='neg_mean_squared_error')
    partial = GridSearchCV(PLSRegression(scale=False), {'n_components': range(2, 30)}, cv=10)
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-8, 3, 40)))
    for name, model in (('PLS', partial), ('ridge', ridge), ('SVR', support)):
        yield 'rmse', name, rmse(model.fit(x, data.train.targets).predict(new), test.targets)
    # Standard normal variates: each spectrum with mean 0 and deviation 1, as chemometrics prepares it.
    scaled, new = ((each - each.mean(1, keepdims=True)) / each.std(1, keepdims=True) for each in (x, new))
    yield 'rmse', 'SVR of scaled spectra', rmse(support.fit(scaled, data.train.targets).predict(new), test.targets)


def colours() -> Found:
    train, test = parts('colours')
    yield 'rmse', 'bilinear', rmse(test.inputs[0][:3], test.targets[0])
    yield 'rmse', 'linear, 7 × 7', rmse(_linear(train, test.inputs[0]), test.targets[0])


def _linear(train: Part, given: Array) -> Array:
    """The best linear function of the 7 × 7 measured values about a position, for each place in Bayer's pattern."""
    found = np.zeros_like(given[:3])
    for row, column in np.ndindex(2, 2):
        spaced = [slice(None, None, max(1, each[0].size // 80_000)) for each in train.targets]
        x = [_around(each, row, column)[some] for each, some in zip(train.inputs, spaced, strict=True)]
        y = [
            each[:, row::2, column::2].reshape(3, -1).T[some] for each, some in zip(train.targets, spaced, strict=True)
        ]
        weights = np.linalg.lstsq(np.concatenate(x), np.concatenate(y), rcond=None)[0]
        places = found[:, row::2, column::2]
        places[:] = (_around(given, row, column) @ weights).T.reshape(places.shape)
    return found


def _around(given: Array, row: int, column: int, reach: int = 3) -> Array:
    """The values that were measured around each position of a place in the pattern, ``(positions, 49)``."""
    padded = np.pad(given[3:].sum(0), reach, mode='reflect')  # one colour was measured at each position
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1,) * 2)[row::2, column::2]
    return windows.reshape(-1, (2 * reach + 1) ** 2)


def denoise() -> Found:
    import bm3d
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

    noise = 25 / 255
    test = parts('denoise')[1]
    given, truth = test.inputs[0][0] / 255, test.targets[0][0]
    found = {
        'total variation': denoise_tv_chambolle(given, weight=0.08),
        'non-local means': denoise_nl_means(given, h=0.8 * noise, sigma=noise, patch_size=5, patch_distance=6),
        'BM3D': bm3d.bm3d(given, noise),
    }
    for name, answer in found.items():
        yield 'rmse', name, rmse(255 * answer, truth)


def mni152() -> Found:
    """A table: what most training voxels of an intensity are."""
    train, test = parts('mni152')
    x, tissue = (
        np.concatenate([np.asarray(each).reshape(-1) for each in side]) for side in (train.inputs, train.targets)
    )
    edges = np.quantile(x, np.linspace(0, 1, 257)[1:-1])
    counts = np.zeros((257, 3))
    np.add.at(counts, (np.digitize(x, edges), tissue), 1)
    answers, truth = counts.argmax(1)[np.digitize(test.inputs[0][0], edges)], test.targets[0]
    shares = [
        2 * np.sum((answers == kind) & (truth == kind)) / (np.sum(answers == kind) + np.sum(truth == kind))
        for kind in range(3)
    ]
    yield 'dice', 'table of intensities', float(np.mean(shares))


METHODS: dict[str, Callable[[], Found]] = {
    each.__name__: each for each in (colours, denoise, digits, fat, gunpoint, mni152)
}


def known() -> list[dict[str, str]]:
    """The rows that are there."""
    if not RESULTS.is_file():
        return []
    with RESULTS.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('recipes', nargs='*', default=[*METHODS], help='by default all')
    for recipe in parser.parse_args().recipes:
        rows = [row for row in known() if row['recipe'] != recipe]
        for metric, method, figure in METHODS[recipe]():
            print(recipe, metric, method, f'{figure:.4g}', flush=True)
            rows.append(dict(zip(COLUMNS, (recipe, metric, method, f'{figure:.4g}'), strict=True)))
        with RESULTS.open('w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
            writer.writeheader()
            writer.writerows(sorted(rows, key=lambda row: row['recipe']))


if __name__ == '__main__':
    main()
