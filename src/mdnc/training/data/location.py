"""From what a user writes (a path, a pattern, a list, an array) to readers of inputs and targets."""

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mdnc.training.data.folder import SAMPLE_FORMATS, Folder
from mdnc.training.data.hdf5 import open_hdf5
from mdnc.training.data.npy import open_npy, open_npz
from mdnc.training.data.reader import DataError, Joined, Reader, Rows
from mdnc.training.data.table import Table
from mdnc.training.data.zarr import open_zarr

# Formats whose files hold many samples, along the first axis of an array.
ROW_FORMATS: dict[str, Callable[[str, str], Any]] = {
    '.npy': open_npy,
    '.npz': open_npz,
    '.h5': open_hdf5,
    '.hdf5': open_hdf5,
    '.zarr': open_zarr,
}
Location = str | Sequence[str] | np.ndarray | Reader


@dataclass(frozen=True)
class Pair:
    """Inputs and, where there are some, the targets that belong to them, in the same order."""

    inputs: Reader
    targets: Reader | None = None

    def __post_init__(self) -> None:
        if self.targets is not None and len(self.inputs) != len(self.targets):
            raise DataError(
                f'there are {len(self.inputs)} inputs (the first is {self.inputs.name(0)}) '
                f'but {len(self.targets)} targets (the first is {self.targets.name(0)})'
            )


def _held(array: np.ndarray) -> np.ndarray:
    return array


def memory_rows(array: Any, label: str = 'array') -> Rows:
    """A reader over an array in memory, samples along the first axis."""
    return Rows(partial(_held, np.asarray(array)), label)


def open_reader(location: Location) -> Reader:
    """Open what a location names.

    Args:
        location: ``'x.npy'``, ``'runs.npz::x'``, ``'runs.h5::group/x'``, ``'runs.zarr::x'`` (samples along the first
            axis), ``'labels.csv::column,column'``, a folder (one sample a file: NPY, PNG, JPEG, TIFF), a pattern such
            as ``'run_*.h5::x'`` or a list of such texts (one after the other), an array ``(N, ...)``, or a reader.

    Raises:
        FileNotFoundError: Nothing has that name.
        DataError: The file cannot be read as what its name says, or lacks the member.
    """
    if isinstance(location, Reader):
        return location
    texts = [location] if isinstance(location, str | os.PathLike) else location
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str | os.PathLike) for text in texts):
        return memory_rows(location)
    return _as_one([_open_text(os.fspath(text)) for text in texts])


def _as_one(readers: Sequence[Reader]) -> Reader:
    if not readers:
        raise DataError('the list of data files is empty')
    return readers[0] if len(readers) == 1 else Joined(readers)


def _open_text(text: str) -> Reader:
    pattern, _, member = text.partition('::')
    paths = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise FileNotFoundError(f'data: no file or folder is called {pattern!r} (seen from {os.getcwd()})')
    suffix = Path(paths[0]).suffix.lower()
    if member and (suffix == '.npy' or suffix in SAMPLE_FORMATS or not suffix):
        raise DataError(f'{text}: files of this kind hold one array; ::{member} has no meaning')
    if suffix in SAMPLE_FORMATS and suffix not in ROW_FORMATS:
        return Folder(paths)
    return _as_one([_open_path(path, member) for path in paths])


def _open_path(path: str, member: str) -> Reader:
    suffix = Path(path).suffix.lower()
    try:
        if suffix == '.csv':
            return Table(path, member)
        if suffix in ROW_FORMATS:
            return Rows(partial(ROW_FORMATS[suffix], path, member), Path(path).name + (f'::{member}' if member else ''))
    except (DataError, ImportError):
        raise
    except Exception as error:  # each format's library has errors of its own
        raise DataError(f'{path} cannot be read: {error}') from error
    if os.path.isdir(path):
        return Folder.of(path)
    kinds = ', '.join([*ROW_FORMATS, '.csv', *SAMPLE_FORMATS])
    raise DataError(f'{path}: unknown kind of file; known are {kinds}, and a folder of {", ".join(SAMPLE_FORMATS)}')


def open_pair(inputs: Location, targets: Location | None) -> Pair:
    """Open inputs and targets, and bring those that have names of their own into one order."""
    source = open_reader(inputs)
    if targets is None:
        return Pair(source)
    wanted = open_reader(targets)
    if isinstance(wanted, Table) and wanted.files is not None:
        if not isinstance(source, Folder):
            raise DataError(f'{wanted.file(0)} names files, so the inputs must be a folder or a pattern of such files')
        source = _ordered(source, wanted.files, wanted.file(0))
    if isinstance(source, Folder) and isinstance(wanted, Folder):
        _same_names(source, wanted)
    return Pair(source, wanted)


def _ordered(folder: Folder, files: list[str], table: str) -> Folder:
    by_name = {path.name: path for path in folder.paths} | {path.stem: path for path in folder.paths}
    absent = [file for file in files if Path(file).name not in by_name]
    paths = [by_name[Path(file).name] for file in files if Path(file).name in by_name]
    spare = sorted({path.name for path in folder.paths} - {path.name for path in paths})
    if absent or spare:
        raise DataError(
            f'{table} and {folder.paths[0].parent} do not fit: {len(absent)} rows without a file {absent[:3]}, '
            f'{len(spare)} files without a row {spare[:3]}'
        )
    return Folder(paths)


def _same_names(inputs: Folder, targets: Folder) -> None:
    for first, second in zip(inputs.paths, targets.paths, strict=False):
        if first.stem != second.stem:
            raise DataError(f'inputs and targets are paired by name, but {first} stands beside {second}')
