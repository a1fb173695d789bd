"""Large samples are read, and converted, where they are used: the same values as if they were held."""

import pickle
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from torch import nn

from mdnc.training import ArrayData, DataError, DenseRegression, make_trainer
from mdnc.training.data import stored_tensor
from mdnc.training.data.sources import open_reader
from mdnc.training.data.stored_tensor import StoredSample, StoredTensor
from mdnc.training.prediction import PredictionWriter

RNG = np.random.default_rng(0)
X = RNG.normal(500, 100, (2, 1, 20, 14, 12))
KINDS = [
    'u1',
    'i2',
    'u2',
    'f2',
    'f4',
    'f8',
    '>i2',
    '>f4',
    '>f8',
    'i8',
    'F',
    'nii',
    'scaled',
    'turned',
    'folder',
    'npz',
    'h5',
]


def _written(folder, kind):
    """Two volumes in files of a kind."""
    if kind in ('nii', 'scaled', 'turned'):
        affine = np.diag([-1, 1, 2, 1])[:, [2, 0, 1, 3]] if kind == 'turned' else np.eye(4)
        for number, volume in enumerate(X[:, 0]):
            image = nibabel.Nifti1Image(volume.astype('i2' if kind != 'nii' else 'f4'), affine)
            if kind == 'scaled':
                image.header.set_slope_inter(0.25, -30)
            nibabel.save(image, folder / f'{number}.nii')
        return f'{folder}/*.nii'
    if kind == 'folder':
        for number, volume in enumerate(X):
            np.save(folder / f'{number}.npy', volume.astype('u2'))
        return str(folder)
    if kind == 'npz':
        np.savez(folder / 'x.npz', x=X.astype('u2'))
        return str(folder / 'x.npz')
    if kind == 'h5':
        h5py = pytest.importorskip('h5py')
        with h5py.File(folder / 'x.h5', 'w') as file:
            file['x'] = X.astype('i2')
        return f'{folder / "x.h5"}::x'
    values = np.asfortranarray(X.astype('f8')) if kind == 'F' else X.clip(0, 250 if kind == 'u1' else None).astype(kind)
    np.save(folder / 'x.npy', values)
    return str(folder / 'x.npy')


def _predicted(folder, inputs, held, monkeypatch, **options):
    monkeypatch.setattr(stored_tensor, 'LARGE', float('inf') if held else 0)
    torch.manual_seed(0)
    few = X.astype('f4') if options.pop('normalise', False) else np.zeros((8, 1, 8, 8, 8), np.float32)
    by = 'sample' if few is not None and few.shape[0] == 2 else False
    data = ArrayData(few, predict=inputs, patch=[8, 8, 8], normalise=by, split={'val': 0, 'test': 0}, **options)
    data.setup('predict')
    assert (type(data.predict.item(0, None)['input']) is StoredTensor) == (not held)
    writer = PredictionWriter(folder / f'{held}.npz')
    trainer = make_trainer(folder, accelerator='cpu', callbacks=[writer], enable_progress_bar=False)
    trainer.predict(DenseRegression(nn.Conv3d(1, 2, 3, padding=1)), data, return_predictions=False)
    with np.load(writer.path) as found:
        return {name: found[name] for name in found.files}


@pytest.mark.parametrize('kind', KINDS)
def test_predictions_are_those_of_what_is_held(tmp_path, monkeypatch, kind):
    inputs = _written(tmp_path, kind)
    one, other = (_predicted(tmp_path, inputs, held, monkeypatch) for held in (True, False))
    assert one.keys() == other.keys() and 'prediction' in one
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
    'options', [{'mirror': [0, 2]}, {'blend': 'gaussian', 'tiles': 2}, {'resize': [22, 15, 9]}, {'normalise': True}]
)
def test_so_are_those_by_all_ways_of_tiles(tmp_path, monkeypatch, options):
    inputs = _written(tmp_path, '>i2')
    one, other = (_predicted(tmp_path, inputs, held, monkeypatch, **options) for held in (True, False))
    np.testing.assert_allclose(one['prediction'], other['prediction'], rtol=1e-5, atol=1e-5)


def test_a_stored_tensor_is_a_tensor(tmp_path):
    reader = open_reader(_written(tmp_path, '>i2'))
    x, due = StoredTensor.of(StoredSample(reader, 1, False))[None], torch.from_numpy(X[1:].astype('i2').astype('f4'))
    views = [x, x[..., 3:9, 2:, :5], x[:, :, 4:], x.narrow(2, 5, 6), x.to('cpu'), x.detach()]
    assert {type(view) for view in views} == {StoredTensor}
    for view, wanted in zip(
        views, [due, due[..., 3:9, 2:, :5], due[:, :, 4:], due.narrow(2, 5, 6), due, due], strict=True
    ):
        assert view.shape == wanted.shape and torch.equal(view, wanted)
    read = [x + 1, x[0, 0, 3], x.flip(2), torch.cat([x, x]), x[:, :, ::2], x.double(), x.mean(), x[:, :, 3:2]]
    wanted = [due + 1, due[0, 0, 3], due.flip(2), torch.cat([due, due]), due[:, :, ::2], due.double(), due.mean()]
    for found, other in zip(read, [*wanted, due[:, :, 3:2]], strict=True):
        assert torch.equal(found, other)
    np.testing.assert_array_equal(x.numpy(), due.numpy())
    sent = pickle.dumps(x)
    assert len(sent) < 2000 and torch.equal(pickle.loads(sent), due)
    assert repr(x) == 'StoredTensor((1, 1, 20, 14, 12) of x.npy[1])'


@pytest.mark.parametrize(
    ('change', 'text'), [(np.nan, 'contains NaN or Inf'), (1e300, 'contains NaN or Inf'), ('a', 'not numbers')]
)
def test_what_is_wrong_in_a_large_sample_is_named(tmp_path, monkeypatch, change, text):
    monkeypatch.setattr(stored_tensor, 'LARGE', 0)
    x = X.astype('U8') if change == 'a' else X.copy()
    x[1, 0, 19, 3, 3] = change
    np.save(tmp_path / 'x.npy', x)
    data = ArrayData(np.zeros((8, 1, 8, 8, 8), 'f4'), predict=tmp_path / 'x.npy', patch=[8, 8, 8], normalise=False)
    data.setup()
    with pytest.raises((DataError, ValueError), match=text):
        list(data.predict_dataloader())


_BOUNDED = """
import json, resource, sys
import nibabel, numpy as np, torch
from torch import nn
from mdnc.training import ArrayData, Reconstruction, Segmentation, make_trainer
from mdnc.training.prediction import PredictionWriter
folder, size = sys.argv[1], (1024, 128, 256)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def run(path):
    data = ArrayData(np.zeros((8, 1, 32, 32, 32), 'f4'), predict=path, order=3, patch=[32, 32, 32], normalise=False)
    callbacks = [PredictionWriter(f'{folder}/answer.h5')]
    trainer = make_trainer(folder, accelerator='cpu', callbacks=callbacks, enable_progress_bar=False)
    trainer.predict(Segmentation(nn.Conv3d(1, 4, 1)), data, return_predictions=False)
    data = ArrayData([path], order=3, patch=[32, 32, 32], patches=8, split={'val': 0, 'test': 0}, batch_size=2)
    trainer = make_trainer(f'{folder}/fit', max_epochs=1, accelerator='cpu', enable_progress_bar=False)
    trainer.fit(Reconstruction(nn.Conv3d(1, 1, 1)), data)
def write(name, kind, lengths):
    np.lib.format.open_memmap(f'{folder}/{name}.npy', 'w+', kind, (1, *lengths)).flush()
    return f'{folder}/{name}.npy'
torch.set_num_threads(1)
run(write('few', '>i2', (64, 64, 64)))
nibabel.save(nibabel.Nifti1Image(np.zeros((64, 64, 64), 'i2'), np.eye(4)), f'{folder}/few.nii')
run(f'{folder}/few.nii')
paths = [write(kind.strip('>'), kind, size) for kind in ('f4', '>i2', 'f8')]
header = nibabel.Nifti1Header()
header.set_data_shape(size), header.set_data_dtype('i2'), header.set_slope_inter(0.5, 3)
with open(f'{folder}/x.nii', 'wb') as file:
    header['magic'], header['vox_offset'] = b'n+1', 352
    file.write(header.binaryblock + bytes(4))
    file.truncate(352 + 2 * size[0] * size[1] * size[2])
before, grown = peak(), []
for path in [*paths, f'{folder}/x.nii']:
    run(path)
    grown.append((peak() - before) / 1e6)
print(json.dumps(grown))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_volume(tmp_path):
    # Each volume is 134 MB in single precision, and up to 268 MB in its file; where both are held it grows by 459 MB.
    # Reading 4 million values at a time for their mean and deviation takes the most.
    words = [sys.executable, '-c', _BOUNDED, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    grown = [float(word) for word in done.stdout.splitlines()[-1].strip('[]').split(',')]
    print('memory grew by', grown, 'MB')
    assert len(grown) == 4 and max(grown) < 250
