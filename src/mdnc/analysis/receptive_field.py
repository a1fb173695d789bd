"""Which part of the input a feature depends on, exactly, from the plan alone.

On each axis by itself: a feature's index maps to the first and the last position of the input that can change it.
Convolutions, up-sampling and residual merges map such intervals to intervals; nothing is run.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import nn

from mdnc.analysis.table import table
from mdnc.modules import Network, _checks, _sizes
from mdnc.modules._plan import (
    AveragePool,
    Block,
    Conv,
    Course,
    GlobalPool,
    Layer,
    Linear,
    Plan,
    Single,
    Stage,
    Unit,
    Upsample,
)
from mdnc.modules._sizes import Size

Interval = tuple[int, int]


@dataclass(frozen=True)
class AxisField:
    """The field of each feature along one axis.

    Feature i depends on ``[step·t + first[p], step·t + last[p]]`` with ``t, p = divmod(i, period)``. The period is 1
    but after up-sampling, where neighbouring features see different neighbours below.

    Args:
        step: How far the field moves in the input over one period of features.
        first: First position for each feature of the period; negative ones are padding.
        last: Last position for each feature of the period.
    """

    step: int
    first: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def period(self) -> int:
        """After how many features the pattern repeats."""
        return len(self.first)

    @property
    def stride(self) -> Fraction:
        """How far the field moves from a feature to the next, on average."""
        return Fraction(self.step, self.period)

    @property
    def offset(self) -> int:
        """Where the field of feature 0 begins; with a period of 1, that of feature i begins at i · stride + offset."""
        return self.first[0]

    @property
    def length(self) -> int:
        """Length of the longest field."""
        return max(last - first + 1 for first, last in zip(self.first, self.last, strict=True))

    def interval(self, index: int) -> Interval:
        """First and last position of the input that can change a feature; beyond the input's ends is padding."""
        turn, phase = divmod(index, self.period)
        return self.first[phase] + turn * self.step, self.last[phase] + turn * self.step

    def through(self, reaches: Callable[[int], Interval], rate: Fraction, count: int | None = None) -> 'AxisField':
        """The field of the features of the next layer, each of which reaches from one feature of this one to another.

        Args:
            reaches: The first and the last feature of this layer that a feature depends on.
            rate: How many features of this layer there are for one of the next.
            count: How many features the next layer has, of which each is then told by itself and reaches into no
                padding; ``None`` for any number.
        """
        if count is not None:
            spans = [[min(max(end, 0), self.period - 1) for end in reaches(index)] for index in range(count)]
            return self._of(self.step, [(self.interval(low)[0], self.interval(high)[1]) for low, high in spans])
        # The shortest period after which a whole number of this layer's periods has passed.
        period = (self.period / rate).numerator
        ends = [(self.interval(low)[0], self.interval(high)[1]) for low, high in map(reaches, range(period))]
        return self._of(int(self.step * period * rate / self.period), ends)

    def merged(self, other: 'AxisField') -> 'AxisField':
        """The field of a sum or a concatenation: from the earlier beginning to the later end."""
        period = math.lcm(self.period, other.period)
        pairs = [(self.interval(index), other.interval(index)) for index in range(period)]
        step = self.step * period // self.period
        return self._of(step, [(min(a[0], b[0]), max(a[1], b[1])) for a, b in pairs])

    @staticmethod
    def _of(step: int, ends: list[Interval]) -> 'AxisField':
        first, last = zip(*ends, strict=True)
        return AxisField(step, first, last)


POINT = AxisField(1, (0,), (0,))


@dataclass(frozen=True)
class StageField:
    """The field of the features that a stage, or another layer on the way, gives.

    Args:
        name: Its path in the network.
        axes: The field along each axis.
    """

    name: str
    axes: tuple[AxisField, ...]

    def interval(self, index: Sequence[int], size: Sequence[int] | None = None) -> tuple[Interval, ...]:
        """First and last position of the input, on each axis, that can change a feature.

        Args:
            index: Where the feature is, one int for each axis.
            size: Spatial size of the input, to clip the intervals to it.

        Raises:
            TypeError: An argument is of no ints.
            ValueError: An argument has not one int for each axis, an index is below 0, or the feature is outside.
        """
        order = len(self.axes)
        index = _checks.integers('interval', 'index', index, minimum=0)
        size = None if size is None else _checks.integers('interval', 'size', size)
        if len(index) != order or (size is not None and len(size) != order):
            raise ValueError(f'interval: index={index} and size={size} must have {order} ints, one for each axis.')
        found = tuple(axis.interval(i) for axis, i in zip(self.axes, index, strict=True))
        if size is None:
            return found
        if any(low >= length for (low, _), length in zip(found, size, strict=True)):
            raise ValueError(f'interval: index={index} is no feature of {self.name} for an input of size {size}.')
        return tuple((max(low, 0), min(high, length - 1)) for (low, high), length in zip(found, size, strict=True))


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of a network's layers.

    Args:
        name: Class of the network.
        stages: The field after each part that gives a map, as they run.
    """

    name: str
    stages: tuple[StageField, ...]

    def __getitem__(self, name: str) -> StageField:
        """The field after the part with this path."""
        found = {stage.name: stage for stage in self.stages}
        if name not in found:
            raise KeyError(f'{name!r} is not one of {", ".join(found)}')
        return found[name]

    def __str__(self) -> str:
        """A table: the longest field, the stride and the offset along each axis."""
        rows = [
            (
                stage.name,
                *(
                    ' × '.join(str(getattr(axis, figure)) for axis in stage.axes)
                    for figure in ('length', 'stride', 'offset', 'period')
                ),
            )
            for stage in self.stages
        ]
        return table(('part', 'field', 'stride', 'offset', 'period'), rows)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        stages = [
            {'name': stage.name, 'axes': [{'length': axis.length, **vars(axis)} for axis in stage.axes]}
            for stage in self.stages
        ]
        return {'name': self.name, 'stages': stages}


def receptive_field(net: nn.Module, size: int | Sequence[int] | None = None) -> ReceptiveField:
    """The part of the input that each feature of each map depends on.

    Exact on each axis, through strides, up-sampling, crops, skips and residual merges. It is the field of
    convolutions, interpolation and pools by windows: norms and squeeze-and-excitation are left out, because they make
    each feature depend on its whole plane; so are pools of whole planes and what comes behind them. A decoder's field
    is counted on its smallest map, of which ``conv_in`` makes every position of a whole vector.

    Without a size it holds for every size. It is then the union over all sizes where a single size tells more: where
    linear up-sampling by 3 or 4 reads depends on the size, and so does where a crop by more than one value begins; and
    no axis is taken for too small to be strided.

    Args:
        net: One of mdnc's networks.
        size: Spatial size of the input, one int or one for each axis, for a field that holds for this size.

    Returns:
        The field after each part. ``field[name].interval(index, size)`` maps a feature to an interval of the input.

    Raises:
        TypeError: The network is none of mdnc's, or the size is none.
        ValueError: The network refuses inputs of this size.

    Example:
        >>> import mdnc
        >>> field = receptive_field(mdnc.modules.resnet.EncoderNet2d(8, [1, 1]))
        >>> field['netbody.1'].interval((3, 0), size=(33, 20))
        ((3, 9), (0, 3))
    """
    if not isinstance(net, Network):
        raise TypeError(f'receptive_field: net must be one of the networks of mdnc, not {type(net).__name__}.')
    plan, course = net.plan, None
    if size is not None:
        net.stage_sizes(size)  # refuses what the network can't take
        course = plan.course(_checks.per_axis('receptive_field', 'size', size, len(net.min_size)))
    axes = [_Walk(plan, axis, course).fields() for axis in range(plan.order)]
    names = [name for name in plan.named if name in axes[0]]
    return ReceptiveField(
        type(net).__name__, tuple(StageField(name, tuple(along[name] for along in axes)) for name in names)
    )


@dataclass(frozen=True)
class _Walk:
    """Goes along a plan and carries the field along one axis with it.

    Args:
        plan: The network.
        axis: Which axis.
        course: What becomes of an input of one size; ``None`` for a field that holds for all.
    """

    plan: Plan
    axis: int
    course: Course | None

    def fields(self) -> dict[str, AxisField]:
        """The field of what each part gives that gives a map, by its path as in a course."""
        found, before = ({} if self.plan.in_size == () else {'': self._start('')}), ''
        for part in self.plan.parts:
            field = found.get(part.takes or before)
            before = part.name
            if isinstance(part, Single):
                field = self._single(part, field)
            if isinstance(part, Stage) and field is not None:
                field = self._stage(part, field, found)
            if field is not None:
                found[part.name] = field
        return found

    def _single(self, part: Single, field: AxisField | None) -> AxisField | None:
        if part.vector:
            return self._start(part.name)
        if field is None or any(isinstance(layer, (GlobalPool, Linear)) for layer in part.layers):
            return None
        return self._layers(part.layers, field, None)

    def _start(self, name: str) -> AxisField:
        """Where each feature is one of the input."""
        if self.course is None:
            return POINT
        places = tuple(range(self.course.sizes[name][self.axis]))
        return AxisField(len(places), places, places)

    def _stage(self, stage: Stage, field: AxisField, found: dict[str, AxisField]) -> AxisField:
        stride = self.course.strides[stage.name] if self.course else stage.resize.stride
        for number, block in enumerate(stage.blocks):
            if number == stage.resize_first:
                field = self._joined(stage, field, found)
            if number == len(stage.blocks) - 1:
                found[f'{stage.name}:held'] = field
            field = self._block(block, field, stride if block is stage.resizing else None)
        if stage.resize_first and not stage.still:
            field = self._joined(stage, field, found)
        return field if stage.size is None else self._cropped(field, stage.name)

    def _joined(self, stage: Stage, field: AxisField, found: dict[str, AxisField]) -> AxisField:
        source = stage.skip or stage.like
        if not source:
            return field
        field = self._cropped(field, source)
        return field.merged(found[stage.skip]) if stage.skip else field

    def _cropped(self, field: AxisField, to: str) -> AxisField:
        """Crop around the centre, to the size of what a name stands for."""
        if self.course is not None:
            count = self.course.sizes[to][self.axis]
            start = _sizes.crop_start(field.period, count)
            return field.through(lambda index: (index + start, index + start), Fraction(1), count)
        # Up-sampling gives less than its factor too much, so that a crop by a factor of 2 takes nothing off the front.
        factors = [each.resize.stride[self.axis] for each in self.plan.stages]
        most = (max(factors) - 1) // 2
        return field.through(lambda index: (index, index + most), Fraction(1))

    def _block(self, block: Block | Unit, field: AxisField, stride: Size | None) -> AxisField:
        if isinstance(block, Unit):
            return self._layers(block.layers, field, stride)
        given = field
        for unit in block.units:
            field = self._layers(unit.layers, field, stride)
        return field.merged(given if block.shortcut is None else self._layers(block.shortcut.layers, given, stride))

    def _layers(self, layers: Sequence[Layer], field: AxisField, stride: Size | None) -> AxisField:
        for layer in layers:
            found = _reach(layer, self.axis, stride, None if self.course is None else field.period)
            if found is not None:
                reaches, rate = found
                count = None if self.course is None else math.ceil(field.period / rate)
                field = field.through(reaches, rate, count)
        return field


def _reach(
    layer: Layer, axis: int, stride: Size | None, length: int | None
) -> tuple[Callable[[int], Interval], Fraction] | None:
    """From which to which feature a feature of a layer reaches, and how many it takes for one that it gives.

    ``stride`` stands in for that of a layer that resizes, ``length`` is that of the map, if it is known.
    """
    own = layer.factors if isinstance(layer, Upsample) else getattr(layer, 'stride', None)
    if own is None:
        return None
    step = (stride if stride is not None and max(own) > 1 else own)[axis]
    if isinstance(layer, Conv):
        kernel, padding = layer.kernel[axis], layer.padding[axis]
        if layer.transposed:
            # Feature i goes to i·step − padding … i·step − padding + kernel − 1.
            return lambda j: (-((kernel - 1 - padding - j) // step), (j + padding) // step), Fraction(1, step)
        return lambda j: (step * j - padding, step * j - padding + kernel - 1), Fraction(step)
    if isinstance(layer, AveragePool):
        return lambda j: (step * j, step * j + step - 1), Fraction(step)
    if layer.mode == 'nearest':
        return lambda j: (j // step, j // step), Fraction(1, step)
    return (lambda j: _interpolated(j, step, length)), Fraction(1, step)


def _interpolated(index: int, factor: int, length: int | None) -> Interval:
    """From which to which feature linear interpolation to a multiple of the length n, with aligned corners, reads.

    Feature j is read at j·(n − 1)/(s·n − 1), which is below j/s by at most (s − 1)/s: between j/s − 1 and j/s for a
    multiple of s, and for a factor of 2 between (j − 1)/2 and (j + 1)/2 for an odd j, whatever n is.
    At the ends, where it is read at one position only, the other is outside the map, and its field reaches no further
    into the input.
    """
    if length is not None:
        place = Fraction(index * (length - 1), factor * length - 1) if factor * length > 1 else Fraction(0)
        return math.floor(place), math.ceil(place)
    return (index - factor + 1) // factor, -(-index // factor)
