"""Images and masks as people have them: classes by folder, names that differ, numbers that stand for classes."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.training.data.folders import array, names, opened, picture, values

from mdnc.planning import read_fingerprint
from mdnc.training import ArrayData
from mdnc.training.data import DataError
from mdnc.training.data.sources import open_pair, open_reader


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def targets(data):
    return [data.train.item(number, None)['target'].tolist() for number in range(len(data.train))]


# ---- Classes from paths ----


@pytest.mark.parametrize(
    ('words', 'classes', 'numbers'),
    [
        ('folder', ['a', 'b', 'c'], [0, 1, 2]),
        ('folder::-1', ['a', 'b', 'c'], [0, 1, 2]),
        ('folder::1', ['cat', 'dog'], [0, 0, 1]),
        (r'path::(\d)\.png', ['1', '2'], [0, 1, 0]),
    ],
)
def test_a_part_of_the_path_is_the_class(words, classes, numbers, here):
    for path in ('cat/a/1', 'cat/b/2', 'dog/c/1'):
        picture(f'img/{path}.png')
    data = opened('img', words)
    assert (data.classes, targets(data)) == (classes, numbers)


def test_classes_of_folders_in_parts_that_were_given(here):
    for part, kinds in (('train', 'ab'), ('test', 'b')):
        for kind in kinds:
            picture(f'{part}/{kind}/0.png')
            picture(f'{part}/{kind}/1.png')
    data = opened({'train': 'train', 'test': 'test'}, 'folder')
    assert data.classes == ['a', 'b'] and data.test.item(0, None)['target'] == 1


@pytest.mark.parametrize(
    ('words', 'error'),
    [
        ('folder', r'folder: 0\.png lies in no folder below what was named; name a folder further up'),
        ('folder::2', 'lies in no folder'),
        (r'path::(\d', r'path::\(\\d is no regular expression'),
        (r'path::\d', r'path::\\d must have one group'),
        (r'path::(x)', r'path::\(x\) fits nothing in 0\.png'),
        ('folder::0', 'folder::0: folders are counted from 1'),
    ],
)
def test_what_paths_do_not_say_is_named(words, error, here):
    picture('img/0.png')
    with pytest.raises((DataError, FileNotFoundError), match=error):
        open_pair('img', words)


# ---- Masks beside images ----


@pytest.mark.parametrize(
    ('image', 'mask', 'where'),
    [
        ('img/{}.png', 'msk/{}_mask.png', ('img', 'msk')),
        ('img/{}.jpg', 'img/{}_mask.png', ('img', 'img/*_mask.png')),
        ('img/{}.png', 'img/{}_mask.png', ('img', 'img/*_mask.png')),
        ('img/{}.png', 'img/{}_mask.png', ('img/*.png', 'img/*_mask.png')),
        ('img/{}.png', 'msk/mask_{}.png', ('img', 'msk')),
        ('img/k/{}_leftImg8bit.png', 'msk/k/{}_gtFine_labelIds.png', ('img', 'msk')),
        ('img/{}_0000.png', 'msk/{}.png', ('img', 'msk')),
        ('img/{}-image.png', 'msk/{}-seg.png', ('img', 'msk')),
    ],
)
def test_masks_with_words_in_their_names_find_their_images(image, mask, where, here):
    for number, name in enumerate(('scan_1', 'scan_2', 'scan_11'), 1):
        picture(image.format(name), number)
        picture(mask.format(name), 10 * number)
    assert values(opened(*where).train) == [(1, 10), (2, 20), (3, 30)]


@pytest.mark.parametrize(('images', 'masks'), [('12', ('11', '12')), (('a1', 'a2'), ('a3', 'a4')), ('ab', 'ac')])
def test_names_are_not_guessed(images, masks, here):
    for image, mask in zip(images, masks, strict=True):
        picture(f'img/{image}.png')
        picture(f'msk/{mask}.png')
    with pytest.raises(DataError, match='are paired by the names of their files'):
        open_pair('img', 'msk')


# ---- Numbers that stand for classes ----


def test_stored_numbers_become_class_numbers(here):
    for number in range(2):
        array(f'x/{number}.npy', 0, (1, 2, 2))
    for kind, dtype in (('whole', np.uint8), ('floats', np.float64)):
        (here / kind).mkdir()
        for number in range(2):
            np.save(f'{kind}/{number}.npy', np.array([[0, 1], [4, 2]], dtype))
        data = opened('x', kind, values=[0, 1, 2, 4])
        assert targets(data) == [[[0, 1], [3, 2]]] * 2
        assert data.facts['values'] == data.facts['reading']['values'] == [0, 1, 2, 4]
        with pytest.raises(DataError, match=r'holds 4, which is none of values=\[0, 1, 2\]; missing: true leaves'):
            targets(opened('x', kind, values=[0, 1, 2]))
        assert targets(opened('x', kind, values=[2, 1, 0], missing=True)) == [[[2, 1], [-100, 0]]] * 2
        assert set(np.unique(targets(opened('x', kind, values=[0, 1, 2, 4], resize=[5, 5])))) <= {0, 1, 2, 3}
    assert targets(opened('x', 'floats', classes=list('abcde')))[0] == [[0, 1], [4, 2]]
    assert targets(opened(np.ones((2, 1, 8)), np.array([-1, 1]), values=[-1, 1])) == [0, 1]


def test_values_that_make_no_sense_are_refused(here):
    for value, error in (
        ([0], 'at least two numbers'),
        ([1, 1], 'all different'),
        ([0.5, 1], 'list of whole numbers'),
        ('01', 'list of whole numbers'),
        ([True, False], 'list of whole numbers'),
    ):
        with pytest.raises((ValueError, TypeError), match=error):
            ArrayData(np.ones((2, 1, 8)), values=value)
    with pytest.raises(ValueError, match=r"values=\[0, 1\] and classes=\['a'\] must have the same length"):
        ArrayData(np.ones((2, 1, 8)), values=[0, 1], classes=['a'])
    assert opened(np.ones((2, 1, 8)), np.array([0, 255]), values=[0, 255]).classes == ['0', '255']
    with pytest.raises(DataError, match=r'the targets are names of classes, so values=\[0, 1\] cannot be used'):
        opened(np.ones((2, 1, 8)), np.array(['a', 'b']), values=[0, 1])
    floats = [np.full((1, 8), 0.5)] * 2
    with pytest.raises(DataError, match=r'holds 0\.5, which is no whole number, as of classes'):
        targets(opened(np.ones((2, 1, 8)), floats, classes=['a', 'b']))


@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA', 'LA', '1', 'P'])
def test_masks_of_0_and_255_in_any_picture(mode, here):
    mask = np.array([[0, 255], [255, 0]], np.uint8)
    image = Image.fromarray(mask)
    (here / 'msk').mkdir()
    if mode == 'P':
        image = Image.fromarray(mask // 255)
        image.putpalette([0, 0, 0, 255, 255, 255])
    (image if mode == 'P' else image.convert(mode)).save('msk/0.png')
    picture('img/0.png', size=(2, 2))
    data = opened('img', 'msk', values=[0, 1] if mode in '1P' else [0, 255])
    assert targets(data) == [[[[0, 1], [1, 0]]]]


def test_a_mask_of_colours_is_named(here):
    picture('img/0.png', size=(2, 2))
    (here / 'msk').mkdir()
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3)).save('msk/0.png')
    with pytest.raises(DataError, match=r'0\.png: .*it shows colours, but must hold one number a pixel'):
        opened('img', 'msk', values=[0, 255])


# ---- Pictures ----


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_images_are_turned_as_the_camera_was_held(orientation, suffix, here):
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:8, :8] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    (here / 'img').mkdir()
    Image.fromarray(pixels).convert('RGB').save(f'img/a.{suffix}', exif=exif)
    seen = open_reader('img').read(0)[0]
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert seen.shape == ((16, 32) if orientation < 5 else (32, 16))
    assert seen[corner[orientation]] > 150 and (seen > 100).mean() == pytest.approx(1 / 8, abs=0.02)


def test_folders_that_mix_grey_and_colours(here):
    for number, mode in enumerate(('L', 'RGB', 'RGBA', 'LA', 'P', '1', 'CMYK')):
        path = here / f'img/{number}.{"jpg" if mode == "CMYK" else "png"}'
        path.parent.mkdir(exist_ok=True)
        Image.new('L', (4, 3), 255).convert(mode).save(path)
    for colours, count in (('rgb', 3), ('grey', 1)):
        data = opened('img', colours=colours)
        shapes = {data.train.item(number, None)['input'].shape for number in range(7)}
        assert shapes == {(count, 3, 4)} and data.facts['reading'] == {'colours': colours}
    red = Image.new('RGB', (4, 3), (255, 0, 0))
    red.save('img/0.png')
    assert opened('img', colours='grey').train.item(0, None)['input'] == pytest.approx(np.full((1, 3, 4), 76.245))
    with pytest.raises(ValueError, match=r"ArrayData: colours='bgr' must be one of|ArrayData: colours='bgr'"):
        opened('img', colours='bgr')


@pytest.mark.parametrize(
    ('axes', 'shape', 'seen'),
    [
        ('YX', (6, 7), (1, 6, 7)),
        ('CYX', (2, 6, 7), (2, 6, 7)),
        ('ZYX', (4, 6, 7), (1, 4, 6, 7)),
        ('ZCYX', (4, 2, 6, 7), (2, 4, 6, 7)),
        ('TCZYX', (1, 3, 4, 6, 7), (3, 4, 6, 7)),
        ('TCYX', (5, 2, 6, 7), (2, 5, 6, 7)),
        ('YXS', (6, 7, 3), (3, 6, 7)),
    ],
)
@pytest.mark.parametrize('packed', [None, 'zlib', 'lzw'])
def test_axes_of_microscopes(axes, shape, seen, packed, here):
    stack = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint16 if axes != 'YXS' else np.uint8)
    (here / 'img').mkdir()
    metadata = {'axes': axes, 'PhysicalSizeX': 0.5, 'PhysicalSizeY': 0.25, 'PhysicalSizeZ': 2.0}
    tifffile.imwrite('img/a.ome.tif', stack, ome=True, metadata=metadata, compression=packed)
    reader = open_reader('img')
    expected = np.moveaxis(
        stack, [axes.index(letter) for letter in 'CS' if letter in axes], [0][: len({*axes} & {*'CS'})]
    )
    expected = expected.reshape(seen)
    assert reader.shape(0) == seen
    np.testing.assert_array_equal(reader.read(0), expected)
    np.testing.assert_array_equal(reader.read(0, (slice(1, 3), slice(2, 5))), expected[..., 1:3, 2:5])
    grid = reader.grid(0)
    if 'T' not in axes or shape[0] == 1:
        assert grid.spacing == ((2.0, 0.25, 0.5) if 'Z' in axes else (0.25, 0.5))
    assert names(opened('img').train) == ['a.ome.tif']


def test_too_many_axes_are_named(here):
    (here / 'img').mkdir()
    tifffile.imwrite('img/a.ome.tif', np.zeros((2, 3, 4, 5), np.uint8), ome=True, metadata={'axes': 'TZYX'})
    with pytest.raises(DataError, match=r'its axes are TZYX \(2, 3, 4, 5\), and of space and time there may be three'):
        opened('img')


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif', 'bmp', 'gif', 'webp'])
def test_damaged_pictures_are_named(suffix, here):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    (here / 'img').mkdir()
    Image.fromarray(noise).save(f'img/a.{suffix}')
    whole = (here / f'img/a.{suffix}').read_bytes()
    for held in (b'', b'no picture', whole[:40], whole[: len(whole) // 2]):
        (here / f'img/a.{suffix}').write_bytes(held)
        with pytest.raises(DataError, match=rf'a\.{suffix}: the file is damaged, cut short or of another kind'):
            opened('img', order=2).train.item(0, None)


def test_a_folder_that_mixes_channels_says_what_converts_it(here):
    (here / 'img').mkdir()
    for number, mode in enumerate(('RGB', 'RGBA', 'L')):
        Image.new('L', (4, 3), 9 * number).convert(mode).save(f'img/{number}.png')
    data = opened('img')
    for number, channels in ((1, 4), (2, 1)):
        text = rf"\({channels}, 3, 4\), but others .* have 3 channels and 2 spatial axes: .* colours='rgb' or 'grey'"
        with pytest.raises(DataError, match=text):
            data.train.item(number, None)
    with pytest.raises(DataError, match=r"0.png.*1.png.*2.png.*colours='rgb' or 'grey' converts all of them"):
        read_fingerprint(data.pairs())
    np.save('x.npy', np.zeros((2, 3, 8, 8)))
    np.save('y.npy', np.zeros((2, 16, 8, 8)))
    with pytest.raises(DataError, match=r'have 3 channels and 2 spatial axes$'):
        opened(['x.npy', 'y.npy']).train.item(3, None)
