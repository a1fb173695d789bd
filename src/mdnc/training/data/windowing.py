"""Long recordings cut into windows, and what follows a window, to be forecast."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnc.training.data.grid import Grid, grid_of
from mdnc.training.data.reader import Array, DataError, Reader, Window, uniform
from mdnc.training.data.sources import Pair


@dataclass(frozen=True)
class Windowing:
    """How recordings are cut.

    Args:
        window: Values of a window.
        hop: Values from the start of one window to that of the next.
        horizon: Values after a window that are its target; 0: none are.
    """

    window: int
    hop: int
    horizon: int = 0

    def starts(self, begin: int, end: int, ahead: bool = True) -> list[int]:
        """Where windows of a stretch start; the last one ends with it, and a stretch that is shorter is one window.

        Args:
            begin: Where the stretch begins.
            end: Where it ends.
            ahead: Whether what is to be forecast must be in it.
        """
        room = end - begin - self.window - (self.horizon if ahead else 0)
        if room < 0:
            return [begin] if end > begin and not (self.horizon and ahead) else []
        found = [*range(begin, begin + room + 1, self.hop)]
        # What is left over at the end is no sample of its own in a series, whose windows are alike anyway.
        return found if found[-1] == begin + room or (self.horizon and ahead) else [*found, begin + room]


@dataclass(frozen=True)
class Stretch:
    """A part of a recording: its number, and the values from one place to another."""

    number: int
    begin: int
    end: int


def recording_length(reader: Reader, number: int) -> int:
    """Values of a recording along its axis.

    Raises:
        DataError: It has another number of axes than one.
    """
    try:
        shape = tuple(reader.shape(number))
    except DataError as error:
        raise DataError(f'{reader.name(number)}: {error}') from error
    if len(shape) not in (1, 2):
        raise DataError(
            f'{reader.name(number)}: its shape is {shape}, but windows are cut from recordings (C, L); images and '
            'volumes are cut by patch'
        )
    return shape[-1]


class Windows:
    """The windows of the recordings of a reader, each a sample.

    Args:
        reader: The recordings.
        places: Number of the recording, begin and end of each window.
        flat: Whether a window becomes a vector, channel by channel.
    """

    def __init__(self, reader: Reader, places: Sequence[tuple[int, int, int]], flat: bool = False) -> None:
        self.reader, self.places = reader, np.array(places, np.int64).reshape(-1, 3)
        self.vector = flat  # as long as an input by chance, it is no map

    def __len__(self) -> int:
        return len(self.places)

    def _at(self, index: int) -> tuple[int, int, int]:
        number, begin, end = self.places[index].tolist()
        return number, begin, end

    def shape(self, index: int) -> tuple[int, ...]:
        number, begin, end = self._at(index)
        shape = (*self.reader.shape(number)[:-1], end - begin)
        return (int(np.prod(shape)),) if self.vector else shape

    def uniform(self) -> bool:
        """Whether all windows are of one size."""
        return len({*(self.places[:, 2] - self.places[:, 1]).tolist()}) <= 1

    def read(self, index: int, window: Window = ()) -> Array:
        number, begin, end = self._at(index)
        start, stop, _ = (window[-1] if window and not self.vector else slice(None)).indices(end - begin)
        values = self.reader.read(number, (slice(begin + start, begin + stop),))
        if not self.vector:
            return values
        place: Any = window or (slice(None),)
        found: Array = values.ravel()[place]
        return found

    def grid(self, index: int) -> Grid | None:
        """The grid of a window: its own size, with the recording's spacing."""
        number, begin, end = self._at(index)
        whole = grid_of(self.reader, number)
        known = whole is not None and whole.distances is not None
        return Grid((end - begin,), whole.distances) if whole is not None and known else None

    def name(self, index: int) -> str:
        number, begin, end = self._at(index)
        return f'{self.reader.name(number)}[{begin}:{end}]'

    def file(self, index: int) -> str:
        return self.reader.file(self._at(index)[0])


class Repeated:
    """The target of a recording, for each of its windows."""

    def __init__(self, reader: Reader, numbers: Sequence[int]) -> None:
        self._reader, self._numbers = reader, np.array(numbers, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def uniform(self) -> bool:
        """Whether all samples are known to be of one shape."""
        return uniform(self._reader)

    def shape(self, index: int) -> tuple[int, ...]:
        return self._reader.shape(int(self._numbers[index]))

    def read(self, index: int, window: Window = ()) -> Array:
        return self._reader.read(int(self._numbers[index]), window)

    def name(self, index: int) -> str:
        return self._reader.name(int(self._numbers[index]))

    def file(self, index: int) -> str:
        return self._reader.file(int(self._numbers[index]))


def _runs_along(targets: Reader, inputs: Reader, number: int) -> bool:
    shape = targets.shape(number)
    return len(shape) > 0 and shape[-1] == inputs.shape(number)[-1]


def cut(pair: Pair, stretches: Iterable[Stretch], windowing: Windowing, ahead: bool = True) -> Pair | None:
    """The windows of stretches as samples; None where there is none.

    Args:
        pair: Recordings and their targets: one of each recording, or a series beside it.
        stretches: The stretches.
        windowing: How they are cut.
        ahead: Whether what follows a window is its target.

    Raises:
        DataError: Targets that are to be forecast are no series beside the inputs.
    """
    places = [
        (each.number, start, min(start + windowing.window, each.end))
        for each in stretches
        for start in windowing.starts(each.begin, each.end, ahead)
    ]
    if not places:
        return None
    inputs = Windows(pair.inputs, places)
    targets = pair.targets
    along = targets is not None and _runs_along(targets, pair.inputs, places[0][0])
    if not windowing.horizon:
        if targets is None:
            return Pair(inputs)
        numbers = [number for number, _, _ in places]
        return Pair(inputs, Windows(targets, places) if along else Repeated(targets, numbers))
    if not ahead:
        return Pair(inputs)
    if targets is not None and not along:
        name = targets.name(places[0][0])
        raise DataError(f'horizon: the target {name} is no series as long as its input, of which something follows')
    later = [(number, end, end + windowing.horizon) for number, _, end in places]
    return Pair(inputs, Windows(targets or pair.inputs, later, flat=True))
