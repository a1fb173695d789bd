"""Fields are compared with gradients: what a feature depends on in a network whose norms are neutralised."""

import pytest
import torch
from torch import nn

from mdnc.analysis import receptive_field
from mdnc.modules._layers import SqueezeExcite
from mdnc.modules._receptive_field import POINT, AxisField
from mdnc.modules.resnet import AE1d, AE2d, DecoderNet1d, EncoderNet1d, EncoderNet2d, UNet1d, UNet2d, UNet3d
from mdnc.modules.resnet.stage import crop
from tests import catalogue
from tests.catalogue import identity

SIZES_1D = (16, 17, 19, 29, 30)


class Passed(nn.Identity):
    """Gives its first input, whatever else it is told."""

    def forward(self, x, *_):
        return x


def neutral(net):
    """The network without norms and with positive weights, so that no dependence cancels out."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, (nn.modules.batchnorm._NormBase, nn.GroupNorm, SqueezeExcite)):
                setattr(module, name, Passed())
            if isinstance(child, nn.PReLU):
                nn.init.ones_(child.weight)
    for parameter in net.parameters():
        if parameter.dim() > 1:
            nn.init.constant_(parameter, 1 / parameter[0].numel())
    return net.double().eval()


def outputs_by_part(net, x, names):
    """The map that each part gives."""
    found = {}
    for name in names:

        def keep(_, __, output, name=name):
            found[name] = output[0] if isinstance(output, tuple) else output

        net.get_submodule(name).register_forward_hook(keep)
    net(x)
    return found


def span(gradient, axis):
    """First and last position along an axis where a gradient is not zero."""
    others = [i for i in range(gradient.dim()) if i != axis + 2]
    size = gradient.abs().sum(others)
    places = (size > 1e-14 * size.max()).nonzero().flatten().tolist()
    return places[0], places[-1]


def check(net, size):
    """Compare every feature of every part with gradients, axis by axis, for this size and for every one."""
    net = neutral(net)
    plan = net.plan
    # Beyond a factor of 2 the field for every size is a union.
    exact = max(max(stage.resize.stride) for stage in plan.stages) <= 2
    x = torch.ones(1, net.plan.in_planes, *size, dtype=torch.float64, requires_grad=True)
    source = x
    field, field_at_size = receptive_field(net), receptive_field(net, size if plan.in_size is None else net.min_size)
    if net.plan.in_size == ():
        # The field is counted on the map that is made of the vector.
        shape = (1, net.plan.planes['conv_in'], *net.plan.course(()).sizes['conv_in'])
        source = torch.ones(shape, dtype=torch.float64, requires_grad=True)
        net.conv_in.register_forward_hook(lambda *_: source)
        x = torch.ones(1, net.plan.in_planes, dtype=torch.float64)
    maps = outputs_by_part(net, x, [stage.name for stage in field.stages])
    for name, whole in maps.items():
        output = crop(whole, plan.course(size).sizes[name], plan.order)  # what a decoder's stage gives is cropped
        for axis in range(net.plan.order):
            for index in range(output.shape[axis + 2]):
                (gradient,) = torch.autograd.grad(output.select(axis + 2, index).sum(), source, retain_graph=True)
                seen, at = span(gradient, axis), (name, axis, index)
                low, high = field[name].axes[axis].interval(index)
                low, high = max(low, 0), min(high, source.shape[axis + 2] - 1)
                assert field_at_size[name].axes[axis].interval(index) == seen, at
                assert (low, high) == seen or not exact, at
                assert low <= seen[0] <= seen[1] <= high or plan.small == 'keep', at


@pytest.mark.parametrize('entry', catalogue.NETWORKS, ids=identity)
def test_fields_equal_gradients_over_the_catalogue(entry):
    net = entry.build()
    check(net, entry.input[1:])


@pytest.mark.parametrize('size', SIZES_1D)
@pytest.mark.parametrize('block', ['plain', 'bottleneck'])
@pytest.mark.parametrize('family', [AE1d, UNet1d, EncoderNet1d])
def test_fields_equal_gradients_at_every_parity(family, block, size):
    check(family(1, [2, 1, 1], block, kernel_size=3), (size,))


@pytest.mark.parametrize('size', SIZES_1D)
def test_fields_of_decoders_equal_gradients(size):
    check(
        DecoderNet1d(1, [1, 2, 1], size, in_length=None),
        DecoderNet1d(1, [1, 2, 1], size, in_length=None).input_size[1:],
    )


def test_the_documented_encoder_by_hand():
    # 5; then each bottleneck adds 2 strides of the level it is at: 5 + 2, 5 + 2 + 2 · 2, …
    field = receptive_field(EncoderNet2d(4, [1, 1, 1], kernel_size=(3, 1)))
    along, across = zip(*(stage.axes for stage in field.stages), strict=True)
    assert [axis.length for axis in along] == [5, 7, 11, 19, 35]
    assert [axis.stride for axis in along] == [1, 2, 4, 8, 8]
    assert [axis.offset for axis in along] == [-2, -3, -5, -9, -17]
    assert set(across) == {POINT}


def test_intervals_are_clipped_to_a_size():
    stage = receptive_field(EncoderNet2d(4, [1, 1])).stages[1]
    assert stage.interval((0, 8)) == ((-3, 3), (13, 19))
    assert stage.interval((0, 8), size=(32, 17)) == ((0, 3), (13, 16))
    for index, size, error in (
        ((0,), None, ValueError),
        ((0, 0, 0), None, ValueError),
        ((-1, 0), None, ValueError),
        ((0, 0), (32,), ValueError),
        ((0, 12), (32, 17), ValueError),  # its field begins behind the input
        ((1.5, 0), None, TypeError),
        (1, None, TypeError),
    ):
        with pytest.raises(error, match=r'interval: index='):
            stage.interval(index, size)


def test_up_sampling_has_a_period_and_table_and_plain_values_say_it():
    field = receptive_field(UNet2d(2, [1, 1]))
    assert [stage.axes[0].period for stage in field.stages] == [1, 1, 2, 2, 2]
    assert field.stages[-1].axes[0].stride == 1
    assert len(str(field).splitlines()) == 2 + len(field.stages)
    assert field.to_dict()['stages'][1]['axes'][0] == {'length': 7, 'step': 2, 'first': (-3,), 'last': (3,)}


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(TypeError, match='not Linear'):
        receptive_field(nn.Linear(2, 2))
    with pytest.raises(KeyError, match="'conv' is not one of conv_first, "):
        receptive_field(AE2d(2, [1, 1]))['conv']
    assert receptive_field(UNet3d(2, [1, 1])).name == 'UNet3d'


def test_merged_fields_reach_as_far_as_either():
    one, other = AxisField(2, (-3,), (1,)), AxisField(1, (-1,), (4,))
    assert one.merged(other) == other.merged(one).__class__(2, (-3,), (4,))
    assert AxisField(2, (0, 1), (5, 6)).merged(AxisField(1, (0,), (5,))) == AxisField(2, (0, 1), (5, 6))
