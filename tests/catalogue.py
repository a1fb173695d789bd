"""Every public module once: how to build it, what it takes and gives. Invariants run over the whole table."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mdnc.modules import resnet


@dataclass(frozen=True)
class Entry:
    """One public class or function, small, at odd sizes (no batch in the shapes)."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    input: tuple[int, ...] = ()
    output: tuple[int, ...] = ()

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return getattr(resnet, self.name)(**self.arguments)

    def sample(self, batch: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(batch, *self.input, generator=generator, dtype=dtype)


SPATIAL = {1: (21,), 2: (13, 10), 3: (5, 9, 7)}


def _halved(size: tuple[int, ...], times: int) -> tuple[int, ...]:
    for _ in range(times):
        size = tuple(-(-length // 2) for length in size)
    return size


def _family(order: int) -> list[Entry]:
    size, small = SPATIAL[order], {'channel': 4, 'layers': [2, 1]}
    end = f'{order}d'
    blocks = [
        Entry(f'{kind}{end}', {'in_planes': 3, 'out_planes': 5, 'stride': 2}, (3, *size), (5, *_halved(size, 1)))
        for kind in ('BlockPlain', 'BlockBottleneck')
    ]
    return [
        *blocks,
        Entry(f'EncoderNet{end}', {**small, 'in_planes': 2, 'out_length': 3}, (2, *size), (3,)),
        Entry(f'DecoderNet{end}', {**small, 'out_size': size, 'in_length': 3, 'out_planes': 2}, (3,), (2, *size)),
        Entry(f'AE{end}', {**small, 'out_planes': 2}, (1, *size), (2, *size)),
        Entry(f'UNet{end}', {**small, 'in_planes': 2}, (2, *size), (1, *size)),
    ]


CLASSES = [entry for order in (1, 2, 3) for entry in _family(order)]

# The same classes where their structure differs: another block, kernels, heads, one-block levels.
VARIANTS = [
    Entry('EncoderNet1d', {'channel': 4, 'layers': [1, 2], 'block': 'plain', 'out_length': None}, (1, 12), (8, 3)),
    Entry('EncoderNet2d', {'channel': 3, 'layers': [1, 1], 'kernel_size': (5, 3)}, (1, 12, 9), (2,)),
    Entry('EncoderNet3d', {'channel': 4, 'layers': [1, 2], 'kernel_size': (1, 3, 3)}, (1, 3, 11, 13), (2,)),
    Entry('EncoderNet2d', {'channel': 4, 'layers': [2, 1], 'kernel_size': 1, 'out_length': None}, (1, 2, 3), (8, 2, 3)),
    Entry('DecoderNet1d', {'channel': 4, 'layers': [1, 2], 'out_size': 23, 'in_length': None}, (8, 6), (1, 23)),
    Entry(
        'DecoderNet3d',
        {'channel': 2, 'layers': [1, 1], 'out_size': (3, 9, 6), 'kernel_size': (1, 3, 3)},
        (2,),
        (1, 3, 9, 6),
    ),
    Entry('AE2d', {'channel': 4, 'layers': [1, 1, 2], 'block': 'plain'}, (1, 11, 16), (1, 11, 16)),
    Entry('UNet2d', {'channel': 4, 'layers': [1, 1, 1], 'block': 'plain'}, (1, 11, 16), (1, 11, 16)),
    Entry('UNet1d', {'channel': 4, 'layers': [2, 1, 1], 'up_layers': 0}, (1, 37), (1, 37)),
    Entry('UNet3d', {'channel': 2, 'layers': [2, 1, 1], 'kernel_size': (1, 3, 3)}, (1, 3, 9, 6), (1, 3, 9, 6)),
]

# Options at other values than their defaults, but for those by which training is random or gives more than eval.
OPTIONS = {
    'EncoderNet1d': [
        ((1, 21), (2,), {'normalizer': 'batch', 'activator': 'relu', 'tail': 'norm', 'pool': 'avgmax'}),
        ((1, 25), (2,), {'strides': [3, 2], 'shortcut': 'pool', 'pool': 'gem', 'amplitude': True}),
        ((1, 40), (2,), {'small': 'keep', 'normalizer': 'inst', 'strides': 4, 'tail': 'act', 'pool': 'std'}),
    ],
    'EncoderNet2d': [
        ((2, 13, 10), (6, 5, 2), {'channels': [4, 6], 'out_length': None, 'strides': [(3, 2), (1, 4)], 'se': 1}),
        ((2, 13, 10), (2,), {'block': 'plain', 'resize_at': 'first', 'kernel_size': [3, (5, 1)], 'layer_order': 'old'}),
        ((2, 9, 9), (2,), {'normalizer': 'group', 'norm_groups': 2, 'groups': 2, 'padding_mode': 'reflect'}),
    ],
    'DecoderNet1d': [
        ((3,), (1, 26), {'out_size': 26, 'in_length': 3, 'upsampling': 'transposed', 'strides': [2, 3], 'se': 2}),
        ((3,), (1, 26), {'out_size': 26, 'in_length': 3, 'strides': 3, 'normalizer': 'layer', 'activator': 'gelu'}),
    ],
    'DecoderNet2d': [
        (
            (8, 3, 2),
            (1, 11, 15),
            {'out_size': (11, 15), 'in_length': None, 'upsampling': 'nearest', 'strides': (2, 3), 'small': 'keep'},
        ),
    ],
    'AE1d': [
        ((1, 22), (1, 22), {'ratio': 2, 'strides': 3, 'activator': 'silu'}),
        ((1, 22), (1, 22), {'upsampling': 'nearest', 'normalizer': 'null', 'up_layers': 0, 'max_channel': 6}),
    ],
    'UNet1d': [
        ((1, 22), (1, 22), {'layers': [1, 2, 1], 'strides': [2, 4], 'normalizer': 'batch', 'layer_order': 'old'}),
        ((1, 22), (1, 22), {'layers': [1, 2, 1], 'resize_at': 'first', 'up_layers': [0, 1], 'strides': [4, 1]}),
    ],
    'UNet2d': [
        (
            (1, 11, 16),
            (1, 11, 16),
            {'resize_at': 'first', 'up_layers': 1, 'upsampling': 'transposed', 'block': 'plain'},
        ),
        (
            (1, 9, 18),
            (1, 9, 18),
            {'small': 'keep', 'layers': [1, 1, 1], 'padding_mode': 'replicate', 'init': 'kaiming'},
        ),
        ((1, 11, 16), (1, 11, 16), {'layers': [1, 1, 1], 'up_layers': 0, 'activator': 'elu'}),
    ],
    'UNet3d': [
        (
            (1, 3, 9, 6),
            (1, 3, 9, 6),
            {'strides': [(1, 2, 3)], 'kernel_size': [(1, 3, 3), 3], 'activator': 'leaky_relu'},
        ),
    ],
}
OPTED = [
    Entry(name, {'channel': 4, 'layers': [1, 2], 'in_planes': taken[0]} | options, taken, given)
    if not name.startswith('Decoder')
    else Entry(name, {'channel': 4, 'layers': [1, 2]} | options, taken, given)
    for name, rows in OPTIONS.items()
    for taken, given, options in rows
]
VARIANTS += OPTED

# Arguments that don't tell entries apart.
ROUTINE = ('channel', 'layers', 'order', 'in_planes', 'out_planes', 'out_length', 'in_length', 'out_size', 'stride')

# The presets have 64 channels; sizes just above the smallest keep them quick.
PRESETS = [
    *(Entry(f'encnet{n}', {'order': 1, 'out_length': 3}, (1, 40), (3,)) for n in (12, 32, 47, 62)),
    *(Entry(f'decnet{n}', {'order': 1, 'out_size': 40, 'in_length': 3}, (3,), (1, 40)) for n in (13, 33, 48, 63)),
    *(
        Entry(f'{family}{n}', {'order': 1, 'in_planes': 2}, (2, 37), (1, 37))
        for family in ('ae', 'unet')
        for n in (16, 32, 44, 65, 83)
    ),
    *(Entry(f'resnet{n}', {'order': 1, 'out_length': 3}, (1, 40), (3,)) for n in (18, 34, 50)),
    *(
        Entry(f'resenc_{size}', {'order': 1, 'in_planes': 2}, (2, length), (1, length))
        for size, length in (('m', 37), ('l', 37), ('xl', 67))
    ),
    Entry('encnet_signals', {'out_length': 3}, (1, 40), (3,)),
    Entry('encnet_images', {'order': 1, 'out_length': 3}, (1, 40), (3,)),
    Entry('encnet_volumes', {'order': 1, 'out_length': 3}, (1, 40), (3,)),
]

ENTRIES = [*CLASSES, *VARIANTS, *PRESETS]
NETWORKS = [entry for entry in [*CLASSES, *VARIANTS] if not entry.name.startswith('Block')]


def identity(entry: Entry) -> str:
    """A readable test identifier."""
    words = '-'.join(str(value).replace(' ', '') for key, value in entry.arguments.items() if key not in ROUTINE)
    return f'{entry.name}{"-" if words else ""}{words}'
