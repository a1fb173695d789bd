"""Residual auto-encoders: array → array through a narrow middle, without skips."""

from collections.abc import Sequence

from torch import Tensor

from mdnc.modules.resnet.downup import _DownUpNd
from mdnc.modules.resnet.stage import crop
from mdnc.ops import path


class _AENd(_DownUpNd):
    """Residual auto-encoder: the output has exactly the spatial size of the input, whatever that is."""

    _skips = False

    def forward(self, x: Tensor) -> Tensor:
        """Rebuild: ``(B, in_planes, L1, …)`` → ``(B, out_planes, L1, …)``."""
        self._admit(x)
        x = path.call(self.conv_first, x, self.manner)
        sizes = []
        for stage in self.conv_down_list:
            sizes.append(x.shape[2:])
            x = stage(x)
        x = self.conv_middle_up(x)
        for stage, size in zip(self.conv_up_list, reversed(sizes), strict=True):
            x = stage(crop(x, size, self._plan.order))
        return path.call(self.conv_final, x, self.manner)


class AE1d(_AENd):
    """Residual auto-encoder for signals, ``(B, C, L)``."""

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


class AE2d(_AENd):
    """Residual auto-encoder for images, ``(B, C, L1, L2)``."""

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


class AE3d(_AENd):
    """Residual auto-encoder for volumes, ``(B, C, L1, L2, L3)``."""

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
