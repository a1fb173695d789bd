"""Mean, standard deviation and percentiles of each channel, over more samples than memory holds."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import NormalDist

import numpy as np

from mdnc.training.data.images import conversion_advice
from mdnc.training.data.reader import Array, DataError, Reader, Window, refuse_no_numbers, release

# Values read at once: 4 M values are 32 MB in the float64 of the sums.
_VALUES = 2**22


def windows(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Windows along the first spatial axis that cover a sample ``(C, L1, ...)`` in pieces of bounded size."""
    if len(shape) < 2:
        yield ()
        return
    step = max(1, _VALUES * shape[1] // max(1, int(np.prod(shape))))
    for start in range(0, shape[1], step):
        yield (slice(start, start + step), *(slice(None),) * (len(shape) - 2))


@dataclass(frozen=True)
class Moments:
    """Number, mean and sum of squared deviations of the values of each channel, ``(C,)`` each; ``+`` merges them.

    Merged piece by piece (Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample
    variances, 1979) they are exact where E[x²] − E[x]² loses all digits.
    """

    count: Array
    mean: Array
    scatter: Array

    @classmethod
    def of(cls, piece: Array) -> 'Moments':
        """Those of an array ``(C, ...)``; NaN counts as not there."""
        values = np.asarray(piece, np.float64).reshape(len(piece), -1)
        known = np.isfinite(values)
        count = known.sum(1)
        mean = np.where(known, values, 0).sum(1) / np.maximum(count, 1)
        return cls(count, mean, (np.where(known, values - mean[:, None], 0) ** 2).sum(1))

    def __add__(self, new: 'Moments') -> 'Moments':
        total = np.maximum(self.count + new.count, 1)
        shift = new.mean - self.mean
        scatter = self.scatter + new.scatter + shift**2 * self.count * new.count / total
        return Moments(self.count + new.count, self.mean + shift * new.count / total, scatter)

    @property
    def deviation(self) -> Array:
        """Standard deviations; 0 for a channel that is constant, as far as float32 can tell."""
        deviation = np.sqrt(self.scatter / np.maximum(self.count, 1))
        return np.where(deviation > np.finfo(np.float32).eps * np.abs(self.mean), deviation, 0.0)

    @property
    def blurred(self) -> int | None:
        """The first channel whose values vary by few steps of single precision, so that their digits are lost in it."""
        spread, size = np.sqrt(self.scatter / np.maximum(self.count, 1)), np.abs(self.mean)
        # Below are the rounding errors of the sums.
        found = np.flatnonzero((spread > 1e-13 * size) & (spread < _STEPS * np.finfo(np.float32).eps * size))
        return int(found[0]) if len(found) else None

    def statistics(self) -> dict[str, list[float]]:
        """Plain lists ``mean`` and ``std``, one value a channel; the ``std`` of a constant channel is 1."""
        deviation = self.deviation
        return {'mean': self.mean.tolist(), 'std': np.where(deviation > 0, deviation, 1.0).tolist()}


_STEPS = 8
_NOTHING = Moments(np.zeros(1), np.zeros(1), np.zeros(1))


def channel_statistics(pieces: Iterable[Array]) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel over arrays ``(C, ...)``; NaN counts as not there.

    Returns:
        Plain lists ``mean`` and ``std``, one value a channel; a channel that is constant, as far as float32 can tell,
        has a ``std`` of 1.
    """
    return moments(pieces).statistics()


def moments(pieces: Iterable[Array]) -> Moments:
    """Those of each channel over arrays ``(C, ...)``; NaN counts as not there."""
    return sum(map(Moments.of, pieces), _NOTHING)


# ---- How far samples differ in amplitude ----

_MOST_SPREAD = 1.5  # decades: typical samples differ 30-fold
_FEWEST = 8  # samples that tell it


def widest(decades: Sequence[float] | Array) -> int | None:
    """The channel whose samples differ most in amplitude, if by orders of magnitude, so that each is normalised by
    itself; else None.

    Args:
        decades: The figure of each channel, as `AmplitudeSpread.decades`.
    """
    channel = int(np.argmax(decades)) if len(decades) else 0
    return channel if len(decades) and decades[channel] > _MOST_SPREAD else None


class AmplitudeSpread:
    """How far samples differ in amplitude: the standard deviation, over samples, of log10 of their own ones.

    Example:
        >>> spread = AmplitudeSpread()
        >>> for number in range(20):
        ...     spread.add(np.array([10.0 ** (number % 5)]))  # the standard deviation of a sample with one channel
        >>> spread.decades.round(2).tolist(), spread.widest
        ([1.41], None)
    """

    def __init__(self) -> None:
        self._values, self._channels = array('d'), 1

    def add(self, deviations: Array) -> None:
        """Count a sample by the standard deviation of each channel ``(C,)``; 0, of a constant one, is left out."""
        logs = np.log10(deviations, out=np.full(len(deviations), np.nan), where=deviations > 0)
        self._channels = len(logs)
        self._values.extend(logs.tolist())

    @property
    def logs(self) -> Array:
        """The logarithms ``(samples, C)``; NaN of a channel that is constant."""
        found: Array = np.array(self._values).reshape(-1, self._channels)
        return found

    @property
    def decades(self) -> Array:
        """The figure of each channel ``(C,)``; 0 where fewer than 8 samples vary."""
        logs = Moments.of(self.logs.T)
        figure = np.sqrt(logs.scatter / np.maximum(logs.count, 1))
        return np.where(logs.count >= _FEWEST, figure, 0.0)

    @property
    def widest(self) -> int | None:
        """The channel that differs most, if it does so by orders of magnitude: above 1.5; else None."""
        return widest(self.decades)

    def differing(self, names: Sequence[str] | None = None) -> str | None:
        """In words, which channel's samples differ in amplitude by orders of magnitude; None: those of none do.

        Args:
            names: Names of the channels.
        """
        channel = self.widest
        if channel is None:
            return None
        return (
            f'samples of channel {repr(names[channel]) if names else channel} differ in amplitude by orders of '
            f'magnitude (log10 of their standard deviations varies by {self.decades[channel]:.2f})'
        )

    def explains(self, targets: Array) -> str | None:
        """In words, that quantities depend on the amplitude of the samples; None: they are not seen to.

        They do where, of a channel and a quantity, the ranks correlate by more than 0.3 and more than chance gives in
        one of a hundred such tables.

        Args:
            targets: ``(samples, K)``; NaN is not known.
        """
        logs = self.logs
        found = [_rank_correlation(one, other) for one in logs.T for other in targets.T]
        chance = NormalDist().inv_cdf(1 - 0.005 / max(1, len(found)))
        strong = [figure for figure, count in found if abs(figure) > max(0.3, chance / np.sqrt(max(1, count - 1)))]
        if not strong:
            return None
        return f'the targets depend on it (their ranks correlate by {max(strong, key=abs):.2f})'


def _rank_correlation(one: Array, other: Array) -> tuple[float, int]:
    """Spearman's correlation, and of how many samples it is; 0 of fewer than 8, and where nothing varies."""
    known = np.isfinite(one) & np.isfinite(other)
    count = int(known.sum())
    ranks = [_ranks(values[known]) for values in (one, other)]
    product = count and float(np.prod([each.std() for each in ranks]))
    if count < _FEWEST or not product:
        return 0.0, count
    return float(np.mean((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean()))) / product, count


def _ranks(values: Array) -> Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle: Array = np.cumsum(counts) - (counts - 1) / 2
    return middle[place]


def small_samples(owner: str, differing: str, explains: str | None = None) -> str:
    """The warning that one scale suits samples of very different amplitudes badly.

    Args:
        owner: Who warns.
        differing: See `AmplitudeSpread.differing`.
        explains: Why ``normalise=auto`` keeps one scale; None: ``normalise=true`` was given.
    """
    nearly = 'small ones are nearly 0 for the network'
    if explains is not None:
        return f'{owner}: normalise=auto: {differing}, but {explains}: all have one scale, so that {nearly}; {_READ}'
    way_out = f'normalise=sample brings each to mean 0 and deviation 1, and {_READ}'
    return f'{owner}: normalise=true, but {differing}, so that {nearly}; {way_out}'


def mixed_depths(eight: str, sixteen: str) -> str:
    """In words, that images of 8 and of 16 bits are not on one scale; the names are those of the first of each."""
    return f'samples are stored in 8 bits ({eight}) and in 16 ({sixteen}), so that they are not on one scale'


_READ = 'a network with amplitude=True reads how large they are'
_FEW = 16  # quantities that are looked at one by one


def target_sizes(pieces: Iterable[tuple[int, Array]]) -> Array:
    """What of each target may depend on amplitudes, ``(samples, K)``: its root mean square, and few quantities one by
    one with their absolute values.

    Args:
        pieces: Those of each target one after the other, as `read_pieces` gives them.
    """
    rows = []
    for _, target in groupby(pieces, key=lambda found: found[0]):
        values = [np.asarray(piece, np.float64).reshape(-1) for _, piece in target]
        square = sum(float(np.nansum(each**2)) for each in values)
        count = sum(int(np.isfinite(each).sum()) for each in values)
        few = values[0] if len(values) == 1 and len(values[0]) <= _FEW else np.zeros(0)
        rows.append(np.concatenate([[np.sqrt(square / count) if count else np.nan], few, np.abs(few)]))
    return np.stack(rows)


_LONGEST_ROW = 4096  # positions

COLUMNS = (
    'half of the positions of channel {} vary over the samples by less than a thirtieth of its standard deviation, so '
    'that nearly nothing of them is left for the network; if they are columns of a table, or have a large course in '
    "common, scale each position by itself before, for example by scikit-learn's StandardScaler"
)

BLURRED = (
    'the values of {} vary by so little about their mean that single precision hardly tells them apart: '
    'subtract a constant from them before'
)


class Columns:
    """Whether positions of signals look like columns of a table: quantities of their own, in units of their own.

    A scale that all positions of a channel share, that of its largest column, then leaves little of the others.

    Example:
        >>> columns, rng = Columns(), np.random.default_rng(0)
        >>> for _ in range(20):
        ...     columns.add(rng.normal(size=(1, 5)) * [1000, 1, 1, 0.1, 1])
        >>> columns.vanishing(np.array([450.0]))
        0
    """

    def __init__(self) -> None:
        self._moments: Moments | None = _NOTHING
        self._shape: tuple[int, ...] | None = None

    def add(self, sample: Array) -> None:
        """Count a sample ``(C, L)``; longer ones, samples of other lengths, images and volumes tell nothing."""
        shape = sample.shape if self._shape is None else self._shape
        if self._moments is None or sample.shape != shape or sample.ndim != 2 or shape[1] > _LONGEST_ROW:
            self._moments = None
            return
        self._moments, self._shape = self._moments + Moments.of(np.reshape(sample, (-1, 1))), shape

    def vanishing(self, deviations: Array) -> int | None:
        """The first channel in which half of the positions vary over the samples by less than a thirtieth of the
        channel's standard deviation; else None. Constant positions do not count.

        Args:
            deviations: The standard deviation of all values of each channel ``(C,)``.
        """
        if self._moments is None or self._shape is None or self._moments.count.max() < _FEWEST:
            return None
        for channel, own in enumerate(self._moments.deviation.reshape(self._shape)):
            varying = own[own > 0]
            if len(varying) > 1 and np.median(varying) < deviations[channel] / 10**_MOST_SPREAD:
                return channel
        return None


@dataclass(frozen=True)
class InputFigures:
    """What is known of the inputs of a training part: ``mean`` and ``std`` of channels, what their scale hides, and the
    first sample of each type of values."""

    statistics: dict[str, list[float]]
    spread: AmplitudeSpread
    vanishing: int | None
    blurred: int | None
    depths: dict[str, int]


def input_figures(pieces: Iterable[tuple[int, Array]]) -> InputFigures:
    """Mean and standard deviation of each channel, how far samples differ in amplitude, and positions in scale.

    Args:
        pieces: Those of each sample one after the other, as `read_pieces` gives them.
    """
    whole, spread, columns = _NOTHING, AmplitudeSpread(), Columns()
    depths: dict[str, int] = {}
    for number, sample in groupby(pieces, key=lambda found: found[0]):
        own = _NOTHING
        for _, piece in sample:
            new = Moments.of(piece)
            whole, own = whole + new, own + new
            columns.add(piece)
            depths.setdefault(str(piece.dtype), number)
        spread.add(own.deviation)
    return InputFigures(whole.statistics(), spread, columns.vanishing(whole.deviation), whole.blurred, depths)


_KEPT = 10_000_000  # values, of all channels and samples together, that percentiles are told by
_LEAST = 100  # values of each channel of a sample


def clipped_statistics(kept: Array) -> dict[str, list[float]]:
    """The 0.5th and 99.5th percentile of each channel, and mean and standard deviation of what is clipped to them.

    Args:
        kept: Values ``(C, N)``; NaN counts as not there.

    Returns:
        Plain lists ``low``, ``high``, ``mean`` and ``std``, one value a channel.
    """
    low, high = np.nanpercentile(np.where(np.isfinite(kept), kept, np.nan), [0.5, 99.5], axis=1)
    clipped = np.clip(kept, low[:, None], high[:, None])
    return {'low': low.tolist(), 'high': high.tolist(), **channel_statistics([clipped])}


def drawn_values(
    reader: Reader, numbers: Sequence[int], lone: Callable[[int], bool], marked: Callable[[int, Window], Array] | None
) -> Array:
    """Values ``(C, N)`` of samples: all where they are few, else some ten million, drawn evenly from each sample.

    Args:
        reader: The samples.
        numbers: Which of them.
        lone: Whether a sample has no channel axis.
        marked: Which positions of a window of a sample are meant; None: all.

    Raises:
        DataError: A sample cannot be read.
    """
    found: list[Array] = []
    for number in map(int, numbers):
        rng, shape = np.random.default_rng(number), reader.shape(number)
        shape = (1, *shape) if lone(number) else shape
        most = max(_LEAST, _KEPT // (len(numbers) * shape[0]))
        share = most * shape[0] / max(1, int(np.prod(shape)))
        for window, piece in zip(windows(shape), _read_sample(reader, number, lone), strict=True):
            values = piece.reshape(len(piece), -1)
            chosen = rng.random(values.shape[1]) < share
            if marked is not None:
                chosen &= marked(number, window).reshape(-1)
            found.append(values[:, chosen].astype(np.float32))
    return np.concatenate(found, 1)


def read_pieces(reader: Reader, numbers: Iterable[int], lone: Callable[[int], bool]) -> Iterator[tuple[int, Array]]:
    """Samples of a reader as pieces ``(C, ...)``, each with the number of its sample.

    Args:
        reader: The samples.
        numbers: Which of them.
        lone: Whether a sample has no channel axis.

    Raises:
        DataError: A sample cannot be read, or has another number of channels than the first.
    """
    channels = None
    for number in map(int, numbers):
        for piece in _read_sample(reader, number, lone):
            channels = len(piece) if channels is None else channels
            if len(piece) != channels:
                name = reader.name(number)
                advice = conversion_advice(len(piece), channels, piece.ndim - 1)
                raise DataError(
                    f'sample {number} ({name}) has {len(piece)} channels, the first sample has {channels}{advice}'
                )
            yield number, piece


def _read_sample(reader: Reader, number: int, lone: Callable[[int], bool]) -> Iterator[Array]:
    try:
        shape, alone = reader.shape(number), lone(number)
        parts = [*windows((1, *shape) if alone else shape)]
        for window in parts:
            piece = refuse_no_numbers(reader.read(number, window))
            yield piece[None] if alone else piece
            if len(parts) > 1:
                release(reader)
    except Exception as error:  # each format's library has errors of its own
        raise DataError(f'sample {number} ({reader.name(number)}) cannot be read: {error}') from error


def whole_samples(reader: Reader, numbers: Array, gaps: bool = False) -> Array:
    """Those of the samples that hold no NaN or Inf; where there may be ``gaps``, NaN does not count."""
    bad = np.isinf if gaps else lambda values: ~np.isfinite(values)
    broken = [
        number
        for number in map(int, numbers)
        if any(
            piece.dtype.kind == 'f' and bad(piece).any() for piece in _read_sample(reader, number, lambda number: False)
        )
    ]
    return numbers[~np.isin(numbers, broken)]
