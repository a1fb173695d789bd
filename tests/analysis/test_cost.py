"""Multiply-adds are torch's own count; bytes are compared with counts by hand."""

import json
import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mdnc import ops
from mdnc.analysis import Device, cost, measured_device
from mdnc.modules.resnet import EncoderNet2d, UNet2d
from tests import catalogue
from tests.analysis.entries import EVERY
from tests.catalogue import identity

FLOAT = 4


@EVERY
def test_macs_are_half_of_what_torch_counts(entry):
    net, x = entry.build(), entry.sample()
    with ops.plain(), FlopCounterMode(display=False) as forward:
        y = net(x)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    assert 2 * cost(net, entry.input, 2).macs == forward.get_total_flops() > 0
    both = cost(net, entry.input, 2, training=True)
    assert 2 * both.macs == forward.get_total_flops() + backward.get_total_flops()


@pytest.mark.parametrize('entry', catalogue.CLASSES, ids=identity)
def test_parts_add_up(entry):
    counted = cost(entry.build(), entry.input, training=True)
    for figure in ('macs', 'elements', 'bytes', 'eager_bytes'):
        assert getattr(counted, figure) == sum(getattr(part, figure) for part in counted.stages)
    assert counted.bytes <= counted.eager_bytes


def test_each_part_has_the_macs_of_its_own_layers():
    net, sizes = UNet2d(4, [2, 1, 1]), {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda m, _, y, name=name: sizes.update({name: y.numel() * m.weight[0].numel()})
            )
    with ops.plain():
        net(torch.zeros(1, 1, 13, 10))
    forward, both = cost(net, (13, 10)), cost(net, (13, 10), training=True)
    for part, trained in zip(forward.stages, both.stages, strict=True):
        assert part.macs == sum(macs for name, macs in sizes.items() if f'{name}.'.startswith(f'{part.name}.'))
        # Backward asks twice: for the gradients of weights and inputs; the network's input needs none.
        assert trained.macs == part.macs * (2 if part.name == 'conv_first' else 3)


def test_bytes_by_hand():
    net = nn.Sequential(nn.Conv1d(2, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    counted = cost(net, (2, 10), 3)
    conv, relu, flatten, linear = counted.stages
    assert (conv.macs, conv.elements) == (3 * 8 * 4 * 6, 3 * 20 + 24 + 3 * 32)
    assert conv.bytes == conv.eager_bytes == FLOAT * conv.elements
    assert (relu.macs, relu.bytes, relu.eager_bytes) == (0, 0, FLOAT * 2 * 3 * 32)
    assert flatten.eager_bytes == 0  # a view moves nothing
    assert linear.elements == 3 * 32 + 32 * 5 + 5 + 3 * 5
    assert counted.uncounted == ('relu',)
    assert linear.elements_per_mac == linear.elements / (3 * 32 * 5)


def test_in_place_operators_read_and_write():
    assert cost(nn.ReLU(inplace=True), (10,)).eager_bytes == FLOAT * 2 * 10


def test_another_dtype_halves_the_bytes():
    net = EncoderNet2d(4, [1, 1])
    single, half = cost(net, (13, 10)), cost(net, (13, 10), dtype=torch.bfloat16)
    assert 2 * half.bytes == single.bytes
    assert half.elements_per_mac == single.elements_per_mac


def test_floors_follow_from_the_device():
    counted = cost(UNet2d(4, [1, 1]), (13, 10), training=True)
    device = Device('slow', bandwidth=1e6, arithmetic=3e6)
    floors = counted.floors(device)
    assert math.isclose(floors.arithmetic, counted.macs / 3e6)
    assert math.isclose(floors.traffic, counted.bytes / 1e6)
    assert math.isclose(floors.seconds, sum(max(part.macs / 3e6, part.bytes / 1e6) for part in counted.stages))
    assert floors.seconds > 1.01 * max(floors.arithmetic, floors.traffic)  # some parts wait for one, some for the other
    assert str(floors).startswith('slow: not below ')


def test_this_machine_can_be_measured():
    device = measured_device()
    assert device.name == 'cpu'
    assert device.bandwidth > 0 < device.arithmetic


def test_gradients_and_weights_stay():
    net = EncoderNet2d(4, [1, 1])
    before = [p.detach().clone() for p in net.parameters()]
    cost(net, 13, training=True)
    assert all(p.grad is None and torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))


def test_text_and_plain_values():
    counted = cost(UNet2d(4, [1, 1]), (13, 10))
    assert [line.split()[0] for line in str(counted).splitlines()[2:-2]] == [part.name for part in counted.stages]
    plain = json.loads(json.dumps(counted.to_dict()))
    assert plain['macs'] == counted.macs
    assert plain['stages'][0]['name'] == 'conv_first'
    assert 'native_batch_norm' in plain['uncounted']


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match='cost: input_size'):
        cost(UNet2d(4, [1, 1]), (2, 13, 10))
    with pytest.raises(TypeError, match='cost: net must be'):
        cost(3, (2, 13, 10))
