"""Predictions reach their file once each, in order, with names, whole volumes too."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from mdnc.training import ArrayData, Classification, DenseRegression, Segmentation, Split, make_trainer
from mdnc.training.prediction import PredictionWriter
from mdnc.training.tiling import run_tiled


class Double(nn.Module):
    """Gives back twice its input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(1, 1, 1)

    def forward(self, x):
        return 2 * x


def predict(path, task, data):
    trainer = make_trainer(
        path.parent, accelerator='cpu', callbacks=[PredictionWriter(path)], enable_progress_bar=False
    )
    trainer.predict(task, data, return_predictions=False)


def read(path):
    if path.suffix == '.npz':
        return dict(np.load(path))
    with h5py.File(path) as file:
        found = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        return {name: value.astype(str) if value.dtype.kind == 'O' else value for name, value in found.items()}


@pytest.mark.parametrize('suffix', ['.h5', '.npz'])
def test_each_sample_once_with_its_name(suffix, tmp_path):
    x = np.arange(22, dtype=np.float32)[:, None, None] * np.ones((1, 1, 8), np.float32)
    data = ArrayData(x, np.array(['a', 'b'] * 11), batch_size=4, split=Split(0, 0.5), normalise=False)
    task = Classification(nn.Sequential(nn.Flatten(), nn.Linear(8, 2)))
    path = tmp_path / f'new/p{suffix}'
    predict(path, task, data)
    found = read(path)
    assert found['index'].tolist() == list(range(11))
    assert found['name'].tolist() == [data.test.name(index) for index in range(11)]
    assert found['classes'].tolist() == ['a', 'b']
    inputs = torch.stack([torch.from_numpy(data.test.item(index, None)['input']) for index in range(11)])
    with torch.no_grad():
        np.testing.assert_allclose(found['prediction'], task.network(inputs).softmax(1).numpy(), rtol=1e-5)
    assert [file.name for file in path.parent.iterdir() if file.suffix != '.csv'] == [path.name]


@pytest.mark.parametrize('suffix', ['.h5', '.npz'])
def test_whole_samples_of_different_sizes_from_tiles(suffix, tmp_path):
    signals = tmp_path / 'signals'
    signals.mkdir()
    sizes = [50, 37, 64]
    for number, size in enumerate(sizes):
        np.save(signals / f's{number}.npy', np.random.default_rng(number).normal(size=(1, size)).astype(np.float32))
    data = ArrayData(signals, patch=[16], predict=signals, normalise=False)
    path = tmp_path / f'p{suffix}'
    predict(path, DenseRegression(Double()), data)
    found = read(path)
    assert found['name'].tolist() == ['s0.npy', 's1.npy', 's2.npy']
    for number in range(3):
        np.testing.assert_allclose(found[f'prediction/{number}'], 2 * np.load(signals / f's{number}.npy'), rtol=1e-5)


def test_volumes_come_back_whole(tmp_path):
    torch.manual_seed(0)
    task = Segmentation(
        {'name': 'UNet3d', 'arguments': {'channel': 2, 'layers': [1, 1], 'block': 'plain', 'out_planes': 3}},
        probabilities=True,
    )
    x = np.random.default_rng(0).normal(size=(2, 1, 13, 9, 20)).astype(np.float32)
    data = ArrayData({'train': x, 'val': x, 'test': x}, patch=[8, 8, 8], overlap=0.5)
    predict(tmp_path / 'p.h5', task, data)
    found = read(tmp_path / 'p.h5')['prediction']
    assert found.shape == (2, 3, 13, 9, 20)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    with torch.no_grad():
        expected = run_tiled(task.eval(), torch.from_numpy(x[:1]), [8, 8, 8], 0.5).softmax(1)
    np.testing.assert_allclose(found[:1], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('suffix', ['.h5', '.npz'])
def test_parts_of_several_processes_are_merged_without_fillers(suffix, tmp_path):
    path = tmp_path / f'p{suffix}'
    batches = {0: ([0, 2, 4], [1.0, 1.0, 1.0]), 1: ([1, 3, 0], [1.0, 1.0, 0.0])}  # the last one is a filler
    for rank in (1, 0):  # the first process waits for the others before it merges
        trainer = SimpleNamespace(
            global_rank=rank, world_size=2, is_global_zero=rank == 0, strategy=SimpleNamespace(barrier=lambda: None)
        )
        index, weight = batches[rank]
        batch = {'index': torch.tensor(index), 'weight': torch.tensor(weight), 'name': [f's{i}' for i in index]}
        values = torch.tensor(index, dtype=torch.bfloat16)[:, None] + 100 * (torch.tensor(weight) == 0)[:, None]
        writer = PredictionWriter(path)
        writer.on_predict_start(trainer, None)
        writer.on_predict_batch_end(trainer, None, values, batch, 0)
        writer.on_predict_end(trainer, None)
    found = read(path)
    assert found['index'].tolist() == [0, 1, 2, 3, 4]
    assert found['name'].tolist() == ['s0', 's1', 's2', 's3', 's4']
    assert found['prediction'].tolist() == [[0], [1], [2], [3], [4]]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_other_endings_are_refused():
    with pytest.raises(ValueError, match=r'written to a file \.h5, \.hdf5, \.npz or \.csv, .*, not p\.txt'):
        PredictionWriter('p.txt')


def test_a_prediction_that_fails_leaves_no_part(tmp_path):
    data = ArrayData(np.zeros((10, 1, 9)), batch_size=4)
    with pytest.raises(RuntimeError):
        predict(tmp_path / 'p.h5', Classification(nn.Sequential(nn.Flatten(), nn.Linear(8, 2))), data)
    assert list(tmp_path.glob('.p*')) == []


@pytest.mark.parametrize('suffix', ['.h5', '.npz'])
def test_samples_of_folders_are_told_apart(suffix, tmp_path):
    for kind in ('cat', 'dog'):
        (tmp_path / 'new' / kind).mkdir(parents=True)
        for number in (10, 9):
            np.save(tmp_path / f'new/{kind}/{number}.npy', np.full((1, 8), number, np.float32))
    data = ArrayData(np.zeros((9, 1, 8), np.float32), predict=tmp_path / 'new', normalise=False)
    predict(tmp_path / f'p{suffix}', DenseRegression(Double()), data)
    found = read(tmp_path / f'p{suffix}')
    assert found['name'].tolist() == ['cat/9.npy', 'cat/10.npy', 'dog/9.npy', 'dog/10.npy']
    assert found['prediction'][:, 0, 0].tolist() == [18, 20, 18, 20]
