"""Convolutions to few channels as products of their taps: values, gradients, which take it, and what it takes."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mdnc.modules.resnet import UNet2d
from mdnc.ops import convolution
from mdnc.ops.backend import OPTIMIZED, TABLE
from mdnc.ops.convolution import Geometry
from mdnc.ops.limits import LIMITS
from mdnc.ops.optimization import optimize
from tests.ops.cases import laid_out

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
ANY_SIZE = convolution.TORCH._replace(limits=LIMITS._replace(tap_products=0))


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    order = draw(st.integers(1, 3))
    widths = [draw(st.integers(1, 5)) for _ in range(order)]
    widths[draw(st.integers(0, order - 1))] = draw(st.integers(2, 5))
    out, padding = draw(st.integers(1, 4)), [draw(st.integers(0, width // 2)) for width in widths]
    rest = out
    for width in widths[1:]:
        rest *= width
    return {
        'shape': (
            draw(st.integers(1, 3)),
            max(2, rest) + draw(st.integers(0, 9)),
            *(draw(st.integers(5, 9)) for _ in widths),
        ),
        'kernel': (out, *widths),
        'geometry': Geometry(tuple(draw(st.integers(1, 4)) for _ in widths), tuple(padding)),
        'layout': draw(st.sampled_from(['contiguous', 'channels last'])),
        'dtype': draw(st.sampled_from([torch.float32, torch.float64])),
        'seed': draw(st.integers(0, 99)),
    }


@given(case=cases())
@settings(max_examples=80, deadline=None)
def test_equals_torch(case: dict[str, Any]):
    torch.manual_seed(case['seed'])
    shape, (out, *widths), how, dtype = case['shape'], case['kernel'], case['geometry'], case['dtype']
    z = laid_out(torch.randn(shape, dtype=dtype), 'channels last')
    kernel = laid_out(torch.randn(out, shape[1], *widths, dtype=dtype), case['layout'])
    bias = torch.randn(out, dtype=dtype)
    assert convolution.route(z, kernel, how, ANY_SIZE) == 'taps'
    wanted = [each.double().contiguous().requires_grad_() for each in (z, kernel, bias)]
    want = CONV[len(widths)](*wanted, how.stride, how.padding)
    g = torch.randn(want.shape, dtype=dtype)
    grads = torch.autograd.grad(want, wanted, g.double())
    y = convolution.forward(z, kernel, bias, how, ANY_SIZE)
    got = convolution.backward(g, z, kernel, how, (True, True, True), ANY_SIZE)
    room = 1e-4 if dtype == torch.float32 else 1e-10
    for mine, theirs in zip((y, *got), (want, *grads), strict=True):
        assert mine is not None
        torch.testing.assert_close(mine.double(), theirs.detach(), rtol=room, atol=room)
    assert got[1] is not None
    assert got[1].stride() == kernel.stride()


@pytest.mark.parametrize(('channels', 'width', 'out'), [(32, 5, 1), (120, 5, 4), (1000, 5, 1), (29, 3, 3)])
def test_no_product_is_larger_than_the_input(channels: int, width: int, out: int):
    """A kernel of many taps is taken part by part, and all of it is."""
    kernel = torch.arange(out * channels * width**3).view(out, channels, width, width, width)
    parts = [*convolution._parts(kernel)]
    assert all(part[:, 0].numel() <= channels for _, part in parts)
    assert torch.equal(torch.cat([part for _, part in parts], 2), kernel)
    assert [first for first, _ in parts] == [0, *torch.tensor([part.shape[2] for _, part in parts]).cumsum(0)[:-1]]


def test_which_convolutions_take_it():
    z, how = laid_out(torch.empty(2, 32, 96, 96), 'channels last'), Geometry((1, 1), (2, 2))
    kernel = torch.empty(1, 32, 5, 5)
    assert convolution.route(z, kernel, how) == 'taps'
    assert convolution.route(z.contiguous(), kernel, how) == 'torch'
    assert convolution.route(z[:, :, :20, :20].contiguous(memory_format=torch.channels_last), kernel, how) == 'torch'
    assert convolution.route(z, kernel.expand(5, -1, -1, -1), how) == 'torch'
    assert convolution.route(z, torch.empty(1, 16, 5, 5), how._replace(groups=2)) == 'torch'
    assert convolution.route(z.bfloat16(), kernel.bfloat16(), how) == 'torch'
    without = convolution.TORCH._replace(routes=convolution.ROUTES - {'taps'})
    assert convolution.route(z, kernel, how, without) == 'torch'


def test_an_optimized_network_takes_it_and_is_what_it_was(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    net, x = UNet2d(32, [1, 1], out_planes=1).double(), torch.randn(1, 1, 48, 44, dtype=torch.float64)
    with torch.no_grad():
        plain = net(x)
    want = torch.autograd.grad(net(x).square().mean(), [*net.parameters()])
    taken, route = [], convolution.route
    monkeypatch.setattr(convolution, 'route', lambda *given: taken.append(route(*given)) or taken[-1])
    key = OPTIMIZED, 'cpu'
    monkeypatch.setitem(TABLE, key, TABLE[key]._replace(tools=ANY_SIZE))
    y = optimize(net)(x)
    got = torch.autograd.grad(y.square().mean(), [*net.parameters()])
    assert taken.count('taps') == 2  # forward, backward
    torch.testing.assert_close(y, plain, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-10)


def test_threads_and_runs_change_no_bit():
    z, kernel = laid_out(torch.randn(2, 32, 40, 41), 'channels last'), torch.randn(1, 32, 5, 5)
    g, how, before = torch.randn(2, 1, 40, 41), Geometry((1, 1), (2, 2)), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            y = convolution.forward(z, kernel, None, how, ANY_SIZE)
            gradients = convolution.backward(g, z, kernel, how, (True, True, False), ANY_SIZE)
            found.append([y, *gradients[:2]])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found[1:], strict=True))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
