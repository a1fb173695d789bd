"""Names of classes: which there are, and which samples have none."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np

from mdnc.training.data.reader import DataError, Joined, Reader, class_name
from mdnc.training.data.sources import Pair
from mdnc.training.data.table import Table

Names = list[str] | None


def check_names(owner: str, names: Any, argument: str = 'classes', what: str = 'a class') -> list[str]:
    """Names of classes, or of columns, as a list of texts of its own.

    Raises:
        TypeError: They are no list of texts or whole numbers.
        ValueError: There is none, or one is empty or stands twice.
    """
    listed = names.tolist() if isinstance(names, np.ndarray) else names
    if not isinstance(listed, list | tuple) or any(
        isinstance(name, bool) or not isinstance(name, str | int | np.integer) for name in listed
    ):
        raise TypeError(f'{owner}: {argument}={names!r} must be a list of names, one {what}.')
    found = [str(name) for name in listed]
    if not found or '' in found or len(set(found)) < len(found):
        raise ValueError(f'{owner}: {argument}={names!r} must be a list of names, all different, one {what}.')
    return found


def read_names(reader: Reader | None) -> Names:
    """The name of each sample's class, empty where it has none; None where targets are not names.

    Raises:
        DataError: Some are names, and some are not.
    """
    if reader is None:
        return None
    try:
        if class_name(reader.read(0)) is None:
            return None
    except DataError as error:
        raise DataError(f'{reader.name(0)}: {error}') from error
    names = [class_name(reader.read(number)) for number in range(len(reader))]
    if None in names:
        raise DataError(f'{reader.name(names.index(None))} is no name of a class, as {names[0]!r} is')
    return [name for name in names if name is not None]


def find_classes(pairs: Mapping[str, Pair], names: Mapping[str, Names], given: Names) -> Names:
    """Names of the classes: those given, or those that targets hold, in ascending order.

    Raises:
        DataError: Some targets are names and some are not, or one is none of the given names.
    """
    held = [part for part, each in names.items() if each is not None]
    if not held:
        return given
    other = next((part for part, pair in pairs.items() if part not in held and pair.targets is not None), None)
    if other is not None:
        raise DataError(f'the targets of {held[0]} are names of classes, those of {other} are numbers')
    found = sorted({*chain.from_iterable(names[part] or () for part in held)} - {''})
    strange = sorted({*found} - {*(given or found)})
    if strange:
        part = next(part for part in held if strange[0] in (names[part] or ()))
        where = _target_name(pairs[part], (names[part] or []).index(strange[0]))
        raise DataError(f'{where}: its class {strange[0]!r} is none of {given}')
    return given or found


def _target_name(pair: Pair, number: int) -> str:
    return (pair.targets or pair.inputs).name(number)


def refuse_holes(pair: Pair, names: Names, skip: bool, missing: bool) -> None:
    """Refuse empty cells of tables, and samples without a class, where nobody says what they are.

    Args:
        pair: Inputs and targets.
        names: The classes of its samples, where targets are names.
        skip: Whether samples that are not whole are skipped.
        missing: Whether targets may have gaps.

    Raises:
        DataError: There is one; the text names its row.
    """
    if not skip:
        _refuse_empty(pair.inputs, 'nonfinite: skip leaves such samples out')
    if skip or missing or pair.targets is None:
        return
    advice = 'missing: true says that empty means "not known", to be left out'
    _refuse_empty(pair.targets, advice)
    if names is not None and '' in names:
        raise DataError(f'{pair.targets.name(names.index(""))}: the name of the class is empty ({advice})')


def _refuse_empty(reader: Reader, advice: str) -> None:
    for table in reader.readers if isinstance(reader, Joined) else (reader,):
        row = table.hole() if isinstance(table, Table) else None
        if row is not None and isinstance(table, Table):
            raise DataError(f'{table.name(row)}: a cell of {", ".join(table.columns)} is empty ({advice})')


def _given(reader: Reader) -> np.ndarray:
    parts = reader.readers if isinstance(reader, Joined) else (reader,)
    return np.concatenate([part.given() if isinstance(part, Table) else np.ones(len(part), bool) for part in parts])


def with_target(pair: Pair, names: Names) -> np.ndarray:
    """Numbers of the samples of whose target something is known: a class, or a cell of a row."""
    if names is not None:
        return np.array([number for number, name in enumerate(names) if name], np.int64)
    if pair.targets is None:
        return np.arange(len(pair.inputs))
    return np.flatnonzero(_given(pair.targets))
