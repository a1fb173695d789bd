"""Torch's own layers never see what torch computes wrongly, and results are right for a single sample in any layout.

Of torch 2.13 on a CPU: the gradient of an instance norm of one sample, where it comes channels-last, is read as if it
were contiguous; that of the weights of a strided 1 × … × 1 convolution of channels-last maps is written out of bounds.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import mdnc
from mdnc.modules.resnet import (
    AE2d,
    BlockBottleneck2d,
    BlockPlain1d,
    BlockPlain2d,
    BlockPlain3d,
    EncoderNet1d,
    EncoderNet2d,
    EncoderNet3d,
    UNet1d,
    UNet2d,
    UNet3d,
)
from mdnc.ops import channels_last, convolution, norm_act
from mdnc.ops.channels_last import is_channels_last
from mdnc.ops.limits import LIMITS
from tests.ops.cases import laid_out

NETWORKS = [EncoderNet1d, EncoderNet2d, EncoderNet3d, UNet1d, UNet2d, UNet3d, AE2d]
SIDES = {1: (18,), 2: (9, 12), 3: (8, 5, 8)}


class Watchdog(TorchDispatchMode):
    """Refuses the calls that torch computes wrongly."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name == 'aten::convolution_backward':
            _, z, kernel, _, stride, padding, *_ = args
            pointwise = kernel[0, 0].numel() == 1 and max(stride) > 1 and not any(padding)
            assert not (pointwise and not z.is_contiguous()), 'a strided 1 × … × 1 convolution, channels last'
            self.seen.append('strided' if pointwise else 'convolution')
        if name == 'aten::native_batch_norm_backward':
            g, x, _, running = args[:4]  # a batch norm, which has running statistics, is right
            wrong = running is None and x.shape[0] == 1 and not g.is_contiguous()
            assert not wrong, 'the gradient of an instance norm'
            self.seen.append('norm')
        return func(*args, **(kwargs or {}))


@contextmanager
def a_hook(net: nn.Module) -> Iterator[None]:
    layers = [each for each in net.modules() if isinstance(each, nn.PReLU)]
    handles = [each.register_forward_hook(lambda *args: None) for each in layers[:1]]
    yield
    for each in handles:
        each.remove()


@contextmanager
def a_hook_on_each(net: nn.Module) -> Iterator[None]:
    handles = [each.register_forward_hook(lambda *args: None) for each in net.modules()]
    yield
    for each in handles:
        each.remove()


WAYS: dict[str, Callable[[nn.Module], Any]] = {
    'fused': lambda net: nullcontext(),
    'plain': lambda net: mdnc.ops.plain(),
    'a hook': a_hook,
    'a hook on each layer': a_hook_on_each,
}


def gradients(net: nn.Module, x: Tensor) -> list[Tensor]:
    wanted = [x, *net.parameters()]
    return list(torch.autograd.grad(net(x).square().sum(), wanted))


def second(net: nn.Module, x: Tensor) -> list[Tensor]:
    (gx,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    return [gx, *torch.autograd.grad(gx.square().sum(), list(net.parameters()), allow_unused=True)]


def assert_same(got: list[Tensor | None], want: list[Tensor | None]) -> None:
    for mine, theirs in zip(got, want, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            assert (mine - theirs).norm() <= 1e-8 * theirs.norm() + 1e-8


@pytest.mark.parametrize('given', ['contiguous', 'channels last'])
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('network', NETWORKS)
def test_a_single_sample_of_an_optimized_network(network: Any, way: str, given: str):
    net = network(4, [2, 1]).double()
    x = laid_out(torch.randn(1, 1, *SIDES[net.plan.order], dtype=torch.float64), given).requires_grad_()
    with mdnc.ops.plain():
        want, want_twice = gradients(net, x), second(net, x)
    mdnc.optimize(net)
    with WAYS[way](net), Watchdog():
        assert_same(gradients(net, x), want)
        assert_same(second(net, x), want_twice)


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    'up': lambda: BlockPlain2d(4, 6, stride=2, scaler='up'),
    'down': lambda: BlockBottleneck2d(4, 6, stride=2),
    'old': lambda: BlockPlain2d(4, 6, stride=2, layer_order='old'),
    'batch': lambda: BlockPlain2d(4, 6, stride=2, normalizer='batch'),
    'signals of width 1': lambda: BlockPlain1d(4, 6, kernel_size=1, padding=0, stride=3),
    'images of width 1': lambda: BlockPlain2d(4, 6, kernel_size=1, padding=0, stride=2),
    'volumes of width 1': lambda: BlockPlain3d(4, 6, kernel_size=1, padding=0, stride=2),
}


@pytest.mark.parametrize('optimized', [False, True], ids=['default', 'optimized'])
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('name', BLOCKS)
def test_blocks_of_inputs_with_their_channels_last(name: str, batch: int, way: str, optimized: bool):
    block = BLOCKS[name]().double()
    x = torch.randn(batch, 4, *SIDES[block.order], dtype=torch.float64)
    with mdnc.ops.plain():
        want = gradients(block, x.clone().requires_grad_())
    mine = mdnc.optimize(copy.deepcopy(block)) if optimized else block
    with WAYS[way](mine), Watchdog():
        assert_same(gradients(mine, laid_out(x, 'channels last').requires_grad_()), want)


@pytest.mark.parametrize('order', [1, 2, 3])
@pytest.mark.parametrize('given', ['contiguous', 'channels last'])
@pytest.mark.parametrize('stride', [2, 3])
def test_strided_point_convolutions_are_strided_before_they_are_computed(order: int, stride: int, given: str):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[order - 1](4, 8, 1, stride).double()
    x = torch.randn(2, 4, *SIDES[order], dtype=torch.float64, requires_grad=True)
    y = conv(x)
    g = torch.randn_like(y)
    want = torch.autograd.grad(y, (x, conv.weight, conv.bias), g)
    geometry = convolution.Geometry(conv.stride, conv.padding)
    with torch.no_grad(), Watchdog() as watch:
        z = laid_out(x, given)
        got = convolution.forward(z, conv.weight, conv.bias, geometry)
        grads = convolution.backward(g, z, conv.weight, geometry, (True, True, True))
    torch.testing.assert_close((got, *grads), (y, *want))
    assert is_channels_last(got) == is_channels_last(grads[0]) == (given == 'channels last')
    assert 'strided' not in watch.seen


@pytest.mark.parametrize('order', [1, 2, 3])
@pytest.mark.parametrize('planes', [2, 40], ids=['more values', 'more weights'])
def test_what_is_smaller_is_laid_as_the_other_and_results_as_the_maps(order: int, planes: int):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[order - 1](planes, planes, 3, padding=1)
    x = torch.randn(2, planes, *SIDES[order], requires_grad=True)
    y = conv(x)
    g = torch.randn_like(y)
    want = torch.autograd.grad(y, (x, conv.weight, conv.bias), g)
    geometry = convolution.Geometry(conv.stride, conv.padding)
    z = laid_out(x.detach(), 'channels last')
    with torch.no_grad():
        got = convolution.forward(z, conv.weight, conv.bias, geometry)
        grads = convolution.backward(
            laid_out(g, 'channels last'),
            z,
            conv.weight,
            geometry,
            (True, True, True),
        )
    torch.testing.assert_close((got, *grads), (y, *want), rtol=1e-4, atol=1e-4)
    assert [is_channels_last(got), is_channels_last(grads[0])] == [True, True]
    assert grads[1].stride() == conv.weight.stride()


def test_the_watch_sees_what_it_is_for():
    x = laid_out(torch.randn(1, 4, 6, 6), 'channels last').requires_grad_()
    with Watchdog(), pytest.raises(AssertionError, match='strided'):
        nn.Conv2d(4, 4, 1, 2)(x).sum().backward()
    with Watchdog(), pytest.raises(AssertionError, match='instance norm'):
        nn.InstanceNorm2d(4)(x).backward(x.detach())


@pytest.mark.parametrize('network', [UNet1d, UNet2d, UNet3d])
def test_gradients_of_inputs_lie_as_the_inputs(network: Any):
    net = mdnc.optimize(network(4, [1, 1]))
    for given in ('contiguous', 'channels last'):
        x = laid_out(torch.randn(2, 1, *(8,) * net.plan.order), given).requires_grad_()
        (gx,) = torch.autograd.grad(net(x).sum(), x)
        assert gx.is_contiguous()
        block = net.conv_down_list[0].conv_scale
        x = laid_out(torch.randn(2, 4, *(8,) * net.plan.order), given).requires_grad_()
        (gx,) = torch.autograd.grad(block(x).sum(), x)
        assert is_channels_last(gx) == is_channels_last(x)


def test_gradients_of_inputs_lie_as_the_inputs_where_weights_do_not():
    block = BlockPlain2d(4, 4).to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    y = block(x)
    (gx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert is_channels_last(y)
    assert gx.is_contiguous()


@pytest.mark.parametrize('last', [False, True])
@pytest.mark.parametrize('back', [False, True])
def test_a_tensor_relaid_gets_its_gradient_in_the_layout_that_was_asked_for(last: bool, back: bool):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    y = channels_last.to_layout_both_ways(x, last, back)
    assert torch.equal(y, x)
    assert is_channels_last(y) == last
    for given in ('contiguous', 'channels last'):
        (g,) = torch.autograd.grad(y, x, laid_out(torch.ones_like(x), given), retain_graph=True)
        assert is_channels_last(g) == back
    assert torch.autograd.gradgradcheck(lambda each: channels_last.to_layout_both_ways(each, last, back).square(), x)


SINGLE: dict[str, Callable[[], nn.Module]] = {
    'instance norm': lambda: BlockPlain2d(8, 8, activator='gelu'),
    'batch norm': lambda: BlockPlain2d(8, 12, stride=2, normalizer='batch', activator='silu'),
    'batch norm of volumes': lambda: BlockPlain3d(8, 8, normalizer='batch', activator='gelu', layer_order='old'),
    'groups': lambda: BlockBottleneck2d(8, 8, groups=4, activator='gelu'),
    'groups in signals': lambda: BlockPlain1d(16, 16, groups=8, normalizer='batch', activator='gelu'),
    'a network': lambda: EncoderNet2d(8, [2, 1], 'plain', in_planes=8, normalizer='batch', activator='gelu', groups=2),
}


@pytest.mark.parametrize('training', [True, False], ids=['training', 'eval'])
@pytest.mark.parametrize('weights', ['contiguous', 'channels last'])
@pytest.mark.parametrize('given', ['contiguous', 'channels last', 'as torch gives one sample'])
@pytest.mark.parametrize('way', ['plain', 'fused', 'optimized', 'a hook on each layer'])
@pytest.mark.parametrize('name', SINGLE)
def test_a_single_sample_however_it_and_the_weights_lie(name: str, way: str, given: str, weights: str, training: bool):
    torch.manual_seed(0)
    net = SINGLE[name]().double().train(training)
    order = net.order if hasattr(net, 'order') else net.plan.order
    x = torch.randn(1, 8 if order > 1 else 16, *(9, 8, 6)[:order], dtype=torch.float64)
    with mdnc.ops.plain():
        want = gradients(net, x.requires_grad_())
    for each in net.parameters():
        each.data = laid_out(each.data, weights) if each.dim() > 2 else each.data
    x = laid_out(x.detach(), given)
    if given == 'as torch gives one sample':
        x = x.as_strided(x.shape, (x.shape[1], *x.stride()[1:]))
    net = mdnc.optimize(net) if way == 'optimized' else net
    with WAYS[way](net) if way in WAYS else nullcontext():
        assert_same(gradients(net, x.requires_grad_()), want)


@pytest.mark.parametrize('level', ['fast', 'lean', 'leaner', 'least'])
@pytest.mark.parametrize('order', [1, 2, 3])
def test_contiguous_maps_are_normalised_by_torchs_kernels_also_after_a_stride(order: int, level: str, monkeypatch):
    def refuse(*given: object) -> None:
        raise AssertionError('the definition, pass by pass, normalises a map that is not contiguous')

    monkeypatch.setattr(norm_act, 'moments', refuse)
    monkeypatch.setattr(norm_act, 'norm_backward', refuse)
    block = {1: BlockPlain1d, 2: BlockPlain2d, 3: BlockPlain3d}[order](8, 16, stride=2)
    block.memory = level
    x = torch.randn(2, 8, *(round(LIMITS.few_values ** (1 / order)),) * order)  # eight times the limit and more
    assert all(unit.fused for unit in block.paths())
    block(x.requires_grad_()).square().mean().backward()
    assert x.grad is not None
