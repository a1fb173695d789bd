"""What a planner must know of data: sizes, values, targets and faults, as plain values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mdnc.modules._checks import integer, integers, spatial_order, word

# none; names of classes; whole numbers of classes; quantities; several 0 and 1; maps of whole numbers, of quantities
KINDS = ('none', 'names', 'classes', 'numbers', 'labels', 'class map', 'map')


# Kinds of faults that a planner reads.
MIXED_DEPTHS = 'mixed depths'
MIXED_SCALES = 'positions of several scales'
NOT_FINITE = 'not finite'
UNKNOWN_TARGETS = 'unknown targets'


@dataclass(frozen=True)
class Target:
    """What the targets are.

    Args:
        kind: ``'none'``, ``'names'`` or ``'classes'`` (one class a sample, by name or by whole number), ``'numbers'``
            (quantities of a sample), ``'labels'`` (several, each 0 or 1), ``'class map'`` or ``'map'`` (classes or
            quantities at each position).
        outputs: How many values or channels a network must give: classes or quantities; 0 where there are no targets.
        classes: Names of the classes, where targets are names or the data say them.
        counts: Samples, or positions, of each class.
        codes: The whole numbers in the data that stand for the classes 0, 1, …, where these are others.
        ignore: A whole number in class maps that stands for "not known".
        objects: Sizes of the connected parts of each class in voxels, by its number: ``parts`` (how many were
            measured), ``median`` and ``largest`` for each axis.
        values: Figures of each quantity.

    Example:
        >>> import numpy as np
        >>> from mdnc.planning import read_fingerprint
        >>> from mdnc.training import ArrayData
        >>> data = ArrayData(np.random.default_rng(0).normal(size=(40, 1, 64)).astype('f4'), np.arange(40) % 2)
        >>> target = read_fingerprint(data.pairs()).target
        >>> target.kind, target.outputs, target.counts
        ('classes', 2, [20, 20])
    """

    kind: str = 'none'
    outputs: int = 0
    classes: list[str] | None = None
    counts: list[int] = field(default_factory=list)
    codes: list[int] | None = None
    ignore: int | None = None
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        word('Target', 'kind', self.kind, KINDS)
        integer('Target', 'outputs', self.outputs, minimum=0)

    @property
    def shares(self) -> list[float]:
        """Share of each class."""
        total = max(sum(self.counts), 1)
        return [count / total for count in self.counts]


@dataclass(frozen=True)
class Fingerprint:
    """What is known of data.

    Args:
        order: Number of spatial axes.
        samples: How many there are to be divided, at least 1.
        channels: Channels of a sample.
        size: Median spatial size.
        least: Smallest length of each axis over all samples; None for ``size``.
        most: Largest length of each axis; None for ``size``.
        parts: Samples of the parts that the data themselves name.
        spacing: Median distance of two values along each axis (mm, or seconds), where it is known.
        spacings: ``min``, ``p10`` and ``max`` of these distances.
        borders: Share of each axis that is empty border, in the median sample.
        dtypes: Types of the stored values.
        values: Figures of each channel.
        amplitudes: How far samples differ in amplitude, of each channel: the standard deviation, over samples, of log10
            of their own standard deviation.
        foreground: The same where a class map is above 0.
        background: The same where it is 0.
        target: What the targets are.
        periods: Dominant periods of signals: ``length`` in values and ``share`` of the power.
        groups: Groups that names of files show: ``count``, ``example``, and ``keys`` with their samples.
        faults: What is wrong: ``kind``, ``count``, ``text``.
        bytes: What was read.
        read: How many samples could be read.
        training: How many of the samples a given split trains on; None where no split is given.

    Example:
        >>> Fingerprint(order=3, samples=20, channels=1, size=(19, 320, 256)).values_a_sample
        1556480
    """

    order: int
    samples: int
    channels: int
    size: tuple[int, ...]
    least: tuple[int, ...] | None = None
    most: tuple[int, ...] | None = None
    parts: dict[str, int] = field(default_factory=dict)
    spacing: tuple[float, ...] | None = None
    spacings: dict[str, list[float]] = field(default_factory=dict)
    borders: list[float] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    values: list[dict[str, Any]] = field(default_factory=list)
    foreground: list[dict[str, Any]] = field(default_factory=list)
    background: list[dict[str, Any]] = field(default_factory=list)
    target: Target = field(default_factory=Target)
    periods: list[dict[str, float]] = field(default_factory=list)
    groups: dict[str, Any] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    bytes: int = 0
    read: int | None = None
    training: int | None = None
    amplitudes: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        spatial_order('Fingerprint', self.order)
        for name in ('samples', 'channels'):
            integer('Fingerprint', name, getattr(self, name))
        for name in ('size', 'least', 'most'):
            given = self.size if getattr(self, name) is None else getattr(self, name)
            found = integers('Fingerprint', name, given)
            if len(found) != self.order:
                raise ValueError(f'Fingerprint: {name}={given!r} must have {self.order} lengths, one for each axis.')
            object.__setattr__(self, name, found)
        if self.spacing is not None:
            object.__setattr__(self, 'spacing', tuple(float(each) for each in self.spacing))

    def has(self, fault: str) -> bool:
        """Whether something of this kind is wrong."""
        return any(each['kind'] == fault for each in self.faults)

    @property
    def varied(self) -> bool:
        """Whether samples differ in size."""
        return self.least != self.most

    @property
    def values_a_sample(self) -> int:
        """Positions of the median sample."""
        count = 1
        for length in self.size:
            count *= length
        return count

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> 'Fingerprint':
        """A fingerprint of what `to_dict` gave.

        Raises:
            ValueError: It holds words that are none of a fingerprint's.
        """
        known = {each.name for each in fields(Fingerprint)}
        strange = sorted(set(values) - known)
        if strange:
            raise ValueError(f'Fingerprint: {strange[0]!r} is no word of a fingerprint.')
        return Fingerprint(**{**values, 'target': Target(**values.get('target', {}))})
