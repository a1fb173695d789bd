"""What augmentation does, beside what scipy gives for the same."""

import numpy as np
import pytest
import torch
from scipy import interpolate, ndimage

from mdnc.training.augmentation import intensity, spatial

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
