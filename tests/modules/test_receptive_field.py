"""Receptive fields read off a plan hold every value of the input that can change a feature, and
at stride 2 next to nothing more."""

import random

import pytest
import torch

from mdnc.modules import resnet
from mdnc.modules._receptive_field import POINT, fields

FAMILIES = ('EncoderNet1d', 'DecoderNet1d', 'AE1d', 'UNet1d')


def drawn(family: str, draw: random.Random, strides: tuple[int, ...]) -> torch.nn.Module:
    count = draw.choice([2, 3])
    steps = count if family[:2] in ('En', 'De') else count - 1
    words = {'resize_at': draw.choice(['first', 'last']), 'strides': [draw.choice(strides) for _ in range(steps)]}
    if family != 'EncoderNet1d':
        words['upsampling'] = draw.choice(['linear', 'nearest', 'transposed'])
    if family != 'DecoderNet1d':
        words['shortcut'] = draw.choice(['conv', 'pool'])
    if family in ('AE1d', 'UNet1d'):
        words['up_layers'] = draw.choice([0, 1])
    shape = {
        'EncoderNet1d': {'out_length': None},
        'DecoderNet1d': {'out_size': draw.randint(20, 60), 'in_length': None},
    }
    block, layers = draw.choice(['plain', 'bottleneck']), [draw.choice([1, 2]) for _ in range(count)]
    return getattr(resnet, family)(
        2, layers, block=block, normalizer='null', activator='null', **shape.get(family, {}), **words
    ).double()


def supports(net: torch.nn.Module, length: int):
    """Name, feature, first and last position of the input with a gradient, and the interval of the field."""
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 1)
    x = torch.rand(1, net.plan.in_planes, length, dtype=torch.double, requires_grad=True)
    names, field = [stage.name for stage in net.plan.stages], fields(net.plan, 0)
    for name, y in net._run(x, net.plan.schedule(False), names).items():
        for index in {0, 1, y.shape[-1] // 2, y.shape[-1] - 1} & set(range(y.shape[-1])):
            (gradient,) = torch.autograd.grad(y[..., index].sum(), x, retain_graph=True)
            seen = gradient[0].abs().sum(0).nonzero().flatten().tolist()
            low, high = field[name].interval(index)
            if seen:
                yield name, index, (seen[0], seen[-1]), (max(low, 0), min(high, length - 1))


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('family', FAMILIES)
def test_field_holds_all_that_changes_a_feature(family: str, seed: int):
    draw = random.Random(f'{family}{seed}')
    net = drawn(family, draw, (1, 2, 3, 4))
    length = draw.randint(20, 60) if net.plan.in_size is None else net.plan.in_size[0]
    for name, index, seen, said in supports(net, length):
        assert said[0] <= seen[0] and seen[1] <= said[1], (name, index, seen, said)


@pytest.mark.parametrize('family', ['EncoderNet1d', 'UNet1d'])
def test_field_is_tight_at_stride_two(family: str):
    draw = random.Random(7)
    for _ in range(4):
        net = drawn(family, draw, (2,))
        middle = [each for each in supports(net, 120) if each[1] > 1 and each[2][0] > 0 and each[2][1] < 119]
        assert middle
        assert all(abs(seen[0] - said[0]) + abs(seen[1] - said[1]) <= 4 for _, _, seen, said in middle)


def test_a_point_sees_itself_and_strides_multiply():
    assert POINT.interval(5) == (5, 5)
    net = resnet.EncoderNet1d(2, [1, 1], out_length=None)
    assert fields(net.plan, 0)['netbody.1'].interval(3) == (3, 9)
    assert fields(net.plan, 0)['netbody.2'].stride == 4
