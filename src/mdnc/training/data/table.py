"""Tables (CSV, TSV, Parquet), one row a sample: numbers, or the name of its class."""

import csv
import io
import math
import os
import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mdnc._extras import require
from mdnc.training.data.files import suffix_of
from mdnc.training.data.reader import Array, DataError, Window

FILE_COLUMN = 'file'
_DELIMITERS = (',', ';', '\t')
# Cells of a column of numbers that say that there is none: what pandas and the UCI repository write.
_NO_NUMBER = {'', 'nan', '-nan', 'na', 'n/a', '<na>', '#n/a', 'null', 'none', '?', '-'}
_WHOLE = re.compile('[+-]?[0-9]+')
_DECIMAL_COMMA = re.compile('[+-]?[0-9]*,[0-9]+')
_ILL_WRITTEN = re.compile("[+-]?[0-9][0-9.,_' ]*")  # 1,234 and 1_000, but no name such as 3a
_EXACT = 2**53  # whole numbers that a float64 holds


class Row(NamedTuple):
    """A row and the line of the file that it ends in."""

    line: int
    cells: list[str]


def read_text(path: str) -> str:
    """The text of a file in UTF-8 or UTF-16.

    Raises:
        DataError: It is no text, or in another encoding.
    """
    raw = Path(path).read_bytes()
    encoding = 'utf-16' if raw[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f'{path} is no text in UTF-8 (byte {error.start} is no letter); save it as UTF-8') from error
    if '\0' in text:
        raise DataError(f'{path} is no text: it holds zero bytes')
    return text


def _parse(text: str, delimiter: str, most: int | None = None) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
    rows = []
    for cells in reader:
        rows.append(Row(reader.line_num, [cell.strip() for cell in cells]))
        if len(rows) == most:
            break
    return rows


def _fit(text: str, delimiter: str) -> tuple[bool, bool, int, bool]:
    # The right delimiter gives several columns, the same number in each row; commas may also stand in numbers.
    try:
        widths = [len(row.cells) for row in _parse(text, delimiter, most=50) if row.cells]
    except csv.Error:
        widths = []
    if not widths:
        return False, False, 0, False
    return widths[0] > 1, len(set(widths)) == 1, widths[0], widths[0] > 1 and delimiter != ','


def _trimmed(rows: list[Row], path: str) -> tuple[list[str], list[Row]]:
    """Header and rows of equal width; empty lines at the end, and between rows of several cells, are left out."""
    while rows and not any(rows[-1].cells):
        rows.pop()
    if not rows:
        raise DataError(f'{path} is empty: a table has a header line and a row for each sample')
    header, width = rows[0].cells, len(rows[0].cells)
    kept = []
    for row in rows[1:]:
        cells = row.cells or ([''] if width == 1 else [])
        if cells and (len(cells) < width or any(cells[width:])):
            raise DataError(f'{path}, line {row.line}: it has {len(cells)} cells, the header has {width}: {header}')
        kept += [Row(row.line, cells[:width])] if cells else []
    return header, kept


def _parquet_rows(path: str) -> tuple[list[str], list[Row]]:
    table = require('pyarrow.parquet', 'data').read_table(path)
    names = [name for name in table.column_names if not name.startswith('__index_level_')]
    columns = [[cell_text(value) for value in table.column(name).to_pylist()] for name in names]
    return names, [Row(line, list(cells)) for line, cells in enumerate(zip(*columns, strict=True), 2)]


def cell_text(value: Any) -> str:
    """A value of a table as the text that a cell of it holds; empty where there is none."""
    absent = value is None or type(value).__name__ in ('NAType', 'NaTType') or value != value
    return '' if absent else str(value).strip()


def _number(cell: str, decimal_comma: bool) -> float | None:
    """A cell's number, NaN where it says that there is none, None where it is something else."""
    if cell.lower() in _NO_NUMBER:
        return math.nan
    if decimal_comma and _DECIMAL_COMMA.fullmatch(cell):
        cell = cell.replace(',', '.')
    try:
        return None if '_' in cell else float(cell)
    except ValueError:
        return None


@dataclass(frozen=True)
class Layout:
    """How a table of text is written, as its first rows tell.

    Args:
        names: Its columns; numbers from 0 where there is no header line.
        header: Whether its first line names them.
        delimiter: What stands between cells.
        decimal: What stands before fractions.
        numeric: The columns that hold numbers.
    """

    names: tuple[str, ...]
    header: bool
    delimiter: str
    decimal: str
    numeric: tuple[str, ...]


def read_layout(text: str, path: str) -> Layout:
    """Look at the first rows of a table of numbers that may lack a header line.

    Raises:
        DataError: There is no row.
    """
    delimiter = max(_DELIMITERS, key=lambda mark: _fit(text, mark))
    try:
        rows = [row.cells for row in _parse(text, delimiter, most=50) if any(row.cells)]
    except csv.Error as error:
        raise DataError(f'{path} is no table: {error}') from error
    if not rows:
        raise DataError(f'{path} is empty: a recording has a row for each moment')
    counted = [str(place) for place in range(len(rows[0]))]
    header = rows[0] == counted or any(_number(cell, delimiter != ',') is None for cell in rows[0] if cell)
    names, held = (rows[0] if header else counted), rows[int(header) :]
    cells = [cell for row in held for cell in row]
    comma = delimiter != ',' and not any('.' in cell for cell in cells)
    numeric = [
        name
        for place, name in enumerate(names)
        if all(_number(row[place], comma) is not None for row in held if place < len(row))
    ]
    decimal = ',' if comma and any(_DECIMAL_COMMA.fullmatch(cell) for cell in cells) else '.'
    return Layout(tuple(names), header, delimiter, decimal, tuple(numeric))


@dataclass(frozen=True)
class _Column:
    path: str
    name: str
    rows: Sequence[Row]
    cells: Sequence[str]
    decimal_comma: bool

    def values(self) -> Array:
        """Numbers (NaN where a cell is empty) or names (empty where a cell is): told by all cells together.

        Raises:
            DataError: Some cells are quantities and some are not, or all are empty.
        """
        comma = self.decimal_comma and not any('.' in cell for cell in self.cells)
        numbers = [_number(cell, comma) for cell in self.cells]
        given = [cell for cell in self.cells if cell.lower() not in _NO_NUMBER]
        if not given:
            raise DataError(f'{self.path}: all cells of column {self.name!r} are empty')
        if None in numbers:
            return self._names(numbers)
        return np.array(numbers, np.float64)

    def whole(self) -> bool:
        """Whether the numbers are counts or class numbers: written without a point; 3.0 stays a quantity."""
        given = [cell for cell in self.cells if cell.lower() not in _NO_NUMBER]
        return all(_WHOLE.fullmatch(cell) and abs(int(cell)) < _EXACT for cell in given)

    def _names(self, numbers: Sequence[float | None]) -> Array:
        words = [row for row, number in enumerate(numbers) if number is None]
        found = [
            cell for cell, number in zip(self.cells, numbers, strict=True) if number is not None and number == number
        ]
        odd = next((row for row in words if _ILL_WRITTEN.fullmatch(self.cells[row])), words[0])
        # Names may be digits, as in 0, …, 9, A, …, Z; 2.5 is no name.
        if found and (_ILL_WRITTEN.fullmatch(self.cells[odd]) or not all(cell.isdigit() for cell in found)):
            raise DataError(
                f'{self.path}, line {self.rows[odd].line}: column {self.name!r} holds {self.cells[odd]!r}, where other '
                f'rows hold numbers such as {found[0]}'
            )
        return np.array(self.cells)


class Table:
    """Columns of a CSV or TSV file with a header line; the delimiter is a comma, a semicolon or a tab.

    A column's kind is told by all its cells: numbers, of which empty cells are NaN, or names of classes. Where the
    delimiter is no comma, numbers may have a decimal comma.

    Args:
        path: The file. A column called ``file`` names the file of the sample that a row belongs to; without it the
            rows are in the order of the samples.
        columns: The columns to read, a list or separated by commas; empty means all that have a name, but ``file``.
        name: What errors call the table; None means ``path``.
        without: Columns that are left out where ``columns`` is empty.
        header: Whether the first line names the columns; else their names are 0, 1, ….

    Raises:
        DataError: The file is no such table, or a column is not there or is there twice.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: str | Sequence[str] = '',
        name: str | None = None,
        without: Sequence[str] = (),
        header: bool = True,
    ) -> None:
        self.path, self._name = os.fspath(path), name or os.path.basename(path)
        self._decimal_comma, self._headed = False, header
        self.header, self.rows = self._parsed()
        self._check_header()
        self.columns = self._chosen(columns, without)
        self._check_columns()

    def _parsed(self) -> tuple[list[str], list[Row]]:
        if suffix_of(self.path) == '.parquet':
            return _parquet_rows(self.path)
        text = read_text(self.path)
        delimiter = max(_DELIMITERS, key=lambda mark: _fit(text, mark))
        self._decimal_comma = delimiter != ','
        rows = _parse(text, delimiter)
        if not self._headed and rows:
            rows.insert(0, Row(0, [str(place) for place in range(len(rows[0].cells))]))
        return _trimmed(rows, self.path)

    def _chosen(self, columns: str | Sequence[str], without: Sequence[str]) -> list[str]:
        if not columns:
            return [name for name in self.header if name and name.lower() != FILE_COLUMN and name not in without]
        # A column's name may hold a comma itself.
        if not isinstance(columns, str) or columns in self.header:
            return [columns] if isinstance(columns, str) else list(columns)
        return [name.strip() for name in columns.split(',')]

    def _check_header(self) -> None:
        named = [name for name in self.header if name]
        numbers = [name for name in named if _number(name, self._decimal_comma) is not None]
        # pandas calls columns that have no name 0, 1, …
        if numbers and len(numbers) == len(self.header) and numbers != [str(place) for place in range(len(numbers))]:
            raise DataError(f'{self.path} has no header line: its first line is {self.header}')
        if not self.rows:
            raise DataError(f'{self.path} has no rows below its header {self.header}')

    def _check_columns(self) -> None:
        absent = [name for name in self.columns if name not in self.header]
        if absent or not self.columns:
            raise DataError(f'{self.path}: no column {absent or "is left"}; its columns are {self.header}')
        twice = next((name for name in self.columns if self.header.count(name) > 1), None)
        if twice is not None:
            raise DataError(f'{self.path}: {self.header.count(twice)} columns are called {twice!r}')

    def cells(self, column: str) -> list[str]:
        """The cells of a column, as they are written."""
        place = self.header.index(column)
        return [row.cells[place] for row in self.rows]

    @property
    def files(self) -> list[str] | None:
        """What the column ``file`` holds, None where there is none."""
        column = next((name for name in self.header if name.lower() == FILE_COLUMN), None)
        return None if column is None else self.cells(column)

    @cached_property
    def _parts(self) -> list[_Column]:
        return [_Column(self.path, name, self.rows, self.cells(name), self._decimal_comma) for name in self.columns]

    @cached_property
    def kind(self) -> str:
        """What the columns hold: ``'names'``, ``'whole'`` numbers, where they are given, or ``'numbers'``."""
        if self.values.dtype.kind == 'U':
            return 'names'
        # A row with a gap holds NaN beside its other cells, so all rows of several columns are fractions then.
        one_kind = self.values.ndim == 1 or not np.isnan(self.values).any()
        return 'whole' if one_kind and all(part.whole() for part in self._parts) else 'numbers'

    @cached_property
    def values(self) -> Array:
        """The columns' values, ``(rows,)`` of one column, else ``(rows, columns)``, NaN or '' where a cell is empty."""
        parts = [part.values() for part in self._parts]
        if len(parts) == 1:
            return parts[0]
        names = [name for name, part in zip(self.columns, parts, strict=True) if part.dtype.kind == 'U']
        if names:
            raise DataError(
                f'{self.path}: column {names[0]!r} holds words; choose columns of numbers, or it alone, as '
                f'PATH::COLUMN. Its columns are {self.header}'
            )
        return np.stack(parts, 1)

    def rearranged(self, places: Sequence[int]) -> 'Table':
        """The same rows in another order."""
        table = copy(self)
        table.kind = self.kind
        table.rows, table.values = [self.rows[place] for place in places], self.values[list(places)]
        return table

    def __len__(self) -> int:
        return len(self.rows)

    def shape(self, index: int) -> tuple[int, ...]:
        return self.values.shape[1:]

    def uniform(self) -> bool:
        """Samples are rows of one table."""
        return True

    def read(self, index: int, window: Window = ()) -> Array:
        place: Any = (index, ..., *window)
        values = np.asarray(self.values[place])
        return values.astype(np.int64) if self.kind == 'whole' and not np.isnan(values).any() else values

    def name(self, index: int) -> str:
        return f'{self._name}, line {self.rows[index].line}'

    def file(self, index: int) -> str:
        return self._name

    def _empty(self) -> Array:
        empty = self.values == '' if self.kind == 'names' else np.isnan(self.values)
        return empty.reshape(len(self), -1)

    def hole(self) -> int | None:
        """The first row with an empty cell."""
        rows = np.flatnonzero(self._empty().any(1))
        return int(rows[0]) if len(rows) else None

    def given(self) -> Array:
        """Whether each row has a cell that is not empty."""
        return np.asarray((~self._empty()).any(1))
