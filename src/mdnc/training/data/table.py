"""A CSV table of targets, one row a sample."""

import csv
import os

import numpy as np

from mdnc.training.data.reader import Array, DataError, Window

FILE_COLUMN = 'file'


class Table:
    """Columns of a CSV file with a header line.

    Args:
        path: The file. A column called ``file`` names the file of the sample that a row belongs to; without it the
            rows are in the order of the samples.
        columns: The columns to read, separated by commas; empty means all but ``file``.
    """

    def __init__(self, path: str | os.PathLike[str], columns: str = '') -> None:
        self._path = os.path.basename(path)
        with open(path, newline='', encoding='utf-8-sig') as file:
            reader = csv.DictReader(file, strict=True)
            header, rows = list(reader.fieldnames or ()), list(reader)
        chosen = [name.strip() for name in columns.split(',')] if columns else [n for n in header if n != FILE_COLUMN]
        missing = [name for name in chosen if name not in header]
        if missing or not chosen or not rows:
            raise DataError(f'{path}: no column {missing} or no rows; its header is {header}, it has {len(rows)} rows')
        self.files = [row[FILE_COLUMN] for row in rows] if FILE_COLUMN in header else None
        self.values = _numbers([[row[name] for name in chosen] for row in rows])
        if len(chosen) == 1:
            self.values = self.values[:, 0]

    def __len__(self) -> int:
        return len(self.values)

    def shape(self, index: int) -> tuple[int, ...]:
        return self.values.shape[1:]

    def read(self, index: int, window: Window = ()) -> Array:
        return np.asarray(self.values[index])

    def name(self, index: int) -> str:
        return f'{self._path}, line {index + 2}'

    def file(self, index: int) -> str:
        return self._path


def _numbers(cells: list[list[str]]) -> Array:
    texts = np.array(cells)
    try:
        values = texts.astype(np.float64)
    except ValueError:
        return texts
    # A count or a class number is written without a point; 3.0 stays a quantity.
    whole = not any(mark in cell for row in cells for cell in row for mark in '.eEnN')
    return values.astype(np.int64) if whole else values
