"""Tiles cover everything once they are blended, and leave no seam."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mdnc.training.tiling import run_tiled, tile_starts


@given(st.integers(1, 300), st.integers(1, 64), st.floats(0, 0.95))
def test_tiles_cover_each_position_and_share_what_was_asked(size, tile, overlap):
    starts = tile_starts(size, tile, overlap)
    tile = min(tile, size)
    assert starts[0] == 0
    assert starts[-1] + tile == size
    steps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(1 <= step <= max(1, int(tile * (1 - overlap))) + (tile > 1) for step in steps)
    assert all(step <= tile for step in steps)


@given(
    size=st.lists(st.integers(3, 17), min_size=1, max_size=3),
    tile=st.integers(2, 9),
    overlap=st.sampled_from([0.0, 0.25, 0.5]),
)
@settings(deadline=None, max_examples=40)
def test_pointwise_networks_see_no_tiles(size, tile, overlap):
    x = torch.randn(2, 3, *size)
    tiled = run_tiled(lambda part: 2 * part[:, :2] + 1, x, [tile] * len(size), overlap)
    torch.testing.assert_close(tiled, 2 * x[:, :2] + 1)


def test_tiles_that_disagree_are_blended_smoothly():
    # Each tile answers with a number of its own: between their centres the answer moves without a jump.
    number = iter(range(100))
    blended = run_tiled(lambda part: torch.full_like(part, float(next(number))), torch.zeros(1, 1, 100), [32], 0.5)
    assert blended[0, 0].diff().abs().max() < 0.15


def test_the_network_sees_tiles_of_one_size():
    shapes = []

    def network(part):
        shapes.append(tuple(part.shape[2:]))
        return part

    run_tiled(network, torch.zeros(1, 1, 20, 9, 30), [8, 16, 8])
    assert set(shapes) == {(8, 16, 8)}


def test_what_cannot_be_tiled_is_refused():
    with pytest.raises(ValueError, match=r'tile=\[4\] must have one length for each of 2 spatial axes'):
        run_tiled(lambda part: part, torch.zeros(1, 1, 8, 8), [4])
    with pytest.raises(ValueError, match=r'the network gave \(2,\) for a tile of \(4,\)'):
        run_tiled(lambda part: part[..., :2], torch.zeros(1, 1, 8), [4])
