"""Residual auto-encoders: array → array through a bottleneck, without skips."""

from collections.abc import Sequence

from typing_extensions import Unpack

from mdnc.modules._options import DownUpOptions, PerStage
from mdnc.modules.resnet.downup import _DownUpNd


class _AENd(_DownUpNd):
    """Residual auto-encoder: the output has exactly the spatial size of the input, at any size."""

    _skips = False


class AE1d(_AENd):
    """Residual auto-encoder for signals, ``(B, C, L)``.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.AE1d(8, [1, 1, 1], out_planes=2)
        >>> net(torch.zeros(2, 1, 27)).shape
        torch.Size([2, 2, 27])
    """

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_planes: int = 1,
        **options: Unpack[DownUpOptions],
    ) -> None:
        super().__init__(1, channel, layers, block, kernel_size, in_planes, out_planes, **options)


class AE2d(_AENd):
    """Residual auto-encoder for images, ``(B, C, L1, L2)``.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.AE2d(8, [1, 1, 1], out_planes=2)
        >>> net(torch.zeros(2, 1, 27, 22)).shape
        torch.Size([2, 2, 27, 22])
    """

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_planes: int = 1,
        **options: Unpack[DownUpOptions],
    ) -> None:
        super().__init__(2, channel, layers, block, kernel_size, in_planes, out_planes, **options)


class AE3d(_AENd):
    """Residual auto-encoder for volumes, ``(B, C, L1, L2, L3)``.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.AE3d(8, [1, 1, 1], out_planes=2)
        >>> net(torch.zeros(2, 1, 13, 12, 9)).shape
        torch.Size([2, 2, 13, 12, 9])
    """

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_planes: int = 1,
        **options: Unpack[DownUpOptions],
    ) -> None:
        super().__init__(3, channel, layers, block, kernel_size, in_planes, out_planes, **options)
