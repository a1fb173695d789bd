"""Exact receptive fields of features, computed from the plan."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mdnc.analysis.table import table
from mdnc.modules import Network, _checks
from mdnc.modules._receptive_field import AxisField, Interval, fields


@dataclass(frozen=True)
class StageField:
    """Receptive field of the output features of a stage or layer.

    Args:
        name: Its path in the network.
        axes: The field along each axis.
    """

    name: str
    axes: tuple[AxisField, ...]

    def interval(self, index: Sequence[int], size: Sequence[int] | None = None) -> tuple[Interval, ...]:
        """First and last position of the input, on each axis, that can change a feature.

        Args:
            index: Position of the feature, one int for each axis.
            size: Spatial size of the input, to clip the intervals to it.

        Raises:
            TypeError: An argument does not contain ints.
            ValueError: An argument does not have one int for each axis, an index is below 0, or the feature is outside.
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
            raise ValueError(f'interval: index={index} is not a feature of {self.name} for an input of size {size}.')
        return tuple((max(low, 0), min(high, length - 1)) for (low, high), length in zip(found, size, strict=True))


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of a network's layers.

    Args:
        name: Class of the network.
        stages: The field after each part that returns a map, in the order they run.

    Example:
        >>> import mdnc
        >>> field = mdnc.analysis.receptive_field(mdnc.modules.resnet.EncoderNet2d(8, [1, 1]))
        >>> print(field)
        part         field  stride   offset  period
        ───────────────────────────────────────────
        netbody.0    5 × 5   1 × 1  -2 × -2   1 × 1
        netbody.1    7 × 7   2 × 2  -3 × -3   1 × 1
        netbody.2  11 × 11   4 × 4  -5 × -5   1 × 1
        netbody.3  19 × 19   4 × 4  -9 × -9   1 × 1
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
        """The fields as plain data for JSON."""
        stages = [
            {'name': stage.name, 'axes': [{'length': axis.length, **vars(axis)} for axis in stage.axes]}
            for stage in self.stages
        ]
        return {'name': self.name, 'stages': stages}


def receptive_field(net: nn.Module, size: int | Sequence[int] | None = None) -> ReceptiveField:
    """Receptive fields: the part of the input that each feature of each map depends on.

    Exact on each axis, through strides, up-sampling, crops, skips and residual merges. It is the field of
    convolutions, interpolation and pools by windows: norms and squeeze-and-excitation are ignored, because they make
    each feature depend on its whole plane, and so are global pools and layers after them. For a decoder the field is
    relative to its smallest map, since every position of it depends on the whole vector.

    Without a size, the result holds for every size. It is then the union over all sizes if the field depends on the
    size, as for linear up-sampling by 3 or 4 and for crops by more than one value; and all axes are assumed to be large
    enough for all strides.

    Args:
        net: One of mdnc's networks.
        size: Spatial size of the input, one int or one for each axis, for a field that holds for this size.

    Returns:
        The field after each part. ``field[name].interval(index, size)`` maps a feature to an interval of the input.

    Raises:
        TypeError: The network is not of mdnc, or the size has the wrong type.
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
        net.stage_sizes(size)  # refuses sizes that are too small
        course = plan.course(_checks.per_axis('receptive_field', 'size', size, len(net.min_size)))
    axes = [fields(plan, axis, course) for axis in range(plan.order)]
    names = [name for name in plan.named if name in axes[0] and not plan.named[name].training]
    return ReceptiveField(
        type(net).__name__, tuple(StageField(name, tuple(along[name] for along in axes)) for name in names)
    )
