"""Layout of a picture of a network, from its plan: columns of slabs, skips between them, and texts."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mdnc.analysis.table import count_text
from mdnc.modules import Network, _sizes
from mdnc.modules._plan import Block, Conv, Course, GlobalPool, Linear, Part, Plan, Single, Stage, Unit
from mdnc.modules._sizes import Size

Role = Literal['conv', 'down', 'up', 'keep', 'middle', 'vector', 'layer']
Shortcut = Literal['', 'identity', 'conv']


@dataclass(frozen=True)
class Slab:
    """A convolution or a residual block.

    Args:
        planes: Output channels.
        before: Side of its input, relative to the largest map.
        after: Side of its output.
        shortcut: Layers of its shortcut; empty if there is none.
    """

    planes: int
    before: float
    after: float
    shortcut: Shortcut = ''


@dataclass(frozen=True)
class Column:
    """A part of the network.

    Args:
        name: Its path.
        role: How it changes the size, or its kind.
        slabs: Its convolution or blocks, in the order they run.
        cells: A text for each row of the sketch.
    """

    name: str
    role: Role
    slabs: tuple[Slab, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Skip:
    """A connection to a column from one that is not just before it.

    Args:
        giver: Index of its source column, before or after the last slab.
        taker: Index of its target column, before or after the first slab.
        planes: Channels, or the length of a vector.
        held: Whether it starts before the last slab.
        late: Whether it ends after the first slab.
        joins: Whether the target also has the column just before it as input.
    """

    giver: int
    taker: int
    planes: int
    held: bool = True
    late: bool = False
    joins: bool = True


@dataclass(frozen=True)
class Sketch:
    """The content of a picture.

    Args:
        title: Description of the network.
        columns: Its parts in the order they run.
        rows: Names of the texts below each part.
        skips: Skips between them, the longest first.
        source: Text on the input.
        result: Text on the output.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[str, ...]
    skips: tuple[Skip, ...]
    source: str
    result: str


def sketch(net: Network, size: Size | None) -> Sketch:
    """Make the sketch of a network: a column for each part with weights, without pools and training-only parts.

    Args:
        net: The network.
        size: Spatial size of the input; ``None`` to give sizes relative to the largest map. Networks with a single
            size have their own.
    """
    plan, known = net.plan, size is not None or net.plan.in_size is not None
    course = plan.course(size or tuple(_sizes.MIN_VALUES * step for step in plan.reduction))
    shown = [part for part in plan.parts if _is_shown(part)]
    columns = _Columns(net, course, known)
    rows = ('gives channels', 'of size' if known else 'of size (input: 1)', 'blocks', 'parameters')
    return Sketch(
        _title(net),
        tuple(columns.column(part) for part in shown),
        rows,
        tuple(_skips(plan, [part.name for part in shown])),
        columns.words('', plan.in_planes),
        ' and '.join(columns.words(name, plan.planes[name]) for name in plan.results(training=False)),
    )


@dataclass(frozen=True)
class _Columns:
    """Makes the columns of a network for an input of one size.

    Args:
        net: The network.
        course: Sizes within the network.
        known: Whether the sizes are those of a real input.
    """

    net: Network
    course: Course
    known: bool

    def column(self, part: Part) -> Column:
        """A part as a column."""
        count = sum(parameter.numel() for parameter in self.net.get_submodule(part.name).parameters())
        blocks = f'{sum(isinstance(each, Block) for each in part.blocks)}' if isinstance(part, Stage) else ''
        cells = (f'{self.net.plan.planes[part.name]}', self.size(part.name), blocks, count_text(count))
        slabs = self._stage_slabs(part) if isinstance(part, Stage) else (self._slab(part),)
        return Column(part.name, _role(self.net.plan, part), slabs, cells)

    def words(self, name: str, planes: int) -> str:
        """Text on the input or an output."""
        if not self.course.sizes[name]:
            return f'vector of {planes}'
        size = _sizes.text(self.course.sizes[name])
        return f'{planes} × {size}' if self.known else f'{planes} channel{"s" * (planes > 1)}'

    def size(self, name: str) -> str:
        """A size, or a fraction of the input's size if it is unknown."""
        size = self.course.sizes[name]
        if not size:
            return 'vector'
        if self.known:
            return _sizes.text(size)
        shares = [f'{Fraction(length, whole)}' for length, whole in zip(size, self.course.sizes[''], strict=True)]
        return shares[0] if len(set(shares)) == 1 else ' × '.join(shares)

    def _slab(self, part: Part) -> Slab:
        # Parts with a vector are drawn as high as the map on their other side.
        planes = self.net.plan.planes
        side = self._side(self.course.sizes[part.name] or self._last_map)
        return Slab(planes[f'{part.name}:in' if isinstance(part, Single) and part.vector else part.name], side, side)

    def _stage_slabs(self, stage: Stage) -> tuple[Slab, ...]:
        sizes, own = self.course.sizes, stage.blocks.index(stage.resizing)
        before, after = (self._side(sizes[f'{stage.name}{which}']) for which in (':in', ''))
        sides = [before] * (own + 1) + [after] * (len(stage.blocks) - own)
        return tuple(
            Slab(block.planes[1], sides[i], sides[i + 1], _shortcut(block)) for i, block in enumerate(stage.blocks)
        )

    @property
    def _last_map(self) -> Size:
        # After the last map there is only a pool or a vector.
        names = [stage.name for stage in self.net.plan.stages]
        return self.course.sizes[names[-1]]

    def _side(self, size: Size) -> float:
        # Side of a cube with as many values: one axis may shrink while another is kept.
        largest = max(math.prod(each) for each in self.course.sizes.values() if each)
        return float((math.prod(size) / largest) ** (1 / len(size)))


def _is_shown(part: Part) -> bool:
    pools = isinstance(part, Single) and any(isinstance(layer, GlobalPool) for layer in part.layers)
    return bool(part.tensors) and not part.training and not pools


def _role(plan: Plan, part: Part) -> Role:
    if isinstance(part, Stage):
        middle = plan.stages.index(part) == _turn(plan)
        return 'middle' if middle else part.resize.way if part.resize else 'keep'
    layers = part.layers if isinstance(part, Single) else ()
    if isinstance(part, Single) and (part.vector or isinstance(layers[-1], Linear)):
        return 'vector'
    return 'conv' if any(isinstance(layer, Conv) for layer in layers) else 'layer'


def _turn(plan: Plan) -> int | None:
    """Index of the stage with the smallest maps, between encoder and decoder."""
    ways = [stage.resize.way for stage in plan.stages]
    up = next((i for i, way in enumerate(ways) if way == 'up' and 'down' in ways[:i]), None)
    return None if up is None else up - plan.stages[up].resize_first


def _shortcut(block: Block | Unit) -> Shortcut:
    if isinstance(block, Unit):
        return ''
    return 'identity' if block.shortcut is None else 'conv'


def _skips(plan: Plan, columns: list[str]) -> Iterator[Skip]:
    names = list(plan.named)
    for name in reversed(columns):
        part = plan.named[name]
        source = part.skip if isinstance(part, Stage) else part.takes
        if source:
            giver, _, held = source.partition(':')
            at = max(i for i, column in enumerate(columns) if names.index(column) <= names.index(giver))
            late = isinstance(part, Stage) and part.resize_first
            yield Skip(at, columns.index(name), plan.planes[source], held == 'held', late, isinstance(part, Stage))


def _title(net: Network) -> str:
    plan = net.plan
    blocks = [each for stage in plan.stages for each in stage.blocks]
    kinds = sorted({block.kind for block in blocks if isinstance(block, Block)})
    units = (unit for each in blocks for unit in (each.units if isinstance(each, Block) else (each,)))
    kernels = sorted({unit.conv.kernel for unit in units if max(unit.conv.kernel) > 1} or {(1,) * plan.order})
    kernel = _sizes.text(kernels[0]) + (f' to {_sizes.text(kernels[-1])}' if kernels[1:] else '')
    count = sum(parameter.numel() for parameter in net.parameters())
    return (
        f'{type(net).__name__} · {plan.nlayers} layers · {count:,} parameters · {" and ".join(kinds)} blocks · '
        f'kernel {kernel}'
    )
