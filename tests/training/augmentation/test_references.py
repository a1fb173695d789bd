"""What augmentation does, beside what scipy and batchgeneratorsv2 (of nnU-Net) give for the same."""

import numpy as np
import pytest
import torch
from scipy import interpolate, ndimage

from mdnc.training.augmentation import Augmentation, intensity, spatial

SIZES = [(40,), (24, 19), (12, 10, 9)]
RNG = np.random.default_rng(0)


def _values(size, channels=2):
    smooth = ndimage.gaussian_filter(RNG.normal(size=(2, channels, *size)), (0, 0, *(1.5,) * len(size)))
    return torch.from_numpy(smooth.astype('f4'))


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_rotation_scaling_and_shift_are_an_affine_map(size):
    order, x = len(size), _values(size)
    angles = torch.tensor([[0.3, -0.2, 0.5], [-0.4, 0.1, 0.2]])[:, : 3 if order == 3 else 1]
    linear = spatial.rotations(angles, order) / torch.tensor([0.8, 1.3])[:, None, None]
    shift = torch.tensor([[1.5, -2.0, 0.5], [-3.25, 0.0, 1.0]])[:, :order]
    found = spatial.resampled(x, spatial.positions(size, linear, shift))
    middle = (np.array(size) - 1) / 2
    for row in range(2):
        matrix = linear[row].double().numpy()
        offset = middle + shift[row].numpy() - matrix @ middle
        for channel in range(2):
            due = ndimage.affine_transform(x[row, channel].double().numpy(), matrix, offset, order=1, mode='mirror')
            np.testing.assert_allclose(found[row, channel], due, atol=2e-5)


def test_a_quarter_turn_is_exact():
    x = torch.arange(25.0).view(1, 1, 5, 5)
    turn = spatial.rotations(torch.tensor([[torch.pi / 2]]), 2)
    found = spatial.resampled(x, spatial.positions((5, 5), turn, torch.zeros(1, 2)), nearest=True)
    assert torch.equal(found[0, 0], torch.rot90(x[0, 0])) or torch.equal(found[0, 0], torch.rot90(x[0, 0], -1))


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_a_deformation_is_that_of_map_coordinates(size):
    order, x = len(size), _values(size)
    moved = spatial.smooth(torch.from_numpy(RNG.normal(size=(2, order, *(spatial.KNOTS,) * order)).astype('f4')), size)
    places = spatial.positions(size, torch.eye(order).expand(2, order, order), torch.zeros(2, order), moved)
    found = spatial.resampled(x, places)
    nearest = spatial.resampled((x > 0).double(), places.double(), nearest=True)
    for row in range(2):
        due = ndimage.map_coordinates(x[row, 0].double().numpy(), places[row].numpy(), order=1, mode='mirror')
        np.testing.assert_allclose(found[row, 0], due, atol=2e-5)
        due = ndimage.map_coordinates((x[row, 0] > 0).double().numpy(), places[row].numpy(), order=0, mode='mirror')
        assert (nearest[row, 0].numpy() == due).mean() > 0.99, 'but for positions in the middle of two'


def test_a_smooth_curve_is_a_b_spline():
    knots = torch.from_numpy(RNG.normal(size=(1, 1, spatial.KNOTS)))
    spline = interpolate.BSpline(np.arange(-3, spatial.CELLS + 4), knots[0, 0].numpy(), 3)
    due = spline(np.linspace(0, spatial.CELLS, 30))
    np.testing.assert_allclose(spatial.smooth(knots.float(), [30])[0, 0], due, atol=1e-5)


def test_a_time_warp_holds_the_ends_and_runs_forwards():
    moved = spatial.stretched(torch.from_numpy(RNG.normal(0, 0.5, (3, 1, spatial.KNOTS)).astype('f4')), [50])
    places = moved[:, 0] + torch.arange(50)
    torch.testing.assert_close(places[:, [0, -1]], torch.tensor([[0.0, 49.0]]).expand(3, 2))
    assert (places.diff(dim=1) > 0).all() and moved.abs().max() > 1


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_blur_is_a_gaussian_filter(size):
    x, deviation = _values(size), torch.tensor([[0.5, 1.0], [1.5, 0.7]])
    found = intensity.blurred(x, deviation)
    for row, channel in np.ndindex(2, 2):
        due = ndimage.gaussian_filter(
            x[row, channel].double().numpy(), float(deviation[row, channel]), mode='mirror', truncate=4.0
        )
        np.testing.assert_allclose(found[row, channel], due, atol=1e-5)


def test_a_blur_may_differ_along_the_axes():
    x, deviation = _values((24, 19)), torch.tensor([[[0.5, 1.0], [1.5, 0.7]], [[0.6, 0.6], [0.9, 2.0]]])
    found = intensity.blurred(x, deviation)
    for row, channel in np.ndindex(2, 2):
        sigma = deviation[row, channel].double().tolist()
        due = ndimage.gaussian_filter(x[row, channel].double().numpy(), sigma, mode='mirror', truncate=4.0)
        np.testing.assert_allclose(found[row, channel], due, atol=1e-5)


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_low_resolution_is_nearest_down_and_linear_up(size):
    x, share = _values(size), torch.tensor([[0.5, 1.0], [0.61, 0.8]])
    found = intensity.coarsened(x, share)
    mode = ('linear', 'bilinear', 'trilinear')[len(size) - 1]
    for row, channel in np.ndindex(2, 2):
        low = [max(1, round(length * float(share[row, channel]))) for length in size]
        small = torch.nn.functional.interpolate(x[row, channel][None, None], low, mode='nearest-exact')
        due = torch.nn.functional.interpolate(small, size, mode=mode)[0, 0]
        torch.testing.assert_close(found[row, channel], due, atol=1e-5, rtol=1e-5)


def test_brightness_contrast_and_gamma_are_what_they_say():
    x, factor = _values((30,)), torch.tensor([[0.5, 1.2], [2.0, 0.8]])
    v, f = x.double().numpy(), factor.double().numpy()[..., None]
    mean, std = v.mean(2, keepdims=True), v.std(2, keepdims=True)
    low, high = v.min(2, keepdims=True), v.max(2, keepdims=True)
    np.testing.assert_allclose(intensity.brightened(x, factor), v * f, rtol=1e-5)
    np.testing.assert_allclose(intensity.contrasted(x, factor), np.clip((v - mean) * f + mean, low, high), atol=1e-5)
    bent = ((v - low) / (high - low)) ** f
    due = (bent - bent.mean(2, keepdims=True)) / bent.std(2, keepdims=True) * std + mean
    np.testing.assert_allclose(intensity.curved(x, factor), due, atol=1e-4)
    np.testing.assert_allclose(intensity.curved(x, factor, inverted=True), -intensity.curved(-x, factor), atol=1e-6)


def test_a_box_has_its_share_and_takes_the_mean():
    share, start = torch.tensor([[0.5, 0.25], [0.0, 0.5]]), torch.tensor([[0.0, 0.99], [0.5, 0.5]])
    inside = intensity.box(torch.Size([10, 8]), share, start)
    assert inside.flatten(1).sum(1).tolist() == [10, 0]
    assert inside[0, :5, 6:].all()
    x = _values((10, 8))
    found = intensity.masked(x, inside)
    assert torch.equal(found[1], x[1])
    torch.testing.assert_close(found[0, :, :5, 6:], x[0].mean((1, 2))[:, None, None].expand(2, 5, 2))


# ---- batchgeneratorsv2, installed without what it requires for its own comparisons ----

TWO = torch.tensor([0, 1])  # channels
FACTORS = torch.tensor([0.8, 1.3])


def _of_nnunet(module, name, x, parameters, *arguments):
    """One of its transforms on a sample, with parameters given by hand."""
    transforms = pytest.importorskip(f'batchgeneratorsv2.transforms.{module}')
    return getattr(transforms, name)(*arguments)._apply_to_image(x.clone(), **parameters)


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
@pytest.mark.parametrize('inverted', [False, True])
def test_gamma_is_that_of_nnunet(size, inverted):
    x = _values(size)
    parameters = {'gamma': FACTORS, 'retain_stats': [True, True], 'invert_image': [inverted, inverted]}
    due = _of_nnunet(
        'intensity.gamma', 'GammaTransform', x[0], {'apply_to_channel': TWO, **parameters}, 1, 0, False, 1, 1
    )
    torch.testing.assert_close(intensity.curved(x[:1], FACTORS[None], inverted)[0], due, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_contrast_brightness_and_low_resolution_are_those_of_nnunet(size):
    x, few = _values(size), {'apply_to_channel': TWO}
    stretched = {**few, 'multipliers': FACTORS}
    due = _of_nnunet('intensity.contrast', 'ContrastTransform', x[0], stretched, 1, True, False)
    torch.testing.assert_close(intensity.contrasted(x[:1], FACTORS[None])[0], due, atol=1e-6, rtol=1e-5)
    due = _of_nnunet('intensity.brightness', 'MultiplicativeBrightnessTransform', x[0], stretched, 1, False)
    torch.testing.assert_close(intensity.brightened(x[:1], FACTORS[None])[0], due)
    share = torch.tensor([0.5, 0.83])
    coarse = {**few, 'scales': share[:, None].expand(-1, len(size))}
    due = _of_nnunet('spatial.low_resolution', 'SimulateLowResolutionTransform', x[0], coarse, 1, False, True, None)
    torch.testing.assert_close(intensity.coarsened(x[:1], share[None])[0], due, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('size', SIZES, ids=['1d', '2d', '3d'])
def test_blur_is_that_of_nnunet(size):
    x = _values(size)
    sigma = torch.tensor([[0.5, 0.9, 0.7], [1.0, 0.6, 0.8]])[:, : len(size)]
    parameters = {'apply_to_channel': [True, True], 'sigmas': sigma.tolist()}
    due = _of_nnunet('noise.gaussian_blur', 'GaussianBlurTransform', x[0], parameters)
    found = intensity.blurred(x[:1], sigma[None])[0]
    # It cuts at about 3 standard deviations, where the Gaussian is a hundredth of its top.
    torch.testing.assert_close(found, due, atol=0.01 * float(x.abs().max()), rtol=0)
    assert (found - x[0]).abs().max() > 10 * (found - due).abs().max()


@pytest.mark.parametrize('size', SIZES[1:], ids=['2d', '3d'])
def test_flips_and_affine_maps_are_those_of_nnunet(size):
    x, order = _values(size), len(size)
    due = _of_nnunet('spatial.mirroring', 'MirrorTransform', x[0], {'axes': [0, order - 1]}, (0, 1))
    axes = torch.tensor([[True, *[False] * (order - 2), True]])
    assert torch.equal(spatial.flipped(x[:1], axes)[0], due)
    transforms = pytest.importorskip('batchgeneratorsv2.transforms.spatial.spatial')
    words = {'p_rotation': 1, 'rotation': 0.3, 'p_scaling': 1, 'scaling': 1.25, 'p_synchronize_scaling_across_axes': 1}
    transform = transforms.SpatialTransform(size, 0, False, **words)
    parameters = transform.get_parameters(image=x[0])
    linear = torch.from_numpy(parameters['affine']).float()[None]
    places = spatial.positions(size, linear, torch.zeros(1, order))
    # Beyond the ends ours are mirrored, and its are 0.
    inside = torch.stack([(places[0, axis] >= 0) & (places[0, axis] <= size[axis] - 1) for axis in range(order)]).all(0)
    assert 0.3 < inside.double().mean() < 1
    found = spatial.resampled(x[:1], places)[0]
    due = transform._apply_to_image(x[0].clone(), **parameters)
    torch.testing.assert_close(found[:, inside], due[:, inside], atol=1e-5, rtol=1e-4)


def test_what_nnunet_calls_the_variance_of_noise_is_its_standard_deviation():
    parameters = {'num_apply': 1, 'apply_idx': torch.tensor([0]), 'sigmas': 0.1}
    module, name = 'intensity.gaussian_noise', 'GaussianNoiseTransform'
    torch.manual_seed(0)
    noise = _of_nnunet(module, name, torch.zeros(1, 100_000), parameters, (0, 0.1), 1, True)
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
    assert Augmentation(preset='volume').strength('noise') == [0.0, 0.1]
