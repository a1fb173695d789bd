"""Weights of one network in another, as far as they fit."""

import pytest
import torch

from mdnc.checkpoints import load_into
from mdnc.modules import resnet


def _state(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


@pytest.mark.parametrize('family', ['UNet', 'AE'])
@pytest.mark.parametrize('order', [1, 2, 3])
def test_an_encoder_out_of_a_unet_or_autoencoder_gives_its_maps(family, order):
    source = getattr(resnet, f'{family}{order}d')(4, [2, 1, 1])
    net = getattr(resnet, f'EncoderNet{order}d')(4, [2, 1], out_length=None)
    report = load_into(net, source.state_dict())
    assert report.names('left') == ('netbody.3',)
    x = torch.randn(2, 1, *(13, 10, 8)[:order])
    taken, given = [], []
    source.conv_down_list[-1].register_forward_hook(lambda *call: taken.append(call[-1]))
    net.netbody[2].register_forward_hook(lambda *call: given.append(call[-1]))
    source(x), net(x)
    torch.testing.assert_close(given[0], taken[0][0] if family == 'UNet' else taken[0])


def test_a_unet_takes_an_encoder():
    source, net = resnet.EncoderNet2d(4, [2, 1, 1]), resnet.UNet2d(4, [2, 1, 1])
    report = load_into(net, source.state_dict())
    assert [row.stage for row in report.rows if row.fate == 'loaded'] == ['first', 'down 1', 'down 1', 'down 2']
    assert [row.stage for row in report.rows if row.fate == 'unused'] == ['down 3', 'tail', 'head']


def test_ways_up_are_aligned_at_the_output():
    source, net = resnet.UNet1d(4, [2, 2, 1]), resnet.UNet1d(4, [2, 2, 2, 1])
    report = load_into(net, source.state_dict())
    pairs = {row.here: row.there for row in report.rows if row.fate == 'loaded'}
    assert pairs['conv_up_list.2.conv_scale'] == 'conv_up_list.1.conv_scale'
    assert pairs['conv_final'] == 'conv_final'
    stages = {row.here: row.stage for row in report.rows}
    ups = [stages[f'conv_up_list.{level}.conv_scale'] for level in range(3)]
    assert [stages['conv_middle_up.conv_scale'], *ups] == ['middle', 'up 3', 'up 2', 'up 1']
    assert torch.equal(net.conv_final.weight, source.conv_final.weight)


def test_decoders_of_another_depth_share_their_ends():
    source, net = resnet.DecoderNet1d(4, [1, 2], 20), resnet.DecoderNet1d(4, [1, 1, 2], 20, in_length=3)
    report = load_into(net, source.state_dict())
    assert report.names('loaded') == (
        'netbody.1.conv_scale',
        'netbody.2.conv_list.0',
        'netbody.2.conv_scale',
        'conv_last',
    )


@pytest.mark.parametrize(('old', 'new'), [(3, 1), (1, 3), (3, 4), (2, 5), (4, 2)])
def test_other_input_channels_keep_the_response_to_channels_that_are_alike(old, new):
    source, net = resnet.EncoderNet2d(4, [1, 1], in_planes=old), resnet.EncoderNet2d(4, [1, 1], in_planes=new)
    source.netbody[0].weight.data[:] = source.netbody[0].weight.data[:, :1]
    report = load_into(net, source.state_dict())
    assert report.names('adapted') == ('netbody.0',)
    assert report.names('left') == ()
    x = torch.randn(1, 1, 9, 9)
    ours, theirs = net.netbody[0](x.expand(1, new, 9, 9)), source.netbody[0](x.expand(1, old, 9, 9))
    torch.testing.assert_close(ours, theirs)


def test_one_channel_takes_the_sum():
    source, net = resnet.EncoderNet2d(4, [1, 1], in_planes=3), resnet.EncoderNet2d(4, [1, 1], in_planes=1)
    load_into(net, source.state_dict())
    x = torch.randn(1, 1, 9, 9)
    torch.testing.assert_close(net.netbody[0](x), source.netbody[0](x.expand(1, 3, 9, 9)))


def test_another_head_is_left_and_reported():
    source, net = resnet.EncoderNet2d(4, [1, 1], out_length=2), resnet.EncoderNet2d(4, [1, 1], out_length=7)
    before = _state(net)
    report = load_into(net, {f'network.{key}': value for key, value in source.state_dict().items()})
    (row,) = [row for row in report.rows if row.fate == 'left']
    assert (row.stage, row.here, row.there) == ('head', 'fc', 'fc')
    assert row.note == 'weight: (2, 8) there, (7, 8) here'
    assert torch.equal(net.fc.weight, before['fc.weight'])
    assert str(report).splitlines()[-1] == 'head    fc                    fc                    left    ' + row.note
    assert len({line.index('loaded') for line in str(report).splitlines() if 'loaded' in line}) == 1


def test_blocks_are_loaded_whole_or_not_at_all():
    source, net = resnet.EncoderNet2d(4, [2, 1]), resnet.EncoderNet2d(4, [2, 1], kernel_size=(3, 5))
    before = _state(net)
    report = load_into(net, source.state_dict())
    assert set(report.names('loaded')) == {'fc'}
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items() if not key.startswith('fc'))


def test_another_block_kind_is_other_layers():
    source, net = resnet.EncoderNet1d(4, [1, 1], block='plain'), resnet.EncoderNet1d(4, [1, 1])
    report = load_into(net, source.state_dict())
    assert {row.note for row in report.rows if row.fate == 'left'} == {'it has other layers there'}


def test_every_key_of_both_sides_is_in_the_report():
    source, net = resnet.UNet3d(4, [1, 2, 2]), resnet.AE3d(4, [2, 2])
    report = load_into(net, source.state_dict())
    for state, names in (
        (net.state_dict(), {row.here for row in report.rows}),
        (source.state_dict(), {row.there for row in report.rows}),
    ):
        assert all(any(key.startswith(f'{name}.') for name in names - {''}) for key in state)


def test_integers_are_no_weights():
    source, net = resnet.EncoderNet1d(4, [1, 1]), resnet.EncoderNet1d(4, [1, 1])
    report = load_into(net, source.state_dict() | {'fc.bias': torch.ones(2, dtype=torch.int64)})
    assert [row.note for row in report.rows if row.fate != 'loaded'] == ['bias: torch.int64 there']


def test_values_are_converted_and_kept_apart():
    source, net = resnet.EncoderNet1d(4, [1, 1]).half(), resnet.EncoderNet1d(4, [1, 1])
    load_into(net, source.state_dict())
    assert net.fc.weight.dtype == torch.float32
    assert torch.equal(net.fc.weight, source.fc.weight.float())
    assert net.fc.weight.requires_grad


@pytest.mark.parametrize(
    ('net', 'state', 'error', 'text'),
    [
        (torch.nn.Linear(1, 1), {}, TypeError, 'net must be a network of mdnc, not a Linear'),
        (resnet.UNet1d(2, [1, 1]), 3, TypeError, 'must map names to tensors'),
        (
            resnet.UNet1d(2, [1, 1]),
            resnet.UNet2d(2, [1, 1]).state_dict(),
            ValueError,
            'of a 2-D network, UNet1d is not',
        ),
        (
            resnet.UNet1d(2, [1, 1], out_planes=2),
            resnet.DecoderNet1d(3, [1, 1], 9).state_dict(),
            ValueError,
            'nothing in the state dict fits UNet1d',
        ),
    ],
)
def test_what_cannot_fit_is_refused(net, state, error, text):
    before = _state(net)
    with pytest.raises(error, match=text):
        load_into(net, state)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
