"""Residual U-Nets: array → array, with a skip from each level of the way down to the way up."""

from collections.abc import Sequence

from torch import Tensor

from mdnc.modules.resnet.downup import _DownUpNd
from mdnc.ops import path


class _UNetNd(_DownUpNd):
    """Residual U-Net, after Ronneberger et al., arXiv:1505.04597: the output has exactly the size of the input."""

    _skips = True

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_planes, L1, …)`` → ``(B, out_planes, L1, …)``."""
        self._admit(x)
        x = path.call(self.conv_first, x, self.manner)
        skips = []
        for stage in self.conv_down_list:
            x, held = stage(x)
            skips.append(held)
        x = self.conv_middle_up(x)
        for stage in self.conv_up_list:
            x = stage(x, skips.pop())
        return path.call(self.conv_final, x, self.manner)


class UNet1d(_UNetNd):
    """Residual U-Net for signals, ``(B, C, L)``."""

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: int | Sequence[int] = 3,
        in_planes: int = 1,
        out_planes: int = 1,
        *,
        memory: str = 'lean',
    ) -> None:
        super().__init__(1, channel, layers, block, kernel_size, in_planes, out_planes, memory=memory)


class UNet2d(_UNetNd):
    """Residual U-Net for images, ``(B, C, L1, L2)``."""

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: int | Sequence[int] = 3,
        in_planes: int = 1,
        out_planes: int = 1,
        *,
        memory: str = 'lean',
    ) -> None:
        super().__init__(2, channel, layers, block, kernel_size, in_planes, out_planes, memory=memory)


class UNet3d(_UNetNd):
    """Residual U-Net for volumes, ``(B, C, L1, L2, L3)``."""

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: int | Sequence[int] = 3,
        in_planes: int = 1,
        out_planes: int = 1,
        *,
        memory: str = 'lean',
    ) -> None:
        super().__init__(3, channel, layers, block, kernel_size, in_planes, out_planes, memory=memory)
