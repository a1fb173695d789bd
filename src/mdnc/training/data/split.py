"""Division of samples into training, validation and test."""

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction

import numpy as np

from mdnc._extras import require
from mdnc.modules._checks import integer
from mdnc.training.augmentation.augmentation import share
from mdnc.training.data.reader import DataError, Reader

PARTS = ('train', 'val', 'test')


def _fraction_or_patterns(name: str, value: object) -> float | list[str]:
    patterns = value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value
    if isinstance(patterns, Sequence) and not isinstance(patterns, str | bytes):
        if patterns and all(isinstance(pattern, str) and pattern for pattern in patterns):
            return [str(pattern) for pattern in patterns]
    else:
        try:
            return share('Split', name, value)
        except (TypeError, ValueError):
            pass
    error = ValueError if isinstance(value, int | float | str) and not isinstance(value, bool) else TypeError
    raise error(f'Split: {name}={value!r} must be a fraction in [0, 1) or a list of file patterns.')


@dataclass(frozen=True)
class Split:
    """How samples are divided; those neither in ``val`` nor in ``test`` are for training.

    A string in ``given``, ``group`` and ``stratify`` names an attribute of each sample: ``'labels.csv::patient'`` (a
    column of a table), ``'patient'`` (a column of the tables of targets or inputs), ``'folder'`` (the folder of its
    file), ``'folder::1'`` (the first folder below the given path) or ``'path::PATTERN'`` (the group of a regular
    expression in its path).

    Args:
        val: Fraction of the samples in [0, 1), drawn at random; or patterns of file names, such as ``run_7.*``, or of
            paths below the given one, such as ``patient_3/*``.
        test: The same for the test.
        given: NPZ file with the sample numbers, or true and false for each sample, in arrays ``train``, ``val`` and
            ``test``, used instead of both; or an attribute as for ``group`` with the values ``train``, ``val`` or
            ``test``.
        seed: Seed of the random draw. It is separate from the seed of training, so that runs with different
            seeds can be compared on the same test part.
        group: Attribute of samples that must be in the same part if it is equal: ``'labels.csv::patient'``,
            ``'patient'``, ``'folder'``, ``'folder::1'`` or ``'path::PATTERN'``.
        stratify: Attribute that should be equally frequent in all parts: true, the classes of the targets, or as for
            ``group``.
        folds: Number of folds for cross-validation, at least 2, one of which is the test.
        fold: Which fold is the test, counted from 0.
        time: Whether to divide in order of time: the first samples are for training, the next for validation, the last
            for the test; applied to samples in their order, or to each recording that is cut into windows. None: if
            there is a horizon, or windows of a single recording.

    Example:
        >>> import numpy as np
        >>> from mdnc.training import ArrayData, Split
        >>> data = ArrayData(np.zeros((40, 1, 32)), np.arange(40) % 2, split=Split(val=0.25, test=0.25, stratify=True))
        >>> data.setup()
        >>> len(data.train), len(data.val), len(data.test)
        (20, 10, 10)
    """

    val: float | list[str] = 0.1
    test: float | list[str] = 0.1
    given: str | None = None
    seed: int = 0
    group: str | None = None
    stratify: bool | str = False
    folds: int | None = None
    fold: int = 0
    time: bool | None = None

    def __post_init__(self) -> None:
        # Stored as plain values, whatever was given.
        object.__setattr__(self, 'val', _fraction_or_patterns('val', self.val))
        object.__setattr__(self, 'test', _fraction_or_patterns('test', self.test))
        object.__setattr__(self, 'seed', integer('Split', 'seed', self.seed, minimum=0))
        object.__setattr__(self, 'fold', integer('Split', 'fold', self.fold, minimum=0))
        if self.given is not None and not isinstance(self.given, str | os.PathLike):
            raise TypeError(f'Split: given={self.given!r} must be the path of an NPZ file, or None.')
        for name in ('group', 'stratify'):
            value = getattr(self, name)
            if not (isinstance(value, str) and value) and value not in ((None,) if name == 'group' else (False, True)):
                raise TypeError(f'Split: {name}={value!r} must be {_TEXTS[name]}.')
        if self.time not in (None, True, False):
            raise TypeError(f'Split: time={self.time!r} must be True, False or None.')
        self._check_folds()
        self._check_together()

    def _check_folds(self) -> None:
        if self.folds is None:
            if self.fold:
                raise ValueError(f'Split: fold={self.fold!r} needs folds, the number of folds.')
            return
        object.__setattr__(self, 'folds', integer('Split', 'folds', self.folds, minimum=2))
        if self.fold >= self.folds:
            raise ValueError(f'Split: fold={self.fold!r} must be below folds={self.folds!r}, since it counts from 0.')
        if isinstance(self.test, list):
            raise ValueError(f'Split: folds={self.folds!r} determine the test, so test={self.test!r} cannot be given.')

    def _check_together(self) -> None:
        ways = {'group': self.group, 'stratify': self.stratify, 'folds': self.folds}
        other = next((name for name, value in ways.items() if value), None)
        if other is not None and (self.given is not None or self.time):
            first = 'given' if self.given is not None else 'time'
            raise ValueError(f'Split: {first}={getattr(self, first)!r} and {other}={ways[other]!r} exclude each other.')


_TEXTS = {
    'group': "a string that names a column or a part of paths, such as 'labels.csv::patient' or 'folder', or None",
    'stratify': (
        "True, False or a string that names a column or a part of paths, such as 'labels.csv::site' or 'folder'"
    ),
}


@dataclass(frozen=True)
class SampleAttributes:
    """Attributes of each sample that a `Split` uses; None if it names none.

    Args:
        part: Name of its part.
        group: Its group, which must not be divided.
        stratum: Its stratum, to be equally frequent in all parts.
    """

    part: Sequence[str] | None = None
    group: Sequence[str] | None = None
    stratum: Sequence[str] | None = None


NOTHING = SampleAttributes()


def split_samples(reader: Reader, split: Split, told: SampleAttributes = NOTHING) -> dict[str, np.ndarray]:
    """Sample numbers of each part, each in ascending order.

    Raises:
        DataError: A part has all samples, a pattern matches no file, or given numbers overlap or do not exist.
    """
    if told.part is not None:
        return _named_parts(told.part, reader)
    if split.given is not None:
        return _given(split.given, len(reader))
    numbers = np.arange(len(reader))
    drawn = numbers[::-1] if split.time else np.random.default_rng(split.seed).permutation(numbers)
    if split.folds is not None:
        test = Draw(told, split.seed).fold(drawn, split.folds, split.fold)
    else:
        test = _take(reader, drawn, split.test, told, split)
    rest = drawn[~np.isin(drawn, test)]
    val = _take(reader, rest, split.val, told, split)
    train = np.setdiff1d(numbers, np.concatenate([test, val]))
    if len(train) == 0:
        raise DataError(f'none of {len(reader)} samples is left for training: val={split.val}, test={split.test}')
    _refuse_parted({'train': train, 'val': val, 'test': test}, told.group)
    return {'train': train, 'val': np.sort(val), 'test': np.sort(test)}


def _refuse_parted(parts: dict[str, np.ndarray], groups: Sequence[str] | None) -> None:
    homes: dict[str, str] = {}
    for part, numbers in parts.items():
        for number in numbers if groups is not None else ():
            assert groups is not None
            if homes.setdefault(groups[number], part) != part:
                raise DataError(
                    f'the patterns of split put group {groups[number]!r} into {homes[groups[number]]} and {part}'
                )


_PARTS = {'training': 'train', 'valid': 'val', 'validation': 'val', 'dev': 'val', 'testing': 'test'}


def _named_parts(words: Sequence[str], reader: Reader) -> dict[str, np.ndarray]:
    meant = [_PARTS.get(word.strip().lower(), word.strip().lower()) for word in words]
    strange = next((number for number, word in enumerate(meant) if word not in PARTS), None)
    if strange is not None:
        raise DataError(
            f'split: {reader.name(strange)} has the unknown part {words[strange]!r}; parts are called '
            f'{", ".join(PARTS)}'
        )
    parts = {part: np.array([number for number, word in enumerate(meant) if word == part], np.int64) for part in PARTS}
    if not len(parts['train']):
        raise DataError('split: no sample is in the part train')
    return parts


@dataclass(frozen=True)
class Draw:
    """Random draws that keep groups together and the frequencies of strata.

    Args:
        told: Groups and strata.
        seed: Seed for scikit-learn.
    """

    told: SampleAttributes
    seed: int

    def some(self, drawn: np.ndarray, count: int) -> np.ndarray:
        """About ``count`` of the samples, which are in random order."""
        if self.told.group is None:
            return drawn[:count] if self.told.stratum is None else self._in_proportion(drawn, count)
        groups = np.array(self.told.group)[drawn]
        if self.told.stratum is None:
            return drawn[np.isin(groups, _filling(groups, count))]
        most = min(20, len({*groups.tolist()}))
        if most < 2:
            raise DataError(f'split: a part cannot be drawn from one group ({str(groups[0])!r})')
        share = Fraction(count / len(drawn)).limit_denominator(most) or Fraction(1, most)
        return np.concatenate([self._dealt(drawn, share.denominator)[place] for place in range(share.numerator)])

    def fold(self, drawn: np.ndarray, folds: int, fold: int) -> np.ndarray:
        """One of several folds."""
        kinds = len(drawn) if self.told.group is None else len({*self.told.group})
        if folds > kinds:
            raise DataError(
                f'split: folds={folds}, but there are {kinds} {"samples" if self.told.group is None else "groups"}'
            )
        if self.told.group is not None:
            return self._dealt(drawn, folds)[fold]
        if self.told.stratum is not None:
            drawn = drawn[np.argsort(np.array(self.told.stratum)[drawn], kind='stable')]
        return drawn[fold::folds]

    def _in_proportion(self, drawn: np.ndarray, count: int) -> np.ndarray:
        strata = np.array(self.told.stratum)[drawn]
        names, sizes = np.unique(strata, return_counts=True)
        exact = sizes * count / len(drawn)
        taken = np.floor(exact).astype(int)
        taken[np.argsort(taken - exact, kind='stable')[: count - taken.sum()]] += 1
        return np.concatenate([drawn[strata == name][:number] for name, number in zip(names, taken, strict=True)])

    def _dealt(self, drawn: np.ndarray, folds: int) -> list[np.ndarray]:
        selection = require('sklearn.model_selection', 'data')
        strata = np.zeros(len(drawn)) if self.told.stratum is None else np.array(self.told.stratum)[drawn]
        if np.unique(strata, return_counts=True)[1].max() < folds:  # too rare to be in all parts
            strata = np.zeros(len(drawn))
        dealer = selection.StratifiedGroupKFold(folds, shuffle=True, random_state=self.seed)
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='The least populated class')
            parts = dealer.split(drawn, strata, np.array(self.told.group)[drawn])
            return [drawn[chosen] for _, chosen in parts]


def _filling(groups: np.ndarray, count: int) -> list[str]:
    """Groups, in this order, with about ``count`` samples together."""
    taken: list[str] = []
    total = 0
    for group, size in Counter(groups.tolist()).items():
        if not taken or abs(total + size - count) < abs(total - count):
            taken.append(group)
            total += size
    return taken


def _fits(file: str, pattern: str) -> bool:
    # A pattern without a folder applies to names in all folders.
    name = file if '/' in pattern else file.rpartition('/')[2]
    return fnmatchcase(name, pattern + '*' if pattern.endswith('/') else pattern)


def _take(
    reader: Reader, drawn: np.ndarray, share: float | list[str], told: SampleAttributes, split: Split
) -> np.ndarray:
    total = len(reader)
    if not isinstance(share, list):
        # At least one: a fraction must not round to an empty part.
        count = min(max(round(share * total), 1), len(drawn))
        return Draw(told, split.seed).some(drawn, count) if share else drawn[:0]
    files = [reader.file(index) for index in range(total)]
    for pattern in share:
        fitting = {file for file in set(files) if _fits(file, pattern)}
        if not fitting:
            raise DataError(
                f'the split pattern {pattern!r} matches no file; a file is called, for example, {files[0]!r}'
            )
        if not any(files[index] in fitting for index in drawn):
            raise DataError(f'the split pattern {pattern!r} matches only files of the test, such as {min(fitting)!r}')
    return np.array([i for i in drawn if any(_fits(files[i], pattern) for pattern in share)], int)


def _numbers(array: np.ndarray, path: str, total: int) -> np.ndarray:
    if array.ndim == 1 and array.dtype == bool and len(array) == total:
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.dtype.kind not in 'iu' and array.size):
        raise DataError(
            f'{path} must contain sample numbers, or true and false for each of {total}, not '
            f'{array.dtype} of shape {array.shape}'
        )
    return np.sort(array).astype(np.int64)


def _given(path: str, total: int) -> dict[str, np.ndarray]:
    if not os.path.isfile(path):
        raise FileNotFoundError(f'Split: file {os.fspath(path)!r} does not exist (relative to {os.getcwd()})')
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = {part: _numbers(file[part], path, total) for part in PARTS if part in file}
            held = list(file)
    except DataError:
        raise
    except Exception as error:  # NumPy and zipfile have errors of their own
        raise DataError(f'{path} is not an NPZ file with arrays {", ".join(PARTS)}') from error
    parts = {part: parts.get(part, np.arange(0)) for part in PARTS}
    every = np.concatenate(list(parts.values()))
    if len(parts['train']) == 0 or len(np.unique(every)) < len(every) or every.min() < 0 or every.max() >= total:
        raise DataError(
            f"{path} holds {', '.join(held) or 'nothing'}: 'train' must not be empty, and no number may occur twice or "
            f'be outside 0…{total - 1}'
        )
    return parts
