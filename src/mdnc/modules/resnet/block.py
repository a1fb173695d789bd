"""Residual blocks: a branch of two or three units, plus a shortcut."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from typing_extensions import Self, Unpack

from mdnc.modules import _checks, _layers, _options, _plan, _sizes
from mdnc.modules._docstrings import describe
from mdnc.modules._options import BlockOptions, PerAxis
from mdnc.modules._plan import Resize, Style
from mdnc.modules._sizes import Size
from mdnc.modules._valid_region import ValidRegion
from mdnc.modules.ragged import Ragged, through
from mdnc.modules.resnet.branch import _Branch, resized
from mdnc.ops import path
from mdnc.ops.backend import DEFAULT
from mdnc.ops.channels_last import as_given


class Block(nn.Module):
    """Base of the residual blocks: units one after the other, plus a shortcut.

    Args:
        plan: The plan of the block.
        order: Number of spatial axes.

    Example:
        >>> import mdnc
        >>> block = mdnc.modules.resnet.BlockPlain2d(4, 8, stride=2)
        >>> isinstance(block, mdnc.modules.Block), block.output_size(27), block.memory
        (True, (14, 14), 'lean')
    """

    # The inputs of blocks inside a network are checked by the network; the public classes check their own.
    _has_door: ClassVar[bool] = False

    # What training keeps, and the backend, see `mdnc.ops.fused.block`; networks set both for all their blocks.
    _memory: str = 'lean'
    backend: str = DEFAULT

    in_node: _Branch | None

    def __init__(self, plan: _plan.Block, order: int) -> None:
        super().__init__()
        self._plan, self.order = plan, order
        self.in_planes, self.out_planes = plan.planes
        self._units = tuple(plan.named)
        for name, unit in plan.named.items():
            self.add_module(name, _Branch(unit, order))
        self.in_node = None if plan.shortcut is None else _Branch(plan.shortcut, order)
        self.se = None if plan.se is None else _layers.SqueezeExcite(plan.se, order)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        describe(cls)

    @classmethod
    def planned(cls, plan: _plan.Block, order: int) -> Self:
        """Build the block of a plan."""
        made = cls.__new__(cls)
        Block.__init__(made, plan, order)
        return made

    @property
    def plan(self) -> _plan.Block:
        """The plan of the block."""
        return self._plan

    @property
    def memory(self) -> str:
        """What training keeps for backward; values as in `Network.memory`. It can be set at any time."""
        return self._memory

    @memory.setter
    def memory(self, level: str) -> None:
        _checks.word(type(self).__name__, 'memory', level, _options.MEMORY_LEVELS)
        self._memory = level

    def output_size(self, size: int | Sequence[int]) -> Size:
        """Spatial size of the output for an input of this spatial size, without running the block.

        Args:
            size: One int, or one for each axis.

        Raises:
            ValueError: The block refuses inputs of this size.
        """
        checked = _checks.per_axis(type(self).__name__, 'size', size, self.order)
        self._refuse_starved(checked, batch=2, training=False)
        return self._plan.after(checked)

    def forward(self, x: Tensor, stride: Size | None = None) -> Tensor:
        """Apply the block: ``(B, in_planes, L1, …)`` → ``(B, out_planes, M1, …)``.

        Args:
            x: The input.
            stride: Stride that replaces its own for small inputs; ``None`` for its own.
        """
        if isinstance(x, Ragged):
            return self._run_ragged(x, stride)
        if self._has_door and not _checks.traced(x):
            self._admit(x)
        if stride is not None and self._plan.resize and stride != self._plan.resize.stride:
            return self._run_resized(x, stride)
        units = [getattr(self, name) for name in self._units]
        if self.se is None and not self._drops:
            fused = path.run(x, units, self._memory, self.backend, self._adds, self.in_node)
            if fused is not None:
                outside = self._has_door and self.backend != DEFAULT and not _checks.traced(x)
                return as_given(fused, x) if outside else fused
        y = x
        for unit in units:
            y = path.call(unit, y, self._memory, self.backend)
        # Out of place: in 'old' order ReLU keeps the output that an in-place sum would overwrite.
        if self.in_node is None:
            return self._gated(y) + x
        return self._gated(y) + path.call_shortcut(self.in_node, x, self._memory, self.backend)

    @torch.no_grad()
    def begin_as_shortcut(self) -> None:
        """Set the last weights of the branch to zero, so that the block returns its shortcut.

        In ``'old'`` order these are the weights of the last norm, where it has any, else of the last convolution. If
        a ReLU follows, whose gradient is 0 at 0, their bias is 1e-7, and so is the output of the branch.
        """
        unit = getattr(self, self._units[-1])
        spark = 1e-7 if isinstance(unit[-1], nn.ReLU) else 0.0
        for layer in reversed(unit):
            if getattr(layer, 'weight', None) is not None and not isinstance(layer, nn.PReLU):
                layer.weight.zero_()
                if layer.bias is not None:
                    layer.bias.fill_(spark)
                return

    def paths(self, prefix: str = '', *, ragged: bool = False) -> list[path.Taken]:
        """The path that each unit takes at present; only the input can still change it.

        Args:
            prefix: Stands before the names of the units.
            ragged: Whether for a batch of samples that differ in size.
        """
        names = (*self._units, *(() if self.in_node is None else ('in_node',)))
        named = {f'{prefix}{name}': getattr(self, name) for name in names}
        found = path.taken(named, self._memory, self._adds, f'{prefix}in_node', self.backend)
        reason = self._why_not_padded() if ragged else ''
        return [replace(each, fused=False, reason=each.reason or reason) for each in found] if reason else found

    def _why_not_padded(self) -> str:
        reason = 'branches are dropped' if self._drops else '' if self.se is None else 'squeeze-excite follows'
        if not reason:
            units = [getattr(self, name) for name in self._units]
            reason = path.why_not_padded(path.block_of(units, self._adds, self.in_node))
        return f'the samples of the batch differ in size, and {reason}' if reason else ''

    @property
    def _adds(self) -> str:
        return 'input' if self.in_node is None else 'shortcut'

    @property
    def _drops(self) -> bool:
        return self.training and self._plan.drop_path > 0

    def _gated(self, y: Tensor, real: ValidRegion | None = None) -> Tensor:
        # What is added to the shortcut: scaled by the gate, and dropped for some samples.
        if self.se is not None:
            y = self.se(y, real)
        if not self._drops:
            return y
        keep = 1 - self._plan.drop_path
        return y * (y.new_empty((y.shape[0], *(1,) * (self.order + 1))).bernoulli_(keep) / keep)

    def _run_resized(self, x: Tensor, stride: Size) -> Tensor:
        y = x = x.contiguous()  # torch's strided convolutions are not correct in every layout, see path.plainly
        for name, unit in self._plan.named.items():
            module = getattr(self, name)
            y = resized(module, unit, y, stride) if unit.resize else path.plainly(module, y)
        shortcut, plan = self.in_node, self._plan.shortcut
        return self._gated(y) + (x if shortcut is None or plan is None else resized(shortcut, plan, x, stride))

    def _run_ragged(self, x: Ragged, stride: Size | None) -> Ragged:
        as_planned = stride is None or self._plan.resize is None or stride == self._plan.resize.stride
        if as_planned and self.se is None and not self._drops:
            how = (self._memory, self.backend, self._adds, self.in_node)
            fused = path.run_padded(x.values, x.real, [getattr(self, name) for name in self._units], *how)
            if fused is not None:
                values, real = fused
                return Ragged(values, cast(ValidRegion, real))
        y = x
        for name, unit in self._plan.named.items():
            y = through(unit.layers, getattr(self, name), y, stride)
        y = y if self.se is None else y.cleaned()
        y = Ragged(self._gated(y.values, y.real), y.real, y.clean)
        shortcut, plan = self.in_node, self._plan.shortcut
        return y.plus(x if shortcut is None or plan is None else through(plan.layers, shortcut, x, stride))

    def _admit(self, x: Tensor) -> None:
        owner = type(self).__name__
        lengths = [f'L{axis + 1}' for axis in range(self.order)]
        _checks.tensor(owner, x, ['B', self.in_planes, *lengths], next(self.parameters()))
        self._refuse_starved(tuple(x.shape[2:]), x.shape[0], self.training)

    def _refuse_starved(self, size: Size, batch: int, training: bool) -> None:
        if starved := _starved(self._plan, size, batch, training):
            held, why = starved
            raise ValueError(
                f'{type(self).__name__}: input size {size} is too small: within the block it would be '
                f'{_sizes.text(held)}, and '
                f'{why}. Use a larger input, or another {"padding_mode" if "padding" in why else "normalizer"}.'
            )


@lru_cache(maxsize=256)  # needed before every call of a public block
def _starved(plan: _plan.Block, size: Size, batch: int, training: bool) -> tuple[Size, str] | None:
    """The smallest map within a block that is too small for a layer, and why."""
    found = [(held, why) for layer, held in plan.maps(size) if (why := _plan.refused(layer, held, batch, training))]
    return min(found, key=lambda each: math.prod(each[0]), default=None)


def _planned(kind: str, owner: str, order: int, arguments: dict[str, Any], options: dict[str, Any]) -> _plan.Block:
    """Check the arguments of a block and plan it."""
    order = _checks.spatial_order(owner, order)
    in_planes, out_planes = (_checks.integer(owner, name, arguments[name]) for name in ('in_planes', 'out_planes'))
    legal = (_options.NORMALIZERS, _options.ACTIVATORS, _options.LAYER_ORDERS)
    words = zip(('normalizer', 'activator', 'layer_order'), legal, strict=True)
    chosen: dict[str, Any] = {name: _checks.word(owner, name, arguments[name], each) for name, each in words}
    style = Style(**chosen, **{name: options[name] for name in _options.record(_options.StyleOptions)})
    (kernel,) = _checks.odd_kernels(owner, arguments['kernel_size'], order)
    _refuse_padding(owner, arguments, kernel)
    resize = _resize(owner, order, arguments, options)
    if kind == 'bottleneck' and options['resize_at'] == 'first':
        raise ValueError(f"{owner}: resize_at='first' has no effect in a bottleneck, whose middle convolution resizes.")
    plan = _plan.block(kind, in_planes, out_planes, kernel, style, resize)
    _plan.refuse_misfits(owner, [plan], style)
    return replace(plan, drop_path=options['drop_path'])


def _resize(owner: str, order: int, arguments: dict[str, Any], options: dict[str, Any]) -> Resize:
    way = _checks.word(owner, 'scaler', arguments['scaler'], _options.SCALERS)
    size, given = None, arguments['output_size']
    if given is not None:
        size = _checks.per_axis(owner, 'output_size', given, order)
        if way == 'down':
            raise ValueError(f"{owner}: output_size={given!r} is legal only with scaler='up', not 'down'.")
        if options['upsampling'] == 'transposed':
            raise ValueError(f"{owner}: output_size={given!r} is not legal with upsampling='transposed'.")
    return Resize(
        'down' if way == 'down' else 'up', _checks.per_axis(owner, 'stride', arguments['stride'], order), size
    )


def _refuse_padding(owner: str, arguments: dict[str, Any], kernel: Size) -> None:
    padding = arguments['padding']
    if _checks.per_axis(owner, 'padding', padding, len(kernel), minimum=0) != _sizes.padding(kernel):
        raise ValueError(
            f'{owner}: padding={padding!r} does not fit kernel_size={arguments["kernel_size"]!r}: branch and shortcut '
            f'would differ in size. It must be kernel_size // 2, that is {_sizes.padding(kernel)}.'
        )


class _BlockNd(Block):
    """Residual block ``y = branch(x) + shortcut(x)``, after He et al., arXiv:1512.03385 and 1603.05027.

    The shortcut ``in_node`` is x itself where sizes and channels agree, and otherwise a 1 × … × 1 convolution with
    a norm, strided or up-sampled like the branch.

    Args:
        in_planes: Channels of the input, at least 1.
        out_planes: Channels of the output, at least 1.
        kernel_size: Odd kernel size of the block, one int or one for each axis.
        stride: Factor by which the block resizes, one int or one for each axis.
        padding: Zero padding, one int or one for each axis. It must fit the kernel, ``kernel_size // 2``:
            otherwise branch and shortcut would differ in size.
        output_size: Spatial size of the output instead of ``stride`` times the input's, one int or one for each axis;
            only with ``scaler='up'``.
        normalizer: ``'batch'``, ``'inst'`` (instance norm without affine), ``'pinst'`` (with affine), ``'group'`` (see
            `norm_groups`), ``'layer'`` (over all of a sample) or ``'null'``.
        activator: ``'prelu'`` (one slope for each channel), ``'relu'``, ``'leaky_relu'`` (slope 0.01), ``'elu'``,
            ``'gelu'``, ``'silu'`` or ``'null'``.
        layer_order: ``'new'`` for norm, act, conv; ``'old'`` for conv, norm, act.
        scaler: ``'down'`` to divide the size by ``stride``, ``'up'`` to multiply it.
        **options: See `BlockOptions`.

    Shapes:
        x ``(B, in_planes, L1, …)`` → y ``(B, out_planes, M1, …)`` with ``M = output_size(L)``.

    Raises:
        TypeError: An argument or the input has the wrong type.
        ValueError: An argument or the input has the wrong value, or the input is too small for the norms.
    """

    _kind: ClassVar[str]

    def __init__(
        self,
        order: int,
        in_planes: int,
        out_planes: int,
        kernel_size: PerAxis = 3,
        stride: PerAxis = 1,
        padding: PerAxis = 1,
        output_size: PerAxis | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
        **options: Unpack[BlockOptions],
    ) -> None:
        given = {
            **{'in_planes': in_planes, 'out_planes': out_planes, 'kernel_size': kernel_size, 'stride': stride},
            **{'padding': padding, 'output_size': output_size, 'normalizer': normalizer, 'activator': activator},
            **{'layer_order': layer_order, 'scaler': scaler},
        }
        owner = type(self).__name__
        known = _options.checked(BlockOptions, owner, dict(options))
        super().__init__(_planned(self._kind, owner, order, given, known), order)
        self.memory = known['memory']


class _BlockPlainNd(_BlockNd):
    """Plain residual block: two k × k convolutions, the second of which resizes."""

    _kind = 'plain'


class _BlockBottleneckNd(_BlockNd):
    """Bottleneck residual block: 1 × 1, k × k (which resizes), 1 × 1 convolutions; the last changes the channels."""

    _kind = 'bottleneck'


class BlockPlain1d(_BlockPlainNd):
    """Plain residual block for signals, ``(B, C, L)``.

    Example:
        >>> import mdnc, torch
        >>> block = mdnc.modules.resnet.BlockPlain1d(4, 8, stride=2)
        >>> block(torch.zeros(2, 4, 27)).shape
        torch.Size([2, 8, 14])
    """

    _has_door = True

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: PerAxis = 3,
        stride: PerAxis = 1,
        padding: PerAxis = 1,
        output_size: PerAxis | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
        **options: Unpack[BlockOptions],
    ) -> None:
        shape = (in_planes, out_planes, kernel_size, stride, padding, output_size)
        super().__init__(1, *shape, normalizer, activator, layer_order, scaler, **options)


class BlockPlain2d(_BlockPlainNd):
    """Plain residual block for images, ``(B, C, L1, L2)``.

    Example:
        >>> import mdnc, torch
        >>> block = mdnc.modules.resnet.BlockPlain2d(4, 8, stride=2)
        >>> block(torch.zeros(2, 4, 27, 22)).shape
        torch.Size([2, 8, 14, 11])
    """

    _has_door = True

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: PerAxis = 3,
        stride: PerAxis = 1,
        padding: PerAxis = 1,
        output_size: PerAxis | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
        **options: Unpack[BlockOptions],
    ) -> None:
        shape = (in_planes, out_planes, kernel_size, stride, padding, output_size)
        super().__init__(2, *shape, normalizer, activator, layer_order, scaler, **options)


class BlockPlain3d(_BlockPlainNd):
    """Plain residual block for volumes, ``(B, C, L1, L2, L3)``.

    Example:
        >>> import mdnc, torch
        >>> block = mdnc.modules.resnet.BlockPlain3d(4, 8, stride=2)
        >>> block(torch.zeros(2, 4, 13, 12, 9)).shape
        torch.Size([2, 8, 7, 6, 5])
    """

    _has_door = True

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: PerAxis = 3,
        stride: PerAxis = 1,
        padding: PerAxis = 1,
        output_size: PerAxis | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
        **options: Unpack[BlockOptions],
    ) -> None:
        shape = (in_planes, out_planes, kernel_size, stride, padding, output_size)
        super().__init__(3, *shape, normalizer, activator, layer_order, scaler, **options)


class BlockBottleneck1d(_BlockBottleneckNd):
    """Bottleneck residual block for signals, ``(B, C, L)``.

    Example:
        >>> import mdnc, torch
        >>> block = mdnc.modules.resnet.BlockBottleneck1d(4, 8, stride=2)
        >>> block(torch.zeros(2, 4, 27)).shape
        torch.Size([2, 8, 14])
    """

    _has_door = True

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: PerAxis = 3,
        stride: PerAxis = 1,
        padding: PerAxis = 1,
        output_size: PerAxis | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
        **options: Unpack[BlockOptions],
    ) -> None:
        shape = (in_planes, out_planes, kernel_size, stride, padding, output_size)
        super().__init__(1, *shape, normalizer, activator, layer_order, scaler, **options)


class BlockBottleneck2d(_BlockBottleneckNd):
    """Bottleneck residual block for images, ``(B, C, L1, L2)``.

    Example:
        >>> import mdnc, torch
        >>> block = mdnc.modules.resnet.BlockBottleneck2d(4, 8, stride=2)
        >>> block(torch.zeros(2, 4, 27, 22)).shape
        torch.Size([2, 8, 14, 11])
    """

    _has_door = True

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: PerAxis = 3,
        stride: PerAxis = 1,
        padding: PerAxis = 1,
        output_size: PerAxis | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
        **options: Unpack[BlockOptions],
    ) -> None:
        shape = (in_planes, out_planes, kernel_size, stride, padding, output_size)
        super().__init__(2, *shape, normalizer, activator, layer_order, scaler, **options)


class BlockBottleneck3d(_BlockBottleneckNd):
    """Bottleneck residual block for volumes, ``(B, C, L1, L2, L3)``.

    Example:
        >>> import mdnc, torch
        >>> block = mdnc.modules.resnet.BlockBottleneck3d(4, 8, stride=2)
        >>> block(torch.zeros(2, 4, 13, 12, 9)).shape
        torch.Size([2, 8, 7, 6, 5])
    """

    _has_door = True

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: PerAxis = 3,
        stride: PerAxis = 1,
        padding: PerAxis = 1,
        output_size: PerAxis | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
        **options: Unpack[BlockOptions],
    ) -> None:
        shape = (in_planes, out_planes, kernel_size, stride, padding, output_size)
        super().__init__(3, *shape, normalizer, activator, layer_order, scaler, **options)
