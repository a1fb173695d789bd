"""Residual decoders: vector or feature maps → array."""

from collections.abc import Sequence

from torch import nn
from typing_extensions import Unpack

from mdnc.modules import _checks, _families, _sizes
from mdnc.modules._families import Frame
from mdnc.modules._options import DecoderOptions, PerAxis, PerStage
from mdnc.modules._plan import Plan
from mdnc.modules._sizes import Size
from mdnc.modules.resnet.arguments import Arguments
from mdnc.modules.resnet.network import Network


class _DecoderNetNd(Network):
    """Residual decoder: every stage doubles the size, and all but the last halve the channels.

    With ``in_length`` a transposed convolution first makes the smallest maps from a vector. Each number in ``layers``
    makes a stage, a stack of that many residual blocks (`BlockPlain2d` or `BlockBottleneck2d`), the last of which
    multiplies the size by 2 and changes the channels; the size is cropped so that the output has ``out_size``. A last
    convolution gives ``out_planes`` channels.

    Args:
        channel: Channels of the last stage, at least 1.
        layers: Number of residual blocks of each stage; at least two stages of at least one block.
        out_size: Spatial size of the output, one int or one for each axis.
        block: Kind of the residual blocks, ``'plain'`` (2 convolutions) or ``'bottleneck'`` (3).
        kernel_size: Odd kernel size of the blocks: one int, one for each axis, or a list with one of these for each
            stage. Without `strides`, an axis with kernel 1 is never resized.
        in_length: Length of the input vector, at least 1; ``None`` for feature maps of `input_size` as input.
        out_planes: Channels of the output, at least 1.
        **options: See `DecoderOptions`.

    Shapes:
        x ``(B, *input_size)`` → ``(B, out_planes, *out_size)``.

    Raises:
        TypeError: An argument or the input has the wrong type.
        ValueError: An argument or the input has the wrong value, or the decoder could never run, because its
            smallest map would have a single value.
    """

    conv_in: nn.Module | None
    netbody: nn.ModuleList
    _absent = ('conv_in',)

    def __init__(
        self,
        order: int,
        channel: int,
        layers: Sequence[int],
        out_size: PerAxis,
        block: str = 'bottleneck',
        kernel_size: PerStage = 3,
        in_length: int | None = 2,
        out_planes: int = 1,
        **options: Unpack[DecoderOptions],
    ) -> None:
        given = Arguments(type(self).__name__, DecoderOptions, order, channel, layers, block, kernel_size, options)
        size = _checks.per_axis(given.owner, 'out_size', out_size, given.order)
        in_length = given.length('in_length', in_length)
        out_planes = given.planes('out_planes', out_planes)
        given.refuse('shortcut', 'in a decoder, where no shortcut divides the size')
        levels = range(len(given.layers))
        frame = given.frame([given.channel * 2**level for level in reversed(levels)], len(levels))
        plan = given.checked(_families.decoder(frame, size, in_length, out_planes, given.options['dropout']))
        _refuse_unrunnable(given.owner, plan, frame, size)
        config = given.config(out_size=size, in_length=in_length, out_planes=out_planes)
        super().__init__(plan, config, given.options)


def _refuse_unrunnable(owner: str, plan: Plan, frame: Frame, size: Size) -> None:
    refusal = plan.refusal(())
    if refusal is None:
        return

    def runs(side: int) -> bool:
        return _families.decoder(frame, (side,) * frame.order, None, 1).refusal(()) is None

    least = _sizes.smallest(runs, 8 * max(plan.reduction))
    raise ValueError(
        f'{owner}: out_size={size} is too small for {len(plan.stages)} stages: stage {refusal.stage + 1} '
        f'would have size '
        f'{_sizes.text(refusal.held)}, and {refusal.reason}. Give a larger out_size (equal sides from {least}) or '
        'fewer layers.'
    )


class DecoderNet1d(_DecoderNetNd):
    """Residual decoder for signals, ``(B, C, L)``.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.DecoderNet1d(16, [1, 1, 1], 27, in_length=5)
        >>> net(torch.zeros(2, 5)).shape
        torch.Size([2, 1, 27])
    """

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        out_size: PerAxis,
        block: str = 'bottleneck',
        kernel_size: PerStage = 3,
        in_length: int | None = 2,
        out_planes: int = 1,
        **options: Unpack[DecoderOptions],
    ) -> None:
        super().__init__(1, channel, layers, out_size, block, kernel_size, in_length, out_planes, **options)


class DecoderNet2d(_DecoderNetNd):
    """Residual decoder for images, ``(B, C, L1, L2)``.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.DecoderNet2d(16, [1, 1, 1], (27, 22), in_length=5)
        >>> net(torch.zeros(2, 5)).shape
        torch.Size([2, 1, 27, 22])
    """

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        out_size: PerAxis,
        block: str = 'bottleneck',
        kernel_size: PerStage = 3,
        in_length: int | None = 2,
        out_planes: int = 1,
        **options: Unpack[DecoderOptions],
    ) -> None:
        super().__init__(2, channel, layers, out_size, block, kernel_size, in_length, out_planes, **options)


class DecoderNet3d(_DecoderNetNd):
    """Residual decoder for volumes, ``(B, C, L1, L2, L3)``.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.DecoderNet3d(16, [1, 1, 1], (13, 12, 9), in_length=5)
        >>> net(torch.zeros(2, 5)).shape
        torch.Size([2, 1, 13, 12, 9])
    """

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        out_size: PerAxis,
        block: str = 'bottleneck',
        kernel_size: PerStage = 3,
        in_length: int | None = 2,
        out_planes: int = 1,
        **options: Unpack[DecoderOptions],
    ) -> None:
        super().__init__(3, channel, layers, out_size, block, kernel_size, in_length, out_planes, **options)
