"""Networks as plain values: everything about a network before torch builds it. This module does not use torch.

A plan is an ordered tuple of named parts, down to the layers of each unit. All other code reads it:
modules are built from it and run in its order; sizes, checkpoint keys, estimates and pictures are computed from it.
`_families` makes the plans of the documented networks.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from mdnc.modules import _sizes
from mdnc.modules._sizes import Size

Tensors = dict[str, Size]  # shapes of the entries of a state dict, by name

# ---- Layers ----


@dataclass(frozen=True)
class Conv:
    """A convolution, or with ``transposed`` one that up-samples by its stride.

    Args:
        in_planes: Channels in.
        out_planes: Channels out.
        kernel: Kernel size on each axis.
        stride: Stride on each axis.
        padding: Padding on both sides of each axis.
        bias: Whether it adds a bias.
        groups: Number of groups of channels that are convolved separately.
        padding_mode: Padding mode, with torch's names.
        transposed: Whether the size is multiplied by the stride instead of divided.
    """

    in_planes: int
    out_planes: int
    kernel: Size
    stride: Size
    padding: Size
    bias: bool
    groups: int = 1
    padding_mode: str = 'zeros'
    transposed: bool = False

    @property
    def tensors(self) -> Tensors:
        """Shapes of its parameters."""
        planes = (self.in_planes, self.out_planes) if self.transposed else (self.out_planes, self.in_planes)
        weight = {'weight': (planes[0], planes[1] // self.groups, *self.kernel)}
        return weight | {'bias': (self.out_planes,)} if self.bias else weight

    @property
    def output_padding(self) -> Size:
        """Output padding of a transposed convolution, so that its output is exactly stride times the input."""
        return tuple(
            s - k + 2 * p if self.transposed else 0
            for s, k, p in zip(self.stride, self.kernel, self.padding, strict=True)
        )


@dataclass(frozen=True)
class Norm:
    """A norm of maps: ``'batch'``, ``'inst'``, ``'pinst'``, ``'group'`` or ``'layer'``, see `_options`."""

    kind: str
    planes: int
    groups: int = 1

    @property
    def tensors(self) -> Tensors:
        """Shapes of its parameters and statistics."""
        affine: Tensors = {} if self.kind == 'inst' else {'weight': (self.planes,), 'bias': (self.planes,)}
        if self.kind == 'batch':
            affine |= {'running_mean': (self.planes,), 'running_var': (self.planes,), 'num_batches_tracked': ()}
        return affine

    @property
    def scope(self) -> tuple[str, str]:
        """Its name, and what it takes a mean over."""
        return {'batch': ('batch', 'channel'), 'group': ('group', 'group'), 'layer': ('layer', 'sample')}.get(
            self.kind, ('instance', 'plane')
        )

    def values(self, size: Size, batch: int) -> int:
        """Number of values in each of its means."""
        planes = {'batch': batch, 'group': self.planes // self.groups, 'layer': self.planes}.get(self.kind, 1)
        return planes * math.prod(size)


@dataclass(frozen=True)
class Act:
    """An activation, see `_options`; ``'prelu'`` has one slope for each channel."""

    kind: str
    planes: int

    @property
    def tensors(self) -> Tensors:
        """Shapes of its parameters."""
        return {'weight': (self.planes,)} if self.kind == 'prelu' else {}


@dataclass(frozen=True)
class Upsample:
    """Up-sampling by interpolation, ``'linear'`` with aligned corners or ``'nearest'``, by factors or to a size."""

    mode: str
    factors: Size
    size: Size | None = None
    tensors: Tensors = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True)
class AveragePool:
    """Averages over windows of the stride; an incomplete window at the end is averaged over its values."""

    stride: Size
    tensors: Tensors = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True)
class GlobalPool:
    """One value of each plane: ``'avg'``, ``'max'``, ``'avgmax'``, ``'gem'`` or ``'std'``, see `_options`."""

    kind: str

    @property
    def tensors(self) -> Tensors:
        """Shapes of its parameters."""
        return {'power': (1,)} if self.kind == 'gem' else {}


@dataclass(frozen=True)
class Linear:
    """A fully connected layer over the flattened planes; with ``amplitudes`` the log-scales of as many input planes
    follow them."""

    in_planes: int
    out_planes: int
    amplitudes: int = 0

    @property
    def tensors(self) -> Tensors:
        """Shapes of its parameters."""
        return {'weight': (self.out_planes, self.in_planes + self.amplitudes), 'bias': (self.out_planes,)}


@dataclass(frozen=True)
class Dropout:
    """Sets random values to zero in training."""

    rate: float
    tensors: Tensors = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True)
class SqueezeExcite:
    """Scales each plane by a gate computed from the means of all."""

    planes: int
    hidden: int

    @property
    def tensors(self) -> Tensors:
        """Shapes of its parameters."""
        down, up = (self.hidden, self.planes), (self.planes, self.hidden)
        return {'down.weight': down, 'down.bias': down[:1], 'up.weight': up, 'up.bias': up[:1]}


Layer = Conv | Norm | Act | Upsample | AveragePool | GlobalPool | Linear | Dropout

# ---- Units and blocks ----


@dataclass(frozen=True)
class Style:
    """Style of units and blocks; legal values and their meaning as in `_options.BlockOptions`."""

    normalizer: str = 'pinst'
    activator: str = 'prelu'
    layer_order: str = 'new'
    norm_groups: int = 8
    ratio: int = 1
    groups: int = 1
    bias: bool = False
    se: int = 0
    shortcut: str = 'conv'
    upsampling: str = 'linear'
    padding_mode: str = 'zeros'
    resize_at: str = 'last'

    def norm(self, planes: int) -> Norm:
        """Its norm."""
        return Norm(self.normalizer, planes, {'group': self.norm_groups, 'layer': 1}.get(self.normalizer, 1))


@dataclass(frozen=True)
class Resize:
    """How a unit or a block changes the size.

    Args:
        way: ``'down'`` divides by ``stride``, ``'up'`` multiplies by it.
        stride: Factor on each axis.
        size: Size to up-sample to instead; ``None`` to go by ``stride``.
    """

    way: Literal['down', 'up']
    stride: Size
    size: Size | None = None

    def __bool__(self) -> bool:
        return self.size is not None or any(step > 1 for step in self.stride)

    def after(self, size: Size, stride: Size | None = None) -> Size:
        """Size of the output; ``stride`` replaces its own."""
        stride = stride or self.stride
        return _sizes.shrunk(size, stride) if self.way == 'down' else self.size or _sizes.grown(size, stride)


@dataclass(frozen=True)
class Unit:
    """A sequence of layers around one convolution; their positions are names in checkpoints."""

    layers: tuple[Layer, ...]
    resize: Resize

    @property
    def conv(self) -> Conv:
        """Its convolution."""
        return next(layer for layer in self.layers if isinstance(layer, Conv))

    @property
    def planes(self) -> tuple[int, int]:
        """Channels in and out."""
        return self.conv.in_planes, self.conv.out_planes

    @property
    def tensors(self) -> Tensors:
        """Shapes of its parameters and statistics."""
        return _nested((str(i), layer.tensors) for i, layer in enumerate(self.layers))

    @cached_property
    def demands(self) -> tuple[tuple[Layer, bool], ...]:
        """Layers with a smallest size, and whether it applies to the map before resizing."""
        return _demands(self)

    def after(self, size: Size, stride: Size | None = None) -> Size:
        """Size of the output."""
        return self.resize.after(size, stride) if self.resize else size

    def maps(self, size: Size, stride: Size | None = None) -> Iterator[tuple[Layer, Size]]:
        """Each layer with the size of its input."""
        for layer in self.layers:
            yield layer, size
            # The up-sampling comes before its convolution; a strided convolution or pool resizes by itself.
            if isinstance(layer, (Upsample, AveragePool)) or (isinstance(layer, Conv) and max(layer.stride) > 1):
                size = self.resize.after(size, stride)


@dataclass(frozen=True)
class Block:
    """A residual block: units one after the other, plus a shortcut.

    Args:
        kind: ``'plain'`` or ``'bottleneck'``.
        in_planes: Channels in.
        out_planes: Channels out.
        units: Its units in the order they run, ``conv1``, ``conv2``, …
        shortcut: The unit ``in_node`` beside them; ``None`` where the input itself is added.
        resize: How it changes the size.
        se: Squeeze-and-excitation after the units, if any.
        drop_path: Probability that the units are dropped in training.
    """

    kind: str
    in_planes: int
    out_planes: int
    units: tuple[Unit, ...]
    shortcut: Unit | None
    resize: Resize
    se: SqueezeExcite | None = None
    drop_path: float = 0.0

    @property
    def planes(self) -> tuple[int, int]:
        """Channels in and out."""
        return self.in_planes, self.out_planes

    @property
    def named(self) -> dict[str, Unit]:
        """Its units by name."""
        return {f'conv{i + 1}': unit for i, unit in enumerate(self.units)}

    @property
    def tensors(self) -> Tensors:
        """Shapes of its parameters and statistics."""
        parts = {**self.named, 'in_node': self.shortcut, 'se': self.se}
        return _nested((name, part.tensors) for name, part in parts.items() if part is not None)

    def maps(self, size: Size, stride: Size | None = None) -> Iterator[tuple[Layer, Size]]:
        """Each layer with the size of its input."""
        if self.shortcut is not None:
            yield from self.shortcut.maps(size, stride)
        for unit in self.units:
            yield from unit.maps(size, stride)
            size = unit.after(size, stride)

    @cached_property
    def demands(self) -> tuple[tuple[Layer, bool], ...]:
        """Layers with a smallest size, and whether it applies to the map before resizing."""
        return _demands(self)

    def after(self, size: Size, stride: Size | None = None) -> Size:
        """Size of the output."""
        return self.resize.after(size, stride) if self.resize else size


def still(order: int) -> Resize:
    """No change of the size."""
    return Resize('down', (1,) * order)


def unit(
    in_planes: int, out_planes: int, kernel: Size, style: Style, resize: Resize | None = None, groups: int = 1
) -> Unit:
    """Plan a unit.

    - order ``'new'``: norm, act, (up-sampling), conv
    - order ``'old'``: (up-sampling), conv, norm, act
    - without a norm, in either order: (up-sampling), conv with bias, act
    """
    resize = resize or still(len(kernel))
    conv = _convolution(in_planes, out_planes, kernel, style, resize, groups)
    first = style.layer_order == 'new' and style.normalizer != 'null'
    around = _normed_act(in_planes if first else out_planes, style)
    return Unit((*around, *conv) if first else (*conv, *around), resize)


def block(
    kind: str, in_planes: int, out_planes: int, kernel: Size, style: Style, resize: Resize | None = None
) -> Block:
    """Plan a residual block.

    - ``'plain'``: two k × … × k convolutions, of which the second, or with ``resize_at='first'`` the first, resizes and
      changes the channels
    - ``'bottleneck'``: 1 × … × 1, k × … × k (which resizes), 1 × … × 1, the last of which changes the channels
    """
    resize, point = resize or still(len(kernel)), (1,) * len(kernel)
    if kind == 'plain':
        first = style.resize_at == 'first'
        inner = out_planes if first else in_planes
        units: tuple[Unit, ...] = (
            unit(in_planes, inner, kernel, style, resize if first else None, style.groups),
            unit(inner, out_planes, kernel, style, None if first else resize, style.groups),
        )
    else:
        inner = in_planes if style.ratio == 1 else out_planes // style.ratio
        units = (
            unit(in_planes, inner, point, style),
            unit(inner, inner, kernel, style, resize, style.groups),
            unit(inner, out_planes, point, style),
        )
    se = SqueezeExcite(out_planes, max(1, out_planes // style.se)) if style.se else None
    return Block(kind, in_planes, out_planes, units, _shortcut(in_planes, out_planes, style, resize), resize, se)


def learns_from_shortcut(block: Block) -> bool:
    """Whether a block whose last weights are 0 gets gradients for them, see `Block.begin_as_shortcut`.

    The gradient of a ReLU is 0 at 0, and an instance norm before it has no weights that could move it from 0.
    """
    *_, before, last = (None, *block.units[-1].layers)
    return not (isinstance(last, Act) and last.kind == 'relu' and isinstance(before, Norm) and before.kind == 'inst')


def refuse_misfits(owner: str, blocks: Iterable[Block | Unit], style: Style) -> None:
    """Refuse numbers of groups that do not divide the channels.

    Raises:
        ValueError: A number of groups does not divide the channels, or an option of the style does not apply to the
            blocks.
    """
    for each in blocks:
        bottleneck = isinstance(each, Block) and each.kind == 'bottleneck'
        if style.ratio > 1 and isinstance(each, Block) and (not bottleneck or each.out_planes % style.ratio):
            why = f"does not divide {each.out_planes} channels" if bottleneck else "needs block='bottleneck'"
            raise ValueError(f'{owner}: ratio={style.ratio} {why}.')
        for layer, _ in each.maps((1,) * len(each.resize.stride)):
            if isinstance(layer, Norm) and layer.planes % layer.groups:
                raise ValueError(
                    f'{owner}: norm_groups={layer.groups} does not divide the {layer.planes} channels of a norm.'
                )
            if isinstance(layer, Conv) and (layer.in_planes % layer.groups or layer.out_planes % layer.groups):
                planes = f'{layer.in_planes} → {layer.out_planes}'
                raise ValueError(
                    f'{owner}: groups={layer.groups} does not divide the channels {planes} of a convolution.'
                )


def _convolution(
    in_planes: int, out_planes: int, kernel: Size, style: Style, resize: Resize, groups: int
) -> tuple[Layer, ...]:
    one, padding, bias = (1,) * len(kernel), _sizes.padding(kernel), style.bias or style.normalizer == 'null'
    groups = groups if max(kernel) > 1 else 1
    if resize.way == 'up' and resize and style.upsampling == 'transposed':
        return (Conv(in_planes, out_planes, kernel, resize.stride, padding, bias, groups, 'zeros', True),)
    stride = resize.stride if resize.way == 'down' else one
    conv = Conv(in_planes, out_planes, kernel, stride, padding, bias, groups, style.padding_mode)
    return (*_upsampling(style, resize), conv)


def _upsampling(style: Style, resize: Resize) -> tuple[Layer, ...]:
    return (Upsample(style.upsampling, resize.stride, resize.size),) if resize.way == 'up' and resize else ()


def _normed_act(planes: int, style: Style) -> tuple[Layer, ...]:
    norm = () if style.normalizer == 'null' else (style.norm(planes),)
    return norm if style.activator == 'null' else (*norm, Act(style.activator, planes))


def _shortcut(in_planes: int, out_planes: int, style: Style, resize: Resize) -> Unit | None:
    if not resize and in_planes == out_planes:
        return None
    order = len(resize.stride)
    point, none, bias = (1,) * order, (0,) * order, style.normalizer == 'null'
    before: tuple[Layer, ...] = ()
    conv = Conv(in_planes, out_planes, point, resize.stride if resize.way == 'down' else point, none, bias)
    if resize.way == 'up' and resize and style.upsampling == 'transposed':
        conv = Conv(in_planes, out_planes, resize.stride, resize.stride, none, bias, transposed=True)
    elif resize.way == 'up':
        before = _upsampling(style, resize)
    elif resize and style.shortcut == 'pool':
        before, conv = (AveragePool(resize.stride),), Conv(in_planes, out_planes, point, point, none, bias)
    after = () if bias else (style.norm(out_planes),)
    return Unit((*before, conv, *after), resize)


# ---- Parts ----


@dataclass(frozen=True)
class Part:
    """A named part of a network.

    Inputs and references are given by the path of another part, which means its output, or by that path with
    ``':held'`` (input of the last block of a stage), ``':in'`` (its input) or ``':whole'`` (its output before
    cropping); an empty name means the previous part, or for the first part the input of the network.

    Args:
        name: Its path in the network, the prefix of its keys in checkpoints.
        takes: Name of its input.
        training: Whether it runs in training only.
    """

    name: str
    takes: str = field(default='', kw_only=True)
    training: bool = field(default=False, kw_only=True)

    @property
    def tensors(self) -> Tensors:
        """Shapes of its parameters and statistics."""
        raise NotImplementedError


@dataclass(frozen=True)
class Single(Part):
    """One layer, or several in a sequence. A part that resizes must be a `Stage`, which may consist of a single `Unit`.

    Args:
        layers: The layers, none of which has a stride.
        outer: Whether it is a convolution outside the stages that counts as a layer of the network.
        vector: Whether it maps a vector to a feature map.
    """

    layers: tuple[Layer, ...]
    outer: bool = field(default=False, kw_only=True)
    vector: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        # Sizes, receptive fields and errors about small inputs are computed from stages.
        for layer in self.layers:
            if isinstance(layer, (Upsample, AveragePool)) or (isinstance(layer, Conv) and max(layer.stride) > 1):
                raise ValueError(
                    f'Single: the {type(layer).__name__} of {self.name!r} changes the size of a map, which only '
                    'a Stage may do: use a Stage with a Unit.'
                )

    @property
    def out_planes(self) -> int | None:
        """Channels of the output; ``None`` for those of the input."""
        return next((each.out_planes for each in reversed(self.layers) if isinstance(each, (Conv, Linear))), None)

    @property
    def tensors(self) -> Tensors:
        """Shapes of its parameters and statistics."""
        if len(self.layers) == 1:
            return self.layers[0].tensors
        return _nested((str(i), layer.tensors) for i, layer in enumerate(self.layers))


@dataclass(frozen=True)
class Stage(Part):
    """A stack of residual blocks, of which the last, or with ``resize_first`` the first, resizes.

    Args:
        blocks: Its blocks in the order they run. The block that resizes may be a single unit, in a lighter decoder.
        resize_first: Whether the first block resizes. A skip is then concatenated after it, else before all blocks.
        skip: What is concatenated to its input, after the input has been cropped to this size.
        like: Its input is cropped to the size of this, without concatenation.
        size: Size that its output is cropped to.
        holds: Whether it also returns the input of its last block.
        undoes: Path of the stage with the opposite resizing.
    """

    blocks: tuple[Block | Unit, ...]
    resize_first: bool = field(default=False, kw_only=True)
    skip: str = field(default='', kw_only=True)
    like: str = field(default='', kw_only=True)
    size: Size | None = field(default=None, kw_only=True)
    holds: bool = field(default=False, kw_only=True)
    undoes: str = field(default='', kw_only=True)

    @property
    def resizing(self) -> Block | Unit:
        """The block that resizes, ``conv_scale``."""
        return self.blocks[0 if self.resize_first else -1]

    @property
    def resize(self) -> Resize:
        """How it changes the size."""
        return self.resizing.resize

    @property
    def still(self) -> tuple[Block, ...]:
        """The blocks that keep the size, ``conv_list``."""
        return tuple(each for each in self.blocks if each is not self.resizing)  # type: ignore[misc]

    @property
    def named(self) -> dict[str, Block | Unit]:
        """Its blocks by name, in the order of their keys."""
        names: dict[str, Block | Unit] = {f'conv_list.{i}': each for i, each in enumerate(self.still)}
        return names | {'conv_scale': self.resizing}

    @property
    def out_planes(self) -> int:
        """Channels of the output."""
        return self.blocks[-1].planes[1]

    @property
    def held_planes(self) -> int:
        """Channels of the input of its last block."""
        return self.blocks[-1].planes[0]

    @property
    def tensors(self) -> Tensors:
        """Shapes of its parameters and statistics."""
        return _nested((name, each.tensors) for name, each in self.named.items())


def _nested(parts: Iterable[tuple[str, Tensors]]) -> Tensors:
    return {f'{name}.{key}': shape for name, tensors in parts for key, shape in tensors.items()}


def _demands(each: 'Block | Unit') -> tuple[tuple[Layer, bool], ...]:
    # Layers with a smallest size, each with whether it applies before resizing; equal ones once.
    before = (2**20,) * len(each.resize.stride)
    found = {(demand, held == before): layer for layer, held in each.maps(before) if (demand := _demand(layer))}
    return tuple((layer, early) for (_, early), layer in found.items())


def _demand(layer: Layer) -> tuple[str, int] | None:
    if isinstance(layer, Norm):
        return layer.kind, layer.values((), 1)
    if isinstance(layer, Conv) and layer.padding_mode in ('reflect', 'circular'):
        return f'{layer.padding_mode}{layer.padding}', 0
    return None


@dataclass(frozen=True)
class Course:
    """Sizes and strides within a network for an input of one size.

    Args:
        sizes: Spatial size of the output of each part, by its path; also of its input (``':in'``) and of the input of
            the last block of a stage (``':held'``). A vector has the size ``()``.
        strides: The stride with which each stage resizes, by its path.
        demands: Layers with a smallest size: the index of the stage, the layer, the size of its input.
    """

    sizes: dict[str, Size]
    strides: dict[str, Size]
    demands: list[tuple[int, Layer, Size]]


@dataclass(frozen=True)
class Refusal:
    """Why an input is too small: the index of the stage, the size it would have there, and what needs more."""

    stage: int
    held: Size
    reason: str


@dataclass(frozen=True)
class Schedule:
    """Parts in the order they run, and after each the names of values that are not needed any more."""

    parts: tuple[Part, ...]
    let_go: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Plan:
    """A whole network.

    Args:
        order: Number of spatial axes.
        in_planes: Channels of the input, or the length of an input vector.
        parts: Its parts in the order they run.
        modules: First words of the paths, in the order of the keys in checkpoints.
        in_size: The only spatial size of its input, ``()`` for a vector; ``None`` for any size.
        outputs: Names of its outputs, returned as a tuple if there are several; parts that run in training only are
            left out in eval. Empty: the output of the last part.
        small: ``'keep'`` if an axis that would shrink to one value is not strided, else ``'error'``.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 1])
        >>> for part in net.plan.parts:
        ...     print(part.name, net.plan.planes[part.name])
        netbody.0 8
        netbody.1 8
        netbody.2 16
        netbody.3 16
        netbody.4 16
        fc 2
    """

    order: int
    in_planes: int
    parts: tuple[Part, ...]
    modules: tuple[str, ...]
    in_size: Size | None = None
    outputs: tuple[str, ...] = ()
    small: str = 'error'

    @cached_property
    def named(self) -> dict[str, Part]:
        """The parts by path."""
        return {part.name: part for part in self.parts}

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in the order they run."""
        return tuple(part for part in self.parts if isinstance(part, Stage))

    @property
    def last(self) -> str:
        """Path of the part that gives the output, in training the first of several."""
        return self.outputs[0] if self.outputs else self.parts[-1].name

    def results(self, training: bool) -> tuple[str, ...]:
        """Names of its outputs."""
        return tuple(name for name in self.outputs if training or not self.named[name].training) or (self.last,)

    @property
    def tensors(self) -> Tensors:
        """Shapes of the entries of the state dict, in its order."""
        owned = ((top, part) for top in self.modules for part in self.members(top))
        return _nested((part.name, part.tensors) for _, part in owned)

    def members(self, top: str) -> list[Part]:
        """The parts with this path, or this path followed by a number, in order."""
        found = [part for part in self.parts if part.name.partition('.')[0] == top]
        return sorted(found, key=lambda part: int(part.name.partition('.')[2] or 0))

    @cached_property
    def planes(self) -> dict[str, int]:
        """Channels of the output of each part, or the length of a vector, by path as in `Course`."""
        planes, before = {'': self.in_planes}, ''
        for part in self.parts:
            given = planes[part.takes or before]
            if isinstance(part, Stage):
                joined = planes[part.skip] if part.skip and part.resize_first and not part.still else 0
                planes[part.name] = part.out_planes + joined
                planes[f'{part.name}:held'] = part.held_planes
            elif isinstance(part, Single):
                planes[part.name] = part.out_planes or given
            planes[f'{part.name}:in'] = given
            before = part.name
        return planes

    @property
    def out_planes(self) -> int:
        """Channels of the output, or the length of an output vector."""
        return self.planes[self.last]

    @property
    def gives_vector(self) -> bool:
        """Whether the output is a vector."""
        part = self.named[self.last]
        return isinstance(part, Single) and isinstance(part.layers[-1], Linear)

    @property
    def nlayers(self) -> int:
        """Number of convolutional layers along the depth, without fully connected ones."""
        blocks = (each for stage in self.stages for each in stage.blocks)
        outer = sum(isinstance(part, Single) and part.outer for part in self.parts)
        return sum(len(each.units) if isinstance(each, Block) else 1 for each in blocks) + outer

    @property
    def reduction(self) -> Size:
        """Total down-sampling factor of the smallest map on each axis, without rounding."""
        return tuple(math.prod(stage.resize.stride[axis] for stage in self._downs) for axis in range(self.order))

    @property
    def _downs(self) -> tuple[Stage, ...]:
        way = 'down' if self.in_size is None else 'up'
        return tuple(stage for stage in self.stages if stage.resize.way == way)

    def schedule(self, training: bool, until: str = '') -> 'Schedule':
        """The parts that run in training or in eval, to the end or up to a part."""
        parts = [part for part in self.parts if training or not part.training]
        names = [part.name for part in parts]
        outputs = self.results(training)
        if until:
            parts, outputs = parts[: names.index(until) + 1], ()
        return Schedule(tuple(parts), _let_go(parts, outputs))

    def course(self, size: Size) -> Course:
        """Sizes within the network for an input of this size."""
        size = size if self.in_size is None else self.in_size
        if size not in self._courses:
            if len(self._courses) >= 64:  # enough for one run
                self._courses.clear()
            self._courses[size] = _course(self, size)
        return self._courses[size]

    @cached_property
    def _courses(self) -> dict[Size, Course]:
        return {}

    def stage_sizes(self, size: Size) -> tuple[Size, ...]:
        """Spatial size of the output of each stage."""
        sizes = self.course(size).sizes
        return tuple(sizes[stage.name] for stage in self.stages)

    def refusal(self, size: Size, batch: int = 2, training: bool = True) -> Refusal | None:
        """Why an input of this size is too small; ``None`` if it is not."""
        for stage, layer, held in self.course(size).demands:
            if reason := refused(layer, held, batch, training):
                return Refusal(stage, held, reason)
        return None

    @cached_property
    def min_side(self) -> int:
        """Smallest side of an equal-sided input, for training and batches of at least two."""
        return self.smallest_side()

    def smallest_side(self, batch: int = 2, training: bool = True) -> int:
        """Smallest side of an equal-sided input in such batches."""
        kernels = (max(each.kernel) for part in self.parts for each in _convolutions(part))
        limit = 4 * max(self.reduction) * max(kernels)
        return _sizes.smallest(lambda side: self.refusal((side,) * self.order, batch, training) is None, limit)


def _let_go(parts: Sequence[Part], outputs: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    # Index of the part after which a value is not needed any more, by name.
    ends, before = {'': 0}, ''
    for index, part in enumerate(parts):
        joins = [each for each in (part.skip, part.like) if each] if isinstance(part, Stage) else []
        given = (part.name, *(f'{part.name}:{beside}' for beside in ('held', 'in', 'whole')))
        ends |= dict.fromkeys((part.takes or before, *joins, *given), index)
        before = part.name
    ends |= dict.fromkeys(outputs, len(parts))
    return tuple(tuple(name for name, end in ends.items() if end == index) for index in range(len(parts)))


def _convolutions(part: Part) -> Iterator[Conv]:
    layers: Iterable[Layer] = part.layers if isinstance(part, Single) else ()
    if isinstance(part, Stage):
        layers = (layer for each in part.blocks for layer, _ in each.maps((1,) * len(each.resize.stride)))
    return (layer for layer in layers if isinstance(layer, Conv))


def refused(layer: Layer, size: Size, batch: int, training: bool) -> str:
    """Why a map of this size is too small for a layer, or an empty string."""
    if isinstance(layer, Norm) and (training or layer.kind != 'batch'):
        norm, scope = layer.scope
        few = layer.values(size, batch) < _sizes.MIN_VALUES
        return f'{norm} norm needs at least {_sizes.MIN_VALUES} values a {scope}' if few else ''
    if isinstance(layer, Conv) and layer.padding_mode in ('reflect', 'circular'):
        # Reflection padding does not repeat the value at the border.
        more = layer.padding_mode == 'reflect'
        needed = max(pad + more for pad in layer.padding)
        few = any(length < pad + more for length, pad in zip(size, layer.padding, strict=True) if pad)
        return f'{layer.padding_mode} padding needs at least {needed} values on an axis' if few else ''
    return ''


def _course(plan: Plan, size: Size) -> Course:
    course = Course({'': size}, {}, [])
    before, stage = '', 0
    for part in plan.parts:
        given = course.sizes[part.takes or before]
        course.sizes[f'{part.name}:in'] = given
        if isinstance(part, Stage):
            course.sizes[part.name] = _through_stage(plan, part, stage, given, course)
            stage += 1
        elif isinstance(part, Single):
            course.demands.extend((stage, layer, given) for layer in part.layers if _demand(layer) and not part.vector)
            course.sizes[part.name] = _through_layers(plan, part, given)
        before = part.name
    return course


def _through_stage(plan: Plan, stage: Stage, index: int, size: Size, course: Course) -> Size:
    course.strides[stage.name] = stride = _stride(plan, stage, size, course.strides)
    joined = course.sizes[stage.skip or stage.like] if stage.skip or stage.like else None
    for number, block in enumerate(stage.blocks):
        if number == stage.resize_first:
            size = joined or size
        if number == len(stage.blocks) - 1:
            course.sizes[f'{stage.name}:held'] = size
        own = stride if block is stage.resizing else None
        before, size = size, block.after(size, own)
        course.demands.extend((index, layer, before if early else size) for layer, early in block.demands)
    if stage.resize_first and not stage.still:
        size = joined or size
    return stage.size or size


def _stride(plan: Plan, stage: Stage, size: Size, strides: dict[str, Size]) -> Size:
    if plan.small != 'keep' or plan.in_size is not None:
        return stage.resize.stride
    if stage.undoes:
        return strides[stage.undoes]
    return _sizes.kept(size, stage.resize.stride)


def _through_layers(plan: Plan, part: Single, size: Size) -> Size:
    if part.vector:  # the vector as a map of one value, padded so that the output has the size of the kernel
        return next(layer.kernel for layer in part.layers if isinstance(layer, Conv))
    if any(isinstance(layer, Linear) for layer in part.layers):
        return ()
    return (1,) * plan.order if any(isinstance(layer, GlobalPool) for layer in part.layers) else size
