"""Networks as plain integers: everything about one before torch builds anything. No torch here.

A plan is read by whoever needs to know a network: the networks loop over it, sizes, figures and pictures are
read off it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mdnc.modules import _sizes
from mdnc.modules._sizes import Size

Family = Literal['encoder', 'decoder', 'autoencoder', 'unet']
Resize = Literal['down', 'up', 'keep']

CONVS_PER_BLOCK = {'plain': 2, 'bottleneck': 3}


@dataclass(frozen=True)
class StagePlan:
    """One stage: a stack of residual blocks, the last of which resizes.

    Args:
        in_planes: Channels that come from the stage before.
        hidden_planes: Channels between the blocks of the stage.
        out_planes: Channels that go to the next stage.
        depth: Number of blocks.
        resize: What the last block does to the size: halve it, double it or keep it.
        skip_planes: Channels of the skip that is concatenated to the input; 0 without one.
        holds: Whether the stage hands on, beside its output, what it had before its last block.
    """

    in_planes: int
    hidden_planes: int
    out_planes: int
    depth: int
    resize: Resize
    skip_planes: int = 0
    holds: bool = False

    def block_planes(self) -> Iterator[tuple[int, int]]:
        """Channels in and out of each block, the last one included."""
        before = self.in_planes + self.skip_planes
        for _ in range(self.depth - 1):
            yield before, self.hidden_planes
            before = self.hidden_planes
        yield before, self.out_planes

    @property
    def held_planes(self) -> int:
        """Channels of what the stage has just before its last block."""
        return self.hidden_planes if self.depth > 1 else self.in_planes + self.skip_planes


@dataclass(frozen=True)
class Plan:
    """A whole network.

    Args:
        family: Which of the four it is.
        order: Number of spatial axes.
        block: Kind of its residual blocks, ``'plain'`` or ``'bottleneck'``.
        kernel: Kernel size of the blocks on each axis.
        in_planes: Channels of the first map that is convolved: the input's, or a decoder's widest.
        out_planes: Channels of the last map.
        stages: Its stages in the order they run.
        vector: Length of an encoder's output or a decoder's input vector; ``None`` without one.
        out_size: Spatial size that a decoder gives; ``None`` for the other families.
    """

    family: Family
    order: int
    block: str
    kernel: Size
    in_planes: int
    out_planes: int
    stages: tuple[StagePlan, ...]
    vector: int | None = None
    out_size: Size | None = None

    @property
    def stride(self) -> Size:
        """Stride of a resizing stage on each axis."""
        return _sizes.stride(self.kernel)

    @property
    def nlayers(self) -> int:
        """Convolutional layers along the depth, the fully connected one left out."""
        outer = 3 if self.family == 'decoder' and self.vector is not None else 2
        return CONVS_PER_BLOCK[self.block] * sum(stage.depth for stage in self.stages) + outer

    @property
    def halvings(self) -> int:
        """How many stages halve the size, or undo a halving in a decoder."""
        word = 'up' if self.family == 'decoder' else 'down'
        return sum(stage.resize == word for stage in self.stages)

    def stage_sizes(self, size: Size) -> tuple[Size, ...]:
        """Spatial size of what each stage gives, from the size of the first map that is convolved."""
        if self.family == 'decoder':
            return self.decoder_sizes()[1:]
        sizes = _sizes.levels(size, self.stride, self.halvings)
        if self.family == 'encoder':
            return sizes[1:]
        # On the way up a stage first crops to the size of its level; the last one keeps it.
        ways_up = tuple(_sizes.grown(level, self.stride) for level in reversed(sizes[1:]))
        return (*sizes[1:], *ways_up, size)

    def decoder_sizes(self) -> tuple[Size, ...]:
        """A decoder's sizes, from its smallest map to ``out_size``."""
        assert self.out_size is not None
        return _sizes.levels(self.out_size, self.stride, self.halvings)[::-1]

    def first_starved(self, size: Size) -> int | None:
        """Index of the first stage that would hold a map with too few values for its norms, if there is one."""
        sizes = self.decoder_sizes()[:-1] if self.family == 'decoder' else self.stage_sizes(size)
        return next((i for i, held in enumerate(sizes) if not _sizes.holds_enough(held)), None)

    @property
    def min_side(self) -> int:
        """Smallest side of an equal-sided map that every stage can take."""
        limit = _sizes.MIN_VALUES * 2**self.halvings
        return _sizes.smallest(lambda side: self.first_starved((side,) * self.order) is None, limit)


@dataclass(frozen=True)
class Shape:
    """What the plans of all families need: checked arguments, no torch.

    Args:
        order: Number of spatial axes.
        channel: Channels of the first (a decoder's last) stage.
        layers: Number of blocks of each stage.
        block: Kind of the residual blocks.
        kernel: Kernel size on each axis.
    """

    order: int
    channel: int
    layers: tuple[int, ...]
    block: str
    kernel: Size


def encoder(shape: Shape, in_planes: int, out_length: int | None) -> Plan:
    """Plan an encoder: every stage halves the size; from each stage to the next the channels double."""
    widths = [shape.channel * 2**i for i in range(len(shape.layers))]
    stages = _chain([shape.channel, *widths], shape.layers, 'down')
    return Plan('encoder', shape.order, shape.block, shape.kernel, in_planes, widths[-1], stages, out_length)


def decoder(shape: Shape, out_size: Size, in_length: int | None, out_planes: int) -> Plan:
    """Plan a decoder: every stage doubles the size, all but the last halve the channels."""
    widths = [shape.channel * 2**i for i in reversed(range(len(shape.layers)))]
    stages = _chain([*widths, shape.channel], shape.layers, 'up')
    return Plan('decoder', shape.order, shape.block, shape.kernel, widths[0], out_planes, stages, in_length, out_size)


def autoencoder(shape: Shape, in_planes: int, out_planes: int, *, skips: bool) -> Plan:
    """Plan an auto-encoder, or with ``skips`` a U-Net: down, one middle stage, and up again."""
    layers = shape.layers
    widths = [shape.channel * 2**i for i in range(len(layers) - 1)]
    down = _chain([shape.channel, *widths], layers[:-1], 'down', holds=skips)
    bottom = widths[-1]
    middle = StagePlan(bottom, 2 * bottom, bottom, layers[-1], 'up')
    # Level by level upwards; each stage takes as many skip planes as its level really hands on.
    after = [*reversed(widths[:-1]), shape.channel]
    up = tuple(
        StagePlan(
            in_planes=level.out_planes,
            hidden_planes=level.out_planes,
            out_planes=out,
            depth=level.depth,
            resize='keep' if level is down[0] else 'up',
            skip_planes=level.held_planes if skips else 0,
        )
        for level, out in zip(reversed(down), after, strict=True)
    )
    family: Family = 'unet' if skips else 'autoencoder'
    return Plan(family, shape.order, shape.block, shape.kernel, in_planes, out_planes, (*down, middle, *up))


def _chain(widths: list[int], layers: tuple[int, ...], resize: Resize, holds: bool = False) -> tuple[StagePlan, ...]:
    pairs = zip(widths[:-1], widths[1:], layers, strict=True)
    return tuple(StagePlan(before, out, out, depth, resize, holds=holds) for before, out, depth in pairs)
