"""Convolutions of signals by minimal filtering: their values, which take it, and what they leave alone."""

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import mdnc
from mdnc.ops import building, convolution, winograd, winograd_1d
from mdnc.ops.convolution import Geometry
from tests.ops.cases import laid_out
from tests.ops.test_winograd import error


def geometry(stride: int) -> Geometry:
    return Geometry((stride,), (1,))


def drawn(shape: tuple[int, int, int], out: int, stride: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    z, g = torch.randn(shape), torch.randn(shape[0], out, (shape[2] - 1) // stride + 1)
    return laid_out(z, 'channels last'), torch.randn(out, shape[1], 3) / shape[1] ** 0.5, torch.randn(out), g


def check(shape: tuple[int, int, int], out: int, stride: int, layout: str = 'contiguous') -> None:
    z, kernel, bias, g = drawn(shape, out, stride)
    g, how = laid_out(g, layout), geometry(stride)
    assert winograd_1d.suits(z, kernel, how)
    wide = [each.double().requires_grad_() for each in (z, kernel, bias)]
    y = F.conv1d(*wide, stride=stride, padding=1)
    want = torch.autograd.grad(y, wide, g.double())
    assert error(winograd.forward(z, kernel, bias, how), y) < 2e-6
    got = winograd.backward(g, z, kernel, how, (True, True, True))
    assert [error(*each) < 5e-6 for each in zip(got, want, strict=True)] == [True] * 3
    assert [each.stride() for each in got[:2]] == [z.stride(), kernel.stride()]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(2, 40), st.sampled_from((1, 2)), st.booleans()
)
def test_values_and_gradients_are_those_of_the_convolution_at_any_length(samples, ins, outs, length, stride, last):
    check((samples, 16 * ins, length), 16 * outs, stride, 'channels last' if last else 'contiguous')


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize(
    ('shape', 'out'),
    [((3, 16, 700), 48), ((1, 272, 33), 256), ((9, 144, 260), 176), ((2, 512, 61), 272), ((2, 272, 2100), 256)],
    ids=['few weights', 'many', 'many, of several stretches', 'many, channels left over', 'many, threads share tiles'],
)
def test_and_whatever_is_shared_out(shape, out, stride):
    check(shape, out, stride)


def test_weights_may_lie_with_their_channels_innermost():
    z, kernel, _, g = drawn((2, 32, 21), 48, 2)
    other = laid_out(kernel, 'channels last')
    for a, b in zip(
        (
            winograd_1d.forward(z, kernel, None, geometry(2)),
            *winograd_1d.backward(g, z, kernel, geometry(2), (True,) * 3),
        ),
        (
            winograd_1d.forward(z, other, None, geometry(2)),
            *winograd_1d.backward(g, z, other, geometry(2), (True,) * 3),
        ),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_only_what_is_needed_is_given():
    z, kernel, _, g = drawn((2, 16, 24), 16, 1)
    for needs in ((True, False, False), (False, True, False), (False, False, True)):
        got = winograd.backward(g, z, kernel, geometry(1), needs)
        assert tuple(each is not None for each in got) == needs


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize(('shape', 'out'), [((2, 16, 1000), 32), ((3, 256, 130), 256)], ids=str)
def test_threads_and_runs_change_no_bit(shape, out, stride):
    z, kernel, _, g = drawn(shape, out, stride)
    how, before, found = geometry(stride), torch.get_num_threads(), []
    try:
        for threads in (1, 3, 3):
            torch.set_num_threads(threads)
            got = winograd.backward(g, z, kernel, how, (True, True, False))
            found.append((winograd.forward(z, kernel, None, how), *got[:2]))
    finally:
        torch.set_num_threads(before)
    alone, one, other = found
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(alone[:2], one[:2], strict=True))
    assert error(one[2], alone[2].double()) < 1e-5  # the sums of weights' gradients may be shared out by threads


@pytest.mark.parametrize('stride', [1, 2])
def test_an_infinite_value_reaches_its_surroundings_and_no_other_sample(stride):
    z, kernel, _, _ = drawn((2, 16, 64), 16, stride)
    z[0, 3, 5] = torch.inf
    y = winograd.forward(z, kernel, None, geometry(stride))
    assert not y[0, :, 4 // stride : 6 // stride + 1].isfinite().any()
    assert y[1].isfinite().all()
    assert y[0, :, 24 // stride :].isfinite().all()


@pytest.mark.parametrize(
    ('shape', 'kernel', 'how', 'dtype', 'layout'),
    [
        ((2, 16, 24), (16, 16, 3), Geometry((3,), (1,)), torch.float32, 'channels last'),
        ((2, 16, 24), (16, 16, 3), Geometry((1,), (0,)), torch.float32, 'channels last'),
        ((2, 16, 24), (16, 16, 5), Geometry((1,), (1,)), torch.float32, 'channels last'),
        ((2, 16, 24), (16, 16, 3), Geometry((1,), (1,)), torch.float64, 'channels last'),
        ((2, 16, 24), (16, 16, 3), Geometry((1,), (1,)), torch.bfloat16, 'channels last'),
        ((2, 16, 24), (16, 16, 3), Geometry((1,), (1,)), torch.float32, 'contiguous'),
        ((2, 17, 24), (16, 17, 3), Geometry((1,), (1,)), torch.float32, 'channels last'),
        ((2, 16, 24), (2, 16, 3), Geometry((2,), (1,)), torch.float32, 'channels last'),
        ((2, 32, 24), (32, 16, 3), Geometry((1,), (1,), groups=2), torch.float32, 'channels last'),
        ((1, 1024, 12), (512, 1024, 3), Geometry((1,), (1,)), torch.float32, 'channels last'),
    ],
)
def test_what_it_would_not_speed_up_goes_by_shape(shape, kernel, how, dtype, layout):
    z, weights = laid_out(torch.randn(shape).to(dtype), layout), torch.randn(kernel).to(dtype)
    assert not winograd_1d.suits(z, weights, how)
    with torch.no_grad():
        assert torch.equal(winograd.forward(z, weights, None, how), convolution.forward(z, weights, None, how))


def test_networks_trained_with_it_agree_with_torch():
    torch.manual_seed(0)
    net, x = mdnc.modules.resnet.EncoderNet1d(16, [2, 1], in_planes=2, out_length=3), torch.randn(2, 2, 301)
    exact = mdnc.modules.resnet.EncoderNet1d(16, [2, 1], in_planes=2, out_length=3, memory='plain').double()
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


@pytest.mark.parametrize('part', ['to[1] = A * off_a', 'to[step] = 0.5f * m[1]', 'to[2] = g[0] - g[1]'])
def test_code_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path, part):
    wrong, source = tmp_path / 'winograd_1d.cpp', winograd_1d.SOURCE.read_text()
    assert source.count(part) == 1
    shutil.copy(winograd_1d.SOURCE.parent / 'vectors.h', tmp_path)
    wrong.write_text(source.replace(part, f'{part} * 1.01f'))
    monkeypatch.setattr(winograd_1d, 'SOURCE', wrong)
    monkeypatch.setattr(building, '_warned', [])
    monkeypatch.setenv(building.CACHE_VARIABLE, str(tmp_path))
    winograd_1d.built.cache_clear()
    try:
        with pytest.warns(UserWarning, match='torch runs what winograd_1d.cpp would, uncompiled: ArithmeticError'):
            assert winograd_1d.built() is None
        z, kernel, _, _ = drawn((2, 16, 24), 16, 1)
        assert not winograd_1d.suits(z, kernel, geometry(1))
    finally:
        winograd_1d.built.cache_clear()
