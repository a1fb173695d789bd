"""Standardization of channels: from the units of the data to mean 0 and standard deviation 1, and back.

The figures are those of the training part, of this clipped to a range, or of each sample by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mdnc.modules._tiling import single


class Constants:
    """Numbers in single precision, copied to the device where they are needed.

    They are not buffers: moving a module to half precision (Lightning's ``bf16-true``, FSDP) would round these.

    Args:
        values: The numbers.
    """

    def __init__(self, values: Sequence[float]) -> None:
        with torch.inference_mode(False):  # tensors made in it could never be used by autograd
            self._here = torch.tensor([float(value) for value in values], dtype=torch.float32, device='cpu')
        self._there: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self._here)

    def beside(self, x: Tensor) -> Tensor:
        """The numbers on the device of ``x``, in its precision if that is higher."""
        values = self._here
        if x.device != values.device:
            # Copied once for each device: a copy in every step would make a GPU wait.
            if x.device not in self._there:
                with torch.inference_mode(False):
                    self._there[x.device] = self._here.to(x.device)
            values = self._there[x.device]
        return values.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else values


def is_by_sample(statistics: object) -> bool:
    """Whether a record of a normalisation says that each sample has figures of its own."""
    return isinstance(statistics, Mapping) and statistics.get('by') == 'sample'


def normalised_by(statistics: object) -> str:
    """The word of a recipe that a record of a normalisation is of."""
    if not isinstance(statistics, Mapping):
        return 'false'
    return 'sample' if is_by_sample(statistics) else 'percentiles' if 'low' in statistics else 'set'


def reads_amplitude(network: object) -> bool:
    """Whether a network was made with ``amplitude=True``: normalised by itself, a sample has no amplitude to read."""
    config = getattr(network, 'config', None)
    return isinstance(config, Mapping) and bool(config.get('amplitude'))


def sample_figures(x: Tensor) -> Tensor:
    """Mean and standard deviation of each channel of each sample ``(B, C, L1, ...)``, ``(B, C, 2)``.

    A channel that is constant, as far as float32 can tell, has a standard deviation of 1.
    """
    rows = single(x).flatten(2)
    # In units of the largest value: the square of 1e20 is beyond single precision, and that of 1e-23 is 0 in it.
    most = rows.abs().amax(2)
    unit = torch.where(most > 0, most, torch.ones_like(most))
    rows = rows / unit[..., None]
    mean = rows.mean(2)
    return _figures(mean * unit, (rows - mean[..., None]).square().mean(2).sqrt() * unit)


def _figures(mean: Tensor, deviation: Tensor) -> Tensor:
    varies = deviation > torch.finfo(torch.float32).eps * mean.abs()
    return torch.stack([mean, torch.where(varies, deviation, torch.ones_like(deviation))], -1)


_SLAB = 2**22  # values


def figures_by_slab(x: Tensor) -> Tensor:
    """`sample_figures` of samples that may not be held as a whole: slab by slab along the first spatial axis."""
    step = max(1, _SLAB * x.shape[2] // max(1, x.numel()))
    if step >= x.shape[2]:
        return sample_figures(x)
    slabs = [slice(start, start + step) for start in range(0, x.shape[2], step)]
    count = x.numel() // (x.shape[0] * x.shape[1])
    mean = sum((x[:, :, slab].double().flatten(2).sum(2) for slab in slabs), torch.zeros(())) / count
    squares = ((x[:, :, slab].double().flatten(2) - mean[..., None]).square().sum(2) for slab in slabs)
    return _figures(mean, (sum(squares, torch.zeros(())) / count).sqrt()).to(single(x[:, :, :1]).dtype)


class Scale:
    """Means and standard deviations of channels.

    Args:
        statistics: Lists ``mean`` and ``std``, one value a channel, or one for all, and, where values are clipped
            before, ``low`` and ``high``; or ``{'by': 'sample'}``, where each sample has figures of its own. None
            changes nothing but the precision.
        of: Name of the data with these channels, for error messages.
    """

    def __init__(self, statistics: Mapping[str, Any] | None, of: str = 'the input') -> None:
        self._of = of
        self.by_sample = is_by_sample(statistics)
        known = {} if statistics is None or self.by_sample else statistics
        self._mean, self._std, self._low, self._high = (
            Constants(known[name]) if name in known else None for name in ('mean', 'std', 'low', 'high')
        )

    def standard(self, x: Tensor, figures: Tensor | None = None) -> Tensor:
        """Values ``(B, C, ...)`` in the units of the data → standard units.

        Args:
            x: The values.
            figures: Mean and standard deviation of each sample, ``(B, C, 2)``, where they are normalised by sample and
                these are but windows of them, or changed; several windows of each sample stand one after another.
        """
        x = single(x)
        if self.by_sample:
            figures = sample_figures(x) if figures is None else figures.to(x)
            if figures.shape[0] != x.shape[0]:  # no len(), which would fix the batch of an exported graph
                figures = figures.repeat(x.shape[0] // figures.shape[0], 1, 1)
            figures = figures.view(*x.shape[:2], *(1,) * (x.ndim - 2), 2)
            return (x - figures[..., 0]) / figures[..., 1]
        if self._low is not None and self._high is not None:
            x = torch.minimum(torch.maximum(x, self._shaped(self._low, x)), self._shaped(self._high, x))
        if self._mean is None or self._std is None:
            return x
        return (x - self._shaped(self._mean, x)) / self._shaped(self._std, x)

    def own(self, x: Tensor) -> Tensor:
        """Values ``(B, C, ...)`` in standard units → units of the data."""
        x = single(x)
        if self._mean is None or self._std is None:
            return x
        return x * self._shaped(self._std, x) + self._shaped(self._mean, x)

    def ready(self, device: torch.device | str) -> None:
        """Move the statistics to a device."""
        for values in (self._mean, self._std, self._low, self._high):
            if values is not None:
                values.beside(torch.empty(0, device=device))

    def _shaped(self, values: Constants, x: Tensor) -> Tensor:
        # Without this check a single channel would be broadcast to the number of means.
        if len(values) > 1 and x.shape[1] != len(values):
            raise ValueError(
                f'{self._of} has {x.shape[1]} channel{"s" * (x.shape[1] != 1)} in the shape {tuple(x.shape)}, but the '
                f'training data have {len(values)}'
            )
        return values.beside(x).view(-1, *(1,) * (x.ndim - 2))
