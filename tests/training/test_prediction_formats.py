"""Predictions as people's programs read them: names, grids, stored numbers, tables; whole or not at all."""

import csv
import errno
import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image
from torch import nn

from mdnc.training import (
    ArrayData,
    Classification,
    DenseRegression,
    Predictor,
    Regression,
    Segmentation,
    Split,
    make_trainer,
    prediction_formats,
)
from mdnc.training.prediction import PredictionWriter
from mdnc.training.prediction_formats import Row, file_names


class Sign(nn.Module):
    """Class 1 where the first channel is above 0."""

    def __init__(self, order):
        super().__init__()
        self.layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[order - 1](1, 2, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.view(-1).copy_(torch.tensor([-1.0, 1.0]))

    def forward(self, x):
        return self.layer(x)


class Double(nn.Module):
    def __init__(self, order=2):
        super().__init__()
        self.layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[order - 1](1, 1, 1)

    def forward(self, x):
        return 2 * x


def predict(folder, task, data, *words):
    writer = PredictionWriter(*words)
    trainer = make_trainer(folder, accelerator='cpu', callbacks=[writer], enable_progress_bar=False)
    trainer.predict(task, data, return_predictions=False)
    return writer.path


@pytest.fixture
def images(tmp_path):
    for name in ('cat/a', 'dog/a', 'dog/b'):
        path = tmp_path / f'new/{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 255, (9, 12), np.uint8)).save(path)
    return tmp_path / 'new'


def given(images):
    inputs = np.zeros((4, 1, 9, 12), np.float32)
    return ArrayData(inputs, predict=images, order=2, normalise=False)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def test_images_in_images_out_under_their_own_names(images, tmp_path):
    task = Segmentation(Sign(2))
    task.learn({'values': [0, 255]})
    place = predict(tmp_path / 'run', task, given(images))
    assert place == tmp_path / 'run/predictions'
    assert files(place) == ['cat/a.png', 'dog/a.png', 'dog/b.png']
    for name in files(place):
        found, source = np.array(Image.open(place / name)), np.array(Image.open(images / name))
        assert found.dtype == np.uint8
        assert np.array_equal(found, np.where(source > 0, 255, 0))


def test_quantities_of_images_are_tiff(images, tmp_path):
    place = predict(tmp_path / 'run', DenseRegression(Double()), given(images), tmp_path / 'out')
    assert files(place) == ['cat/a.tif', 'dog/a.tif', 'dog/b.tif']
    found = tifffile.imread(place / 'dog/b.tif')
    np.testing.assert_array_equal(found, 2.0 * np.array(Image.open(images / 'dog/b.png')))
    with pytest.raises(ValueError, match='a PNG can store one whole number per pixel'):
        predict(tmp_path / 'run', DenseRegression(Double()), given(images), tmp_path / 'png', 'png')
    probabilities = Segmentation(Sign(2), probabilities=True)
    place = predict(tmp_path / 'run', probabilities, given(images), tmp_path / 'shares')
    assert tifffile.imread(place / 'cat/a.tif').shape == (2, 9, 12)
    with tifffile.TiffFile(place / 'cat/a.tif') as file:
        assert file.series[0].axes == 'CYX'


@pytest.fixture
def volumes(tmp_path):
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 2], [0, 0, 0, 1]])
    rng = np.random.default_rng(0)
    for name in ('one/t1.nii.gz', 'two/t1.nii.gz'):
        path = tmp_path / 'scans' / name
        path.parent.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(rng.normal(size=(8, 10, 6)).astype(np.float32), affine), path)
    return tmp_path / 'scans'


@pytest.mark.parametrize('patch', [None, [4, 4, 4]])
def test_volumes_come_back_on_their_own_grid(volumes, tmp_path, patch):
    task = Segmentation(Sign(3))
    inputs = np.zeros((4, 1, 8, 8, 8), np.float32)
    data = ArrayData(inputs, predict=volumes, order=3, normalise=False, patch=patch)
    task.learn({'values': [0, 4], 'patch': patch, 'overlap': 0.25})
    place = predict(tmp_path / 'run', task, data)
    assert files(place) == ['one/t1.nii.gz', 'two/t1.nii.gz']
    for name in files(place):
        found, source = nibabel.load(place / name), nibabel.load(volumes / name)
        assert np.array_equal(found.affine, source.affine)
        assert found.get_data_dtype() == np.uint8
        assert np.array_equal(found.get_fdata(), np.where(source.get_fdata() > 0, 4, 0))
    predictor = Predictor(task.network, task.facts)
    assert np.array_equal(
        predictor(str(volumes / 'one')), [np.asarray(nibabel.load(place / 'one/t1.nii.gz').dataobj) // 4]
    )


def test_one_volume_to_one_file(volumes, tmp_path):
    data = ArrayData(np.zeros((4, 1, 8, 8, 8), np.float32), predict=volumes / 'one', order=3, normalise=False)
    place = predict(tmp_path, DenseRegression(Double(3)), data, tmp_path / 'mask.nii')
    np.testing.assert_allclose(
        nibabel.load(place).get_fdata(), 2 * nibabel.load(volumes / 'one/t1.nii.gz').get_fdata(), rtol=1e-6
    )
    data = ArrayData(np.zeros((4, 1, 8, 8, 8), np.float32), predict=volumes, order=3, normalise=False)
    with pytest.raises(ValueError, match=r'mask\.nii can store one sample, but there are 2; give a folder'):
        predict(tmp_path, DenseRegression(Double(3)), data, tmp_path / 'mask.nii')


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_a_table_of_classes_with_the_targets_beside(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 1, 8)).astype(np.float32)
    y = np.repeat(['cat', 'dog'], 10)
    data = ArrayData(x, y, split=Split(0, 0.5), normalise=False)
    task = Classification(nn.Sequential(nn.Flatten(), nn.Linear(8, 2)))
    found = rows(predict(tmp_path, task, data))
    assert list(found[0]) == ['path', 'class', 'cat', 'dog', 'target']
    assert [row['path'] for row in found] == [data.test.name(index) for index in range(10)]
    assert [row['target'] for row in found] == [
        ['cat', 'dog'][int(data.test.item(i, None)['target'])] for i in range(10)
    ]
    for row in found:
        shares = {name: float(row[name]) for name in ('cat', 'dog')}
        assert row['class'] == max(shares, key=shares.get)
        assert sum(shares.values()) == pytest.approx(1)
    new = ArrayData(x, y, split=Split(0, 0.5), normalise=False, predict=x[:3])
    assert list(rows(predict(tmp_path, task, new, tmp_path / 'new.csv'))[0]) == ['path', 'class', 'cat', 'dog']


def test_a_table_of_quantities(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 1, 8)).astype(np.float32)
    y = np.stack([x[:, 0, 0], x[:, 0, 1]], 1)
    y[3, 1] = np.nan
    data = ArrayData({'train': x, 'test': x[:5]}, {'train': y, 'test': y[:5]}, missing=True, normalise=False)
    task = Regression(nn.Sequential(nn.Flatten(), nn.Linear(8, 2)), names=['level / m', 'flow'])
    found = rows(predict(tmp_path, task, data, tmp_path / 'p.csv'))
    assert list(found[0]) == ['path', 'level / m', 'flow', 'target level / m', 'target flow']
    assert found[3]['target flow'] == '' and float(found[2]['target flow']) == pytest.approx(y[2, 1])
    expected = task.predict(x[:5])
    np.testing.assert_allclose([[float(row['level / m']), float(row['flow'])] for row in found], expected, rtol=1e-6)


def test_zarr_holds_what_hdf5_holds_and_is_replaced_whole(tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 1, 16)).astype(np.float32)
    for part in (x[:5], x[:3]):
        predict(tmp_path, DenseRegression(Double(1)), ArrayData(x, predict=part, normalise=False), tmp_path / 'p.zarr')
        store = zarr.open_group(str(tmp_path / 'p.zarr'), mode='r')
        np.testing.assert_allclose(store['prediction'][:], 2 * part)
        assert store['index'][:].tolist() == list(range(len(part)))
        assert store.attrs['name'] == [f'array[{n}]' for n in range(len(part))]
    lengths = [x[0], x[1, :, :9]]
    predict(tmp_path, DenseRegression(Double(1)), ArrayData(x, predict=lengths, normalise=False), tmp_path / 'u.zarr')
    store = zarr.open_group(str(tmp_path / 'u.zarr'), mode='r')
    np.testing.assert_allclose(store['prediction/1'][:], 2 * lengths[1])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith('.')] == []


@pytest.mark.parametrize(
    ('rows', 'names'),
    [
        ([('x.npy[3]', 'x.npy'), ('x.npy[10]', 'x.npy')], ['x_3.png', 'x_10.png']),
        ([('a/i.jpg', 'a/i.jpg'), ('a/i.bmp', 'a/i.bmp')], ['a/i.jpg.png', 'a/i.bmp.png']),
        ([('s.nii.gz', 's.nii.gz'), ('t.v2.tif', 't.v2.tif')], ['s.png', 't.v2.png']),
        ([('../../etc/x', '../../etc/x'), ('/abs/y.npy', '/abs/y.npy')], ['etc/x.png', 'abs/y.png']),
    ],
)
def test_names_of_files(rows, names):
    assert file_names([Row(*row) for row in rows], '.png') == names


@pytest.mark.parametrize(
    ('words', 'text'),
    [
        (('p.txt',), 'predictions are written to a file'),
        (
            (None, 'jpeg'),
            "unknown format 'jpeg'; choose from hdf5, npz, zarr, csv, nifti, png, tiff",
        ),
        (('p.h5', 'csv'), r'p\.h5 is a file of format hdf5, not csv'),
        (('out', 'npz'), r'of the format npz are written to a file \.npz, not out'),
    ],
)
def test_names_and_formats_that_do_not_go_together(words, text):
    with pytest.raises(ValueError, match=text):
        PredictionWriter(*words)


def test_maps_are_no_table(tmp_path):
    data = ArrayData(np.zeros((4, 1, 8), np.float32), normalise=False)
    with pytest.raises(ValueError, match='csv has one row per sample, but these predictions are maps'):
        predict(tmp_path, DenseRegression(Double(1)), data, tmp_path / 'p.csv')
    assert list(tmp_path.glob('.p*')) == []


def test_what_stands_there_stays_when_writing_fails(images, tmp_path, monkeypatch):
    place = predict(tmp_path / 'run', Segmentation(Sign(2)), given(images), tmp_path / 'out')
    before = {name: (place / name).read_bytes() for name in files(place)}

    def full(file, *given):
        file.write(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(prediction_formats, '_png', full)
    monkeypatch.setitem(
        prediction_formats.FORMATS,
        'png',
        prediction_formats.Format(('.png',), prediction_formats._each_file('.png', full), True),
    )
    with pytest.raises(OSError, match=r'out could not be written \(.*No space left'):
        predict(tmp_path / 'run', Segmentation(Sign(2)), given(images), tmp_path / 'out')
    assert {name: (place / name).read_bytes() for name in files(place)} == before
    assert [path for path in tmp_path.rglob('.*') if path.name != '.lock'] == []


def test_a_predictor_writes_what_the_command_writes(images, tmp_path, monkeypatch):
    task = Segmentation(Sign(2))
    task.learn({'values': [0, 255], 'input': [1, 9, 12]})
    expected = predict(tmp_path / 'run', task, given(images))
    found = Predictor(task.network, task.facts).write(images, tmp_path / 'mine')
    assert files(found) == files(expected)
    assert all((found / name).read_bytes() == (expected / name).read_bytes() for name in files(found))
    monkeypatch.chdir(tmp_path)
    vectors = Regression(nn.Sequential(nn.Flatten(), nn.Linear(8, 1)))
    vectors.learn({'input': [1, 8]})
    x = np.ones((3, 8), np.float32)
    written = Predictor(vectors.network, vectors.facts).write(x)
    assert written == Path('predictions.csv')
    assert [row['path'] for row in rows(written)] == ['array[0]', 'array[1]', 'array[2]']


_BOUNDED = """
import json, resource, sys
import numpy as np, torch
from torch import nn
from mdnc.training import ArrayData, Segmentation, make_trainer
from mdnc.training.prediction import PredictionWriter
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def run(size, name):
    x = np.zeros((1, 1, size, 64, 64), np.float32)
    task = Segmentation(nn.Conv3d(1, 64, 1), metrics={})
    few = np.zeros((8, 1, 16, 32, 32), np.float32)
    data = ArrayData(few, predict=x, patch=[16, 32, 32], overlap=0.0, normalise=False)
    writer = PredictionWriter(name)
    trainer = make_trainer(sys.argv[1], accelerator='cpu', callbacks=[writer], enable_progress_bar=False)
    trainer.predict(task, data, return_predictions=False)
torch.set_num_threads(1)
run(32, sys.argv[1] + '/small.h5')
before = peak()
run(512, sys.argv[1] + '/large.h5')
print(json.dumps(peak() - before))
"""


@pytest.mark.slow
def test_a_volume_is_written_slab_by_slab(tmp_path):
    # 64 classes of 512 × 64 × 64 places are 537 MB in single precision, the input is 8 MB, its classes are 2 MB.
    done = subprocess.run([sys.executable, '-c', _BOUNDED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) < 150e6
