"""Which samples train, which choose (validation), and which are kept for the test."""

from dataclasses import dataclass
from fnmatch import fnmatch

import numpy as np

from mdnc.training.data.reader import DataError, Reader

PARTS = ('train', 'val', 'test')


@dataclass(frozen=True)
class Split:
    """How samples are divided; what neither ``val`` nor ``test`` takes is for training.

    Args:
        val: Fraction of the samples in [0, 1), drawn at random; or patterns of file names such as ``run_7.*``.
        test: The same, for the test.
        given: NPZ file with the sample numbers in arrays ``train``, ``val`` and ``test``, used instead of both.
        seed: Seed of the random draw. It is apart from the seed of training, so that runs that differ in theirs
            can be compared on the same test part.
    """

    val: float | list[str] = 0.1
    test: float | list[str] = 0.1
    given: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (('val', self.val), ('test', self.test)):
            if not isinstance(value, list) and not 0 <= value < 1:
                raise ValueError(
                    f'Split: {name} must be a fraction in [0, 1) or a list of file patterns, not {value!r}'
                )


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


def _take(reader: Reader, drawn: np.ndarray, share: float | list[str], total: int) -> np.ndarray:
    if not isinstance(share, list):
        # At least one: a fraction that rounds to nothing would leave a part empty that the user asked for.
        return drawn[: max(round(share * total), 1)] if share else drawn[:0]
    for pattern in share:
        if not any(fnmatch(reader.file(index), pattern) for index in range(total)):
            raise DataError(f'the split pattern {pattern!r} fits no file; there is, for example, {reader.file(0)!r}')
    return np.array([i for i in drawn if any(fnmatch(reader.file(int(i)), pattern) for pattern in share)], int)


def _given(path: str, total: int) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        parts = {part: np.sort(file[part]).astype(int) if part in file else np.arange(0) for part in PARTS}
    every = np.concatenate(list(parts.values()))
    if len(parts['train']) == 0 or len(np.unique(every)) < len(every) or every.min() < 0 or every.max() >= total:
        raise DataError(f"{path}: 'train' must not be empty, and no number may stand twice or be outside 0…{total - 1}")
    return parts
