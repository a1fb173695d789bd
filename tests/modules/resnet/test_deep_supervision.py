"""In training the outputs of several levels at their own sizes, in eval the finest alone."""

import math

import pytest
import torch

import mdnc
from mdnc.modules import resnet

KINDS = [resnet.UNet1d, resnet.AE1d, resnet.UNet2d, resnet.AE3d]


@pytest.mark.parametrize('first', [False, True])
@pytest.mark.parametrize('levels', [1, 2, 3])
@pytest.mark.parametrize('kind', KINDS)
def test_sizes_and_gradients_of_each_level(kind: type, levels: int, first: bool):
    net = kind(4, [1, 2, 1, 1], 'plain', out_planes=3, deep_supervision=levels, resize_at='first' if first else 'last')
    size = (29, 22, 17)[: net.plan.order]
    y = net(torch.randn(2, 1, *size))
    assert isinstance(y, tuple)
    wanted = [tuple(math.ceil(length / 2**level) for length in size) for level in range(levels)]
    assert [tuple(each.shape) for each in y] == [(2, 3, *each) for each in wanted]
    sum(each.square().sum() for each in y[1:]).backward() if levels > 1 else y[0].sum().backward()
    for level in range(levels - 1):
        assert net.heads[level].weight.grad.abs().sum() > 0
    assert (net.conv_final.weight.grad is None) == (levels > 1) and net.conv_first.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('first', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_eval_gives_the_finest_alone_and_options_leave_it(kind: type, first: bool):
    words = {'resize_at': 'first' if first else 'last'}
    torch.manual_seed(0)
    net = kind(4, [1, 1, 1], deep_supervision=2, **words)
    x = torch.randn(1, 1, *(14, 13, 9)[: net.plan.order])
    plain = kind(4, [1, 1, 1], **words).eval()
    keys = set(net.state_dict()) - set(plain.state_dict())
    assert keys == {'heads.0.weight', 'heads.0.bias'}
    plain.load_state_dict({key: value for key, value in net.state_dict().items() if key not in keys})
    torch.testing.assert_close(net.eval()(x), plain(x))
    torch.testing.assert_close(net.train()(x)[0], plain.train()(x))


def test_heads_are_saved_and_found_again(tmp_path):
    net = resnet.UNet2d(4, [1, 1, 1, 1], deep_supervision=3)
    net.save_pretrained(tmp_path)
    again = mdnc.checkpoints.load(tmp_path)
    assert again.config['deep_supervision'] == 3 and len(again.heads) == 2
    x = torch.randn(1, 1, 20, 24)
    for mine, theirs in zip(again.train()(x), net.train()(x), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize('memory', ['fast', 'lean', 'leaner', 'least'])
def test_every_level_of_memory_gives_the_same(memory: str):
    torch.manual_seed(0)
    net = resnet.UNet1d(4, [1, 2, 1], deep_supervision=2, memory='plain', dtype=torch.float64)
    x = torch.randn(2, 1, 21, dtype=torch.float64)

    def gradients() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(sum(each.sin().sum() for each in net(x)), net.parameters())

    wanted = gradients()
    net.memory = memory
    for mine, theirs in zip(gradients(), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_more_levels_than_there_are_is_refused():
    with pytest.raises(ValueError, match='UNet1d: deep_supervision=3 must be at most 2'):
        resnet.UNet1d(4, [1, 1, 1], deep_supervision=3)
