"""Shapes at which another way of computing becomes the quicker one: all in one table, each with its reason.

They were measured on one processor. ``python -m benchmarks --parts limits`` halves and doubles each of them and says
what becomes of a step. How C++ cuts its loops for the caches stands in the C++ files.
"""

from typing import NamedTuple


class Limits(NamedTuple):
    """Up to, or from, which size something is done.

    Args:
        few_values: Up to so many values of its input, at the level ``'lean'``, a block that does not enlarge maps is
            torch's own layers: the fused one is called for longer than it computes, and would save some hundred kB.
        few_channels: And up to so many channels. With more the weights take most of the time, which im2col shortens.
        im2col_weights: From so many weights on (8 MB in float32) they do not stay in the caches while torch's
            convolution lays them anew.
        im2col_positions: Up to so many positions of the output there is not enough arithmetic to hide it.
        sample_positions: From so many positions a sample on, contiguous maps ``(C, L)`` are multiplied sample by
            sample, without the copies in blocks of channels that torch's convolution makes of them.
        tap_outputs: Up to so many channels that come out, a convolution of channels-last maps adds up products of its
            taps: torch's computes as many channels as a register holds.
        tap_products: From so many multiply-adds for each of these channels on; with fewer the calls take longer than
            they save.
        winograd_tiles: Fewer tiles of 4 × 4 do not pay for the transformed weights, which are four times as many.
        winograd_channels: With more channels the transformed weights leave the caches.
        winograd_fill: The part of the tiles' values that must lie within the map.
        signal_tiles: With fewer tiles, of four positions of a signal,
        signal_weights: more weights than these (4 MB) take longer to transform than minimal filtering saves.
        small_products: Up to so many multiply-adds forward calls of functions take longer than they do, and an
            optimized block is one call.
        small_weights: And up to so many weights of a convolution, which that call reads again for each position.
    """

    few_values: int = 2**15
    few_channels: int = 256
    im2col_weights: int = 2_000_000
    im2col_positions: int = 1024
    sample_positions: int = 4096
    tap_outputs: int = 4
    tap_products: int = 2**22
    winograd_tiles: int = 64
    winograd_channels: int = 256
    winograd_fill: float = 0.7
    signal_tiles: int = 16
    signal_weights: int = 1_000_000
    small_products: int = 2**26
    small_weights: int = 2**16


LIMITS = Limits()
