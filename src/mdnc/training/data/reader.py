"""The reader protocol: how many samples there are, how large each is, and a window of one of them.

A reader may also have ``grid(index)``, which says where the values lie (`mdnc.training.data.grid.Grid`).

A sample is one array ``(C, L1, ...)``, channels first; a target may also be a map ``(L1, ...)``, a vector ``(K,)`` or
a number ``()``. A format is one file beside this one, which says how a path becomes an array-like that knows
``shape`` and slicing; the readers here do the rest.
"""

import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Window = tuple[slice, ...]


class DataError(ValueError):
    """A data file, or a sample in it, cannot be used; the text names the file and the sample.

    Example:
        >>> import numpy as np
        >>> from mdnc.training import ArrayData, DataError
        >>> try:
        ...     ArrayData(np.zeros((20, 1, 32)), np.zeros(19)).setup()
        ... except DataError as error:
        ...     print(error)
        there are 20 inputs (the first is array[0]) but 19 targets (the first is array[0])
    """


@runtime_checkable
class Reader(Protocol):
    """Samples that are read one at a time, whole or in part.

    Example:
        >>> import numpy as np
        >>> from mdnc.training import ArrayData, Reader
        >>> reader = ArrayData(np.zeros((20, 1, 32))).pairs()['train'].inputs
        >>> isinstance(reader, Reader), len(reader), reader.shape(0), reader.read(3).dtype
        (True, 20, (1, 32), dtype('float64'))
    """

    def __len__(self) -> int:
        """Number of samples."""

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of one sample."""

    def read(self, index: int, window: Window = ()) -> Array:
        """Values of one sample; a window is one slice for each of its last axes, none means all of it."""

    def name(self, index: int) -> str:
        """The sample's identity in predictions and errors, for example ``'day_2/run_3.h5::x[17]'``."""

    def file(self, index: int) -> str:
        """Path of the file that holds the sample, below what was named: parts may be split by it."""


def class_name(value: Array) -> str | None:
    """The name of a class that an array ``()`` of text holds; None where it holds anything else."""
    if value.ndim or value.dtype.kind not in 'SUT':
        return None
    text = value.item()
    return text.decode() if isinstance(text, bytes) else str(text)


def channels_last(shape: Sequence[int]) -> str | None:
    """In words, that a sample ``(C, L1, ...)`` looks as if its channels came last; None: it does not.

    Example:
        >>> channels_last((1, 32, 32)) is None
        True
        >>> channels_last((32, 48, 3))[:67]
        'samples are of shape (32, 48, 3), channels first, so these are 32 c'
    """
    first, *others, last = shape
    pixels = len(shape) > 2 and last <= 4 and min(first, *others) > 4 * last
    series = len(shape) == 2 and last <= 16 and first >= 8 * last
    if not (pixels or series):
        return None
    size = ' × '.join(map(str, shape[1:]))
    return (
        f'samples are of shape {tuple(shape)}, channels first, so these are {first} channels of {size}; if the last '
        'axis holds the channels, move it to the front, as np.moveaxis(x, -1, 1) does'
    )


def refuse_no_numbers(values: Array) -> Array:
    """The same values.

    Raises:
        DataError: They are no numbers.
    """
    if values.dtype.kind not in 'biuf':
        raise DataError(f'its values are of type {values.dtype}, not numbers')
    return values


def choose_member(member: str, members: Iterable[str], path: str) -> str:
    """Name of the array to read from a file that may hold several, or an error that lists them."""
    known = sorted(members)
    if not member and len(known) == 1:
        return known[0]
    if member in known:
        return member
    wanted = f'no array {member!r}' if member else 'several arrays'
    listed = ', '.join(known) or 'none at all'
    raise DataError(f'{path} holds {wanted}; choose one as PATH::NAME. It has: {listed}')


def let_go(mapped: Any) -> None:
    """Take what was read of a memory map out of this process's memory; it is read anew where it is asked for."""
    pages: Any = mapped if isinstance(mapped, np.memmap) else None
    if pages is not None and hasattr(mmap, 'MADV_DONTNEED'):
        pages._mmap.madvise(mmap.MADV_DONTNEED)


class Rows:
    """Samples along the first axis of an array in memory or in a file.

    A file is opened by each process that reads it: handles of HDF5 do not survive a fork, and a memory map sent to a
    spawned worker would be copied whole.

    Args:
        opener: Gives the array-like ``(N, ...)``, something with ``shape`` and slicing; must pickle.
        label: What names and errors call the array, for example ``'run_3.h5::x'``.
    """

    def __init__(self, opener: Callable[[], Any], label: str) -> None:
        self._opener, self._label = opener, label
        self._process, self._opened = -1, None
        if self._array.shape is None or len(self._array.shape) == 0:  # HDF5 knows a data set that holds nothing
            raise DataError(f'{label} holds a single number or nothing; samples lie along the first axis of an array')

    @property
    def _array(self) -> Any:
        if self._process != os.getpid():
            self._process, self._opened = os.getpid(), self._opener()
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_process': -1, '_opened': None}

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(int(size) for size in self._array.shape[1:])

    def uniform(self) -> bool:
        """Samples are rows of one array."""
        return True

    def read(self, index: int, window: Window = ()) -> Array:
        return np.asarray(self._array[(index, ..., *window)])

    def release(self) -> None:
        """Let go of what was read of a memory map; it is read anew where it is asked for."""
        let_go(self._opened if self._process == os.getpid() else None)

    def name(self, index: int) -> str:
        return f'{self._label}[{index}]'

    def file(self, index: int) -> str:
        return self._label.split('::')[0]


class Listed:
    """Samples in memory that may differ in size.

    Args:
        arrays: One array a sample.
        names: Their names.
        source: The file that holds them all; None: each is one of its own.
    """

    def __init__(self, arrays: Sequence[Array], names: Sequence[str], source: str | None = None) -> None:
        self._arrays, self._names, self._source = tuple(arrays), tuple(names), source

    def __len__(self) -> int:
        return len(self._arrays)

    def shape(self, index: int) -> tuple[int, ...]:
        return self._arrays[index].shape

    def uniform(self) -> bool:
        """Whether all samples are of one shape."""
        return len({array.shape for array in self._arrays}) == 1

    def read(self, index: int, window: Window = ()) -> Array:
        place: Any = (..., *window)
        return np.asarray(self._arrays[index][place])

    def name(self, index: int) -> str:
        return self._names[index]

    def file(self, index: int) -> str:
        return self._source or self._names[index]


def uniform(reader: Reader) -> bool:
    """Whether all samples are known to be of one shape, without a look at each."""
    found = getattr(reader, 'uniform', None)
    return found is not None and bool(found())


def release(reader: Any) -> None:
    """Let go of what was read of memory maps, where samples come from such."""
    if hasattr(reader, 'release'):
        reader.release()


class Joined:
    """Several readers one after the other, as one.

    Args:
        readers: At least one reader.
        files: The file of each.
    """

    def __init__(self, readers: Sequence[Reader], files: Sequence[Any]) -> None:
        self.readers, self.files = tuple(readers), tuple(files)
        self._ends = np.cumsum([len(reader) for reader in readers])

    def rearranged(self, places: Sequence[int]) -> 'Joined':
        """The same readers in another order."""
        return Joined([self.readers[place] for place in places], [self.files[place] for place in places])

    def find(self, index: int) -> tuple[Reader, int]:
        """The reader that holds a sample, and its number there."""
        part = int(np.searchsorted(self._ends, index, side='right'))
        return self.readers[part], index - (int(self._ends[part - 1]) if part else 0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def shape(self, index: int) -> tuple[int, ...]:
        reader, row = self.find(index)
        return reader.shape(row)

    def read(self, index: int, window: Window = ()) -> Array:
        reader, row = self.find(index)
        return reader.read(row, window)

    def name(self, index: int) -> str:
        reader, row = self.find(index)
        return reader.name(row)

    def file(self, index: int) -> str:
        reader, row = self.find(index)
        return reader.file(row)

    def uniform(self) -> bool:
        """Whether all samples are known to be of one shape."""
        return all(map(uniform, self.readers)) and len({reader.shape(0) for reader in self.readers if len(reader)}) == 1

    def release(self) -> None:
        """Let go of what was read of memory maps."""
        for reader in self.readers:
            release(reader)

    def grid(self, index: int) -> Any:
        """What the reader of the sample knows of its axes."""
        reader, row = self.find(index)
        return getattr(reader, 'grid', lambda row: None)(row)
