"""Series of the UCR and UEA archives (``.ts``): many in a file, each with its class or its quantity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdnc.training.data.reader import Array, DataError
from mdnc.training.data.table import read_text


@dataclass(frozen=True)
class Series:
    """What a file holds.

    Args:
        samples: The series, ``(C, L)`` each, NaN where a value is missing.
        targets: The name of the class of each, or its quantity; None where the file says nothing of them.
    """

    samples: list[Array]
    targets: Array | None


def _flag(header: dict[str, Sequence[str]], name: str) -> bool:
    return bool(header.get(name)) and header[name][0].lower() == 'true'


def _sample(dimensions: Sequence[str]) -> Array:
    rows = [
        [np.nan if value.strip() in ('?', 'NaN', 'nan') else float(value) for value in dimension.split(',')]
        for dimension in dimensions
    ]
    most = max(map(len, rows))
    return np.array([[*row, *[np.nan] * (most - len(row))] for row in rows], np.float32)


def read_ts(path: str) -> Series:
    """Read a file of series.

    Raises:
        DataError: It is no such file, is cut short, or its values have times of their own.
    """
    header: dict[str, Sequence[str]] = {}
    lines = read_text(path).splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.strip()
        if not words or words.startswith('#'):
            continue
        if '@data' in header:
            rows.append((number, words))
        elif words.startswith('@'):
            name, *values = words.split()
            header[name.lower()] = values
        else:
            raise DataError(
                f'{path}, line {number}: a .ts file has lines that begin with @, and its series after @data'
            )
    if not rows:
        raise DataError(f'{path} holds no series after a line @data')
    if _flag(header, '@timestamps'):
        raise DataError(f'{path}: values with times of their own (@timeStamps true) cannot be read')
    labelled = _flag(header, '@classlabel') or _flag(header, '@targetlabel')
    return _read(path, rows, labelled, _flag(header, '@targetlabel'))


def _read(path: str, rows: Sequence[tuple[int, str]], labelled: bool, quantities: bool) -> Series:
    samples, targets = [], []
    for number, row in rows:
        parts = row.split(':')
        try:
            targets.append(parts.pop().strip() if labelled else '')
            samples.append(_sample(parts))
        except ValueError as error:
            raise DataError(f'{path}, line {number}: {error}') from error
        if len(samples[-1]) != len(samples[0]):
            raise DataError(
                f'{path}, line {number}: it has {len(samples[-1])} dimensions, the first series {len(samples[0])}'
            )
    if not labelled:
        return Series(samples, None)
    return Series(samples, np.array(targets, np.float64) if quantities else np.array(targets))
