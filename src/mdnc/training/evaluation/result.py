"""What a test found, ready to be written: figures as JSON, samples as CSV, charts for a page."""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdnc._files import whole_file
from mdnc.training.evaluation.intervals import LEVEL, Figure
from mdnc.training.evaluation.sample_results import Table
from mdnc.training.pictures import Panel

Array = NDArray[Any]
COUNTS = ('samples', 'cases')  # of `Evaluation.each`, what is no measurement


@dataclass(frozen=True)
class Evaluation:
    """What a test found.

    Args:
        samples: How many samples were judged.
        overall: Figures of all together, by name.
        kind: What ``each`` is of: ``'classes'`` or ``'quantities'``.
        each: Figures of each class or quantity, by its name.
        methods: How the intervals were made, by what they are of.
        columns: What is said of each sample beside path and loss, by name, ``(N,)`` each.
        confusion: How many of each class (rows) were taken for each (columns), ``(K, K)``.
        charts: Charts by what they show.
    """

    samples: int
    overall: dict[str, Figure]
    kind: str
    each: dict[str, dict[str, Figure]]
    methods: dict[str, str]
    columns: Mapping[str, Array] = field(default_factory=dict)
    confusion: Array | None = None
    charts: dict[str, Panel] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As ``test.json`` has it."""
        found: dict[str, Any] = {
            'samples': self.samples,
            'intervals': {'level': LEVEL, **self.methods},
            'figures': {name: figure.plain() for name, figure in self.overall.items()},
            self.kind: {
                name: {
                    word: int(figure.value) if word in COUNTS else figure.plain() for word, figure in figures.items()
                }
                for name, figures in self.each.items()
            },
        }
        if self.confusion is not None:
            found['confusion'] = {
                'rows': 'true classes',
                'columns': 'predicted classes',
                'classes': list(self.each),
                'counts': self.confusion.tolist(),
            }
        return found


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return '' if math.isnan(value) else f'{value:.7g}'
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def _rows(table: Table, evaluation: Evaluation) -> Iterator[list[str]]:
    yield ['path', *evaluation.columns, 'loss']
    columns = evaluation.columns.values()
    for place, name in enumerate(table.names):
        yield [name, *(_cell(column[place]) for column in columns), _cell(table.losses[place])]


def write_samples(path: Path, table: Table, evaluation: Evaluation) -> Path:
    """Write what a test found of each sample: one row each, in the order of the samples.

    Args:
        path: The CSV file, which is written whole or not at all.
        table: The samples.
        evaluation: What is said of them.
    """
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, 'utf-8', newline='')
        csv.writer(text).writerows(_rows(table, evaluation))
        text.flush()
        text.detach()
    return path
