"""Integer arithmetic of sizes: padding, strides, scaled sizes and crops, one value for each spatial axis.

It uses no torch; tests compare it with the layers over all small sizes.
"""

from collections.abc import Callable

Size = tuple[int, ...]

MIN_VALUES = 2  # an instance norm over one value gives its bias whatever the input, and torch refuses it


def padding(kernel: Size) -> Size:
    """The padding with which a convolution of stride 1 keeps the size."""
    return tuple(k // 2 for k in kernel)


def outer_kernel(kernel: Size) -> Size:
    """The kernel of a network's first and last convolution: two wider, except on axes that are never resized."""
    return tuple(k + 2 if k > 1 else 1 for k in kernel)


def stride(kernel: Size) -> Size:
    """The stride of a resizing stage: 2, but 1 on axes whose kernel is 1."""
    return tuple(2 if k > 1 else 1 for k in kernel)


def shrunk(size: Size, stride: Size) -> Size:
    """The size after a strided convolution with an odd kernel and its `padding`."""
    return tuple(-(-length // step) for length, step in zip(size, stride, strict=True))


def grown(size: Size, stride: Size) -> Size:
    """The size after up-sampling by ``stride``."""
    return tuple(length * step for length, step in zip(size, stride, strict=True))


def kept(size: Size, stride: Size) -> Size:
    """The stride, 1 on axes that would shrink to a single value."""
    pairs = zip(size, stride, strict=True)
    return tuple(1 if length > 1 and -(-length // step) == 1 else step for length, step in pairs)


def crop_start(have: int, want: int) -> int:
    """Where a centred crop from ``have`` to ``want`` values begins."""
    return (have - want) // 2


def smallest(works: Callable[[int], bool], limit: int) -> int:
    """The smallest side in ``1 … limit`` that works; every larger one must work too."""
    low, high = 1, limit
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle + 1, high)
    return low


def text(size: Size) -> str:
    """A size as text: ``64 × 63``."""
    return ' × '.join(map(str, size))
