"""Receptive fields: which part of the input a feature depends on, along one axis, computed from a plan without torch.

A feature's index maps to the first and the last position of the input that can change it. Convolutions, up-sampling
and residual merges map such intervals to intervals; nothing is run.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

from mdnc.modules import _sizes
from mdnc.modules._plan import (
    AveragePool,
    Block,
    Conv,
    Course,
    GlobalPool,
    Layer,
    Linear,
    Part,
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
    except after up-sampling, where neighbouring features see different neighbours below.

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


def fields(plan: Plan, axis: int, course: Course | None = None) -> dict[str, AxisField]:
    """The field along one axis of what each part gives, by its path, and of what it takes and hands on, as in `Course`.

    It is the field of convolutions, pools over windows, up-sampling, crops and merges. Norms and gates are left out,
    for they make each feature depend on its whole plane; layers after a global pool have no field. Of a
    network that takes a vector it is counted on the first map, every position of which the whole vector makes.

    Args:
        plan: The network.
        axis: Which axis.
        course: What becomes of an input of one size, for a field that holds for this size exactly. ``None`` for all
            that are large enough for all strides: then it is the union over all of them where a size tells more, for
            linear up-sampling by 3 or 4, and for crops by more than one value.
    """
    return _Walk(plan, axis, course).fields()


@dataclass(frozen=True)
class _Walk:
    """Goes along a plan and carries the field along one axis with it; arguments as in `fields`."""

    plan: Plan
    axis: int
    course: Course | None

    def fields(self) -> dict[str, AxisField]:
        """The field of what each name stands for."""
        found, before = ({} if self.plan.in_size == () else {'': self._start('')}), ''
        for part in self.plan.parts:
            source = part.takes or before
            field, before = found.get(source), part.name
            if field is not None:
                found[f'{part.name}:in'] = field
            if isinstance(part, Stage) and field is not None:
                found[part.name] = self._stage(part, field, found, self.plan.named.get(source))
            elif isinstance(part, Single) and part.vector:
                found[part.name] = self._start(part.name)
            elif isinstance(part, Single) and field is not None and not _ends(part):
                found[part.name] = self._layers(part.layers, field, None)
        return found

    def _start(self, name: str) -> AxisField:
        """Where each feature is one of the input."""
        if self.course is None:
            return POINT
        places = tuple(range(self.course.sizes[name][self.axis]))
        return AxisField(len(places), places, places)

    def _stage(self, stage: Stage, field: AxisField, found: dict[str, AxisField], source: Part | None) -> AxisField:
        stride = self.course.strides[stage.name] if self.course else stage.resize.stride
        grown = stage if stage.resize_first else source
        for number, block in enumerate(stage.blocks):
            if number == stage.resize_first:
                field = self._joined(stage, field, found, grown)
            if number == len(stage.blocks) - 1:
                found[f'{stage.name}:held'] = field
            field = self._block(block, field, stride if block is stage.resizing else None)
        if stage.resize_first and not stage.still:
            field = self._joined(stage, field, found, grown)
        return field if stage.size is None else self._cropped(field, stage.name, stage)

    def _joined(self, stage: Stage, field: AxisField, found: dict[str, AxisField], grown: Part | None) -> AxisField:
        name = stage.skip or stage.like
        field = self._cropped(field, name, grown) if name else field
        return field.merged(found[stage.skip]) if stage.skip else field

    def _cropped(self, field: AxisField, name: str, grown: Part | None) -> AxisField:
        """Crop what a part has grown, around the centre, to the size of what a name stands for."""
        if self.course is not None:
            count = self.course.sizes[name][self.axis]
            start = _sizes.crop_start(field.period, count)
            return field.through(lambda index: (index + start, index + start), Fraction(1), count)
        # An up-sampling gives less than its factor too much.
        up = isinstance(grown, Stage) and grown.resize.way == 'up'
        most = (grown.resize.stride[self.axis] - 1) // 2 if isinstance(grown, Stage) and up else 0
        return field.through(lambda index: (index, index + most), Fraction(1)) if most else field

    def _block(self, block: Block | Unit, field: AxisField, stride: Size | None) -> AxisField:
        if isinstance(block, Unit):
            return self._layers(block.layers, field, stride)
        shortcut = field if block.shortcut is None else self._layers(block.shortcut.layers, field, stride)
        for unit in block.units:
            field = self._layers(unit.layers, field, stride)
        return field.merged(shortcut)

    def _layers(self, layers: Iterable[Layer], field: AxisField, stride: Size | None) -> AxisField:
        for layer in layers:
            found = _reach(layer, self.axis, stride, None if self.course is None else field.period)
            if found is not None:
                reaches, rate = found
                field = field.through(reaches, rate, None if self.course is None else math.ceil(field.period / rate))
        return field


def _ends(part: Single) -> bool:
    return any(isinstance(layer, (GlobalPool, Linear)) for layer in part.layers)


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
            # Feature i goes to i·step − padding … i·step − padding + kernel − 1. Where the kernel is shorter than the
            # step, features that none goes to are said to depend on their neighbour.
            return lambda j: (_least(j + padding, kernel, step), (j + padding) // step), Fraction(1, step)
        return lambda j: (step * j - padding, step * j - padding + kernel - 1), Fraction(step)
    if isinstance(layer, AveragePool):
        return lambda j: (step * j, step * j + step - 1), Fraction(step)
    if isinstance(layer, Upsample) and layer.mode == 'nearest':
        return lambda j: (j // step, j // step), Fraction(1, step)
    return (lambda j: _interpolated(j, step, length)), Fraction(1, step)


def _least(place: int, kernel: int, step: int) -> int:
    return min(place // step, -((kernel - 1 - place) // step))


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
