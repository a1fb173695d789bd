"""An encoder and a way down that are the same layers."""

import copy
from typing import Any

import pytest
import torch

from mdnc.modules import resnet

OPTIONS: list[dict[str, Any]] = [
    {},
    {'resize_at': 'first', 'block': 'plain'},
    {'normalizer': 'batch', 'channels': [4, 6, 8], 'se': 2, 'drop_path': 0.3},
    {'resize_at': 'first', 'kernel_size': [3, 5, 3], 'strides': [1, 3], 'zero_init': True},
    {'max_channel': 6, 'small': 'keep', 'dropout': 0.1, 'deep_supervision': 2, 'upsampling': 'nearest'},
]


def weights(net: torch.nn.Module) -> set[int]:
    return {id(parameter) for parameter in net.parameters()}


@pytest.mark.parametrize('words', OPTIONS)
@pytest.mark.parametrize('kind', [resnet.UNet1d, resnet.AE1d, resnet.UNet2d])
def test_encoder_is_the_way_down(kind: type, words: dict[str, Any]):
    net = kind(4, [2, 1, 2], in_planes=2, memory='least', **words).eval()
    encoder, x = net.encoder, torch.randn(2, 2, *(17, 20)[: net.plan.order])
    count = 3 if words.get('resize_at') == 'first' else 2
    assert type(encoder).__name__ == f'EncoderNet{net.plan.order}d' and len(encoder.plan.stages) == count
    assert weights(encoder) < weights(net) and encoder.netbody[0] is net.conv_first
    for mine, theirs in zip(encoder.features(x).values(), list(net.features(x).values())[:count], strict=True):
        torch.testing.assert_close(mine, theirs)
    again = type(encoder)(**encoder.config).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(x), encoder(x))
    assert not encoder.training and encoder.memory == 'least'
    encoder.train().memory = 'plain'
    assert net.memory == 'least' and not net.training
    encoder(x).sum().backward()
    assert net.conv_first.weight.grad is not None


@pytest.mark.parametrize('words', OPTIONS[:4])
@pytest.mark.parametrize('kind', [resnet.UNet1d, resnet.AE1d])
def test_network_around_an_encoder(kind: type, words: dict[str, Any]):
    words = dict(words)
    if words.get('resize_at') == 'first':
        words['strides'] = [1, 2, 3]
    encoder = resnet.EncoderNet1d(4, [2, 1, 2], in_planes=2, dtype=torch.float64, **words).eval()
    net = kind.from_encoder(encoder, out_planes=3, up_layers=1, upsampling='nearest', memory='fast')
    x = torch.randn(2, 2, 33, dtype=torch.float64)
    assert net(x).shape == (2, 3, 33) and not net.training and net.memory == 'fast'
    for mine, theirs in zip(encoder.features(x).values(), net.features(x).values(), strict=False):
        torch.testing.assert_close(theirs, mine)
    assert weights(encoder) - weights(net) == {
        id(each) for each in (*encoder.netbody[-2].parameters(), *encoder.fc.parameters())
    }
    again = kind(**net.config, dtype=torch.float64).eval()
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(x), net(x))


def test_deepest_level_is_said():
    encoder = resnet.EncoderNet1d(4, [1, 3], max_channel=6)
    assert resnet.UNet1d.from_encoder(encoder).config['layers'] == (1, 3, 3)
    net = resnet.UNet1d.from_encoder(encoder, layers=2, channel=20)
    assert net.config['layers'] == (1, 3, 2) and net.config['channels'] == (4, 6, 20)


def test_a_copy_leaves_the_encoder_alone():
    encoder = resnet.EncoderNet1d(4, [1, 1])
    net = resnet.UNet1d.from_encoder(copy.deepcopy(encoder))
    assert not weights(encoder) & weights(net)


@pytest.mark.parametrize(
    ('encoder', 'words', 'error', 'said'),
    [
        (lambda: resnet.EncoderNet2d(4, [1, 1]), {}, TypeError, 'UNet1d.from_encoder: encoder must be an EncoderNet1d'),
        (lambda: resnet.UNet1d(4, [1, 1]), {}, TypeError, 'not UNet1d'),
        (lambda: resnet.EncoderNet1d(4, [1, 1]), {'normalizer': 'batch'}, ValueError, "normalizer='batch' may not be"),
        (lambda: resnet.EncoderNet1d(4, [1, 1]), {'kernel_size': 3}, ValueError, 'kernel_size=3 may not be given'),
        (lambda: resnet.EncoderNet1d(4, [1, 1]), {'out_length': 3}, TypeError, 'out_length'),
        (lambda: resnet.EncoderNet1d(4, [1, 1]), {'layers': 0}, ValueError, 'from_encoder: layers=0'),
        (lambda: resnet.EncoderNet1d(4, [1, 1], resize_at='first'), {}, ValueError, r'first stage of stride \(2,\)'),
        (
            lambda: resnet.EncoderNet1d(4, [1, 1], resize_at='first', strides=[1, 2]),
            {'layers': 2},
            ValueError,
            'layers=2 may not be given',
        ),
    ],
)
def test_refused_by_name(encoder: Any, words: dict[str, Any], error: type[Exception], said: str):
    with pytest.raises(error, match=said):
        resnet.UNet1d.from_encoder(encoder(), **words)


def test_a_single_level_is_no_encoder():
    with pytest.raises(ValueError, match='UNet1d: encoder needs at least two levels'):
        _ = resnet.UNet1d(4, [1, 1]).encoder
