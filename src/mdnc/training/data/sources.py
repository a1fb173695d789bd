"""Readers of inputs and targets from paths, patterns, lists or arrays."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from reprlib import repr as short_repr
from typing import Any

import numpy as np

from mdnc.training.data.dataframes import Frames, FrameTable, is_frame, names_files, with_files
from mdnc.training.data.files import File, Kinds, find_files, list_files, suffix_of
from mdnc.training.data.folder import ARRAYS, IMAGES, MEMBERS, TABLES, Folder
from mdnc.training.data.hdf5 import open_hdf5
from mdnc.training.data.images import NUMBERS, SHOWN, PixelOptions
from mdnc.training.data.mat import open_mat_rows
from mdnc.training.data.memory import memory_reader, memory_rows
from mdnc.training.data.npy import open_npy, open_npz
from mdnc.training.data.pairing import in_one_order, refuse_repeated, stacked
from mdnc.training.data.path_parts import PathParts, is_path_part
from mdnc.training.data.plugins import own_formats
from mdnc.training.data.reader import DataError, Joined, Listed, Reader, Rows
from mdnc.training.data.table import Table
from mdnc.training.data.torch_datasets import is_dataset, open_dataset
from mdnc.training.data.ts import read_ts
from mdnc.training.data.zarr import open_zarr

# Formats with many samples per file, along the first axis of an array.
ROW_FORMATS: dict[str, Callable[[str, str], Any]] = {
    '.npy': open_npy,
    '.npz': open_npz,
    '.h5': open_hdf5,
    '.hdf5': open_hdf5,
    '.zarr': open_zarr,
}


def known_kinds(apart: bool | None = None) -> Kinds:
    """Kinds of files by suffix, with those of plug-ins.

    Args:
        apart: Whether tables are one sample each; None: in folders.
    """
    samples = (*ARRAYS, *IMAGES, *own_formats())
    return Kinds(samples, (*ROW_FORMATS, '.mat', '.ts'), TABLES, (*TABLES, *MEMBERS), apart)


def holds_tables(location: object) -> bool:
    """Whether a location is a folder of tables, each of which is a sample."""
    path = str(location).partition('::')[0] if isinstance(location, str | os.PathLike) else ''
    return os.path.isdir(path) and known_kinds().inside(path)[0].suffix in TABLES


Location = str | Sequence[str] | np.ndarray | Reader
_LEGAL = 'a path, a pattern, a list of these, an array (N, ...), a list of arrays, one per sample, or a torch Dataset'


@dataclass(frozen=True)
class Pair:
    """Inputs and, if there are any, their targets in the same order."""

    inputs: Reader
    targets: Reader | None = None

    def __post_init__(self) -> None:
        if not len(self.inputs):
            raise DataError('inputs: there are no samples')
        if self.targets is not None and len(self.inputs) != len(self.targets):
            first = f' (the first is {self.targets.name(0)})' if len(self.targets) else ''
            raise DataError(
                f'there are {len(self.inputs)} inputs (the first is {self.inputs.name(0)}) '
                f'but {len(self.targets)} targets{first}'
            )


@dataclass(frozen=True)
class Role:
    """What a location is used for.

    Args:
        name: Name of the argument, for errors.
        look: How the pixels of images are read.
        columns: Columns of tables if the location names none.
        without: Columns of tables that are ignored if the location names none.
        apart: Whether each table is one sample; None: in folders.
        answers: Whether to read targets, from files with both.
    """

    name: str = 'data'
    look: PixelOptions = SHOWN
    columns: Sequence[str] = ()
    without: Sequence[str] = ()
    apart: bool | None = None
    answers: bool = False


def open_reader(location: Location, role: Role = Role()) -> Reader:
    """Open a location.

    Args:
        location: ``'x.npy'``, ``'runs.npz::x'``, ``'runs.h5::group/x'``, ``'runs.zarr::x'`` (samples along the first
            axis), ``'labels.csv::column,column'``, a folder (one sample per file: NPY, images, volumes, recordings), a
            pattern such as ``'run_*.h5::x'``, ``'*_t1.nii + *_t2.nii'`` (stacked as channels) or a list of such
            strings (one after the other), an array ``(N, ...)``, a list of arrays or DataFrames, one per sample, a
            torch `Dataset`, or a reader.
        role: What it is used for.

    Raises:
        FileNotFoundError: A file does not exist.
        DataError: The file cannot be read in the format of its name, or lacks the member.
        TypeError: The location has another type.
    """
    if isinstance(location, Reader) and not isinstance(location, type):
        return location
    texts = [location] if isinstance(location, str | os.PathLike) else location
    if isinstance(texts, list | tuple) and not len(texts):
        raise DataError(f'{role.name}: the list of data files is empty')
    if isinstance(texts, list | tuple) and all(isinstance(text, str | os.PathLike) for text in texts):
        return _open_texts([os.fspath(text) for text in texts], role)
    if is_dataset(location):
        return open_dataset(location)[0]
    if role.answers and names_files(location):
        return FrameTable(location, role.columns, role.without)
    if isinstance(location, list | tuple) and all(map(is_frame, location)):
        return Frames(location, 'array', role.columns)
    try:
        return memory_reader(location)
    except TypeError as error:
        raise TypeError(f'{role.name} must be {_LEGAL}; {error}') from error
    except ValueError as error:
        raise DataError(f'{role.name} must be {_LEGAL}; {error}') from error


def _summands(text: str) -> list[str]:
    return [text] if os.path.exists(text) else text.split(' + ')


def _open_texts(texts: list[str], role: Role) -> Reader:
    parts = [_summands(text) for text in texts]
    if len({len(each) for each in parts}) > 1:
        raise DataError(f"{role.name}: all strings of a list must join the same number of files with ' + ': {texts}")
    readers = [_open_files(_listed([each[place] for each in parts], role), role) for place in range(len(parts[0]))]
    return readers[0] if len(readers) == 1 else stacked(readers, role.name)


def _listed(texts: list[str], role: Role) -> list[File]:
    try:
        return list_files([find_files(text, role.name, known_kinds(role.apart)) for text in texts])
    except FileNotFoundError as error:
        if len(texts) == 1:
            raise
        raise FileNotFoundError(
            f'{error}; class names, one per sample, must be given as an array: np.array({short_repr(texts)})'
        ) from error


def _open_files(files: list[File], role: Role) -> Reader:
    if all(file.sample for file in files):
        return Folder(files, role.look, role.columns)
    readers: list[Reader] = []
    for file in files:
        readers.append(Folder([file], role.look, role.columns) if file.sample else _open_file(file, role))
        # The columns of further tables may be in another order.
        role = replace(role, columns=role.columns or table_columns(readers[0]))
    _settle([reader for reader in readers if isinstance(reader, Table)])
    return readers[0] if len(readers) == 1 else Joined(readers, files)


def _settle(tables: Sequence[Table]) -> None:
    other = next((table for table in tables if table.columns != tables[0].columns), None)
    if other is not None:
        raise DataError(f'{tables[0].path} has the columns {tables[0].columns}, but {other.path} has {other.columns}')
    kinds = {table.kind: table for table in tables}
    if len(kinds) > 1 and 'names' in kinds:
        numbers = next(table for kind, table in kinds.items() if kind != 'names')
        raise DataError(f'{kinds["names"].path} contains words, but {numbers.path} contains numbers')
    for table in tables:
        # Whole numbers in one file and fractions in another are the same quantity.
        table.kind = table.kind if len(kinds) == 1 else 'numbers'


def _array_or_list(opened: Any, file: File) -> Reader:
    if not isinstance(opened, list):
        return Rows(partial(open_mat_rows, file.path, file.member), file.label)
    return Listed(opened, [f'{file.label}[{number}]' for number in range(len(opened))], file.name)


def _series(file: File, role: Role) -> Reader:
    found, member = read_ts(file.path), file.member or ('y' if role.answers else 'x')
    if member == 'x':
        return Listed(found.samples, [f'{file.name}[{number}]' for number in range(len(found.samples))], file.name)
    if member != 'y' or found.targets is None:
        raise DataError(
            f'{file.path} contains x, the series{"" if found.targets is None else ", and y, their targets"}'
        )
    return memory_rows(found.targets, file.name)


def _open_file(file: File, role: Role) -> Reader:
    suffix = file.suffix
    try:
        if suffix in TABLES:
            return Table(file.path, file.member or role.columns, file.name, role.without)
        if suffix == '.mat':
            return _array_or_list(open_mat_rows(file.path, file.member), file)
        if suffix == '.ts':
            return _series(file, role)
        return Rows(partial(ROW_FORMATS[suffix], file.path, file.member), file.label)
    except (DataError, ImportError):
        raise
    except Exception as error:  # the library of each format has its own errors
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise DataError(f'{file.path} cannot be read: {reason}') from error


def table_columns(reader: Reader | None) -> list[str]:
    """The columns of a reader, if it reads tables."""
    first = reader.readers[0] if isinstance(reader, Joined) else reader
    return first.columns if isinstance(first, Table | Folder | Frames) else []


def _texts(location: Any) -> list[str]:
    if is_path_part(location):
        return []
    texts = location if isinstance(location, list | tuple) else [location]
    named = [os.fspath(text) for text in texts if isinstance(text, str | os.PathLike)]
    return [part for text in named for part in _summands(text)]


def _may_be_table(path: str) -> bool:
    suffix = suffix_of(path)
    return suffix in TABLES or any(mark in suffix for mark in '*?[')


def written_columns(location: Any) -> list[str]:
    """The columns that a location names after the ``::`` of a table."""
    members = [text.partition('::')[::2] for text in _texts(location)]
    tables = [member for path, member in members if member and (_may_be_table(path) or not suffix_of(path))]
    return [column.strip() for member in tables for column in member.split(',')]


def _table_paths(location: Any, role: str) -> set[str]:
    paths = [text.partition('::')[0] for text in _texts(location)]
    found = [
        file.path
        for path in paths
        if _may_be_table(path) and not os.path.isdir(path)
        for file in find_files(path, role, known_kinds()).files
    ]
    return {os.path.realpath(path) for path in found if suffix_of(path) in TABLES}


@dataclass(frozen=True)
class ReadOptions:
    """How files are read.

    Args:
        inputs: How the pixels of input images are read.
        targets: The same for targets.
        columns: The input columns of tables, if the location names none.
        apart: Whether each table is one sample; None: in folders.
        ahead: Whether targets are future values: then a column may be both input and target.
    """

    inputs: PixelOptions = SHOWN
    targets: PixelOptions = NUMBERS
    columns: Sequence[str] = ()
    apart: bool | None = None
    ahead: bool = False


AS_IT_IS = ReadOptions()


def _apart(targets: Location, source: Reader, how: ReadOptions) -> bool | None:
    # One table for many recordings describes them; one for each is a recording itself.
    texts = _texts(targets)
    lone = texts[0].partition('::')[0] if len(texts) == 1 else ''
    if not how.apart or not os.path.isfile(lone) or not isinstance(source, Folder):
        return how.apart
    return True if [os.path.realpath(file.path) for file in source.files] == [os.path.realpath(lone)] else None


def _without_each_other(source: Reader, wanted: Reader, named: tuple[bool, bool]) -> tuple[Reader, Reader]:
    """Input and target series from the same files, each without the columns named for the other."""
    if not isinstance(source, Folder) or not isinstance(wanted, Folder):
        return source, wanted
    if [file.path for file in source.files] != [file.path for file in wanted.files]:
        return source, wanted
    if named[1] and not named[0]:
        return source.without(wanted.columns), wanted
    return source, wanted.without(source.columns) if named[0] and not named[1] else wanted


def open_pair(
    inputs: Location, targets: Location | None, like: Pair | None = None, how: ReadOptions = AS_IT_IS
) -> Pair:
    """Open inputs and targets, and match them by name if they have names.

    Files are paired by their path below the given one, without suffix; if these differ, by what the wildcards match or
    by their position in a list. Columns of a table with both are either inputs or targets.

    Args:
        inputs: See `open_reader`.
        targets: The same; or ``'folder'``, ``'folder::1'`` or ``'path::PATTERN'``, the part of a file's path that is
            the name of its class; None where there are none.
        like: A pair with tables that determine the columns if the location names none.
        how: How files are read.
    """
    known = [table_columns(reader) for reader in ((like.inputs, like.targets) if like else ())] or [[], []]
    known[0] = known[0] or list(how.columns)
    given, left = (written_columns(location) for location in (inputs, targets))
    shared = set() if how.apart else _table_paths(inputs, 'inputs') & _table_paths(targets, 'targets')
    if shared and not any((given, left, *known)):
        raise DataError(
            f'{min(shared)} contains inputs and targets: name the columns of one of them, as in {targets}::COLUMN'
        )
    source = open_reader(inputs, Role('inputs', how.inputs, known[0], left if shared else (), how.apart))
    refuse_repeated(source)
    if targets is None and is_dataset(inputs):
        return Pair(*open_dataset(inputs))
    targets = with_files(targets) if isinstance(source, Folder) else targets
    if targets is None or is_path_part(targets):
        return Pair(source, None if targets is None else PathParts(source, str(targets)))
    role = Role('targets', how.targets, known[1], given if shared else (), _apart(targets, source, how), True)
    source, wanted = in_one_order(source, open_reader(targets, role))
    if not how.ahead:
        source, wanted = _without_each_other(source, wanted, (bool(given or known[0]), bool(left or known[1])))
    return Pair(source, wanted)


def input_columns(inputs: Any, targets: Any, how: ReadOptions = AS_IT_IS) -> list[str]:
    """The input columns of tables in training, for new inputs, if these tables still exist."""
    try:
        if _texts(inputs) and (found := table_columns(open_pair(inputs, targets, how=how).inputs)):
            return found
    except (DataError, OSError):
        pass
    return written_columns(inputs)
