"""Rare classes seen more often: windows that hold them, and samples drawn from each class alike."""

import numpy as np
import pytest
import torch

from mdnc.training import ArrayData, DataError, Segmentation, make_trainer
from mdnc.training.sampler import make_loader

RNG = np.random.default_rng(0)
SIZES = [(64,), (40, 36), (24, 20, 22)]


def _lesions(size, count=6, side=3):
    """Noise with a brighter cube in it, and where that is."""
    x = RNG.normal(size=(count, 1, *size)).astype('f4')
    y = np.zeros((count, *size), int)
    for row in range(count):
        place = tuple(slice(at, at + side) for at in (RNG.integers(length - side) for length in size))
        x[(row, 0, *place)] += 3
        y[(row, *place)] = 1
    return x, y


def _share(data, epochs=8):
    found = []
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.batch_sampler.set_epoch(epoch)
        found += [bool((target == 1).any()) for batch in loader for target in batch['target']]
    return float(np.mean(found))


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
@pytest.mark.parametrize('axis', [True, False], ids=['channel', 'lone'])
def test_a_share_of_the_windows_holds_a_rarer_class(size, axis):
    x, y = _lesions(size)
    words = {'patch': [8] * len(size), 'patches': 20, 'batch_size': 10, 'split': {'val': 0, 'test': 0}}
    by_chance, half, all_of_them = (_with(x, y[:, None] if axis else y, words, balance) for balance in (0.0, 0.5, 1.0))
    assert all_of_them == 1.0
    assert half == pytest.approx(0.5 + 0.5 * by_chance, abs=0.09)
    assert by_chance < 0.4


def _with(x, y, words, balance):
    data = ArrayData(x, y, balance=balance, **words)
    data.setup()
    return _share(data, 3)


def test_a_place_is_anywhere_in_its_window_and_classes_are_drawn_alike():
    x, y = np.zeros((1, 1, 200)), np.zeros((1, 200), int)
    y[0, 50], y[0, 100:160] = 1, 2
    data = ArrayData(x, y, patch=[10], patches=600, balance=1.0, split={'val': 0, 'test': 0})
    data.setup()
    targets = torch.cat([each['target'] for each in data.train_dataloader()])
    assert ((targets == 1).any(1).float().mean() - 0.5).abs() < 0.07
    places = (targets == 1).float().argmax(1)[(targets == 1).any(1)]
    assert set(places.tolist()) == set(range(10))


def test_the_most_frequent_class_and_what_is_not_known_are_not_sought():
    x, y = np.zeros((2, 1, 60)), np.ones((2, 60), int)
    y[:, 3], y[:, 10:14] = 0, 255
    data = ArrayData(x, y, patch=[4], patches=50, balance=1.0, split={'val': 0, 'test': 0})
    data.setup()
    data.train.balance(1.0, 255)
    targets = torch.cat([each['target'] for each in data.train_dataloader()])
    assert (targets == 0).any(1).all()


def test_samples_without_a_rarer_class_give_any_window():
    x, y = np.zeros((3, 1, 60)), np.zeros((3, 60), int)
    y[0, 30] = 1
    data = ArrayData(x, y, patch=[6], patches=40, balance=1.0, split={'val': 0, 'test': 0})
    data.setup()
    assert _share(data, 1) == pytest.approx(1 / 3, abs=0.02)


# ---- Samples of one class ----


def _classes(balance, epoch=0):
    y = np.repeat([0, 1, 2], [80, 15, 5])
    x = np.arange(100.0)[:, None, None] * np.ones((1, 1, 4))
    data = ArrayData(x, y, balance=balance, split={'val': 0, 'test': 0})
    data.setup()
    loader = data.train_dataloader()
    loader.batch_sampler.set_epoch(epoch)
    return list(loader)


def test_samples_are_drawn_from_each_class_alike():
    plain = torch.cat([each['target'] for each in _classes(0.0)])
    even = torch.cat([each['target'] for epoch in range(10) for each in _classes(1.0, epoch)])
    third = torch.cat([each['target'] for epoch in range(10) for each in _classes(1 / 3, epoch)])
    assert torch.bincount(plain).tolist() == [80, 15, 5]
    assert (torch.bincount(even) / len(even)).tolist() == pytest.approx([1 / 3] * 3, abs=0.05)
    due = [share * 2 / 3 + 1 / 9 for share in (0.8, 0.15, 0.05)]
    assert (torch.bincount(third) / len(third)).tolist() == pytest.approx(due, abs=0.05)


def test_a_sample_that_is_drawn_twice_is_augmented_in_two_ways_and_an_epoch_repeats():
    batches = _classes(1.0)
    seeds = [seed for batch in batches for seed in batch['seed']]
    index = torch.cat([batch['index'] for batch in batches]).tolist()
    assert len(set(index)) < len(index) == 100 and len(set(seeds)) == 100
    assert seeds == [seed for batch in _classes(1.0) for seed in batch['seed']]


# ---- What is refused ----


@pytest.mark.parametrize('value', [-0.1, 1.1, 'a', None, True, float('nan'), [0.5]], ids=str)
def test_a_share_out_of_range_is_refused(value):
    with pytest.raises((ValueError, TypeError), match=r'^ArrayData: balance='):
        ArrayData(np.zeros((20, 1, 8)), balance=value)


@pytest.mark.parametrize(
    ('y', 'words', 'text'),
    [
        (np.zeros((20, 8), int), {}, r'balance=0.5 needs windows: set crop or patch'),
        (np.zeros((20, 8)), {'patch': [4]}, r'classes cannot be counted: the targets are of type float32'),
        (
            np.zeros((20, 2, 8), int),
            {'patch': [4]},
            r'balance: the target of array\[\d+\] is not a map of class numbers',
        ),
        (np.zeros(20), {}, 'balance needs targets that are class numbers'),
        (None, {}, 'the data have no targets'),
    ],
)
def test_targets_without_classes_are_refused(y, words, text):
    data = ArrayData(np.zeros((20, 1, 8)), y, balance=0.5, **words)
    data.setup()
    with pytest.raises(DataError, match=text):
        data.train_dataloader()


@pytest.mark.parametrize('balance', [3, ([0], 0.5), ([0] * 20, 2), ([0] * 20, 'a'), ([0.5] * 20, 0.5)], ids=str)
def test_a_loader_refuses_what_is_no_balance(balance):
    data = ArrayData(np.zeros((20, 1, 8)), split={'val': 0, 'test': 0})
    data.setup()
    with pytest.raises((ValueError, TypeError), match='make_loader: balance'):
        make_loader(data.train, batch_size=4, shuffle=True, balance=balance)


# ---- What it is for ----


def _learnt(folder, balance):
    x, y = _lesions((48, 48, 48), count=12)
    network = {'name': 'UNet3d', 'arguments': {'channel': 4, 'layers': [1, 1], 'in_planes': 1, 'out_planes': 2}}
    task = Segmentation(network, lr=0.01, background=False)
    split = {'val': 0, 'test': 0.2}
    data = ArrayData(x, y, balance=balance, patch=[8] * 3, patches=4, batch_size=8, split=split)
    trainer = make_trainer(folder, max_epochs=10, enable_progress_bar=False)
    trainer.fit(task, data)
    [figures] = trainer.test(task, data, verbose=False)
    return figures['test/dice_1']


@pytest.mark.slow
def test_a_lesion_of_three_voxels_is_learnt_with_balance_and_not_without(tmp_path):
    balanced, uniform = _learnt(tmp_path / 'with', 0.5), _learnt(tmp_path / 'without', 0.0)
    assert balanced > 0.7
    assert uniform < balanced - 0.25
