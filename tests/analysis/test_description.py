"""The tree says what others say: torchinfo's parameters, torch's multiply-adds, the forecast's bytes."""

import json

import pytest
import torch
import torchinfo
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mdnc import ops
from mdnc.analysis import compare, describe, memory_forecast
from mdnc.modules.resnet import BlockPlain2d, EncoderNet2d, UNet1d, UNet2d, encnet12
from tests import catalogue
from tests.analysis.entries import EVERY
from tests.catalogue import identity


@EVERY
def test_figures_equal_those_of_others(entry):
    net, x = entry.build(), entry.sample()
    whole = describe(net, entry.input, 2).whole
    with ops.plain(), FlopCounterMode(display=False) as counter:
        net(x)
    assert 2 * whole.macs == counter.get_total_flops()
    assert whole.parameters == torchinfo.summary(net, input_data=x, verbose=0).total_params
    assert whole.kept == memory_forecast(net, entry.input, 2).saved
    assert whole.output == (2, *entry.output)


@pytest.mark.parametrize('entry', catalogue.CLASSES, ids=identity)
def test_modules_are_the_network_s_own(entry):
    net = entry.build()
    described = {module.path: module for module in describe(net, entry.input).modules}
    lists = [path for path, module in net.named_modules() if isinstance(module, nn.ModuleList)]
    assert described.keys() | set(lists) == {path for path, _ in net.named_modules()}
    for path, module in described.items():
        own = net.get_submodule(path)
        assert module.kind == type(own).__name__
        assert module.parameters == sum(p.numel() for p in own.parameters())
        if isinstance(own, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            assert module.kernel == own.kernel_size
            assert module.output[1:2] == (own.out_channels,)


def test_the_tree_is_read_as_it_runs():
    text = str(describe(UNet2d(4, [2, 1]), (13, 10), depth=2))
    labels = [line.split()[:2] for line in text.splitlines()[2:] if line]
    assert labels[:7] == [
        ['UNet2d', '1'],
        ['conv_first', 'Conv2d'],
        ['conv_down_list.0', '_BlockResStkNd'],
        ['conv_list.0', '_BlockBottleneckNd'],
        ['conv_scale', '_BlockBottleneckNd'],
        ['conv_middle_up', '_BlockResStkNd'],
        ['conv_scale', '_BlockBottleneckNd'],
    ]


def test_depth_and_columns_are_chosen():
    description = describe(UNet1d(4, [1, 1]), 16, depth=0, columns=['parameters', 'output'])
    head, _, row, *_ = str(description).splitlines()
    assert head.split() == ['module', 'parameters', 'output']
    assert row.split() == ['UNet1d', f'{description.whole.parameters:,}', '1', '×', '1', '×', '16']
    assert str(description).splitlines()[3] == ''
    assert str(describe(UNet1d(4, [1, 1]), 16, columns=())).splitlines()[2] == 'UNet1d'


class Odd(nn.Module):
    """A shared layer, a layer that is never called, a weight of its own, a frozen one."""

    def __init__(self):
        super().__init__()
        self.once = nn.Linear(4, 4)
        self.again = self.once
        self.unused = nn.Linear(7, 7)
        self.weight = nn.Parameter(torch.ones(4))
        self.frozen = nn.Linear(4, 2).requires_grad_(False)

    def forward(self, x):
        return self.frozen(torch.fft.fft(self.again(self.once(x)) * self.weight).abs())


def test_what_could_not_be_counted_is_said():
    description = describe(Odd(), (4,), 3)
    assert description.never_called == ('unused',)
    assert {'mul', '_fft_r2c', 'abs'} <= set(description.uncounted)
    assert description.whole.parameters == 20 + 56 + 4 + 10
    assert description.trainable == 80
    assert description.whole.macs == 3 * (2 * 16 + 8)  # the shared layer twice
    text = str(description)
    assert '90 parameters, 10 of them not trained' in text
    assert 'never called: unused' in text
    assert 'not counted as multiply-adds: ' in text


def test_a_tied_weight_is_counted_once():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    assert [module.parameters for module in describe(net, (4,)).modules] == [24, 20, 4]


def test_inside_blocks_nothing_is_said_of_bytes():
    kept = {module.path: module.kept for module in describe(EncoderNet2d(4, [1, 1]), 13).modules}
    assert kept['netbody.1.conv_scale'] > 0
    assert kept['netbody.1.conv_scale.conv1'] is None
    whole, *inside = describe(BlockPlain2d(3, 4), (3, 13, 10)).modules
    assert whole.kept > 0
    assert {module.kept for module in inside} == {None}


def test_any_module_has_bytes_down_to_its_layers():
    description = describe(nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Sigmoid(), nn.Linear(3, 2))), (4,), 5)
    assert [module.kept for module in description.modules] == [60, 0, 60, 60, 0]  # sigmoid's output is linear's input


def test_plain_values():
    description = describe(UNet1d(4, [1, 1]), 16)
    plain = json.loads(json.dumps(description.to_dict()))
    assert plain == description.to_dict()
    assert plain['modules'][0]['macs'] == description.whole.macs
    assert len(plain['modules']) == len(description.modules)


def test_two_networks_side_by_side():
    first, second = describe(EncoderNet2d(4, [1, 1]), 16), describe(EncoderNet2d(8, [1, 2, 1]), 16)
    comparison = compare(first, second)
    lines = str(comparison).splitlines()
    (row,) = [line.split() for line in lines if line.startswith('parameters  ')]
    ratio = second.whole.parameters / first.whole.parameters
    assert row[1:] == [f'{first.whole.parameters:,}', f'{second.whole.parameters:,}', f'{ratio:.2f}']
    assert any(line.startswith('netbody.5 | ') or line.startswith('fc | ') for line in lines)
    assert comparison.to_dict()['second'] == second.to_dict()
    with pytest.raises(TypeError, match='compare: second must be a result of describe, not int'):
        compare(first, 3)


def test_nothing_is_computed_or_changed():
    with torch.device('meta'):
        net = encnet12(order=3)
    assert describe(net, 512, 4).whole.output == (4, 2)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize(
    ('arguments', 'error', 'text'),
    [
        ({'net': None}, TypeError, 'describe: net must be'),
        ({'depth': -1}, ValueError, 'describe: depth=-1'),
        ({'columns': ['flops']}, ValueError, "describe: columns='flops' must be one of 'input', 'output'"),
        ({'input_size': (1, 1)}, ValueError, 'too small'),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, error, text):
    with pytest.raises(error, match=text):
        describe(**{'net': UNet2d(4, [1, 1]), 'input_size': (13, 10)} | arguments)
