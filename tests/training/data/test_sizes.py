"""Samples of unequal sizes: padded in a batch with their lengths, and filled up where they are smaller than a patch."""

import numpy as np
import pytest
import torch
from tests.training.data.folders import array, opened

from mdnc.training.sample import SampleError

SIZES = {1: [(5,), (9,), (7,)], 2: [(5, 8), (9, 4), (7, 7)], 3: [(5, 4, 3), (2, 6, 3), (4, 4, 4)]}


def batches(data, part='train'):
    return list(getattr(data, f'{part}_dataloader')())


@pytest.mark.parametrize('order', [1, 2, 3])
@pytest.mark.parametrize('target', ['none', 'number', 'map', 'channels'])
def test_samples_of_unequal_sizes_are_padded_with_their_lengths(order, target, tmp_path):
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(2, *size)) for size in SIZES[order]]
    targets = {
        'none': None,
        'number': np.arange(3),
        'map': [rng.integers(1, 4, size) for size in SIZES[order]],
        'channels': [rng.normal(size=(3, *size)) for size in SIZES[order]],
    }[target]
    (batch,) = batches(opened(inputs, targets, batch_size=3))
    assert batch['lengths'].tolist() == [list(SIZES[order][number]) for number in batch['index']]
    assert list(batch['input'].shape[2:]) == batch['lengths'].amax(0).tolist()
    for row, number in enumerate(batch['index'].tolist()):
        real = (..., *map(slice, SIZES[order][number]))
        own = {'input': inputs[number]} | ({'target': targets[number]} if target in ('map', 'channels') else {})
        for name, values in own.items():
            np.testing.assert_allclose(batch[name][row][real], values, rtol=1e-6)
            assert float(batch[name][row].double().sum()) == pytest.approx(values.sum(), rel=1e-5)  # the rest is 0
    if target == 'number':
        assert batch['target'].tolist() == batch['index'].tolist()


def test_batches_of_one_size_hold_no_lengths():
    inputs = [np.ones((1, 8)), np.ones((1, 8)), np.ones((1, 9)), np.ones((1, 9))]
    assert ['lengths' in batch for batch in batches(opened(inputs, batch_size=2, predict=inputs), 'predict')] == [
        False,
        False,
    ]
    assert opened(inputs).train.shape is None and opened(inputs).facts['input'] == [1, 8]


def test_what_is_not_known_is_padded_with_what_is_not_known():
    maps = [np.full(4, np.nan), np.full(6, 2.0)]
    (batch,) = batches(opened([np.ones((1, 4)), np.ones((1, 6))], maps, missing=True, batch_size=2))
    assert {tuple(row) for row in batch['known'].tolist()} == {(False,) * 6, (True,) * 6}


def test_a_vector_that_is_as_long_as_a_sample_by_chance_is_no_map():
    data = opened([np.ones((1, 5)), np.ones((1, 3)), np.ones((1, 9))], np.arange(9.0).reshape(3, 3), batch_size=3)
    (batch,) = batches(data)
    assert batch['target'].shape == (3, 3) and sorted(batch['target'][:, 0].tolist()) == [0, 3, 6]


def test_samples_with_other_channels_or_axes_are_named(tmp_path):
    for number, shape in enumerate(((1, 8), (1, 9), (2, 8))):
        array(tmp_path / f'{number}.npy', 0, shape)
    with pytest.raises(SampleError, match=r'2\.npy\): its shape is \(2, 8\), but others of these data have 1 channels'):
        batches(opened(tmp_path, normalise=False))


@pytest.mark.parametrize('size', [(5, 20), (20, 5), (3, 4), (20, 20)])
def test_samples_smaller_than_a_patch_are_filled_up(size):
    rng = np.random.default_rng(0)
    inputs, maps = [rng.normal(size=(1, *size))] * 2, [rng.integers(0, 3, size)] * 2
    data = opened(inputs, maps, patch=[8, 8], patches=3, batch_size=6, augmentation={'flip': [0]})
    (batch,) = batches(data)
    assert batch['input'].shape == (6, 1, 8, 8) and batch['target'].shape == (6, 8, 8)
    inside = tuple(slice(min(8, length)) for length in size)
    for filled in (batch['input'][:, 0], batch['target']):
        for axis, place in enumerate(inside, 1):
            rest = filled.narrow(axis, place.stop - 1, 9 - place.stop)
            assert torch.equal(rest, rest.narrow(axis, 0, 1).expand_as(rest))  # the values at the end go on
    pairs = set(zip(batch['input'].flatten().tolist(), batch['target'].flatten().tolist(), strict=True))
    stored = zip(np.float32(inputs[0]).ravel().tolist(), maps[0].ravel().tolist(), strict=True)
    assert pairs <= set(stored)
