"""One call trains, what it gives back answers arrays and files, and comes back from the disk."""

import random
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mdnc
from mdnc.training import ArrayData, Classification, Predictor, Split, load, train
from mdnc.training.data import datamodule

SMALL = {'channel': 4, 'layers': [1, 1]}
RNG = np.random.default_rng(0)
PHASE = np.linspace(0, 6.28, 32) * np.repeat([2, 5], 30)[:, None] + RNG.uniform(0, 6.28, (60, 1))
X = (np.sin(PHASE) * RNG.uniform(0.5, 2, (60, 1)))[:, None].astype(np.float32)
NAMES = np.repeat(['calm', 'wild'], 30)
MAPS = RNG.normal(size=(12, 2, 16, 16)).astype(np.float32)


def learn(data=(X, NAMES), network='EncoderNet', epochs=1, **options):
    return train(network, data, epochs=epochs, device='cpu', **{**SMALL, **options})


def random_states():
    return random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


def test_it_learns_and_says_so(capsys):
    before = random_states()
    found = learn(epochs=15, lr=0.02, batch_size=8)
    assert random_states() == before
    assert set(found.figures) == {'test/accuracy', 'test/f1', 'test/loss'}
    assert [row['epoch'] for row in found.history] == list(range(15))
    assert (found.labels(X) == NAMES).mean() > 0.9
    assert found.classes == ['calm', 'wild']
    assert capsys.readouterr().out == ''
    assert found.run is None
    again = learn(epochs=15, lr=0.02, batch_size=8)
    assert np.array_equal(again(X), found(X)), 'the same seed gives the same network'


def test_progress_is_shown_when_it_is_wanted(capsys):
    learn(progress=True)
    assert 'epoch 0' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('data', 'network', 'task', 'shape'),
    [
        ((X, NAMES), 'EncoderNet', 'classification', (3, 2)),
        ((X, np.repeat([0, 1, 2], 20)), 'EncoderNet', 'classification', (3, 3)),
        ((X, X.std((1, 2))), 'EncoderNet', 'regression', (3, 1)),
        ((X, np.stack([X.mean((1, 2)), X.std((1, 2))], 1)), 'EncoderNet1d', 'regression', (3, 2)),
        ((MAPS, (MAPS[:, 0] > 0).astype(np.int64) * 2), 'UNet', 'segmentation', (3, 16, 16)),
        ((MAPS, MAPS[:, :1] ** 2), 'UNet2d', 'dense_regression', (3, 1, 16, 16)),
        (MAPS, 'AE', 'reconstruction', (3, 2, 16, 16)),
    ],
)
def test_the_task_is_what_the_targets_say(data, network, task, shape):
    options = {**SMALL, 'block': 'plain'}
    guessed, said = (train(network, data, epochs=1, device='cpu', task=word, **options) for word in (None, task))
    samples = data[0] if isinstance(data, tuple) else data
    assert guessed(samples[:3]).shape == shape
    assert np.array_equal(guessed(samples[:3]), said(samples[:3]))


def test_many_whole_numbers_are_no_classes_unless_said():
    with pytest.raises(ValueError, match=r"up to 5900: say .* task='classification' or task='regression'"):
        learn((X, np.arange(60) * 100))
    assert learn((X, np.arange(60) * 100), task='regression')(X[:2]).shape == (2, 1)


MASKS = (MAPS[:, 0] > 0).astype(np.int64)


@pytest.mark.parametrize(
    ('data', 'text'),
    [
        ((X, np.zeros(60, int)), 'hold one class only, 0: there must be at least two'),
        ((X, np.repeat('calm', 60)), "hold one class only, 'calm'"),
        ((MAPS, MASKS * 0), 'hold one class only, 0'),
        ((X, np.arange(60) % 2 * 2 - 1), r'the targets hold -1, 1: values=[-1, 1] says which numbers stand for'),
        ((MAPS, MASKS * 255), r'the targets hold 0, 255: values=[0, 255] says which numbers'),
        ((MAPS, MASKS - 1), r'the targets hold -1, 0: values=[-1, 0]'),
        ((X, np.arange(60)), '60 different whole numbers up to 59: say whether they are classes or quantities'),
        ((MAPS, MASKS[:, :8]), 'a target has the shape (8, 16) beside an input (2, 16, 16): maps of classes have one'),
        ((MAPS, np.stack([MASKS, 1 - MASKS], 1)), 'of the shape (16, 16) (of one-hot maps their argmax)'),
    ],
)
def test_targets_of_no_certain_classes_are_refused(data, text):
    with pytest.raises(ValueError) as raised:
        learn(data, 'EncoderNet' if data[0] is X else 'UNet')
    assert str(raised.value).startswith('train: ') and text in str(raised.value)


def test_numbers_are_classes_where_that_is_said():
    found = learn((X, np.arange(60) % 2 * 2 - 1), values=[-1, 1])
    assert found.classes == ['-1', '1']
    found = learn((MAPS, MASKS * 255), 'UNet', values=[0, 255])
    assert found.probabilities(MAPS[:2]).shape == (2, 2, 16, 16)
    found = learn((MAPS, np.where(MAPS[:, 1] > 1, -1, MASKS)), 'UNet', ignore=-1)
    assert found.probabilities(MAPS[:2]).shape == (2, 2, 16, 16)
    assert learn((X, np.zeros(60, int)), out_length=2).probabilities(X[:2]).shape == (2, 2)


@pytest.mark.parametrize(
    'targets', [NAMES[:, None], np.arange(60)[:, None] % 2, pd.DataFrame({'k': np.arange(60) % 2})]
)
def test_a_column_of_classes_is_as_good_as_a_row(targets):
    assert learn((X, targets)).probabilities(X[:3]).shape == (3, 2)


def test_a_class_that_only_the_test_part_has_is_named(monkeypatch):
    other = np.where(NAMES == 'wild', 'odd', NAMES)
    with pytest.warns(UserWarning, match='samples of test are of classes that no training sample has, .*: odd;'):
        found = learn({'train': (X, NAMES), 'test': (X, other)})
    assert found.classes == ['calm', 'odd', 'wild']
    numbers = np.arange(60) % 2
    with pytest.warns(UserWarning, match='samples of val are of classes that no training sample has, .*: 2;'):
        learn({'train': (X, numbers), 'val': (X, 2 * numbers)})
    monkeypatch.setattr(datamodule, '_MOST_TARGETS', 119)
    learn({'train': (X, numbers), 'val': (X, 2 * numbers)})  # too many to look for it: warnings are errors here


@pytest.mark.parametrize(
    'data',
    [
        {'train': (X, NAMES), 'test': (X[::7], NAMES[::7])},
        ArrayData(X, NAMES, split=Split(0.1, 0.2)),
        TensorDataset(torch.from_numpy(X), torch.arange(60) // 30),
        DataLoader(TensorDataset(torch.from_numpy(X), torch.arange(60) // 30), batch_size=10),
        {
            part: DataLoader(TensorDataset(torch.from_numpy(X), torch.arange(60) // 30), 10)
            for part in ('train', 'test')
        },
    ],
)
def test_data_of_all_kinds(data):
    found = learn(data)
    assert found(X[:3]).shape == (3, 2)
    assert bool(found.figures) == (not isinstance(data, DataLoader))


class Counted(nn.Sequential):
    """A network that notes the sizes of its batches in training."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(32, 2))
        self.sizes = []

    def forward(self, x):
        if torch.is_grad_enabled() and self.training:
            self.sizes.append(len(x))
        return super().forward(x)


FIFTY = TensorDataset(torch.from_numpy(X[:50]), torch.arange(50) // 25)


@pytest.mark.parametrize(
    ('data', 'options'),
    [((X[:50], NAMES[5:55]), {'split': {'val': 0.0, 'test': 0.0}}), ({'train': FIFTY, 'test': FIFTY}, {})],
    ids=['arrays', 'torch'],
)
def test_batches_of_training_are_even(data, options):
    net = Counted()
    train(net, data, epochs=2, device='cpu', batch_size=16, **options)
    assert net.sizes[-8:] == 2 * [13, 13, 12, 12]


def test_a_module_of_ones_own_is_trained_itself(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
    before = net[1].weight.clone()
    found = train(net, (X, NAMES), epochs=1, device='cpu', run=tmp_path / 'run')
    assert found.network is net
    assert not torch.equal(before, net[1].weight)
    found.save(tmp_path / 'kept.ckpt')
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
    start = fresh[1].weight.clone()
    for place in (tmp_path / 'run', tmp_path / 'kept.ckpt'):
        np.testing.assert_array_equal(load(place, network=fresh)(X), found(X))
        with pytest.raises(ValueError, match=r'not known: build it as you did.*mdnc\.load\(…, network=…\)'):
            load(place)
        with pytest.raises(ValueError, match='with weights that do not fit network='):
            load(place, network=nn.Linear(3, 2))
    assert torch.equal(start, fresh[1].weight), 'the module that is given is copied'
    with pytest.raises(TypeError, match='load: network=3 must be a module'):
        load(tmp_path / 'run', network=3)


def test_one_answer_on_every_way(tmp_path):
    found = learn(run=tmp_path / 'run', epochs=2)
    assert found.run == tmp_path / 'run'
    found.save(tmp_path / 'kept.ckpt')
    expected = found(X)
    np.save(tmp_path / 'x.npy', X)
    ways = {
        'run': mdnc.load(tmp_path / 'run')(X),
        'file': mdnc.load(tmp_path / 'kept.ckpt')(X),
        'network': mdnc.checkpoints.load(tmp_path / 'kept.ckpt').predict(X),
        'task': Classification.load_from_checkpoint(tmp_path / 'run').predict(X),
        'files': found(tmp_path / 'x.npy'),
        'tensor': found(torch.from_numpy(X)).numpy(),
        'list': found(list(X)),
        'no channel axis': found(X[:, 0]),
        'probabilities': found.probabilities(X),
    }
    for way, given in ways.items():
        np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-6, err_msg=way)
    assert mdnc.load(tmp_path / 'run').run == tmp_path / 'run'
    with pytest.raises(ValueError, match='already contains a run'):
        learn(run=tmp_path / 'run')


def test_classes_beside_the_middle_of_a_sample_are_counted():
    classes = np.zeros((12, 16, 16), int)
    classes[:, 0, :2] = 1, 2
    found = learn((MAPS, classes), 'UNet', patch=[8, 8], split=Split(val=0, test=0))
    assert found.probabilities(MAPS[:2]).shape == (2, 3, 16, 16)


def test_maps_of_unequal_sizes_come_one_by_one(tmp_path):
    found = learn((MAPS, (MAPS[:, 0] > 0).astype(np.int64)), 'UNet', block='plain')
    samples = [MAPS[0], MAPS[1, :, :12], MAPS[2, :, :, :9]]
    for number, sample in enumerate(samples):
        np.save(tmp_path / f's{number}.npy', sample)
    for way in (found(samples), found([torch.from_numpy(each) for each in samples])):
        assert [tuple(each.shape) for each in way] == [(16, 16), (12, 16), (16, 9)]
        for each, sample in zip(way, samples, strict=True):
            assert np.array_equal(np.asarray(each), found(sample[None])[0])
    assert found.probabilities(samples)[1].shape == (2, 12, 16)
    labels = found.labels(samples)
    assert np.array_equal(labels[2], np.asarray(found(samples)[2]))


@pytest.mark.parametrize(
    ('change', 'error', 'text'),
    [
        ({'chanel': 4}, TypeError, 'train: unknown option chanel; did you mean channel?'),
        ({'task': 'classify'}, ValueError, "task='classify' must be one of classification"),
        ({'epochs': 0}, ValueError, 'train: epochs=0'),
        ({'device': 'fast'}, ValueError, "train: device='fast'"),
        ({'smoothing': 0.1, 'task': 'regression', 'data': (X, X.std((1, 2)))}, TypeError, 'smoothing'),
        ({'network': 'EncoderNot'}, ValueError, "unknown network 'EncoderNot'"),
        ({'data': {'training': X}}, TypeError, 'data must be'),
        ({'data': ArrayData(X, NAMES), 'normalise': False}, TypeError, 'normalise apply to arrays and files'),
        ({'run': 3}, TypeError, 'train: run=3'),
    ],
)
def test_what_is_wrong_is_said(change, error, text):
    with pytest.raises(error) as raised:
        train(**{'network': 'EncoderNet1d', 'data': (X, NAMES), 'device': 'cpu', 'epochs': 1, **change})
    assert text in str(raised.value)


def test_a_predictor_refuses_what_it_cannot_answer():
    found = learn()
    with pytest.raises(ValueError, match='no samples'):
        found(X[:0])
    with pytest.raises(ValueError, match='1 channel'):
        found(np.zeros((2, 3, 32), np.float32))
    with pytest.raises(ValueError, match='predicts values, which have no probabilities'):
        learn((X, X.std((1, 2)))).labels(X)
    with pytest.raises(ValueError, match='nothing is known'):
        Predictor(nn.Linear(2, 2))


@pytest.mark.parametrize(('network', 'targets'), [('UNet', MASKS), ('UNet', MAPS[:, 1]), ('EncoderNet', NAMES[::5])])
@pytest.mark.parametrize('value', [np.nan, -np.inf, 1e300])
def test_a_sample_without_an_answer_is_named(network, targets, value):
    found = learn((MAPS, targets), network, batch_size=4)
    broken = MAPS.astype(np.float64)
    broken[9, 1, 3, 4] = value
    ways = (found, mdnc.checkpoints.Answer(found.network, found.facts).predict)
    for samples in (broken, torch.from_numpy(broken), list(broken)):
        for way in ways:
            with pytest.raises(ValueError, match='sample 9 of the input contains NaN or Inf'):
                way(samples)
    assert np.isfinite(np.asarray(found.predict(np.delete(broken, 9, 0)))).all()


@pytest.mark.parametrize(
    ('samples', 'text'),
    [(None, 'not None'), (3, 'not 3'), (X.astype(str), 'an array of numbers'), (X + 1j, 'complex64, not real numbers')],
)
def test_what_is_no_sample_is_refused(samples, text):
    with pytest.raises(TypeError, match=text):
        learn()(samples)


def test_what_lacks_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith('mdnc.training')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(mdnc, 'training', raising=False)
    monkeypatch.setitem(sys.modules, 'lightning', None)
    for ask in (lambda: mdnc.load, lambda: mdnc.training):
        with pytest.raises(ImportError, match=r"lightning is not installed.*pip install 'mdnc\[train\]'"):
            ask()
