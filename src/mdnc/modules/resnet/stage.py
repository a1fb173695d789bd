"""Stages: a stack of residual blocks of which the last, or the first, resizes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdnc.modules import _checks, _plan, _sizes
from mdnc.modules._sizes import Size
from mdnc.modules._valid_region import ValidRegion
from mdnc.modules.ragged import Ragged, through
from mdnc.modules.resnet.block import Block, _BlockBottleneckNd, _BlockPlainNd
from mdnc.modules.resnet.branch import _Branch, resized
from mdnc.ops import path
from mdnc.ops.backend import DEFAULT

Map = Tensor | Ragged
Extent = Sequence[int] | ValidRegion

BLOCKS: dict[str, type[Block]] = {'plain': _BlockPlainNd, 'bottleneck': _BlockBottleneckNd}


class _BlockResStkNd(nn.Module):
    """Stage of a network: blocks of stride 1, ``conv_list``, and ``conv_scale``, which resizes.

    Args:
        plan: The stage in plain values.
        order: Number of spatial axes.

    Shapes:
        x ``(B, in_planes, L1, …)``, skip ``(B, skip_planes, M1, …)`` → ``(B, out_planes, …)``; with ``plan.holds``
        a pair of that and of what the stage had before its last block.
    """

    _memory: str = 'lean'
    backend: str = DEFAULT

    def __init__(self, plan: _plan.Stage, order: int) -> None:
        super().__init__()
        self.plan, self.order = plan, order
        self.conv_list = nn.ModuleList(_built(each, order) for each in plan.still)
        self.conv_scale = _built(plan.resizing, order)

    def forward(
        self, x: Map, skip: Map | None = None, size: Extent | None = None, stride: Size | None = None
    ) -> Map | tuple[Map, Map]:
        """Run the blocks.

        Args:
            x: What comes from the stage before.
            skip: What x is cropped to the size of, and concatenated with; ``None`` for nothing.
            size: What x is cropped to; ``None`` for no crop.
            stride: With which stride to resize instead of its own; ``None`` for its own.
        """
        if self.plan.resize_first:
            x = self._joined(self._resize(x, stride), skip, size)
            for block in self.conv_list:
                x = block(x)
            return x
        x = self._joined(x, skip, size)
        for block in self.conv_list:
            x = block(x)
        return (self._resize(x, stride), x) if self.plan.holds else self._resize(x, stride)

    def _joined(self, x: Any, skip: Any, size: Extent | None) -> Any:
        if skip is None:
            return x if size is None else crop(x, size, self.order)
        # Up-sampling never gives less than the level below had, so the common size is the skip's.
        if isinstance(x, Ragged):
            return x.cropped(skip.real).joined(skip)
        with path.memory(x, self._memory, self.backend):
            return torch.cat((crop(x, skip.shape[2:], self.order), skip), dim=1)

    def _resize(self, x: Map, stride: Size | None) -> Map:
        own: Any = self.plan.resizing
        if isinstance(own, _plan.Block):
            return self.conv_scale(x) if stride is None else self.conv_scale(x, stride)  # type: ignore[no-any-return]
        if isinstance(x, Ragged):
            return through(own.layers, self.conv_scale.children(), x, stride).cleaned()  # type: ignore[no-any-return]
        if stride is not None and stride != own.resize.stride:
            return resized(self.conv_scale, own, x, stride)
        return path.call(self.conv_scale, x, self._memory, self.backend)


def _built(plan: _plan.Block | _plan.Unit, order: int) -> nn.Module:
    return _Branch(plan, order) if isinstance(plan, _plan.Unit) else BLOCKS[plan.kind].planned(plan, order)


def crop(x: Map, size: Any, order: int) -> Any:
    """Crop the spatial axes of ``x`` to ``size`` around the centre: ``(B, C, L1, …)`` → ``(B, C, *size)``.

    In a traced graph the crop is a padding by negative amounts: a slice would tie the graph to the parity of the
    sample's size.
    """
    if isinstance(x, Ragged):
        return x.cropped(size)
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
