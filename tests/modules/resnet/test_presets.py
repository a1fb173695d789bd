"""Presets are the networks that their authors publish, where the block is the same, in one, two and three axes."""

import inspect
import itertools

import pytest
import torch
from torch import nn

from mdnc.modules import resnet

# The parameters that torchvision states with its weights, and of that the first 7 × 7 convolution, the
# batch norms (a weight and a bias for each channel of each convolution) and the linear layer of 1000 classes.
STEM = 64 * 3 * 7 * 7
TORCHVISION = {
    'resnet18': (11_689_512, 9_600, 513_000),
    'resnet34': (21_797_672, 17_024, 513_000),
    'resnet50': (25_557_032, 53_120, 2_049_000),
}
# The stages of nnU-Net's ResidualEncoderUNet: blocks of two convolutions, of which the first changes channels and size,
# and a 1 × … × 1 convolution in the shortcut where the channels change.
RESENC_BLOCKS = {'resenc_m': (1, 3, 4, 6, 6, 6), 'resenc_l': (1, 3, 4, 6, 6, 6), 'resenc_xl': (1, 3, 4, 6, 6, 6, 6)}
ADVISED = {'encnet_signals': 1, 'encnet_images': 2, 'encnet_volumes': 3}
NEW = [*TORCHVISION, *RESENC_BLOCKS, *ADVISED]


def convolutions(net: nn.Module, *parts: str) -> int:
    """Weights of the convolutions of these parts."""
    return sum(
        value.numel() for name, value in net.named_parameters() if value.ndim > 2 and name.startswith(parts or '')
    )


@pytest.mark.parametrize('name', TORCHVISION)
def test_blocks_of_torchvision(name: str):
    total, norms, linear = TORCHVISION[name]
    with torch.device('meta'):
        net = getattr(resnet, name)(in_planes=3, out_length=1000)
    stages = tuple(f'netbody.{index}.' for index in (1, 2, 3, 4))
    assert convolutions(net, *stages) == total - norms - linear - STEM
    assert sum(value.numel() for value in net.fc.parameters()) == linear
    assert net.nlayers + 1 == int(name[-2:])  # the linear layer is one of theirs
    assert [stage.resize.stride for stage in net.plan.stages] == [(1, 1), (2, 2), (2, 2), (2, 2)]


@pytest.mark.parametrize('order', [1, 2, 3])
@pytest.mark.parametrize('name', RESENC_BLOCKS)
def test_way_down_of_nnunet(name: str, order: int):
    widths = [min(32 * 2**level, 320) for level in range(len(RESENC_BLOCKS[name]))]
    wanted, before = 0, 32
    for width, depth in zip(widths, RESENC_BLOCKS[name], strict=True):
        wanted += 3**order * width * (before + (2 * depth - 1) * width)
        wanted += before * width if before != width else 0
        before = width
    with torch.device('meta'):
        net = getattr(resnet, name)(order=order)
    # Ours has a convolution in every shortcut that changes the size too, theirs a pool alone where channels stay.
    more = 320 * 320 * sum(a == b for a, b in itertools.pairwise(widths))
    encoder = net.encoder
    stages = [f'netbody.{index + 1}.' for index in range(len(widths))]
    assert convolutions(encoder, *stages) == wanted + more
    assert [stage.out_planes for stage in encoder.plan.stages] == widths
    assert [max(stage.resize.stride) for stage in encoder.plan.stages] == [1, *[2] * (len(widths) - 1)]


def test_total_is_near_that_of_nnunet():
    # ResEnc L has 102 million parameters in 3-D (arXiv:2404.09556); the ways up differ.
    with torch.device('meta'):
        net = resnet.resenc_l(out_planes=4)
    assert 0.95 < sum(value.numel() for value in net.parameters()) / 102e6 < 1.05


@pytest.mark.parametrize('name', ADVISED)
def test_advised_networks_are_for_their_number_of_axes(name: str):
    with torch.device('meta'):
        net = getattr(resnet, name)(out_length=5)
    assert net.plan.order == ADVISED[name]
    assert net.config['tail'] == 'norm' and net.config['normalizer'] in ('batch', 'group')


@pytest.mark.parametrize('order', [1, 2, 3])
@pytest.mark.parametrize('name', NEW)
def test_every_preset_in_every_order(name: str, order: int):
    preset = getattr(resnet, name)
    with torch.device('meta'):
        net = preset(order=order, in_planes=2, memory='least')
        again = type(net)(**net.config)
    assert type(net).__name__.endswith(f'{order}d') and again.config == net.config
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in net.state_dict().items()
    }


@pytest.mark.parametrize('name', [name for name in resnet.__all__ if name[0].islower()])
def test_signature_shows_what_is_built(name: str):
    # What a command line does: it gives every argument, at what it shows as its default.
    preset = getattr(resnet, name)
    shown = {each.name: each.default for each in inspect.signature(preset).parameters.values()}
    size = {'out_size': 70} if 'out_size' in shown else {}
    with torch.device('meta'):
        assert preset(**{**shown, **size}).config == preset(**size).config


def test_options_of_a_preset_are_given_anew():
    with torch.device('meta'):
        net = resnet.resnet18(order=1, normalizer='pinst', strides=[4, 2, 2, 2], kernel_size=5)
    assert net.config['strides'] == ((4,), (2,), (2,), (2,)) and 'normalizer' not in net.config
    assert net.config['kernel_size'] == (5,)
    with pytest.raises(ValueError, match='resnet18: order=4'):
        resnet.resnet18(order=4)
