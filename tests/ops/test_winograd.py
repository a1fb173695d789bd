"""Convolutions by minimal filtering: their values, which convolutions take them, and what they leave alone."""

import shutil

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import mdnc
from mdnc.ops import building, convolution, winograd
from mdnc.ops.convolution import Geometry
from tests.ops.cases import laid_out

SHAPES = [
    ((3, 16, 9, 30), 48, 'rows and columns that no tile fits, few channels, products of uneven width'),
    ((8, 32, 16, 16), 32, 'whole tiles'),
    ((1, 144, 40, 41), 112, 'channels in several registers and one left over'),
    ((2, 32, 6, 17, 18), 16, 'volumes'),
    ((1, 16, 1, 40, 40), 16, 'a volume of one slice'),
    ((1, 16, 23, 31, 12), 16, 'a volume whose slices are shared out'),
]


def geometry(shape: tuple[int, ...]) -> Geometry:
    return Geometry((1,) * (len(shape) - 2), (1,) * (len(shape) - 2))


def drawn(shape: tuple[int, ...], out: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    z, g = torch.randn(shape), torch.randn(shape[0], out, *shape[2:])
    kernel = torch.randn(out, shape[1], *(3 for _ in shape[2:])) / (shape[1] * 3 ** len(shape[2:])) ** 0.5
    return laid_out(z, 'channels last'), laid_out(kernel, 'channels last'), torch.randn(out), g


def error(got: Tensor | None, want: Tensor) -> float:
    assert got is not None
    return ((got.double() - want).norm() / want.norm()).item()


@pytest.mark.parametrize('layout', ['contiguous', 'channels last'])
@pytest.mark.parametrize(('shape', 'out', 'why'), SHAPES, ids=[why for *_, why in SHAPES])
def test_values_and_gradients_are_those_of_the_convolution(shape, out, why, layout):
    z, kernel, bias, g = drawn(shape, out)
    how, g = geometry(shape), laid_out(g, layout)
    assert winograd.suits(z, kernel, how)
    wide = [each.double().requires_grad_() for each in (z, kernel, bias)]
    conv = F.conv2d if z.dim() == 4 else F.conv3d
    y = conv(*wide, padding=1)
    want = torch.autograd.grad(y, wide, g.double())
    # A direct sum in float32 is off by some 5e-7; the transforms add to that.
    assert error(winograd.forward(z, kernel, bias, how), y) < 3e-6
    got = winograd.backward(g, z, kernel, how, (True, True, True))
    assert [error(*each) < 1e-5 for each in zip(got, want, strict=True)] == [True] * 3
    assert got[0].stride() == z.stride()
    assert got[1].stride() == kernel.stride()


def test_only_what_is_needed_is_given():
    z, kernel, _, g = drawn((2, 16, 24, 24), 16)
    for needs in ((True, False, False), (False, True, False), (False, False, True)):
        got = winograd.backward(g, z, kernel, geometry(z.shape), needs)
        assert tuple(each is not None for each in got) == needs


@pytest.mark.parametrize('shape', [(2, 16, 40, 41), (2, 16, 9, 20, 21)], ids=str)
def test_threads_and_runs_change_no_bit(shape):
    z, kernel, _, g = drawn(shape, 32)
    how, before = geometry(shape), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3, 3):
            torch.set_num_threads(threads)
            found.append(
                (winograd.forward(z, kernel, None, how), *winograd.backward(g, z, kernel, how, (True, True, False)))
            )
    finally:
        torch.set_num_threads(before)
    alone, one, other = found
    assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))
    # The sums of weights' gradients are shared out by threads.
    assert torch.equal(alone[0], one[0])
    assert torch.equal(alone[1], one[1])
    assert error(one[2], alone[2].double()) < 1e-5


def test_an_infinite_value_reaches_its_surroundings_and_no_other_sample():
    z, kernel, _, _ = drawn((2, 16, 24, 24), 16)
    z[0, 3, 5, 5] = torch.inf
    y = winograd.forward(z, kernel, None, geometry(z.shape))
    assert not y[0, :, 4:7, 4:7].isfinite().any()
    assert y[1].isfinite().all()
    assert y[0, :, 12:, 12:].isfinite().all()


@pytest.mark.parametrize(
    ('shape', 'kernel', 'stride', 'padding', 'dtype', 'layout'),
    [
        ((2, 16, 24, 24), (16, 16, 3, 3), 2, 1, torch.float32, 'channels last'),
        ((2, 16, 24, 24), (16, 16, 3, 3), 1, 0, torch.float32, 'channels last'),
        ((2, 16, 24, 24), (16, 16, 5, 5), 1, 1, torch.float32, 'channels last'),
        ((2, 16, 24, 24), (16, 16, 3, 3), 1, 1, torch.float64, 'channels last'),
        ((2, 16, 24, 24), (16, 16, 3, 3), 1, 1, torch.bfloat16, 'channels last'),
        ((2, 16, 24, 24), (16, 16, 3, 3), 1, 1, torch.float32, 'contiguous'),
        ((2, 17, 24, 24), (16, 17, 3, 3), 1, 1, torch.float32, 'channels last'),
        ((2, 16, 24, 24), (2, 16, 3, 3), 1, 1, torch.float32, 'channels last'),
        ((2, 16, 8, 8), (16, 16, 3, 3), 1, 1, torch.float32, 'channels last'),
        ((40, 16, 5, 5), (16, 16, 3, 3), 1, 1, torch.float32, 'channels last'),
        ((2, 512, 24, 24), (512, 512, 3, 3), 1, 1, torch.float32, 'channels last'),
    ],
)
def test_what_it_would_not_speed_up_goes_by_shape(shape, kernel, stride, padding, dtype, layout):
    axes = len(shape) - 2
    z, weights = laid_out(torch.randn(shape).to(dtype), layout), torch.randn(kernel).to(dtype)
    how = Geometry((stride,) * axes, (padding,) * axes)
    assert not winograd.suits(z, weights, how)
    with torch.no_grad():
        assert torch.equal(winograd.forward(z, weights, None, how), convolution.forward(z, weights, None, how))


def test_networks_trained_with_it_agree_with_torch():
    torch.manual_seed(0)
    net, x = mdnc.modules.resnet.UNet2d(16, [1, 1], out_planes=2), torch.randn(2, 1, 40, 38)
    exact = mdnc.modules.resnet.UNet2d(16, [1, 1], out_planes=2, memory='plain').double()
    exact.load_state_dict(net.state_dict())
    exact_y, plain_y = exact(x.double()), net(x)
    want = torch.autograd.grad(exact_y.square().mean(), list(exact.parameters()))
    mdnc.optimize(net)
    y = net(x)
    assert error(y, exact_y) < 4 * error(plain_y, exact_y)
    got = torch.autograd.grad(y.square().mean(), list(net.parameters()))
    scale = max(each.norm() for each in want)  # of some parameters the gradient is zero but for rounding
    for mine, theirs in zip(got, want, strict=True):
        assert (mine - theirs).norm() < 1e-3 * theirs.norm() + 1e-6 * scale


def test_code_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path):
    wrong = tmp_path / 'winograd.cpp'
    shutil.copy(winograd.SOURCE.parent / 'vectors.h', tmp_path)
    wrong.write_text(winograd.SOURCE.read_text().replace('to[step] = A * off_a', 'to[step] = B * off_a'))
    monkeypatch.setattr(winograd, 'SOURCE', wrong)
    monkeypatch.setattr(building, '_warned', [])
    monkeypatch.setenv(building.CACHE_VARIABLE, str(tmp_path))
    winograd.built.cache_clear()
    try:
        with pytest.warns(UserWarning, match='torch runs what winograd.cpp would, uncompiled: ArithmeticError'):
            assert winograd.built() is None
        z, kernel, _, _ = drawn((2, 16, 24, 24), 16)
        assert not winograd.suits(z, kernel, geometry(z.shape))
    finally:
        winograd.built.cache_clear()
