"""What the names and shapes of a state dict say about the network that it is of."""

import inspect
import itertools
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import mul
from typing import Any

from torch import Tensor

from mdnc.checkpoints.keys import ANCHORS, anatomy, bare
from mdnc.checkpoints.loading import NAMED
from mdnc.modules import Network, Plan, _checks, _options, _pretrained
from mdnc.modules._sizes import Size

OWNER = 'mdnc.rebuild'
UNTOLD = {'memory', 'device', 'dtype'}
# Options that change answers and may leave no trace in shapes.
SILENT = ('normalizer', 'activator', 'strides', 'upsampling')


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

    @property
    def order(self) -> int:
        """Number of spatial axes."""
        return len(next(self.shapes[anchor] for anchor in ANCHORS if anchor in self.shapes)) - 2

    def conv(self, key: str) -> Size:
        """Shape of a convolution's weight: channels out, channels in, kernel."""
        shape = self[key]
        if len(shape) == self.order + 2 > 2:
            return shape
        raise ValueError(f'{OWNER}: {key} has the shape {shape}, which is no convolution in a network of one order.')

    def within(self, path: str) -> Size:
        """Shape of the weight of the one convolution in a unit."""
        keys = (key for key, shape in self.shapes.items() if key.startswith(f'{path}.') and len(shape) > 2)
        return self.conv(next(keys, f'{path}.0.weight'))

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.shapes)

    def has(self, start: str) -> bool:
        """Whether any key begins so."""
        place = bisect_left(self._sorted, start)
        return place < len(self._sorted) and self._sorted[place].startswith(start)

    def count(self, stem: str, end: str = '', first: int = 0) -> int:
        """How many of ``stem.first``, ``stem.(first + 1)``, … there are."""
        number = first
        while self.has(f'{stem}.{number}.{end}'):
            number += 1
        return number - first

    def stages(self, stem: str, first: int = 0) -> list[str]:
        """Paths of the stages of a list."""
        found = [f'{stem}.{first + i}' for i in range(self.count(stem, 'conv_scale.', first))]
        if not found:
            raise ValueError(f'{OWNER}: the state dict is not whole: no stage {stem}.{first} is in it.')
        return found

    def depth(self, stage: str) -> int:
        """Number of residual blocks of a stage, in which a single unit may resize."""
        return self.count(f'{stage}.conv_list') + self.has(f'{stage}.conv_scale.conv1.')

    def unit(self, stage: str) -> Size:
        """Shape of the k × … × k convolution of a stage's resizing block."""
        return self.within(f'{stage}.conv_scale.conv{2 if self.block(stage) == "bottleneck" else 1}')

    def block(self, stage: str) -> str:
        """Kind of the blocks of a stage."""
        return 'bottleneck' if self.has(f'{stage}.conv_scale.conv3.') else 'plain'

    def gives(self, stage: str, axis: int = 0, block: str = 'conv_scale') -> int:
        """Channels that a block gives; ``axis`` 1 where its last convolution is transposed."""
        return self.within(f'{stage}.{block}.conv{3 if self.block(stage) == "bottleneck" else 2}')[axis]


@dataclass
class Reading:
    """What is read of a network: its arguments, and values that options may have.

    Args:
        name: Its class, without the order.
        shapes: The shapes.
        arguments: Its arguments.
        maybe: Values that options beside those of words may have by the shapes.
        read: The arguments as they were read.
    """

    name: str
    shapes: Shapes
    arguments: dict[str, Any]
    maybe: dict[str, list[Any]]
    read: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def cls(self) -> type[Network]:
        """Its class."""
        if self.shapes.order > 3:
            raise ValueError(
                f'{OWNER}: the first convolution has {self.shapes.order} spatial axes; networks have 1, 2 or 3.'
            )
        return NAMED[f'{self.name}{self.shapes.order}d']

    @cached_property
    def options(self) -> dict[str, _options.Option]:
        """Its options."""
        return _options.record(_options.of(self.cls.__init__) or _options.Options)

    def plan(self, **more: Any) -> Plan:
        """The plan of the arguments."""
        try:
            return _pretrained.planned(self.cls, {**self.arguments, **more})[0]
        except ValueError as error:
            raise ValueError(f'{OWNER}: the state dict is of no network that can be built: {error}') from error

    def misfit(self, **more: Any) -> float:
        """How far the tensors of the plan are from those of the state dict."""
        try:
            wanted = self.plan(**more).tensors
        except ValueError:
            return float('inf')
        given = self.shapes.shapes
        alike = [(shape, given[key]) for key, shape in wanted.items() if key in given]
        apart = sum((one != other) + (len(one) != len(other)) for one, other in alike)
        return apart + 2 * len(wanted.keys() ^ given.keys())

    def values(self, name: str) -> list[Any]:
        """Values that an argument may have by the shapes."""
        read = [self.read[name]] if name in self.read else []
        return [*read, *self.maybe.get(name, []), *(self.options[name].legal if name in self.options else ())]

    def settle(self, known: dict[str, Any]) -> None:
        """Give the options that aren't known the values whose plan fits best."""
        self.read, self.arguments = self.arguments, {**self.arguments, **known}
        if 'out_size' in self.read and self.read['in_length'] is not None:
            smallest = self.shapes.conv('conv_in.weight')[2:]
            fitting = tuple(map(mul, smallest, self.plan().reduction))
            if self.misfit(out_size=fitting) < float('inf'):
                self.arguments['out_size'] = fitting
        tried = [[{name: value} for value in self.values(name)] for name in (*self.maybe, *self.options)]
        # Where layers stand depends on both.
        words = itertools.product(*(self.options[name].legal for name in ('normalizer', 'layer_order')))
        tried.insert(0, [{'normalizer': normalizer, 'layer_order': order} for normalizer, order in words])
        before = float('inf')
        while 0 < (now := self.misfit()) < before:
            before = now
            for choices in tried:
                free = [{}, *({k: v for k, v in choice.items() if k not in known} for choice in choices)]
                self.arguments |= min(free, key=lambda choice: self.misfit(**choice))

    def refuse_silence(self, known: dict[str, Any]) -> None:
        """Ask for options that the shapes don't tell: where the documented value does not fit, and, where others show
        that the network is none of the documented, for all of `SILENT`."""
        defaults = {name: option.default for name, option in self.options.items()}
        shown = [name for name, value in defaults.items() if self.arguments.get(name, value) != value]
        asked = []
        for name in (each for each in SILENT if each not in known):
            fit = [value for value in self.options[name].legal if not self.misfit(**{name: value})]
            if (len(fit) > 1 and (shown or defaults[name] not in fit)) or (name == 'strides' and shown):
                asked.append(f'{name} ({" or ".join(map(repr, fit or ["None"]))})')
        if asked:
            raise ValueError(
                f'{OWNER}: shapes do not tell everything of this {self.cls.__name__}: give {", ".join(asked)}, as in '
                f'rebuild(state_dict, {asked[0].partition(" ")[0]}=…).'
            )


def rebuild(state_dict: Mapping[str, Tensor], *, prefix: str | None = None, **known: Any) -> Network:
    """Build the network that a bare state dict is of, reading its arguments from names and shapes.

    All documented arguments are read but a decoder's ``out_size``, and those options that shapes tell: channels and
    kernels of each stage, the norm as far as its tensors differ, PReLU or none, the order of layers, ratio, groups,
    gates, tail, a pool ``'gem'``, blocks on the way up, and so on. What leaves no trace is taken as documented
    (``'group'`` and ``'layer'`` norm look like ``'pinst'``, all strides alike), or asked for by name where the
    documented value does not fit or the network is otherwise none of the documented. Marks of ``torch.compile``, FSDP
    and DDP and any common prefix are stripped.

    Args:
        state_dict: Tensors by name, also those of mdnc 0.1.6.
        prefix: What the network's keys begin with where there are others too, for example ``'network.'``.
        **known: Arguments and options of the network that are known, as in ``normalizer='group', norm_groups=4``:
            needed where the shapes don't tell, compared where they do.

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
    readings = READERS[anatomy(shapes.shapes)](shapes)
    _pretrained.refuse_unheld(known, weights, f'{OWNER}: the state dict')
    blocks = max(sum(reading.arguments['layers']) for reading in readings)
    if 2 * blocks > len(weights):  # a block has two convolutions; many names are planned many times below
        raise ValueError(f'{OWNER}: the state dict is not whole: it names {blocks} blocks in {len(weights)} tensors.')
    legal = inspect.signature(readings[0].cls).parameters.keys() - UNTOLD
    for reading in readings:
        reading.settle({name: known[name] for name in legal & known.keys() - {'out_size'}})
    best = min(readings, key=lambda each: each.misfit())
    if unknown := sorted(known.keys() - legal):
        name = best.cls.__name__
        raise TypeError(f'{OWNER}: {unknown} say nothing of the weights of a {name}; {sorted(legal)} do.')
    if 'out_size' in best.arguments:
        best.arguments['out_size'] = _out_size(best, known)
    _refuse_contradiction(best, known)
    if not best.misfit():
        best.refuse_silence(known)
    copies = {key: value.detach().clone() for key, value in weights.items()}
    return _pretrained.built(best.cls, best.arguments, copies, f'{OWNER}: the state dict')


def _read_encoder(shapes: Shapes) -> list[Reading]:
    channel, in_planes = shapes.conv('netbody.0.weight')[:2]
    stages = shapes.stages('netbody', 1)
    arguments = {
        'channel': channel,
        'in_planes': in_planes,
        'out_length': shapes['fc.weight'][0] if shapes.has('fc.') else None,
    }
    return [_reading('EncoderNet', shapes, stages, arguments, [[shapes.gives(stage) for stage in stages]])]


def _read_decoder(shapes: Shapes) -> list[Reading]:
    out_planes, channel = shapes.conv('conv_last.weight')[:2]
    stages, wide = shapes.stages('netbody'), shapes.conv('conv_first.weight')[0]
    arguments = {
        'channel': channel,
        'in_length': shapes.conv('conv_in.weight')[1] if shapes.has('conv_in.') else None,
        'out_planes': out_planes,
    }
    channels = [[wide, *(shapes.gives(stage, axis) for stage in stages[:-1])] for axis in (0, 1)]
    found = _reading('DecoderNet', shapes, stages, arguments, channels)
    found.arguments['out_size'] = (2**20,) * shapes.order
    return [found]


def _read_downup(shapes: Shapes) -> list[Reading]:
    channel, in_planes = shapes.conv('conv_first.weight')[:2]
    down, middle, up = shapes.stages('conv_down_list'), 'conv_middle_up', shapes.stages('conv_up_list')
    arguments = {
        'channel': channel,
        'in_planes': in_planes,
        'out_planes': shapes.conv('conv_final.weight')[0],
    }
    widest = shapes.gives(middle, block='conv_list.0' if shapes.depth(middle) > 1 else 'conv_scale')
    channels = [[*(shapes.gives(stage) for stage in down), widest]]
    found = [
        _reading(name, shapes, [*down, middle], dict(arguments), channels, [down, [*down[1:], middle]])
        for name in ('AE', 'UNet')
    ]
    for each in found:
        each.maybe['up_layers'] = [[shapes.depth(stage) for stage in reversed(up)]]
        each.maybe['deep_supervision'] = [shapes.count('heads') + 1] if shapes.has('heads.') else []
    return found


READERS: dict[str, Callable[[Shapes], list[Reading]]] = {
    'encoder': _read_encoder,
    'decoder': _read_decoder,
    'downup': _read_downup,
}


def _reading(
    name: str,
    shapes: Shapes,
    levels: list[str],
    arguments: dict[str, Any],
    channels: list[list[int]],
    steps: list[list[str]] | None = None,
) -> Reading:
    """What all networks have.

    Args:
        name: See `Reading`.
        shapes: See `Reading`.
        levels: Path of the stage of each level.
        arguments: What else was read.
        channels: What its option `channels` may be.
        steps: Path of the stage that may take each stride, ``None`` for those of the levels.
    """
    steps = steps or [levels]
    kernels, units = [shapes.unit(stage)[2:] for stage in levels], [shapes.unit(stage) for stage in levels]
    arguments |= {
        'layers': tuple(max(1, shapes.depth(stage)) for stage in levels),
        'block': shapes.block(levels[0]),
        'kernel_size': kernels if len(set(kernels)) > 1 else kernels[0],
    }
    gates = [shape for key, shape in shapes.shapes.items() if key.endswith('.se.down.weight')]
    maybe: dict[str, list[Any]] = {
        'channels': channels,
        'groups': [whole // part for whole, part, *_ in units if whole > part],
        'ratio': [shapes.gives(stage) // unit[0] for stage, unit in zip(levels, units, strict=True)],
        'se': [planes // hidden for hidden, planes in gates],
        'strides': [
            [(1 + shapes.has(f'{stage}.conv_scale.in_node.'),) * shapes.order for stage in each] for each in steps
        ],
    }
    return Reading(name, shapes, arguments, maybe)


def _out_size(reading: Reading, known: dict[str, Any]) -> Size:
    shapes, order = reading.shapes, reading.shapes.order
    possible = _possible_sizes(reading) if reading.arguments['in_length'] and known.get('small') != 'keep' else None
    if 'out_size' in known:
        size = _checks.per_axis(OWNER, 'out_size', known['out_size'], order)
        if possible and any(side not in sides for side, sides in zip(size, possible, strict=True)):
            hint = '' if 'strides' in known else ', or strides are not as documented: give them too'
            raise ValueError(
                f'{OWNER}: out_size={size} is impossible: by conv_in it is within {_span(possible)}{hint}.'
            )
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


def _possible_sizes(reading: Reading) -> list[range]:
    # conv_in's kernel is the smallest map, what is left of out_size after all strides.
    smallest = reading.shapes.conv('conv_in.weight')[2:]
    factors = reading.plan(out_size=(2**20,) * reading.shapes.order).reduction
    return [range((side - 1) * by + 1, side * by + 1) for side, by in zip(smallest, factors, strict=True)]


def _span(possible: list[range]) -> str:
    return '(' + ', '.join(f'{sides[0]}…{sides[-1]}' for sides in possible) + ')'


def _refuse_contradiction(reading: Reading, known: dict[str, Any]) -> None:
    for name, value in known.items():
        read = reading.values(name)
        better = min(read, key=lambda each: reading.misfit(**{name: each}), default=value)
        if reading.misfit(**{name: better}) < reading.misfit():
            raise ValueError(f'{OWNER}: {name}={value!r} is not what the shapes say: {better!r}.')
