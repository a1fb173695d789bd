"""Splits, normalisation and what a sample becomes."""

import h5py
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mdnc.training.data import ArrayData, Augmentation, DataError, Split
from mdnc.training.data.memory import memory_rows
from mdnc.training.data.normalisation import channel_statistics, windows
from mdnc.training.data.samples import Samples, View
from mdnc.training.data.sources import open_pair, open_reader
from mdnc.training.data.split import split_samples
from mdnc.training.sample import SampleError, collate


@given(total=st.integers(3, 60), val=st.floats(0, 0.4), test=st.floats(0, 0.4), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_fractions_divide_all_samples_once(total, val, test, seed):
    counts = {name: max(1, round(share * total)) if share else 0 for name, share in (('val', val), ('test', test))}
    assume(sum(counts.values()) < total)
    parts = split_samples(memory_rows(np.zeros((total, 1, 2))), Split(val, test, seed=seed))
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(total))
    for name, count in counts.items():
        assert len(parts[name]) == count


def test_the_split_does_not_hang_on_the_seed_of_training():
    first, second = (ArrayData(np.zeros((30, 1, 8)), seed=seed) for seed in (1, 2))
    for data in (first, second):
        data.setup()
    assert [first.test.name(i) for i in range(3)] == [second.test.name(i) for i in range(3)]


def test_split_by_file_and_given(tmp_path):
    for run in range(3):
        with h5py.File(tmp_path / f'run_{run}.h5', 'w') as file:
            file['x'] = np.full((4, 1, 8), run)
    reader = open_reader(f'{tmp_path}/run_*.h5::x')
    parts = split_samples(reader, Split(val=['run_1.*'], test=['run_2.h5']))
    assert {name: numbers.tolist() for name, numbers in parts.items()} == {
        'train': [0, 1, 2, 3],
        'val': [4, 5, 6, 7],
        'test': [8, 9, 10, 11],
    }
    with pytest.raises(
        DataError, match=r"pattern 'run_7\.\*' matches no file; a file is called, for example, 'run_0\.h5'"
    ):
        split_samples(reader, Split(val=['run_7.*']))
    np.savez(tmp_path / 'split.npz', train=[3, 1], test=[0])
    parts = split_samples(reader, Split(given=f'{tmp_path}/split.npz'))
    assert {name: numbers.tolist() for name, numbers in parts.items()} == {'train': [1, 3], 'val': [], 'test': [0]}
    np.savez(tmp_path / 'twice.npz', train=[3, 1], test=[1])
    with pytest.raises(DataError, match='no number may occur twice'):
        split_samples(reader, Split(given=f'{tmp_path}/twice.npz'))


def test_split_refuses_what_leaves_nothing():
    with pytest.raises(ValueError, match=r'Split: val=1\.0 must be a fraction in \[0, 1\)'):
        Split(val=1.0)
    with pytest.raises(DataError, match='none of 2 samples is left for training'):
        split_samples(memory_rows(np.zeros((2, 1, 2))), Split(0.5, 0.5))


def test_parts_that_are_given_one_by_one():
    data = ArrayData(
        {'train': np.zeros((20, 1, 8)), 'test': np.ones((5, 1, 8))}, {'train': np.zeros(20), 'test': np.ones(5)}
    )
    data.setup()
    assert (len(data.train), len(data.val), len(data.test)) == (18, 2, 5)
    with pytest.raises(ValueError, match='parts are called train'):
        ArrayData({'training': np.zeros((20, 1, 8))})


# Large against their spread: E[x²] − E[x]² would have no digit right in float32, and few in float64.
@pytest.mark.parametrize('offset', [0.0, 1e6])
@pytest.mark.parametrize('shape', [(7, 2, 50), (7, 3, 9, 11), (7, 1, 5, 6, 7)])
def test_statistics_are_those_of_all_values(shape, offset):
    array = np.random.default_rng(0).normal(offset, 2, shape)
    found = channel_statistics(array)
    axes = (0, *range(2, len(shape)))
    np.testing.assert_allclose(found['mean'], array.mean(axes), rtol=1e-12)
    np.testing.assert_allclose(found['std'], array.std(axes), rtol=1e-9)


def test_statistics_leave_out_what_is_not_known_and_constants():
    found = channel_statistics([np.array([[1.0, np.nan, 3.0], [5.0, 5.0, 5.0]])])
    assert found == {'mean': [2.0, 5.0], 'std': [1.0, 1.0]}


@given(st.tuples(st.integers(1, 3), st.integers(1, 10**4), st.integers(1, 3000)))
def test_windows_cover_each_position_once_in_bounded_pieces(shape):
    rows = [range(shape[1])[window[0]] for window in windows(shape)]
    assert [row for part in rows for row in part] == list(range(shape[1]))
    assert max(map(len, rows)) * shape[0] * shape[2] <= max(2**22, shape[0] * shape[2])


@pytest.mark.parametrize(
    ('write', 'text'),
    [
        (lambda path: path.write_bytes(b'no array'), r'sample 3 \(s3\.npy\) cannot be read: '),
        (
            lambda path: np.save(path, np.zeros((2, 8))),
            r'sample 3 \(s3\.npy\) has 2 channels, the first sample has 1',
        ),
    ],
)
def test_statistics_name_a_sample_that_cannot_be_used(write, text, tmp_path):
    for number in range(6):
        np.save(tmp_path / f's{number}.npy', np.zeros((1, 8)))
    write(tmp_path / 's3.npy')
    data = ArrayData(tmp_path, split=Split(0, 0))
    data.setup()
    with pytest.raises(DataError, match=text):
        _ = data.facts


def test_normalisation_is_of_the_training_part_only():
    x = np.concatenate([np.random.default_rng(0).normal(3, 2, (40, 1, 16)), np.full((10, 1, 16), 1e9)])
    data = ArrayData({'train': x[:40], 'val': x[40:], 'test': x[40:]})
    data.setup()
    facts = data.facts['normalisation']
    np.testing.assert_allclose([facts['mean'][0], facts['std'][0]], [x[:40].mean(), x[:40].std()], rtol=1e-9)
    assert type(facts['mean'][0]) is float


def test_target_statistics_by_quantity_and_channel():
    rng = np.random.default_rng(0)
    vectors, maps = rng.normal(5, 3, (20, 4)), rng.normal(2, 3, (20, 16))
    for target, expected in (
        (vectors, vectors.mean(0)),
        (vectors[:, 0], vectors[:, :1].mean(0)),
        (maps, [maps.mean()]),
    ):
        data = ArrayData(np.zeros((20, 1, 16)), target, split=Split(0, 0))
        data.setup()
        np.testing.assert_allclose(data.target_normalisation['mean'], expected, rtol=1e-6)


def make(inputs, targets=None, training=True, **view):
    pair = open_pair(inputs, targets)
    return Samples(pair, np.arange(len(pair.inputs)), View(**view), training)


SIZES = [(12,), (12, 9), (8, 7, 6)]


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_crops_move_a_map_with_its_input(size):
    x = np.arange(np.prod(size), dtype=np.float32).reshape(1, 1, *size)
    crop = tuple(length - 3 for length in size)
    samples = make(x, x[:, 0].astype(np.int64), crop=crop)
    assert samples.shape == (1, *crop)
    seen = set()
    for seed in range(20):
        item = samples.item(0, np.random.default_rng(seed))
        assert item['input'].shape == (1, *crop)
        np.testing.assert_array_equal(item['input'][0], item['target'])
        assert np.isin(item['input'], x).all()
        seen.add(item['input'].tobytes())
    assert len(seen) > 3


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_the_same_seed_gives_the_same_sample(size):
    x = np.random.default_rng(0).normal(size=(1, 2, *size))
    samples = make(x, crop=(5,) * len(size), corruption=0.1)
    first, again, other = (samples.item(0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first['input'], other['input'])


def test_without_chance_a_crop_is_central_and_nothing_is_augmented():
    x = np.arange(10.0)[None, None]
    samples = make(x, crop=(4,), training=False, augmentation=Augmentation(flip=[0], noise=1.0, gain=0.5))
    np.testing.assert_array_equal(samples.item(0, None)['input'], [[3, 4, 5, 6]])


def test_gain_is_drawn_evenly_on_both_sides_of_1():
    factors = Augmentation(gain=0.5)({'input': torch.ones(2000, 1, 4), 'seed': [*range(2000)]})['input'][:, 0, 0]
    assert 0.5 <= factors.min() < 0.51 and 1.49 < factors.max() <= 1.5
    assert factors.mean() == pytest.approx(1, abs=0.03)


def test_corruption_is_in_every_part_and_the_same_each_time_outside_training():
    clean = np.zeros((2, 1, 50), np.float32)
    samples = make(clean, training=False, corruption=1.0)
    first, again, other = samples.item(0, None), samples.item(0, None), samples.item(1, None)
    np.testing.assert_array_equal(first['input'], again['input'])
    assert not np.array_equal(first['input'], other['input'])
    assert first['input'].std() > 0.5
    seeded = make(clean, training=False, corruption=1.0, seed=1).item(0, None)
    assert not np.array_equal(first['input'], seeded['input'])
    np.testing.assert_array_equal(first['target'], clean[0])


def test_patches_are_drawn_in_training_and_whole_samples_elsewhere():
    x = np.zeros((2, 1, 20, 20))
    training, other = (make(x, patch=(8, 8), patches=5, training=part) for part in (True, False))
    assert (len(training), len(other)) == (10, 2)
    assert training.item(9, np.random.default_rng(0))['input'].shape == (1, 8, 8)
    assert training.name(9) == 'array[1]'
    assert other.item(1, None)['input'].shape == (1, 20, 20)
    assert other.shape is None


@pytest.mark.parametrize(
    ('target', 'dtype', 'shape'),
    [
        (np.arange(3, dtype=np.uint8), np.int64, ()),
        (np.arange(3.0), np.float32, ()),
        (np.zeros((3, 4)), np.float32, (4,)),
        (np.zeros((3, 16), bool), np.int64, (16,)),
    ],
)
def test_targets_keep_their_kind(target, dtype, shape):
    found = make(np.zeros((3, 1, 16)), target).item(1, None)['target']
    assert found.dtype == dtype
    assert found.shape == shape


def test_names_of_classes_become_numbers():
    data = ArrayData(np.zeros((4, 1, 8)), np.array(['dog', 'cat', 'dog', 'ant']), split=Split(0, 0))
    data.setup()
    assert data.facts['classes'] == ['ant', 'cat', 'dog']
    assert [int(data.train.item(index, None)['target']) for index in range(4)] == [2, 1, 2, 0]


def test_names_of_classes_may_stand_in_any_format(tmp_path):
    names = ['dog', 'cat', 'dog', 'ant']
    with h5py.File(tmp_path / 'y.h5', 'w') as file:
        file['free'], file['fixed'] = names, np.array(names, 'S')
    (tmp_path / 'y.csv').write_text('kind\n' + '\n'.join(names))
    places = [f'{tmp_path}/y.h5::free', f'{tmp_path}/y.h5::fixed', f'{tmp_path}/y.csv']
    for place in [*places, np.array(names, 'S')]:
        data = ArrayData(np.zeros((4, 1, 8)), place, split=Split(0, 0))
        data.setup()
        assert data.classes == ['ant', 'cat', 'dog']
        assert [int(data.train.item(index, None)['target']) for index in range(4)] == [2, 1, 2, 0]
    data = ArrayData(np.zeros((4, 1, 8)), np.array(names), classes=['cat', 'dog'], split=Split(0, 0))
    with pytest.raises(DataError, match=r"array\[3\]: its class 'ant' is none of \['cat', 'dog'\]"):
        data.setup()


def test_holes_in_targets_are_marked():
    target = np.array([[1.0, np.nan, 3.0]], np.float32)
    item = make(np.zeros((1, 1, 3)), target, missing=True).item(0, None)
    np.testing.assert_array_equal(item['known'], [True, False, True])
    np.testing.assert_array_equal(item['target'], [1, 0, 3])


def test_samples_without_channel_get_one():
    data = ArrayData(np.zeros((20, 6, 7)), order=2)
    data.setup()
    assert data.train.shape == (1, 6, 7)
    assert data.train.item(0, None)['input'].shape == (1, 6, 7)
    assert data.facts['normalisation'] == {'mean': [0.0], 'std': [1.0]}


@pytest.mark.parametrize(
    ('inputs', 'targets', 'view', 'text'),
    [
        (np.zeros((2, 8)), None, {}, r'its shape is \(8,\), but samples are \(C, L1\)'),
        (np.zeros((2, 1, 8)), None, {'order': 3}, r'its shape is \(1, 8\).*order=3 was given'),
        (
            np.zeros((2, 1, 8)),
            None,
            {'crop': (9,)},
            r'a window of \(9,\) does not fit into a sample of spatial size \(8,\)',
        ),
        (np.zeros((2, 1, 8)), None, {'crop': (4, 4)}, r'a window of \(4, 4\) does not fit'),
        (np.array([[['a', 'b']]]), None, {}, 'its values are of type <U1, not numbers'),
        (np.zeros((2, 1, 8), complex), None, {}, 'its values are of type complex128'),
        (np.zeros((1, 1, 8)), np.array([1j]), {}, r'its target array\[0\] is of type complex128'),
    ],
)
def test_samples_that_cannot_be_used(inputs, targets, view, text):
    with pytest.raises(DataError, match=text):
        make(inputs, targets, **view).item(0, np.random.default_rng(0))


def test_flip_of_an_axis_that_is_not_there():
    with pytest.raises(DataError, match=r'flip=\[1\] names an axis that samples of 1 axes do not have'):
        make(np.zeros((1, 1, 8)), augmentation=Augmentation(flip=[1])).item(0, np.random.default_rng(0))


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'batch_size': 0}, 'batch_size=0'),
        ({'overlap': 1.0}, r'overlap=1\.0'),
        ({'crop': [4], 'patch': [4]}, r'crop=\[4\]'),
        ({'order': 4}, 'order=4 must be 1'),
    ],
)
def test_options_out_of_range(options, text):
    with pytest.raises(ValueError, match=text):
        ArrayData(np.zeros((4, 1, 8)), **options)


def test_new_inputs_need_no_training_data_and_get_no_noise():
    data = ArrayData('gone.npy', predict=np.ones((3, 1, 8)), corruption=1.0)
    data.setup('predict')
    np.testing.assert_array_equal(data.predict.item(2, None)['input'], np.ones((1, 8)))


def test_shapes_that_cannot_be_samples_are_named_at_the_start():
    with pytest.raises(DataError, match=r'array\[0\]: its shape is \(8,\), but samples are'):
        ArrayData(np.zeros((20, 8))).setup()


def test_bad_samples_of_a_folder_are_named_with_file_and_number(tmp_path):
    for number in range(6):
        np.save(tmp_path / f's{number}.npy', np.zeros((2 if number == 4 else 1, 8)))
    data = ArrayData(tmp_path, np.zeros(6), batch_size=6, split=Split(0, 0), normalise=False)
    data.setup()
    with pytest.raises(SampleError, match=r'sample 4 \(s4\.npy\): its shape is \(2, 8\), but others of these'):
        list(data.train_dataloader())
    (tmp_path / 's4.npy').write_bytes(b'no array')
    with pytest.raises(SampleError, match=r'sample 4 \(s4\.npy\): '):
        list(data.train_dataloader())


def test_the_words_of_a_recipe_do_as_well_from_python():
    x = np.zeros((20, 1, 8), np.float32)
    data = ArrayData(x, split={'val': 0.2, 'test': 0.3}, augmentation={'noise': 1.0})
    data.setup()
    assert [len(data.train), len(data.val), len(data.test)] == [10, 4, 6]
    for name, wrong in (('split', {'vol': 0.1}), ('split', 3), ('augmentation', 'noise')):
        with pytest.raises(TypeError, match=f'ArrayData: {name}=.* must be of'):
            ArrayData(x, **{name: wrong})


# Samples that are not like the others.


@pytest.mark.parametrize('part', ['val', 'test'])
def test_parts_have_the_channels_and_axes_of_the_training(part):
    x = np.zeros((4, 3, 8))
    for other in (np.zeros((4, 1, 8)), np.zeros((4, 3, 8, 8))):
        with pytest.raises(DataError, match='but others of these data have 3 channels and 1 spatial axes'):
            ArrayData({'train': x, part: other}, patch=[4]).setup()
    with pytest.raises(DataError, match=rf'{part}: inputs: there are no samples'):
        ArrayData({'train': x, part: x[:0]}).setup()


def test_new_inputs_have_the_channels_of_the_training():
    data = ArrayData(np.zeros((4, 3, 8)), predict=np.zeros((2, 1, 8)))
    with pytest.raises(DataError, match=r'array\[0\]: its shape is \(1, 8\), but others of these data have 3 channels'):
        data.setup('fit')


def test_whole_samples_of_other_channels_are_named():
    samples = make([np.zeros((3, 9)), np.zeros((1, 12))], patch=(4,), training=False)
    with pytest.raises(DataError, match=r'its shape is \(1, 12\), but others of these data have 3 channels'):
        samples.item(1, None)


def test_empty_samples_are_named():
    for shape in ((4, 1, 0), (4, 0, 8)):
        with pytest.raises(DataError, match=r'array\[0\]: its shape is .*, which is empty'):
            make(np.zeros(shape))


def masks(tmp_path, *sizes):
    for folder in 'im':
        (tmp_path / folder).mkdir()
    for number, size in enumerate(sizes):
        np.save(tmp_path / f'i/{number}.npy', np.zeros((1, 8, 8), np.float32))
        np.save(tmp_path / f'm/{number}.npy', np.zeros(size, np.int64))
    return tmp_path / 'i', tmp_path / 'm'


def test_a_mask_of_another_size_than_its_image_is_named(tmp_path):
    samples = make(*masks(tmp_path, (8, 8), (8, 8), (7, 8)), training=False)
    samples.item(1, None)
    with pytest.raises(DataError, match=r'its target 2\.npy is of shape \(7, 8\), beside an input of the sizes \(8'):
        samples.item(2, None)


@pytest.mark.parametrize(
    'view',
    [{'crop': (4, 4)}, {'patch': (4, 4)}, {'augmentation': Augmentation(flip=[0])}],
    ids=['crop', 'patch', 'flip'],
)
def test_masks_that_cannot_be_cut_or_flipped_with_their_images_are_refused(view, tmp_path):
    where = masks(tmp_path, (4, 4), (4, 4))
    assert make(*where).item(0, None)['target'].shape == (4, 4)
    with pytest.raises(DataError, match=r'0\.npy: its target 0\.npy is of shape \(4, 4\), .* cannot be cropped or'):
        make(*where, **view)


def test_a_vector_beside_a_signal_is_no_map():
    item = make(np.zeros((2, 1, 8)), np.ones((2, 5)), crop=(4,)).item(0, None)
    assert (item['input'].shape, item['target'].shape) == ((1, 4), (5,))


def test_targets_that_do_not_go_into_one_batch_are_named():
    items = [
        {'input': torch.zeros(1, 8), 'target': target, 'index': number, 'name': f'x[{number}]', 'weight': 1.0}
        for number, target in enumerate((torch.tensor(1), torch.tensor(2.0)))
    ]
    assert collate(items)['error'] == (
        'sample 1 (x[1]) cannot be batched with x[0]: its target is float32 (), the other is int64 ()'
    )
    del items[1]['target']
    assert 'its target is not there, the other is int64 ()' in collate(items)['error']


def test_infinity_is_not_taken_for_missing():
    x, target = np.zeros((3, 1, 8)), np.array([1, np.inf, np.nan])
    data = ArrayData(x, target, missing=True, split=Split(0, 0), normalise=False, batch_size=1)
    data.setup()
    with pytest.raises(SampleError, match=r'\(array\[1\]\): its target contains NaN or Inf'):
        list(data.train_dataloader())


def test_a_mixture_of_names_and_numbers_is_named():
    names, numbers = np.array(['a', 'b']), np.array([0, 1])
    x = np.zeros((2, 1, 8))
    with pytest.raises(DataError, match='the targets of train are names of classes, those of test are numbers'):
        ArrayData({'train': x, 'test': x}, {'train': names, 'test': numbers}).setup()
    with pytest.raises(DataError, match=r"array\[0\]: its class 'a' is none of \['b', 'c'\]"):
        ArrayData(x, names, classes=['b', 'c']).setup()


def test_names_that_stand_only_in_one_part_are_classes_too():
    x = np.zeros((2, 1, 8))
    data = ArrayData(
        {'train': x, 'test': x}, {'train': np.array(['b', 'c']), 'test': np.array(['a', 'b'])}, split=Split(0, 0)
    )
    data.setup()
    assert data.classes == ['a', 'b', 'c']
    assert [int(data.test.item(number, None)['target']) for number in range(2)] == [0, 1]


# What the statistics count.


def test_samples_that_are_skipped_do_not_count_in_the_normalisation():
    x, y = np.zeros((4, 1, 8)), np.array([1.0, 3.0, 100.0, np.nan])
    x[1:] += np.array([2.0, 50.0, 70.0])[:, None, None]
    x[2, 0, 0] = np.nan
    data = ArrayData(x, y, nonfinite='skip', split=Split(0, 0))
    data.setup()
    assert data.facts['normalisation'] == {'mean': [1.0], 'std': [1.0]}
    assert data.target_normalisation == {'mean': [2.0], 'std': [1.0]}
    # What is not known of a target makes no sample skipped.
    data = ArrayData(x, y, nonfinite='skip', missing=True, split=Split(0, 0))
    data.setup()
    assert data.facts['normalisation']['mean'] == [pytest.approx(24)]
    assert data.target_normalisation['mean'] == [2.0]
    data = ArrayData(np.full((4, 1, 8), np.nan), nonfinite='skip', split=Split(0, 0))
    data.setup()
    with pytest.raises(DataError, match='all samples of the training part contain NaN or Inf'):
        _ = data.facts


def test_samples_without_a_class_do_not_count_in_the_normalisation():
    x = np.array([1.0, 3.0, 500.0])[:, None, None] * np.ones((1, 1, 8))
    data = ArrayData(x, np.array(['a', 'b', '']), missing=True, split=Split(0, 0))
    data.setup()
    assert data.facts['normalisation'] == {'mean': [2.0], 'std': [1.0]}


def test_a_constant_channel_is_constant_in_any_precision():
    x = np.full((3, 1, 1000), 0.1, np.float32) * np.float32([[[1]], [[1]], [[1 + 2e-7]]])
    assert channel_statistics(x)['std'] == [1.0]


def test_samples_with_and_without_a_channel_axis_count_alike():
    samples = [np.full((1, 4, 4), 1.0), np.full((4, 4), 3.0)]
    for order in (samples, samples[::-1]):
        data = ArrayData(order, order=2, split=Split(0, 0))
        data.setup()
        assert data.facts['normalisation'] == {'mean': [2.0], 'std': [1.0]}
        assert data.train.item(1, None)['input'].shape == (1, 4, 4)


def test_the_training_part_is_read_once_for_its_facts(monkeypatch):
    data = ArrayData(np.random.default_rng(0).normal(size=(20, 1, 8)), np.arange(20.0))
    data.setup()
    first = data.facts, data.target_normalisation
    monkeypatch.setattr('mdnc.training.data.datamodule.read_pieces', None)
    assert (data.facts, data.target_normalisation) == first


def test_facts_may_be_asked_of_data_that_only_predict():
    x = np.random.default_rng(0).normal(3, 2, (10, 1, 8))
    data = ArrayData(x, predict=np.zeros((2, 1, 8)), split=Split(0, 0))
    data.setup('predict')
    assert data.facts['normalisation']['mean'] == [pytest.approx(x.mean())]
    assert len(data.predict) == 2
