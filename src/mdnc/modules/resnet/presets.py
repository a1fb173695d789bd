"""Networks of well-known sizes: rows of data, each of which makes a network when it is called."""

from dataclasses import dataclass, field
from typing import Any

from typing_extensions import Unpack

from mdnc.modules import _checks, _options
from mdnc.modules._options import DecoderOptions, DownUpOptions, EncoderOptions, PerAxis, PerStage
from mdnc.modules.resnet.autoencoder import AE1d, AE2d, AE3d
from mdnc.modules.resnet.decoder import DecoderNet1d, DecoderNet2d, DecoderNet3d
from mdnc.modules.resnet.encoder import ENCODERS, EncoderNet1d, EncoderNet2d, EncoderNet3d
from mdnc.modules.resnet.unet import UNet1d, UNet2d, UNet3d

Encoder = EncoderNet1d | EncoderNet2d | EncoderNet3d
Decoder = DecoderNet1d | DecoderNet2d | DecoderNet3d
AE = AE1d | AE2d | AE3d
UNet = UNet1d | UNet2d | UNet3d

DECODERS: dict[int, type[Decoder]] = {1: DecoderNet1d, 2: DecoderNet2d, 3: DecoderNet3d}
AES: dict[int, type[AE]] = {1: AE1d, 2: AE2d, 3: AE3d}
UNETS: dict[int, type[UNet]] = {1: UNet1d, 2: UNet2d, 3: UNet3d}


@dataclass
class Preset:
    """A network but for its planes, kernels and number of axes.

    Args:
        name: Its name.
        layers: See the network.
        block: See the network.
        channel: See the network.
        options: Options at other values than their defaults; they may be given anew when it is called.
    """

    name: str
    layers: tuple[int, ...]
    block: str
    channel: int = 64
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind, words = _options.of(type(self).__call__), type(self).__doc__ or ''
        digits = ''.join(filter(str.isdigit, self.name))
        self.__name__, self.__doc__ = self.name, words.format(nlayers=digits, block=self.block)
        whole = _options.signature(type(self).__call__, kind or _options.Options)
        self.__signature__ = whole.replace(parameters=list(whole.parameters.values())[1:])

    def _order(self, order: int) -> int:
        return _checks.spatial_order(self.name, order)


class EncoderPreset(Preset):
    """Residual encoder of {nlayers} convolutional layers in {block} blocks; arguments as in `EncoderNet2d`."""

    def __call__(
        self,
        order: int = 2,
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_length: int | None = 2,
        **options: Unpack[EncoderOptions],
    ) -> Encoder:
        """Make the network."""
        shape, more = (self.channel, self.layers, self.block, kernel_size), {**self.options, **options}
        return ENCODERS[self._order(order)](*shape, in_planes, out_length, **more)


class DecoderPreset(Preset):
    """Residual decoder of {nlayers} convolutional layers in {block} blocks; arguments as in `DecoderNet2d`."""

    def __call__(
        self,
        out_size: PerAxis,
        order: int = 2,
        kernel_size: PerStage = 3,
        in_length: int | None = 2,
        out_planes: int = 1,
        **options: Unpack[DecoderOptions],
    ) -> Decoder:
        """Make the network."""
        shape, more = (self.channel, self.layers, out_size, self.block, kernel_size), {**self.options, **options}
        return DECODERS[self._order(order)](*shape, in_length, out_planes, **more)


class AEPreset(Preset):
    """Residual auto-encoder of {nlayers} convolutional layers in {block} blocks; arguments as in `AE2d`."""

    def __call__(
        self,
        order: int = 2,
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_planes: int = 1,
        **options: Unpack[DownUpOptions],
    ) -> AE:
        """Make the network."""
        shape, more = (self.channel, self.layers, self.block, kernel_size), {**self.options, **options}
        return AES[self._order(order)](*shape, in_planes, out_planes, **more)


class UNetPreset(Preset):
    """Residual U-Net of {nlayers} convolutional layers in {block} blocks; arguments as in `UNet2d`."""

    def __call__(
        self,
        order: int = 2,
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_planes: int = 1,
        **options: Unpack[DownUpOptions],
    ) -> UNet:
        """Make the network."""
        shape, more = (self.channel, self.layers, self.block, kernel_size), {**self.options, **options}
        return UNETS[self._order(order)](*shape, in_planes, out_planes, **more)


_ENCODERS = {
    12: ((1,) * 5, 'plain'),
    32: ((2,) * 5, 'bottleneck'),
    47: ((3,) * 5, 'bottleneck'),
    62: ((4,) * 5, 'bottleneck'),
}
_DOWNUPS = {
    16: ((2, 1, 1), 'plain'),
    32: ((2,) * 3, 'bottleneck'),
    44: ((2,) * 4, 'bottleneck'),
    65: ((3,) * 4, 'bottleneck'),
    83: ((3,) * 5, 'bottleneck'),
}

encnet12, encnet32, encnet47, encnet62 = (EncoderPreset(f'encnet{n}', *row) for n, row in _ENCODERS.items())
decnet13, decnet33, decnet48, decnet63 = (DecoderPreset(f'decnet{n + 1}', *row) for n, row in _ENCODERS.items())
ae16, ae32, ae44, ae65, ae83 = (AEPreset(f'ae{n}', *row) for n, row in _DOWNUPS.items())
unet16, unet32, unet44, unet65, unet83 = (UNetPreset(f'unet{n}', *row) for n, row in _DOWNUPS.items())
