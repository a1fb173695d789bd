"""Samples whose scores are large are judged slab by slab: the same figures as if all were held."""

import numpy as np
import pytest
import torch
from tests.training.memory_growth import growth
from torch import nn
from torchmetrics.classification import MulticlassAUROC, MulticlassConfusionMatrix, MulticlassF1Score

from mdnc.training import ArrayData, Segmentation, make_trainer
from mdnc.training.data import stored_tensor
from mdnc.training.data.stored_tensor import StoredTensor
from mdnc.training.tasks import slabs

RNG = np.random.default_rng(0)
SIZES = {1: (60,), 2: (21, 17), 3: (12, 11, 10)}


def _volumes(folder, order, channel):
    size = SIZES[order]
    x, y = RNG.normal(size=(8, 1, *size)).astype('f4'), RNG.integers(0, 3, (8, *size), np.uint8)
    y[:, :2] = 255
    y[6:] = 255  # nothing of two is known
    np.savez(folder / 'split.npz', train=[0, 1], val=[2, 3, 7], test=[4, 5, 6])
    for name, values in (('x', x), ('y', y[:, None] if channel else y)):
        np.save(folder / f'{name}.npy', values)
    return str(folder / 'x.npy'), str(folder / 'y.npy')


def _judged(folder, where, order, held, monkeypatch, **words):
    monkeypatch.setattr(stored_tensor, 'LARGE', float('inf') if held else 0)
    monkeypatch.setattr(slabs, '_PIECE', 5000)  # a few rows
    split = {'given': where[0].replace('x.npy', 'split.npz')}
    data = ArrayData(*where, patch=[8] * order, normalise='sample', split=split)
    torch.manual_seed(0)
    network = getattr(nn, f'Conv{order}d')(1, 3, 3, padding=1)
    task = Segmentation(network, ignore=255, **words)
    trainer = make_trainer(folder / f'{held}', accelerator='cpu', enable_progress_bar=False)
    trainer.validate(task, data, verbose=False)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    item = data.test.item(0, None)
    assert [type(item[name]) is StoredTensor for name in ('input', 'target')] == [not held] * 2
    trainer.test(task, data, verbose=False)
    return {**figures, **{name: float(value) for name, value in trainer.callback_metrics.items()}}, task


@pytest.mark.parametrize(
    ('order', 'channel', 'words'),
    [
        (1, True, {}),
        (2, False, {'criterion': 'dice', 'background': False, 'batch_dice': True, 'tversky': [0.3, 0.7]}),
        (3, True, {'criterion': 'cross_entropy', 'focal': 2.0, 'smoothing': 0.1, 'class_weights': [1, 2, 3]}),
        (3, False, {'metrics': {'f1': MulticlassF1Score(3), 'auroc': MulticlassAUROC(3, thresholds=20)}}),
    ],
)
def test_figures_are_those_of_samples_that_are_held(order, channel, words, tmp_path, monkeypatch):
    where = _volumes(tmp_path, order, channel)
    if 'metrics' in words:
        words = {'metrics': {'f1': MulticlassF1Score(3, ignore_index=255), 'auroc': words['metrics']['auroc']}}
    (due, whole), (found, parts) = (
        _judged(tmp_path, where, order, held, monkeypatch, **words) for held in (True, False)
    )
    assert found == pytest.approx(due, rel=1e-5) and len(found) > 10
    (table, judged), (other, same) = whole.evaluation(), parts.evaluation()
    np.testing.assert_array_equal(other.columns['confusion'], table.columns['confusion'])
    np.testing.assert_allclose(other.losses, table.losses, rtol=1e-5)
    assert np.isnan(other.losses[-1]) and other.names == table.names
    assert same.overall['dice'] == judged.overall['dice']
    for one, two in zip(whole._kept + table.worst[0].examples, parts._kept + other.worst[0].examples, strict=True):
        assert two.step == 1
        for name in ('given', 'target', 'output'):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_pictures_of_large_samples_are_thinned_out(tmp_path, monkeypatch):
    where = _volumes(tmp_path, 3, False)
    _, whole = _judged(tmp_path, where, 3, True, monkeypatch)
    monkeypatch.setattr(slabs, '_SHOWN', 200)
    _, thin = _judged(tmp_path, where, 3, False, monkeypatch)
    one, two = whole._kept[0], thin._kept[0]
    assert two.step == 2
    np.testing.assert_array_equal(two.given, one.given[:, ::2, ::2, ::2])
    np.testing.assert_array_equal(two.target, one.target[::2, ::2, ::2])
    np.testing.assert_array_equal(two.output, one.output[::2, ::2, ::2])
    assert thin.pictures(tmp_path, [])[0].is_file()


class Mean(nn.Module):
    def forward(self, output, target):
        return nn.functional.cross_entropy(output, target, reduction='none')


@pytest.mark.parametrize(
    'words', [{'loss': Mean()}, {'metrics': {'each': MulticlassF1Score(3, multidim_average='samplewise')}}]
)
def test_what_is_no_sum_over_positions_gets_whole_samples(words, tmp_path, monkeypatch):
    where = _volumes(tmp_path, 2, False)
    task = Segmentation(nn.Conv2d(1, 3, 1), ignore=255, **words)
    task.learn({'patch': [8, 8]})
    monkeypatch.setattr(stored_tensor, 'LARGE', 0)
    assert not task.in_slabs({'input': torch.zeros(1, 1, 20, 20)}, 'val')
    known = Segmentation(nn.Conv2d(1, 3, 1), metrics={'cells': MulticlassConfusionMatrix(3)})
    known.learn({'patch': [8, 8]})
    assert known.in_slabs({'input': torch.zeros(1, 1, 20, 20)}, 'val')
    if 'loss' in words:
        due, found = (_judged(tmp_path, where, 2, held, monkeypatch, **words)[0] for held in (True, False))
        assert found == pytest.approx(due, rel=1e-5)


_RUN = """
def run(size, name):
    for kind, dtype, lead in (('x', np.float32, (1,)), ('y', np.uint8, ())):
        np.lib.format.open_memmap(f'{sys.argv[1]}/{kind}{name}.npy', 'w+', dtype, (1, *lead, *size)).flush()
    where = [{part: f'{sys.argv[1]}/{kind}{name}.npy' for part in ('train', 'test')} for kind in 'xy']
    data = ArrayData(*where, patch=[32, 32, 32], normalise=False, split={'val': 0})
    trainer = make_trainer(sys.argv[1], accelerator='cpu', enable_progress_bar=False)
    trainer.test(Segmentation(nn.Conv3d(1, 4, 1)), data, verbose=False)
"""


@pytest.mark.slow
def test_a_test_takes_the_memory_of_slabs(tmp_path):
    # Scores are 336 MB, targets as whole numbers 168 MB; with what a loss makes of both it was 2.6 GB.
    assert growth(_RUN, tmp_path) < 600e6


@pytest.mark.parametrize('held', [True, False])
def test_a_class_that_the_network_does_not_know_is_named_in_validation_and_test(held, tmp_path, monkeypatch):
    x, y = _volumes(tmp_path, 2, False)
    values = np.load(y)
    values[3, 5, 5] = 7
    np.save(y, values)
    said = r'the network has classes 0 to 2, but the target of sample x.npy\[3\] holds 7'
    with pytest.raises(ValueError, match=said):
        _judged(tmp_path, (x, y), 2, held, monkeypatch)
