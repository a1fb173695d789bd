"""Stages: a stack of residual blocks of which the last resizes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdnc.modules import _checks, _sizes
from mdnc.modules._plan import Plan, StagePlan
from mdnc.modules._sizes import Size
from mdnc.modules.resnet.block import _BlockBottleneckNd, _BlockNd, _BlockPlainNd
from mdnc.ops import path

BLOCKS: dict[str, type[_BlockNd]] = {'plain': _BlockPlainNd, 'bottleneck': _BlockBottleneckNd}


class _BlockResStkNd(nn.Module):
    """Stage of a network: ``depth − 1`` blocks of stride 1, then ``conv_scale``, which resizes.

    Args:
        plan: Plan of the network: order, block kind and kernel.
        stage: Plan of the stage.

    Shapes:
        x ``(B, in_planes, L1, …)``, skip ``(B, skip_planes, M1, …)`` → ``(B, out_planes, …)``; with ``stage.holds``
        a pair of that and of what the stage had before ``conv_scale``.
    """

    def __init__(self, plan: Plan, stage: StagePlan) -> None:
        super().__init__()
        self.order = plan.order
        self.holds = stage.holds
        make, kernel = BLOCKS[plan.block], plan.kernel
        padding = _sizes.padding(kernel)
        *still, (before, after) = stage.block_planes()
        self.conv_list = nn.ModuleList(make(plan.order, planes, out, kernel, 1, padding) for planes, out in still)
        stride = 1 if stage.resize == 'keep' else plan.stride
        scaler = 'up' if stage.resize == 'up' else 'down'
        self.conv_scale = make(plan.order, before, after, kernel, stride, padding, scaler=scaler)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Run the blocks, on x alone or on x cropped to the size of the skip and concatenated with it."""
        if skip is not None:
            # Up-sampling never gives less than the level below had, so the common size is the skip's.
            with path.memory(x, self.conv_scale.manner):
                x = torch.cat((crop(x, skip.shape[2:], self.order), skip), dim=1)
        for block in self.conv_list:
            x = block(x)
        if self.holds:
            return self.conv_scale(x), x
        return self.conv_scale(x)  # type: ignore[no-any-return]


def crop(x: Tensor, size: Size | Sequence[int], order: int) -> Tensor:
    """Crop the spatial axes of ``x`` to ``size`` around the centre: ``(B, C, L1, …)`` → ``(B, C, *size)``.

    In a traced graph the crop is a padding by negative amounts: a slice would tie the graph to the parity of the
    sample's size.
    """
    if _checks.traced(x):
        return F.pad(x, _crop_pads(x, size, order))
    for axis in range(order):
        have, want = x.shape[axis + 2], size[axis]
        if have != want:
            x = x.narrow(axis + 2, _sizes.crop_start(have, want), want)
    return x


def _crop_pads(x: Tensor, size: Size | Sequence[int], order: int) -> list[int]:
    pads: list[int] = []
    for axis in reversed(range(order)):  # F.pad counts from the last axis
        excess = x.shape[axis + 2] - size[axis]
        start = _sizes.crop_start(x.shape[axis + 2], size[axis])
        pads += [-start, start - excess]
    return pads
