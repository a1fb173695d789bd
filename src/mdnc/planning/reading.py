"""Data → fingerprint: each sample is read once, piece by piece, in bounded memory."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mdnc.planning.fingerprint import MIXED_DEPTHS, MIXED_SCALES, NOT_FINITE, UNKNOWN_TARGETS, Fingerprint, Target
from mdnc.planning.kinds import Kinds
from mdnc.planning.running_statistics import RunningStatistics, rounded
from mdnc.planning.sample_features import Objects, Spectrum, empty_borders, find_groups
from mdnc.training.data.grid import grid_of
from mdnc.training.data.normalisation import COLUMNS, AmplitudeSpread, Columns, Moments, mixed_depths, windows
from mdnc.training.data.reader import Array, DataError, Reader, channels_last, class_name
from mdnc.training.data.sources import Pair

_BLOCK = 2**20  # values that are counted at once
_CLOSELY = 200  # samples that are looked at closely: borders, objects, periods
_WHOLE = 2**25  # values of a sample that may be in memory at once for that
_NAMED = 200_000  # files whose names are looked at
_TOGETHER = 4096  # targets that are counted at once
_FEW_CODES = 64  # numbers that a recipe may name
_FEW_WHOLE = 10  # different whole numbers that may be classes although they are stored as fractions
_LOOKED = 10  # targets whose colours are looked at
_CODES = 2**16  # a whole number beyond is no class
_SIGNS = {-1, 1}  # whole numbers below 0 that are classes all the same


def read_fingerprint(
    pairs: Mapping[str, Pair],
    order: int | None = None,
    classes: list[str] | None = None,
    values: list[int] | None = None,
) -> Fingerprint:
    """Read all samples once.

    Args:
        pairs: Inputs and targets of each part, as `SampleData.pairs` gives them.
        order: Number of spatial axes, where samples may lack a channel axis.
        classes: Names of the classes, where they are known.
        values: Numbers that stand for the classes in the targets, where they are known.

    Raises:
        DataError: No sample can be read, or targets are of different kinds.
        MixedKindsError: Samples differ in channels or axes.

    Example:
        >>> import numpy as np
        >>> from mdnc.planning import read_fingerprint
        >>> from mdnc.training import ArrayData
        >>> signals = ArrayData(np.random.default_rng(0).normal(size=(40, 2, 64)).astype('f4'), np.arange(40) % 2)
        >>> read = read_fingerprint(signals.pairs())
        >>> read.order, read.channels
        (1, 2)
    """
    scan = _Scan(order, _Targets(classes, values), sum(len(pair.inputs) for pair in pairs.values()))
    for part, pair in pairs.items():
        for number in range(len(pair.inputs)):
            scan.add(part, pair, number)
    return scan.fingerprint({part: len(pair.inputs) for part, pair in pairs.items()}, _groups(pairs, scan))


def _groups(pairs: Mapping[str, Pair], scan: '_Scan') -> dict[str, Any]:
    reader = pairs['train'].inputs
    if not 4 <= len(reader) <= _NAMED:
        return {}
    files = [reader.file(number) for number in range(len(reader))]
    if len(set(files)) < len(files):  # an array of samples has no names
        return {}
    classes = scan.labels['train'] if len(scan.labels['train']) == len(files) else None
    return find_groups(files, classes)


@dataclass
class _Faults:
    """What is wrong with samples, by kind: how many, and the first few."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        self.first.setdefault(kind, ' '.join(text.split())[:300])

    def to_list(self) -> list[dict[str, Any]]:
        return [{'kind': kind, 'count': self.counts[kind], 'text': self.first[kind]} for kind in self.first]


class _Targets:
    """What targets hold: their kind, classes, values."""

    def __init__(self, classes: list[str] | None, values: list[int] | None) -> None:
        self.given, self.values = classes, values
        self.kind: str | None = None
        self.first, self.shape = '', ()
        self.names: Counter[str] = Counter()
        self.codes: Counter[int] = Counter()
        self.statistics: RunningStatistics | None = None
        self.objects = Objects()
        self.outputs = 0
        self.whole = True  # of a map of fractions: whether all that was met is whole
        self.unknown, self.infinite = 0, 0  # quantities that are NaN, or Inf
        self.labels = self.lone = True  # of quantities: whether all are 0 and 1, and whether each has a single 1
        self.few: Counter[int] | None = Counter()  # of single quantities, as long as they are few whole numbers
        self.colours: set[tuple[int, ...]] | None = set()  # of targets that are images, as long as they are few
        self._looked = 0
        self._noted: list[Array] = []

    def settle(self, name: str, kind: str, outputs: int, shapes: str = '') -> None:
        """Take note of the kind of a sample's target.

        Raises:
            DataError: It is another than those before.
        """
        if self.kind is None:
            self.kind, self.first, self.outputs = kind, name, outputs
        elif (kind, outputs) != (self.kind, self.outputs):
            raise DataError(
                f'targets are of different kinds: that of {self.first} is {_SAID[self.kind]}, that of {name} is '
                f'{_SAID[kind]}, of shape {shapes}; they must be of one kind and shape to be planned for'
            )

    def stand_for_classes(self, value: Array) -> bool:
        """Whether a fraction is a whole number, where it is said which of these are classes."""
        said = self.values is not None or self.given is not None
        return said and value.dtype.kind == 'f' and bool((value == np.round(value)).all())

    def look(self, value: Array) -> None:
        """Take note whether quantities could be something else: labels of 0 and 1, one class, or few whole numbers."""
        flat = value.reshape(-1)
        self.labels = self.labels and flat.size > 1 and bool(np.isin(flat, (0, 1)).all())
        self.lone = self.lone and self.labels and int(flat.sum()) == 1
        if self.few is not None and flat.size == 1 and flat[0] == np.round(flat[0]):
            self.few[int(flat[0])] += 1
        else:
            self.few = None
        self.few = None if self.few is None or len(self.few) > _FEW_WHOLE else self.few

    def look_at_colours(self, targets: Reader, number: int) -> None:
        """Collect the colours of the first targets that are images."""
        self._looked += 1
        if self._looked <= _LOOKED and self.colours is not None:
            pixels = np.asarray(targets.read(number))[:3]
            self.colours |= {*map(tuple, np.unique(pixels.reshape(3, -1), axis=1).T.tolist())}
            self.colours = self.colours if len(self.colours) <= _FEW_CODES else None

    def doubts(self) -> Iterator[tuple[str, str]]:
        """What targets may mean instead, by kind."""
        if self.kind == 'numbers' and self.labels and self.lone:
            yield (
                'one of several classes',
                'each target has a single 1: if classes exclude each other, give their numbers',
            )
        if self.kind == 'numbers' and self.few and sum(self.few.values()) >= 3 * len(self.few) > 3:
            codes = sorted(self.few)
            yield (
                'quantities or classes',
                f'the targets are {_listed(codes)}, stored as fractions, and are taken for quantities; if they are '
                f'classes, say so by data.values={codes}',
            )
        if self.kind == 'map' and self.colours and len(self.colours) > 1:
            yield (
                'colours or classes',
                f'the targets are images of {len(self.colours)} colours, and are taken for quantities; if colours '
                'stand for classes, store the number of its class at each position',
            )

    def count(self, codes: Array) -> None:
        """Count whole numbers."""
        flat = codes.ravel()
        low, high = int(flat.min()), int(flat.max())
        if low >= 0 and high < _CODES:
            found = np.bincount(flat.astype(np.int64, copy=False))
            self.codes.update({int(code): int(found[code]) for code in np.flatnonzero(found)})
        else:
            numbers, counts = np.unique(flat, return_counts=True)
            self.codes.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))

    def note(self, value: Array) -> None:
        """Count the quantities ``(K, 1)`` of a sample, later and together."""
        if self._noted and len(self._noted[0]) != len(value):
            return  # of another shape, which is refused
        self._noted.append(value)
        if len(self._noted) >= _TOGETHER:
            self.settle_noted()

    def settle_noted(self) -> None:
        """Count what was noted."""
        if self._noted:
            self.measure(np.concatenate(self._noted, 1))
            self._noted = []

    def count_if_whole(self, values: Array) -> None:
        """Count a map of fractions as one of whole numbers, as long as all are such."""
        values = values[np.isfinite(values)]
        if self.whole and values.size:
            self.whole = bool((values == np.round(values)).all())
        if self.whole and values.size:
            self.count(values.astype(np.int64))
            self.whole = len(self.codes) <= _FEW_CODES

    def measure(self, values: Array) -> None:
        """Count quantities ``(K, n)``."""
        if values.dtype.kind == 'f':
            self.unknown += int(np.isnan(values).sum())
            self.infinite += int(np.isinf(values).sum())
        self.statistics = self.statistics or RunningStatistics(len(values))
        self.statistics.add(values)

    def found(self, samples: int) -> Target:
        """What they are, when all were seen."""
        self.settle_noted()
        if self.kind in (None, 'none'):
            return Target()
        if self.kind == 'map' and self.outputs == 1 and self.whole and len(self.codes) > 1:
            self.kind = 'class map'
            found = self._coded(samples)
            codes = found.codes or [*range(found.outputs)]  # named, so that they are read as whole numbers
            return replace(found, codes=codes)
        if self.kind == 'names':
            classes = self.given or sorted(set(self.names) - {''})
            return Target('names', len(classes), classes, [self.names[name] for name in classes])
        if self.kind in ('classes', 'class map'):
            return self._coded(samples)
        if self.kind == 'numbers' and self.labels:
            return Target('labels', self.outputs, self.given)
        return Target(self.kind, self.outputs, values=self.statistics.to_list() if self.statistics else [])

    def _coded(self, samples: int) -> Target:
        kind = str(self.kind)
        if kind == 'classes' and self.given is None and self.values is None and {*self.codes} == _SIGNS:
            return Target(kind, 2, None, [self.codes[code] for code in sorted(_SIGNS)], sorted(_SIGNS))
        codes = {code: count for code, count in sorted(self.codes.items()) if code >= 0}
        ignore = min(self.codes) if min(self.codes) < 0 else None
        top = max(codes, default=0)
        if kind == 'class map' and top == 255 and len(codes) > 2 and sorted(codes)[-2] < 254:
            ignore = ignore if ignore is not None else 255
            codes.pop(255)
            top = max(codes)
        if kind == 'classes' and self.given is None and not _may_be_classes(self.codes, samples):
            return Target('numbers', 1, values=self.statistics.to_list() if self.statistics else [])
        if self.given is None and self.values is None and _has_gaps(codes):
            return Target(kind, len(codes), None, [*codes.values()], [*codes], ignore, self._objects([*codes]))
        known = self.values or [*range(len(self.given) if self.given else max(top + 1, 2))]
        counts = [codes.get(code, 0) for code in known]
        return Target(kind, len(known), self.given, counts, self.values, ignore, self._objects(known))

    def _objects(self, codes: list[int]) -> dict[str, dict[str, Any]]:
        found = self.objects.to_dict()
        return {str(number): found[str(code)] for number, code in enumerate(codes) if str(code) in found}


def _has_gaps(codes: Mapping[int, int]) -> bool:
    """Whether few numbers stand for classes that are not counted from 0: 0 and 255, or 1 and 2."""
    return 2 <= len(codes) <= _FEW_CODES and max(codes) + 1 > len(codes)


def _may_be_classes(codes: Counter[int], samples: int) -> bool:
    """Whether whole numbers, one a sample, are classes: few of them, from 0 or 1 on, most of them met several times."""
    if min(codes) < 0 or max(codes) >= _CODES:
        return False
    return max(codes) + 1 <= max(2 * len(codes), 2) and len(codes) <= max(samples / 3, 2)


def _listed(codes: list[int]) -> str:
    return ', '.join(map(str, codes[:8])) + (', …' if len(codes) > 8 else '')


_SAID = {
    'names': 'the name of a class',
    'classes': 'a whole number',
    'numbers': 'a vector of quantities, or one',
    'class map': 'a map of whole numbers',
    'map': 'a map of quantities',
    'none': 'none',
}


class _Scan:
    """All that is found while samples are read."""

    def __init__(self, order: int | None, targets: _Targets, total: int) -> None:
        self._order, self._every = order, max(1, total // _CLOSELY)
        self._kinds = Kinds()
        self._sizes: list[tuple[int, ...]] = []
        self._spacings: list[tuple[float, ...]] = []
        self._borders: list[list[float]] = []
        self._dtypes: Counter[str] = Counter()  # samples by the type of their values
        self._typed: dict[str, str] = {}  # the first of each
        self._pending: list[Array] = []
        self._waiting = 0  # values among these
        self._marks = array('q')
        self._owners: list[str] = []
        self._bytes = 0
        self._values: RunningStatistics | None = None
        self._inside: tuple[RunningStatistics, RunningStatistics] | None = None  # outside and inside of the foreground
        self._amplitudes = AmplitudeSpread()
        self._columns = Columns()
        self._spectrum: Spectrum | None = None
        self._seen = 0
        self.labels: dict[str, list[Any]] = {'train': [], 'val': [], 'test': []}
        self.faults, self.targets = _Faults(), targets

    def add(self, part: str, pair: Pair, number: int) -> None:
        """Read a sample with its target."""
        name = pair.inputs.name(number)
        self._seen += 1
        try:
            shape = self._shape(pair, number)
            if not self._kinds.add(shape, name):
                return
            closely = self._seen % self._every == 0 and int(np.prod(shape)) <= _WHOLE
            self._values = self._values or RunningStatistics(shape[0])
            if len(shape) == 2:
                self._spectrum = self._spectrum or Spectrum(shape[1])
            self._target_kind(part, pair, number, shape)
            mark = self._read(pair, number, shape, closely)
        except DataError as error:
            if str(error).startswith('targets are of different kinds'):
                raise
            self.faults.add('unreadable', f'{name}: {error}')
        except (OSError, ValueError, RuntimeError, KeyError, SyntaxError, EOFError, ImportError) as error:
            if isinstance(error, ImportError):
                raise
            self.faults.add('unreadable', f'{name}: {error or type(error).__name__}')
        else:
            self._sizes.append(shape[1:])
            self._marks.append(mark)
            self._owners.append(f'{part}: {name}' if len(self._owners) < _NAMED else part)
            self._grid(pair, number)

    def _shape(self, pair: Pair, number: int) -> tuple[int, ...]:
        shape = tuple(pair.inputs.shape(number))
        if self._order is not None and len(shape) == self._order:
            shape = (1, *shape)
        if not 2 <= len(shape) <= 4:
            raise DataError(
                f'its shape is {shape}, but samples are (C, L1), (C, L1, L2) or (C, L1, L2, L3), channels first; '
                'samples without a channel axis need order='
            )
        if 0 in shape:
            raise DataError(f'its shape is {shape}, which is empty')
        return shape

    def _target_kind(self, part: str, pair: Pair, number: int, shape: tuple[int, ...]) -> None:
        targets = pair.targets
        if targets is None:
            self.targets.settle(pair.inputs.name(number), 'none', 0)
            return
        size, target = shape[1:], tuple(targets.shape(number))
        if len(target) >= len(size) and target[-len(size) :] == size:
            before = target[: -len(size)]
            probe = targets.read(number, (slice(0, 1),) * len(size))
            whole = probe.dtype.kind in 'biu' and int(np.prod(before)) == 1
            kind, outputs = ('class map', 1) if whole else ('map', int(np.prod(before)))
            if kind == 'map' and len(before) == 1 and outputs in (3, 4) and probe.dtype == np.uint8:
                self.targets.look_at_colours(targets, number)
        else:
            value = targets.read(number)
            if (label := class_name(value)) is not None:
                kind, outputs = 'names', 1
                self.targets.names[label] += 1
            elif value.size == 1 and (value.dtype.kind in 'biu' or self.targets.stand_for_classes(value)):
                value = value.astype(np.int64)
                kind, outputs = 'classes', 1
                self.targets.codes[int(value.reshape(-1)[0])] += 1
                self.targets.note(value.reshape(1, 1))
            elif value.dtype.kind in 'biuf':
                kind, outputs = 'numbers', int(value.size)
                self.targets.look(value)
                self.targets.note(value.reshape(-1, 1))
            else:
                raise DataError(f'its target is of type {value.dtype}, neither numbers nor the name of a class')
            if len(self.labels[part]) < _NAMED:
                self.labels[part].append(label if label is not None else value.tobytes())
        self.targets.settle(pair.inputs.name(number), kind, outputs, f'{target} beside an input of {size}')

    def _read(self, pair: Pair, number: int, shape: tuple[int, ...], closely: bool) -> int:
        digest, finite, pieces, moments = hashlib.blake2b(digest_size=8), True, [], []
        for window in windows(shape):
            piece = pair.inputs.read(number, window)
            if piece.dtype.kind not in 'biuf':
                raise DataError(f'its values are of type {piece.dtype}, not numbers')
            piece = piece if piece.ndim == len(shape) else piece[None]
            digest.update(np.ascontiguousarray(piece).data)
            self._bytes += piece.nbytes
            finite = finite and (piece.dtype.kind != 'f' or bool(np.isfinite(piece).all()))
            self._count(piece)
            moments.append(Moments.of(piece))
            self._columns.add(piece)
            self._map(pair, number, window, piece)
            if closely:
                pieces.append(piece)
        self._dtypes[str(piece.dtype)] += 1
        self._typed.setdefault(str(piece.dtype), pair.inputs.name(number))
        if not finite:
            self.faults.add(NOT_FINITE, f'{pair.inputs.name(number)} holds NaN or Inf')
        self._amplitudes.add(sum(moments[1:], moments[0]).deviation)
        if closely:
            self._look(np.concatenate(pieces, 1), pair, number)
        return int.from_bytes(digest.digest(), 'big', signed=True)

    def _count(self, piece: Array) -> None:
        self._pending.append(piece.reshape(len(piece), -1))
        self._waiting += piece.size
        if self._waiting >= _BLOCK:
            self._flush()

    def _flush(self) -> None:
        if self._pending and self._values is not None:
            joined = np.concatenate(self._pending, 1)
            step = max(1, _BLOCK // len(joined))
            for start in range(0, joined.shape[1], step):
                self._values.add(joined[:, start : start + step])
        self._pending, self._waiting = [], 0

    def _map(self, pair: Pair, number: int, window: tuple[slice, ...], piece: Array) -> None:
        if pair.targets is None or self.targets.kind not in ('class map', 'map'):
            return
        target = pair.targets.read(number, window)
        if self.targets.kind == 'map':
            self.targets.measure(target.reshape(self.targets.outputs, -1))
            if self.targets.outputs == 1:
                self.targets.count_if_whole(target)
            return
        self.targets.count(target)
        # The positions of the foreground, and as many others: percentiles need no more.
        mask = target.reshape(-1) > 0
        values = piece.reshape(len(piece), -1)
        self._inside = self._inside or (RunningStatistics(len(piece)), RunningStatistics(len(piece)))
        step = max(1, mask.size // _BLOCK)
        for statistics, chosen in zip(self._inside, (~mask[::step], mask[::step]), strict=True):
            statistics.add(values[:, ::step][:, chosen])

    def _look(self, values: Array, pair: Pair, number: int) -> None:
        if values.ndim == 2 and self._spectrum is not None:
            self._spectrum.add(values)
        if values.ndim > 2:
            self._borders.append(empty_borders(values))
        if self.targets.kind == 'class map' and pair.targets is not None:
            labels = pair.targets.read(number)
            self.targets.objects.add(labels.reshape(values.shape[1:]))

    def _grid(self, pair: Pair, number: int) -> None:
        grid = grid_of(pair.inputs, number)
        if grid is not None and grid.distances is not None:
            self._spacings.append(tuple(float(each) for each in grid.distances))

    def fingerprint(self, parts: dict[str, int], groups: dict[str, Any]) -> Fingerprint:
        """All that was found.

        Raises:
            DataError: No sample could be read.
        """
        self._flush()
        self._kinds.refuse_several()
        total, form = sum(parts.values()), self._kinds.first
        if not self._sizes or self._values is None or form is None:
            reason = self.faults.first.get('unreadable', 'there is no sample')
            raise DataError(f'none of {total} samples can be read, so nothing can be planned: {reason}')
        values = self._values.to_list()
        self.targets.settle_noted()
        self._note_faults(values)
        sizes = np.array(self._sizes)
        outside, inside = self._inside or (None, None)
        return Fingerprint(
            order=form[1],
            samples=parts['train'],
            channels=form[0],
            size=tuple(int(each) for each in np.median(sizes, 0)),
            least=tuple(int(each) for each in sizes.min(0)),
            most=tuple(int(each) for each in sizes.max(0)),
            parts={part: count for part, count in parts.items() if len(parts) > 1},
            **self._spaced(),
            borders=[rounded(each, 3) for each in np.median(self._borders, 0)] if self._borders else [],
            dtypes=sorted(self._dtypes),
            values=values,
            amplitudes=[rounded(each, 3) for each in self._amplitudes.decades],
            foreground=inside.to_list() if inside else [],
            background=outside.to_list() if outside else [],
            target=self.targets.found(parts['train']),
            periods=self._spectrum.periods() if self._spectrum else [],
            groups=groups,
            faults=self.faults.to_list(),
            bytes=self._bytes,
            read=len(self._sizes),
        )

    def _spaced(self) -> dict[str, Any]:
        if not self._spacings:
            return {}
        found = np.array(self._spacings)
        figures = {'min': found.min(0), 'p10': np.percentile(found, 10, axis=0), 'max': found.max(0)}
        return {
            'spacing': tuple(rounded(each) for each in np.median(found, 0)),
            'spacings': {name: [rounded(each) for each in figure] for name, figure in figures.items()},
        }

    def _note_faults(self, values: list[dict[str, Any]]) -> None:
        for channel, figures in enumerate(values):
            if figures['min'] == figures['max']:
                self.faults.add('constant channel', f'channel {channel} is {figures["min"]:g} in all samples')
        deviations = np.array([figures['std'] for figures in values])
        if self._sizes and self._kinds.first and (said := channels_last((self._kinds.first[0], *self._sizes[0]))):
            self.faults.add('channels last', said)
        kind = self._kinds.first
        whole = kind is not None and len(values) == kind[0]  # a channel may have no value at all
        if whole and (hidden := self._columns.vanishing(deviations)) is not None:
            self.faults.add(MIXED_SCALES, COLUMNS.format(hidden))
        if {'uint8', 'uint16'} <= {*self._dtypes}:
            self.faults.add(MIXED_DEPTHS, mixed_depths(self._typed['uint8'], self._typed['uint16']))
        for doubt in self.targets.doubts():
            self.faults.add(*doubt)
        for number, figures in enumerate(self.targets.statistics.to_list() if self.targets.statistics else []):
            if figures['min'] == figures['max'] and self.targets.kind in ('numbers', 'map'):
                self.faults.add('constant target', f'quantity {number} is {figures["min"]:g} in all samples')
        if self.targets.unknown:
            self.faults.add(UNKNOWN_TARGETS, f'{self.targets.unknown} values of the targets are NaN: not known')
        if self.targets.infinite:
            self.faults.add(NOT_FINITE, f'{self.targets.infinite} values of the targets are Inf')
        for first, second in self._repeated():
            self.faults.add('duplicate', f'{second} holds what {first} holds')
        given = self.targets.given
        for code in self.targets.codes if given and self.targets.kind in ('classes', 'class map') else ():
            if code >= len(given or ()) and not self.targets.values:
                self.faults.add('label outside', f'the number {code} is none of the {len(given or ())} classes')
        if self.targets.kind in ('classes', 'class map') and self.targets.codes:
            self._note_gaps()
        for name in self.targets.names:
            if given and name not in given:
                self.faults.add('label outside', f'the class {name!r} is none of {given}')

    def _note_gaps(self) -> None:
        target = self.targets.found(len(self._sizes))
        missing = [number for number, count in enumerate(target.counts) if not count]
        if missing and target.kind in ('classes', 'class map'):
            shown = ', '.join(map(str, missing[:4])) + (', …' if len(missing) > 4 else '')
            self.faults.add('class never met', f'{len(missing)} of {target.outputs} classes are in no target ({shown})')

    def _repeated(self) -> Iterator[tuple[str, str]]:
        marks = np.frombuffer(self._marks, np.int64)
        order = np.argsort(marks, kind='stable')
        same = np.flatnonzero(marks[order][1:] == marks[order][:-1])
        for place in same:
            yield self._owners[order[place]], self._owners[order[place + 1]]
