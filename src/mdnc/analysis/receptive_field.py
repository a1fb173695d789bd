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

from mdnc.analysis.parts import part_names
from mdnc.analysis.table import table
from mdnc.modules import Network, _checks, _sizes
from mdnc.modules._plan import Plan

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

    def _mapped(self, period: int, step: int, reaches: Callable[[int], Interval]) -> 'AxisField':
        # Features of the next layer, each of which reaches from one feature of this one to another.
        spans = [reaches(index) for index in range(period)]
        first = tuple(self.interval(low)[0] for low, _ in spans)
        return AxisField(step, first, tuple(self.interval(high)[1] for _, high in spans))

    def convolved(self, kernel: int, stride: int = 1) -> 'AxisField':
        """The field after a convolution with an odd kernel, padded by half of it."""
        period = self.period // math.gcd(self.period, stride)
        step = self.step * stride * period // self.period
        half = kernel // 2
        return self._mapped(period, step, lambda index: (stride * index - half, stride * index + half))

    def doubled(self) -> 'AxisField':
        """The field after linear interpolation to twice the length n with aligned corners.

        Feature j is read at j·(n − 1)/(2n − 1), which is below j/2 by less than a half: between j/2 − 1 and j/2 for
        an even j, between (j − 1)/2 and (j + 1)/2 for an odd one, whatever n is. At the ends, where it is read at one
        position only, the other is outside the map, and its field reaches no further into the input.
        """
        return self._mapped(2 * self.period, self.step, lambda index: ((index - 1) // 2, (index + 1) // 2))

    def merged(self, other: 'AxisField') -> 'AxisField':
        """The field of a sum or a concatenation: from the earlier beginning to the later end."""
        period = math.lcm(self.period, other.period)
        pairs = [(self.interval(index), other.interval(index)) for index in range(period)]
        step = self.step * period // self.period
        return AxisField(step, tuple(min(a[0], b[0]) for a, b in pairs), tuple(max(a[1], b[1]) for a, b in pairs))


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
        stages: The field after each stage, and after the convolutions before and behind them, as they run.
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


def receptive_field(net: nn.Module) -> ReceptiveField:
    """The part of the input that each feature of each stage depends on.

    Exact on each axis, through strides, up-sampling, crops, skips and residual merges, for every input size. It is
    the field of the convolutions: norms are left out, because an instance norm makes each feature depend on its whole
    plane; so are an encoder's average pool and linear layer. A decoder's field is counted on its smallest map, of
    which ``conv_in`` makes every position of a whole vector.

    Args:
        net: One of mdnc's networks.

    Returns:
        The field after each stage. ``field[name].interval(index, size)`` maps a feature to an interval of the input.

    Raises:
        TypeError: The network is none of mdnc's.

    Example:
        >>> import mdnc
        >>> field = receptive_field(mdnc.modules.resnet.EncoderNet2d(8, [1, 1]))
        >>> field['netbody.1'].interval((3, 0), size=(33, 20))
        ((3, 9), (0, 3))
    """
    if not isinstance(net, Network):
        raise TypeError(f'receptive_field: net must be one of the networks of mdnc, not {type(net).__name__}.')
    axes = zip(*(_along(net.plan, axis) for axis in range(net.plan.order)), strict=True)
    names = part_names(net.plan)
    return ReceptiveField(
        type(net).__name__, tuple(StageField(name, fields) for name, fields in zip(names, axes, strict=True))
    )


def _along(plan: Plan, axis: int) -> list[AxisField]:
    """The field along one axis after the first convolution, each stage, and the last convolution."""
    kernel, outer = plan.kernel[axis], _sizes.outer_kernel(plan.kernel)[axis]
    first, last = {'encoder': (outer, kernel), 'decoder': (kernel, outer)}.get(plan.family, (outer, outer))
    fields = [POINT.convolved(first)]
    held: list[AxisField] = []
    for stage in plan.stages:
        field = fields[-1]
        if stage.skip_planes:
            field = field.merged(held.pop())  # crops of a level's size begin at 0: they take one value off the end
        for _ in range(stage.depth - 1):
            field = _block(field, plan.block, kernel, 'keep')
        if stage.holds:
            held.append(field)
        fields.append(_block(field, plan.block, kernel, stage.resize if plan.stride[axis] > 1 else 'keep'))
    return [*fields, fields[-1].convolved(last)]


def _block(field: AxisField, block: str, kernel: int, resize: str) -> AxisField:
    inner = field.convolved(kernel) if block == 'plain' else field  # a bottleneck begins and ends with 1 × 1
    if resize == 'up':
        return inner.doubled().convolved(kernel).merged(field.doubled())
    stride = 2 if resize == 'down' else 1
    return inner.convolved(kernel, stride).merged(field.convolved(1, stride))
