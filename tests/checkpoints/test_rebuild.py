"""Networks are read off the names and shapes of their state dicts."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from mdnc.checkpoints import rebuild
from mdnc.modules import resnet
from tests.catalogue import OPTED, identity

GOLDEN = json.loads((Path(__file__).parents[1] / 'golden' / 'networks.json').read_text(encoding='utf-8'))


def _known(arguments):
    return {key: value for key, value in arguments.items() if key == 'out_size'}


@pytest.mark.parametrize('golden', GOLDEN, ids=lambda golden: golden['net'])
def test_published_state_dicts_rebuild_and_compute_the_published_values(golden):
    # The keys are the published library's; values as its golden outputs were made.
    state = {}
    for k, key in enumerate(sorted(golden['keys'])):
        shape = golden['keys'][key]
        j = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        state[key] = (0.2 * (0.7 * j + k).sin()).reshape(shape)
    net = rebuild(state, **_known(golden['arguments']))
    assert type(net).__name__ == golden['net']
    j = torch.arange(torch.Size(golden['input']).numel(), dtype=torch.float64)
    y = net(((0.3 * j).sin() + (0.011 * j).cos()).reshape(golden['input'])).flatten()
    torch.testing.assert_close(y[golden['at']], torch.tensor(golden['values'], dtype=torch.float64))


ORDERS = {1: [3, 1], 2: [(3, 5), (1, 3)], 3: [(1, 3, 3), (7, 1, 5)]}
LAYERS = [(1, 1), (2, 1), (1, 2, 3), (3, 1, 2, 1)]
HEADS = {
    'EncoderNet': [{'in_planes': 3, 'out_length': 5}, {'out_length': None}],
    'DecoderNet': [{'in_length': 4, 'out_planes': 2}, {'in_length': None}],
    'AE': [{'in_planes': 2, 'out_planes': 3}],
    'UNet': [{'in_planes': 2, 'out_planes': 3}],
}


@pytest.mark.parametrize('family', HEADS)
@pytest.mark.parametrize('order', ORDERS)
def test_every_argument_is_read(family, order):
    cases = itertools.product(ORDERS[order], LAYERS, ('plain', 'bottleneck'), HEADS[family])
    for kernel, layers, block, head in cases:
        more = {'out_size': (29, 14, 9)[:order]} if family == 'DecoderNet' else {}
        with torch.device('meta'):
            net = getattr(resnet, f'{family}{order}d')(2, layers, block=block, kernel_size=kernel, **head, **more)
        again = rebuild(net.state_dict(), **more)
        assert type(again) is type(net)
        assert again.config == net.config


@pytest.mark.parametrize('prefix', ['module.', 'network.', '_orig_mod.', 'module._orig_mod.', 'ema.shadow.'])
def test_prefixes_are_stripped(prefix):
    net = resnet.UNet1d(2, [1, 1])
    again = rebuild({prefix + key: value for key, value in net.state_dict().items()})
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())


def test_marks_inside_of_keys_are_stripped():
    state = resnet.UNet1d(2, [1, 1]).state_dict()
    marked = {key.replace('conv_scale.', 'conv_scale._fsdp_wrapped_module._orig_mod.'): state[key] for key in state}
    assert rebuild(marked).state_dict().keys() == state.keys()


def test_one_network_among_other_keys_is_chosen_by_prefix():
    one, two = resnet.UNet1d(2, [1, 1]), resnet.EncoderNet1d(3, [1, 1])
    state = {f'a.{key}': value for key, value in one.state_dict().items()}
    with pytest.raises(ValueError, match=r"holds 1 keys beside the network under 'a\.', 'scale' first"):
        rebuild(state | {'scale': torch.ones(1)})
    state |= {f'b.{key}': value for key, value in two.state_dict().items()}
    with pytest.raises(ValueError, match=r"several networks; say which: prefix= one of \['a\.', 'b\.'\]"):
        rebuild(state)
    assert rebuild(state, prefix='b.').config == two.config
    with pytest.raises(ValueError, match=r"prefix='c\.' is before no"):
        rebuild(state, prefix='c.')


def test_the_weights_are_a_copy():
    net = resnet.EncoderNet1d(2, [1, 1])
    again = rebuild(net.state_dict())
    torch.nn.init.zeros_(again.fc.weight)
    assert net.fc.weight.any()
    assert not again.training
    assert again.fc.weight.requires_grad


@pytest.mark.parametrize('out_size', [(25, 17), (32, 24)])
def test_a_decoders_out_size_is_asked_for(out_size):
    state = resnet.DecoderNet2d(2, [1, 1, 1], out_size=out_size).state_dict()
    with pytest.raises(
        ValueError, match=r'kernel \(4, 3\) it is within \(25…32, 17…24\); give it.*out_size=\(32, 24\)'
    ):
        rebuild(state)
    assert rebuild(state, out_size=out_size).config['out_size'] == out_size
    with pytest.raises(ValueError, match=r'out_size=\(33, 24\) is impossible: by conv_in it is within'):
        rebuild(state, out_size=(33, 24))
    with pytest.raises(ValueError, match=r'out_size=\(3, 3\) is impossible'):
        rebuild(state, out_size=3)


def test_a_decoder_of_maps_says_that_nothing_tells_its_size():
    state = resnet.DecoderNet2d(2, [1, 1], out_size=9, in_length=None).state_dict()
    with pytest.raises(ValueError, match='Without conv_in nothing tells it'):
        rebuild(state)


def test_a_size_that_only_one_kernel_allows_is_read():
    net = resnet.DecoderNet1d(2, [1, 1], out_size=9, kernel_size=1)
    assert rebuild(net.state_dict()).config == net.config


def test_what_is_known_is_compared():
    state = resnet.UNet2d(2, [1, 1]).state_dict()
    assert rebuild(state, kernel_size=3, layers=[1, 1], block='bottleneck').config['kernel_size'] == (3, 3)
    with pytest.raises(ValueError, match=r'channel=4 is not what the shapes say: 2'):
        rebuild(state, channel=4)
    with pytest.raises(TypeError, match=r"\['out_size'\] say nothing of the weights of a UNet2d"):
        rebuild(state, out_size=4)


def _without(state, start):
    return {key: value for key, value in state.items() if not key.startswith(start)}


@pytest.mark.parametrize(
    ('state', 'error', 'text'),
    [
        ([1], TypeError, 'must map names to tensors'),
        ({'a': 1}, TypeError, "item 'a' of type int"),
        ({'state_dict': {}}, TypeError, r"one of its items \['state_dict'\]"),
        ({}, ValueError, 'of no network of mdnc'),
        ({'layer1.weight': torch.ones(1)}, ValueError, r"of no network of mdnc.*begin \['layer1.weight'\]"),
        ({'conv_first.weight': torch.ones(2, 2)}, ValueError, 'not whole: conv_last.weight is missing'),
        ({'netbody.0.weight': torch.ones(2)}, ValueError, 'which is no convolution'),
        ({'netbody.0.weight': torch.ones(2, 1, 5)}, ValueError, 'no stage netbody.1 is in it'),
    ],
)
def test_other_things_are_refused(state, error, text):
    with pytest.raises(error, match=text):
        rebuild(state)


def test_state_dicts_that_do_not_fit_together_are_refused():
    whole = resnet.EncoderNet1d(2, [1, 2]).state_dict()
    for start, text in (
        ('netbody.2.conv_list.0.conv1.0.bias', r'netbody\.2\.conv_list\.0\.conv1\.0\.bias is missing'),
        ('netbody.2', r'layers=\(1,\) must be'),
        ('fc.weight', r'fc\.weight is missing'),
        ('netbody.1', r'no stage netbody\.1'),
    ):
        with pytest.raises(ValueError, match=text):
            rebuild(_without(whole, start))
    with pytest.raises(ValueError, match=r'extra is unknown'):
        rebuild({**whole, 'extra': torch.ones(1)})
    with pytest.raises(ValueError, match=r'fc\.bias has dtype torch\.int64'):
        rebuild({**whole, 'fc.bias': torch.ones(2, dtype=torch.int64)})
    decoder = resnet.DecoderNet1d(2, [1, 1], out_size=9).state_dict()
    with pytest.raises(ValueError, match=r'conv_in\.weight has the shape \(8, 2, 3, 3\), which is no convolution'):
        rebuild({**decoder, 'conv_in.weight': torch.ones(8, 2, 3, 3)})
    with pytest.raises(ValueError, match='the first convolution has 4 spatial axes'):
        rebuild({key: value[..., None, None, None] if value.ndim == 3 else value for key, value in whole.items()})


def test_no_key_may_be_missing():
    # Whatever is cut out of a state dict, it is refused by a ValueError of ours.
    for net in (resnet.EncoderNet1d(2, [1, 2]), resnet.UNet1d(2, [1, 2]), resnet.DecoderNet1d(2, [2, 1], out_size=9)):
        whole = net.state_dict()
        for key in whole:
            with pytest.raises(ValueError, match=r'mdnc\.rebuild: '):
                rebuild(_without(whole, key), **_known(net.config))


# What leaves no trace in shapes, and is told where the network has other options.
TOLD = {'normalizer': 'pinst', 'activator': 'prelu', 'strides': None, 'upsampling': 'linear'}
HIDDEN = ('norm_groups', 'small', 'padding_mode', 'pool', 'init', 'resize_at', 'out_size')


@pytest.mark.parametrize('entry', OPTED, ids=identity)
def test_options_are_read_or_asked_for(entry):
    net = entry.build().eval()
    told = {name: net.config.get(name, value) for name, value in TOLD.items()}
    told |= {name: net.config[name] for name in HIDDEN if name in net.config}
    again = rebuild(net.state_dict(), **told)
    assert again.plan.tensors == net.plan.tensors
    torch.testing.assert_close(again(entry.sample()), net(entry.sample()))


def test_options_that_shapes_tell_are_read():
    options = {'normalizer': 'batch', 'layer_order': 'old', 'ratio': 2, 'groups': 2, 'se': 2, 'shortcut': 'pool'}
    more = {'tail': 'norm', 'channels': (8, 12), 'kernel_size': ((3,), (5,))}
    net = resnet.EncoderNet1d(4, [1, 2], **options, **more)
    config = rebuild(net.state_dict(), strides=None).config
    assert {name: config[name] for name in (*options, *more)} == options | more
    net = resnet.UNet1d(4, [2, 2, 1], normalizer='null', resize_at='first', up_layers=[0, 1], upsampling='transposed')
    config = rebuild(net.state_dict(), strides=None).config
    assert config == net.config


def test_what_shapes_do_not_tell_is_asked_for_by_name():
    net = resnet.EncoderNet1d(4, [1, 1], activator='gelu', normalizer='group', norm_groups=2, tail='act')
    with pytest.raises(ValueError, match=r"give normalizer \('pinst' or 'layer'\), activator \('relu' or .*strides"):
        rebuild(net.state_dict())
    known = {'activator': 'gelu', 'normalizer': 'group', 'norm_groups': 2, 'strides': None, 'tail': 'act'}
    again = rebuild(net.state_dict(), **known)
    assert again.config == net.config
    with pytest.raises(ValueError, match=r"normalizer='batch' is not what the shapes say: "):
        rebuild(net.state_dict(), **known | {'normalizer': 'batch', 'norm_groups': 8})
    with pytest.raises(ValueError, match=r'does not contain the weights of layers=.*1000000000'):
        rebuild(net.state_dict(), layers=[10**9, 1])
