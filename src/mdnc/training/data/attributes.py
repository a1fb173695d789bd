"""Attributes of samples: from a column of a table, or from a part of the path of the file."""

from collections.abc import Sequence

from mdnc.training.data.files import suffix_of
from mdnc.training.data.folder import TABLES, Folder
from mdnc.training.data.pairing import in_one_order
from mdnc.training.data.path_parts import is_path_part, path_part
from mdnc.training.data.reader import DataError, Joined, Reader
from mdnc.training.data.sources import Pair, Role, open_reader
from mdnc.training.data.table import Table


def _tables(reader: Reader | None) -> list[Table]:
    parts = reader.readers if isinstance(reader, Joined) else (reader,)
    return [part for part in parts if isinstance(part, Table)]


def _cells(tables: Sequence[Table], column: str) -> list[str]:
    return [cell for table in tables for cell in table.cells(column)]


def _aligned(inputs: Reader, text: str, argument: str) -> list[str]:
    wanted = open_reader(text, Role(f'split.{argument}'))
    moved, wanted = in_one_order(inputs, wanted)
    tables = _tables(wanted)
    if not tables or len(tables[0].columns) != 1:
        raise DataError(f'split.{argument}={text!r} must name one column of a table, as in PATH::COLUMN')
    cells = _cells(tables, tables[0].columns[0])
    if len(cells) != len(inputs):
        raise DataError(f'split.{argument}={text!r} has {len(cells)} rows, but there are {len(inputs)} samples')
    if moved is inputs or not isinstance(moved, Folder) or not isinstance(inputs, Folder):
        return cells
    rows = {file.path: cell for file, cell in zip(moved.files, cells, strict=True)}
    return [rows[file.path] for file in inputs.files]


def _known(pair: Pair, column: str) -> list[Table] | None:
    held = (_tables(reader) for reader in (pair.targets, pair.inputs))
    return next((tables for tables in held if tables and all(column in table.header for table in tables)), None)


def is_attribute(pair: Pair, text: str) -> bool:
    """Whether a string names an attribute of samples, rather than another file."""
    table = suffix_of(text.partition('::')[0]) in TABLES
    return is_path_part(text) or table or _known(pair, text) is not None


def attribute(pair: Pair, text: str, argument: str) -> list[str]:
    """The attribute of each sample of a pair.

    Args:
        pair: The samples and their targets.
        text: ``'TABLE::COLUMN'``, a column of the tables that hold targets or inputs, or a part of paths as
            `mdnc.training.data.path_parts.path_part` takes it.
        argument: Name of the argument of `Split`, for errors.

    Raises:
        DataError: The attribute does not exist, or one sample has none.
    """
    inputs = pair.inputs
    if is_path_part(text):
        return [path_part(text, inputs.file(number)) for number in range(len(inputs))]
    if not is_attribute(pair, text):
        columns = [name for reader in (pair.targets, inputs) for table in _tables(reader)[:1] for name in table.header]
        raise DataError(
            f'split.{argument}={text!r} is not a column of the tables of the data '
            f'({columns or "there are none"}); it may '
            "also be 'TABLE.csv::COLUMN', 'folder', 'folder::1' or 'path::PATTERN'"
        )
    known = _known(pair, text)
    found = _aligned(inputs, text, argument) if known is None else _cells(known, text)
    empty = next((number for number, word in enumerate(found) if not word), None)
    if empty is not None:
        raise DataError(f'split.{argument}={text!r} has no value for {inputs.name(empty)}: its cell is empty')
    return found
