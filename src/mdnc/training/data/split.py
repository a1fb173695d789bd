"""Which samples train, which choose (validation), and which are kept for the test."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from mdnc.modules._checks import integer
from mdnc.training.augmentation.words import share
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
    """How samples are divided; what neither ``val`` nor ``test`` takes is for training.

    Args:
        val: Fraction of the samples in [0, 1), drawn at random; or patterns of file names, such as ``run_7.*``, or of
            paths below what was named, such as ``patient_3/*``.
        test: The same, for the test.
        given: NPZ file with the sample numbers, or true and false for each sample, in arrays ``train``, ``val`` and
            ``test``, used instead of both.
        seed: Seed of the random draw. It is apart from the seed of training, so that runs that differ in theirs
            can be compared on the same test part.
    """

    val: float | list[str] = 0.1
    test: float | list[str] = 0.1
    given: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        # What is recorded is plain, whatever it was given as.
        object.__setattr__(self, 'val', _fraction_or_patterns('val', self.val))
        object.__setattr__(self, 'test', _fraction_or_patterns('test', self.test))
        object.__setattr__(self, 'seed', integer('Split', 'seed', self.seed, minimum=0))
        if self.given is not None and not isinstance(self.given, str | os.PathLike):
            raise TypeError(f'Split: given={self.given!r} must be the path of an NPZ file, or None.')


def split_samples(reader: Reader, split: Split) -> dict[str, np.ndarray]:
    """Sample numbers of each part, each in ascending order.

    Raises:
        DataError: A part takes all samples, a pattern fits no file, or given numbers overlap or do not exist.
    """
    if split.given is not None:
        return _given(split.given, len(reader))
    numbers = np.arange(len(reader))
    drawn = np.random.default_rng(split.seed).permutation(numbers)
    test = _take(reader, drawn, split.test, len(reader))
    rest = drawn[~np.isin(drawn, test)]
    val = _take(reader, rest, split.val, len(reader))
    train = np.setdiff1d(numbers, np.concatenate([test, val]))
    if len(train) == 0:
        raise DataError(f'no sample of {len(reader)} is left for training: val={split.val}, test={split.test}')
    return {'train': train, 'val': np.sort(val), 'test': np.sort(test)}


def _fits(file: str, pattern: str) -> bool:
    # A pattern without a folder is one of names, wherever the file lies.
    name = file if '/' in pattern else file.rpartition('/')[2]
    return fnmatchcase(name, pattern + '*' if pattern.endswith('/') else pattern)


def _take(reader: Reader, drawn: np.ndarray, share: float | list[str], total: int) -> np.ndarray:
    if not isinstance(share, list):
        # At least one: a fraction that rounds to nothing would leave a part empty that the user asked for.
        return drawn[: max(round(share * total), 1)] if share else drawn[:0]
    files = [reader.file(index) for index in range(total)]
    for pattern in share:
        fitting = {file for file in set(files) if _fits(file, pattern)}
        if not fitting:
            raise DataError(f'the split pattern {pattern!r} fits no file; there is, for example, {files[0]!r}')
        if not any(files[index] in fitting for index in drawn):
            raise DataError(f'the split pattern {pattern!r} fits only files of the test, such as {min(fitting)!r}')
    return np.array([i for i in drawn if any(_fits(files[i], pattern) for pattern in share)], int)


def _numbers(array: np.ndarray, path: str, total: int) -> np.ndarray:
    if array.ndim == 1 and array.dtype == bool and len(array) == total:
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.dtype.kind not in 'iu' and array.size):
        raise DataError(
            f'{path} must hold whole numbers of samples, or true and false for each of {total}, not '
            f'{array.dtype} of shape {array.shape}'
        )
    return np.sort(array).astype(np.int64)


def _given(path: str, total: int) -> dict[str, np.ndarray]:
    if not os.path.isfile(path):
        raise FileNotFoundError(f'Split: no file is called {os.fspath(path)!r} (seen from {os.getcwd()})')
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = {part: _numbers(file[part], path, total) for part in PARTS if part in file}
            held = list(file)
    except DataError:
        raise
    except Exception as error:  # NumPy and zipfile have errors of their own
        raise DataError(f'{path} is no NPZ file with arrays {", ".join(PARTS)}') from error
    parts = {part: parts.get(part, np.arange(0)) for part in PARTS}
    every = np.concatenate(list(parts.values()))
    if len(parts['train']) == 0 or len(np.unique(every)) < len(every) or every.min() < 0 or every.max() >= total:
        raise DataError(
            f"{path} holds {', '.join(held) or 'nothing'}: 'train' must not be empty, and no number may stand twice or "
            f'be outside 0…{total - 1}'
        )
    return parts
