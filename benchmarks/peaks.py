"""The peak of a training step as it is forecast and as torch's allocator counts it, over presets and families."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

import mdnc
from mdnc.analysis import memory_forecast
from mdnc.analysis.allocated import allocated
from mdnc.modules import resnet
from mdnc.ops.path import MEMORY_LEVELS

FORECAST, MEASURED = 'forecast', 'measured'
SPATIAL = {1: (1500,), 2: (56, 63), 3: (20, 24, 24)}


@dataclass(frozen=True)
class Way:
    """How a network is run."""

    memory: str
    optimized: bool
    precision: str  # 'float32', 'bfloat16' or 'autocast'

    def __str__(self) -> str:
        words = (self.memory, *(('optimized',) if self.optimized else ()), self.precision)
        return ', '.join(words)


# Every level, optimized and not, in every precision.
ORDER = ('float32', 'autocast', 'bfloat16')
ALL = [
    Way(level, optimized, ORDER[(index + optimized) % 3])
    for index, level in enumerate(MEMORY_LEVELS)
    for optimized in (False, True)
]
ALL += [way for level in ('lean', 'least') for way in (Way(level, False, 'float32'), Way(level, True, 'float32'))]
ALL = [*dict.fromkeys(ALL)]

PRESETS: dict[str, dict[str, Any]] = {
    **{f'encnet{depth}': {'out_length': 8} for depth in (12, 32, 47, 62)},
    **{f'decnet{depth}': {'out_size': SPATIAL[1], 'in_length': 8} for depth in (13, 33, 48, 63)},
    **{f'{family}{depth}': {} for family in ('ae', 'unet') for depth in (16, 32, 44, 65, 83)},
    **{f'resnet{depth}': {'out_length': 8} for depth in (18, 34, 50)},
    **{f'resenc_{size}': {} for size in 'ml'},
    **{f'encnet_{kind}': {'out_length': 8} for kind in ('signals', 'images', 'volumes')},
}
SMALL = {'channel': 16, 'layers': [2, 1]}
FAMILIES: dict[str, dict[str, Any]] = {
    'EncoderNet': {**SMALL, 'out_length': 8},
    'AE': SMALL,
    'UNet': SMALL,
}
OPTIONS: dict[str, dict[str, Any]] = {
    'batch norm': {'normalizer': 'batch', 'activator': 'relu'},
    'group norm': {'normalizer': 'group', 'norm_groups': 4, 'activator': 'silu'},
    'transposed': {'upsampling': 'transposed'},
    'plain blocks': {'block': 'plain', 'upsampling': 'nearest'},
}


def peak_bytes(quick: bool) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Case, and the peak of a step as forecast and as measured."""
    for name, arguments, way in list(_cases())[:: 8 if quick else 1]:
        net, x = _built(name, arguments, way)
        precision = torch.autocast('cpu', torch.bfloat16, enabled=way.precision == 'autocast')
        with precision:
            forecast = memory_forecast(net, x.shape[1:], len(x)).peak
        text = ', '.join(f'{key}={value}' for key, value in arguments.items())
        shape = '×'.join(map(str, x.shape))
        yield f'{name}({text}) {shape}, {way}', {MEASURED: [_measured(net, x, precision)], FORECAST: [forecast]}


def _cases() -> Iterator[tuple[str, dict[str, Any], Way]]:
    for index, (name, arguments) in enumerate(PRESETS.items()):
        yield name, {'order': 1, **arguments}, ALL[index % len(ALL)]
    for order in SPATIAL:
        for index, (name, arguments) in enumerate(FAMILIES.items()):
            for way in ALL[index::3] if order == 3 else ALL:
                yield f'{name}{order}d', arguments, way
    for index, options in enumerate(OPTIONS.values()):
        for order in SPATIAL:
            yield f'UNet{order}d', SMALL | options, ALL[(3 * index + order) % len(ALL)]


def _built(name: str, arguments: dict[str, Any], way: Way) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    net = getattr(resnet, name)(**arguments, memory=way.memory)
    if way.optimized:
        mdnc.optimize(net)
    dtype = torch.bfloat16 if way.precision == 'bfloat16' else torch.float32
    shape = net.input_size if net.plan.in_size is not None else (net.plan.in_planes, *SPATIAL[net.plan.order])
    return net.to(dtype), torch.randn(2, *shape, dtype=dtype)


def _measured(net: torch.nn.Module, x: torch.Tensor, precision: contextlib.AbstractContextManager[Any]) -> float:
    optimizer = torch.optim.AdamW(net.parameters())

    def step() -> None:
        with precision:
            loss = net(x).float().square().mean()
        loss.backward()
        optimizer.step()

    step()
    net.zero_grad(set_to_none=True)
    states = (each for own in optimizer.state.values() for each in own.values())
    return sum(each.nbytes for each in (*net.parameters(), *net.buffers(), x, *states)) + allocated(step)
