"""A network of one's own, as a plan and a class of a few lines: whatever reads networks reads it too."""

from dataclasses import replace

import pytest
import torch

import mdnc
from mdnc import analysis, checkpoints, export
from mdnc.contribs.torchsummary import summary_string
from mdnc.modules import Network
from mdnc.modules._plan import Linear, Single
from mdnc.modules.resnet import EncoderNet1d

SIZE = (40,)


class TwoHeads(Network):
    """A classifier of signals that tells two things apart at once."""

    def __init__(self, channel, layers, classes):
        encoder = EncoderNet1d(channel, layers, device='meta').plan
        *body, pool, fc = encoder.parts
        heads = [
            Single(f'head_{i}', (Linear(fc.layers[0].in_planes, count),), takes=pool.name)
            for i, count in enumerate(classes)
        ]
        names = tuple(head.name for head in heads)
        plan = replace(encoder, parts=(*body, pool, *heads), modules=('netbody', *names), outputs=names)
        super().__init__(plan, {'channel': channel, 'layers': list(layers), 'classes': list(classes)})


@pytest.fixture
def net():
    torch.manual_seed(0)
    return TwoHeads(4, [1, 2], (3, 5))


def test_it_gives_two_vectors_in_either_mode(net):
    for training in (True, False):
        kind, place = net.train(training)(torch.randn(2, 1, *SIZE))
        assert (kind.shape, place.shape) == ((2, 3), (2, 5))
        (kind.sum() + place.sum()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert list(net.state_dict()) == list(net.plan.tensors)


def test_sizes_and_refusals_are_its_own(net):
    assert net.stage_sizes(SIZE) == ((20,), (10,))
    assert net.min_size == (5,)
    with pytest.raises(ValueError, match=r'TwoHeads: input size \(4,\) is too small for 2 stages'):
        net(torch.zeros(1, 1, 4))


def test_figures_are_its_own(net):
    text, (parameters, _) = summary_string(net, (1, *SIZE))
    assert parameters == sum(parameter.numel() for parameter in net.parameters())
    assert '[-1, 3]' in text and '[-1, 5]' in text
    forecast = analysis.memory_forecast(net, SIZE, 2)
    assert [stage.name for stage in forecast.stages][-2:] == ['head_0', 'head_1']
    assert forecast.saved == analysis.saved_bytes(net, torch.randn(2, 1, *SIZE))
    costs = analysis.cost(net, SIZE)
    assert [stage.macs for stage in costs.stages][-2:] == [8 * 3, 8 * 5]
    described = analysis.describe(net, SIZE)
    assert described.whole.parameters == parameters
    assert described.whole.kept == analysis.memory_forecast(net, SIZE, 1).saved
    assert analysis.max_size(net, 1, 2**20)[0] > 40


def test_its_receptive_field_is_that_of_the_encoder(net):
    ours, theirs = analysis.receptive_field(net), analysis.receptive_field(EncoderNet1d(4, [1, 2]))
    assert ours.stages == theirs.stages


def test_its_picture_has_both_heads(net, tmp_path):
    drawn = analysis.sketch.sketch(net, SIZE)
    assert [column.name for column in drawn.columns][-2:] == ['head_0', 'head_1']
    assert drawn.result == 'vector of 3 and vector of 5'
    assert analysis.draw(net, tmp_path / 'net.png', SIZE).stat().st_size > 1000


def test_it_is_saved_and_comes_back(net, tmp_path):
    net.save_pretrained(tmp_path)
    again = TwoHeads.from_pretrained(tmp_path)
    assert again.config == net.config
    assert again.origin.difference <= 1e-6
    x = torch.randn(2, 1, *SIZE)
    for ours, theirs in zip(again(x), net.eval()(x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_it_takes_the_weights_of_an_encoder(net):
    encoder = EncoderNet1d(4, [1, 2])
    report = checkpoints.load_into(net, encoder.state_dict())
    assert set(report.names('left')) == {'head_0', 'head_1'}
    assert torch.equal(net.netbody[1].conv_scale.conv1[2].weight, encoder.netbody[1].conv_scale.conv1[2].weight)


def test_it_is_exported_with_both_outputs(net, tmp_path):
    assert export.to_onnx(net, tmp_path / 'net.onnx').difference < 1e-4
    assert export.to_torch_export(net.eval(), tmp_path / 'net.pt2').difference < 1e-4
    module = torch.export.load(tmp_path / 'net.pt2').module()
    x = torch.randn(3, 1, 57)
    for ours, theirs in zip(module(x), net(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_diagnosis_and_features_work(net):
    assert analysis.diagnose(net, torch.randn(2, 1, 200)).parts[-1].name == 'head_1'
    assert list(net.features(torch.randn(1, 1, *SIZE))) == ['netbody.1', 'netbody.2']
    assert mdnc.modules.Network is Network
