"""What classical methods reach on the test part of each recipe: figures beside which a recipe prints its own.

pip install --no-deps -r benchmarks/accuracy.txt
python -m benchmarks.recipes              # all; some minutes on one core
python -m benchmarks.recipes digits
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
    drawn = ('augmentation', 'patch', 'patches', 'mirror', 'baselines')
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


METHODS: dict[str, Callable[[], Found]] = {each.__name__: each for each in (digits, gunpoint)}


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
