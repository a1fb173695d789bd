"""Networks of the documented sizes, all with 64 channels; the number in a name is its ``nlayers``."""

from collections.abc import Sequence

from mdnc.modules import _checks
from mdnc.modules.resnet.autoencoder import AE1d, AE2d, AE3d
from mdnc.modules.resnet.decoder import DecoderNet1d, DecoderNet2d, DecoderNet3d
from mdnc.modules.resnet.encoder import EncoderNet1d, EncoderNet2d, EncoderNet3d
from mdnc.modules.resnet.unet import UNet1d, UNet2d, UNet3d

Kernel = int | Sequence[int]
Encoder = EncoderNet1d | EncoderNet2d | EncoderNet3d
Decoder = DecoderNet1d | DecoderNet2d | DecoderNet3d
AE = AE1d | AE2d | AE3d
UNet = UNet1d | UNet2d | UNet3d

CHANNEL = 64
ENCODERS: dict[int, type[Encoder]] = {1: EncoderNet1d, 2: EncoderNet2d, 3: EncoderNet3d}
DECODERS: dict[int, type[Decoder]] = {1: DecoderNet1d, 2: DecoderNet2d, 3: DecoderNet3d}
AES: dict[int, type[AE]] = {1: AE1d, 2: AE2d, 3: AE3d}
UNETS: dict[int, type[UNet]] = {1: UNet1d, 2: UNet2d, 3: UNet3d}

# Name → layers and block kind.
SIZES = {
    'encnet12': ((1, 1, 1, 1, 1), 'plain'),
    'encnet32': ((2, 2, 2, 2, 2), 'bottleneck'),
    'encnet47': ((3, 3, 3, 3, 3), 'bottleneck'),
    'encnet62': ((4, 4, 4, 4, 4), 'bottleneck'),
    'ae16': ((2, 1, 1), 'plain'),
    'ae32': ((2, 2, 2), 'bottleneck'),
    'ae44': ((2, 2, 2, 2), 'bottleneck'),
    'ae65': ((3, 3, 3, 3), 'bottleneck'),
    'ae83': ((3, 3, 3, 3, 3), 'bottleneck'),
}
SIZES |= {f'decnet{int(name[6:]) + 1}': size for name, size in SIZES.items() if name.startswith('encnet')}
SIZES |= {f'unet{name[2:]}': size for name, size in SIZES.items() if name.startswith('ae')}


def _encoder(
    name: str, order: int, kernel_size: Kernel, in_planes: int, out_length: int | None, memory: str
) -> Encoder:
    layers, block = SIZES[name]
    make = ENCODERS[_checks.spatial_order(name, order)]
    return make(CHANNEL, layers, block, kernel_size, in_planes, out_length, memory=memory)


def _decoder(
    name: str, out_size: Kernel, order: int, kernel_size: Kernel, in_length: int | None, out_planes: int, memory: str
) -> Decoder:
    layers, block = SIZES[name]
    make = DECODERS[_checks.spatial_order(name, order)]
    return make(CHANNEL, layers, out_size, block, kernel_size, in_length, out_planes, memory=memory)


def _ae(name: str, order: int, kernel_size: Kernel, in_planes: int, out_planes: int, memory: str) -> AE:
    layers, block = SIZES[name]
    make = AES[_checks.spatial_order(name, order)]
    return make(CHANNEL, layers, block, kernel_size, in_planes, out_planes, memory=memory)


def _unet(name: str, order: int, kernel_size: Kernel, in_planes: int, out_planes: int, memory: str) -> UNet:
    layers, block = SIZES[name]
    make = UNETS[_checks.spatial_order(name, order)]
    return make(CHANNEL, layers, block, kernel_size, in_planes, out_planes, memory=memory)


def encnet12(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_length: int | None = 2, *, memory: str = 'lean'
) -> Encoder:
    """Residual encoder of 12 convolutional layers in plain blocks; arguments as in `EncoderNet2d`."""
    return _encoder('encnet12', order, kernel_size, in_planes, out_length, memory)


def encnet32(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_length: int | None = 2, *, memory: str = 'lean'
) -> Encoder:
    """Residual encoder of 32 convolutional layers in bottleneck blocks; arguments as in `EncoderNet2d`."""
    return _encoder('encnet32', order, kernel_size, in_planes, out_length, memory)


def encnet47(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_length: int | None = 2, *, memory: str = 'lean'
) -> Encoder:
    """Residual encoder of 47 convolutional layers in bottleneck blocks; arguments as in `EncoderNet2d`."""
    return _encoder('encnet47', order, kernel_size, in_planes, out_length, memory)


def encnet62(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_length: int | None = 2, *, memory: str = 'lean'
) -> Encoder:
    """Residual encoder of 62 convolutional layers in bottleneck blocks; arguments as in `EncoderNet2d`."""
    return _encoder('encnet62', order, kernel_size, in_planes, out_length, memory)


def decnet13(
    out_size: Kernel,
    order: int = 2,
    kernel_size: Kernel = 3,
    in_length: int | None = 2,
    out_planes: int = 1,
    *,
    memory: str = 'lean',
) -> Decoder:
    """Residual decoder of 13 convolutional layers in plain blocks; arguments as in `DecoderNet2d`."""
    return _decoder('decnet13', out_size, order, kernel_size, in_length, out_planes, memory)


def decnet33(
    out_size: Kernel,
    order: int = 2,
    kernel_size: Kernel = 3,
    in_length: int | None = 2,
    out_planes: int = 1,
    *,
    memory: str = 'lean',
) -> Decoder:
    """Residual decoder of 33 convolutional layers in bottleneck blocks; arguments as in `DecoderNet2d`."""
    return _decoder('decnet33', out_size, order, kernel_size, in_length, out_planes, memory)


def decnet48(
    out_size: Kernel,
    order: int = 2,
    kernel_size: Kernel = 3,
    in_length: int | None = 2,
    out_planes: int = 1,
    *,
    memory: str = 'lean',
) -> Decoder:
    """Residual decoder of 48 convolutional layers in bottleneck blocks; arguments as in `DecoderNet2d`."""
    return _decoder('decnet48', out_size, order, kernel_size, in_length, out_planes, memory)


def decnet63(
    out_size: Kernel,
    order: int = 2,
    kernel_size: Kernel = 3,
    in_length: int | None = 2,
    out_planes: int = 1,
    *,
    memory: str = 'lean',
) -> Decoder:
    """Residual decoder of 63 convolutional layers in bottleneck blocks; arguments as in `DecoderNet2d`."""
    return _decoder('decnet63', out_size, order, kernel_size, in_length, out_planes, memory)


def ae16(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_planes: int = 1, *, memory: str = 'lean'
) -> AE:
    """Residual auto-encoder of 16 convolutional layers in plain blocks; arguments as in `AE2d`."""
    return _ae('ae16', order, kernel_size, in_planes, out_planes, memory)


def ae32(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_planes: int = 1, *, memory: str = 'lean'
) -> AE:
    """Residual auto-encoder of 32 convolutional layers in bottleneck blocks; arguments as in `AE2d`."""
    return _ae('ae32', order, kernel_size, in_planes, out_planes, memory)


def ae44(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_planes: int = 1, *, memory: str = 'lean'
) -> AE:
    """Residual auto-encoder of 44 convolutional layers in bottleneck blocks; arguments as in `AE2d`."""
    return _ae('ae44', order, kernel_size, in_planes, out_planes, memory)


def ae65(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_planes: int = 1, *, memory: str = 'lean'
) -> AE:
    """Residual auto-encoder of 65 convolutional layers in bottleneck blocks; arguments as in `AE2d`."""
    return _ae('ae65', order, kernel_size, in_planes, out_planes, memory)


def ae83(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_planes: int = 1, *, memory: str = 'lean'
) -> AE:
    """Residual auto-encoder of 83 convolutional layers in bottleneck blocks; arguments as in `AE2d`."""
    return _ae('ae83', order, kernel_size, in_planes, out_planes, memory)


def unet16(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_planes: int = 1, *, memory: str = 'lean'
) -> UNet:
    """Residual U-Net of 16 convolutional layers in plain blocks; arguments as in `UNet2d`."""
    return _unet('unet16', order, kernel_size, in_planes, out_planes, memory)


def unet32(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_planes: int = 1, *, memory: str = 'lean'
) -> UNet:
    """Residual U-Net of 32 convolutional layers in bottleneck blocks; arguments as in `UNet2d`."""
    return _unet('unet32', order, kernel_size, in_planes, out_planes, memory)


def unet44(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_planes: int = 1, *, memory: str = 'lean'
) -> UNet:
    """Residual U-Net of 44 convolutional layers in bottleneck blocks; arguments as in `UNet2d`."""
    return _unet('unet44', order, kernel_size, in_planes, out_planes, memory)


def unet65(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_planes: int = 1, *, memory: str = 'lean'
) -> UNet:
    """Residual U-Net of 65 convolutional layers in bottleneck blocks; arguments as in `UNet2d`."""
    return _unet('unet65', order, kernel_size, in_planes, out_planes, memory)


def unet83(
    order: int = 2, kernel_size: Kernel = 3, in_planes: int = 1, out_planes: int = 1, *, memory: str = 'lean'
) -> UNet:
    """Residual U-Net of 83 convolutional layers in bottleneck blocks; arguments as in `UNet2d`."""
    return _unet('unet83', order, kernel_size, in_planes, out_planes, memory)
