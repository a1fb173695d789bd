"""Parts that are held stay as they are, and groups of parameters hold each once."""

import copy

import pytest
import torch
from torch import nn

from mdnc.modules import decaying_names, freeze, param_groups, resnet, unfreeze


def trained(net: nn.Module, steps: int = 2) -> None:
    optimizer = torch.optim.SGD([each for each in net.parameters() if each.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        y = net.train()(torch.randn(4, 1, 24))
        (y[0] if isinstance(y, tuple) else y).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(
    ('stages', 'held'),
    [
        ([0, 'netbody.0'], ('netbody.0', 'netbody.1')),
        (['netbody'], ('netbody.0', 'netbody.1', 'netbody.2', 'netbody.3')),
        ([-1], ('netbody.2',)),
        (['fc'], ('fc',)),
        (None, ('netbody.0', 'netbody.1', 'netbody.2', 'netbody.3', 'netbody.4', 'fc')),
    ],
)
def test_frozen_parts_hold_weights_and_statistics_through_train(stages, held: tuple[str, ...]):
    net = resnet.EncoderNet1d(4, [1, 1], normalizer='batch', tail='norm', drop_path=0.5)
    freeze(net, stages)
    assert set(net.held) >= set(held)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    if stages is None:
        net.train()(torch.randn(4, 1, 24))
    else:
        trained(net)
    for key, value in net.state_dict().items():
        same = torch.equal(value, before[key])
        assert same == key.startswith(tuple(f'{name}.' for name in net.held)), key


def test_unfrozen_parts_are_trained_again():
    net = resnet.UNet1d(4, [1, 1, 1], normalizer='batch').train()
    freeze(net)
    unfreeze(net, ['conv_up_list', 'conv_final'])
    assert [name for name, each in net.named_children() if any(p.requires_grad for p in each.parameters())] == [
        'conv_up_list',
        'conv_final',
    ]
    assert net.conv_up_list.training and not net.conv_first.training
    unfreeze(net)
    assert net.held == () and all(each.training for each in net.modules())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_frozen_in_eval_and_in_copies():
    net = resnet.EncoderNet1d(4, [1, 1], normalizer='batch').eval()
    freeze(net, [0])
    assert not any(each.training for each in net.modules())
    again = copy.deepcopy(nn.Sequential(net)).train()[0]
    assert not again.netbody[1].training and again.netbody[2].training
    assert net.reset_head(4).held == ('netbody.1',)


def test_freeze_refuses_by_name():
    net = resnet.EncoderNet1d(4, [1, 1])
    with pytest.raises(ValueError, match=r"freeze: stages contains 'netbodi'.*Did you mean netbody"):
        freeze(net, ['netbodi'])
    with pytest.raises(TypeError, match='unfreeze: net must be one of the networks of mdnc'):
        unfreeze(nn.Linear(2, 2))


NETWORKS = [
    lambda: resnet.EncoderNet2d(4, [1, 2], pool='gem', amplitude=True, se=2),
    lambda: resnet.DecoderNet1d(4, [1, 1], 20),
    lambda: resnet.UNet1d(4, [1, 1, 1], normalizer='batch', deep_supervision=2),
]


@pytest.mark.parametrize('layer_decay', [1.0, 0.5])
@pytest.mark.parametrize('make', NETWORKS)
def test_each_parameter_is_in_one_group(make, layer_decay: float):
    net = make()
    groups = param_groups(net, 0.1, 0.05, layer_decay)
    found = [parameter for group in groups for parameter in group['params']]
    assert len(found) == len(set(map(id, found))) == len(list(net.parameters()))
    decays = {id(each): group['weight_decay'] for group in groups for each in group['params']}
    for module in net.modules():
        norm = isinstance(module, (nn.PReLU, nn.modules.batchnorm._NormBase))
        for name, parameter in module.named_parameters(recurse=False):
            assert decays[id(parameter)] == (0.0 if norm or name in ('bias', 'power') else 0.05)
    assert len({group['name'] for group in groups}) == len(groups)
    torch.optim.AdamW(groups).step()


def test_rates_fall_from_the_head_part_by_part():
    net = resnet.UNet1d(4, [1, 1], deep_supervision=1)
    rates = {group['name']: group['lr'] for group in param_groups(net, 0.8, layer_decay=0.5)}
    assert rates['conv_final'] == 0.8 and rates['conv_up_list.0'] == 0.4 and rates['conv_middle_up'] == 0.2
    assert rates['conv_down_list.0'] == 0.1 and rates['conv_first'] == 0.05
    assert next(iter(rates)) == 'conv_first' and rates['conv_up_list.0, no decay'] == 0.4
    heads = resnet.UNet1d(4, [1, 1, 1], deep_supervision=2)
    rates = {group['name']: group['lr'] for group in param_groups(heads, 0.8, layer_decay=0.5)}
    assert rates['heads.0'] == rates['conv_final'] == 0.8


def test_any_module_without_layer_decay():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert decaying_names(net) == {'0.weight'}
    assert [len(group['params']) for group in param_groups(net, 0.1, 0.1)] == [1, 3]
    with pytest.raises(TypeError, match='param_groups: net must be one of the networks of mdnc'):
        param_groups(net, 0.1, layer_decay=0.5)
    for words in ({'lr': 0}, {'lr': 1, 'weight_decay': -1}, {'lr': 1, 'layer_decay': 1.5}, {'lr': float('nan')}):
        with pytest.raises(ValueError, match='param_groups: '):
            param_groups(net, **words)
