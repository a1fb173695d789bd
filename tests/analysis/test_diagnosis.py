"""Each finding has a network with the fault and one without it."""

import copy
import json

import pytest
import torch
from torch import nn

from mdnc.analysis import Thresholds, diagnose
from mdnc.modules.resnet import DecoderNet2d, EncoderNet1d, EncoderNet2d, UNet2d
from tests import catalogue
from tests.catalogue import identity


def findings(net, x, **how):
    return [(finding.kind, finding.part) for finding in diagnose(net, x, **how).findings]


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def plain(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*layers)


def test_a_sound_network_has_no_findings():
    torch.manual_seed(0)
    diagnosis = diagnose(UNet2d(8, [2, 2, 2]), noise(2, 1, 32, 32))
    assert not diagnosis.findings
    assert str(diagnosis).endswith('No problems were found.')


@pytest.mark.parametrize(('side', 'kind'), [(32, {('few_values', 'netbody.2')}), (64, set())])
def test_norms_with_few_values(side, kind):
    found = findings(EncoderNet1d(4, [2, 1], out_length=None), noise(2, 1, side))
    assert set(found) == kind


@pytest.mark.parametrize(
    ('norm', 'values'),
    [(nn.InstanceNorm1d(4), 7), (nn.BatchNorm1d(4), 35), (nn.GroupNorm(2, 4), 14), (nn.LayerNorm((4, 7)), 28)],
)
def test_values_of_every_norm_are_counted(norm, values):
    diagnosis = diagnose(plain(nn.Conv1d(1, 4, 1), norm), noise(5, 1, 7))
    assert diagnosis.parts[1].values == values


def test_the_fewest_values_of_a_part_count():
    # On the way up the first norm of a stage sees the small map, on the way down the last.
    parts = {part.name: part.values for part in diagnose(UNet2d(4, [1, 1]), noise(2, 1, 12, 12)).parts}
    assert parts['conv_middle_up'] == 36
    parts = {
        part.name: part.values
        for part in diagnose(DecoderNet2d(4, [1, 1], out_size=12, in_length=3), noise(2, 3)).parts
    }
    assert parts['netbody.0'] == 9


def test_batch_norm_with_kept_statistics_takes_none():
    assert diagnose(plain(nn.Conv1d(1, 4, 1), nn.BatchNorm1d(4)).eval(), noise(2, 1, 3)).parts[1].values is None


def test_a_convolution_that_sees_mostly_padding():
    net = EncoderNet2d(4, [2, 1, 1], out_length=None)
    assert ('padding', 'netbody.4') in findings(net, noise(2, 1, 16, 16))
    assert not [kind for kind, _ in findings(net, noise(2, 1, 64, 64)) if kind == 'padding']


def test_padding_is_counted_exactly():
    # 3 × 3 on 2 × 2: at each of 4 places 4 of 9 values are there; with stride 2 at 1 of 1.
    (same,) = diagnose(plain(nn.Conv2d(1, 1, 3, padding=1)), noise(2, 1, 2, 2)).parts
    assert same.padding == pytest.approx(5 / 9)
    (wide,) = diagnose(plain(nn.Conv1d(1, 1, 3, stride=2, padding=2, dilation=2)), noise(2, 1, 5)).parts
    # places −2, 0, 2 and steps of 2: (−2 0 2) (0 2 4) (2 4 6)
    assert wide.padding == pytest.approx(2 / 9)


def test_a_vector_spread_over_a_map_is_no_padding():
    net = DecoderNet2d(4, [1, 2], out_size=64, in_length=3)
    assert not [kind for kind, _ in findings(net, noise(2, 3)) if kind == 'padding']


@pytest.mark.parametrize('bias', [-100.0, 0.0])
def test_dead_channels(bias):
    net = plain(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 3))
    with torch.no_grad():
        net[0].bias[:2] = bias  # two channels that nothing can light up, or two as the others
    found = diagnose(net, noise(4, 1, 20))
    assert [(finding.kind, finding.part) for finding in found.findings] == ([('constant', '1')] if bias else [])
    assert found.parts[1].constant == (0.5 if bias else 0)


def test_constant_channels_of_a_unit_are_named():
    net = UNet2d(8, [2, 2])
    nn.init.zeros_(net.conv_down_list[0].conv_list[0].conv2[0].weight[:2])
    (finding,) = diagnose(net, noise(2, 1, 32, 32)).findings
    assert (finding.kind, finding.part) == ('constant', 'conv_down_list.0')
    assert '25% of those of conv_down_list.0.conv_list.0.conv2.0' in finding.text


class Weak(nn.Module):
    """Passes a fraction of the gradient."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor - (x * (self.factor - 1)).detach()


@pytest.mark.parametrize(
    ('factor', 'expected'),
    [(1e-6, [('gradient', '0')]), (1e6, [('gradient', '0')]), (1e-1, []), (0.0, [('gradient', '0')])],
)
def test_gradients_that_vanish(factor, expected):
    net = plain(nn.Linear(8, 8), Weak(factor), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    diagnosis = diagnose(net, noise(9, 8))
    assert [(finding.kind, finding.part) for finding in diagnosis.findings] == expected
    assert any(finding.text == 'No gradient reaches 0.' for finding in diagnosis.findings) == (factor == 0)


def test_the_loss_of_the_gradients_can_be_chosen():
    net = plain(nn.Linear(8, 8), nn.Linear(8, 2))
    x = noise(9, 8)
    default, tenfold = (diagnose(net, x, loss) for loss in (None, lambda y: 10 * y.square().mean()))
    ratios = [b.gradient / a.gradient for a, b in zip(default.parts, tenfold.parts, strict=True)]
    assert ratios == pytest.approx([10, 10])


@pytest.mark.parametrize(('layers', 'lost'), [([1, 1], True), ([2, 1], False)])
def test_an_output_that_does_not_depend_on_the_amplitude(layers, lost):
    # With one block a stage, every way through the first stage leads through a norm.
    diagnosis = diagnose(EncoderNet2d(8, layers), noise(4, 1, 32, 32))
    assert any(finding.kind == 'amplitude' for finding in diagnosis.findings) == lost
    assert (diagnosis.amplitude < 0.01) == lost


def test_amplitude_is_measured_at_the_same_random_state():
    net = plain(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2, bias=False))
    net[0].bias = None
    assert diagnose(net, noise(9, 8)).amplitude == pytest.approx(1)


def test_values_that_are_not_finite():
    net = plain(nn.Linear(8, 8), nn.Linear(8, 2))
    nn.init.constant_(net[1].weight, float('inf'))
    assert ('finite', '1') in findings(net, noise(9, 8))


class Scale(nn.Module):
    """Has a weight of its own beside a layer."""

    def __init__(self):
        super().__init__()
        self.weight, self.inner = nn.Parameter(torch.tensor(3.0)), nn.Identity()

    def forward(self, x):
        return self.inner(x) * self.weight


def test_a_weight_outside_layers_and_a_frozen_network():
    _, itself = diagnose(Scale(), noise(9, 8)).parts
    assert itself.output is None
    assert itself.gradient > 0
    assert not findings(Scale(), noise(9, 8))
    frozen = diagnose(plain(nn.Linear(8, 2)).requires_grad_(False), noise(9, 8))
    assert [part.gradient for part in frozen.parts] == [None]


def test_thresholds_can_be_chosen():
    net, x = UNet2d(8, [2, 2]), noise(2, 1, 32, 32)
    strict = Thresholds(few_values=10**6, padding=0.0, amplitude=10.0)
    assert {kind for kind, _ in findings(net, x, thresholds=strict)} == {'few_values', 'padding', 'amplitude'}


@pytest.mark.parametrize('entry', catalogue.CLASSES, ids=identity)
def test_nothing_is_changed(entry):
    net, x = entry.build(), entry.sample()
    before, state, sample = copy.deepcopy(net.state_dict()), torch.get_rng_state(), x.clone()
    diagnosis = diagnose(net, x)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, sample)
    assert not any(module._forward_hooks for module in net.modules())
    assert json.loads(json.dumps(diagnosis.to_dict()))['name'] == type(net).__name__
    assert all(part.name in str(diagnosis) for part in diagnosis.parts)


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(TypeError, match=r'diagnose: net must be a torch\.nn\.Module, not int'):
        diagnose(3, noise(2, 2))
    with pytest.raises(TypeError, match='diagnose: x must be a tensor of floating-point values'):
        diagnose(nn.Linear(2, 2), torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match='too small'):
        diagnose(EncoderNet2d(4, [1, 1]), noise(2, 1, 1, 1))
