"""What a picture of a network shows, read off its plan: columns of slabs, the skips between them, and their words."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from torch import nn

from mdnc.analysis.parts import part_names
from mdnc.analysis.table import count_text
from mdnc.modules import Network, _sizes
from mdnc.modules._plan import Plan, StagePlan
from mdnc.modules._sizes import Size

Role = Literal['conv', 'down', 'up', 'keep', 'middle', 'vector']
Shortcut = Literal['', 'identity', 'conv']


@dataclass(frozen=True)
class Slab:
    """A convolution or a residual block.

    Args:
        planes: Channels that it gives.
        before: Side of what it takes, relative to the largest map.
        after: Side of what it gives.
        shortcut: What its shortcut is made of; empty for what has none.
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
        role: What it does to the size, or what it is.
        slabs: Its convolution or blocks, as they run.
        cells: Its words, a text for each of the sketch's rows.
    """

    name: str
    role: Role
    slabs: tuple[Slab, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Skip:
    """A skip of a U-Net, from before the last slab of a column to the first slab of another."""

    giver: int
    taker: int
    planes: int


@dataclass(frozen=True)
class Sketch:
    """All that a picture shows.

    Args:
        title: Which network it is.
        columns: Its parts as they run.
        rows: What the words below each part are.
        skips: Skips between them, the longest first.
        source: Words on the input.
        result: Words on the output.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[str, ...]
    skips: tuple[Skip, ...]
    source: str
    result: str


def sketch(net: Network, size: Size | None) -> Sketch:
    """Read a sketch off a network.

    Args:
        net: The network.
        size: Spatial size of the input; ``None`` to give sizes relative to the largest map. A decoder has its own.
    """
    plan = net.plan
    sizes = _sizes_of(plan, size)
    columns = [_outer(plan, index, sizes) for index in (0, -1)]
    columns[1:1] = [_stage(plan, stage, index, sizes) for index, stage in enumerate(plan.stages)]
    known = plan.family == 'decoder' or size is not None
    named = [_with_words(net, column, _size_text(sizes, i, known)) for i, column in enumerate(columns)]
    source, result = (
        f'{planes} × {_sizes.text(sizes[index])}' if known else f'{planes} channel{"s" * (planes > 1)}'
        for planes, index in ((plan.in_planes, 0), (plan.out_planes, -1))
    )
    if plan.vector is not None:
        named.insert(0 if plan.family == 'decoder' else len(named), _vector(net, sizes, known))
        words = f'vector of {plan.vector}'
        source, result = (words, result) if plan.family == 'decoder' else (source, words)
    rows = ('gives channels', 'of size' if known else 'of size (input: 1)', 'blocks', 'parameters')
    return Sketch(_title(net), tuple(named), rows, tuple(_skips(plan)), source, result)


def _sizes_of(plan: Plan, size: Size | None) -> list[Size]:
    """Size of what the first convolution, each stage and the last convolution give."""
    if plan.family == 'decoder':
        sizes = plan.decoder_sizes()
        return [*sizes, sizes[-1]]
    if size is None:
        size = (2**plan.halvings * _sizes.MIN_VALUES,) * plan.order
    stages = plan.stage_sizes(size)
    return [size, *stages, stages[-1]]


def _side(sizes: Sequence[Size], index: int) -> float:
    # Of a cube of as many values: one axis may shrink where another is kept.
    values = [math.prod(size) for size in sizes]
    return float((values[index] / max(values)) ** (1 / len(sizes[index])))


def _outer(plan: Plan, index: int, sizes: Sequence[Size]) -> Column:
    side = _side(sizes, index)
    planes = plan.stages[0].in_planes if index == 0 else plan.out_planes
    return Column(part_names(plan)[index], 'conv', (Slab(planes, side, side),), (f'{planes}',))


def _stage(plan: Plan, stage: StagePlan, index: int, sizes: Sequence[Size]) -> Column:
    before, after = _side(sizes, index), _side(sizes, index + 1)
    resizes = stage.resize != 'keep' and any(step > 1 for step in plan.stride)
    *still, last = stage.block_planes()
    slabs = [Slab(out, before, before, 'identity' if planes == out else 'conv') for planes, out in still]
    same = last[0] == last[1] and not resizes
    slabs.append(Slab(last[1], before, after, 'identity' if same else 'conv'))
    middle = plan.family in ('autoencoder', 'unet') and index == plan.halvings
    role: Role = 'middle' if middle else stage.resize if resizes else 'keep'
    return Column(part_names(plan)[index + 1], role, tuple(slabs), (f'{stage.out_planes}',))


def _vector(net: Network, sizes: Sequence[Size], known: bool) -> Column:
    plan = net.plan
    if plan.family == 'decoder':
        side, column = _side(sizes, 0), 'conv_in'
        cells = (f'{plan.in_planes}', _size_text(sizes, 0, known))
    else:
        side, column = _side(sizes, -1), 'fc'
        cells = (f'{plan.vector}', 'vector')
    slab = Slab(plan.vector or 0, side, side)
    return Column(column, 'vector', (slab,), (*cells, '', _parameters(net, column)))


def _with_words(net: Network, column: Column, size: str) -> Column:
    blocks = '' if column.role == 'conv' else f'{len(column.slabs)}'
    return Column(column.name, column.role, column.slabs, (*column.cells, size, blocks, _parameters(net, column.name)))


def _parameters(net: nn.Module, name: str) -> str:
    return count_text(sum(parameter.numel() for parameter in net.get_submodule(name).parameters()))


def _size_text(sizes: Sequence[Size], index: int, known: bool) -> str:
    if known:
        return _sizes.text(sizes[index])
    parts = [f'{Fraction(length, whole)}' for length, whole in zip(sizes[index], sizes[0], strict=True)]
    return parts[0] if len(set(parts)) == 1 else ' × '.join(parts)


def _skips(plan: Plan) -> Iterator[Skip]:
    # Column 0 is the first convolution; stages pair up from the outside in.
    last = len(plan.stages)
    for level in range(plan.halvings if plan.family == 'unet' else 0):
        yield Skip(1 + level, last - level, plan.stages[last - 1 - level].skip_planes)


def _title(net: Network) -> str:
    plan = net.plan
    count = sum(parameter.numel() for parameter in net.parameters())
    kernel = _sizes.text(plan.kernel)
    return (
        f'{type(net).__name__} · {plan.nlayers} layers · {count:,} parameters · {plan.block} blocks · kernel {kernel}'
    )
