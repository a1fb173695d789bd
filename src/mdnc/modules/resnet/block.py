"""Residual blocks: a branch of two or three units, plus a shortcut."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from mdnc.modules import _checks, _sizes
from mdnc.modules._doc import inherit_sections
from mdnc.modules._sizes import Size
from mdnc.modules.resnet import branch
from mdnc.modules.resnet.branch import Style, Window, _Branch
from mdnc.ops import path
from mdnc.ops.fused import Manner


class _BlockNd(nn.Module):
    """Residual block ``y = branch(x) + shortcut(x)``, after He et al., arXiv:1512.03385 and 1603.05027.

    The shortcut ``in_node`` is x itself where sizes and channels agree, and otherwise a 1 × … × 1 convolution with
    a norm, strided or up-sampled like the branch.

    Args:
        in_planes: Channels of the input, at least 1.
        out_planes: Channels of the output, at least 1.
        kernel_size: Odd kernel size of the block, one int or one for each axis.
        stride: Factor by which the block resizes, one int or one for each axis.
        padding: Zero padding, one int or one for each axis. It must fit the kernel, ``kernel_size // 2``:
            otherwise branch and shortcut would not meet.
        output_size: Spatial size to give instead of ``stride`` times the input's, one int or one for each axis;
            only with ``scaler='up'``.
        normalizer: ``'batch'``, ``'inst'`` (instance norm without affine), ``'pinst'`` (with affine) or ``'null'``.
        activator: ``'prelu'`` (one slope for each channel), ``'relu'`` or ``'null'``.
        layer_order: ``'new'`` for norm, act, conv; ``'old'`` for conv, norm, act.
        scaler: ``'down'`` to divide the size by ``stride``, ``'up'`` to multiply it by linear interpolation.

    Shapes:
        x ``(B, in_planes, L1, …)`` → y ``(B, out_planes, M1, …)`` with ``M = output_size(L)``.

    Raises:
        TypeError: An argument or the input has the wrong type.
        ValueError: An argument or the input has the wrong value, or the input is too small for the norms.
    """

    _units: ClassVar[tuple[str, ...]] = ()
    # Blocks inside a network trust its door; the public faces have one of their own.
    _has_door: ClassVar[bool] = False

    # How the fused path runs; networks set it for all their blocks.
    manner: Manner = Manner()

    in_node: _Branch | None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        inherit_sections(cls)

    def __init__(
        self,
        order: int,
        in_planes: int,
        out_planes: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 1,
        output_size: int | Sequence[int] | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.order = _checks.spatial_order(owner, order)
        self.in_planes = _checks.integer(owner, 'in_planes', in_planes)
        self.out_planes = _checks.integer(owner, 'out_planes', out_planes)
        self._style = Style(
            _checks.word(owner, 'normalizer', normalizer, branch.NORMALIZERS),
            _checks.word(owner, 'activator', activator, branch.ACTIVATORS),
            _checks.word(owner, 'layer_order', layer_order, branch.LAYER_ORDERS),
            _checks.word(owner, 'scaler', scaler, branch.SCALERS),
        )
        self._window = _window(self, kernel_size, stride, padding, output_size)
        self._build()

    def _build(self) -> None:
        raise NotImplementedError

    def output_size(self, size: int | Sequence[int]) -> Size:
        """Spatial size of the output for an input of this spatial size, without running the block.

        Args:
            size: One int, or one for each axis.

        Raises:
            ValueError: The block refuses inputs of this size.
        """
        checked = _checks.per_axis(type(self).__name__, 'size', size, self.order)
        after = self._resized(checked)
        if self._style.normalizer in ('inst', 'pinst'):
            self._refuse_starved(checked, after, batch=1)
        return after

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: ``(B, in_planes, L1, …)`` → ``(B, out_planes, M1, …)``."""
        if self._has_door and not _checks.traced(x):
            self._admit(x)
        units = [getattr(self, name) for name in self._units]
        fused = path.run(x, units, self.manner, self._adds, self.in_node)
        if fused is not None:
            return fused
        y = x
        for unit in units:
            y = path.call(unit, y, self.manner)
        # Out of place: in 'old' order ReLU keeps the output that an in-place sum would overwrite.
        return y + (x if self.in_node is None else path.plainly(self.in_node, x))

    @property
    def memory(self) -> str:
        """What training keeps for backward, as of networks; may be set at any time, and changes no result."""
        return self.manner.memory

    @memory.setter
    def memory(self, level: str) -> None:
        _checks.word(type(self).__name__, 'memory', level, path.MEMORY_LEVELS)
        self.manner = replace(self.manner, memory=level)

    def paths(self, prefix: str = '') -> list[path.Taken]:
        """Which path each unit takes as things stand; only the input may still overrule it."""
        names = (*self._units, *(() if self.in_node is None else ('in_node',)))
        named = {f'{prefix}{name}': getattr(self, name) for name in names}
        return path.taken(named, self.manner, self._adds, f'{prefix}in_node')

    @property
    def _adds(self) -> str:
        return 'input' if self.in_node is None else 'shortcut'

    def _admit(self, x: Tensor) -> None:
        owner = type(self).__name__
        lengths = [f'L{axis + 1}' for axis in range(self.order)]
        _checks.tensor(owner, x, ['B', self.in_planes, *lengths], next(self.parameters()))
        size = tuple(x.shape[2:])
        after = self.output_size(size)
        if self._style.normalizer == 'batch' and self.training:
            # Batch norm takes its statistics over the batch too, and only in training.
            self._refuse_starved(size, after, batch=x.shape[0])

    def _refuse_starved(self, size: Size, after: Size, batch: int) -> None:
        held = min(size, after, key=math.prod)
        if batch * math.prod(held) >= _sizes.MIN_VALUES:
            return
        norm, unit = ('batch', 'channel') if self._style.normalizer == 'batch' else ('instance', 'plane')
        raise ValueError(
            f'{type(self).__name__}: input size {size} is too small: the block would hold {_sizes.text(held)}, and '
            f'{norm} norm needs at least 2 values a {unit}. Give it a larger input, or another normalizer.'
        )

    def _resized(self, size: Size) -> Size:
        window = self._window
        if self._style.scaler == 'down':
            return _sizes.shrunk(size, window.stride)
        return window.output_size or _sizes.grown(size, window.stride)


def _window(block: _BlockNd, kernel_size: object, stride: object, padding: object, output_size: object) -> Window:
    owner, order = type(block).__name__, block.order
    kernel = _checks.odd_kernel(owner, kernel_size, order)
    pads = _checks.per_axis(owner, 'padding', padding, order, minimum=0)
    if pads != _sizes.padding(kernel):
        raise ValueError(
            f'{owner}: padding={padding!r} does not fit kernel_size={kernel_size!r}: branch and shortcut would differ '
            f'in size. It must be kernel_size // 2, that is {_sizes.padding(kernel)}.'
        )
    size = None
    if output_size is not None:
        size = _checks.per_axis(owner, 'output_size', output_size, order)
        if block._style.scaler == 'down':
            raise ValueError(f"{owner}: output_size={output_size!r} is legal only with scaler='up', not 'down'.")
    return Window(kernel, _checks.per_axis(owner, 'stride', stride, order), pads, size)


def _still(kernel: Size) -> Window:
    # Of the units of a block that do not resize it.
    return Window(kernel, (1,) * len(kernel), _sizes.padding(kernel))


class _BlockPlainNd(_BlockNd):
    """Plain residual block: two k × k convolutions, the second of which resizes."""

    _units = ('conv1', 'conv2')

    def _build(self) -> None:
        order, planes, out, window = self.order, self.in_planes, self.out_planes, self._window
        self.conv1 = _Branch(order, planes, planes, _still(window.kernel), self._style)
        self.conv2 = _Branch(order, planes, out, window, self._style)
        self.in_node = branch.shortcut(order, planes, out, window, self._style)


class _BlockBottleneckNd(_BlockNd):
    """Bottleneck residual block: 1 × 1, k × k (which resizes), 1 × 1 convolutions; the last changes the channels."""

    _units = ('conv1', 'conv2', 'conv3')

    def _build(self) -> None:
        order, planes, out, window = self.order, self.in_planes, self.out_planes, self._window
        point = _still((1,) * order)
        self.conv1 = _Branch(order, planes, planes, point, self._style)
        self.conv2 = _Branch(order, planes, planes, window, self._style)
        self.conv3 = _Branch(order, planes, out, point, self._style)
        self.in_node = branch.shortcut(order, planes, out, window, self._style)


class BlockPlain1d(_BlockPlainNd):
    """Plain residual block for signals, ``(B, C, L)``."""

    _has_door = True

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 1,
        output_size: int | Sequence[int] | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
    ) -> None:
        super().__init__(
            1,
            in_planes,
            out_planes,
            kernel_size,
            stride,
            padding,
            output_size,
            normalizer,
            activator,
            layer_order,
            scaler,
        )


class BlockPlain2d(_BlockPlainNd):
    """Plain residual block for images, ``(B, C, L1, L2)``."""

    _has_door = True

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 1,
        output_size: int | Sequence[int] | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
    ) -> None:
        super().__init__(
            2,
            in_planes,
            out_planes,
            kernel_size,
            stride,
            padding,
            output_size,
            normalizer,
            activator,
            layer_order,
            scaler,
        )


class BlockPlain3d(_BlockPlainNd):
    """Plain residual block for volumes, ``(B, C, L1, L2, L3)``."""

    _has_door = True

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 1,
        output_size: int | Sequence[int] | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
    ) -> None:
        super().__init__(
            3,
            in_planes,
            out_planes,
            kernel_size,
            stride,
            padding,
            output_size,
            normalizer,
            activator,
            layer_order,
            scaler,
        )


class BlockBottleneck1d(_BlockBottleneckNd):
    """Bottleneck residual block for signals, ``(B, C, L)``."""

    _has_door = True

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 1,
        output_size: int | Sequence[int] | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
    ) -> None:
        super().__init__(
            1,
            in_planes,
            out_planes,
            kernel_size,
            stride,
            padding,
            output_size,
            normalizer,
            activator,
            layer_order,
            scaler,
        )


class BlockBottleneck2d(_BlockBottleneckNd):
    """Bottleneck residual block for images, ``(B, C, L1, L2)``."""

    _has_door = True

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 1,
        output_size: int | Sequence[int] | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
    ) -> None:
        super().__init__(
            2,
            in_planes,
            out_planes,
            kernel_size,
            stride,
            padding,
            output_size,
            normalizer,
            activator,
            layer_order,
            scaler,
        )


class BlockBottleneck3d(_BlockBottleneckNd):
    """Bottleneck residual block for volumes, ``(B, C, L1, L2, L3)``."""

    _has_door = True

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 1,
        output_size: int | Sequence[int] | None = None,
        normalizer: str = 'pinst',
        activator: str = 'prelu',
        layer_order: str = 'new',
        scaler: str = 'down',
    ) -> None:
        super().__init__(
            3,
            in_planes,
            out_planes,
            kernel_size,
            stride,
            padding,
            output_size,
            normalizer,
            activator,
            layer_order,
            scaler,
        )
