"""Residual encoders: array → vector or feature maps."""

from collections.abc import Sequence

from torch import Tensor, nn

from mdnc.modules import _plan
from mdnc.modules._dims import DIMS
from mdnc.modules.resnet.network import Arguments, _ResNetNd, outer_conv, same_conv, stages
from mdnc.ops import path


class _EncoderNetNd(_ResNetNd):
    """Residual encoder: every stage halves the size, and from each stage to the next the channels double.

    Args:
        channel: Channels of the first stage, at least 1.
        layers: Number of residual blocks of each stage; at least two stages of at least one block.
        block: Kind of the residual blocks, ``'plain'`` (2 convolutions) or ``'bottleneck'`` (3).
        kernel_size: Odd kernel size of the blocks, one int or one for each axis. An axis with kernel 1 is never
            resized.
        in_planes: Channels of the input, at least 1.
        out_length: Length of the output vector, at least 1; ``None`` to give the last feature maps instead.
        memory: What training keeps for backward, see `memory`: ``'plain'``, ``'fast'``, ``'lean'``, ``'leaner'`` or
            ``'least'``.

    Shapes:
        x ``(B, in_planes, L1, …)`` → ``(B, out_length)``, or without ``out_length``
        ``(B, channel · 2^(n−1), *output_size((L1, …)))`` for n stages.

    Raises:
        TypeError: An argument or the input has the wrong type.
        ValueError: An argument or the input has the wrong value, or the input is too small for the stages.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 1], in_planes=3, out_length=5)
        >>> net(torch.zeros(2, 3, 19, 14)).shape
        torch.Size([2, 5])
    """

    fc: nn.Linear | None

    def __init__(
        self,
        order: int,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: int | Sequence[int] = 3,
        in_planes: int = 1,
        out_length: int | None = 2,
        *,
        memory: str = 'lean',
    ) -> None:
        given = Arguments(type(self).__name__, order, channel, layers, block, kernel_size)
        in_planes = given.planes('in_planes', in_planes)
        out_length = given.length('out_length', out_length)
        plan = _plan.encoder(given.shape, in_planes, out_length)
        super().__init__(plan, given.config(in_planes=in_planes, out_length=out_length))
        self.netbody = nn.ModuleList([outer_conv(plan, in_planes, given.shape.channel, bias=False)])
        self.netbody.extend(stages(plan))
        wide = plan.out_planes
        self.netbody.append(same_conv(plan.order, wide, wide, plan.kernel, bias=True))
        self.fc = None
        if out_length is not None:
            self.netbody.append(DIMS[plan.order].average_pool(1))
            self.fc = nn.Linear(wide, out_length)
        self.memory = memory

    def forward(self, x: Tensor) -> Tensor:
        """Encode ``(B, in_planes, L1, …)`` into a vector, or without ``out_length`` into feature maps."""
        self._admit(x)
        for layer in self.netbody:
            x = path.call(layer, x, self.manner)
        return x if self.fc is None else self.fc(x.flatten(1))


class EncoderNet1d(_EncoderNetNd):
    """Residual encoder for signals, ``(B, C, L)``."""

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: int | Sequence[int] = 3,
        in_planes: int = 1,
        out_length: int | None = 2,
        *,
        memory: str = 'lean',
    ) -> None:
        super().__init__(1, channel, layers, block, kernel_size, in_planes, out_length, memory=memory)


class EncoderNet2d(_EncoderNetNd):
    """Residual encoder for images, ``(B, C, L1, L2)``."""

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: int | Sequence[int] = 3,
        in_planes: int = 1,
        out_length: int | None = 2,
        *,
        memory: str = 'lean',
    ) -> None:
        super().__init__(2, channel, layers, block, kernel_size, in_planes, out_length, memory=memory)


class EncoderNet3d(_EncoderNetNd):
    """Residual encoder for volumes, ``(B, C, L1, L2, L3)``."""

    def __init__(
        self,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: int | Sequence[int] = 3,
        in_planes: int = 1,
        out_length: int | None = 2,
        *,
        memory: str = 'lean',
    ) -> None:
        super().__init__(3, channel, layers, block, kernel_size, in_planes, out_length, memory=memory)
