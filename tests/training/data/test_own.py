"""Data of one's own: formats of other packages, data sets of torch, objects of pandas, several files a sample."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.training.data.folders import array, names, opened, picture, text
from tests.training.data.test_grid import volume
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from mdnc.training import ArrayData, Split
from mdnc.training.data import DataError
from mdnc.training.data.plugins import own_formats
from mdnc.training.data.sources import open_pair, open_reader


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- Formats of other packages ----


@pytest.fixture
def package(here, monkeypatch):
    """An installed package that reads files of lines of numbers, and two that do not work."""
    (here / 'lines.py').write_text(
        'import numpy as np\n'
        'class Lines:\n'
        '    def __init__(self, path, member=""):\n'
        '        self.values = np.loadtxt(path)[None] * float(member or 1)\n'
        '        self.shape = self.values.shape\n'
        '    def __getitem__(self, place):\n'
        '        return self.values[place]\n'
        'def nothing(path):\n'
        '    return None\n'
    )
    info = here / 'lines-1.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: lines\nVersion: 1\n')
    (info / 'entry_points.txt').write_text(
        '[mdnc.readers]\nlines = lines:Lines\n.none = lines:nothing\nlost = no_such_package:read\n'
    )
    monkeypatch.syspath_prepend(here)
    own_formats.cache_clear()
    yield
    own_formats.cache_clear()


@pytest.mark.usefixtures('package')
def test_formats_of_other_packages_are_read_as_all_others(here):
    for kind in ('lines', 'none', 'lost'):
        (here / kind).mkdir()
        for number in range(3):
            text(f'{kind}/r{number}.{kind}', *map(str, range(4 + number)))
    text('y.csv', 'file,y', 'r2,2', 'r0,0', 'r1,1')
    for where in ('lines', 'lines/*.lines', ['lines/r0.lines', 'lines/r1.lines', 'lines/r2.lines']):
        data = opened(where, 'y.csv', normalise=False)
        assert names(data.train) == ['r2.lines', 'r0.lines', 'r1.lines']
        assert data.train.item(1, None)['input'].tolist() == [[0, 1, 2, 3]]
        assert data.train.item(0, None)['target'] == 2
    with pytest.raises(DataError, match=r'lines:nothing gave NoneType for none/r0\.none; it must give one sample'):
        open_reader('none').read(0)
    with pytest.raises(DataError, match=r'mdnc\.readers: lost = no_such_package:read cannot be loaded'):
        open_reader('lost').read(0)


# ---- Data sets of torch ----


class Pairs(Dataset):
    def __init__(self, items):
        self.items, self.asked = items, 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.asked += 1
        return self.items[index]


X, Y = torch.randn(20, 1, 8), torch.arange(20) % 2


@pytest.mark.parametrize(
    'dataset',
    [
        TensorDataset(X, Y),
        Pairs([(x, int(y)) for x, y in zip(X, Y, strict=True)]),
        Pairs([[x.numpy(), y] for x, y in zip(X, Y, strict=True)]),
        Pairs([{'input': x, 'target': y} for x, y in zip(X, Y, strict=True)]),
    ],
    ids=['tensors', 'pairs', 'arrays', 'dictionaries'],
)
def test_data_sets_of_torch_are_samples(dataset):
    data = opened(dataset, split=Split(0.1, 0.2))
    assert (len(data.train), len(data.val), len(data.test)) == (14, 2, 4)
    for number in range(4):
        item, place = data.test.item(number, None), int(data.test.name(number).partition('[')[2][:-1])
        np.testing.assert_array_equal(item['input'], X[place])
        assert item['target'] == Y[place]


def test_an_item_is_made_once_for_input_and_target():
    data = opened(dataset := Pairs([(x, 1.0) for x in X]), normalise=False)
    before = dataset.asked
    for number in range(5):
        data.train.item(number, None)
    assert dataset.asked - before <= 5


def test_data_sets_of_inputs_alone_of_pictures_and_of_names():
    assert 'target' not in opened(TensorDataset(X)).train.item(0, None)
    assert 'target' not in opened(Pairs(list(X))).train.item(0, None)
    data = opened(Pairs([(Image.new('RGB', (6, 4)), word) for word in 'ab']))
    assert (
        data.train.shape is None and data.train.item(0, None)['input'].shape == (3, 4, 6) and data.classes == ['a', 'b']
    )
    new = opened(TensorDataset(X, Y), predict=TensorDataset(X[:3])).predict
    assert names(new) == [f'TensorDataset[{number}]' for number in range(3)]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


@pytest.mark.parametrize(
    ('dataset', 'error'),
    [
        (Stream(), 'a Stream has no length, .* give it to the trainer in a DataLoader'),
        (Pairs([(1, 2, 3)]), r'its item has 3 parts; it must be \(input, target\)'),
        (Pairs([{'image': X[0]}]), 'its item is a dictionary of image; it must hold input and target'),
        (Pairs([(X[0], 1), (X[0],)]), 'its item has no target, as others of the data set have'),
        (Pairs([]), 'there are no samples'),
    ],
)
def test_data_sets_that_are_none_are_named(dataset, error):
    with pytest.raises((DataError, TypeError), match=error):
        opened(dataset, nonfinite='skip').target_normalisation  # noqa: B018


# ---- Objects of pandas ----


def test_a_frame_names_the_files_of_its_rows(here):
    for number in range(3):
        array(f'x/{number}.npy', number, (1, 8))
    frame = pd.DataFrame({'file': ['2', '0', '1'], 'kind': ['c', 'a', None], 'age': [2.0, 0.0, np.nan]})
    data = opened('x', frame[['file', 'kind']], missing=True)
    assert data.classes == ['a', 'c'] and names(data.train) == ['2.npy', '0.npy']
    series = frame.set_index('file')['age'].fillna(1)
    for targets in (series, series.to_frame(), frame.fillna(1)[['file', 'age']]):
        data = opened('x', targets)
        assert [data.train.item(number, None)['target'].item() for number in range(3)] == [2, 0, 1]
        assert data.facts['columns'] == ['age'] and names(data.train) == ['2.npy', '0.npy', '1.npy']
    with pytest.raises(DataError, match=r'DataFrame, line 3: a cell of age is empty'):
        opened('x', frame[['file', 'age']])
    with pytest.raises(DataError, match=r'2 rows without a file'):
        open_pair('x', pd.Series([1, 2], index=['7', '8']))


def test_frames_are_recordings():
    frames = [
        pd.DataFrame({'time': np.arange(length), 'ax': np.arange(length) * 2.0, 'note': 'x', 'ay': 1})
        for length in (5, 7)
    ]
    data = opened(frames, np.arange(2), normalise=False, batch_size=2)
    assert data.facts['channels'] == ['ax', 'ay']
    assert data.train.item(0, None)['input'].tolist() == [[0, 2, 4, 6, 8], [1] * 5]
    assert opened(frames, columns=['ay']).train.item(1, None)['input'].tolist() == [[1] * 7]
    with pytest.raises(DataError, match=r"array\[1\]: no column \['ax', 'ay'\]; its columns are \['b'\]"):
        opened([frames[0], pd.DataFrame({'b': [1]})])


# ---- Several files a sample ----


def test_modalities_are_channels(here):
    for case in (1, 2, 10):
        for number, name in enumerate(('t1', 't2', 'seg')):
            volume(here / f'brain/case_{case}/{name}.nii.gz', np.full((4, 5, 6), 10 * case + number, np.int16))
        for number in range(2):
            volume(here / f'nn/c_{case}_000{number}.nii.gz', np.full((4, 5, 6), 10 * case + number, np.int16))
        volume(here / f'lab/c_{case}.nii.gz', np.full((4, 5, 6), 10 * case + 2, np.int16))
    for inputs, targets in (
        ('brain/*/t1.nii.gz + brain/*/t2.nii.gz', 'brain/*/seg.nii.gz'),
        ('nn/*_0000.nii.gz + nn/*_0001.nii.gz', 'lab'),
    ):
        data = opened(inputs, targets, normalise=False, spacing=[2, 1, 1], predict=inputs)
        for number, case in enumerate((1, 2, 10)):
            item = data.train.item(number, None)
            assert item['input'].shape == (2, 2, 5, 6) and item['target'].shape == (1, 2, 5, 6)
            assert [*item['input'][:, 0, 0, 0], item['target'].flat[0]] == [10 * case, 10 * case + 1, 10 * case + 2]
        assert data.train.grid(0).restore(np.zeros((2, 5, 6))).shape == (4, 5, 6)
        assert data.predict.item(0, None)['input'].shape == (2, 2, 5, 6)
        assert 'case_2' in data.train.name(1) or 'c_2_0000' in data.train.name(1)


def test_files_that_are_no_sample_together_are_named(here):
    picture('a/0.png', size=(4, 4))
    picture('b/0.png', size=(4, 5))
    picture('c/1.png')
    np.save('rows.npy', np.zeros((3, 1, 8)))
    for inputs, error in (
        ('a + b', r'its files differ in size: 0\.png \(1, 4, 4\), 0\.png \(1, 4, 5\)'),
        ('a + c', r'without target: a/0\.png'),
        ('a + rows.npy', r"inputs: ' \+ ' joins files that are one sample each"),
        (['a + b', 'c'], r"all strings of a list must join the same number of files with ' \+ '"),
        ('a + no', r"no file or folder is called 'no'"),
    ):
        with pytest.raises((DataError, FileNotFoundError), match=error):
            opened(inputs)
    assert ArrayData(['a + c']) is not None
