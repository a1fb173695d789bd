"""Residual encoders: array → vector or feature maps."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from torch import nn
from typing_extensions import Self, Unpack

from mdnc.modules import _families
from mdnc.modules._families import Head
from mdnc.modules._options import EncoderOptions, PerStage
from mdnc.modules.resnet.arguments import Arguments
from mdnc.modules.resnet.network import Network

HEAD_OPTIONS = ('pool', 'amplitude', 'dropout')  # options without effect if there is no head


class _EncoderNetNd(Network):
    """Residual encoder: every stage halves the size, and from each stage to the next the channels double.

    A first convolution brings the input to ``channel`` channels. Each number in ``layers`` makes a stage, a stack of
    that many residual blocks (`BlockPlain2d` or `BlockBottleneck2d`), the last of which divides the size by a stride
    of 2 and changes the channels. A last convolution closes the stack; with ``out_length`` the mean of each channel
    and a linear layer then give a vector.

    Args:
        channel: Channels of the first convolution and, without `channels`, of the first stage; at least 1.
        layers: Number of residual blocks of each stage; at least two stages of at least one block.
        block: Kind of the residual blocks, ``'plain'`` (2 convolutions) or ``'bottleneck'`` (3).
        kernel_size: Odd kernel size of the blocks: one int, one for each axis, or a list with one of these for each
            stage. Without `strides`, an axis with kernel 1 is never resized.
        in_planes: Channels of the input, at least 1.
        out_length: Length of the output vector, at least 1; ``None`` to return the last feature maps instead.
        **options: See `EncoderOptions`.

    Shapes:
        x ``(B, in_planes, L1, …)`` → ``(B, out_length)``, or without ``out_length``
        ``(B, channel · 2^(n−1), *output_size((L1, …)))`` for n stages.

    Raises:
        TypeError: An argument or the input has the wrong type.
        ValueError: An argument or the input has the wrong value, or the input is too small for the stages.
    """

    netbody: nn.ModuleList
    fc: nn.Linear | None
    _absent = ('fc',)

    def __init__(
        self,
        order: int,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_length: int | None = 2,
        **options: Unpack[EncoderOptions],
    ) -> None:
        given = Arguments(type(self).__name__, EncoderOptions, order, channel, layers, block, kernel_size, options)
        in_planes = given.planes('in_planes', in_planes)
        out_length = given.length('out_length', out_length)
        _refuse_idle(given, out_length)
        levels = range(len(given.layers))
        frame = given.frame([given.channel * 2**level for level in levels], len(levels))
        head = Head(out_length, **{each.name: given.options[each.name] for each in fields(Head)[1:]})
        plan = given.checked(_families.encoder(frame, in_planes, head))
        super().__init__(plan, given.config(in_planes=in_planes, out_length=out_length), given.options)

    def reset_head(self, out_length: int | None) -> Self:
        """Replace the linear layer of the encoder, in place, to train it for other classes or values.

        `plan`, `config` and saved files change with it; all other layers stay as they are, with dtype, device, modes
        and hooks. `origin`, with class names, is removed, since it describes the old head.

        Args:
            out_length: Length of the output vector, at least 1; ``None`` to remove the head with its options, and
                return the last feature maps.

        Returns:
            The encoder itself.

        Raises:
            TypeError: ``out_length`` is not an int.
            ValueError: ``out_length`` is below 1.

        Example:
            >>> import mdnc, torch
            >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 1], out_length=10)
            >>> net.reset_head(3)(torch.zeros(2, 1, 16, 16)).shape
            torch.Size([2, 3])
        """
        config = {**self.config, 'out_length': out_length}
        if out_length is None:
            config = {name: value for name, value in config.items() if name not in HEAD_OPTIONS}
        wanted: Any = type(self)(**config, device='meta')
        self._follow(wanted.plan, wanted.config, anew=('fc',))
        self.origin = None
        return self


def _refuse_idle(given: Arguments, out_length: int | None) -> None:
    given.refuse('upsampling', 'in an encoder, which does not up-sample')
    if out_length is None:
        for name in HEAD_OPTIONS:
            given.refuse(name, 'with out_length=None, without a head')
    if given.options['tail'] != 'norm':
        given.refuse('tail_normalizer', "without tail='norm'")
    if given.options['tail'] == 'act' and given.options['activator'] == 'null':
        raise ValueError(f"{given.owner}: tail='act' needs an activator, not 'null'.")


class EncoderNet1d(_EncoderNetNd):
    """Residual encoder for signals, ``(B, C, L)``.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.EncoderNet1d(8, [1, 1], in_planes=3, out_length=5)
        >>> net(torch.zeros(2, 3, 27)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_length: int | None = 2,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__(1, channel, layers, block, kernel_size, in_planes, out_length, **options)


class EncoderNet2d(_EncoderNetNd):
    """Residual encoder for images, ``(B, C, L1, L2)``.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 1], in_planes=3, out_length=5)
        >>> net(torch.zeros(2, 3, 27, 22)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_length: int | None = 2,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__(2, channel, layers, block, kernel_size, in_planes, out_length, **options)


class EncoderNet3d(_EncoderNetNd):
    """Residual encoder for volumes, ``(B, C, L1, L2, L3)``.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.EncoderNet3d(8, [1, 1], in_planes=3, out_length=5)
        >>> net(torch.zeros(2, 3, 13, 12, 9)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_length: int | None = 2,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__(3, channel, layers, block, kernel_size, in_planes, out_length, **options)


ENCODERS: dict[int, type[EncoderNet1d | EncoderNet2d | EncoderNet3d]] = {
    1: EncoderNet1d,
    2: EncoderNet2d,
    3: EncoderNet3d,
}
