"""What auto-encoders and U-Nets share: a way down, a middle, a way up."""

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from mdnc.modules import _plan
from mdnc.modules.resnet.network import Arguments, _ResNetNd, outer_conv, stages


class _DownUpNd(_ResNetNd):
    """Network that halves the size level by level and doubles it again.

    Args:
        channel: Channels of the first and the last stage, at least 1.
        layers: Number of residual blocks of each level; at least two levels of at least one block. The last is the
            middle; the others are used on the way down and again on the way up.
        block: Kind of the residual blocks, ``'plain'`` (2 convolutions) or ``'bottleneck'`` (3).
        kernel_size: Odd kernel size of the blocks, one int or one for each axis. An axis with kernel 1 is never
            resized.
        in_planes: Channels of the input, at least 1.
        out_planes: Channels of the output, at least 1.
        memory: What training keeps for backward, see `memory`: ``'plain'``, ``'fast'``, ``'lean'``, ``'leaner'`` or
            ``'least'``.

    Shapes:
        x ``(B, in_planes, L1, …)`` → ``(B, out_planes, L1, …)``.

    Raises:
        TypeError: An argument or the input has the wrong type.
        ValueError: An argument or the input has the wrong value, or the input is too small for the stages.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.UNet1d(8, [1, 1, 1], out_planes=2)
        >>> net(torch.zeros(2, 1, 27)).shape
        torch.Size([2, 2, 27])
    """

    _skips: ClassVar[bool]

    def __init__(
        self,
        order: int,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: int | Sequence[int] = 3,
        in_planes: int = 1,
        out_planes: int = 1,
        *,
        memory: str = 'lean',
    ) -> None:
        given = Arguments(type(self).__name__, order, channel, layers, block, kernel_size)
        in_planes = given.planes('in_planes', in_planes)
        out_planes = given.planes('out_planes', out_planes)
        plan = _plan.autoencoder(given.shape, in_planes, out_planes, skips=self._skips)
        super().__init__(plan, given.config(in_planes=in_planes, out_planes=out_planes))
        built, middle = stages(plan), plan.halvings
        # The order of registration is the order of keys in checkpoints, and of parameters in their optimizers.
        self.conv_first = outer_conv(plan, in_planes, given.shape.channel, bias=False)
        self.conv_down_list = nn.ModuleList(built[:middle])
        self.conv_up_list = nn.ModuleList(built[middle + 1 :])
        self.conv_middle_up = built[middle]
        self.conv_final = outer_conv(plan, given.shape.channel, out_planes, bias=True)
        self.memory = memory
