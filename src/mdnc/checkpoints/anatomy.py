"""What the names and shapes of a state dict say about the network that it is of."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mdnc.checkpoints.catalogue import FAMILIES
from mdnc.checkpoints.keys import ANCHORS, anatomy, bare
from mdnc.modules import _checks, _pretrained, _sizes
from mdnc.modules._sizes import Size
from mdnc.modules.resnet.network import _ResNetNd

OWNER = 'mdnc.rebuild'


@dataclass(frozen=True)
class Shapes:
    """The shapes of a state dict, and the numbers that follow from them.

    Args:
        shapes: Shape of each tensor by its bare key.
    """

    shapes: dict[str, Size]

    def __getitem__(self, key: str) -> Size:
        if self.shapes.get(key):
            return self.shapes[key]
        raise ValueError(f'{OWNER}: the state dict is not whole: {key} is missing or a single number.')

    def conv(self, key: str) -> Size:
        """Shape of a convolution's weight: channels out, channels in, kernel."""
        shape = self[key]
        if len(shape) == len(next(self.shapes[anchor] for anchor in ANCHORS if anchor in self.shapes)) > 2:
            return shape
        raise ValueError(f'{OWNER}: {key} has the shape {shape}, which is no convolution in a network of one order.')

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.shapes)

    def has(self, start: str) -> bool:
        """Whether any key begins so."""
        place = bisect_left(self._sorted, start)
        return place < len(self._sorted) and self._sorted[place].startswith(start)

    def depths(self, stem: str, first: int = 0) -> tuple[int, ...]:
        """Number of blocks of each stage ``stem.first``, ``stem.(first + 1)``, …"""
        depths = []
        while self.has(f'{stem}.{first}.conv_scale.'):
            depths.append(self.depth(f'{stem}.{first}'))
            first += 1
        if not depths:
            raise ValueError(f'{OWNER}: the state dict is not whole: no stage {stem}.{first} is in it.')
        return tuple(depths)

    def depth(self, stage: str) -> int:
        """Number of blocks of one stage."""
        blocks = 0
        while self.has(f'{stage}.conv_list.{blocks}.'):
            blocks += 1
        return blocks + 1

    def block(self, stage: str) -> str:
        """Kind of the blocks of a stage."""
        return 'bottleneck' if self.has(f'{stage}.conv_scale.conv3.') else 'plain'

    def outer(self, key: str) -> Size:
        """Kernel of the blocks, from that of a first or last convolution."""
        return tuple(side - 2 if side > 1 else 1 for side in self.conv(key)[2:])


def rebuild(state_dict: Mapping[str, Tensor], *, prefix: str | None = None, **known: Any) -> _ResNetNd:
    """Build the network that a bare state dict is of, reading its arguments from names and shapes.

    Family, order, ``channel``, ``layers``, ``block``, ``kernel_size``, planes and lengths are all read; only a
    decoder's ``out_size`` is not in the shapes. Marks of ``torch.compile``, FSDP and DDP and any common prefix are
    stripped.

    Args:
        state_dict: Tensors by name, also those of mdnc 0.1.6.
        prefix: What the network's keys begin with where there are others too, for example ``'network.'``.
        **known: Arguments of the network that are known: needed where the shapes don't tell, compared where they do.

    Returns:
        The network with a copy of these weights, on their device and in eval mode.

    Raises:
        TypeError: It is no state dict, or ``known`` has a word that is no argument of the network.
        ValueError: It is no network's; it does not fit together; it is ambiguous; or ``known`` disagrees.

    Example:
        >>> import mdnc
        >>> state = mdnc.modules.resnet.DecoderNet1d(8, [1, 1], out_size=27).state_dict()
        >>> mdnc.checkpoints.rebuild(state)
        Traceback (most recent call last):
        ...
        ValueError: mdnc.rebuild: a decoder's out_size is not in its shapes. From conv_in's kernel (7,) it is within \
(25…28); give it, as in rebuild(state_dict, out_size=28).
        >>> mdnc.checkpoints.rebuild(state, out_size=27).config['layers']
        (1, 1)
    """
    weights = bare(OWNER, state_dict, prefix)
    shapes = Shapes({key: tuple(value.shape) for key, value in weights.items()})
    family, arguments = _read(shapes)
    order = len(arguments['kernel_size'])
    if order not in FAMILIES[family]:
        raise ValueError(f'{OWNER}: the first convolution has {order} spatial axes; networks have 1, 2 or 3.')
    cls = FAMILIES[family][order]
    if family == 'decoder':
        arguments['out_size'] = _out_size(shapes, arguments, known)
    _refuse_contradiction(cls, arguments, known, weights)
    copies = {key: value.detach().clone() for key, value in weights.items()}
    return _pretrained.built(cls, arguments, copies, f'{OWNER}: the state dict')


def _read(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    build = anatomy(shapes.shapes)
    if build == 'downup':
        return _read_downup(shapes)
    return build, _read_decoder(shapes) if build == 'decoder' else _read_encoder(shapes)


def _read_encoder(shapes: Shapes) -> dict[str, Any]:
    channel, in_planes = shapes.conv('netbody.0.weight')[:2]
    return {
        'channel': channel,
        'layers': shapes.depths('netbody', 1),
        'block': shapes.block('netbody.1'),
        'kernel_size': shapes.outer('netbody.0.weight'),
        'in_planes': in_planes,
        'out_length': shapes['fc.weight'][0] if shapes.has('fc.') else None,
    }


def _read_decoder(shapes: Shapes) -> dict[str, Any]:
    out_planes, channel = shapes.conv('conv_last.weight')[:2]
    return {
        'channel': channel,
        'layers': shapes.depths('netbody'),
        'block': shapes.block('netbody.0'),
        'kernel_size': shapes.conv('conv_first.weight')[2:],
        'in_length': shapes.conv('conv_in.weight')[1] if shapes.has('conv_in.') else None,
        'out_planes': out_planes,
    }


def _read_downup(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    channel, in_planes = shapes.conv('conv_first.weight')[:2]
    arguments: dict[str, Any] = {
        'channel': channel,
        'layers': (*shapes.depths('conv_down_list'), shapes.depth('conv_middle_up')),
        'block': shapes.block('conv_middle_up'),
        'kernel_size': shapes.outer('conv_first.weight'),
        'in_planes': in_planes,
        'out_planes': shapes.conv('conv_final.weight')[0],
    }
    # The first norm of the way up sees what the middle gives, and in a U-Net the skip too.
    block = 'conv_list.0' if shapes.depth('conv_up_list.0') > 1 else 'conv_scale'
    seen = shapes[f'conv_up_list.0.{block}.conv1.0.weight'][0]
    wide = channel * 2 ** max(len(arguments['layers']) - 2, 0)
    return ('unet' if seen > wide else 'autoencoder'), arguments


def _out_size(shapes: Shapes, arguments: dict[str, Any], known: dict[str, Any]) -> Size:
    kernel = arguments['kernel_size']
    possible = _possible_sizes(shapes, kernel, len(arguments['layers'])) if arguments['in_length'] else None
    if 'out_size' in known:
        size = _checks.per_axis(OWNER, 'out_size', known['out_size'], len(kernel))
        if possible and any(side not in sides for side, sides in zip(size, possible, strict=True)):
            raise ValueError(f'{OWNER}: out_size={size} is impossible: by conv_in it is within {_span(possible)}.')
        return size
    if possible and all(len(sides) == 1 for sides in possible):
        return tuple(sides[0] for sides in possible)
    if possible is None:
        hint = 'Without conv_in nothing tells it; give it, as in rebuild(state_dict, out_size=64).'
    else:
        kernel, largest = shapes.conv('conv_in.weight')[2:], tuple(sides[-1] for sides in possible)
        hint = (
            f"From conv_in's kernel {kernel} it is within {_span(possible)}; give it, as in "
            f'rebuild(state_dict, out_size={largest if len(largest) > 1 else largest[0]}).'
        )
    raise ValueError(f"{OWNER}: a decoder's out_size is not in its shapes. {hint}")


def _possible_sizes(shapes: Shapes, kernel: Size, stages: int) -> list[range]:
    # conv_in's kernel is the smallest map, ceil(out_size / stride^stages) on each axis.
    factors = [step**stages for step in _sizes.stride(kernel)]
    smallest = shapes.conv('conv_in.weight')[2:]
    return [range((side - 1) * by + 1, side * by + 1) for side, by in zip(smallest, factors, strict=True)]


def _span(possible: list[range]) -> str:
    return '(' + ', '.join(f'{sides[0]}…{sides[-1]}' for sides in possible) + ')'


def _refuse_contradiction(
    cls: type[_ResNetNd], arguments: dict[str, Any], known: dict[str, Any], weights: dict[str, Tensor]
) -> None:
    unknown = sorted(known.keys() - arguments.keys())
    if unknown:
        raise TypeError(f'{OWNER}: {unknown} say nothing of the weights of a {cls.__name__}; {sorted(arguments)} do.')
    if not known:
        return
    _pretrained.refuse_unheld(known, weights, f'{OWNER}: the state dict')
    with torch.device('meta'):
        config = cls(**{**arguments, **known}).config
    for name in known:
        if config[name] != arguments[name]:
            raise ValueError(f'{OWNER}: {name}={known[name]!r} is not what the shapes say: {arguments[name]!r}.')
