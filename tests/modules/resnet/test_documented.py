"""The documented networks, exactly: keys, values, counts. Golden files hold what the documents state."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mdnc.modules import resnet

GOLDEN = json.loads((Path(__file__).parents[2] / 'golden' / 'networks.json').read_text())


def fill(net: torch.nn.Module) -> None:
    state = net.state_dict()
    for k, name in enumerate(sorted(state)):
        j = torch.arange(state[name].numel(), dtype=torch.float64)
        state[name] = (0.2 * torch.sin(0.7 * j + k)).reshape(state[name].shape)
    net.load_state_dict(state, strict=True)


@pytest.mark.parametrize('golden', GOLDEN, ids=lambda golden: golden['net'])
def test_golden_keys_and_values(golden: dict[str, Any]):
    net = getattr(resnet, golden['net'])(**golden['arguments']).double()
    # The order of keys is the order of parameters in an optimizer's checkpoint, so it counts too.
    assert [(key, list(value.shape)) for key, value in net.state_dict().items()] == list(golden['keys'].items())
    fill(net)
    j = torch.arange(math.prod(golden['input']), dtype=torch.float64)
    y = net((torch.sin(0.3 * j) + torch.cos(0.011 * j)).reshape(golden['input']))
    assert list(y.shape) == golden['output']
    torch.testing.assert_close(
        y.flatten()[golden['at']], torch.tensor(golden['values'], dtype=torch.float64), rtol=1e-9, atol=1e-9
    )
    assert y.mean().item() == pytest.approx(golden['mean'], abs=1e-9)
    assert y.std().item() == pytest.approx(golden['std'], abs=1e-9)


# Network, arguments, nlayers and parameters as published; unet16 as the corrected plan counts it.
PUBLISHED = [
    ('EncoderNet2d', {'in_planes': 3, 'out_length': 32}, 32, 31_190_816),
    ('EncoderNet2d', {'in_planes': 3, 'out_length': None}, 32, 31_158_016),
    ('EncoderNet1d', {'in_planes': 3, 'out_length': 32}, 32, 14_401_568),
    ('EncoderNet3d', {'in_planes': 3, 'out_length': 32}, 32, 81_566_240),
    ('DecoderNet2d', {'in_length': 32, 'out_size': (64, 63), 'out_planes': 3}, 33, 29_196_291),
    ('DecoderNet3d', {'in_length': 32, 'out_size': (33, 34, 35), 'out_planes': 3}, 33, 79_702_787),
    ('AE2d', {'layers': [2, 2, 2, 2, 3], 'in_planes': 3, 'out_planes': 1}, 59, 39_893_057),
    ('UNet2d', {'layers': [2, 2, 2, 2, 3], 'in_planes': 3, 'out_planes': 1}, 59, 51_392_897),
    ('UNet1d', {'layers': [2, 2, 2, 2, 3], 'in_planes': 3, 'out_planes': 1}, 59, 24_157_569),
]
PUBLISHED_PRESETS = [
    ('encnet12', 12, 19_626_434),
    ('encnet62', 62, 61_920_770),
    ('ae16', 16, 965_889),
    ('unet16', 16, 1_347_713),
    ('unet32', 32, 2_441_473),
    ('unet83', 83, 59_066_497),
]


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(('name', 'arguments', 'nlayers', 'parameters'), PUBLISHED)
def test_published_figures(name: str, arguments: dict[str, Any], nlayers: int, parameters: int):
    with torch.device('meta'):
        net = getattr(resnet, name)(**{'channel': 64, 'layers': [2] * 5, **arguments})
    assert (net.nlayers, count(net)) == (nlayers, parameters)


@pytest.mark.parametrize(('name', 'nlayers', 'parameters'), PUBLISHED_PRESETS)
def test_published_presets(name: str, nlayers: int, parameters: int):
    with torch.device('meta'):
        net = getattr(resnet, name)()
    assert (net.nlayers, count(net)) == (nlayers, parameters)


@pytest.mark.parametrize('name', [name for name in resnet.__all__ if re.fullmatch('(enc|dec|ae|u)(net)?[0-9]+', name)])
def test_a_preset_carries_its_nlayers_in_its_name(name: str):
    size = {'out_size': 64} if name.startswith('decnet') else {}
    with torch.device('meta'):
        for order in (1, 2, 3):
            net = getattr(resnet, name)(order=order, **size)
            assert net.nlayers == int(''.join(filter(str.isdigit, name)))
            assert type(net).__name__.endswith(f'{order}d')


def test_one_convolution_more_or_less_shows_in_nlayers():
    # nlayers against what torch really runs along the depth: every convolution but the shortcuts'.
    for name, arguments in (
        ('EncoderNet2d', {}),
        ('DecoderNet2d', {'out_size': 40}),
        ('DecoderNet2d', {'out_size': 40, 'in_length': None}),
        ('AE2d', {}),
        ('UNet2d', {}),
    ):
        for block in ('plain', 'bottleneck'):
            net = getattr(resnet, name)(4, [2, 1, 3], block=block, **arguments)
            convs = [key for key, value in net.named_parameters() if value.dim() == 4 and 'in_node' not in key]
            assert net.nlayers == len(convs), name


def test_a_decoder_without_vector_takes_maps():
    net = resnet.DecoderNet2d(4, [1, 1, 2], out_size=(21, 34), in_length=None)
    assert net.input_size == (16, 3, 5)
    assert resnet.DecoderNet2d(4, [1, 1, 2], out_size=(21, 34), in_length=7).input_size == (7,)


def test_relu_before_the_sum_runs_backward():
    # A sum written into ReLU's saved output fails in backward ('old' order, or no norm).
    for words in ({'layer_order': 'old'}, {'normalizer': 'null'}):
        block = resnet.BlockPlain2d(3, 3, activator='relu', **words)
        block(torch.randn(2, 3, 5, 5)).sum().backward()
        assert all(p.grad is not None for p in block.parameters())


def test_layers_is_copied():
    layers = [1, 1]
    net = resnet.EncoderNet1d(4, layers)
    layers.append(5)
    assert net.nlayers == 8


def test_what_a_unit_holds_follows_from_the_words():
    # Norm, slope and convolution stand where the words put them; only a unit without norm has a bias to learn.
    def keys(**words: str) -> list[str]:
        return [key.removeprefix('conv1.') for key, _ in resnet.BlockPlain1d(2, 2, **words).named_parameters()][:4]

    assert keys() == ['0.weight', '0.bias', '1.weight', '2.weight']
    assert keys(layer_order='old') == ['0.weight', '1.weight', '1.bias', '2.weight']
    assert keys(normalizer='inst')[:2] == ['1.weight', '2.weight']
    assert keys(normalizer='batch', activator='relu')[:3] == ['0.weight', '0.bias', '2.weight']
    assert keys(normalizer='null')[:3] == ['0.weight', '0.bias', '1.weight']
    assert keys(normalizer='null', layer_order='old') == keys(normalizer='null')
    assert keys(activator='null')[:3] == ['0.weight', '0.bias', '1.weight']


def test_an_up_sampled_shortcut_comes_before_its_convolution():
    block = resnet.BlockPlain2d(2, 3, stride=2, scaler='up')
    assert [type(layer).__name__ for layer in block.in_node] == ['Upsample', 'Conv2d', 'InstanceNorm2d']
    assert [type(layer).__name__ for layer in block.conv2] == ['InstanceNorm2d', 'PReLU', 'Upsample', 'Conv2d']
    assert resnet.BlockPlain2d(2, 2).in_node is None
