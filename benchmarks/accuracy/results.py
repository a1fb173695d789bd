"""The rows that were run, and the table of them."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch

import mdnc
from benchmarks.accuracy.methods import BASELINES, NETWORKS
from benchmarks.accuracy.sets import SETS, Set
from benchmarks.results import cpu_model

RESULTS = Path(__file__).parents[1] / 'results' / 'accuracy.csv'
PAGE = Path(__file__).parents[2] / 'docs' / 'accuracy.md'
BEGIN, END = '<!-- figures of benchmarks/results/accuracy.csv -->', '<!-- end of the figures -->'
Values = Callable[[Set], list[float]]


@dataclass(frozen=True)
class Row:
    """A figure of a method on a set.

    Args:
        form: Key of `FORMS`.
        set: Name of the set.
        method: Key of `BASELINES` or `NETWORKS`.
        seed: Of the run; of an average the first and the last, ``'0-4'``.
        figure: Accuracy in per cent, or root mean square error.
        seconds: Processor time; 0 of an average.
    """

    form: str
    set: str
    method: str
    seed: str
    figure: float
    seconds: float
    cpu: str = ''
    mdnc: str = mdnc.__version__
    torch: str = torch.__version__

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What is run once."""
        return self.form, self.set, self.method, self.seed


def read(path: Path) -> list[Row]:
    """The rows that are there."""
    if not path.is_file():
        return []
    with path.open(newline='', encoding='utf-8') as file:
        return [
            Row(**{**row, 'figure': float(row['figure']), 'seconds': float(row['seconds'])})
            for row in csv.DictReader(file)
        ]


def add(path: Path, row: Row) -> None:
    """Add a row, so that what was run is not run again."""
    new = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerows([[each.name for each in fields(Row)]] * new)
        writer.writerow((asdict(row) | {'cpu': row.cpu or cpu_model()}).values())
    print(*row.key, row.figure, f'{row.seconds:.0f} s', flush=True)


def table(rows: Iterable[Row]) -> str:
    """The figures as Markdown: a row a set, means over seeds with their deviation; below, means over sets."""
    kept = list(rows)
    columns: dict[str, Values] = {}
    for method in [*BASELINES, *NETWORKS]:
        columns[method] = lambda each, method=method: _figures(kept, each, method, single=True)
        if method in NETWORKS:
            columns[f'{method}, averaged'] = lambda each, method=method: _figures(kept, each, method, single=False)
    columns['ResNet'] = lambda each: [each.resnet] * (each.resnet is not None)
    columns['Inception\xadTime'] = lambda each: [each.inception] * (each.inception is not None)
    lines = ['| set | ' + ' | '.join(columns) + ' | best known |', '|' + ' --- |' * (len(columns) + 2)]
    for each in SETS:
        cells = [_cell(each, values(each)) for values in columns.values()]
        lines += ['| ' + ' | '.join([each.name, *cells, each.best]) + ' |']
    return '\n'.join([*lines, f'{_means(columns)}  |'])


def _figures(rows: Iterable[Row], each: Set, method: str, single: bool) -> list[float]:
    """Figures of single runs, or of the averages over the most of them."""
    own = [row for row in rows if (row.set, row.method) == (each.name, method) and row.seed.isdigit() == single]
    most = max((len(_seeds(row.seed)) for row in own), default=0)
    return [row.figure for row in own if len(_seeds(row.seed)) == most]


def _seeds(name: str) -> range:
    """The seeds of a run or an average by its name, see `average_of`."""
    first, _, last = name.partition('-')
    return range(int(first), int(last or first) + 1)


def _cell(each: Set, found: list[float]) -> str:
    if not found:
        return ''
    digits = 4 if each.quantity else 1
    spread = f' ± {np.std(found):.{digits}f}' if len(found) > 1 else ''
    return f'{np.mean(found):.{digits}f}{spread}'


def _means(columns: dict[str, Values]) -> str:
    """Means over the sets of which all of it is known."""
    sets = [each for each in SETS if each.resnet is not None and not each.quantity]
    means = []
    for values in columns.values():
        found = [values(each) for each in sets]
        means += [f'**{np.mean([np.mean(own) for own in found]):.1f}**' if all(found) else '']
    return f'| mean of {len(sets)} with published figures | ' + ' | '.join(means) + ' |'


def average_of(seeds: Sequence[int]) -> str:
    """How an average over these seeds is called."""
    return f'{seeds[0]}-{seeds[-1]}'


def again(rows: Iterable[Row]) -> str:
    """Figures of the same networks with other seeds, as Markdown: a column for each group of seeds."""
    kept = list(rows)
    groups = _groups(kept)
    if len(groups) < 2:
        return ''
    columns: dict[str, Values] = {
        f'{method}, seeds {average_of(group)}': lambda each, method=method, group=group: [
            row.figure for row in kept if (row.set, row.method) == (each.name, method) and row.seed in map(str, group)
        ]
        for method in NETWORKS
        for group in groups
    }
    lines = ['| set | ' + ' | '.join(columns) + ' |', '|' + ' --- |' * (len(columns) + 1)]
    for each in SETS:
        cells = [_cell(each, values(each)) for values in columns.values()]
        lines += ['| ' + ' | '.join([each.name, *cells]) + ' |'] * all(cells)
    return '\n'.join([*lines, _means(columns)])


def _groups(rows: Iterable[Row]) -> list[range]:
    """The seeds of averages, as far as none is in an earlier group."""
    groups: list[range] = []
    for group in map(_seeds, dict.fromkeys(row.seed for row in rows if '-' in row.seed)):
        groups += [group] * all(group.stop <= own.start or own.stop <= group.start for own in groups)
    return groups


def put(page: Path, rows: Iterable[Row]) -> None:
    """Put the tables, one a form, between the marks of the page."""
    kept = list(rows)
    parts = []
    for form in dict.fromkeys(row.form for row in kept):
        own = [row for row in kept if row.form == form]
        said = sorted({f'{row.cpu}, torch {row.torch}, mdnc {row.mdnc}' for row in own})
        parts += [f'`python -m benchmarks.accuracy --form {form}`, on {"; ".join(said)}:\n\n{table(own)}']
        parts += [f'The same, once more with other seeds:\n\n{other}' for other in [again(own)] if other]
    before, _, rest = page.read_text(encoding='utf-8').partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text('\n\n'.join([before + BEGIN, *parts, END]) + after, encoding='utf-8')
