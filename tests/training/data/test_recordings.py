"""Recordings as people have them: one file each, of any length, in CSV, Parquet, MAT, WAV or an archive's .ts."""

import sys

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from scipy.io import wavfile
from tests.training.data.folders import names, opened, picture, text

from mdnc.training.data import DataError
from mdnc.training.data.recordings import open_recording
from mdnc.training.data.sources import open_pair, open_reader

LENGTHS = (5, 9, 7)
RNG = np.random.default_rng(0)
SIGNALS = [RNG.normal(size=(2, length)).astype(np.float32) for length in LENGTHS]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_csv(path, signal, head='time,ax,ay', mark=',', comma=False, encoding='utf-8'):
    rows = [[0.02 * row, *values] for row, values in enumerate(signal.T)]
    cells = [[f'{value:.9g}'.replace('.', ',' if comma else '.') for value in row] for row in rows]
    path.parent.mkdir(exist_ok=True)
    lines = [head.replace(',', mark)] if head else []
    text(path, *lines, *[mark.join(row) for row in cells], encoding=encoding)


def write(kind, folder):
    folder.mkdir(exist_ok=True)
    for number, signal in enumerate(SIGNALS):
        path = folder / f'r{number}.{kind}'
        if kind in ('csv', 'tsv'):
            write_csv(path, signal, mark=',' if kind == 'csv' else '\t')
        elif kind == 'parquet':
            times = 0.02 * np.arange(signal.shape[1])
            table = pa.table({'time': times, 'ax': signal[0], 'ay': signal[1], 'note': ['x'] * len(times)})
            pq.write_table(table, path, row_group_size=4)
        elif kind == 'wav':
            wavfile.write(path, 50, signal.T)
        elif kind == 'mat':
            scipy.io.savemat(path, {'x': signal})
        elif kind == 'h5':
            with h5py.File(path, 'w') as file:
                file['x'] = signal
        elif kind == 'npz':
            np.savez(path, x=signal)


@pytest.mark.parametrize('kind', ['csv', 'tsv', 'parquet', 'wav', 'mat', 'h5', 'npz'])
def test_a_file_a_recording(kind, here):
    write(kind, here / 'runs')
    text('y.csv', 'file,kind', 'r1,b', 'r0,a', 'r2,a')
    reader = open_reader('runs')
    for number, signal in enumerate(SIGNALS):
        assert reader.shape(number) == signal.shape
        np.testing.assert_allclose(reader.read(number), signal, rtol=1e-6)
        for window in (slice(1, 4), slice(3, 5), slice(4, None)):
            np.testing.assert_allclose(reader.read(number, (window,)), signal[:, window], rtol=1e-6)
    data = opened('runs', 'y.csv', batch_size=3)
    assert sorted(names(data.train)) == [f'r{number}.{kind}' for number in range(3)]
    (batch,) = data.train_dataloader()
    assert {tuple(row) for row in batch['lengths'].tolist()} == {(length,) for length in LENGTHS}
    if kind in ('csv', 'tsv', 'parquet'):
        assert data.facts['channels'] == data.facts['reading']['columns'] == ['ax', 'ay']
    if kind in ('csv', 'tsv', 'parquet', 'wav'):
        assert data.facts['spacing'] == pytest.approx([0.02])


@pytest.mark.parametrize(
    ('where', 'options'),
    [
        ('runs', {}),
        ('runs::ay,ax', {}),
        ('runs', {'columns': ['ay', 'ax']}),
        ('runs/*.csv', {'recordings': True}),
        ('runs/*.csv::ay,ax', {'recordings': True}),
        (['runs/r0.csv', 'runs/r1.csv', 'runs/r2.csv'], {'recordings': True}),
    ],
)
def test_columns_of_recordings_are_chosen_as_those_of_tables(where, options, here):
    write('csv', here / 'runs')
    data = opened(where, **options, predict='runs/r1.csv' if options.get('recordings') else 'runs')
    turned = 'ay' in str(where) + str(options)
    expected = SIGNALS[0][::-1] if turned else SIGNALS[0]
    np.testing.assert_allclose(data.train.item(0, None)['input'], expected, rtol=1e-6)
    assert data.facts['channels'] == (['ay', 'ax'] if turned else ['ax', 'ay'])
    new = data.predict.item(0, None)['input']
    known = SIGNALS[1 if options.get('recordings') else 0]
    np.testing.assert_allclose(new, known[::-1] if turned else known, rtol=1e-6)


@pytest.mark.parametrize('new', ['runs/r[12].csv', ['runs/r1.csv', 'runs/r2.csv'], 'runs/r1.csv'])
def test_new_tables_are_recordings_where_those_of_the_training_are(new, here):
    write('csv', here / 'runs')
    data = opened('runs', predict=new)
    assert data.facts['reading']['recordings'] is True
    np.testing.assert_allclose(data.predict.item(0, None)['input'], SIGNALS[1], rtol=1e-6)


@pytest.mark.parametrize(
    'style',
    [
        {'head': ''},
        {'mark': ';', 'comma': True},
        {'mark': ';'},
        {'mark': '\t'},
        {'encoding': 'utf-16'},
        {'encoding': 'utf-8-sig'},
        {'head': '"time","ax, g","ay"'},
        {'head': 'Zeit (s), ax ,ay'},
    ],
    ids=str,
)
def test_recordings_as_instruments_write_them(style, here):
    write_csv(here / 'runs/a.csv', SIGNALS[0], **style)
    reader = open_reader('runs')
    expected = SIGNALS[0]
    if style.get('head') == '':
        expected = np.stack([0.02 * np.arange(5), *expected])
    np.testing.assert_allclose(reader.read(0), expected, rtol=1e-6, atol=1e-7)


def test_gaps_dates_and_whole_numbers_in_recordings(here):
    text('a.csv', 'date,x,y', '2020-01-01 00:00:00,1,0.5', '2020-01-01 00:00:10,,1', '2020-01-01 00:00:20,3,?')
    recording = open_recording('a.csv', [])
    np.testing.assert_array_equal(recording[...], [[1, np.nan, 3], [0.5, 1, np.nan]])
    text('b.csv', 't,x,y', '0,1,4', '1,2,5')
    recording = open_recording('b.csv', [])
    assert recording[...].dtype == np.int64 and recording.grid.spacing == (1,)
    text('c.csv', 't,x,y', '0,1,4', '1,2,5', '1,2,5')
    assert open_recording('c.csv', ['t', 'y'])[...].tolist() == [[0, 1, 1], [4, 5, 5]]
    assert open_recording('c.csv', []).grid is None


def test_a_target_at_each_moment(here):
    for number, length in enumerate(LENGTHS):
        rows = [f'{row},{row * 0.5},{row % 3}' for row in range(length)]
        (here / 'runs').mkdir(exist_ok=True)
        text(f'runs/r{number}.csv', 'time,x,stage', *rows)
    for inputs in ('runs::x', 'runs'):  # what is a target is no input
        data = opened(inputs, 'runs::stage', batch_size=3)
        assert data.facts['channels'] == ['x'] and data.facts['columns'] == ['stage']
    (batch,) = data.train_dataloader()
    assert batch['target'].shape == (3, 1, 9) and batch['target'].dtype.is_floating_point is False
    assert batch['lengths'].shape == (3, 1)


def test_the_table_of_targets_may_lie_beside_the_recordings(here):
    write('csv', here / 'runs')
    text('runs/labels.csv', 'file,kind', 'r0.csv,a', 'r1.csv,b', 'r2.csv,a')
    data = opened('runs', 'runs/labels.csv')
    assert names(data.train) == ['r0.csv', 'r1.csv', 'r2.csv'] and data.classes == ['a', 'b']
    data = opened('runs/*.csv', 'runs/labels.csv', recordings=True)
    assert names(data.train) == ['r0.csv', 'r1.csv', 'r2.csv']


def test_a_picture_beside_recordings_is_none(here):
    write('csv', here / 'runs')
    picture('runs/plot.png')
    assert len(opened('runs').train) == 1
    assert names(opened('runs', recordings=True).train) == ['r0.csv', 'r1.csv', 'r2.csv']


@pytest.mark.parametrize(
    ('kind', 'package'),
    [
        ('csv', 'pyarrow'),
        ('parquet', 'pyarrow'),
        ('wav', 'scipy'),
        ('mat', 'scipy'),
        ('h5', 'h5py'),
        ('nii', 'nibabel'),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(kind, package, here, monkeypatch):
    write(kind, here / 'runs')
    (here / f'runs/r0.{kind}').touch()
    for name in [name for name in sys.modules if name.partition('.')[0] == package]:
        monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name, *rest):
            if name == package:
                raise ModuleNotFoundError(f'No module named {name!r}', name=name)

    monkeypatch.setattr(sys, 'meta_path', [Absent(), *sys.meta_path])
    with pytest.raises((DataError, ImportError), match=rf"{package} is not installed.*pip install 'mdnc\[data\]'"):
        opened('runs')


@pytest.mark.parametrize(
    ('held', 'error'),
    [
        ('', r'a\.csv is empty'),
        ('\n\n', r'a\.csv is empty'),
        ('x,y\n1,2\n3\n', r'a\.csv, line 3: it has 1 cells, the header has 2'),
        ('x,y\n1,a\n2,b\n', r"no column \['y'\]|column 'y' holds words|holds words"),
        ('x,y\n1,2\n3,four\n', r"column 'y'.*(words|four)"),
        ('x,z\n1,2\n', r"no column \['y'\]; its columns are \['x', 'z'\]"),
        ('x,y\n', r'its shape is \(2, 0\), which is empty|has no rows'),
        ('\0\1\2', 'it holds zero bytes'),
        ('word\nword\n', 'no column'),
    ],
)
def test_what_is_no_recording_is_named(held, error, here):
    (here / 'runs').mkdir()
    (here / 'runs/a.csv').write_text(held)
    with pytest.raises(DataError, match=error):
        opened('runs::x,y')


@pytest.mark.parametrize('kind', ['parquet', 'wav', 'mat', 'h5', 'npz'])
def test_damaged_recordings_are_named(kind, here):
    write(kind, here / 'runs')
    whole = (here / f'runs/r0.{kind}').read_bytes()
    for held in (b'', b'no recording', whole[:30], whole[: len(whole) // 2]):
        (here / f'runs/r0.{kind}').write_bytes(held)
        with pytest.raises(DataError, match=rf'r0\.{kind}'):
            opened('runs').train.item(0, None)


# ---- WAV ----


@pytest.mark.parametrize(
    ('dtype', 'most'), [(np.uint8, 255), (np.int16, 2**15 - 1), (np.int32, 2**31 - 1), (np.float32, 1), (np.float64, 1)]
)
@pytest.mark.parametrize('channels', [1, 2])
def test_sound_lies_between_minus_one_and_one(dtype, most, channels, here):
    values = np.full((6, channels), most, dtype)
    values[0] = 128 if dtype is np.uint8 else 0
    (here / 'runs').mkdir()
    wavfile.write('runs/a.wav', 100, values[:, 0] if channels == 1 else values)
    data = opened('runs')
    found = data.train.item(0, None)['input']
    assert found.shape == (channels, 6) and data.facts['spacing'] == [0.01]
    np.testing.assert_allclose(found[:, 0], 0)
    np.testing.assert_allclose(found[:, 1:], 1, atol=0.01)


def test_recordings_of_several_rates_are_brought_to_one(here):
    (here / 'runs').mkdir()
    for number, rate in enumerate((100, 200)):
        wavfile.write(f'runs/{number}.wav', rate, np.sin(2 * np.pi * np.arange(rate) / rate).astype(np.float32))
    data = opened('runs', spacing=[0.01])
    first, second = (data.train.item(number, None)['input'] for number in range(2))
    assert first.shape == second.shape == (1, 100)
    np.testing.assert_allclose(first, second, atol=0.05)
    assert data.train.grid(1).restore(second).shape == (1, 200)


# ---- MAT ----


def write_new(path, **variables):
    """As MATLAB writes version 7.3: axes the other way round, cells by reference."""
    with h5py.File(path, 'w') as file:
        for name, value in variables.items():
            if isinstance(value, list):
                links = []
                for number, cell in enumerate(value):
                    is_text = isinstance(cell, str)
                    array = np.array([[ord(letter) for letter in cell]], np.uint16) if is_text else np.asarray(cell)
                    item = file.create_dataset(f'#refs#/{name}{number}', data=array.T)
                    item.attrs['MATLAB_class'] = np.bytes_('char' if is_text else 'double')
                    links.append(item.ref)
                stored = file.create_dataset(name, (len(links), 1), h5py.ref_dtype)
                stored[:, 0] = links
                stored.attrs['MATLAB_class'] = np.bytes_('cell')
            else:
                file[name] = np.asarray(value).T
                file[name].attrs['MATLAB_class'] = np.bytes_('double')


def write_old(path, **variables):
    def cell(value):
        cells = np.empty((1, len(value)), object)
        cells[0, :] = value
        return cells

    scipy.io.savemat(
        path, {name: cell(value) if isinstance(value, list) else value for name, value in variables.items()}
    )


@pytest.mark.parametrize('write', [write_old, write_new])
def test_variables_of_matlab(write, here):
    x = RNG.normal(size=(4, 2, 7))
    write('a.mat', x=x, y=np.array([[1.0], [2], [3], [4]]), row=np.arange(4.0)[None])
    reader = open_reader('a.mat::x')
    assert len(reader) == 4 and reader.shape(0) == (2, 7)
    np.testing.assert_allclose(reader.read(2), x[2])
    np.testing.assert_allclose(reader.read(2, (slice(1, 4),)), x[2][:, 1:4])
    assert [open_reader('a.mat::y').read(number).tolist() for number in range(4)] == [1, 2, 3, 4]
    assert [open_reader('a.mat::row').read(number).tolist() for number in range(4)] == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r'a\.mat holds several arrays; choose one as PATH::NAME. It has: row, x, y'):
        open_reader('a.mat')
    write('cells.mat', s=[np.arange(5.0)[None], np.arange(3.0)[:, None]], kind=['cat', 'dog'])
    data = opened('cells.mat::s', 'cells.mat::kind')
    assert [data.train.item(number, None)['input'].shape for number in range(2)] == [(1, 5), (1, 3)]
    assert data.classes == ['cat', 'dog'] and data.train.file(1) == 'cells.mat'
    (here / 'runs').mkdir()
    write('runs/a.mat', x=np.arange(6.0)[:, None])
    assert open_reader('runs').shape(0) == (1, 6)


# ---- Archives ----


def test_series_of_archives(here):
    head = ['# a comment', '@problemName x', '@timeStamps false', '@univariate false', '@classLabel true a b', '@data']
    text('x_TRAIN.ts', *head, '1,2,3:4,5,6:a', '', '7,?:9,10:b')
    data = opened('x_TRAIN.ts', 'x_TRAIN.ts', nonfinite='skip')
    assert data.classes == ['a', 'b'] and names(data.train) == ['x_TRAIN.ts[0]', 'x_TRAIN.ts[1]']
    np.testing.assert_array_equal(data.train.item(0, None)['input'], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(data.train.item(1, None)['input'], [[7, np.nan], [9, 10]])
    assert data.train.file(1) == 'x_TRAIN.ts'
    text('q.ts', '@targetLabel true', '@data', '1,2:0.5', '3,4:1.5')
    assert [open_pair('q.ts', 'q.ts').targets.read(number).item() for number in range(2)] == [0.5, 1.5]
    for lines, error in (
        (['@data'], 'holds no series after a line @data'),
        (['1,2,3'], r'line 1: a \.ts file has lines that begin with @'),
        (['@classLabel true a', '@data', '1,2:x,3:a'], r'line 3: could not convert'),
        (['@classLabel true a', '@data', '1,2:a', '1,2:3,4:a'], r'line 4: it has 2 dimensions, the first series 1'),
        (['@timeStamps true', '@data', '(1,2):a'], 'with times of their own'),
    ):
        text('bad.ts', *lines)
        with pytest.raises(DataError, match=error):
            open_reader('bad.ts')
    text('none.ts', '@data', '1,2')
    with pytest.raises(DataError, match=r'none\.ts contains x, the series$'):
        open_pair('none.ts', 'none.ts')


def test_tables_of_rows_in_parquet(here):
    pq.write_table(pa.table({'file': ['b', 'a'], 'age': [3, None], 'kind': ['x', 'y']}), 't.parquet')
    (here / 'img').mkdir()
    for name in 'ab':
        np.save(f'img/{name}.npy', np.zeros((1, 8)))
    data = opened('img', 't.parquet::kind')
    assert names(data.train) == ['b.npy', 'a.npy'] and data.classes == ['x', 'y']
    with pytest.raises(DataError, match=r't\.parquet, line 3: a cell of age is empty'):
        opened('img', 't.parquet::age')
    pq.write_table(pa.table({'a': [1.5, 2.5], 'b': [1.0, 2.0], 'y': [0, 1]}), 'r.parquet')
    data = opened('r.parquet', 'r.parquet::y', order=1)
    assert data.train.item(1, None)['input'].tolist() == [[2.5, 2.0]] and data.facts['channels'] == ['a', 'b']
