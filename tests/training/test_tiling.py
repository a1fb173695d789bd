"""Tiles cover everything once they are blended, and leave no seam."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mdnc
from mdnc.analysis import prediction_forecast
from mdnc.modules._inference import Steps
from mdnc.training import ArrayData, DenseRegression, Predictor, tile_batches
from mdnc.training.tile_batches import tiles_at_once
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
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.8]),
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


@pytest.mark.parametrize(
    ('blend', 'overlap', 'due'), [('tent', None, 0.25), ('gaussian', None, 0.5), ('gaussian', 0.1, 0.1)]
)
def test_a_gaussian_overlaps_by_a_half(blend, overlap, due):
    x, wide = torch.randn(1, 1, 41), torch.nn.functional.avg_pool1d
    run = lambda part: wide(part, 3, 1, 1)  # noqa: E731
    torch.testing.assert_close(run_tiled(run, x, [16], overlap, blend), run_tiled(run, x, [16], due, blend))
    assert not torch.equal(run_tiled(run, x, [16], overlap, blend), run_tiled(run, x, [16], 0.7, blend))
    words = {} if overlap is None else {'overlap': overlap}
    data = ArrayData(np.zeros((9, 1, 32), 'f4'), patch=[16], blend=blend, **words)
    data.setup()
    assert data.facts['overlap'] == due
    steps = Steps({'answer': {'output': 'values', 'dense': True}, 'patch': [16], 'blend': blend, **words})
    assert steps.tiles.shared == due


def test_what_new_data_do_not_say_of_tiles_stays_as_the_run_was_trained():
    task = DenseRegression(torch.nn.Conv1d(1, 1, 1))
    task.learn({'patch': [16], 'overlap': 0.7, 'blend': 'gaussian', 'tiles': 3})
    task.tile_as(ArrayData(np.zeros((9, 1, 32), 'f4'), patch=[16]))
    assert (task.facts['overlap'], task.facts['blend'], task.facts['tiles']) == (0.7, 'gaussian', 3)
    task.tile_as(ArrayData(np.zeros((9, 1, 32), 'f4'), patch=[8], blend='tent', tiles='auto'))
    assert (task.facts['patch'], task.facts['overlap'], task.facts['tiles']) == ([8], 0.25, 'auto')


def test_tiles_of_one_batch_are_as_many_as_memory_holds_by_the_forecast(monkeypatch):
    net = mdnc.modules.resnet.UNet2d(4, [1, 1], out_planes=3).eval()
    steps = Steps({'answer': {'output': 'classes', 'dense': True}, 'patch': [16, 16], 'overlap': 0.0, 'tiles': 'auto'})
    shape = (1, 1, 64, 96)  # six tiles stand side by side

    def needs(count):
        found = prediction_forecast(net, shape[1:], 16, count, overlap=0.0, answer='classes', result='host')
        return found.device - found.parameters - found.sample

    assert [tiles_at_once(net, steps, shape, needs(count)) for count in (1, 2, 4, 6, 9)] == [1, 2, 4, 6, 6]
    assert tiles_at_once(net, steps, shape, needs(4) - 1) == 3
    assert tiles_at_once(net, steps, shape, 0) == 1
    batches, x = [], torch.randn(shape)
    monkeypatch.setattr(tile_batches, 'free_bytes', lambda device: 2 * needs(4))
    net.register_forward_pre_hook(lambda module, given: batches.append(len(given[0])))
    facts = {'answer': {'output': 'classes', 'dense': True}, 'patch': [16, 16], 'overlap': 0.0, 'input': [1, 64, 96]}
    predictor = Predictor(net, {**facts, 'tiles': 'auto'})
    predictor.predict(x)
    batches.clear()  # of the forecast among them
    found = predictor.predict(x)
    assert batches == [4, 2] * 4
    assert torch.equal(found, Predictor(net, facts).predict(x))
    with pytest.raises(ValueError, match=r"ArrayData: tiles='many'"):
        ArrayData(np.zeros((9, 1, 32), 'f4'), tiles='many')
