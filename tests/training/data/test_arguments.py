"""Every public argument of the data classes: refused by name where it is out of range; NumPy's numbers are numbers."""

import pickle

import numpy as np
import pytest

from mdnc.training import MNI152, ArrayData, Augmentation, DataError, Digits, Split, TimeSeries

X = np.random.default_rng(0).normal(size=(20, 1, 8)).astype(np.float32)
NAN, INF = float('nan'), float('inf')
NO_COUNTS = [1.5, '3', True, None, NAN, [2], np.array([2]), 2 + 0j]
NO_NUMBERS = ['a', True, None, [0.5], np.array([0.5, 0.5])]

WRONG = [
    *(('batch_size', value) for value in (0, -1, *NO_COUNTS)),
    *(('workers', value) for value in (-1, *NO_COUNTS)),
    *(('seed', value) for value in (-1, *NO_COUNTS)),
    *(('patches', value) for value in (0, -1, *NO_COUNTS)),
    *(('order', value) for value in (0, 4, -1, 1.5, '2', True, [2])),
    *(('overlap', value) for value in (-0.1, 1, 1.5, NAN, INF, *NO_NUMBERS) if value is not None),
    *(('corruption', value) for value in (-0.1, NAN, INF, *NO_NUMBERS)),
    *((name, value) for name in ('crop', 'patch') for value in ([], [0], [-1], 4, '4', [4.0], [True], {4: 1}, [1] * 4)),
    *((name, value) for name in ('normalise', 'missing') for value in (0, 1, 'no', None)),
    *(('nonfinite', value) for value in ('Stop', '', None, True, ['stop'])),
    *(('classes', value) for value in ([], ['a', 'a'], ['', 'b'], 'ab', {'a': 1}, [None], [1.5], [True], 3)),
    *(('split', value) for value in (3, None, 'a', {'vol': 1}, ['a'])),
    *(('augmentation', value) for value in (3, None, 'flip', {'gian': 1})),
]


@pytest.mark.parametrize(('name', 'value'), WRONG, ids=str)
def test_what_is_out_of_range_is_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=f'^ArrayData: {name}='):
        ArrayData(X, **{name: value})


@pytest.mark.parametrize('value', [-1, 1, NAN, INF, 'a*', True, None, [], [3], [''], {'a': 1}, b'a', [True]], ids=str)
@pytest.mark.parametrize('part', ['val', 'test'])
def test_a_share_is_a_fraction_or_patterns(part, value):
    with pytest.raises((ValueError, TypeError), match=rf'^Split: {part}=.* must be a fraction in \[0, 1\) or a li'):
        Split(**{part: value})


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *(('flip', value) for value in ([3], [-1], [0, 0], 0, '0', [True], {0: 1}, [0.0])),
        *(('noise', value) for value in (-1, NAN, INF, 'a', True, [0.5])),
        *(('gain', value) for value in (-0.1, 1, NAN, INF, 'a', True, [0.5], np.array([0.5, 0.5]))),
    ],
    ids=str,
)
def test_augmentation_is_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=f'^Augmentation: {name}='):
        Augmentation(**{name: value})


@pytest.mark.parametrize(
    'value',
    [0.9, ['accuracy'], {'accuracy': 0.9}, {'accuracy': {}}, {'accuracy': {'1-NN': '0.9'}}, {'rmse': {'1-NN': NAN}}],
)
def test_baselines_are_refused_by_name(value):
    with pytest.raises((ValueError, TypeError), match=r'^Digits: baselines'):
        Digits(baselines=value)


@pytest.mark.parametrize(
    ('make', 'text'),
    [
        (lambda: Split(seed=-1), 'Split: seed=-1 must be an int of at least 0'),
        (lambda: Split(seed=1.5), r'Split: seed=1\.5'),
        (lambda: Split(given=3), 'Split: given=3 must be the path of an NPZ file'),
        (lambda: TimeSeries('GunPoint'), "TimeSeries: name='GunPoint' must be one of 'gunpoint', 'italy_power_demand'"),
        (lambda: MNI152(0), 'MNI152: resolution=0 must be an int of at least 1'),
        (lambda: Digits(batch_size=0), 'Digits: batch_size=0'),
        (lambda: ArrayData(X, crop=[4], patch=[4]), r'ArrayData: crop=\[4\] and patch=\[4\] exclude each other'),
    ],
)
def test_others_are_refused_by_name(make, text):
    with pytest.raises((ValueError, TypeError), match=text):
        make()


def test_what_numpy_gives_does_as_well_and_is_recorded_plain():
    data = ArrayData(
        X,
        np.arange(20) % 2,
        batch_size=np.int64(4),
        seed=np.uint8(3),
        order=np.int32(1),
        classes=np.array(['a', 'b']),
        patch=np.array([4]),
        patches=np.int64(2),
        overlap=np.float32(0.5),
        corruption=np.float64(0),
        split=Split(val=np.float32(0.25), test=0, seed=np.int64(1)),
        augmentation={'flip': (np.int64(0),), 'noise': np.float32(1), 'gain': np.float64(0.5)},
    )
    data.setup()
    assert (len(data.train), len(data.val), len(data.test)) == (30, 5, 0)
    facts = {name: value for name, value in data.facts.items() if name != 'normalisation'}
    expected = {'classes': ['a', 'b'], 'patch': [4], 'overlap': 0.5, 'input': [1, 4]}
    expected |= dict.fromkeys(('spacing', 'values', 'channels', 'columns')) | {'reading': {'order': 1}}
    assert pickle.dumps(facts) == pickle.dumps(expected)
    assert pickle.dumps(data.split) == pickle.dumps(Split(val=0.25, test=0.0, seed=1))
    assert Augmentation((0,), np.float32(1), 0) == Augmentation([0], 1.0, 0.0)
    assert ArrayData(X, classes=[0, 1]).classes == ['0', '1']


def test_a_list_that_changes_later_changes_nothing():
    patch, classes = [4], ['a', 'b']
    data = ArrayData(X, patch=patch, classes=classes)
    patch[0], classes[0] = 9, 'b'
    assert (data.patch, data.classes) == ([4], ['a', 'b'])


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'crop': [9]}, r'array\[\d+\]: a window of \(9,\) does not fit into a sample of spatial size \(8,\)'),
        ({'patch': [4, 4]}, r'array\[\d+\]: a window of \(4, 4\) does not fit'),
        ({'augmentation': {'flip': [1]}}, r'array\[\d+\]: Augmentation: flip=\[1\] names an axis'),
        ({'split': {'val': 0.9, 'test': 0.9}}, 'none of 20 samples is left for training'),
    ],
)
def test_what_fits_no_sample_is_refused_before_training(options, text):
    with pytest.raises(DataError, match=text):
        ArrayData(X, **options).setup()


# Numbers of samples in a file.


@pytest.mark.parametrize(
    ('arrays', 'text'),
    [
        ({'train': np.arange(3.0)}, 'must contain sample numbers, .* not float64'),
        ({'train': np.ones(5, bool)}, r'true and false for each of 20, not bool of shape \(5,\)'),
        ({'train': np.zeros((2, 2), int)}, r'not int64 of shape \(2, 2\)'),
        ({'tr': [1]}, "holds tr: 'train' must not be empty"),
        ({'train': [-1, 2]}, 'no number may occur twice or be outside 0…19'),
        ({'train': [1, 20]}, 'outside 0…19'),
    ],
    ids=str,
)
def test_numbers_that_are_none_of_samples(arrays, text, tmp_path):
    np.savez(tmp_path / 's.npz', **arrays)
    with pytest.raises(DataError, match=r's\.npz .*' + text):
        ArrayData(X, split={'given': tmp_path / 's.npz'}).setup()


def test_files_that_hold_no_numbers(tmp_path):
    (tmp_path / 'text.npz').write_text('x')
    np.save(tmp_path / 'x.npy', [1])
    for name in ('text.npz', 'x.npy'):
        with pytest.raises(DataError, match=f'{name} is not an NPZ file with arrays train, val, test'):
            ArrayData(X, split={'given': f'{tmp_path}/{name}'}).setup()
    with pytest.raises(FileNotFoundError, match=r"Split: file '.*gone\.npz' does not exist"):
        ArrayData(X, split={'given': f'{tmp_path}/gone.npz'}).setup()


def test_true_and_false_say_which_samples_a_part_has(tmp_path):
    np.savez(tmp_path / 's.npz', train=np.arange(20) < 12, test=np.arange(20) >= 17)
    data = ArrayData(X, split={'given': f'{tmp_path}/s.npz'})
    data.setup()
    assert (len(data.train), len(data.val), len(data.test)) == (12, 0, 3)
    with pytest.raises(DataError, match=r's\.npz defines test, but the data have a part of that na'):
        ArrayData({'train': X, 'test': X}, split={'given': f'{tmp_path}/s.npz'}).setup()
