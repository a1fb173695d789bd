"""What an exported file promises, and at which sizes it is tried: read off the plan."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from mdnc import _bundle
from mdnc._version import __version__
from mdnc.modules import Network, _checks, _sizes
from mdnc.modules._plan import Plan

Shape = tuple[int, ...]

# Values of a plane, about, where it is smallest. Over fewer, an instance norm blows rounding up: with 2 values, fp32
# answers of an 83-layer network differ from fp64 by a third; with these, by some 1e-6.
PLANE = {1: 16, 2: 4, 3: 2}


def refuse_others(owner: str, net: object, dtypes: tuple[torch.dtype, ...]) -> None:
    """Refuse what is no network with values, or one of other dtypes than a format takes."""
    if not isinstance(net, Network):
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


def given_shape(net: Network, size: int | Sequence[int]) -> Shape:
    """The input of a spatial size.

    Raises:
        ValueError: The network refuses the size.
    """
    net.stage_sizes(size)
    if net.plan.in_size is not None:
        return (3, *net.input_size)
    return (3, net.plan.in_planes, *_checks.per_axis('size', 'size', size, net.plan.order))


def facts(net: Network, scales: dict[str, Any]) -> dict[str, Any]:
    """What an exported file says of itself, JSON-able.

    Args:
        net: The network.
        scales: ``normalisation`` and ``target_normalisation`` that are part of the graph, or None.
    """
    fixed = net.plan.in_size is not None
    shape = ('batch', *net.input_size) if fixed else _named(net)
    said = {
        'mdnc': __version__,
        'torch': str(torch.__version__),
        'network': {'name': type(net).__name__, 'arguments': net.config},
        'data': None if net.origin is None else net.origin.data,
        'input': f'({", ".join(map(str, shape))})',
        'sizes': _sizes_text(net.plan),
        'smallest_equal_sided': None if fixed else net.min_size,
        **scales,
    }
    return dict(_bundle.plain(said, 'facts'))


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
