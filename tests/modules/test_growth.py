"""Grown networks answer as those they were grown from, and their configuration builds them."""

import random
from typing import Any

import pytest
import torch
from torch import nn

import mdnc
from mdnc.modules import Network, adapt_inputs, deepen, lift, resnet

FAMILIES = {'EncoderNet': 'out_length', 'DecoderNet': 'out_size', 'AE': 'up_layers', 'UNet': 'up_layers'}


def drawn(family: str, draw: random.Random, order: int) -> Network:
    words: dict[str, Any] = {
        'block': draw.choice(['plain', 'bottleneck']),
        'normalizer': draw.choice(['batch', 'inst', 'pinst', 'group', 'layer', 'null']),
        'activator': draw.choice(['prelu', 'relu', 'gelu', 'null']),
        'layer_order': draw.choice(['new', 'old']),
        'resize_at': draw.choice(['first', 'last']),
        'se': draw.choice([0, 2]),
    }
    if words['normalizer'] == 'group':
        words['norm_groups'] = 2
    if family == 'EncoderNet':
        words |= {'pool': draw.choice(['avg', 'max', 'gem', 'std']), 'amplitude': draw.choice([True, False])}
    if family != 'EncoderNet':
        words['upsampling'] = draw.choice(['linear', 'nearest', 'transposed'])
    if family == 'DecoderNet':
        words |= {'out_size': (19, 10)[:order], 'in_length': draw.choice([None, 3])}
    else:
        words |= {'in_planes': draw.choice([1, 2]), 'shortcut': draw.choice(['conv', 'pool'])}
    net: Network = getattr(resnet, f'{family}{order}d')(4, [2, 2, 2], dtype=torch.float64, **words)
    for buffer in net.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return net.eval()


def sample(net: Network, batch: int = 2) -> torch.Tensor:
    size = (29, 20)[: net.plan.order] if net.plan.in_size is None else net.plan.in_size
    return torch.randn(batch, net.plan.in_planes, *size, dtype=torch.float64)


def assert_rebuilds(net: Network) -> None:
    again = type(net)(**net.config)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in again.state_dict().items()} == shapes
    assert not any(value.is_meta for value in net.state_dict().values())


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('family', FAMILIES)
def test_deeper_changes_no_output(family: str, seed: int):
    draw = random.Random(f'{family}{seed}')
    net = drawn(family, draw, 1)
    if net.config.get('normalizer') == 'inst' and net.config.get('activator') == 'relu':
        net = type(net)(**{**net.config, 'activator': 'gelu'}, dtype=torch.float64).eval()
    x = sample(net)
    deeper = deepen(net, [2, 3, 4])
    torch.testing.assert_close(deeper(x), net(x), atol=1e-5, rtol=0)
    assert deeper.config['layers'] == (2, 3, 4) and not deeper.training
    assert_rebuilds(deeper)


@pytest.mark.parametrize('order', ['new', 'old'])
@pytest.mark.parametrize('activator', ['relu', 'prelu', 'gelu'])
@pytest.mark.parametrize('normalizer', ['batch', 'pinst', 'null'])
def test_new_blocks_learn(normalizer: str, activator: str, order: str):
    words = {'normalizer': normalizer, 'activator': activator, 'layer_order': order}
    net = resnet.EncoderNet1d(4, [2, 2], **words)
    deeper = deepen(net, [3, 2])
    deeper(torch.randn(4, 1, 24)).square().sum().backward()
    block = deeper.netbody[1].conv_list[1]
    assert any(parameter.grad.abs().max() > 0 for parameter in block.parameters())


def test_deepen_keeps_the_memory_mode_and_dtype():
    net = resnet.UNet1d(4, [1, 2, 2], memory='least', dtype=torch.bfloat16, resize_at='first')
    deeper = deepen(net, [2, 3, 3], up_layers=(2, 3))
    assert deeper.memory == 'least' and deeper.training and deeper.config['up_layers'] == (2, 3)
    assert {parameter.dtype for parameter in deeper.parameters()} == {torch.bfloat16}
    assert deeper.conv_first.weight is not net.conv_first.weight


@pytest.mark.parametrize(
    ('net', 'layers', 'words'),
    [
        (lambda: resnet.EncoderNet1d(4, [2, 1]), [2, 2], 'netbody.2 2 blocks instead of 1'),
        (lambda: resnet.EncoderNet1d(4, [2, 2]), [2, 1], 'blocks can only be added'),
        (lambda: resnet.EncoderNet1d(4, [2, 2]), [2, 2, 2], 'netbody.3 2 blocks instead of 0'),
        (
            lambda: resnet.EncoderNet1d(4, [2, 2], layer_order='old', normalizer='inst', activator='relu'),
            [3, 2],
            'could not learn',
        ),
        (lambda: resnet.EncoderNet1d(4, [2, 2]), [0, 2], 'layers'),
    ],
)
def test_deepen_refuses_by_name(net: Any, layers: list[int], words: str):
    with pytest.raises(ValueError, match=words):
        deepen(net(), layers)


@pytest.mark.parametrize('kernel', [None, 1])
@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('family', FAMILIES)
def test_lifted_answers_alike_where_nothing_changes_along_the_new_axis(family: str, seed: int, kernel: int | None):
    draw = random.Random(f'{family}{seed}')
    net = drawn(family, draw, draw.choice([1, 2]))
    x = sample(net)
    lifted = lift(net, kernel_size=kernel, length=9 if family == 'DecoderNet' else None)
    assert_rebuilds(lifted)
    size = lifted.plan.in_size
    if size != ():
        length = 9 if size is None else size[0]
        x_lifted = x[:, :, None].expand(*x.shape[:2], length, *x.shape[2:])
    else:
        x_lifted = x
    y, wanted = lifted(x_lifted), net(x)
    torch.testing.assert_close(y, wanted if y.dim() == wanted.dim() else wanted[:, :, None].expand_as(y))


def test_lift_from_signals_to_volumes():
    net = resnet.EncoderNet1d(4, [1, 1], kernel_size=[5, 3], strides=[1, 3], out_length=3).eval()
    volumes = lift(lift(net), kernel_size=3)
    assert volumes.config['kernel_size'] == ((3, 5, 5), (3, 3, 3)) and volumes.config['strides'] == (
        (1, 1, 1),
        (3, 3, 3),
    )
    x = torch.randn(2, 1, 20)
    torch.testing.assert_close(volumes(x[:, :, None, None].expand(2, 1, 7, 8, 20)), net(x), atol=1e-5, rtol=1e-5)


def test_lift_refuses_by_name():
    with pytest.raises(TypeError, match='EncoderNet3d'):
        lift(resnet.EncoderNet3d(4, [1, 1]))
    with pytest.raises(ValueError, match='length=None'):
        lift(resnet.DecoderNet1d(4, [1, 1], 20))
    with pytest.raises(ValueError, match='length=3'):
        lift(resnet.EncoderNet1d(4, [1, 1]), length=3)
    with pytest.raises(ValueError, match='kernel_size=2'):
        lift(resnet.EncoderNet1d(4, [1, 1]), kernel_size=2)
    with pytest.raises(ValueError, match='gaps on the new axis at stride 3'):
        lift(resnet.UNet1d(4, [1, 1], strides=3, upsampling='transposed'))


@pytest.mark.parametrize('amplitude', [True, False])
@pytest.mark.parametrize('planes', [2, 3, 7])
def test_adapted_inputs(planes: int, amplitude: bool):
    net = resnet.EncoderNet2d(4, [1, 1], in_planes=3, amplitude=amplitude).double().eval()
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    same = x[:, :1].expand(-1, planes, -1, -1)
    torch.testing.assert_close(adapt_inputs(net, planes)(same), net(same[:, :1].expand(-1, 3, -1, -1)))
    if planes >= 3:
        turns = x[:, [index % 3 for index in range(planes)]]
        torch.testing.assert_close(adapt_inputs(net, planes, 'repeat')(turns), net(x))
        more = torch.cat((x, torch.randn(2, planes - 3, 12, 12, dtype=torch.float64)), 1)
        torch.testing.assert_close(adapt_inputs(net, planes, 'zero')(more), net(x))
    for how in ('average', 'repeat', 'zero'):
        assert_rebuilds(adapt_inputs(net, planes, how))


def test_adapt_inputs_refuses_by_name():
    net = resnet.EncoderNet1d(4, [1, 1])
    with pytest.raises(ValueError, match=r"how='mean' must be one of"):
        adapt_inputs(net, 3, 'mean')
    with pytest.raises(ValueError, match='in_planes=0'):
        adapt_inputs(net, 0)
    with pytest.raises(ValueError, match='DecoderNet1d'):
        adapt_inputs(resnet.DecoderNet1d(4, [1, 1], 20), 3)
    for grow in (lambda other: adapt_inputs(other, 3), lambda other: deepen(other, [2]), lift):
        with pytest.raises(TypeError, match='net must be one of the networks of mdnc, not Linear'):
            grow(nn.Linear(2, 2))


def test_grown_networks_are_saved_and_found_again(tmp_path: Any):
    net = lift(adapt_inputs(deepen(resnet.UNet1d(4, [2, 2], deep_supervision=1), [3, 2]), 2))
    net.save_pretrained(tmp_path)
    again = mdnc.checkpoints.load(tmp_path)
    assert again.config == net.config and again.origin.difference == 0
