"""Where a sample's values are taken from: flips, and smooth maps of the positions, in 1-D, 2-D and 3-D alike."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

CELLS = 4  # pieces of a smooth curve along an axis
KNOTS = CELLS + 3  # values that it is made of


def flipped(values: Tensor, axes: Tensor) -> Tensor:
    """Reverse axes of samples.

    Args:
        values: ``(B, ..., L1, ...)``.
        axes: Which of the last ``order`` axes, ``(B, order)``, bool.
    """
    order = axes.shape[1]
    for axis in range(order):
        if axes[:, axis].any():
            drawn = axes[:, axis].to(values.device).view(-1, *(1,) * (values.ndim - 1))
            values = torch.where(drawn, values.flip(axis - order), values)
    return values


def smooth(knots: Tensor, size: Sequence[int]) -> Tensor:
    """Cubic B-splines (de Boor, A Practical Guide to Splines, 1978) of ``KNOTS`` values an axis.

    Args:
        knots: ``(B, D, KNOTS, ...)``, an axis for each length of ``size``.
        size: Spatial size of the result.

    Returns:
        ``(B, D, *size)``.
    """
    for axis, length in enumerate(size):
        basis = _basis(length).to(knots.device)
        knots = torch.tensordot(knots, basis, ([axis + 2], [1])).movedim(-1, axis + 2)
    return knots


def _basis(length: int) -> Tensor:
    # The four polynomials of a uniform cubic B-spline, row by row: (length, KNOTS).
    place = torch.linspace(0, CELLS, length) if length > 1 else torch.zeros(1)
    cell = place.floor().clamp(max=CELLS - 1)
    u = place - cell
    four = [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3]
    columns = cell.long()[:, None] + torch.arange(4)
    return torch.zeros(length, KNOTS).scatter_(1, columns, torch.stack(four, 1) / 6)


def stretched(knots: Tensor, size: Sequence[int]) -> Tensor:
    """Displacements of an axis that runs faster here and slower there, its ends held: time warp.

    Args:
        knots: Logarithm of the speed along each axis, ``(B, order, KNOTS)``, on the CPU.
        size: Spatial size.

    Returns:
        ``(B, order, *size)``, in positions.
    """
    order, found = len(size), []
    for axis, length in enumerate(size):
        speed = smooth(knots[:, axis : axis + 1], [length])[:, 0].exp()
        way = functional.pad(torch.cumsum((speed[:, 1:] + speed[:, :-1]) / 2, 1), (1, 0))
        moved = way / way[:, -1:].clamp(min=1e-12) * (length - 1) - torch.arange(length)
        along = [1] * order
        along[axis] = length
        found.append(moved.view(-1, *along).expand(-1, *size))
    return torch.stack(found, 1)


def rotations(angles: Tensor, order: int) -> Tensor:
    """Matrices ``(B, order, order)`` that turn by radians: ``(B, 1)`` in 2-D, ``(B, 3)``, about each axis, in 3-D."""
    found = torch.eye(order).expand(len(angles), order, order)
    planes = {1: (), 2: ((0, 1),), 3: ((1, 2), (0, 2), (0, 1))}[order]
    for number, (first, second) in enumerate(planes):
        turn = torch.eye(order).repeat(len(angles), 1, 1)
        cosine, sine = angles[:, number].cos(), angles[:, number].sin()
        turn[:, first, first], turn[:, second, second] = cosine, cosine
        turn[:, first, second], turn[:, second, first] = -sine, sine
        found = found @ turn
    return found


def positions(size: Sequence[int], linear: Tensor, shift: Tensor, moved: Tensor | None = None) -> Tensor:
    """Positions that samples are read at: about the centre, ``linear · (p + moved) + shift``.

    Args:
        size: Spatial size.
        linear: ``(B, order, order)``.
        shift: ``(B, order)``, in positions.
        moved: Displacements ``(B, order, *size)``, in positions; None: none.

    Returns:
        ``(B, order, *size)``, on the device of ``moved``, else on that of ``linear``.
    """
    device = linear.device if moved is None else moved.device
    axes = [torch.arange(length, device=device) - (length - 1) / 2 for length in size]
    grid = torch.stack(torch.meshgrid(*axes, indexing='ij'))[None]
    grid = grid if moved is None else grid + moved
    turned = torch.stack([_dot(linear[:, row], grid) for row in range(len(size))], 1)
    middle = shift + torch.tensor([(length - 1) / 2 for length in size])
    return turned + middle.to(device)[(..., *(None,) * len(size))]


def _dot(weights: Tensor, grid: Tensor) -> Tensor:
    # Sums of the coordinates (B, order, …) by (B, order): not a matrix product, so that no device rounds it more.
    return (weights.to(grid.device).view(*weights.shape, *(1,) * (grid.ndim - 2)) * grid).sum(1)


def resampled(values: Tensor, places: Tensor, nearest: bool = False) -> Tensor:
    """Read samples between their values: linearly, or the nearest; beyond their ends they are mirrored.

    Args:
        values: ``(B, C, L1, ...)``, of floats.
        places: Positions ``(B, order, *size)``.
        nearest: Whether each value is that of the nearest position, for class numbers.

    Returns:
        ``(B, C, *size)``.
    """
    order, lengths = places.shape[1], values.shape[2:]
    # grid_sample wants the last axis first, and each from -1 to 1.
    scaled = [2 * places[:, axis] / max(1, lengths[axis] - 1) - 1 for axis in reversed(range(order))]
    if order == 1:
        scaled, values = [scaled[0][:, None], torch.zeros_like(scaled[0])[:, None]], values[:, :, None]
    grid = torch.stack(scaled, -1).to(values.dtype)
    mode = 'nearest' if nearest else 'bilinear'
    found = functional.grid_sample(values, grid, mode, 'reflection', align_corners=True)
    return found[:, :, 0] if order == 1 else found
