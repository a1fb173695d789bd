"""Run what is not in the CSV yet, and write the page's table.

pip install --no-deps -r benchmarks/accuracy.txt
python -m benchmarks.accuracy --form quick     # under an hour on 2 cores
python -m benchmarks.accuracy --form full
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch

import mdnc
from benchmarks.accuracy.methods import BASELINES, FORMS, NETWORKS, averaged, figure
from benchmarks.accuracy.sets import SETS, Set

RESULTS = Path(__file__).parents[1] / 'results' / 'accuracy.csv'
COLUMNS = ('form', 'set', 'method', 'seed', 'figure', 'seconds', 'mdnc', 'torch')
Key = tuple[str, str, str, str]


def known(path: Path) -> dict[Key, dict[str, str]]:
    """The rows that are there."""
    if not path.is_file():
        return {}
    with path.open(newline='', encoding='utf-8') as file:
        return {(row['form'], row['set'], row['method'], row['seed']): row for row in csv.DictReader(file)}


def record(path: Path, *values: object) -> None:
    """Add a row, so that what was run is not run again."""
    new = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS] * new)
        writer.writerow([*values, mdnc.__version__, torch.__version__])
    print(*values, flush=True)


def run(each: Set, form: str, rows: dict[Key, dict[str, str]], path: Path) -> None:
    """All methods on a set; those that are there are left out."""
    data = each.load()
    for name, method in BASELINES.items():
        if (form, each.name, name, '0') not in rows:
            start = time.process_time()
            found = figure(method(data, each.quantity, 0), data.test, each.quantity)
            record(path, form, each.name, name, 0, round(found, 4), round(time.process_time() - start))
    for name, network in NETWORKS.items():
        wanted = [str(seed) for seed in range(FORMS[form].seeds)]
        if all((form, each.name, name, seed) in rows for seed in [*wanted, 'all']):
            continue
        answers = []
        for seed in wanted:  # an average needs the answers of all, so that a set that was cut short begins again
            start = time.process_time()
            answers.append(network(data, each.quantity, int(seed), FORMS[form].steps))
            if (form, each.name, name, seed) not in rows:
                found = figure(answers[-1], data.test, each.quantity)
                record(path, form, each.name, name, seed, round(found, 4), round(time.process_time() - start))
        found = figure(averaged(answers), data.test, each.quantity)
        record(path, form, each.name, name, 'all', round(found, 4), 0)


def table(form: str, rows: dict[Key, dict[str, str]]) -> str:
    """The figures as Markdown: a row a set, means over seeds with their deviation."""
    methods = [*BASELINES, *NETWORKS, *(f'{name}, average' for name in NETWORKS)]
    lines = [f'| set | {" | ".join(methods)} | ResNet | InceptionTime | best known |']
    lines += ['|' + ' --- |' * (len(methods) + 4)]
    for each in SETS:
        cells = [_cell(form, each, method, rows) for method in methods]
        published = ['' if value is None else f'{value:g}' for value in (each.resnet, each.inception)]
        lines += [f'| {each.name} | {" | ".join([*cells, *published, each.best])} |']
    return '\n'.join(lines)


def _cell(form: str, each: Set, method: str, rows: dict[Key, dict[str, str]]) -> str:
    name, average = method.removesuffix(', average'), method.endswith(', average')
    found = [
        float(row['figure'])
        for key, row in rows.items()
        if key[:3] == (form, each.name, name) and (key[3] == 'all') == average
    ]
    if not found:
        return ''
    digits = 4 if each.quantity else 1
    spread = f' ± {np.std(found):.{digits}f}' if len(found) > 1 else ''
    return f'{np.mean(found):.{digits}f}{spread}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--form', choices=FORMS, default='quick')
    parser.add_argument('--sets', nargs='*', default=[each.name for each in SETS])
    parser.add_argument('--table', action='store_true', help='only print the table of what is there')
    given = parser.parse_args()
    for each in SETS:
        if each.name in given.sets and not given.table:
            run(each, given.form, known(RESULTS), RESULTS)
    print(table(given.form, known(RESULTS)))


if __name__ == '__main__':
    main()
