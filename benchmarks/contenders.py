"""Who competes: ways to run one and the same network.

A way is some steps, each from a network and its input to a network and its input.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import mdnc
from mdnc.ops import path

Setup = tuple[nn.Module, Tensor]
Way = tuple[Callable[[Any, Tensor], Setup], ...]


def memory(level: str) -> Callable[[Any, Tensor], Setup]:
    """Set the memory level."""

    def step(net: Any, x: Tensor) -> Setup:
        net.memory = level
        return net, x

    return step


def channels_last(net: nn.Module, x: Tensor) -> Setup:
    """Weights and input with the channels innermost."""
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}[x.dim()]
    return net.to(memory_format=layout), x.contiguous(memory_format=layout)


def compiled(net: nn.Module, x: Tensor) -> Setup:
    """Through ``torch.compile``."""
    return torch.compile(net), x  # type: ignore[return-value]


def budgeted(net: nn.Module, x: Tensor) -> Setup:
    """Let the compiler's partitioner recompute until it keeps 0.55 of what it would, its strongest setting here."""
    from torch._functorch import config

    config.activation_memory_budget = 0.55
    return net, x


def optimized(net: nn.Module, x: Tensor) -> Setup:
    """Through ``mdnc.optimize``."""
    return mdnc.optimize(net), x


def units_alone(net: nn.Module, x: Tensor) -> Setup:
    """Fuse each unit, but not blocks: what fusing a block as a whole saves is the difference to 'lean'."""
    run = path.run
    path.run = lambda x, units, manner, adds='nothing', shortcut=None: (  # this process is the contender's own
        run(x, units, manner) if adds == 'nothing' else None
    )
    return net, x


PLAIN = memory('plain')
WAYS: dict[str, Way] = {
    'plain': (PLAIN,),
    'plain, channels last': (PLAIN, channels_last),
    'plain, compiled': (PLAIN, compiled),
    'plain, compiled, budget 0.55': (PLAIN, budgeted, compiled),
    'fast': (memory('fast'),),
    'lean (default)': (),
    'lean, units alone': (units_alone,),
    'leaner': (memory('leaner'),),
    'least': (memory('least'),),
    'optimized': (optimized,),
    'lean, compiled': (compiled,),
    'optimized, compiled': (optimized, compiled),
}
BASELINES = ('plain', 'plain, channels last')  # the better of the two, measure by measure, is the 1 of all ratios
COMPILED = (
    *BASELINES,
    'plain, compiled',
    'plain, compiled, budget 0.55',
    'optimized',
    'lean, compiled',
    'optimized, compiled',
)
QUICK = (*BASELINES, 'lean (default)', 'optimized')


def fits(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a contender can run inputs of this shape: torch knows no channels-last signals."""
    return len(shape) > 3 or 'channels last' not in name
