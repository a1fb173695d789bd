"""Which files are read, in which order, under which names, and which target belongs to which input."""

import os
import unicodedata

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.training.data.folders import array, link, names, opened, picture, text, values

from mdnc.training import Split
from mdnc.training.data import DataError
from mdnc.training.data.files import natural_key
from mdnc.training.data.sources import open_pair, open_reader


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pets(here):
    for kind, value in (('cat', 10), ('dog', 20)):
        for number in (1, 2, 10):
            picture(f'img/{kind}/{number}.png', value + number)
    return here


RELATIVE = [f'{kind}/{number}.png' for kind in ('cat', 'dog') for number in (1, 2, 10)]


@pytest.mark.parametrize(
    'where',
    [
        'img',
        'img/',
        './img/../img',
        'img/*/*.png',
        'img/**/*.png',
        'img/*',
        'img/**/*',
        ['img/cat', 'img/dog'],
        ['img/cat/*.png', 'img/dog'],
        [f'img/{name}' for name in RELATIVE],
    ],
    ids=str,
)
def test_files_are_known_by_their_path_below_what_was_named(where, pets):
    expected = [11, 12, 20, 21, 22, 30]
    data = opened(where)
    assert names(data.train) == RELATIVE
    assert values(data.train) == expected
    absolute = [f'{pets}/{one}' for one in ([where] if isinstance(where, str) else where)]
    assert names(opened(absolute).train) == RELATIVE


def test_numbers_in_names_count_as_numbers(here):
    for number in (1, 2, 3, 10, 20, 100):
        array(f's/scan_{number}.npy', number, (1, 1, 8))
    assert values(opened('s', order=2).train) == [1, 2, 3, 10, 20, 100]
    assert names(opened('s/*.npy').train) == [f'scan_{number}.npy[0]' for number in (1, 2, 3, 10, 20, 100)]
    for number in (1, 2, 3, 10, 20, 100):
        text(f'age_{number}.csv', 'age', str(number))
    np.save('age.npy', [1, 2, 3, 10, 20, 100])
    for targets in ('age.npy', 'age_*.csv'):
        assert values(opened('s', targets, order=2).train) == [(n, n) for n in (1, 2, 3, 10, 20, 100)]


@given(st.lists(st.tuples(st.sampled_from(['a', 'b/', '_']), st.integers(0, 10**20)), max_size=4))
def test_any_names_can_be_ordered(parts):
    name = ''.join(f'{word}{number}' for word, number in parts)
    ordered = [name, name + '_1', name + '_02', name + '_9', name + '_10', name + '_10/1', name + '_010/2']
    assert sorted(sorted(ordered), key=natural_key) == ordered


def test_what_systems_leave_in_folders_is_no_sample(pets):
    for path in ('img/.thumbs/1.png', 'img/__MACOSX/1.png', 'img/cat/.cache/x.png'):
        picture(path)
    for path in ('img/cat/._1.png', 'img/cat/Thumbs.db', 'img/.DS_Store', 'img/desktop.ini', 'img/readme.txt'):
        text(path, 'x')
    for where in ('img', 'img/*/*', 'img/**/*', 'img/*/*.png'):
        assert names(opened(where).train) == RELATIVE


def test_a_folder_with_samples_on_two_levels_is_ambiguous(pets):
    picture('img/0.png')
    with pytest.raises(DataError, match=r'img holds samples itself \(0\.png\) and in its folders \(cat/1\.png\)'):
        open_reader('img')
    assert names(opened('img/*').train) == ['0.png']
    assert len(opened('img/**/*').train) == 7


def test_names_with_capitals_spaces_accents_and_brackets(here):
    picture('my ü [1]/A b.PNG', 1)
    picture('my ü [1]/é.JPG', 2)
    assert names(opened('my ü [1]').train) == names(opened('my ü [1]/*').train) == ['A b.PNG', 'é.JPG']
    # macOS stores é as two characters, a table mostly as one.
    text('y.csv', 'file,y', unicodedata.normalize('NFD', 'é.jpg') + ',5', 'A b.png,6')
    assert [target for _, target in values(opened('my ü [1]', 'y.csv').train)] == [5, 6]


def test_links_are_followed_but_not_for_ever(pets):
    os.mkdir('other')
    link('../img/dog', 'other/d')
    link('../img/cat/1.png', 'other/d/link.png')
    link('..', 'img/cat/up')
    assert names(opened('other').train) == ['d/1.png', 'd/2.png', 'd/10.png', 'd/link.png']
    assert len(opened('img').train) == 7


def test_what_is_not_there_is_answered_with_what_is(pets):
    with pytest.raises(
        FileNotFoundError, match=r"'img/cat/\*\.tif' \(seen from .*; img/cat holds 1\.png, 2\.png, 10\.p"
    ):
        open_reader('img/cat/*.tif')
    text('notes.txt', 'x')
    with pytest.raises(DataError, match=r'notes\.txt: unknown kind of file'):
        open_reader('*.txt')
    with pytest.raises(FileNotFoundError, match=r"must be given as an array: np\.array\(\['cat', 'dog'\]\)"):
        open_pair(np.zeros((2, 1, 8)), ['cat', 'dog'])


def test_a_file_is_a_sample_once(pets):
    with pytest.raises(DataError, match=r'inputs: files are named twice: .*img/cat/1\.png'):
        opened(['img', 'img/cat/*.png'])


# Pairs.


def test_masks_of_another_folder_are_not_taken(here):
    for folder in ('i/a', 'i/b', 'm/a', 'm/c'):
        picture(f'{folder}/0.png', ord(folder[-1]))
    for inputs, targets in (('i/*/*.png', 'm/*/*.png'), ('i', 'm'), ('i', 'm/*/*.png')):
        with pytest.raises(DataError, match=r'without target: i/b/0\.png; without input: m/c/0\.png'):
            open_pair(inputs, targets)


def test_counterparts_are_found_by_name_whatever_their_kind_and_order(here):
    for number in (1, 2, 10):
        picture(f'i/{number}.jpg', 0)
        array(f'm/{number}.npy', number, (8, 8))
    targets = [target for _, target in values(opened('i', 'm').train)]
    assert targets == [1, 2, 10]
    inputs, masks = [f'i/{n}.jpg' for n in (10, 1, 2)], [f'm/{n}.npy' for n in (1, 2, 10)]
    assert [t for _, t in values(opened(inputs, 'm').train)] == [10, 1, 2]
    array('m/3.npy')
    with pytest.raises(DataError, match=r'paired by the names of their files; without input: m/3\.npy'):
        open_pair('i', 'm')
    with pytest.raises(DataError, match=r'without input: m/3\.npy'):
        open_pair(['i'], ['m'])
    assert len(masks) == 3


def test_what_wildcards_stand_for_pairs_names_that_differ(here):
    for number in (3, 1, 2):
        picture(f'case_{number}/image.png', number)
        picture(f'case_{number}/mask.png', 10 * number)
        picture(f'x/im_{number}.png', number)
        picture(f'x/im_{number}_mask.png', 10 * number)
    expected = [(1, 10), (2, 20), (3, 30)]
    assert values(opened('case_*/image.png', 'case_*/mask.png').train) == expected
    assert values(opened('x/im_[0-9].png', 'x/im_?_mask.png').train) == expected


def test_lists_of_names_that_differ_are_paired_by_place_if_none_is_alike(here):
    for number in range(1, 5):
        picture(f'{number}.png', number)
    frames = [f'{number}.png' for number in range(1, 5)]
    assert values(opened(frames[:-1], frames[1:]).train) == [(1, 2), (2, 3), (3, 4)]
    with pytest.raises(DataError, match=r'without target: 3\.png; without input: 4\.png'):
        open_pair(['1.png', '2.png', '3.png'], ['1.png', '2.png', '4.png'])


def write_runs(name, lengths, member, value):
    for run, length in lengths.items():
        with h5py.File(f'{name}_{run}.h5', 'a') as file:
            file[member] = np.full((length, 1, 8) if member == 'x' else length, value + run, np.float32)


def test_recordings_are_paired_file_by_file(here):
    write_runs('a', {1: 2, 2: 3, 10: 1}, 'x', 0)
    write_runs('b', {10: 1, 1: 2, 2: 3}, 'y', 100)
    assert values(opened('a_*.h5::x', 'b_*.h5::y').train) == [(1, 101)] * 2 + [(2, 102)] * 3 + [(10, 110)]
    write_runs('c', {1: 3, 2: 2, 10: 1}, 'y', 0)
    with pytest.raises(DataError, match=r'a_1\.h5::x holds 2 inputs, but c_1\.h5 holds 3 targets'):
        open_pair('a_*.h5::x', 'c_*.h5::y')
    write_runs('d', {1: 2, 2: 3, 9: 1}, 'y', 0)
    with pytest.raises(DataError, match='paired by the names of their files'):
        open_pair('a_*.h5::x', 'd_*.h5::y')


def test_two_files_of_one_name_have_no_target(here):
    for path in ('i/0.png', 'i/0.jpg', 'm/0.png', 'm/1.png'):
        picture(path)
    with pytest.raises(DataError, match=r'of one name: i/0\.jpg, i/0\.png'):
        open_pair('i', 'm')


# The column `file` of a table.

ROWS = [f'{name},{20 + number}' for number, name in enumerate(reversed(RELATIVE))]
REVERSED = [(30, 20), (22, 21), (21, 22), (20, 23), (12, 24), (11, 25)]


@pytest.mark.parametrize(
    'write',
    [
        lambda row: row,
        lambda row: f'img/{row}',
        lambda row: f'./img/{row}',
        lambda row: f'{os.getcwd()}/img/{row}',
        lambda row: row.replace('/', '\\'),
        lambda row: row.replace('.png', ''),
        lambda row: row.replace('.png', '.PNG'),
    ],
    ids=['below', 'from here', 'dot', 'absolute', 'backslash', 'stem', 'capitals'],
)
def test_rows_find_their_files(write, pets):
    text('y.csv', 'file,y', *map(write, ROWS))
    for inputs in ('img', 'img/*/*.png', ['img/dog', 'img/cat']):
        assert values(opened(inputs, 'y.csv').train) == REVERSED


def test_rows_of_other_folders_find_nothing(pets):
    text('y.csv', 'file,y', *ROWS)
    with pytest.raises(
        DataError, match=r'y\.csv and img/dog do not fit; 3 rows without a file: y\.csv, line 5 \(cat/10'
    ):
        open_pair('img/dog', 'y.csv')
    text('y.csv', 'file,y', *(row.rpartition('/')[2] for row in ROWS))
    with pytest.raises(
        DataError, match=r'line 2 \(10\.png\) may be any of cat/10\.png, dog/10\.png; write the path from'
    ):
        open_pair('img', 'y.csv')


def test_a_row_means_the_file_of_this_very_name_first(here):
    picture('f/0.png', 1)
    picture('f/a/0.png', 2)
    text('y.csv', 'file,y', 'a/0.png,20', '0.png,10')
    assert values(opened('f/**/*.png', 'y.csv').train) == [(2, 20), (1, 10)]


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ([*ROWS, 'cat/99.png,1'], r'1 rows without a file: y\.csv, line 8 \(cat/99\.png\)'),
        (ROWS[:-1], r'1 files without a row: cat/1\.png'),
        ([*ROWS, ROWS[0]], r'several rows name one file: y\.csv, line 2 \(dog/10\.png\), y\.csv, line 8'),
        ([*ROWS[:-1], ',3'], r'1 rows without a file: y\.csv, line 7 \(\)'),
    ],
)
def test_rows_and_files_must_be_the_same(rows, message, pets):
    text('y.csv', 'file,y', *rows)
    with pytest.raises(DataError, match=message):
        open_pair('img', 'y.csv')


def test_a_column_that_names_files_is_not_passed_over(pets):
    text('y.csv', 'image,y', *ROWS)
    with pytest.raises(DataError, match=r"column 'image' names the files of the inputs, in another order"):
        open_pair('img', 'y.csv::y')
    text('y.csv', 'image,y', *reversed(ROWS))
    assert values(opened('img', 'y.csv::y').train) == REVERSED[::-1]


def test_two_tables_that_name_files(here):
    text('x.csv', 'file,a,b', 'p,1,2', 'q,3,4', 'r,5,6')
    text('y.csv', 'file,y', 'r,50', 'p,10', 'q,30')
    assert values(opened('x.csv', 'y.csv', order=1).train) == [(1, 10), (3, 30), (5, 50)]
    pair = open_pair('x.csv', 'y.csv')
    assert [pair.targets.name(number) for number in range(3)] == ['y.csv, line 3', 'y.csv, line 4', 'y.csv, line 2']
    text('y.csv', 'file,y', 'r,50', 'p,10', 's,30')
    with pytest.raises(DataError, match=r"must name the same files, each once, in their column 'file'; .* names q, s"):
        open_pair('x.csv', 'y.csv')


def test_several_tables_name_the_files_together(pets):
    text('a.csv', 'file,y', *ROWS[:2])
    text('b.csv', 'file,y', *ROWS[2:])
    assert values(opened('img', ['a.csv', 'b.csv']).train) == REVERSED
    text('b.csv', 'y', *(row.split(',')[1] for row in ROWS[2:]))
    with pytest.raises(DataError, match='all tables must name files'):
        open_pair('img', ['a.csv', 'b.csv'])


# Parts by file.


@pytest.mark.parametrize(
    ('patterns', 'taken'),
    [
        (['dog/*'], RELATIVE[3:]),
        (['dog/'], RELATIVE[3:]),
        (['1.*'], ['cat/1.png', 'dog/1.png']),
        (['cat/1.png', 'dog/10.*'], ['cat/1.png', 'dog/10.png']),
        (['c*/1*'], ['cat/1.png', 'cat/10.png']),
    ],
    ids=str,
)
def test_a_part_is_a_folder_or_files(patterns, taken, pets):
    data = opened('img', split=Split(val=0, test=patterns))
    assert names(data.test) == taken
    assert names(data.train) == [name for name in RELATIVE if name not in taken]


def test_a_part_of_recordings_in_folders(here):
    for day in (1, 2):
        for run in (1, 2):
            array(f'day_{day}/run_{run}.npy', 10 * day + run, (2, 1, 4))
    data = opened('day_*/run_*.npy', split=Split(val=['day_2/run_2.*'], test=['day_1/']))
    assert names(data.val) == ['day_2/run_2.npy[0]', 'day_2/run_2.npy[1]']
    assert values(data.test) == [11, 11, 12, 12]
    assert values(data.train) == [21, 21]


def test_parts_do_not_share_files(pets):
    with pytest.raises(DataError, match=r"pattern 'dog/1\.png' matches only files of the test, such as 'dog/1\.png'"):
        opened('img', split=Split(val=['dog/1.png'], test=['dog/*']))
    with pytest.raises(
        DataError, match=r"pattern 'bird/\*' matches no file; a file is called, for example, 'cat/1\.png'"
    ):
        opened('img', split=Split(val=0, test=['bird/*']))


def test_packed_files_are_to_be_unpacked(tmp_path):
    (tmp_path / 'runs').mkdir()
    for name in ('x.npy.gz', 'runs/a.csv.gz', 'runs/b.csv.gz'):
        (tmp_path / name).write_bytes(b'')
    for where in ('x.npy.gz', 'runs', 'runs/*.csv.gz'):
        with pytest.raises(DataError, match=r'\.gz is packed, and of packed files only \.nii\.gz is read: unpack it'):
            open_reader(str(tmp_path / where))
