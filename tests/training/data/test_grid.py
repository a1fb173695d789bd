"""Axes and spacing of files: volumes turned, samples brought to one spacing or size, and all of it undone."""

import itertools

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.data.folders import array, names, opened, picture

from mdnc.training.data import DataError, Grid
from mdnc.training.data.grid import grid_of
from mdnc.training.data.sources import open_reader

SIZE = (4, 5, 6)


def volume(path, values, affine=None, spacing=(1, 1, 1)):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*spacing, 1.0]) if affine is None else affine
    nibabel.Nifti1Image(values, affine).to_filename(path)


def turned(codes, spacing=(0.5, 2, 3)):
    """An affine of a file whose axes run to these sides."""
    affine = np.zeros((4, 4))
    for axis, code in enumerate(codes):
        row = ['RL', 'AP', 'SI'].index(next(pair for pair in ('RL', 'AP', 'SI') if code in pair))
        affine[row, axis] = spacing[axis] * (1 if code in 'RAS' else -1)
    affine[3, 3] = 1
    return affine


@pytest.mark.parametrize('suffix', ['.nii', '.nii.gz'])
@pytest.mark.parametrize('codes', ['RAS', 'LPS', 'PIR', 'SLA', 'IAL'])
def test_volumes_are_read_towards_ras_and_given_back_in_their_files_axes(codes, suffix, tmp_path):
    values = np.random.default_rng(0).normal(size=(*SIZE, 2)).astype(np.float32)
    volume(tmp_path / f'v/a{suffix}', values, turned(codes))
    reader = open_reader(f'{tmp_path}/v')
    canonical = nibabel.as_closest_canonical(nibabel.load(tmp_path / f'v/a{suffix}'))
    expected = np.moveaxis(np.asarray(canonical.dataobj), -1, 0)
    assert reader.shape(0) == expected.shape
    np.testing.assert_array_equal(reader.read(0), expected)
    window = (slice(1, 3), slice(0, 2), slice(2, None))
    np.testing.assert_array_equal(reader.read(0, window), expected[(slice(None), *window)])
    grid = grid_of(reader, 0)
    assert grid.size == SIZE and grid.spacing == (0.5, 2, 3)
    np.testing.assert_array_equal(grid.affine, turned(codes))
    assert grid.distances == pytest.approx(canonical.header.get_zooms()[:3])
    np.testing.assert_array_equal(np.moveaxis(grid.restore(reader.read(0)), 0, -1), values)


def test_volumes_of_whole_numbers_stay_so_and_scaled_ones_are_floats(tmp_path):
    volume(tmp_path / 'm/a.nii.gz', np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    assert open_reader(f'{tmp_path}/m').read(0).dtype == np.uint8
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    for suffix in ('nii', 'nii.gz'):
        (tmp_path / suffix).mkdir()
        image.to_filename(tmp_path / suffix / f'a.{suffix}')
        read = open_reader(f'{tmp_path / suffix}').read(0)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, nibabel.load(tmp_path / suffix / f'a.{suffix}').get_fdata()[None])


@pytest.mark.parametrize('shape', [(5, 4), (5, 4, 3, 1, 2)])
def test_planes_and_vectors(shape, tmp_path):
    volume(tmp_path / 'v/a.nii', np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    reader = open_reader(f'{tmp_path}/v')
    assert reader.shape(0) == reader.read(0).shape == ((1, 5, 4) if len(shape) == 2 else (2, 5, 4, 3))


def test_volumes_are_paired_by_names_without_their_two_suffixes(tmp_path):
    for number in (1, 2):
        volume(tmp_path / f'img/case_{number}.nii.gz', np.full(SIZE, number, np.float32))
        volume(tmp_path / f'seg/case_{number}.nii', np.full(SIZE, number, np.uint8))
    data = opened(f'{tmp_path}/img', f'{tmp_path}/seg')
    assert names(data.train) == ['case_1.nii.gz', 'case_2.nii.gz']
    item = data.train.item(1, None)
    assert item['input'].shape == (1, *SIZE) and item['input'].flat[0] == item['target'].flat[0] == 2
    assert data.train.file(1) == 'case_2.nii.gz' and data.train.grid(1).size == SIZE
    assert data.facts['spacing'] == [1, 1, 1]


# Of ramps linear sampling is exact, but for the ends, beyond which nothing is known.
@pytest.mark.parametrize('spacing', [(0.5, 2.0, 1.5), (2.0, 1.0, 3.0), (0.25, 0.5, 1.0)])
def test_volumes_are_brought_to_a_spacing_and_back(spacing, tmp_path):
    size, stored = (24, 20, 16), (1.0, 0.5, 1.5)
    ramp = np.tensordot((1.0, 2.0, 3.0), np.indices(size), 1)
    volume(tmp_path / 'v/a.nii.gz', ramp.astype(np.float32), spacing=stored)
    data = opened(f'{tmp_path}/v', spacing=list(spacing))
    found, grid = data.train.item(0, None)['input'], data.train.grid(0)
    expected = tuple(round(have * old / new) for have, old, new in zip(size, stored, spacing, strict=True))
    assert found.shape == (1, *expected) == (1, *grid.shape)
    assert grid.distances == pytest.approx(spacing) and data.facts['spacing'] == pytest.approx(spacing)
    inner = (0, *(slice(length // 4, -(length // 4)) for length in expected))
    for axis, weight in enumerate((1.0, 2.0, 3.0)):
        steps = np.diff(found[inner], axis=axis)
        np.testing.assert_allclose(steps, weight * spacing[axis] / stored[axis], rtol=1e-4)
    back = grid.restore(found)
    assert back.shape == (1, *size)
    inner = (0, *(slice(length // 3, -(length // 3)) for length in size))
    np.testing.assert_allclose(back[inner], ramp[inner[1:]], atol=1e-3)


@given(
    have=st.integers(1, 30),
    old=st.floats(0.2, 5),
    new=st.floats(0.2, 5),
    start=st.integers(0, 20),
    length=st.integers(1, 20),
)
@settings(deadline=None, max_examples=60)
def test_windows_of_resampled_samples_are_windows_of_the_whole(have, old, new, start, length):
    data = opened([np.arange(3.0 * have).reshape(3, have)], spacing=[new], stored_spacing=[old])
    reader = data.train._pair.inputs
    whole = reader.read(0)
    assert whole.shape == reader.shape(0) and whole.min() >= 0 and whole.max() <= 3 * have - 1
    window = slice(min(start, whole.shape[1] - 1), start + length)
    np.testing.assert_array_equal(reader.read(0, (window,)), whole[:, window])
    assert reader.grid(0).restore(whole).shape == (3, have)


def test_fine_stripes_do_not_turn_coarse_where_values_get_fewer():
    stripes = np.tile([0.0, 1.0], 300)[None]
    found = opened([stripes], resize=[90]).train.item(0, None)['input']
    np.testing.assert_allclose(found[0, 2:-2], 0.5, atol=0.1)


def test_class_maps_are_sampled_without_new_classes_and_quantities_between(tmp_path):
    for number in (1, 2):
        array(tmp_path / f'x/{number}.npy', 1, (1, 8, 6 * number))
    classes = np.random.default_rng(0).choice([0, 4, 9], (8, 6))
    for kind, first in (('classes', classes), ('quantities', classes / 1.0)):
        (tmp_path / kind).mkdir()
        np.save(tmp_path / kind / '1.npy', first)
        np.save(tmp_path / kind / '2.npy', np.tile(first, 2))
    for kind in ('classes', 'quantities'):
        data = opened(f'{tmp_path}/x', f'{tmp_path}/{kind}', resize=[16, 15])
        items = [data.train.item(number, None) for number in range(2)]
        assert {item['input'].shape for item in items} == {(1, 16, 15)}
        assert {item['target'].shape for item in items} == {(16, 15)}
        new = set(np.unique([item['target'] for item in items])) - {0, 4, 9}
        assert (not new) == (kind == 'classes')
    grid = opened(f'{tmp_path}/x', f'{tmp_path}/classes', resize=[32, 24]).train.grid(0)
    large = np.kron(classes, np.ones((4, 4), int))
    np.testing.assert_array_equal(grid.restore(large, nearest=True), classes)


def test_targets_that_are_no_maps_are_left_alone(tmp_path):
    for number in (1, 2):
        picture(tmp_path / f'x/{number}.png', number, (8, 4 * number))
    data = opened(f'{tmp_path}/x', np.array([[1.5, 2], [3, 4]]), resize=[8, 8])
    assert [data.train.item(number, None)['target'].tolist() for number in (0, 1)] == [[1.5, 2], [3, 4]]


def test_new_samples_are_read_like_those_of_the_training(tmp_path):
    volume(tmp_path / 'v/a.nii', np.ones((8, 8, 8), np.float32), spacing=(2, 2, 2))
    volume(tmp_path / 'new/b.nii', np.ones((4, 4, 4), np.float32), spacing=(4, 4, 4))
    data = opened(f'{tmp_path}/v', spacing=[1, 1, 1], predict=f'{tmp_path}/new')
    assert data.predict.item(0, None)['input'].shape == (1, 16, 16, 16)
    assert data.facts['reading'] == {'spacing': [1.0, 1.0, 1.0]}
    assert data.predict.grid(0).restore(np.ones((16, 16, 16))).shape == (4, 4, 4)


def test_what_does_not_fit_is_named(tmp_path):
    array(tmp_path / 'x/a.npy', 1, (1, 8, 8))
    for options, error in (
        (
            {'spacing': [1.0, 1.0]},
            r'a\.npy: nothing says its spacing, .* spacing=\[1\.0, 1\.0\]: say',
        ),
        ({'resize': [4]}, r'its shape is \(1, 8, 8\), but resize=\[4\] is of 1 spatial axes'),
        ({'resize': [4, 4, 4, 4]}, r'resize=\[4, 4, 4, 4\] must be one length for each of 1, 2 or 3'),
        ({'resize': [4, 0]}, r'resize=\[4, 0\]'),
        ({'spacing': [1, -1]}, r'spacing=-1 must be a finite number above 0'),
        ({'spacing': 2.0}, r'spacing=2\.0 must be one distance for each of 1, 2 or 3'),
        ({'spacing': [1], 'resize': [1]}, r'spacing=\[1\] and resize=\[1\] exclude each other'),
        ({'spacing': [1], 'stored_spacing': [1, 1]}, 'must have one value per axis'),
    ):
        with pytest.raises(ValueError, match=error):
            opened(f'{tmp_path}/x', **options)
    with pytest.raises(ValueError, match=r'Grid\.restore: values are \(2, 3\), which does not end in \(3, 2\)'):
        Grid((3, 2)).restore(np.zeros((2, 3)))


def test_damaged_volumes_are_named(tmp_path):
    volume(tmp_path / 'v/a.nii.gz', np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32))
    volume(tmp_path / 'w/a.nii', np.ones((16, 16, 16), np.float32))
    for path in ('v/a.nii.gz', 'w/a.nii'):
        whole = (tmp_path / path).read_bytes()
        for held in (b'', b'no volume', whole[:200], whole[: len(whole) // 2]):
            (tmp_path / path).write_bytes(held)
            with pytest.raises(DataError, match=r'a\.nii.*damaged, cut short or of another kind'):
                opened(f'{tmp_path}/{path[0]}').facts  # noqa: B018


def test_axes_in_any_order_are_undone():
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    for axes, flips in itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)):
        seen = np.transpose(values, (0, *(axis + 1 for axis in axes)))
        seen = seen[(slice(None), *(slice(None, None, -1 if flip else None) for flip in flips))]
        np.testing.assert_array_equal(Grid((3, 4, 5), axes=axes, flips=flips).restore(seen), values)
