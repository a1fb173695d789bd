"""Networks of well-known sizes: rows of data, each of which makes a network when it is called."""

import inspect
from collections.abc import Mapping
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


# In the place of a default: the preset's own, which its signature shows.
OWN: Any = inspect.Parameter.empty
_FIXED = {'layers', 'block'}

_EXAMPLE = """

Example:
    >>> import mdnc
    >>> net = mdnc.modules.resnet.{name}({given}device='meta')  # without memory, to ask for its figures
    >>> net.nlayers, sum(weight.numel() for weight in net.parameters())  # doctest: +ELLIPSIS
    (...)
"""


@dataclass
class Preset:
    """A network but for its planes.

    Args:
        name: Its name.
        layers: See the network.
        block: See the network.
        channel: See the network.
        options: Options at other values than their defaults; they may be given anew when it is called.
        order: Number of spatial axes where none is given.
        kernel_size: See the network; where none is given.
        words: What it is, in place of the words on presets of its class.
    """

    name: str
    layers: tuple[int, ...]
    block: str
    channel: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    order: int = 2
    kernel_size: int = 3
    words: str = ''

    needs = ''  # the argument that a call cannot do without

    def __post_init__(self) -> None:
        kind, words = _options.of(type(self).__call__), type(self).__doc__ or ''
        if self.words:
            words = f'{self.words}; {words.partition("; ")[2]}'
        digits = ''.join(filter(str.isdigit, self.name))
        self.__name__ = self.name
        words = words.format(nlayers=digits, block=self.block)
        self.__doc__ = words + _EXAMPLE.format(name=self.name, given=self.needs)
        whole = _options.signature(type(self).__call__, kind or _options.Options)
        own = {'order': self.order, 'kernel_size': self.kernel_size, 'channel': self.channel, **self.options}
        shown = [each.replace(default=own.get(name, each.default)) for name, each in whole.parameters.items()]
        self.__signature__ = whole.replace(parameters=shown[1:])

    def _width(self, channel: int, options: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Channels of the first stage, and options: widths that the preset lists grow and shrink with the first."""
        for name in _FIXED & options.keys():
            raise TypeError(f'{self.name}: {name} is what makes this preset; the networks themselves take another.')
        more = {**self.options, **options}
        if channel is OWN:
            return self.channel, more
        wide = _checks.integer(self.name, 'channel', channel)
        for name in {'channels', 'max_channel'} & self.options.keys() - options.keys():
            own = self.options[name]
            scaled = [max(1, each * wide // self.channel) for each in ([own] if isinstance(own, int) else own)]
            more[name] = scaled[0] if isinstance(own, int) else tuple(scaled)
        return wide, more

    def _order(self, order: int) -> int:
        return _checks.spatial_order(self.name, self.order if order is OWN else order)

    def _kernel(self, kernel_size: PerStage) -> PerStage:
        return self.kernel_size if kernel_size is OWN else kernel_size


class EncoderPreset(Preset):
    """Residual encoder of {nlayers} convolutional layers in {block} blocks; arguments as in `EncoderNet2d`."""

    def __call__(
        self,
        order: int = OWN,
        kernel_size: PerStage = OWN,
        in_planes: int = 1,
        out_length: int | None = 2,
        *,
        channel: int = OWN,
        **options: Unpack[EncoderOptions],
    ) -> Encoder:
        """Make the network."""
        width, more = self._width(channel, options)
        shape = (width, self.layers, self.block, self._kernel(kernel_size))
        return ENCODERS[self._order(order)](*shape, in_planes, out_length, **more)


class DecoderPreset(Preset):
    """Residual decoder of {nlayers} convolutional layers in {block} blocks; arguments as in `DecoderNet2d`."""

    needs = 'out_size=[64, 64], '

    def __call__(
        self,
        out_size: PerAxis,
        order: int = OWN,
        kernel_size: PerStage = OWN,
        in_length: int | None = 2,
        out_planes: int = 1,
        *,
        channel: int = OWN,
        **options: Unpack[DecoderOptions],
    ) -> Decoder:
        """Make the network."""
        width, more = self._width(channel, options)
        shape = (width, self.layers, out_size, self.block, self._kernel(kernel_size))
        return DECODERS[self._order(order)](*shape, in_length, out_planes, **more)


class AEPreset(Preset):
    """Residual auto-encoder of {nlayers} convolutional layers in {block} blocks; arguments as in `AE2d`."""

    def __call__(
        self,
        order: int = OWN,
        kernel_size: PerStage = OWN,
        in_planes: int = 1,
        out_planes: int = 1,
        *,
        channel: int = OWN,
        **options: Unpack[DownUpOptions],
    ) -> AE:
        """Make the network."""
        width, more = self._width(channel, options)
        shape = (width, self.layers, self.block, self._kernel(kernel_size))
        return AES[self._order(order)](*shape, in_planes, out_planes, **more)


class UNetPreset(Preset):
    """Residual U-Net of {nlayers} convolutional layers in {block} blocks; arguments as in `UNet2d`."""

    def __call__(
        self,
        order: int = OWN,
        kernel_size: PerStage = OWN,
        in_planes: int = 1,
        out_planes: int = 1,
        *,
        channel: int = OWN,
        **options: Unpack[DownUpOptions],
    ) -> UNet:
        """Make the network."""
        width, more = self._width(channel, options)
        shape = (width, self.layers, self.block, self._kernel(kernel_size))
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

# He et al., arXiv:1512.03385, with the blocks of torchvision in pre-activation order (arXiv:1603.05027).
_RESNET: dict[str, Any] = {
    'normalizer': 'batch',
    'activator': 'relu',
    'tail': 'norm',
    'resize_at': 'first',
    'strides': (1, 2, 2, 2),
    'init': 'kaiming',
}
_PLAIN, _BOTTLENECK = (64, 128, 256, 512), (256, 512, 1024, 2048)
_RESNETS = {
    18: ((2, 2, 2, 2), 'plain', 64, {**_RESNET, 'channels': _PLAIN}),
    34: ((3, 4, 6, 3), 'plain', 64, {**_RESNET, 'channels': _PLAIN}),
    50: ((3, 4, 6, 3), 'bottleneck', 64, {**_RESNET, 'channels': _BOTTLENECK, 'ratio': 4}),
}

resnet18, resnet34, resnet50 = (
    EncoderPreset(
        f'resnet{n}',
        *row,
        words=f'ResNet-{n} in pre-activation order with a closing norm and no strided first convolution, so that it '
        'divides small images by 8; larger ones want strides=[4, 2, 2, 2]',
    )
    for n, row in _RESNETS.items()
)

# Isensee et al., arXiv:2404.09556. There m and l have the same levels, and l is trained on larger patches; patches of
# more than 256 values on an axis give xl a level more.
_RESENC: dict[str, Any] = {
    'activator': 'leaky_relu',
    'max_channel': 320,
    'resize_at': 'first',
    'shortcut': 'pool',
    'bias': True,
    'init': 'kaiming',
}
_RESENCS = {'m': (1, 3, 4, 6, 6, 6), 'l': (1, 3, 4, 6, 6, 6), 'xl': (1, 3, 4, 6, 6, 6, 6)}

# One convolution grows to each level; where the last would be linear in the finest maps, a block stands before it.
resenc_m, resenc_l, resenc_xl = (
    UNetPreset(
        f'resenc_{size}',
        layers,
        'plain',
        32,
        {**_RESENC, 'up_layers': (1, *(0,) * (len(layers) - 2))},
        3,
        words=f"U-Net with the {len(layers)} levels of nnU-Net's residual encoder preset {size.upper()}, in "
        'pre-activation order, and a light way up',
    )
    for size, layers in _RESENCS.items()
)

encnet_signals = EncoderPreset(
    'encnet_signals',
    (1, 1, 1, 1),
    'plain',
    32,
    {'normalizer': 'batch', 'max_channel': 64, 'strides': (1, 1, 2, 2), 'resize_at': 'first', 'tail': 'norm'},
    1,
    9,
    'Residual encoder advised for signals: plain blocks with batch norm and kernels of 9, late strides, a closing norm',
)
encnet_images = EncoderPreset(
    'encnet_images',
    (2, 2, 2, 2),
    'plain',
    32,
    {'normalizer': 'batch', 'max_channel': 256, 'strides': (1, 2, 2, 2), 'resize_at': 'first', 'tail': 'norm'},
    words='Residual encoder advised for images: plain blocks with batch norm, at first at full size, a closing norm',
)
encnet_volumes = EncoderPreset(
    'encnet_volumes',
    (1, 2, 2, 2),
    'plain',
    16,
    {'normalizer': 'group', 'max_channel': 128, 'resize_at': 'first', 'tail': 'norm'},
    3,
    words='Residual encoder advised for volumes: plain blocks with group norm, which small batches leave as it is, a '
    'closing norm',
)
