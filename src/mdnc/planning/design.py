"""Strides and kernels of each axis and stage, from sizes and spacings. Plain values only."""

from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, ...]

_APART = 2.0  # axes whose spacings differ by more are not convolved or halved together (Isensee et al. 2021)
_THICK = 3  # an axis so many times shorter than the longest is one of thick slices, where no spacing is known
_THICK_SPACING = 4.0
_LEVELS = {1: 9, 2: 8, 3: 7}
_LONG = 4096  # values from which an axis is divided by 4 at once
_LEFT = {1: 8, 2: 4, 3: 4}  # values that an axis keeps at least
_SIGNAL_LEFT = 64  # values that an encoder of signals leaves for its mean, where the signal has as many


@dataclass(frozen=True)
class Design:
    """How a network divides its input.

    Args:
        strides: Of each step between two levels (U-Nets) or of each stage (encoders), on each axis.
        kernels: Of each level or stage, on each axis.
        reasons: For each axis, why it is not divided any more.
    """

    strides: tuple[Size, ...]
    kernels: tuple[Size, ...]
    reasons: tuple[str, ...]

    @property
    def factors(self) -> Size:
        """By how much each axis is divided in all."""
        found = [1] * len(self.reasons)
        for stride in self.strides:
            found = [have * step for have, step in zip(found, stride, strict=True)]
        return tuple(found)


def known_spacing(size: Sequence[int], spacing: Sequence[float] | None) -> tuple[tuple[float, ...], str]:
    """Distances of values along each axis, known or taken from the sizes, and what is to be said of it.

    Example:
        >>> known_spacing((19, 320, 256), None)[0]
        (4.0, 1.0, 1.0)
    """
    if spacing is not None:
        least = min(spacing)
        shown = ' × '.join(f'{each:g}' for each in spacing)
        apart = max(spacing) / least > _APART
        return tuple(spacing), f'spacing {shown}' + (': the coarse axes wait' if apart else '')
    longest = max(size)
    found = tuple(_THICK_SPACING if length * _THICK <= longest and len(size) == 3 else 1.0 for length in size)
    thick = [axis for axis, each in enumerate(found) if each > 1]
    if not thick:
        return found, 'no spacing is known: all axes alike'
    axis = thick[0]
    return found, (
        f'no spacing is known: axis {axis} of {size[axis]} values beside {longest} is taken for thick slices, 4 times '
        'as far apart'
    )


def unet_design(size: Sequence[int], spacing: Sequence[float] | None) -> Design:
    """Levels of a U-Net or auto-encoder: an axis waits until spacings are within a factor 2, and stops in time."""
    order = len(size)
    apart, _ = known_spacing(size, spacing)
    walk = _Walk(list(size), list(apart), _LEFT[order])
    strides: list[Size] = []
    kernels = [walk.kernel(3)]
    while len(strides) < _LEVELS[order] - 1:
        stride = walk.step()
        if max(stride) == 1:
            break
        strides.append(stride)
        kernels.append(walk.kernel(3))
    if not strides:  # a U-Net has two levels at least
        strides, kernels = [tuple(2 if each > 1 else 1 for each in size)], kernels * 2
    return Design(tuple(strides), tuple(kernels), walk.reasons(len(strides) == _LEVELS[order] - 1))


def encoder_design(size: Sequence[int], spacing: Sequence[float] | None, period: float = 0.0) -> Design:
    """Stages of an encoder.

    Args:
        size: Spatial size of its input.
        spacing: See `known_spacing`.
        period: Of signals, the longest period that the last features should see twice.
    """
    order = len(size)
    apart, _ = known_spacing(size, spacing)
    walk = _Walk(list(size), list(apart), _LEFT[order] if order > 1 else 2)
    if order == 1:
        return _signal_design(walk, size[0], period)
    one = (1,) * order
    strides, kernels = [], []
    if max(size) <= (64 if order == 2 else 32):
        strides, kernels = [one], [walk.kernel(3)]  # small images lose too much at once
    while len(strides) < _LEVELS[order]:
        kernel = walk.kernel(3)
        stride = walk.step()
        if max(stride) == 1:
            break
        strides.append(stride)
        kernels.append(kernel)
    while len(strides) < 2:
        strides, kernels = [*strides, one], [*kernels, walk.kernel(3)]
    return Design(tuple(strides), tuple(kernels), walk.reasons(len(strides) == _LEVELS[order]))


def _signal_design(walk: '_Walk', length: int, period: float) -> Design:
    width = max(3, min(9, (length // 3) // 2 * 2 + 1))
    strides: list[Size] = [(1,), (1,)] if length <= 1024 else []
    seen, factor = 1, 1
    for (step,) in strides:
        seen, factor = seen + 2 * (width - 1) * factor, factor * step
    wanted = min(2 * period, length)
    while len(strides) < _LEVELS[1]:
        (left,) = walk.size
        late = factor >= 4 and left <= 2 * _SIGNAL_LEFT and seen >= wanted
        if late and len(strides) >= 4:
            break
        stride = walk.step()
        if max(stride) == 1:
            break
        strides.append(stride)
        factor *= stride[0]
        seen += 2 * (width - 1) * factor
    while len(strides) < 2:
        strides.append((1,))
    kernels = ((width,),) * len(strides)
    (left,) = walk.size
    reason = f'axis 0 ends with {left} values'
    return Design(tuple(strides), kernels, (reason + (', enough for a mean' if left >= 8 else ', too few to halve'),))


class _Walk:
    """Lengths and spacings of an input as it is divided."""

    def __init__(self, size: list[int], spacing: list[float], left: int) -> None:
        self.size, self.spacing, self._left = size, spacing, left
        self._convolved: set[int] = set()

    def _near(self, axis: int) -> bool:
        # The finest of those that can be divided still: one that has run out makes no other wait.
        able = [self.spacing[each] for each in range(len(self.size)) if self._able(each)] or self.spacing
        return self.spacing[axis] <= _APART * min(able) * (1 - 1e-9) or self.spacing[axis] == min(able)

    def _able(self, axis: int) -> bool:
        return self.size[axis] >= 2 * self._left

    def kernel(self, width: int) -> Size:
        """1 on axes that wait, and on those of a single value; what was convolved once is so from there on."""
        finest = min(self.spacing)
        for axis, length in enumerate(self.size):
            if length > 1 and self.spacing[axis] < _APART * finest:
                self._convolved.add(axis)
        return tuple(width if axis in self._convolved else 1 for axis in range(len(self.size)))

    def step(self) -> Size:
        """Divide the axes that may be divided now."""
        long = len(self.size) == 1 and self.size[0] >= _LONG
        steps = tuple(
            (4 if long else 2) if self._able(axis) and self._near(axis) else 1 for axis in range(len(self.size))
        )
        lone = [axis for axis, each in enumerate(steps) if each > 1]
        if len(lone) == 1 < len(self.size) and self.size[lone[0]] < 3 * self._left:
            steps = (1,) * len(self.size)  # a level for the last bit of one axis is none
        self.size = [-(-length // step) for length, step in zip(self.size, steps, strict=True)]
        self.spacing = [each * step for each, step in zip(self.spacing, steps, strict=True)]
        return steps

    def reasons(self, full: bool) -> tuple[str, ...]:
        """Why each axis ends where it does."""
        return tuple(
            f'axis {axis} ends with {length} values'
            + ('' if not self._able(axis) else ' (levels are enough)' if full else ', too few for a level of its own')
            for axis, length in enumerate(self.size)
        )
