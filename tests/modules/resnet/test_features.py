"""Maps by name are what hooks see, computed no further than asked; the head takes up where they end."""

from typing import Any

import pytest
import torch
from torch import nn

from mdnc.modules import resnet

NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    'encoder': ('EncoderNet2d', {'in_planes': 2, 'amplitude': True, 'pool': 'gem'}, (2, 2, 13, 10)),
    'encoder of maps': ('EncoderNet1d', {'out_length': None, 'tail': 'norm'}, (2, 1, 21)),
    'encoder first': ('EncoderNet3d', {'resize_at': 'first', 'normalizer': 'batch', 'dropout': 0.0}, (2, 1, 5, 6, 7)),
    'decoder': ('DecoderNet2d', {'out_size': (13, 10), 'in_length': 3}, (2, 3)),
    'decoder of maps': ('DecoderNet1d', {'out_size': 13, 'in_length': None}, (2, 8, 4)),
    'autoencoder': ('AE2d', {'small': 'keep'}, (2, 1, 9, 6)),
    'unet': ('UNet1d', {'deep_supervision': 1}, (2, 1, 21)),
    'light unet': ('UNet2d', {'resize_at': 'first', 'up_layers': 0, 'strides': [(1, 2)]}, (1, 1, 13, 10)),
}


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    kind, words, shape = NETWORKS[name]
    return getattr(resnet, kind)(4, [1, 2], **words), torch.randn(shape)


def seen(net: nn.Module, x: torch.Tensor) -> tuple[dict[str, torch.Tensor], Any]:
    maps: dict[str, torch.Tensor] = {}
    for stage in net.plan.stages:

        def keep(module: nn.Module, inputs: Any, output: Any, name: str = stage.name) -> None:
            maps[name] = output[0] if isinstance(output, tuple) else output

        net.get_submodule(stage.name).register_forward_hook(keep)
    y = net(x)
    for stage in net.plan.stages:
        net.get_submodule(stage.name)._forward_hooks.clear()
    return maps, y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize('memory', ['plain', 'lean', 'least'])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('name', NETWORKS)
def test_features_are_what_hooks_see(name: str, training: bool, memory: str):
    net, x = made(name)
    net.train(training).memory = memory
    maps, y = seen(net, x)
    given = net.features(x)
    assert list(given) == [stage.name for stage in net.plan.stages]
    for key, each in given.items():
        torch.testing.assert_close(each, maps[key])
    torch.testing.assert_close(net.forward_head(net.forward_features(x), x), y)


@pytest.mark.parametrize('name', NETWORKS)
def test_info_says_what_is_given(name: str):
    net, x = made(name)
    given = net.features(x)
    assert [info.name for info in net.feature_info] == list(given)
    assert [info.channels for info in net.feature_info] == [each.shape[1] for each in given.values()]
    assert all(len(info.strides) == len(info.receptive_field) == net.plan.order for info in net.feature_info)
    if net.plan.in_size is None and net.plan.small == 'error':
        for info in net.feature_info:
            for axis, step in enumerate(info.strides):  # a way up gives up to a value more, which the next stage crops
                assert 0 <= given[info.name].shape[2 + axis] - -(-x.shape[2 + axis] // int(step)) < 2


def test_no_further_than_asked_and_in_running_order():
    net, x = made('unet')
    ran: list[str] = []
    for stage in net.plan.stages:
        net.get_submodule(stage.name).register_forward_hook(lambda *_, name=stage.name: ran.append(name))
    assert list(net.features(x, ['conv_middle_up', 0])) == ['conv_down_list.0', 'conv_middle_up']
    assert ran == ['conv_down_list.0', 'conv_middle_up']
    assert list(net.features(x, [-1, -1])) == ['conv_up_list.0']
    assert net.features(x, []) == {}


def test_gradients_reach_the_input_through_features():
    net, x = made('light unet')
    x.requires_grad_()
    sum(each.square().sum() for each in net.features(x).values()).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ('stages', 'error', 'words'),
    [
        (['netbody.11'], ValueError, 'netbody.11.*Did you mean netbody.1'),
        ([2], ValueError, 'stages has 2, but there are 2 stages'),
        ([-3], ValueError, 'stages'),
        ([1.0], TypeError, 'stages'),
        ('netbody.1', TypeError, 'sequence of names or indices'),
        (1, TypeError, 'sequence of names or indices'),
    ],
)
def test_stages_are_checked_by_name(stages: Any, error: type[Exception], words: str):
    net, x = made('encoder')
    with pytest.raises(error, match=rf'EncoderNet2d\.features: .*{words}'):
        net.features(x, stages)


def test_head_refuses_by_name():
    net, x = made('encoder')
    maps = net.forward_features(x)
    with pytest.raises(ValueError, match=r'EncoderNet2d\.forward_head: x=None.*amplitude'):
        net.forward_head(maps)
    with pytest.raises(ValueError, match=r'EncoderNet2d\.forward_head.*channels'):
        net.forward_head(maps[:, :3], x)


class _Features(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.net.features(x, [0, -1])


@pytest.mark.parametrize('name', ['encoder', 'decoder', 'unet', 'light unet'])
def test_under_compile_and_export(name: str):
    net, x = made(name)
    module = _Features(net.eval().requires_grad_(False))
    wanted = module(x)
    for given in (
        torch.compile(module, fullgraph=True, backend='eager')(x),
        torch.export.export(module, (x,)).module()(x),
    ):
        assert list(given) == list(wanted)
        for key, each in wanted.items():
            torch.testing.assert_close(given[key], each)
