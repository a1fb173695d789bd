"""Which part of a padded batch is not padding, at one level of a network."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from typing_extensions import Self

from mdnc.modules._sizes import Size


class ValidRegion:
    """The valid region of a padded batch of maps: for each sample its first values along each axis.

    Everything is tensors, so that a traced graph also fits other sizes.

    Args:
        sizes: Number of values of each sample along each axis, ints ``(B, order)``, on the CPU if they are known.
        padded: Spatial size of the padded maps.
        device: Device of the maps.
    """

    def __init__(self, sizes: Tensor, padded: Sequence[int], device: torch.device) -> None:
        self.sizes, self.padded, self.device = sizes, tuple(padded), device
        order, own = sizes.shape[1], sizes.to(device)
        #: ``(B, order)`` on the device of the maps.
        self.own = own
        inside = torch.ones((), dtype=torch.bool, device=device)
        for axis, length in enumerate(self.padded):
            view = (1, 1, *(-1 if each == axis else 1 for each in range(order)))
            within = torch.arange(length, device=device).view(view) < own[:, axis].view(-1, 1, *(1,) * order)
            inside = inside & within
        #: True outside the padding: bools ``(B, 1, L1, …)``.
        self.inside = inside
        #: Number of values of a plane of each sample: ``(B,)``.
        self.volume = own.prod(1)
        self._resized: dict[tuple[str, Size], Self] = {}

    def shrunk(self, stride: Size, padded: Sequence[int]) -> Self:
        """The valid region after dividing by a stride, for maps of another padded size."""
        return self._after('shrunk', stride, padded, lambda steps: (self.sizes + steps - 1) // steps)

    def grown(self, factors: Size, padded: Sequence[int]) -> Self:
        """The valid region after multiplying, for maps of another padded size."""
        return self._after('grown', factors, padded, lambda steps: self.sizes * steps)

    def _after(self, way: str, steps: Size, padded: Sequence[int], rule: Callable[[Tensor], Tensor]) -> Self:
        # Branch and shortcut of a block, and all blocks of a level, share one.
        if max(steps) == 1:
            return self
        if (way, steps) not in self._resized:
            self._resized[way, steps] = type(self)(rule(self.sizes.new_tensor(steps)), padded, self.device)
        return self._resized[way, steps]

    def mean(self, x: Tensor) -> Tensor:
        """Means of the planes of maps that are zero in the padding: ``(B, C, L1, …)`` → ``(B, C)``."""
        # Not a sum divided by a count: either may overflow in half precision.
        padding = math.prod(self.padded) / self.volume.to(torch.promote_types(x.dtype, torch.float32))
        return x.flatten(2).mean(2) * padding.to(x.dtype).unsqueeze(1)
