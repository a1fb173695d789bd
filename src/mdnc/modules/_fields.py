"""Which part of the input a feature depends on, along one axis, from a plan alone. No torch here.

A feature's index maps to the first and the last position of the input that can change it. Convolutions, up-sampling
and residual merges map such intervals to intervals; nothing is run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from mdnc.modules._plan import AveragePool, Block, Conv, Layer, Part, Plan, Single, Stage, Unit, Upsample

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

    def _strided(self, stride: int, reaches: Callable[[int], Interval]) -> 'AxisField':
        period = self.period // math.gcd(self.period, stride)
        return self._mapped(period, self.step * stride * period // self.period, reaches)

    def convolved(self, kernel: int, stride: int = 1) -> 'AxisField':
        """The field after a convolution with an odd kernel, padded by half of it."""
        half = kernel // 2
        return self._strided(stride, lambda index: (stride * index - half, stride * index + half))

    def pooled(self, stride: int) -> 'AxisField':
        """The field after an average over windows of the stride."""
        return self._strided(stride, lambda index: (stride * index, stride * index + stride - 1))

    def grown(self, factor: int, mode: str = 'linear') -> 'AxisField':
        """The field after interpolation to so many times the length n, linear with aligned corners or nearest.

        With aligned corners feature j is read at j·(n − 1)/(factor·n − 1), which lies between (j − factor + 1)/factor
        and j/factor whatever n is, so from the feature at or below the former to that at or above the latter. At the
        ends, where it is read at one position only, another is outside the map, and its field reaches no further into
        the input.
        """
        below, above = (factor - 1, factor - 1) if mode == 'linear' else (0, 0)
        return self._mapped(factor * self.period, self.step, lambda j: ((j - below) // factor, (j + above) // factor))

    def transposed(self, kernel: int, stride: int, padding: int) -> 'AxisField':
        """The field after a transposed convolution to ``stride`` times the length.

        Features that no tap of a kernel shorter than the stride reaches are said to depend on their neighbour.
        """

        def reaches(index: int) -> Interval:
            high = (index + padding) // stride
            return min(high, -((kernel - 1 - padding - index) // stride)), high

        return self._mapped(stride * self.period, self.step, reaches)

    def cropped(self, most: int) -> 'AxisField':
        """The field after a crop that begins at 0 or, for some sizes of the input, as late as at ``most``."""
        return self._mapped(self.period, self.step, lambda index: (index, index + most)) if most else self

    def merged(self, other: 'AxisField') -> 'AxisField':
        """The field of a sum or a concatenation: from the earlier beginning to the later end."""
        period = math.lcm(self.period, other.period)
        pairs = [(self.interval(index), other.interval(index)) for index in range(period)]
        step = self.step * period // self.period
        return AxisField(step, tuple(min(a[0], b[0]) for a, b in pairs), tuple(max(a[1], b[1]) for a, b in pairs))


POINT = AxisField(1, (0,), (0,))


def fields(plan: Plan, axis: int) -> dict[str, AxisField]:
    """The field along one axis of what each part gives, by its path; also of what it takes and hands on, as in `Course`.

    It is the field of convolutions, pools over windows, up-sampling, crops and merges. Norms and gates are left out,
    for they make each feature depend on its whole plane; so are global pools and what stands behind them. Of a network
    that takes a vector it is counted on the first map, every position of which the whole vector makes. With
    ``small='keep'`` it is that of inputs which are large enough for all strides.
    """
    found, before = {'': POINT}, ''
    for part in plan.parts:
        field = found[part.takes or before]
        found[f'{part.name}:in'] = field
        if isinstance(part, Stage):
            _through_stage(part, axis, field, found, plan.named.get(part.takes or before))
        elif isinstance(part, Single):
            found[part.name] = POINT if part.vector else _through(part.layers, axis, field)
        before = part.name
    return found


def _through_stage(stage: Stage, axis: int, field: AxisField, found: dict[str, AxisField], source: Part | None) -> None:
    grown = stage if stage.resize_first else source

    def joined(field: AxisField) -> AxisField:
        if not (stage.skip or stage.like):
            return field
        field = field.cropped(_latest_crop(grown, axis))
        return field.merged(found[stage.skip]) if stage.skip else field

    for number, block in enumerate(stage.blocks):
        if number == stage.resize_first:
            field = joined(field)
        if number == len(stage.blocks) - 1:
            found[f'{stage.name}:held'] = field
        field = _through_block(block, axis, field)
    if stage.resize_first and not stage.still:
        field = joined(field)
    found[stage.name] = field if stage.size is None else field.cropped(_latest_crop(stage, axis))


def _latest_crop(part: Part | None, axis: int) -> int:
    # An up-sampling gives less than its factor too much, and crops are centred.
    return (part.resize.stride[axis] - 1) // 2 if isinstance(part, Stage) and part.resize.way == 'up' else 0


def _through_block(block: Block | Unit, axis: int, field: AxisField) -> AxisField:
    if isinstance(block, Unit):
        return _through(block.layers, axis, field)
    shortcut = field if block.shortcut is None else _through(block.shortcut.layers, axis, field)
    for unit in block.units:
        field = _through(unit.layers, axis, field)
    return field.merged(shortcut)


def _through(layers: tuple[Layer, ...], axis: int, field: AxisField) -> AxisField:
    for layer in layers:
        if isinstance(layer, Upsample):
            field = field.grown(layer.factors[axis], layer.mode)
        elif isinstance(layer, AveragePool):
            field = field.pooled(layer.stride[axis])
        elif isinstance(layer, Conv) and layer.transposed:
            field = field.transposed(layer.kernel[axis], layer.stride[axis], layer.padding[axis])
        elif isinstance(layer, Conv):
            field = field.convolved(layer.kernel[axis], layer.stride[axis])
    return field
