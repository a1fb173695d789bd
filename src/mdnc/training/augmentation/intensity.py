"""What becomes of a sample's values where they are: noise, blur, contrast and their kin, channel by channel.

Every function takes values ``(B, C, L1, ...)`` and strengths ``(B, C)``, and gives new values. What nnU-Net does under
these names is done likewise (Isensee et al., nnU-Net, 2021, supplementary note 4).
"""

import math

import torch
from torch import Tensor

from mdnc.training.augmentation.spatial import smooth


def _wide(strength: Tensor, values: Tensor) -> Tensor:
    return strength.to(values.device).view(*strength.shape, *(1,) * (values.ndim - strength.ndim))


def _axes(values: Tensor) -> tuple[int, ...]:
    return tuple(range(2, values.ndim))


def means(values: Tensor) -> Tensor:
    """Mean of each channel of each sample, ``(B, C, 1, ...)``."""
    return values.mean(_axes(values), keepdim=True)


def deviations(values: Tensor) -> Tensor:
    """Standard deviation of each channel of each sample, ``(B, C, 1, ...)``."""
    return (values - means(values)).square().mean(_axes(values), keepdim=True).sqrt()


def blurred(values: Tensor, deviation: Tensor) -> Tensor:
    """Blur by a Gaussian, cut at 4 standard deviations, ends mirrored.

    Args:
        values: ``(B, C, L1, ...)``.
        deviation: Standard deviations in positions, ``(B, C)``, or ``(B, C, order)``, one along each axis.
    """
    along = deviation if deviation.ndim > 2 else deviation[..., None].expand(-1, -1, values.ndim - 2)
    for axis, sigma in zip(_axes(values), along.unbind(2), strict=True):
        values = _blurred_along(values, sigma, axis)
    return values


def _blurred_along(values: Tensor, deviation: Tensor, axis: int) -> Tensor:
    reach = max(1, math.ceil(4 * float(deviation.max())))
    offsets = torch.arange(-reach, reach + 1)
    sigma = deviation.clamp(min=1e-3)[..., None]
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2) * (offsets.abs() <= (4 * sigma + 0.5).floor())
    weights = weights / weights.sum(-1, keepdim=True)
    length, found = values.shape[axis], torch.zeros_like(values)
    for number, offset in enumerate(offsets.tolist()):
        shifted = values.index_select(axis, _mirrored(length, offset).to(values.device))
        found += _wide(weights[..., number], values) * shifted
    return found


def _mirrored(length: int, offset: int) -> Tensor:
    # Positions 0, 1, … moved by an offset, and mirrored at the first and the last.
    period = max(1, 2 * (length - 1))
    place = (torch.arange(length) + offset) % period
    return torch.minimum(place, period - place) if length > 1 else torch.zeros(1, dtype=torch.long)


def brightened(values: Tensor, factor: Tensor) -> Tensor:
    """Multiply."""
    return values * _wide(factor, values)


def contrasted(values: Tensor, factor: Tensor) -> Tensor:
    """Stretch about the mean, without leaving the range of the values."""
    middle = means(values)
    low, high = values.amin(_axes(values), keepdim=True), values.amax(_axes(values), keepdim=True)
    return ((values - middle) * _wide(factor, values) + middle).clamp(low, high)


def curved(values: Tensor, power: Tensor, inverted: bool = False) -> Tensor:
    """Raise values, scaled to [0, 1], to a power, and keep mean and standard deviation.

    Args:
        values: ``(B, C, L1, ...)``.
        power: ``(B, C)``, above 0.
        inverted: Whether the values are negated meanwhile, so that the power works on the bright end.
    """
    if inverted:
        return -curved(-values, power)
    low = values.amin(_axes(values), keepdim=True)
    span = (values.amax(_axes(values), keepdim=True) - low).clamp(min=1e-7)
    bent = ((values - low) / span) ** _wide(power, values) * span + low
    scale = deviations(values) / deviations(bent).clamp(min=1e-7)
    return (bent - means(bent)) * scale + means(values)


def coarsened(values: Tensor, share: Tensor) -> Tensor:
    """Keep a share of the positions of each axis, the nearest ones, and interpolate between them linearly."""
    for axis in _axes(values):
        length = values.shape[axis]
        kept = (length * share).round().clamp(1, length)[..., None]  # (B, C, 1)
        place = ((torch.arange(length) + 0.5) * kept / length - 0.5).clamp(min=0)
        below = place.floor()
        above = torch.minimum(below + 1, kept - 1)
        part = _along(place - below, values, axis)
        lower, upper = (
            values.gather(axis, _along(((each + 0.5) * length / kept).long(), values, axis).expand_as(values))
            for each in (below, above)
        )
        values = lower + (upper - lower) * part
    return values


def _along(rows: Tensor, values: Tensor, axis: int) -> Tensor:
    # (B, C, L) → (B, C, 1, …, L, …, 1)
    shape = [1] * (values.ndim - 2)
    shape[axis - 2] = rows.shape[-1]
    return rows.to(values.device).view(*rows.shape[:2], *shape)


def magnified(values: Tensor, knots: Tensor) -> Tensor:
    """Multiply by a smooth curve about 1: magnitude warp (Um et al., Data augmentation of wearable sensor data, 2017).

    Args:
        values: ``(B, C, L1, ...)``.
        knots: What the curve adds to 1, ``(B, C, KNOTS, ...)``, an axis for each spatial axis.
    """
    return values * (1 + smooth(knots.to(values.device), values.shape[2:]))


def box(size: torch.Size, share: Tensor, start: Tensor) -> Tensor:
    """Positions within boxes, ``(B, *size)``: of a share and at a start, in [0, 1), of each axis, ``(B, order)``."""
    inside = torch.ones((len(share), *size), dtype=torch.bool)
    for axis, length in enumerate(size):
        wide = (share[:, axis] * length).round().clamp(max=length)
        first = (start[:, axis] * (length - wide + 1)).floor()
        place = torch.arange(length)
        rows = (place >= first[:, None]) & (place < (first + wide)[:, None])
        shape = [1] * len(size)
        shape[axis] = length
        inside &= rows.view(-1, *shape)
    return inside


def masked(values: Tensor, inside: Tensor) -> Tensor:
    """Set positions ``(B, L1, ...)`` to the mean of their channel (DeVries, Taylor: Cutout, 2017)."""
    return torch.where(inside.to(values.device)[:, None], means(values), values)
