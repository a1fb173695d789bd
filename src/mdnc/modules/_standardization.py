"""From the data's own units to mean 0 and standard deviation 1, channel by channel, and back, in single precision."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mdnc.modules._tiling import single


class Constants:
    """Numbers in single precision that are found on whatever device they are needed.

    They are no buffers: what moves a module to half precision (Lightning's ``bf16-true``, FSDP) rounds its buffers.

    Args:
        values: The numbers.
    """

    def __init__(self, values: Sequence[float]) -> None:
        with torch.inference_mode(False):  # what is made in it would for ever be refused by autograd
            self._here = torch.tensor([float(value) for value in values], dtype=torch.float32, device='cpu')
        self._there: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self._here)

    def beside(self, x: Tensor) -> Tensor:
        """The numbers on the device of ``x``, in its precision if that is better."""
        values = self._here
        if x.device != values.device:
            # Made once for each device: a copy in every step would hold a GPU up.
            if x.device not in self._there:
                with torch.inference_mode(False):
                    self._there[x.device] = self._here.to(x.device)
            values = self._there[x.device]
        return values.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else values


class Scale:
    """Means and standard deviations of channels.

    Args:
        statistics: Lists ``mean`` and ``std``, one value a channel, or one for all; None changes nothing but the
            precision.
        of: What has these channels, for the errors.
    """

    def __init__(self, statistics: Mapping[str, Any] | None, of: str = 'the input') -> None:
        self._of = of
        self._mean = Constants(statistics['mean']) if statistics else None
        self._std = Constants(statistics['std']) if statistics else None

    def standard(self, x: Tensor) -> Tensor:
        """Values ``(B, C, ...)`` in the data's own units → standard units."""
        x = single(x)
        if self._mean is None or self._std is None:
            return x
        return (x - self._shaped(self._mean, x)) / self._shaped(self._std, x)

    def own(self, x: Tensor) -> Tensor:
        """Values ``(B, C, ...)`` in standard units → the data's own."""
        x = single(x)
        if self._mean is None or self._std is None:
            return x
        return x * self._shaped(self._std, x) + self._shaped(self._mean, x)

    def ready(self, device: torch.device | str) -> None:
        """Bring the figures to a device."""
        for values in (self._mean, self._std):
            if values is not None:
                values.beside(torch.empty(0, device=device))

    def _shaped(self, values: Constants, x: Tensor) -> Tensor:
        # Without this a single channel would be taken for as many as there are means.
        if len(values) > 1 and x.shape[1] != len(values):
            raise ValueError(
                f'{self._of} has {x.shape[1]} channel{"s" * (x.shape[1] != 1)} in the shape {tuple(x.shape)}, but the '
                f'data of the training have {len(values)}'
            )
        return values.beside(x).view(-1, *(1,) * (x.ndim - 2))
