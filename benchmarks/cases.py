"""What is measured: networks with an input each. One setup serves every measure."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdnc.modules import resnet


@dataclass(frozen=True)
class Case:
    """A network and the shape of its input.

    Args:
        network: Name of a public network.
        arguments: Its constructor's arguments.
        shape: Shape of the input, ``(B, C, L1, …)``.
        dtype: Floating-point type of parameters and input.
    """

    network: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def setup(self, device: str) -> tuple[nn.Module, Tensor]:
        """The network, with the same weights whoever asks, and its input."""
        torch.manual_seed(0)
        net, x = getattr(resnet, self.network)(**self.arguments), torch.randn(self.shape)
        return net.to(device, self.dtype), x.to(device, self.dtype)


def _encoder(order: int, channel: int, depth: int, shape: tuple[int, ...], **more: Any) -> Case:
    return Case(f'EncoderNet{order}d', {'channel': channel, 'layers': [2] * depth} | more, shape)


def _unet(channel: int, side: int, **more: Any) -> Case:
    return Case('UNet2d', {'channel': channel, 'layers': [2] * 3, 'in_planes': 3} | more, (2, 3, side, side))


CPU_CASES = {
    'EncoderNet1d(64, [2]*5) 8×3×2048': _encoder(1, 64, 5, (8, 3, 2048), in_planes=3),
    'EncoderNet2d(64, [2]*5) 8×3×64×63': _encoder(2, 64, 5, (8, 3, 64, 63), in_planes=3, out_length=32),
    'UNet2d(32, [2]*3) 2×3×96×96': _unet(32, 96),
    'EncoderNet3d(32, [2]*3) 2×1×40×40×40': _encoder(3, 32, 3, (2, 1, 40, 40, 40)),
}
DOCUMENTED = 'EncoderNet2d(64, [2]*5) 8×3×64×63'

CUDA_CASES = {
    'encnet32 32×3×256×256 bfloat16': Case('encnet32', {'in_planes': 3}, (32, 3, 256, 256), torch.bfloat16),
    'UNet3d(32, [2]*3) 2×1×96×96×96 bfloat16': Case(
        'UNet3d', {'channel': 32, 'layers': [2] * 3}, (2, 1, 96, 96, 96), torch.bfloat16
    ),
}

# Other norms than the documented instance norm; what a norm keeps of all batches is the same for all contenders.
NORM_CASES = {
    'EncoderNet1d(64, [2]*5, batch) 8×3×2048': _encoder(1, 64, 5, (8, 3, 2048), in_planes=3, normalizer='batch'),
    'EncoderNet2d(64, [2]*5, batch) 8×3×64×63': _encoder(
        2, 64, 5, (8, 3, 64, 63), in_planes=3, out_length=32, normalizer='batch'
    ),
    'UNet2d(32, [2]*3, group) 2×3×96×96': _unet(32, 96, normalizer='group'),
    'EncoderNet3d(32, [2]*3, group) 2×1×40×40×40': _encoder(3, 32, 3, (2, 1, 40, 40, 40), normalizer='group'),
}

# Networks of the recipes, whose functions take longer to be called than to compute.
SMALL_CASES = {
    "EncoderNet1d(16, [1]*4, 'plain') 10×1×150": Case(
        'EncoderNet1d', {'channel': 16, 'layers': [1] * 4, 'block': 'plain'}, (10, 1, 150)
    ),
    "EncoderNet2d(32, [2]*2, 'plain') 64×1×8×8": Case(
        'EncoderNet2d', {'channel': 32, 'layers': [2] * 2, 'block': 'plain'}, (64, 1, 8, 8)
    ),
}

# Together they take every route there is: folded norms are a batch norm's.
SAVING_CASES = CPU_CASES | SMALL_CASES | dict([list(NORM_CASES.items())[1]])

# Of an even size, since not every peer takes odd ones.
PEER_CASES = {
    'EncoderNet2d(64, [2]*5) 8×3×64×64': _encoder(2, 64, 5, (8, 3, 64, 64), in_planes=3, out_length=32),
    'EncoderNet3d(32, [2]*3) 2×1×40×40×40': CPU_CASES['EncoderNet3d(32, [2]*3) 2×1×40×40×40'],
}

# How cost grows: with the sides, then with the channels.
GROWTH_CASES = {
    f'UNet2d({channel}, [2]*3) 2×3×{side}×{side}': _unet(channel, side)
    for channel, side in [*((32, side) for side in (48, 96, 144, 192)), *((channel, 96) for channel in (8, 16, 64))]
}

# Where shortcuts are enlarged by the most.
ENLARGING = 'UNet3d(32, [2]*3) 2×1×40×40×40'

TINY = 'EncoderNet1d(4, [2]*2) 2×1×16384'  # for the tests

CASES = CPU_CASES | CUDA_CASES | NORM_CASES | SMALL_CASES | PEER_CASES | GROWTH_CASES
CASES |= {TINY: _encoder(1, 4, 2, (2, 1, 16384))}
CASES |= {ENLARGING: Case('UNet3d', {'channel': 32, 'layers': [2] * 3}, (2, 1, 40, 40, 40))}
