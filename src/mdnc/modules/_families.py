"""The plans of encoders, decoders, auto-encoders and U-Nets. This module does not use torch."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mdnc.modules import _plan, _sizes
from mdnc.modules._plan import Block, Conv, Plan, Resize, Single, Stage, Style, Unit
from mdnc.modules._sizes import Size


@dataclass(frozen=True)
class Frame:
    """Checked arguments that the plans of all families need.

    Args:
        order: Number of spatial axes.
        channel: Channels of the first (a decoder's last) convolution.
        widths: Channels of each level: output channels of the stages of an encoder, input channels of those of a
            decoder; for the others from full resolution on.
        layers: Number of blocks of each level.
        block: Kind of the residual blocks.
        kernels: Kernel size of each level on each axis.
        strides: Stride of each stage on each axis; of auto-encoders and U-Nets of each step between two levels.
        style: Norm, activation and other options of the blocks.
        resize_first: Whether the first block of a stage resizes instead of the last.
        drop_path: Probability that the last block is dropped in training; it rises from 0 with the depth.
        small: See `Plan`.
    """

    order: int
    channel: int
    widths: tuple[int, ...]
    layers: tuple[int, ...]
    block: str
    kernels: tuple[Size, ...]
    strides: tuple[Size, ...]
    style: Style
    resize_first: bool = False
    drop_path: float = 0.0
    small: str = 'error'

    def blocks(self, level: int, depth: int, planes: Sequence[int], resize: Resize) -> tuple[Block, ...]:
        """The blocks of a stage.

        Args:
            level: The level that determines the kernel.
            depth: Number of blocks.
            planes: Channels of the input, between blocks, and of the output.
            resize: Resizing of the first or last of them.
        """
        before, hidden, out = planes
        steps = [before, *(out if self.resize_first else hidden for _ in range(depth - 1)), out]
        place = 0 if self.resize_first else depth - 1
        return tuple(
            _plan.block(self.block, *pair, self.kernels[level], self.style, resize if i == place else None)
            for i, pair in enumerate(itertools.pairwise(steps))
        )

    def unit(self, level: int, in_planes: int, out_planes: int, resize: Resize) -> Unit:
        """A single unit that resizes, for a lighter decoder."""
        return _plan.unit(in_planes, out_planes, self.kernels[level], self.style, resize)

    def outer(self, name: str, level: int, in_planes: int, out_planes: int, *, bias: bool) -> Single:
        """The first or last convolution of a network, with a kernel two wider than in its blocks."""
        return self.conv(name, _sizes.outer_kernel(self.kernels[level]), in_planes, out_planes, bias=bias)

    def conv(self, name: str, kernel: Size, in_planes: int, out_planes: int, *, bias: bool, takes: str = '') -> Single:
        """A convolution that keeps the size."""
        one, mode = (1,) * self.order, self.style.padding_mode
        conv = Conv(in_planes, out_planes, kernel, one, _sizes.padding(kernel), bias, 1, mode)
        return Single(name, (conv,), takes=takes, outer=True)


@dataclass(frozen=True)
class Head:
    """The layers after the stages of an encoder; arguments as in `_options.EncoderOptions`.

    Args:
        out_length: Length of the output vector; ``None`` to return the last feature maps.
        tail: Layers between the last stage and the pool.
        tail_normalizer: Norm of a tail ``'norm'``.
        pool: The global pool.
        amplitude: Whether the scales of the input channels are appended to the vector.
        dropout: Probability of dropping each value of the vector in training.
    """

    out_length: int | None
    tail: str = 'conv'
    tail_normalizer: str = 'batch'
    pool: str = 'avg'
    amplitude: bool = False
    dropout: float = 0.0


def encoder(frame: Frame, in_planes: int, head: Head) -> Plan:
    """Plan an encoder: each stage divides the size."""
    count, before = len(frame.layers), frame.channel
    parts: list[_plan.Part] = [frame.outer('netbody.0', 0, in_planes, before, bias=False)]
    for level, out in enumerate(frame.widths):
        blocks = frame.blocks(level, frame.layers[level], (before, out, out), Resize('down', frame.strides[level]))
        parts.append(Stage(f'netbody.{level + 1}', blocks, resize_first=frame.resize_first))
        before = out
    parts += _tail(frame, head, f'netbody.{count + 1}')
    if head.out_length is not None:
        parts.append(Single(f'netbody.{len(parts)}', (_plan.GlobalPool(head.pool),)))
        parts += _dropout(head.dropout)
        linear = _plan.Linear(frame.widths[-1], head.out_length, in_planes if head.amplitude else 0)
        parts.append(Single('fc', (linear,)))
    return finished(frame, Plan(frame.order, in_planes, tuple(parts), ('netbody', 'dropout', 'fc')))


def _tail(frame: Frame, head: Head, name: str) -> list[Single]:
    wide = frame.widths[-1]
    if head.tail == 'conv':
        return [frame.conv(name, frame.kernels[-1], wide, wide, bias=True)]
    act = () if frame.style.activator == 'null' else (_plan.Act(frame.style.activator, wide),)
    if head.tail == 'norm':
        return [Single(name, (replace(frame.style, normalizer=head.tail_normalizer).norm(wide), *act))]
    return [Single(name, act)] if head.tail == 'act' else []


def _dropout(rate: float) -> list[Single]:
    return [Single('dropout', (_plan.Dropout(rate),))] if rate else []


def decoder(frame: Frame, out_size: Size, in_length: int | None, out_planes: int, dropout: float = 0.0) -> Plan:
    """Plan a decoder: each stage multiplies the size, and its output is cropped."""
    sizes, strides = [out_size], []
    for stride in reversed(frame.strides):
        strides.append(_sizes.kept(sizes[-1], stride) if frame.small == 'keep' else stride)
        sizes.append(_sizes.shrunk(sizes[-1], strides[-1]))
    sizes, strides, wide = sizes[::-1], strides[::-1], frame.widths[0]
    parts: list[_plan.Part] = []
    if in_length is not None:
        padding = tuple(side - 1 for side in sizes[0])
        conv = Conv(in_length, wide, sizes[0], (1,) * frame.order, padding, True)
        parts.append(Single('conv_in', (conv,), outer=True, vector=True))
    parts.append(frame.conv('conv_first', frame.kernels[0], wide, wide, bias=False))
    for level, out in enumerate((*frame.widths[1:], frame.channel)):
        blocks = frame.blocks(level, frame.layers[level], (frame.widths[level], out, out), Resize('up', strides[level]))
        parts.append(Stage(f'netbody.{level}', blocks, resize_first=frame.resize_first, size=sizes[level + 1]))
    parts += _dropout(dropout)
    parts.append(frame.outer('conv_last', -1, frame.channel, out_planes, bias=True))
    planes, size = (wide, sizes[0]) if in_length is None else (in_length, ())
    modules = ('conv_in', 'conv_first', 'netbody', 'dropout', 'conv_last')
    return finished(frame, Plan(frame.order, planes, tuple(parts), modules, size))


@dataclass(frozen=True)
class DownUpParts:
    """Arguments of auto-encoders and U-Nets in addition to the frame.

    Args:
        skips: Whether each level of the encoder passes a map to the decoder.
        up_layers: Number of decoder blocks of each level except the deepest, from full resolution on.
        deep_supervision: Number of levels with an output in training; 0 for the last only.
        dropout: Probability of dropping each value before the last convolution in training.
    """

    skips: bool
    up_layers: tuple[int, ...]
    deep_supervision: int = 0
    dropout: float = 0.0


def autoencoder(frame: Frame, in_planes: int, out_planes: int, ways: DownUpParts) -> Plan:
    """Plan an auto-encoder or a U-Net: down, a deepest stage, and up again."""
    first = frame.outer('conv_first', 0, in_planes, frame.channel, bias=False)
    down = _way_down(frame, ways)
    make = _ways_up_first if frame.resize_first else _ways_up_last
    up = make(frame, ways, down)
    parts = (first, *down, *up, *_dropout(ways.dropout))
    planes = Plan(frame.order, in_planes, (first, *down, *up), ()).planes
    final = frame.outer('conv_final', 0, planes[up[-1].name], out_planes, bias=True)
    heads = _heads(frame, ways, up, planes, out_planes)
    outputs = (final.name, *(head.name for head in heads)) if ways.deep_supervision else ()
    modules = ('conv_first', 'conv_down_list', 'conv_up_list', 'conv_middle_up', 'dropout', 'conv_final', 'heads')
    return finished(frame, Plan(frame.order, in_planes, (*parts, final, *heads), modules, None, outputs))


def _way_down(frame: Frame, ways: DownUpParts) -> list[Stage]:
    stages, before = [], frame.channel
    one = (1,) * frame.order
    # If the first block resizes, a level begins with the stride that leads to it, and the first level has none.
    strides = (one, *frame.strides) if frame.resize_first else frame.strides
    for level, (out, depth) in enumerate(zip(frame.widths[:-1], frame.layers[:-1], strict=True)):
        blocks = frame.blocks(level, depth, (before, out, out), Resize('down', strides[level]))
        holds = ways.skips and not frame.resize_first
        stages.append(Stage(f'conv_down_list.{level}', blocks, resize_first=frame.resize_first, holds=holds))
        before = out
    return stages


def _ways_up_last(frame: Frame, ways: DownUpParts, down: list[Stage]) -> list[Stage]:
    # Each stage ends by growing to the level above it; the last one keeps the size.
    deepest, bottom = len(down), frame.widths[-2]
    resize = Resize('up', frame.strides[-1])
    blocks = frame.blocks(deepest, frame.layers[-1], (bottom, frame.widths[-1], bottom), resize)
    stages = [Stage('conv_middle_up', blocks, undoes=down[-1].name)]
    for level in reversed(range(deepest)):
        given, held = stages[-1].out_planes, down[level].held_planes if ways.skips else 0
        above = frame.widths[level - 1] if level else frame.channel
        resize = Resize('up', frame.strides[level - 1]) if level else _plan.still(frame.order)
        stages.append(
            Stage(
                f'conv_up_list.{deepest - 1 - level}',
                _up_blocks(frame, level, ways.up_layers[level], (given + held, given, above), resize),
                holds=0 < level < ways.deep_supervision,
                undoes=down[level - 1].name if level else '',
                skip=f'{down[level].name}:held' if ways.skips else '',
                like='' if ways.skips else f'{down[level].name}:in',
            )
        )
    return stages


def _up_blocks(
    frame: Frame, level: int, depth: int, planes: tuple[int, int, int], resize: Resize
) -> tuple[Block | Unit, ...]:
    if depth:
        return frame.blocks(level, depth, planes, resize)
    return (frame.unit(level, planes[0], planes[2], resize),)


def _ways_up_first(frame: Frame, ways: DownUpParts, down: list[Stage]) -> list[Stage]:
    # Each stage begins by growing to its own level with a single unit.
    deepest = len(down)
    wide = frame.widths[-1]
    resize = Resize('down', frame.strides[-1])
    blocks = frame.blocks(deepest, frame.layers[-1], (frame.widths[-2], wide, wide), resize)
    stages, given = [Stage('conv_middle_up', blocks, resize_first=True)], wide
    for level in reversed(range(deepest)):
        out, held = frame.widths[level], down[level].out_planes if ways.skips else 0
        grow = frame.unit(level, given, out, Resize('up', frame.strides[level]))
        rest: tuple[Block, ...] = ()
        if depth := ways.up_layers[level]:
            rest = frame.blocks(level, depth, (out + held, out, out), _plan.still(frame.order))
        name, from_ = f'conv_up_list.{deepest - 1 - level}', (stages[0] if level == deepest - 1 else down[level + 1])
        skip, like = (down[level].name, '') if ways.skips else ('', down[level].name)
        stages.append(Stage(name, (grow, *rest), resize_first=True, undoes=from_.name, skip=skip, like=like))
        given = out if rest else out + held
    return stages


def _heads(frame: Frame, ways: DownUpParts, up: list[Stage], planes: dict[str, int], out_planes: int) -> list[Single]:
    # One for each level above the last output's, finest first; a stage has its level's map before it grows.
    point, heads = (1,) * frame.order, []
    for level in range(1, ways.deep_supervision):
        source = up[-1 - level].name if frame.resize_first else f'{up[-1 - level].name}:held'
        head = frame.conv(f'heads.{level - 1}', point, planes[source], out_planes, bias=True, takes=source)
        heads.append(replace(head, training=True, outer=False))
    return heads


def finished(frame: Frame, plan: Plan) -> Plan:
    """The plan with `drop_path` and `small` applied, and a module for each first word of its parts' paths.

    Args:
        frame: The arguments.
        plan: The plan; first words missing in its ``modules`` follow in the order they run.
    """
    tops = dict.fromkeys(part.name.partition('.')[0] for part in plan.parts)
    modules = tuple(top for top in dict.fromkeys((*plan.modules, *tops)) if top in tops)
    parts = _with_drop_path(plan.parts, frame.drop_path) if frame.drop_path else plan.parts
    return replace(plan, parts=parts, modules=modules, small=frame.small)


def _with_drop_path(parts: tuple[_plan.Part, ...], rate: float) -> tuple[_plan.Part, ...]:
    """The same parts, with drop path probabilities that rise in equal steps from 0 to ``rate``."""
    count = sum(isinstance(each, Block) for part in parts if isinstance(part, Stage) for each in part.blocks)
    chances = iter([rate * i / max(count - 1, 1) for i in range(count)])
    made: list[_plan.Part] = []
    for part in parts:
        if isinstance(part, Stage):
            blocks = (
                replace(each, drop_path=next(chances)) if isinstance(each, Block) else each for each in part.blocks
            )
            part = replace(part, blocks=tuple(blocks))
        made.append(part)
    return tuple(made)
