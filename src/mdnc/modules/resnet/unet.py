"""Residual U-Nets: array → array, with a skip from each level of the way down to the way up."""

from collections.abc import Sequence

from typing_extensions import Unpack

from mdnc.modules._options import DownUpOptions, PerStage
from mdnc.modules.resnet.downup import _DownUpNd


class _UNetNd(_DownUpNd):
    """Residual U-Net, after Ronneberger et al., arXiv:1505.04597: the output has exactly the size of the input."""

    _skips = True


class UNet1d(_UNetNd):
    """Residual U-Net for signals, ``(B, C, L)``.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.UNet1d(8, [1, 1, 1], out_planes=2)
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


class UNet2d(_UNetNd):
    """Residual U-Net for images, ``(B, C, L1, L2)``.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.UNet2d(8, [1, 1, 1], out_planes=2)
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


class UNet3d(_UNetNd):
    """Residual U-Net for volumes, ``(B, C, L1, L2, L3)``.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.UNet3d(8, [1, 1, 1], out_planes=2)
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
