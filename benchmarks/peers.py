"""Encoders of other packages, as wide as it takes to compute as many multiply-adds as the network of the case, ± 3 %.

They need packages that the project does not (`peers.txt`), which are imported where they are used. Beside them stands
one of this library, with options for which it computes as much on fewer values.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import mdnc
from benchmarks.contenders import Setup, Way, channels_last
from mdnc.modules import resnet


def segresnet_encoder(x: Tensor, width: int, blocks: Sequence[int]) -> nn.Module:
    """MONAI's SegResNet without its way up."""
    from monai.networks.nets import SegResNet

    net = SegResNet(x.dim() - 2, width, x.shape[1], blocks_down=tuple(blocks), blocks_up=(1,) * (len(blocks) - 1))
    return nn.Sequential(net.convInit, *net.down_layers)


def monai_resnet(x: Tensor, width: int) -> nn.Module:
    """MONAI's ResNet-50 without its head."""
    from monai.networks.nets import ResNet

    wide = [width * 2**stage for stage in range(4)]
    return ResNet('bottleneck', [3, 4, 6, 3], wide, x.dim() - 2, x.shape[1], feed_forward=False)


def residual_encoder(x: Tensor, planes: Sequence[int]) -> nn.Module:
    """The residual encoder of dynamic-network-architectures, set up as nnU-Net does."""
    from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder

    conv, norm = {4: (nn.Conv2d, nn.InstanceNorm2d), 5: (nn.Conv3d, nn.InstanceNorm3d)}[x.dim()]
    return ResidualEncoder(
        input_channels=x.shape[1],
        n_stages=len(planes),
        features_per_stage=planes,
        conv_op=conv,
        kernel_sizes=3,
        strides=[1] + [2] * (len(planes) - 1),
        n_blocks_per_stage=2,
        conv_bias=True,
        norm_op=norm,
        norm_op_kwargs={'eps': 1e-5, 'affine': True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={'inplace': True},
    )


def resnetv2(x: Tensor, width: int) -> nn.Module:
    """timm's ResNetV2-50 without its head."""
    for name in ('nms', 'qnms'):  # timm imports torchvision, which asks for the operators of its own binary
        torch.library.define(f'torchvision::{name}', '(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor')
    import timm

    wide = [width * 4 * 2**stage for stage in range(4)]
    return timm.create_model('resnetv2_50', in_chans=x.shape[1], num_classes=0, channels=wide, stem_chs=width)


def peer(build: Callable[..., nn.Module], **arguments: tuple[Any, ...]) -> Callable[[nn.Module, Tensor], Setup]:
    """Put another package's network in the place of ours; ``flat`` and ``solid`` are its arguments in 2-D and 3-D."""

    def step(net: nn.Module, x: Tensor) -> Setup:
        torch.manual_seed(0)
        return build(x, *arguments[{4: 'flat', 5: 'solid'}[x.dim()]]), x

    return step


def plain_encoder(x: Tensor, channels: Sequence[int], layers: Sequence[int]) -> nn.Module:
    """Ours, optimized: plain blocks that stride first, few channels before, and as wide as minimal filtering takes."""
    net = {4: resnet.EncoderNet2d, 5: resnet.EncoderNet3d}[x.dim()]
    options: dict[str, Any] = {'channels': list(channels), 'resize_at': 'first', 'in_planes': x.shape[1]}
    return mdnc.optimize(net(channels[0], layers, 'plain', out_length=32 if x.dim() == 4 else 2, **options))


PLAIN_BLOCKS = peer(plain_encoder, flat=((32, 192, 256), (1, 3, 4)), solid=((16, 160), (1, 2)))
_SEGRESNET = peer(segresnet_encoder, flat=(32, (1, 2, 3, 4)), solid=(16, (1, 2, 3, 4)))
_MONAI_RESNET = peer(monai_resnet, flat=(49,), solid=(33,))
_RESIDUAL_ENCODER = peer(residual_encoder, flat=((34, 68, 136, 272, 544),), solid=((16, 34, 68),))
_RESNETV2 = peer(resnetv2, flat=(98,))

PEERS: dict[str, Way] = {
    'plain blocks, optimized': (PLAIN_BLOCKS,),
    'MONAI SegResNet encoder': (_SEGRESNET,),
    'MONAI SegResNet encoder, channels last': (_SEGRESNET, channels_last),
    'MONAI ResNet': (_MONAI_RESNET,),
    'MONAI ResNet, channels last': (_MONAI_RESNET, channels_last),
    'nnU-Net ResidualEncoder': (_RESIDUAL_ENCODER,),
    'nnU-Net ResidualEncoder, channels last': (_RESIDUAL_ENCODER, channels_last),
    'timm ResNetV2': (_RESNETV2,),
    'timm ResNetV2, channels last': (_RESNETV2, channels_last),
}
