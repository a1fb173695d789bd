"""Recordings in tables: one CSV, TSV or Parquet file a recording, a column a channel, a row a moment."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdnc._extras import require
from mdnc.training.data.files import suffix_of
from mdnc.training.data.grid import Grid
from mdnc.training.data.reader import Array, DataError
from mdnc.training.data.table import Layout, Table, read_layout, read_text

# A first column of such a name says when a row was recorded, and is no channel.
_TIME = re.compile(r'(time|timestamp|date|datetime|zeit|t)\b.*', re.IGNORECASE)


def _step(times: Array) -> float | None:
    """The even step of the times of rows, in their own unit or, of dates, in seconds; None: they have none."""
    try:
        if times.dtype.kind not in 'iuf':
            moments = times.astype('datetime64[ns]')
            times = (moments - moments[0]).astype(np.int64) / 1e9
    except (ValueError, TypeError):
        return None
    steps = np.diff(np.asarray(times, np.float64))
    even = len(steps) and np.isfinite(steps).all() and steps.min() > 0
    return float(np.mean(steps)) if even else None


def _grid(length: int, times: Array | None) -> Grid | None:
    step = None if times is None else _step(times)
    return None if step is None else Grid((length,), (step,))


def time_column(names: Sequence[str]) -> str | None:
    """The column that says when a row was recorded: the first, where it is called so."""
    return names[0] if names and _TIME.fullmatch(names[0]) else None


def _chosen(path: str, names: Sequence[str], columns: Sequence[str], numeric: Sequence[str]) -> list[str]:
    absent = [name for name in columns if name not in names]
    chosen = list(columns) or [name for name in numeric if name and name != time_column(names)]
    if absent or not chosen:
        raise DataError(f'{path}: no column {absent or "of numbers is left"}; its columns are {list(names)}')
    return chosen


class TextRecording:
    """A recording ``(C, L)`` in a CSV or TSV file; the header line may be missing.

    Args:
        path: The file.
        columns: The columns that are its channels; empty means all that hold numbers, but for a first one that is
            called ``time``, ``timestamp``, ``date`` or ``t``.
    """

    def __init__(self, path: str, columns: Sequence[str]) -> None:
        text = read_text(path)
        layout = read_layout(text, path)
        time = time_column(layout.names)
        self.columns = _chosen(path, layout.names, columns, layout.numeric)
        wanted = [*dict.fromkeys([*self.columns, *([time] if time else [])])]
        try:
            found = _quick(text, layout, wanted)
        except (ValueError, require('pyarrow', 'data').ArrowInvalid):
            table = Table(path, self.columns, header=layout.header)  # slower, and says what is wrong where
            values = table.values if table.kind != 'whole' else table.values.astype(np.int64)
            if values.dtype.kind not in 'biuf':
                raise DataError(f'{path}: column {self.columns[0]!r} holds words, not numbers') from None
            found = {name: values.reshape(len(values), -1)[:, place] for place, name in enumerate(self.columns)}
        self._values = np.stack([found[name] for name in self.columns])
        self.shape, self.nbytes = self._values.shape, self._values.nbytes
        self.grid = _grid(self.shape[1], found.get(time) if time else None)

    def __getitem__(self, place: Any) -> Array:
        return np.asarray(self._values[place])


def _quick(text: str, layout: Layout, columns: Sequence[str]) -> dict[str, Array]:
    """Columns of numbers, or of times, by a parser that takes what is well-formed alone."""
    if len({*layout.names}) < len(layout.names):
        raise ValueError('columns of one name')
    csv = require('pyarrow.csv', 'data')
    table = csv.read_csv(
        io.BytesIO(text.encode()),
        read_options=csv.ReadOptions(
            column_names=list(layout.names), skip_rows=int(layout.header), block_size=max(1 << 20, len(text) // 8)
        ),
        parse_options=csv.ParseOptions(delimiter=layout.delimiter),
        convert_options=csv.ConvertOptions(
            include_columns=list(columns), decimal_point=layout.decimal, strings_can_be_null=False
        ),
    )
    return {name: _numbers(table.column(name), name == time_column(layout.names)) for name in columns}


def _numbers(column: Any, is_time: bool) -> Array:
    values: Array = column.to_numpy()
    if is_time:
        return values
    if values.dtype.kind not in 'iuf':
        raise ValueError('no numbers')
    return values if values.dtype.kind in 'iu' else values.astype(np.float32)


class ParquetRecording:
    """A recording ``(C, L)`` in a Parquet file, of which the groups of rows are read that are asked for.

    Args:
        path: The file.
        columns: See `TextRecording`.
    """

    def __init__(self, path: str, columns: Sequence[str]) -> None:
        parquet, types = require('pyarrow.parquet', 'data'), require('pyarrow.types', 'data')
        self._file = parquet.ParquetFile(path)
        schema = self._file.schema_arrow
        names = [name for name in schema.names if not name.startswith('__index_level_')]
        numeric = [
            name for name in names if types.is_integer(kind := schema.field(name).type) or types.is_floating(kind)
        ]
        self.columns = _chosen(path, names, columns, numeric)
        words = next((name for name in self.columns if name not in numeric), None)
        if words is not None:
            raise DataError(f'{path}: column {words!r} holds {schema.field(words).type}, not numbers')
        meta = self._file.metadata
        self._ends = np.cumsum([meta.row_group(number).num_rows for number in range(meta.num_row_groups)], dtype=int)
        self.shape = (len(self.columns), meta.num_rows)
        time = time_column(names)
        times = None if time is None or not meta.num_rows else self._file.read([time]).column(time).to_numpy()
        self.grid = _grid(meta.num_rows, times)

    def __getitem__(self, place: Any) -> Array:
        window = next((part for part in place if isinstance(part, slice)), slice(None))
        start, stop, _ = window.indices(self.shape[1])
        first = int(np.searchsorted(self._ends, start, side='right'))
        last = int(np.searchsorted(self._ends, max(start, stop - 1), side='right'))
        groups = list(range(first, min(last + 1, len(self._ends))))
        table = self._file.read_row_groups(groups, self.columns)
        before = int(self._ends[first - 1]) if first else 0
        values = np.stack([table.column(name).to_numpy() for name in self.columns])
        return values[:, start - before : stop - before]


def open_recording(path: str, columns: Sequence[str]) -> TextRecording | ParquetRecording:
    """A table as one recording ``(C, L)``; see `TextRecording`."""
    if not Path(path).stat().st_size:
        raise DataError(f'{path} is empty')
    return (ParquetRecording if suffix_of(path) == '.parquet' else TextRecording)(path, columns)
