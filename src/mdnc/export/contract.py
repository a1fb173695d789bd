"""What an exported file promises, and at which sizes it is tried: read off the plan."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mdnc import _bundle
from mdnc._version import __version__
from mdnc.modules import Network, _checks, _sizes
from mdnc.modules._ensemble import Ensemble
from mdnc.modules._inference import Answer
from mdnc.modules._plan import Plan
from mdnc.modules._standardization import is_by_sample
from mdnc.modules._tiling import Tiles

Shape = tuple[int, ...]
_WHOLE = 'Bring each channel of a whole sample to mean 0 and standard deviation 1 before it is cut into tiles. '

# Values of a plane, about, where it is smallest. Over fewer, an instance norm blows rounding up: with 2 values, fp32
# answers of an 83-layer network differ from fp64 by a third; with these, by some 1e-6.
PLANE = {1: 16, 2: 4, 3: 2}


def refuse_others(owner: str, net: object, dtypes: tuple[torch.dtype, ...]) -> None:
    """Refuse what is no network with values, or one of other dtypes than a format takes."""
    if isinstance(net, Ensemble):
        raise ValueError(
            f'{owner}: net holds {len(net.members)} networks, and a file holds one; export each by itself.'
        )
    if isinstance(net, Answer):
        net = net.network
    if not isinstance(net, Network) and not (isinstance(net, nn.Module) and (known(net) or {}).get('input')):
        raise TypeError(f'{owner}: net must be a network of mdnc, not a {type(net).__name__}.')
    have = {weight.dtype for weight in net.parameters()}
    if len(have) > 1 or not have <= set(dtypes):
        found, legal = (' and '.join(sorted(map(str, each))) for each in (have, dtypes))
        raise ValueError(
            f'{owner}: net has weights of {found}, and this takes {legal}; make them float32 first: net.float().'
        )
    if any(weight.is_meta for weight in net.parameters()):
        raise ValueError(f'{owner}: net is on the meta device, where weights have no values.')


def axes(net: Network) -> tuple[str, ...]:
    """Names of the free axes of the input, by their places: the batch, and lengths where they are not fixed."""
    return ('batch',) if net.plan.in_size is not None else ('batch', *(f'L{i + 1}' for i in range(net.plan.order)))


def sample_shape(net: Network) -> Shape:
    """The input that a graph is traced with; nothing is computed then, so it may be large."""
    return _shape(net, 2, _side(net.plan, 1.5))


def trial_shapes(net: Network) -> tuple[Shape, ...]:
    """Two inputs other than the sample, with other batches and odd and even lengths, to compare a graph at."""
    return _shape(net, 3, _side(net.plan, 0)), _shape(net, 1, _side(net.plan, 0.5), step=-1)


def given_shape(net: nn.Module, size: int | Sequence[int]) -> Shape:
    """The input of a spatial size.

    Raises:
        ValueError: The network refuses the size, or is of a class that has only the size of its training.
    """
    if not isinstance(net, Network):
        raise ValueError(f'{type(net).__name__}: only the size of its training can be checked, so give none.')
    net.stage_sizes(size)
    if net.plan.in_size is not None:
        return (3, *net.input_size)
    return (3, net.plan.in_planes, *_checks.per_axis('size', 'size', size, net.plan.order))


@dataclass(frozen=True)
class Ports:
    """What goes into a graph.

    Args:
        axes: Names of the free axes of the input.
        sample: The input that it is traced with.
        trials: Inputs that it is compared at.
        shape: The input in words.
        sizes: Which sizes it takes, in words.
        smallest: The smallest equal-sided one, None where sizes are fixed.
    """

    axes: tuple[str, ...]
    sample: Shape
    trials: tuple[Shape, ...]
    shape: str
    sizes: str
    smallest: Shape | None


def ports(net: nn.Module, data: Mapping[str, Any]) -> Ports:
    """What goes into a network's graph: read off its plan, or, of a class of others, off its training.

    Raises:
        TypeError: It is of another class, and it is not known what it was trained on.
    """
    if isinstance(net, Network):
        shape = ('batch', *net.input_size) if net.plan.in_size is not None else _named(net)
        tile = (1, net.plan.in_planes, *data['patch']) if patches(data) else None
        return Ports(
            axes(net),
            sample_shape(net),
            trial_shapes(net) + (() if tile is None else (tile,)),
            f'({", ".join(map(str, shape))})',
            _sizes_text(net.plan),
            None if net.plan.in_size is not None else net.min_size,
        )
    trained = tuple(data.get('input') or ())
    if not trained:
        raise TypeError(f'net must be a network of mdnc, or one trained by mdnc fit, not a {type(net).__name__}.')
    return Ports(
        ('batch',),
        (2, *trained),
        ((3, *trained), (1, *trained)),
        f'({", ".join(map(str, ("batch", *trained)))})',
        f'any batch; of a {type(net).__name__} only the size that it was trained on, {_sizes.text(trained[1:])}',
        None,
    )


def patches(data: Mapping[str, Any]) -> bool:
    """Whether `mdnc predict` runs the network over tiles."""
    return bool(data.get('patch') and (data.get('answer') or {}).get('dense'))


def leaves_scaling(data: Mapping[str, Any]) -> bool:
    """Whether the caller of a graph normalises: by the figures of whole samples, which no tile of them has.

    Raises:
        ValueError: The graph would add its input, in the data's own units, to what it gives.
    """
    if not patches(data) or not is_by_sample(data.get('normalisation')):
        return False
    if (data.get('answer') or {}).get('residual'):
        raise ValueError(
            'a network that was trained with residual on patches of samples normalised by themselves has no file: it '
            'needs the figures of the whole sample beside a tile'
        )
    return True


def last_step(data: Mapping[str, Any], whole: bool = False) -> dict[str, Any]:
    """The answer of a graph, which sees one tile: what is made of classes afterwards needs the blended scores.

    Args:
        data: What is known of the data.
        whole: Whether the graph goes that step all the same: its inputs are then single tiles, or samples as small.
    """
    answer = dict(data['answer'])
    if patches(data) and answer['output'] != 'values' and not whole:
        answer['output'] = 'scores'
    return answer


def given_words(answer: Mapping[str, Any] | None, data: Mapping[str, Any]) -> str:
    """What comes out of a graph, in words."""
    if answer is None:
        return "the network's own output: standard units or logits, unless a scale says more"
    classes = f': {", ".join(data["classes"])}' if data.get('classes') else ''
    words = {
        'values': "values in the targets' own units" + (', the input added' if answer.get('residual') else ''),
        'probabilities': f'probabilities of the classes{classes}',
        'shares': f'the probability of each class by itself{classes}',
        'classes': f'the number of the most probable class{classes}',
        'scores': f'scores of the classes (logits), of which softmax makes probabilities{classes}',
    }
    return words[answer['output']]


def tile_words(data: Mapping[str, Any], answer: Mapping[str, Any]) -> str | None:
    """What a graph leaves to its caller, in words."""
    if not patches(data):
        return None
    before = _WHOLE if leaves_scaling(data) else ''
    if answer['output'] not in ('scores', 'values'):
        return (
            f'{before}mdnc predict runs the network over tiles of {_sizes.text(tuple(data["patch"]))}. This file goes '
            'the last step at once and answers one tile, or a sample as small: several answers cannot be blended'
        )
    patch, blend = list(data['patch']), data.get('blend') or 'tent'
    overlap = Tiles(data.get('overlap'), blend).shared
    more = '' if blend == 'tent' else f', {blend!r}'
    return (
        f'{before}mdnc predict runs the network over tiles of {_sizes.text(tuple(patch))} that have {overlap:.0%} in '
        'common and blends what they give. This file answers one tile and blends nothing: a larger sample as a whole '
        f'gets another answer. Over tiles: mdnc.training.tiling.run_tiled(file, x, {patch}, {overlap}{more})'
    )


def facts(net: nn.Module, scales: dict[str, Any], data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What an exported file says of itself, JSON-able.

    Args:
        net: The network.
        scales: ``normalisation``, ``target_normalisation``, ``answer`` and ``mirror`` of the graph, or None.
        data: What is known of the data that it was trained on; by default what it was loaded with.
    """
    data = (known(net) if data is None else data) or {}
    door = ports(net, data)
    said = {
        'mdnc': __version__,
        'torch': str(torch.__version__),
        'network': identity(net),
        'data': dict(data) or None,
        'input': door.shape,
        'sizes': door.sizes,
        'smallest_equal_sided': door.smallest,
        'answer': None,
        'mirror': [],
        **scales,
        'gives': given_words(scales.get('answer'), data),
        'tiles': tile_words(data, scales['answer']) if scales.get('answer') else None,
    }
    return dict(_bundle.plain(said, 'facts'))


def known(net: nn.Module) -> dict[str, Any] | None:
    """What a network was loaded with."""
    data: dict[str, Any] | None = getattr(getattr(net, 'origin', None), 'data', None)
    return data


def identity(net: nn.Module) -> dict[str, Any]:
    """Name and, of mdnc's networks, arguments."""
    if isinstance(net, Network):
        return {'name': type(net).__name__, 'arguments': _bundle.plain(net.config, 'config')}
    return {'name': f'{type(net).__module__}.{type(net).__qualname__}', 'arguments': None}


def _named(net: Network) -> tuple[str | int, ...]:
    batch, *lengths = axes(net)
    return (batch, net.plan.in_planes, *lengths)


def _sizes_text(plan: Plan) -> str:
    if plan.in_size is not None:
        return f'any batch; it always gives {_sizes.text(plan.course(()).sizes[plan.last])}'
    # What is exported answers in eval mode.
    refusal = plan.refusal((1,) * plan.order, batch=1, training=False)
    if refusal is None:
        return 'any batch; any lengths'
    smallest = _sizes.text((plan.min_side,) * plan.order)
    if plan.small == 'keep' or 'instance' not in refusal.reason:
        return f'any batch; equal sides from {smallest}, for {refusal.reason}.'
    left = ' · '.join(f'ceil(L{i + 1}/{by})' if by > 1 else f'L{i + 1}' for i, by in enumerate(plan.reduction))
    return (
        f'any batch; lengths with {left} ≥ {_sizes.MIN_VALUES}, so with equal sides from {smallest}. Smaller ones '
        'leave instance norm a single value and give an answer that does not depend on it: do not use them.'
    )


def _side(plan: Plan, more: float) -> int:
    # A side whose smallest map has PLANE values, and `more` of a further one.
    by = max(plan.reduction)
    return (PLANE[plan.order] - 1) * by + 1 + math.floor(more * by)


def _shape(net: Network, batch: int, side: int, step: int = 1) -> Shape:
    if net.plan.in_size is not None:
        return (batch, *net.input_size)
    return (batch, net.plan.in_planes, *(side + step * axis for axis in range(net.plan.order)))
