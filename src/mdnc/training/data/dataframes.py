"""DataFrames of pandas: tables of targets with file names, and recordings; pandas itself is not imported."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mdnc.training.data.reader import Array, DataError, Listed
from mdnc.training.data.recordings import time_column
from mdnc.training.data.table import FILE_COLUMN, Row, Table, cell_text


def is_frame(value: Any) -> bool:
    """Whether a value is a DataFrame."""
    return type(value).__module__.split('.')[0] == 'pandas' and hasattr(value, 'columns')


def names_files(value: Any) -> bool:
    """Whether a value is a DataFrame that has a column ``file``."""
    return is_frame(value) and any(str(name).lower() == FILE_COLUMN for name in value.columns)


def with_files(value: Any) -> Any:
    """A Series or DataFrame with a string index gets this index as column ``file``; others are returned as they are."""
    if type(value).__module__.split('.')[0] != 'pandas' or not hasattr(value, 'index') or names_files(value):
        return value
    labels = value.index.tolist()
    if not labels or not all(isinstance(label, str) for label in labels):
        return value
    frame = value if is_frame(value) else value.to_frame(str(value.name or 'target'))
    return frame.rename_axis(FILE_COLUMN).reset_index()


class FrameTable(Table):
    """A DataFrame with one row per sample and the name of its file in the column ``file``.

    Args:
        frame: The DataFrame.
        columns: See `Table`.
        without: See `Table`.
    """

    def __init__(self, frame: Any, columns: str | Sequence[str] = '', without: Sequence[str] = ()) -> None:
        self._frame = frame
        super().__init__('DataFrame', columns, 'DataFrame', without)
        del self._frame

    def _parsed(self) -> tuple[list[str], list[Row]]:
        columns = [[cell_text(value) for value in self._frame.iloc[:, place]] for place in range(self._frame.shape[1])]
        rows = [Row(number, list(cells)) for number, cells in enumerate(zip(*columns, strict=True), 1)]
        return [str(name) for name in self._frame.columns], rows


class Frames(Listed):
    """Recordings ``(C, L)``, each a DataFrame with one column per channel and one row per time step.

    Args:
        frames: The DataFrames.
        label: Name of the list in error messages.
        columns: The columns that are channels; empty: all with numbers, except a first one
            called ``time``, ``timestamp``, ``date`` or ``t``.

    Raises:
        DataError: One lacks a column.
    """

    def __init__(self, frames: Sequence[Any], label: str, columns: Sequence[str]) -> None:
        names = [str(name) for name in frames[0].columns]
        kinds = [getattr(kind, 'kind', 'O') for kind in frames[0].dtypes]
        numeric = [name for name, kind in zip(names, kinds, strict=True) if kind in 'biuf']
        self.columns = list(columns) or [name for name in numeric if name != time_column(names)]
        super().__init__(
            [self._values(frame, f'{label}[{number}]') for number, frame in enumerate(frames)],
            [f'{label}[{number}]' for number in range(len(frames))],
        )

    def _values(self, frame: Any, name: str) -> Array:
        places = {str(column): place for place, column in enumerate(frame.columns)}
        absent = [column for column in self.columns if column not in places]
        if absent or not self.columns:
            raise DataError(f'{name}: no column {absent or "of numbers is left"}; its columns are {list(places)}')
        return np.stack([np.asarray(frame.iloc[:, places[column]], np.float64) for column in self.columns])
