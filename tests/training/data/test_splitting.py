"""Parts that keep groups together and classes as frequent as they are; folds; order of time; windows and forecasts."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.data.folders import names, opened, picture, text, values

from mdnc.training import ArrayData, Split
from mdnc.training.data import DataError
from mdnc.training.data.memory import memory_rows
from mdnc.training.data.split import PARTS, SampleAttributes, split_samples


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parts(count, split, **told):
    reader = memory_rows(np.zeros((count, 1, 2)))
    return split_samples(
        reader, split, SampleAttributes(**{name: [str(word) for word in said] for name, said in told.items()})
    )


def once(found, count):
    return sorted(np.concatenate(list(found.values())).tolist()) == list(range(count))


# ---- Groups, strata, folds ----


@given(
    sizes=st.lists(st.integers(1, 6), min_size=4, max_size=30),
    seed=st.integers(0, 3),
    ways=st.sampled_from([{}, {'folds': 3, 'fold': 2}]),
    strata=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_groups_stay_together(sizes, seed, ways, strata):
    group = np.repeat(np.arange(len(sizes)), sizes)
    stratum = {'stratum': group % 2} if strata else {}
    found = parts(len(group), Split(0.2, 0.2 if not ways else 0.1, seed=seed, **ways), group=group, **stratum)
    assert once(found, len(group))
    homes = [{*group[numbers].tolist()} for numbers in found.values()]
    assert all(homes) and sum(map(len, homes)) == len(sizes)


def test_parts_of_groups_are_about_as_large_as_was_said():
    group = np.repeat(np.arange(50), 4)
    for told in ({}, {'stratum': np.arange(200) % 2}):
        found = parts(200, Split(0.1, 0.2), group=group, **told)
        assert abs(len(found['test']) - 40) <= 4 and abs(len(found['val']) - 20) <= 6


@given(count=st.integers(20, 80), share=st.sampled_from([0.1, 0.25, 0.3]), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_classes_are_as_frequent_in_all_parts(count, share, seed):
    stratum = np.array(['often', 'often', 'often', 'rare', 'odd'])[np.arange(count) % 5]
    found = parts(count, Split(share, share, seed=seed), stratum=stratum)
    assert once(found, count) and len(found['test']) == max(round(share * count), 1)
    for numbers in (found['test'], found['val']):
        for word, whole in Counter(stratum.tolist()).items():
            assert abs((stratum[numbers] == word).sum() - whole * len(numbers) / count) <= 1.5


@pytest.mark.parametrize('told', [{}, {'group': np.arange(60) // 3}, {'stratum': np.arange(60) % 3}])
def test_folds_test_every_sample_once(told):
    found = [parts(60, Split(0.1, folds=5, fold=fold), **told) for fold in range(5)]
    assert sorted(np.concatenate([each['test'] for each in found]).tolist()) == list(range(60))
    assert {len(each['test']) for each in found} == {12} and all(once(each, 60) for each in found)
    if 'stratum' in told:
        assert all(Counter((each['test'] % 3).tolist()) == {0: 4, 1: 4, 2: 4} for each in found)
    again = parts(60, Split(0.1, folds=5, fold=0), **told)
    np.testing.assert_array_equal(again['test'], found[0]['test'])


def test_groups_and_strata_of_columns_and_paths(here):
    for patient in range(6):
        for scan in range(3):
            picture(f'img/p{patient}/{scan}_{"ab"[patient % 2]}.png', patient)
    rows = [f'p{patient}/{scan}_{"ab"[patient % 2]}.png' for patient in range(6) for scan in range(3)]
    text('y.csv', 'file,kind,patient', *[f'{row},{row[5]},{row[:2]}' for row in reversed(rows)])
    text('groups.csv', 'who,file', *[f'{row[:2]},{row}' for row in rows[::2] + rows[1::2]])
    for group in ('folder', 'folder::1', r'path::(p\d)', 'patient', 'y.csv::patient', 'groups.csv::who'):
        split = Split(0.2, 0.2, group=group)
        data = opened('img', 'y.csv::kind', split=split)
        homes = [{name[:2] for name in names(part)} for part in (data.train, data.val, data.test)]
        assert all(homes) and sum(map(len, homes)) == 6, group
    for stratify in (True, 'kind', r'path::_(.)\.png'):
        data = opened('img', 'y.csv::kind', split=Split(0, 1 / 3, stratify=stratify))
        assert Counter(target for _, target in values(data.test)) == {0: 3, 1: 3}


@pytest.mark.parametrize('words', ['folder::1', 'y.csv::part', 'part'])
def test_a_column_or_a_folder_says_the_part(words, here):
    for part in ('train', 'Valid', 'test'):
        picture(f'img/{part}/0.png', 1)
        picture(f'img/{part}/1.png', 2)
    text('y.csv', 'file,y,part', *[f'{p}/{n}.png,{n},{p}' for p in ('train', 'Valid', 'test') for n in (0, 1)])
    data = opened('img', 'y.csv::y', split=Split(given=words))
    assert [names(part) for part in (data.train, data.val, data.test)] == [
        [f'{part}/{number}.png' for number in (0, 1)] for part in ('train', 'Valid', 'test')
    ]


@pytest.mark.parametrize(
    ('options', 'error'),
    [
        ({'fold': 1}, r'Split: fold=1 needs folds'),
        ({'folds': 1}, r'Split: folds=1'),
        ({'folds': 5, 'fold': 5}, r'Split: fold=5 must be below folds=5, since it counts from 0'),
        ({'folds': 5, 'test': ['a']}, r"folds=5 determine the test, so test=\['a'\] cannot"),
        ({'group': 3}, r'Split: group=3 must be a string that names a column'),
        ({'stratify': 3}, r'Split: stratify=3 must be True, False or a string'),
        ({'time': 'yes'}, r"Split: time='yes' must be True, False or None"),
        ({'time': True, 'group': 'folder'}, r"Split: time=True and group='folder' exclude each other"),
        ({'given': 'a.npz', 'folds': 3}, r"Split: given='a\.npz' and folds=3 exclude each other"),
    ],
)
def test_words_of_a_split_that_make_no_sense(options, error):
    with pytest.raises((ValueError, TypeError), match=error):
        Split(**options)


def test_what_a_split_cannot_be_told_is_named(here):
    for name in ('a/0', 'a/1', 'b/0', 'b/1'):
        picture(f'img/{name}.png')
    text('y.csv', 'file,kind,site', 'a/0,x,', 'a/1,y,s', 'b/0,x,s', 'b/1,y,s')
    for split, error in (
        ({'group': 'patient'}, r"split\.group='patient' is not a column of the tables .*\['file', 'kind', 'site'\]"),
        ({'group': 'site'}, r"split\.group='site' has no value for a/0\.png: its cell is empty"),
        ({'group': 'z.csv::a'}, r"no file or folder is called 'z\.csv'"),
        ({'given': 'kind'}, r"a/0\.png has the unknown part 'x'; parts are called train, val, test"),
        ({'group': 'folder', 'folds': 3}, r'split: folds=3, but there are 2 groups'),
        ({'group': 'folder', 'val': ['a/0*'], 'test': 0.0}, r"the patterns of split put group 'a' into train and val"),
    ):
        with pytest.raises((DataError, FileNotFoundError), match=error):
            opened('img', 'y.csv::kind', split=split)
    with pytest.raises(
        DataError, match=r'split\.stratify=True needs targets that are classes, but array\[0\] is float'
    ):
        opened(np.zeros((4, 1, 8)), np.linspace(0, 1, 4), split={'stratify': True})
    with pytest.raises(DataError, match=r'split\.stratify=True needs targets'):
        opened(np.zeros((4, 1, 8)), split={'stratify': True})


# ---- Order of time ----


def test_samples_in_order_of_time():
    found = parts(10, Split(0.2, 0.3, time=True))
    assert {part: found[part].tolist() for part in PARTS} == {
        'train': [0, 1, 2, 3, 4],
        'val': [5, 6],
        'test': [7, 8, 9],
    }


def spans(samples):
    return [tuple(map(int, name.rpartition('[')[2][:-1].split(':'))) for name in names(samples)]


@given(
    length=st.integers(60, 200),
    window=st.integers(1, 12),
    hop=st.integers(1, 12),
    horizon=st.integers(0, 6),
    share=st.sampled_from([0.1, 0.3]),
)
@settings(deadline=None, max_examples=60)
def test_no_window_crosses_a_border_of_time(length, window, hop, horizon, share):
    series = np.arange(2.0 * length).reshape(1, 2, length)
    split = Split(share, share)
    cut = {'window': window, 'hop': hop, **({'horizon': horizon} if horizon else {})}
    if min(round(share * length), length - 2 * round(share * length)) < window + horizon:
        return
    data = opened(series, split=split, normalise=False, **cut)
    borders = [0, length - 2 * round(share * length), length - round(share * length), length]
    for samples, begin, end in zip((data.train, data.val, data.test), borders, borders[1:], strict=False):
        found = spans(samples)
        assert min(first for first, _ in found) == begin
        assert all(begin <= first and last == first + window and last + horizon <= end for first, last in found)
        steps = np.diff([first for first, _ in found])
        assert (steps[:-1] == hop).all() and (horizon or found[-1][1] == end)
        for number, (first, last) in enumerate(found):
            item = samples.item(number, None)
            np.testing.assert_array_equal(item['input'], series[0][:, first:last])
            if horizon:
                np.testing.assert_array_equal(item['target'], series[0][:, last : last + horizon].ravel())


def test_windows_of_many_recordings_are_not_parted(here):
    signals = [np.full((1, 40), number, np.float32) for number in range(10)]
    data = opened(signals, np.arange(10), window=8, hop=4, split=Split(0.2, 0.2))
    homes = [{value for value, _ in values(part)} for part in (data.train, data.val, data.test)]
    assert list(map(len, homes)) == [6, 2, 2] and not homes[0] & homes[1] and not homes[1] & homes[2]
    assert all(value == target for part in (data.train, data.val, data.test) for value, target in values(part))
    assert len(data.train) == 6 * 9 and data.train.shape == (1, 8)
    in_time = opened(signals, np.arange(10), window=8, split=Split(0.2, 0.2, time=True))
    assert {value for value, _ in values(in_time.test)} == set(range(10)) and {*spans(in_time.test)} == {(32, 40)}


def test_targets_that_run_along_are_cut_with_their_recordings():
    x, y = np.arange(40.0).reshape(1, 1, 40), np.arange(40).reshape(1, 40)
    data = opened(x, y, window=8, normalise=False)
    for number in range(len(data.train)):
        item = data.train.item(number, None)
        np.testing.assert_array_equal(item['input'][0], item['target'])
    assert data.maps is True


def test_a_forecast_of_a_column_from_others(here):
    hours = np.arange(300)
    text('load.csv', 'time,load,wind', *[f'{hour},{hour * 2},{hour * 3}' for hour in hours])
    data = opened('load.csv', 'load.csv::load', window=24, horizon=24, hop=1, split=Split(0.2, 0.2))
    assert data.facts['channels'] == ['load', 'wind'] and data.facts['columns'] == ['load']
    item = data.train.item(3, None)
    assert item['target'].shape == (24,) and data.maps is False
    np.testing.assert_array_equal(item['target'], 2 * (27 + np.arange(24)))
    assert len(data.target_normalisation['mean']) == 24
    assert data.facts['reading'].items() >= {'window': 24, 'hop': 1, 'horizon': 24, 'recordings': True}.items()
    alone = opened('load.csv::load', window=24, horizon=12)
    assert alone.train.item(0, None)['target'].tolist() == (2 * (24 + np.arange(12))).tolist()


def test_new_recordings_are_cut_to_their_end():
    series = [np.arange(30.0)[None], np.arange(5.0)[None]]
    data = opened([np.zeros((1, 100))], window=8, horizon=4, predict=series)
    assert names(data.predict) == [
        'array[0][0:8]',
        'array[0][8:16]',
        'array[0][16:24]',
        'array[0][22:30]',
        'array[1][0:5]',
    ]
    assert 'target' not in data.predict.item(0, None)


def test_recordings_shorter_than_a_window_are_one():
    data = opened([np.zeros((1, 5)), np.zeros((1, 20))], window=8)
    assert spans(data.train) == [(0, 5), (0, 8), (8, 16), (12, 20)]
    assert data.train.shape is None


@pytest.mark.parametrize(
    ('options', 'error'),
    [
        ({'hop': 3}, r'hop=3 needs window'),
        ({'horizon': 3}, r'horizon=3 needs window'),
        ({'window': 0}, r'window=0'),
        ({'window': 4, 'horizon': 0}, r'horizon=0'),
        ({'window': 4, 'patch': [4]}, r'window=4 and patch exclude each other'),
        ({'window': 4, 'crop': [4]}, r'window=4 and crop exclude each other'),
        (
            {'window': 50, 'horizon': 60},
            r'the part train has no recording of at least window=50 and horizon=60: the longest',
        ),
        (
            {'window': 20, 'horizon': 10},
            r'the part (val|test) has no recording of at least window=20 and horizon=10: .* 10',
        ),
    ],
)
def test_windows_that_make_no_sense(options, error):
    with pytest.raises(ValueError, match=error):
        opened(np.zeros((1, 1, 100)), split=Split(0.1, 0.1), **options)


def test_what_cannot_be_cut_is_named():
    with pytest.raises(DataError, match=r'array\[0\]: its shape is \(1, 8, 8\), but windows are cut from recordings'):
        opened(np.zeros((2, 1, 8, 8)), window=4)
    with pytest.raises(DataError, match=r'horizon: the target array\[0\] is no series as long as its input'):
        opened(np.zeros((1, 1, 80)), np.zeros(1), window=4, horizon=2)


def test_windows_are_read_the_same_whatever_the_workers():
    series = np.random.default_rng(0).normal(size=(1, 1, 400))
    batches = []
    for workers in (0, 2):
        data = ArrayData(series, window=16, hop=3, horizon=4, workers=workers, batch_size=8)
        data.setup()
        batches.append([batch['input'].numpy() for batch in data.train_dataloader()])
    for first, second in zip(*batches, strict=True):
        np.testing.assert_array_equal(first, second)
