"""Residual decoders: vector or feature maps → array."""

from collections.abc import Sequence

from torch import Tensor, nn

from mdnc.modules import _checks, _plan, _sizes
from mdnc.modules._dims import DIMS
from mdnc.modules._sizes import Size
from mdnc.modules.resnet.network import Arguments, _ResNetNd, outer_conv, same_conv, stages
from mdnc.modules.resnet.stage import crop
from mdnc.ops import path


class _DecoderNetNd(_ResNetNd):
    """Residual decoder: every stage doubles the size, and all but the last halve the channels.

    Args:
        channel: Channels of the last stage, at least 1.
        layers: Number of residual blocks of each stage; at least two stages of at least one block.
        out_size: Spatial size of the output, one int or one for each axis.
        block: Kind of the residual blocks, ``'plain'`` (2 convolutions) or ``'bottleneck'`` (3).
        kernel_size: Odd kernel size of the blocks, one int or one for each axis. An axis with kernel 1 is never
            resized.
        in_length: Length of the input vector, at least 1; ``None`` to take feature maps of `input_size` instead.
        out_planes: Channels of the output, at least 1.
        memory: What training keeps for backward, see `memory`: ``'plain'``, ``'fast'``, ``'lean'``, ``'leaner'`` or
            ``'least'``.

    Shapes:
        x ``(B, *input_size)`` → ``(B, out_planes, *out_size)``.

    Raises:
        TypeError: An argument or the input has the wrong type.
        ValueError: An argument or the input has the wrong value, or the decoder could never run, because its
            smallest map would hold a single value.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.DecoderNet2d(8, [1, 1], out_size=(19, 14), in_length=5, out_planes=3)
        >>> net(torch.zeros(2, 5)).shape
        torch.Size([2, 3, 19, 14])
    """

    conv_in: nn.Module | None

    def __init__(
        self,
        order: int,
        channel: int,
        layers: Sequence[int],
        out_size: int | Sequence[int],
        block: str = 'bottleneck',
        kernel_size: int | Sequence[int] = 3,
        in_length: int | None = 2,
        out_planes: int = 1,
        *,
        memory: str = 'lean',
    ) -> None:
        given = Arguments(type(self).__name__, order, channel, layers, block, kernel_size)
        size = _checks.per_axis(given.owner, 'out_size', out_size, given.shape.order)
        in_length = given.length('in_length', in_length)
        out_planes = given.planes('out_planes', out_planes)
        plan = _plan.decoder(given.shape, size, in_length, out_planes)
        _refuse_unrunnable(given.owner, plan)
        super().__init__(plan, given.config(out_size=size, in_length=in_length, out_planes=out_planes))
        wide = plan.in_planes
        self.conv_in = None if in_length is None else _vector_conv(plan, in_length)
        self.conv_first = same_conv(plan.order, wide, wide, plan.kernel, bias=False)
        self.netbody = nn.ModuleList(stages(plan))
        self.conv_last = outer_conv(plan, given.shape.channel, out_planes, bias=True)
        self.memory = memory

    @property
    def input_size(self) -> tuple[int, ...]:
        """Shape of the input without the batch: ``(in_length,)``, or ``(channels, *smallest size)``."""
        if self._plan.vector is not None:
            return (self._plan.vector,)
        return (self._plan.in_planes, *self._plan.decoder_sizes()[0])

    @property
    def min_size(self) -> Size:
        """The one size that the decoder takes: ``(in_length,)``, or the spatial part of `input_size`."""
        return self.input_size if self._plan.vector is not None else self.input_size[1:]

    def stage_sizes(self, size: int | Sequence[int]) -> tuple[Size, ...]:
        """Spatial size after each stage (cropped to what the next one takes), without running the network.

        Args:
            size: `min_size`, the only one that a decoder takes.

        Raises:
            ValueError: Any other size.
        """
        self._refuse_other(_checks.per_axis(type(self).__name__, 'size', size, len(self.min_size)))
        return self._plan.stage_sizes(self.min_size)

    def forward(self, x: Tensor) -> Tensor:
        """Decode ``(B, *input_size)`` into ``(B, out_planes, *out_size)``."""
        self._admit(x)
        order = self._plan.order
        if self.conv_in is not None:
            x = self.conv_in(x[(..., *(None,) * order)])  # (B, in_length, 1, …) → smallest map
        x = path.call(self.conv_first, x, self.manner)
        for stage, size in zip(self.netbody, self._plan.decoder_sizes()[1:], strict=True):
            x = crop(stage(x), size, order)
        return self.conv_last(x)  # type: ignore[no-any-return]

    def _admit(self, x: Tensor) -> None:
        if _checks.traced(x):
            return
        _checks.tensor(type(self).__name__, x, ['B', *self.input_size], next(self.parameters(), None))

    def _refuse_other(self, size: Size) -> None:
        if size != self.min_size:
            raise ValueError(
                f'{type(self).__name__}: size={size} is not what it takes: out_size={self._plan.out_size} needs '
                f'{self.min_size}.'
            )


def _refuse_unrunnable(owner: str, plan: _plan.Plan) -> None:
    if plan.first_starved(()) is None:
        return
    held = _sizes.text(plan.decoder_sizes()[0])
    raise ValueError(
        f'{owner}: out_size={plan.out_size} is too small for {len(plan.stages)} stages: stage 1 would hold {held}, and '
        f'instance norm needs at least 2 values a plane. Give a larger out_size (equal sides from {plan.min_side}) or '
        'fewer layers.'
    )


def _vector_conv(plan: _plan.Plan, in_length: int) -> nn.Module:
    # On a 1 × … × 1 map, padding by size − 1 makes a kernel of that size give a map of that size.
    smallest = plan.decoder_sizes()[0]
    padding = tuple(side - 1 for side in smallest)
    return DIMS[plan.order].conv(in_length, plan.in_planes, smallest, padding=padding)  # type: ignore[arg-type]


class DecoderNet1d(_DecoderNetNd):
    """Residual decoder for signals, ``(B, C, L)``."""

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        out_size: int | Sequence[int],
        block: str = 'bottleneck',
        kernel_size: int | Sequence[int] = 3,
        in_length: int | None = 2,
        out_planes: int = 1,
        *,
        memory: str = 'lean',
    ) -> None:
        super().__init__(1, channel, layers, out_size, block, kernel_size, in_length, out_planes, memory=memory)


class DecoderNet2d(_DecoderNetNd):
    """Residual decoder for images, ``(B, C, L1, L2)``."""

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        out_size: int | Sequence[int],
        block: str = 'bottleneck',
        kernel_size: int | Sequence[int] = 3,
        in_length: int | None = 2,
        out_planes: int = 1,
        *,
        memory: str = 'lean',
    ) -> None:
        super().__init__(2, channel, layers, out_size, block, kernel_size, in_length, out_planes, memory=memory)


class DecoderNet3d(_DecoderNetNd):
    """Residual decoder for volumes, ``(B, C, L1, L2, L3)``."""

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        out_size: int | Sequence[int],
        block: str = 'bottleneck',
        kernel_size: int | Sequence[int] = 3,
        in_length: int | None = 2,
        out_planes: int = 1,
        *,
        memory: str = 'lean',
    ) -> None:
        super().__init__(3, channel, layers, out_size, block, kernel_size, in_length, out_planes, memory=memory)
