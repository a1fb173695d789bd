"""Maps of a half type and weights of float32: what is slow in the half type is computed in float32."""

from typing import Any

import pytest
import torch
from torch import Tensor

import mdnc
from mdnc.modules.resnet import BlockPlain3d, EncoderNet2d, EncoderNet3d
from mdnc.ops import convolution, processor, winograd
from mdnc.ops.backend import TABLE
from mdnc.ops.convolution import TORCH, Geometry
from mdnc.ops.limits import LIMITS
from tests.ops.cases import laid_out

STILL = Geometry((1, 1), (1, 1))
NEEDS = (True, True, True)
DEEP = TORCH._replace(limits=LIMITS._replace(im2col_weights=0))


@pytest.fixture(params=[True, False], ids=['with instructions', 'without'])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(processor, 'multiplies', lambda dtype: request.param)
    return request.param


def drawn(dtype: torch.dtype, side: int = 6, last: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    z, g = (torch.randn(2, 16, side, side).to(dtype) for _ in range(2))
    z, g = (laid_out(each, 'channels last' if last else 'contiguous') for each in (z, g))
    return g, z, torch.randn(16, 16, 3, 3) / 12, torch.randn(16)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('by', [convolution.BY_SHAPE, winograd.CONVOLUTION], ids=['by shape', 'optimized'])
@pytest.mark.parametrize('tools', [TORCH, DEEP], ids=['shallow', 'deep'])
def test_it_equals_float32_rounded_where_it_is_slow_and_is_that_type_elsewhere(by, tools, dtype, instructions):
    g, z, kernel, bias = drawn(dtype)
    y = by.forward(z, kernel, bias, STILL, tools)
    gz, gkernel, gbias = by.backward(g, z, kernel, STILL, NEEDS, tools)
    assert (y.dtype, gz.dtype) == (dtype, dtype)
    wide = tools is DEEP or not instructions
    assert gkernel.dtype == gbias.dtype == (torch.float32 if wide else dtype)
    want = by.forward(z.float(), kernel, bias, STILL, tools)
    wants = by.backward(g.float(), z.float(), kernel, STILL, NEEDS, tools)
    if wide:
        assert torch.equal(y, want.to(dtype)) and torch.equal(gz, wants[0].to(dtype))
        assert torch.equal(gkernel, wants[1]) and torch.equal(gbias, wants[2])
    else:
        for got, one in ((y, want), (gz, wants[0]), (gkernel, wants[1]), (gbias, wants[2])):
            assert (got.float() - one).norm() < 3e-2 * one.norm()


def test_minimal_filtering_serves_maps_that_are_computed_in_float32(monkeypatch: pytest.MonkeyPatch):
    _, z, kernel, _ = drawn(torch.bfloat16, 32)
    if not winograd.suits(z.float(), kernel, STILL):
        pytest.fail('the case is one of minimal filtering')
    calls = []
    run = winograd._convolved
    monkeypatch.setattr(winograd, '_convolved', lambda *given: calls.append(1) or run(*given))
    for has in (True, False):
        monkeypatch.setattr(processor, 'multiplies', lambda dtype, has=has: has)
        winograd.forward(z, kernel, None, STILL)
    assert calls == [1]


def test_only_weights_of_float32_are_at_hand_and_other_devices_choose_for_themselves(instructions: bool):
    _, z, kernel, _ = drawn(torch.bfloat16)
    assert convolution.is_slow(z, kernel, STILL, TORCH) != instructions
    assert not convolution.is_slow(z, kernel.bfloat16(), STILL, TORCH)
    assert not convolution.is_slow(z.float(), kernel, STILL, TORCH)
    assert not convolution.is_slow(z.to('meta'), kernel.to('meta'), STILL, TORCH)


@pytest.mark.parametrize('optimized', [False, True])
def test_a_network_under_autocast_is_right_either_way(optimized: bool, instructions: bool, monkeypatch):
    for key in (('torch', 'cpu'), ('optimized', 'cpu')):
        tools = TABLE[key].tools._replace(limits=LIMITS._replace(im2col_weights=2000))
        monkeypatch.setitem(TABLE, key, TABLE[key]._replace(tools=tools, few=False))
    net = EncoderNet2d(16, [1, 1])
    net, x = mdnc.optimize(net) if optimized else net, torch.randn(2, 1, 24, 24)
    with mdnc.ops.plain():
        want = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    with torch.autocast('cpu', torch.bfloat16):
        y = net(x)
    got = torch.autograd.grad(y.float().square().sum(), list(net.parameters()))
    assert {each.dtype for each in got} == {torch.float32}
    scale = max(each.norm() for each in want)
    for mine, theirs in zip(got, want, strict=True):
        assert (mine - theirs).norm() < 0.1 * theirs.norm() + 1e-2 * scale


SHALLOW: dict[str, Any] = {
    'fused': lambda: BlockPlain3d(16, 16, activator='gelu'),
    'strided': lambda: BlockPlain3d(16, 16, kernel_size=5, padding=2, stride=2, normalizer='batch', activator='gelu'),
    'plain': lambda: BlockPlain3d(16, 16, padding_mode='reflect', activator='gelu'),
    'a convolution': lambda: EncoderNet3d(16, [1, 1], in_planes=16, activator='gelu', out_length=None),
}


@pytest.mark.parametrize('way', ['plain', 'lean', 'optimized'])
@pytest.mark.parametrize('autocast', [True, False])
@pytest.mark.parametrize('name', SHALLOW)
def test_volumes_less_deep_than_a_kernel_are_right_in_bfloat16(name: str, autocast: bool, way: str):
    # Torch's gradient of the weights is written out of bounds.
    torch.manual_seed(0)
    net = SHALLOW[name]()
    x, kernels = torch.randn(2, 16, 2, 6, 6), [each for each in net.parameters() if each.dim() == 5]
    with mdnc.ops.plain():
        want = torch.autograd.grad(net(x).square().sum(), kernels)
    net = net if autocast else net.bfloat16()
    net = mdnc.optimize(net) if way == 'optimized' else net
    net.memory = 'plain' if way == 'plain' else 'lean'
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        y = net(x if autocast else x.bfloat16())
    got = torch.autograd.grad(y.float().square().sum(), [each for each in net.parameters() if each.dim() == 5])
    for mine, theirs in zip(got, want, strict=True):
        assert (mine.float() - theirs).norm() < 0.1 * theirs.norm()
