"""Bad input gets an error of mdnc's own that names the argument, its value and what is legal."""

import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mdnc
from mdnc.modules import resnet

HOME = Path(mdnc.__file__).parent

# Argument, value, error, and a piece of the text that says what is legal.
COMMON = [
    ('channel', 0, ValueError, 'int of at least 1'),
    ('channel', -3, ValueError, 'int of at least 1'),
    ('channel', 3.0, TypeError, 'int of at least 1'),
    ('channel', True, TypeError, 'int of at least 1'),
    ('channel', '8', TypeError, 'int of at least 1'),
    ('channel', None, TypeError, 'int of at least 1'),
    ('layers', 2, TypeError, 'sequence of at least 2 ints'),
    ('layers', [], ValueError, 'sequence of at least 2 ints'),
    ('layers', [2], ValueError, 'sequence of at least 2 ints'),
    ('layers', [1, 0], ValueError, 'each at least 1'),
    ('layers', [1, 2.0], TypeError, 'each at least 1'),
    ('layers', [1, True], TypeError, 'each at least 1'),
    ('layers', '22', TypeError, 'sequence of at least 2 ints'),
    ('layers', {2, 3}, TypeError, 'sequence of at least 2 ints'),
    ('layers', np.ones((2, 2), int), TypeError, 'sequence of at least 2 ints'),
    ('block', 'Plain', ValueError, "'plain', 'bottleneck'"),
    ('block', None, TypeError, "'plain', 'bottleneck'"),
    ('kernel_size', 0, ValueError, 'at least 1'),
    ('kernel_size', -3, ValueError, 'at least 1'),
    ('kernel_size', 4, ValueError, 'odd'),
    ('kernel_size', '3', TypeError, 'int of at least 1'),
    ('kernel_size', 3.0, TypeError, 'int of at least 1'),
    ('kernel_size', None, TypeError, 'int of at least 1'),
    ('kernel_size', (3, 3, 3, 3), ValueError, 'sequence of 2'),
    ('kernel_size', (3,), ValueError, 'sequence of 2'),
    ('kernel_size', (3, 2), ValueError, 'odd'),
    ('kernel_size', (), ValueError, 'sequence of 2'),
]
NETWORKS = {
    'EncoderNet2d': (
        {},
        [
            ('in_planes', 0, ValueError, 'at least 1'),
            ('in_planes', None, TypeError, 'at least 1'),
            ('out_length', 0, ValueError, 'at least 1'),
            ('out_length', -3, ValueError, 'at least 1'),
            ('out_length', 2.5, TypeError, 'at least 1'),
        ],
    ),
    'DecoderNet2d': (
        {'out_size': 20},
        [
            ('out_size', (20,), ValueError, 'sequence of 2'),
            ('out_size', (20, 20, 20), ValueError, 'sequence of 2'),
            ('out_size', (0, 20), ValueError, 'at least 1'),
            ('out_size', None, TypeError, 'int of at least 1'),
            ('out_size', 4, ValueError, 'could never run|too small'),
            ('in_length', 0, ValueError, 'at least 1'),
            ('out_planes', 0, ValueError, 'at least 1'),
            ('out_planes', 1.0, TypeError, 'at least 1'),
        ],
    ),
    'AE2d': ({}, [('in_planes', 0, ValueError, 'at least 1'), ('out_planes', False, TypeError, 'at least 1')]),
    'UNet2d': ({}, [('in_planes', [1], TypeError, 'at least 1'), ('out_planes', 0, ValueError, 'at least 1')]),
}
CONSTRUCTIONS = [
    (name, {'channel': 4, 'layers': [1, 1], **fixed}, row)
    for name, (fixed, rows) in NETWORKS.items()
    for row in [*COMMON, *rows]
]
BLOCK_ROWS = [
    ('in_planes', 0, ValueError, 'at least 1'),
    ('out_planes', '3', TypeError, 'at least 1'),
    ('kernel_size', 2, ValueError, 'odd'),
    ('kernel_size', 5, ValueError, r'padding=1 does not fit kernel_size=5.*\(2, 2\)'),
    ('padding', 0, ValueError, r'kernel_size // 2, that is \(1, 1\)'),
    ('padding', -1, ValueError, 'at least 0'),
    ('padding', 'same', TypeError, 'at least 0'),
    ('stride', 0, ValueError, 'at least 1'),
    ('stride', (2, 2, 2), ValueError, 'sequence of 2'),
    ('normalizer', 'instance', ValueError, "'batch', 'inst', 'pinst', 'group', 'layer', 'null'"),
    ('normalizer', None, TypeError, "'batch', 'inst', 'pinst', 'group', 'layer', 'null'"),
    ('activator', 'ReLU', ValueError, "'prelu', 'relu', 'leaky_relu', 'elu', 'gelu', 'silu', 'null'"),
    ('layer_order', 'New', ValueError, "'new', 'old'"),
    ('scaler', 'Up', ValueError, "'down', 'up'"),
    ('output_size', 4, ValueError, "only with scaler='up'"),
    ('output_size', (4, 4, 4), ValueError, 'sequence of 2'),
]
CONSTRUCTIONS += [
    (name, {'in_planes': 2, 'out_planes': 3}, row)
    for name in ('BlockPlain2d', 'BlockBottleneck2d')
    for row in BLOCK_ROWS
]


def assert_own(caught: pytest.ExceptionInfo[BaseException], owner: str) -> None:
    """The error was raised in mdnc's own files, and its text begins with the public name."""
    raised_in = Path(traceback.extract_tb(caught.tb)[-1].filename)
    assert HOME in raised_in.parents
    assert str(caught.value).startswith(f'{owner}: ')


@pytest.mark.parametrize(('name', 'good', 'row'), CONSTRUCTIONS, ids=lambda value: str(value)[:40])
def test_constructors_refuse(name: str, good: dict[str, Any], row: tuple[str, Any, type[Exception], str]):
    argument, value, error, legal = row
    with pytest.raises(error, match=legal) as caught:
        getattr(resnet, name)(**{**good, argument: value})
    assert type(caught.value) is error
    assert argument in str(caught.value)
    assert_own(caught, name)


@pytest.mark.parametrize('order', [0, 4, '2', None, True, 2.0])
@pytest.mark.parametrize('name', ['encnet12', 'decnet13', 'ae16', 'unet16'])
def test_presets_refuse_other_orders(name: str, order: object):
    size = {'out_size': 40} if name == 'decnet13' else {}
    with pytest.raises((TypeError, ValueError), match='order=') as caught:
        getattr(resnet, name)(order=order, **size)
    assert_own(caught, name)


def test_whatever_has_an_index_is_an_int():
    net = resnet.EncoderNet2d(
        np.int64(4),
        np.array([1, 2]),
        kernel_size=(np.int32(3), torch.tensor(5)),
        in_planes=np.uint8(3),
        out_length=np.int64(6),
    )
    assert net.config == {
        'channel': 4,
        'layers': (1, 2),
        'block': 'bottleneck',
        'kernel_size': (3, 5),
        'in_planes': 3,
        'out_length': 6,
    }
    for value in (net.config['channel'], net.config['in_planes'], *net.config['layers'], *net.config['kernel_size']):
        assert type(value) is int
    assert resnet.DecoderNet1d(4, range(1, 3), np.array([20])).input_size == (2,)


@pytest.mark.parametrize('value', [np.bool_(True), torch.tensor(True), torch.tensor([3]), np.array([3])])
def test_bools_and_arrays_are_not_ints(value: object):
    with pytest.raises(TypeError, match='channel'):
        resnet.AE1d(value, [1, 1])


def image(*shape: int, **options: Any) -> torch.Tensor:
    return torch.zeros(*shape, **options)


INPUTS = [
    ('a list', lambda: [[1.0]], TypeError, 'must be a torch.Tensor'),
    ('numpy', lambda: np.zeros((1, 3, 16, 16), np.float32), TypeError, 'not ndarray'),
    ('None', lambda: None, TypeError, 'not NoneType'),
    ('unbatched', lambda: image(3, 16, 16), ValueError, r'\(3, 16, 16\).*\(B, 3, L1, L2\)'),
    ('a volume', lambda: image(1, 3, 16, 16, 16), ValueError, r'\(B, 3, L1, L2\)'),
    ('channels', lambda: image(1, 1, 16, 16), ValueError, 'channels differ'),
    ('channels last', lambda: image(1, 16, 16, 3), ValueError, 'channels differ'),
    ('empty batch', lambda: image(0, 3, 16, 16), ValueError, 'empty'),
    ('empty axis', lambda: image(1, 3, 16, 0), ValueError, 'empty'),
    ('integers', lambda: image(1, 3, 16, 16, dtype=torch.int64), TypeError, 'floating-point'),
    ('bytes', lambda: image(1, 3, 16, 16, dtype=torch.uint8), TypeError, 'floating-point'),
    ('complex', lambda: image(1, 3, 16, 16, dtype=torch.complex64), TypeError, 'floating-point'),
    ('double', lambda: image(1, 3, 16, 16, dtype=torch.float64), TypeError, r'float64.*float32.*x\.to'),
    ('half', lambda: image(1, 3, 16, 16, dtype=torch.float16), TypeError, 'float16'),
    ('another device', lambda: image(1, 3, 16, 16, device='meta'), ValueError, 'is on meta.*on cpu'),
    ('sparse', lambda: image(1, 3, 16, 16).to_sparse(), TypeError, 'dense'),
]


@pytest.mark.parametrize(('make', 'error', 'legal'), [row[1:] for row in INPUTS], ids=[row[0] for row in INPUTS])
def test_forward_refuses(make: Any, error: type[Exception], legal: str):
    takers = {
        'EncoderNet2d': resnet.EncoderNet2d(4, [1, 1], in_planes=3),
        'AE2d': resnet.AE2d(4, [1, 1], in_planes=3),
        'UNet2d': resnet.UNet2d(4, [1, 1], in_planes=3),
        'BlockPlain2d': resnet.BlockPlain2d(3, 4),
        'BlockBottleneck2d': resnet.BlockBottleneck2d(3, 4),
    }
    for name, net in takers.items():
        with pytest.raises(error, match=legal) as caught:
            net(make())
        assert type(caught.value) is error
        assert_own(caught, name)


def test_decoders_refuse_other_inputs():
    vector, maps = resnet.DecoderNet2d(4, [1, 1], 20, in_length=3), resnet.DecoderNet2d(4, [1, 1], 20, in_length=None)
    for net, shapes in (
        (vector, [(3,), (2, 4), (2, 3, 1), (0, 3)]),
        (maps, [(8, 5, 5), (1, 4, 5, 5), (1, 8, 5, 6), (1, 8, 6, 6), (0, 8, 5, 5)]),
    ):
        for shape in shapes:
            with pytest.raises(ValueError) as caught:
                net(torch.zeros(*shape))
            assert_own(caught, 'DecoderNet2d')
    for net, size in ((vector, 4), (vector, (3, 3)), (maps, 6), (maps, (5, 5, 5))):
        with pytest.raises(ValueError, match='size=') as caught:
            net.output_size(size)
        assert_own(caught, 'DecoderNet2d')


@pytest.mark.parametrize('size', [0, -1, (5,), (5, 5, 5), 'big', None, 5.0, (5, 5.0)])
def test_sizes_asked_for_are_checked(size: object):
    net = resnet.UNet2d(4, [1, 1])
    for ask in (net.output_size, net.stage_sizes):
        with pytest.raises((TypeError, ValueError), match='size=') as caught:
            ask(size)
        assert_own(caught, 'UNet2d')


def test_autocast_does_not_take_double():
    net = resnet.EncoderNet2d(4, [1, 1])
    with torch.autocast('cpu', torch.bfloat16), pytest.raises(TypeError, match='float64'):
        net(torch.zeros(1, 1, 8, 8, dtype=torch.float64))
