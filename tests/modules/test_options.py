"""Options of networks: what is drawn at random builds, knows its sizes, runs alike on every path, or is refused."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.modules import drawn

import mdnc
from mdnc.modules import Network, _options, resnet

slow_to_build = settings(max_examples=60, deadline=None, derandomize=True)


def shape_of(net: Network, more: int) -> tuple[int, ...]:
    if net.plan.in_size is not None:
        return net.input_size
    return (net.plan.in_planes, *(side + more for side in net.min_size))


def outputs(net: Network, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    y = net(x)
    return y if isinstance(y, tuple) else (y,)


def backward(ys: tuple[torch.Tensor, ...]) -> None:
    sum((y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum() for y in ys).backward()


def shaken(net: Network) -> Network:
    # No value stands on a kink of an activation by symmetry.
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for each in net.double().parameters():
            each.add_(0.2 * torch.randn(each.shape, generator=generator, dtype=each.dtype))
    return net


@slow_to_build
@given(drawn.networks())
def test_the_plan_knows_every_key_and_the_configuration_rebuilds(network: tuple[str, dict[str, Any]]):
    net = drawn.built(*network)
    if isinstance(net, str):
        assert net.startswith(f'{network[0]}: ')
        return
    state = net.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == net.plan.tensors
    assert list(state) == list(net.plan.tensors)
    again = type(net)(**net.config)
    assert again.config == net.config and again.plan == net.plan


@slow_to_build
@given(drawn.networks(), st.integers(0, 5))
def test_sizes_are_what_the_stages_give(network: tuple[str, dict[str, Any]], more: int):
    net = drawn.built(*network)
    if isinstance(net, str):
        return
    sizes: list[tuple[int, ...]] = []
    for stage in net.plan.stages:
        net.get_submodule(stage.name).register_forward_hook(
            lambda module, x, y: sizes.append(tuple((y[0] if isinstance(y, tuple) else y).shape[2:]))
        )
    shape = shape_of(net, more)
    ys = outputs(net, torch.randn(2, *shape))
    if net.plan.in_size is None:
        assert net.stage_sizes(shape[1:]) == tuple(sizes)
    assert len(ys) == max(len(net.plan.outputs), 1)
    assert all(y.shape[1] == net.plan.out_planes for y in ys)
    final = net.plan.course(shape[1:]).sizes[net.plan.last]
    assert tuple(ys[0].shape[2:]) == final
    assert not isinstance(net.eval()(torch.randn(2, *shape)), tuple)


@slow_to_build
@given(drawn.networks(), st.integers(0, 3), st.sampled_from(_options.MEMORY_LEVELS))
def test_every_path_gives_the_same(network: tuple[str, dict[str, Any]], more: int, memory: str):
    net = drawn.built(*network)
    if isinstance(net, str):
        return
    shaken(net).memory = memory
    x = torch.randn(2, *shape_of(net, more), dtype=torch.float64)
    ys = outputs(net, x)
    backward(ys)
    grads = [each.grad for each in net.parameters()]
    assert all(grad is not None for grad in grads)
    net.zero_grad(set_to_none=True)
    with mdnc.ops.plain():
        plain = outputs(net, x)
        backward(plain)
    torch.testing.assert_close(ys, plain, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(grads, [each.grad for each in net.parameters()], rtol=1e-5, atol=1e-6)


@slow_to_build
@given(drawn.networks(), st.sampled_from(_options.MEMORY_LEVELS[1:]))
def test_no_option_keeps_more_for_backward_than_the_layers(network: tuple[str, dict[str, Any]], memory: str):
    net = drawn.built(*network)
    if isinstance(net, str):
        return

    def kept() -> int:
        storages: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            alive = outputs(net, x)
        parameters = {each.untyped_storage().data_ptr() for each in net.parameters()}
        assert alive
        return sum(size for at, size in storages.items() if at not in parameters)

    x = torch.randn(2, *shape_of(net, 9))
    net.memory = 'plain'
    plain = kept()
    net.memory = memory
    # Moments of norms are a few values a plane, which tiny maps may not outweigh.
    assert kept() <= plain + 16 * 2 * sum(net.plan.planes.values())


STRIDED = [
    ('EncoderNet2d', {'strides': (2, 1)}, (20, 20), (5, 20)),
    ('EncoderNet2d', {'strides': [[1, 2], 4]}, (20, 20), (5, 3)),
    ('EncoderNet3d', {'strides': [(1, 2, 2), 2], 'kernel_size': [(1, 3, 3), 3]}, (19, 16, 16), (10, 4, 4)),
]


@pytest.mark.parametrize(('name', 'options', 'size', 'last'), STRIDED)
def test_strides_of_each_stage_and_axis(
    name: str, options: dict[str, Any], size: tuple[int, ...], last: tuple[int, ...]
):
    net = getattr(resnet, name)(4, [1, 1], out_length=None, **options)
    assert net.output_size(size) == last == tuple(net(torch.zeros(1, 1, *size)).shape[2:])


def test_a_thin_axis_is_convolved_and_left_unstrided():
    net = resnet.UNet3d(2, [1, 1, 1], strides=[(1, 2, 2), (1, 2, 2)])
    assert net.stage_sizes((19, 16, 16))[1] == (19, 4, 4)
    x = torch.zeros(1, 1, 19, 16, 16)
    x[0, 0, 9, 8, 8] = 1
    reached = (
        net.conv_down_list[0].conv_scale.conv2(net.conv_first(x))
        - net.conv_down_list[0].conv_scale.conv2(net.conv_first(x * 0))
    ).abs().amax((0, 1, 3, 4)) > 0
    assert reached.sum() >= 5  # kernels 5 and 3 along the thin axis


def test_widths_by_cap_and_by_list():
    capped = resnet.EncoderNet1d(8, [1] * 4, max_channel=20)
    assert [stage.out_planes for stage in capped.plan.stages] == [8, 16, 20, 20]
    listed = resnet.UNet1d(8, [1, 1, 1], channels=[6, 10, 12])
    assert [stage.blocks[-1].planes for stage in listed.plan.stages][:3] == [(8, 6), (6, 10), (10, 10)]
    assert listed.conv_first.out_channels == 8


SMALL = [('EncoderNet2d', {'out_length': None}), ('UNet2d', {}), ('AE2d', {}), ('UNet2d', {'resize_at': 'first'})]


@pytest.mark.parametrize(('name', 'options'), SMALL)
def test_small_keep_takes_every_size_with_the_same_parameters(name: str, options: dict[str, Any]):
    net = getattr(resnet, name)(2, [1, 1, 1], small='keep', **options)
    plain = getattr(resnet, name)(2, [1, 1, 1], **options)
    net.load_state_dict(plain.state_dict())
    for size in itertools.product((2, 3, 4, 5, 9), repeat=2):
        x = torch.randn(2, 1, *size)
        y = net(x)
        assert min(net.stage_sizes(size)[1]) >= 2
        if name != 'EncoderNet2d':
            assert tuple(y.shape[2:]) == size
        if size == (9, 9):
            torch.testing.assert_close(y, plain(x))
    with pytest.raises(ValueError, match='too small'):
        plain(torch.randn(1, 1, 2, 2))


REFUSED = [
    ('EncoderNet1d', {'normalizer': 'group', 'norm_groups': 3}, 'norm_groups=3 does not divide the 4 channels'),
    ('EncoderNet1d', {'norm_groups': 4}, "norm_groups=4 has no effect without a norm 'group'"),
    ('EncoderNet1d', {'groups': 3}, 'groups=3 does not divide'),
    ('EncoderNet1d', {'ratio': 3}, 'ratio=3 does not divide 4 channels'),
    ('EncoderNet1d', {'block': 'plain', 'ratio': 2}, "ratio=2 needs block='bottleneck'"),
    ('EncoderNet1d', {'channels': [4, 8], 'max_channel': 6}, 'max_channel=6 has no effect with channels'),
    ('EncoderNet1d', {'channels': [4]}, 'channels=(4,) must be 2 ints'),
    ('EncoderNet1d', {'strides': 5}, 'strides=5 must be an int from 1 to 4'),
    ('EncoderNet1d', {'strides': [2, 2, 2]}, 'one of these for each of 2 stages'),
    ('EncoderNet1d', {'strides': 0}, 'strides=0 must be'),
    ('EncoderNet1d', {'out_length': None, 'pool': 'max'}, 'pool='),
    ('EncoderNet1d', {'tail_normalizer': 'inst'}, "has no effect without tail='norm'"),
    ('EncoderNet1d', {'tail': 'act', 'activator': 'null'}, "tail='act' needs an activator"),
    ('EncoderNet1d', {'upsampling': 'nearest'}, 'which does not up-sample'),
    ('EncoderNet1d', {'drop_path': 1.0}, 'drop_path=1.0 must be at least 0 and below 1'),
    ('EncoderNet1d', {'drop_path': float('nan')}, 'drop_path=nan must be'),
    ('UNet1d', {'deep_supervision': 2}, 'deep_supervision=2 must be at most 1'),
    ('UNet1d', {'up_layers': [1, 1]}, 'up_layers=[1, 1] must have 1 ints'),
    ('UNet1d', {'up_layers': -1}, 'up_layers=-1'),
    ('UNet1d', {'small': 'keep', 'upsampling': 'transposed'}, "small='keep' needs"),
    ('DecoderNet1d', {'out_size': 20, 'shortcut': 'pool'}, "shortcut='pool' has no effect in a decoder"),
]


@pytest.mark.parametrize(('name', 'options', 'words'), REFUSED, ids=lambda value: str(value)[:40])
def test_what_makes_no_sense_is_refused_by_name(name: str, options: dict[str, Any], words: str):
    with pytest.raises(ValueError) as caught:
        getattr(resnet, name)(4, [1, 1], **options)
    assert str(caught.value).startswith(f'{name}: ') and words in str(caught.value)


def test_an_unknown_option_gives_the_near_word():
    with pytest.raises(TypeError, match=r'EncoderNet1d: unknown argument normaliser. Did you mean normalizer'):
        resnet.EncoderNet1d(4, [1, 1], normaliser='batch')


@pytest.mark.parametrize(
    'name', ['EncoderNet2d', 'DecoderNet3d', 'AE1d', 'UNet2d', 'BlockPlain1d', 'encnet12', 'unet32']
)
def test_signatures_and_docstrings_show_every_option(name: str):
    import inspect

    make = getattr(resnet, name)
    kind = _options.of(make.__init__ if inspect.isclass(make) else type(make).__call__)
    shown = inspect.signature(make).parameters
    for option, record in _options.record(kind).items():
        assert shown[option].default == record.default and shown[option].kind is inspect.Parameter.KEYWORD_ONLY
        assert not inspect.isclass(make) or f'    {option}: {record.words[:40]}' in ' '.join(make.__doc__.split('\n'))


def test_where_and_as_what_a_network_is_built():
    net = resnet.UNet2d(4, [1, 1], device='meta', dtype='bfloat16')
    assert all(each.is_meta and each.dtype == torch.bfloat16 for each in net.parameters())
    assert 'device' not in net.config and 'dtype' not in net.config
    for wrong, error in (({'device': 'moon'}, 'device='), ({'dtype': torch.int64}, 'dtype='), ({'dtype': 'float'}, '')):
        if error:
            with pytest.raises((TypeError, ValueError, RuntimeError), match=error):
                resnet.UNet2d(4, [1, 1], **wrong)


@pytest.mark.parametrize('order', [1, 2, 3])
@pytest.mark.parametrize(('activator', 'slope'), [('prelu', 0.25), ('relu', 0.0), ('leaky_relu', 0.01)])
def test_kaiming_keeps_the_scale_in_every_order(order: int, activator: str, slope: float):
    torch.manual_seed(0)
    net = getattr(resnet, f'EncoderNet{order}d')(64, [1, 1], 'plain', init='kaiming', activator=activator)
    conv = net.netbody[2].conv_scale.conv1[2]
    wanted = (2 / (1 + slope**2) / conv.weight[0].numel()) ** 0.5
    assert conv.weight.std().item() == pytest.approx(wanted, rel=0.05)
    assert not net.netbody[3].bias.any()


@pytest.mark.parametrize('layer_order', ['new', 'old'])
@pytest.mark.parametrize('normalizer', ['pinst', 'inst', 'batch', 'null'])
def test_a_zeroed_block_begins_as_its_shortcut(layer_order: str, normalizer: str):
    net = resnet.UNet2d(4, [2, 2], zero_init=True, layer_order=layer_order, normalizer=normalizer)
    block = net.conv_down_list[0].conv_list[0]
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(x), x)


def test_a_kept_light_way_up_joins_and_resizes():
    light, mirror = resnet.UNet2d(4, [2, 2, 2], up_layers=0), resnet.UNet2d(4, [2, 2, 2])
    assert type(light.conv_up_list[0].conv_scale).__name__ == '_Branch'
    assert light.nlayers < mirror.nlayers and light(torch.zeros(1, 1, 17, 13)).shape == (1, 1, 17, 13)


def test_a_list_of_strides_may_begin_with_the_level_that_has_none():
    # As nnU-Net's plans write them.
    net = resnet.UNet3d(2, [1, 1, 1], resize_at='first', strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]])
    assert net.config['strides'] == ((1, 2, 2), (2, 2, 2))
    assert net.stage_sizes((8, 8, 8))[:3] == ((8, 8, 8), (8, 4, 4), (4, 2, 2))


def test_drop_path_rises_with_the_depth_and_leaves_out_whole_samples():
    net = resnet.EncoderNet1d(4, [2, 2], drop_path=0.3)
    assert [block.drop_path for stage in net.plan.stages for block in stage.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    block = resnet.BlockPlain1d(3, 3, drop_path=0.5)
    x = torch.randn(400, 3, 8)
    left = (block(x) == x).flatten(1).all(1)
    assert 120 < left.sum() < 280
    branch = block.eval()(x) - x
    torch.testing.assert_close((block.train()(x) - x)[0] * 0, branch[0] * 0)


def test_convolutions_may_have_a_bias_beside_a_norm():
    plain, biased = resnet.BlockPlain2d(4, 8), resnet.BlockPlain2d(4, 8, bias=True)
    new = set(biased.state_dict()) - set(plain.state_dict())
    assert new == {'conv1.2.bias', 'conv2.2.bias'}  # not the shortcut's
    assert all(unit.fused for unit in biased.paths())


def test_a_block_has_as_many_parameters_as_that_of_nnu_net():
    # BasicBlockD of dynamic-network-architectures, 32 → 64 planes, stride 2, 3 × 3 × 3, conv_bias: two convolutions
    # with biases and affine norms, an average pool and a 1 × 1 × 1 convolution with a norm beside them.
    block = resnet.BlockPlain3d(
        32, 64, stride=2, bias=True, activator='leaky_relu', layer_order='old', shortcut='pool', resize_at='first'
    )
    wanted = (32 * 64 * 27 + 64 + 128) + (64 * 64 * 27 + 64 + 128) + (32 * 64 + 128)
    assert sum(each.numel() for each in block.parameters()) == wanted


@pytest.mark.parametrize('optimized', [False, True])
@pytest.mark.parametrize('memory', ['plain', 'lean', 'least'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_pooled_shortcuts_of_volumes_in_half_types(dtype, memory, optimized):
    torch.manual_seed(0)
    net = resnet.EncoderNet3d(4, [1, 1], 'plain', shortcut='pool', out_length=2, memory=memory)
    net = mdnc.optimize(net) if optimized else net
    x = torch.randn(2, 1, 9, 8, 7)
    true = net(x)
    with torch.autocast('cpu', dtype):
        found = net(x)
    found.float().sum().backward()
    assert torch.allclose(found.float(), true, atol=0.05)
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters() if parameter.grad is not None)
    half = net.to(dtype)(x.to(dtype))
    half.float().sum().backward()
    assert torch.allclose(half.float(), true, atol=0.05)
