"""Every format gives the same samples and windows, in every order, also in another process."""

import importlib
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import h5py
import numcodecs.pickles
import numpy as np
import pytest
import tifffile
import zarr
from numpy.lib import format as npy_format
from PIL import Image

from mdnc.training import ArrayData, Split
from mdnc.training.data.memory import memory_rows
from mdnc.training.data.reader import DataError
from mdnc.training.data.sources import open_pair, open_reader
from mdnc.training.sample import Checked, Key

SHAPES = [(5, 2, 11), (5, 2, 6, 7), (5, 1, 4, 5, 6)]
WINDOWS = {3: (slice(2, 9),), 4: (slice(1, 4), slice(0, 6)), 5: (slice(1, 3), slice(2, 5), slice(0, 4))}


def values(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def write_npy(path, array):
    np.save(path / 'x.npy', array)
    return path / 'x.npy'


def write_npz(path, array):
    np.savez(path / 'x.npz', x=array, y=array[:, 0])
    return f'{path}/x.npz::x'


def write_compressed(path, array):
    np.savez_compressed(path / 'x.npz', x=array)
    return path / 'x.npz'


def write_hdf5(path, array):
    for number, part in enumerate(np.array_split(array, 2)):
        with h5py.File(path / f'run_{number}.h5', 'w') as file:
            file.create_dataset('group/x', data=part, chunks=(1, *part.shape[1:]))
            file['y'] = part[:, 0]
    return f'{path}/run_*.h5::group/x'


def write_zarr(path, array):
    group = zarr.open_group(path / 'x.zarr', mode='w')
    group.create_array('x', data=array)
    return f'{path}/x.zarr'


def write_folder(path, array):
    for number, sample in enumerate(array):
        np.save(path / f'sample_{number}.npy', sample)
    return path


def write_memory(path, array):
    return array


@pytest.mark.parametrize('shape', SHAPES, ids=['1d', '2d', '3d'])
@pytest.mark.parametrize(
    'write', [write_npy, write_npz, write_compressed, write_hdf5, write_zarr, write_folder, write_memory]
)
def test_formats_agree(write, shape, tmp_path):
    array = values(shape)
    location = write(tmp_path, array)
    reader = open_reader(location)
    reader.read(0)
    for copy in (reader, pickle.loads(pickle.dumps(reader))):
        assert len(copy) == 5
        assert copy.shape(3) == shape[1:]
        for index in (4, 0, 2):
            np.testing.assert_array_equal(copy.read(index), array[index])
            window = WINDOWS[len(shape)]
            np.testing.assert_array_equal(copy.read(index, window), array[(index, ..., *window)])
    assert len({reader.name(index) for index in range(5)}) == 5


def test_files_travel_as_paths_not_as_values(tmp_path):
    # A spawned worker gets the reader by pickle: a memory map would arrive as a copy of the whole file.
    reader = open_reader(write_npy(tmp_path, values((100, 1, 1000))))
    assert len(pickle.dumps(reader)) < 1000
    assert isinstance(reader._array, np.memmap)
    assert isinstance(open_reader(write_npz(tmp_path, values((100, 1, 1000))))._array, np.memmap)


def test_fortran_order_and_old_header_are_mapped_right(tmp_path):
    array = np.asfortranarray(values((4, 2, 9)))
    np.savez(tmp_path / 'x.npz', array)
    np.testing.assert_array_equal(open_reader(tmp_path / 'x.npz').read(2), array[2])


def test_names_and_files_of_several_files(tmp_path):
    reader = open_reader(write_hdf5(tmp_path, values((5, 1, 8))))
    assert [reader.name(index) for index in (0, 3)] == ['run_0.h5::group/x[0]', 'run_1.h5::group/x[0]']
    assert [reader.file(index) for index in (0, 3)] == ['run_0.h5', 'run_1.h5']


@pytest.mark.parametrize(
    ('mode', 'shape', 'stored'),
    [('L', (6, 7), (1, 6, 7)), ('RGB', (6, 7, 3), (3, 6, 7)), ('I;16', (6, 7), (1, 6, 7))],
)
def test_png(mode, shape, stored, tmp_path):
    pixels = np.arange(np.prod(shape)).reshape(shape).astype(np.uint16 if '16' in mode else np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    reader = open_reader(tmp_path)
    assert reader.shape(0) == stored
    expected = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    np.testing.assert_array_equal(reader.read(0), expected)
    np.testing.assert_array_equal(reader.read(0, (slice(1, 3), slice(2, 6))), expected[:, 1:3, 2:6])


def test_palette_png_shows_its_colours(tmp_path):
    Image.new('P', (4, 3), 1).save(tmp_path / 'a.png')
    assert open_reader(tmp_path).shape(0) == (3, 3, 4)


def test_tiff_stack_and_colours(tmp_path):
    stack = values((5, 6, 7))
    tifffile.imwrite(tmp_path / 'stack.tif', stack)
    np.testing.assert_array_equal(open_reader(f'{tmp_path}/stack.tif').read(0), stack)
    colours = np.arange(6 * 7 * 3, dtype=np.uint8).reshape(6, 7, 3)
    tifffile.imwrite(tmp_path / 'colours.tif', colours, photometric='rgb')
    np.testing.assert_array_equal(open_reader(f'{tmp_path}/colours.tif').read(0), np.moveaxis(colours, -1, 0))


def test_csv_orders_and_names_the_files(tmp_path):
    for name in 'abc':
        np.save(tmp_path / f'{name}.npy', np.full((1, 4), ord(name)))
    (tmp_path / 'labels.csv').write_text('file,kind,size\nc.npy,cat,3\na,dog,1\nb.npy,cat,2\n')
    pair = open_pair(tmp_path, f'{tmp_path}/labels.csv::kind')
    assert [pair.inputs.name(index) for index in range(3)] == ['c.npy', 'a.npy', 'b.npy']
    assert [str(pair.targets.read(index)) for index in range(3)] == ['cat', 'dog', 'cat']
    sizes = open_reader(f'{tmp_path}/labels.csv::size')
    assert sizes.read(0).dtype.kind == 'i'
    assert open_reader(f'{tmp_path}/labels.csv::size,size').shape(0) == (2,)


def test_csv_of_quantities(tmp_path):
    (tmp_path / 'y.csv').write_text('x,y\n1,2.5\n3,4\n')
    np.testing.assert_array_equal(open_reader(tmp_path / 'y.csv').read(1), [3.0, 4.0])


@pytest.mark.parametrize(
    ('location', 'error', 'text'),
    [
        ('absent.npy', FileNotFoundError, r"no file or folder is called '.*absent\.npy'"),
        ('two.npz', DataError, r'two\.npz holds several arrays; choose one as PATH::NAME. It has: x, y'),
        ('two.npz::z', DataError, r"two\.npz holds no array 'z'; .* It has: x, y"),
        ('two.h5::z', DataError, r"two\.h5 holds no array 'z'; .* It has: x, y"),
        ('cut.npy', DataError, r'cut\.npy cannot be read: '),
        ('cut.npz', DataError, r'cut\.npz cannot be read: '),
        ('cut.h5', DataError, r'cut\.h5 cannot be read: '),
        ('notes.txt', DataError, r'notes\.txt: unknown kind of file; known are \.npy, '),
        ('empty', DataError, r'empty holds no file of the kinds \.npy, '),
        ('number.npy', DataError, r'number\.npy holds a single number'),
        ('objects.npy', DataError, r'objects\.npy cannot be read: '),
        ('objects.npz', DataError, r'objects\.npz cannot be read: it holds Python objects'),
        ('number.npy::x', DataError, 'files of this kind hold one array; ::x has no meaning'),
        ('labels.csv::size', DataError, r"labels\.csv: no column \['size'\]"),
    ],
)
def test_what_cannot_be_read_is_named(location, error, text, tmp_path):
    x = np.zeros((3, 1, 4))
    np.savez(tmp_path / 'two.npz', x=x, y=x)
    with h5py.File(tmp_path / 'two.h5', 'w') as file:
        file['x'], file['y'] = x, x
    np.save(tmp_path / 'number.npy', 3)
    for name in ('objects.npy', 'objects.npz'):
        (np.save if name.endswith('y') else np.savez)(tmp_path / name, np.array([None, 1], object), allow_pickle=True)
    for name in ('cut.npy', 'cut.npz', 'cut.h5', 'notes.txt'):
        (tmp_path / name).write_bytes(b'\x93NUMPY\x01\x00')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'labels.csv').write_text('file,kind\na,b\n')
    with pytest.raises(error, match=text):
        open_reader(f'{tmp_path}/{location}')


@pytest.mark.parametrize(
    ('rows', 'text'),
    [
        ('file,y\na.npy,1\n', '1 files without a row: b.npy'),
        ('file,y\na,1\nb,2\nz,3\n', r'1 rows without a file: labels\.csv, line 4 \(z\)'),
    ],
)
def test_csv_that_does_not_fit_the_folder(rows, text, tmp_path):
    for name in 'ab':
        np.save(tmp_path / f'{name}.npy', np.zeros((1, 4)))
    (tmp_path / 'labels.csv').write_text(rows)
    with pytest.raises(DataError, match=text):
        open_pair(tmp_path, tmp_path / 'labels.csv')


def test_pairs_must_fit(tmp_path):
    with pytest.raises(DataError, match=r'4 inputs \(the first is array\[0\]\) but 3 targets'):
        open_pair(np.zeros((4, 1, 5)), np.zeros(3))
    for folder, name in (('x', 'a'), ('y', 'b')):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / f'{name}.npy', np.zeros((1, 4)))
    with pytest.raises(
        DataError, match=r'paired by the names of their files; without target: .*x/a\.npy; without input: .*y/b\.npy'
    ):
        open_pair(tmp_path / 'x', tmp_path / 'y')


def test_rows_of_an_array_in_memory_have_names():
    assert memory_rows(np.zeros((2, 1, 3)), 'digits').name(1) == 'digits[1]'


def test_paths_may_be_path_objects(tmp_path):
    assert isinstance(write_npy(tmp_path, values((2, 1, 3))), Path)
    assert len(open_reader([tmp_path / 'x.npy', tmp_path / 'x.npy'])) == 4


def test_lists_of_numbers_are_arrays_and_readers_are_themselves():
    reader = open_reader([3, 1, 2])
    assert int(reader.read(1)) == 1
    assert open_reader(reader) is reader
    with pytest.raises(DataError, match='the list of data files is empty'):
        open_reader([])


def test_a_table_that_names_files_wants_files(tmp_path):
    (tmp_path / 'labels.csv').write_text('file,y\na,1\n')
    with pytest.raises(DataError, match=r'labels\.csv names files, so the inputs must be a folder'):
        open_pair(np.zeros((1, 1, 4)), f'{tmp_path}/labels.csv')


# Files that are wrong, and files that only look so.


def damaged(path):
    """Empty, cut in half, cut after a few bytes, and other bytes altogether."""
    raw = path.read_bytes()
    return [b'', raw[: len(raw) // 2], raw[:5], np.random.default_rng(1).integers(0, 256, 300, np.uint8).tobytes()]


@pytest.mark.parametrize('name', ['x.npy', 'x.npz', 'z.npz', 'x.h5'])
def test_damaged_files_of_many_samples(name, tmp_path):
    x = np.zeros((3, 1, 40), np.float32)
    np.save(tmp_path / 'x.npy', x)
    np.savez(tmp_path / 'x.npz', x=x)
    np.savez_compressed(tmp_path / 'z.npz', x=x)
    with h5py.File(tmp_path / 'x.h5', 'w') as file:
        file['x'] = x
    for number, raw in enumerate(damaged(tmp_path / name)):
        path = tmp_path / f'{number}_{name}'
        path.write_bytes(raw)
        with pytest.raises(DataError, match=f'{number}_{name} cannot be read: .*'):
            open_reader(path)


@pytest.mark.parametrize('suffix', ['npy', 'png', 'jpg', 'tif'])
def test_damaged_samples_are_named(suffix, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    for name in 'abcde':
        path = tmp_path / f'{name}.{suffix}'
        np.save(path, np.moveaxis(pixels, -1, 0)) if suffix == 'npy' else Image.fromarray(pixels).save(path)
    for name, raw in zip('bcde', damaged(tmp_path / f'a.{suffix}'), strict=True):
        (tmp_path / f'{name}.{suffix}').write_bytes(raw)
    data = ArrayData(tmp_path, batch_size=1, split=Split(0, 0))
    data.setup()
    checked = Checked(data.train, 'stop')
    for number, name in enumerate('bcde', 1):
        error = checked[Key(number, None, 1.0)]['error']
        assert error.startswith(f'sample {number} ({name}.{suffix}): ')
        assert '\n' not in error


def test_a_member_that_ends_before_its_array(tmp_path):
    # The next member must not be taken for the rest.
    header = io.BytesIO()
    npy_format.write_array_header_1_0(header, {'descr': '<f4', 'fortran_order': False, 'shape': (4, 1, 8)})
    with zipfile.ZipFile(tmp_path / 'x.npz', 'w') as archive:
        archive.writestr('x.npy', header.getvalue() + bytes(16))
        archive.writestr('y.npy', bytes(1000))
    with pytest.raises(DataError, match=r'x\.npz cannot be read: its array x\.npy is cut short'):
        open_reader(f'{tmp_path}/x.npz::x')


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_members_in_folders_and_other_files_of_an_archive(save, tmp_path):
    save(tmp_path / 'x.npz', **{'a/x': np.ones((2, 1, 3)), 'b/x': np.zeros((2, 1, 3))})
    with zipfile.ZipFile(tmp_path / 'x.npz', 'a') as archive:
        archive.writestr('readme.txt', 'x')
    assert open_reader(f'{tmp_path}/x.npz::a/x').read(1).tolist() == [[1, 1, 1]]
    with pytest.raises(DataError, match='It has: a/x, b/x'):
        open_reader(f'{tmp_path}/x.npz')


def test_links_and_what_is_no_array_of_an_hdf5_file(tmp_path):
    with h5py.File(tmp_path / 'x.h5', 'w') as file:
        file['x'], file['number'], file['nothing'] = np.ones((2, 1, 3)), 3, h5py.Empty('f4')
        file['link'] = h5py.SoftLink('/x')
    assert open_reader(f'{tmp_path}/x.h5::link').read(1).tolist() == [[1, 1, 1]]
    for member in ('number', 'nothing'):
        with pytest.raises(DataError, match=f'x.h5::{member} holds a single number or nothing'):
            open_reader(f'{tmp_path}/x.h5::{member}')


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('empty.zarr', r'empty\.zarr holds no Zarr array or group'),
        ('json.zarr', r'json\.zarr cannot be read: '),
        ('file.zarr', r'file\.zarr holds no Zarr array or group'),
        ('one.zarr::x', r'one\.zarr is one array; ::x has no meaning'),
        ('several.zarr', r'several\.zarr holds several arrays; .* It has: x, y'),
    ],
)
def test_stores_that_cannot_be_read(name, text, tmp_path):
    for folder in ('empty.zarr', 'json.zarr'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'json.zarr/zarr.json').write_text('{"shape":')
    (tmp_path / 'file.zarr').write_text('x')
    zarr.save(tmp_path / 'one.zarr', np.zeros((2, 1, 3)))
    zarr.save(tmp_path / 'several.zarr', x=np.zeros((2, 1, 3)), y=np.zeros(2))
    with pytest.raises(DataError, match=text):
        open_reader(f'{tmp_path}/{name}')


class Code:
    def __reduce__(self):
        return os.mkdir, ('code_was_run',)


def pickled_npy(path):
    np.save(path / 'x.npy', np.array([Code()], object), allow_pickle=True)
    return path / 'x.npy'


def pickled_npz(path):
    np.savez(path / 'x.npz', x=np.array([Code()], object), allow_pickle=True)
    return f'{path}/x.npz::x'


def pickled_compressed(path):
    np.savez_compressed(path / 'x.npz', x=np.array([Code()], object), allow_pickle=True)
    return f'{path}/x.npz::x'


def pickled_file(path):
    (path / 'x.npz').write_bytes(pickle.dumps(Code()))
    return path / 'x.npz'


def pickled_chunk(path):
    store = path / 'x.zarr'
    store.mkdir()
    meta = {'zarr_format': 2, 'shape': [4], 'chunks': [4], 'fill_value': '', 'order': 'C', 'dtype': '|O'}
    codecs = {'filters': [{'id': 'vlen-utf8'}], 'compressor': {'id': 'pickle'}}
    (store / '.zarray').write_text(json.dumps({**meta, **codecs}))
    (store / '0').write_bytes(pickle.dumps(Code()))
    return store


def pickled_sample(path):
    pickled_npy(path)
    return path


@pytest.mark.parametrize(
    'write', [pickled_npy, pickled_npz, pickled_compressed, pickled_file, pickled_chunk, pickled_sample]
)
def test_no_file_of_data_runs_code(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Newer releases of numcodecs ask for leave; older ones do not.
    monkeypatch.setattr(numcodecs.pickles, 'ALLOW_UNSAFE_PICKLE_DECODE', True, raising=False)
    with pytest.raises((DataError, ValueError), match=r'pickle|[Oo]bject|zip'):
        open_reader(write(tmp_path)).read(0)
    assert not (tmp_path / 'code_was_run').exists()


def test_attributes_of_a_store_are_only_words(tmp_path):
    store = zarr.create_array(tmp_path / 'x.zarr', data=np.ones((2, 1, 3)), attributes={'made from': 'x.pickle'})
    assert open_reader(tmp_path / 'x.zarr').read(0).shape == store.shape[1:]


def test_an_image_is_no_program(tmp_path):
    # Pillow hands a file of this content to Ghostscript, whatever it is called.
    (tmp_path / 'a.png').write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n')
    with pytest.raises(DataError, match='cannot identify image file'):
        open_reader(tmp_path).read(0)
    Image.new('L', (4, 3), 7).save(tmp_path / 'a.jpg')
    os.replace(tmp_path / 'a.jpg', tmp_path / 'a.png')
    assert open_reader(tmp_path).read(0).tolist() == [[[7] * 4] * 3]


def test_masks_of_a_palette_are_class_numbers(tmp_path):
    mask = np.random.default_rng(0).integers(0, 3, (6, 5), np.uint8)
    for folder in ('i', 'm'):
        (tmp_path / folder).mkdir()
    Image.new('RGB', (5, 6)).save(tmp_path / 'i/0.png')
    picture = Image.fromarray(mask)
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.save(tmp_path / 'm/0.png')
    for targets in (tmp_path / 'm', f'{tmp_path}/m/0.png', [f'{tmp_path}/m/0.png']):
        pair = open_pair(tmp_path / 'i', targets)
        np.testing.assert_array_equal(pair.targets.read(0), mask[None])


@pytest.fixture
def no_codecs(monkeypatch):
    """As where the package imagecodecs is not installed."""
    monkeypatch.setattr(tifffile.tifffile, 'imagecodecs', importlib.import_module('tifffile._imagecodecs'))
    monkeypatch.setattr(tifffile.tifffile.TIFF, 'DECOMPRESSORS', tifffile.tifffile.CompressionCodec(encode=False))


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('codecs', [True, False])
def test_tiff_that_is_packed_by_lzw(dtype, codecs, tmp_path, request):
    if not codecs:
        request.getfixturevalue('no_codecs')
    stack = np.random.default_rng(0).integers(0, 200, (3, 20, 30)).astype(dtype)
    pages = [Image.fromarray(page) for page in stack]
    pages[0].save(tmp_path / 'stack.tif', save_all=True, append_images=pages[1:], compression='tiff_lzw')
    np.testing.assert_array_equal(open_reader(f'{tmp_path}/stack.tif').read(0), stack)
    colours = np.random.default_rng(0).integers(0, 200, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / 'colours.tif', compression='tiff_lzw')
    np.testing.assert_array_equal(open_reader(f'{tmp_path}/colours.tif').read(0), np.moveaxis(colours, -1, 0))


@pytest.mark.usefixtures('no_codecs')
def test_a_compression_that_needs_a_package_names_it(tmp_path, monkeypatch):
    Image.new('L', (30, 20)).save(tmp_path / 'a.tif', compression='tiff_lzw')
    monkeypatch.setattr('mdnc.training.data.images._decode_pages', lambda *_: None)
    with pytest.raises(DataError, match=r'its compression LZW needs imagecodecs; run: pip install .mdnc.data..'):
        open_reader(f'{tmp_path}/a.tif').shape(0)
