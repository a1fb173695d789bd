"""Who competes: ways to run one and the same network.

A way is some steps, each from a network and its input to a network and its input.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import mdnc
from mdnc.ops import matmul
from mdnc.ops.backend import DEFAULT, OPTIMIZED, TABLE, NormAct
from mdnc.ops.convolution import BY_SHAPE

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


class _Autocast(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.net(x)  # type: ignore[no-any-return]


def bfloat16(net: nn.Module, x: Tensor) -> Setup:
    """In bfloat16 by autocast."""
    return _Autocast(net), x


def optimized(net: nn.Module, x: Tensor) -> Setup:
    """Through ``mdnc.optimize``."""
    return mdnc.optimize(net), x


def exchanged(name: str, **parts: Any) -> Callable[[Any, Tensor], Setup]:
    """Put other parts into the backends of a name; this process is the contender's own."""

    def step(net: nn.Module, x: Tensor) -> Setup:
        for own, device in list(TABLE):
            if own == name:
                TABLE[own, device] = TABLE[own, device]._replace(**parts)
        return net, x

    return step


def without(name: str, *routes: str) -> Callable[[Any, Tensor], Setup]:
    """Take routes of convolutions from the backends of a name; see ``convolution.ROUTES``."""
    tools = TABLE[name, 'cpu'].tools
    return exchanged(name, tools=tools._replace(routes=tools.routes - {*routes}))


UNITS_ALONE = {'whole_blocks': False}
ENLARGED_FIRST = {'small_shortcuts': False}
NORM_ACT = TABLE[OPTIMIZED, 'cpu'].norm_act
BY_BLAS = {'tools': TABLE[OPTIMIZED, 'cpu'].tools._replace(matmul=matmul.by_blas, onednn=matmul.never)}
GRADIENTS_APART = {'norm_act': NORM_ACT._replace(backward=partial(NORM_ACT.backward, in_place=False))}
PLAIN = memory('plain')
SMALL = ' but for small shortcuts'
WAYS: dict[str, Way] = {
    'plain': (PLAIN,),
    'plain, channels last': (PLAIN, channels_last),
    'plain, compiled': (PLAIN, compiled),
    'plain, compiled, budget 0.55': (PLAIN, budgeted, compiled),
    'fast': (memory('fast'),),
    'lean (default)': (),
    'lean, units alone': (exchanged(DEFAULT, **UNITS_ALONE),),
    'leaner': (memory('leaner'),),
    'least': (memory('least'),),
    'optimized': (optimized,),
    'lean, compiled': (compiled,),
    'optimized, compiled': (optimized, compiled),
    'optimized but for Winograd': (optimized, exchanged(OPTIMIZED, convolution=BY_SHAPE)),
    'optimized but for Winograd of stride 2': (optimized, without(OPTIMIZED, 'strided winograd_1d')),
    'optimized but for im2col': (optimized, without(OPTIMIZED, 'im2col')),
    'optimized but for 1 × 1 as products': (optimized, without(OPTIMIZED, 'matmul', 'matmul by sample')),
    'optimized but for sums of taps': (optimized, without(OPTIMIZED, 'taps')),
    'optimized but for channels last': (optimized, exchanged(OPTIMIZED, channels_last=False)),
    'optimized but for gradients in place': (optimized, exchanged(OPTIMIZED, **GRADIENTS_APART)),
    'optimized but for the pool': (optimized, exchanged(OPTIMIZED, memory=nullcontext)),
    'optimized but for the kernels': (optimized, exchanged(OPTIMIZED, norm_act=NormAct())),
    "optimized but for oneDNN's products": (optimized, exchanged(OPTIMIZED, **BY_BLAS)),
    'optimized but for small blocks in one call': (optimized, exchanged(OPTIMIZED, small=None)),
    'optimized but for blocks as a whole': (optimized, exchanged(OPTIMIZED, **UNITS_ALONE)),
    'lean but for im2col': (without(DEFAULT, 'im2col'),),
    'lean but for 1 × 1 as products': (without(DEFAULT, 'matmul', 'matmul by sample'),),
    'lean but for products by sample': (without(DEFAULT, 'matmul by sample'),),
    'lean but for small blocks as layers': (exchanged(DEFAULT, few=False),),
    'lean but for folded norms': (exchanged(DEFAULT, folds=False),),
    f'lean{SMALL}': (exchanged(DEFAULT, **ENLARGED_FIRST),),
    f'optimized{SMALL}': (optimized, exchanged(OPTIMIZED, **ENLARGED_FIRST)),
}
BFLOAT16 = ', bfloat16'
WAYS |= {
    f'plain{BFLOAT16}': (PLAIN, bfloat16),
    f'lean{BFLOAT16}': (bfloat16,),
    f'optimized{BFLOAT16}': (optimized, bfloat16),
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
SAVINGS = (
    *BASELINES,
    'optimized',
    *(name for name in WAYS if name.startswith('optimized but for')),
    'lean (default)',
    'lean, units alone',
    *(name for name in WAYS if name.startswith('lean but for')),
)
# Of the savings, those that some networks alone have: what a case's name says of them.
ONLY = {
    'stride 2': 'Net1d',
    'sums of taps': 'UNet',
    'one call': "'plain'",
    'as layers': "'plain'",
    'folded norms': 'batch',
}
SHORTCUTS = ('plain', 'lean (default)', f'lean{SMALL}', 'optimized', f'optimized{SMALL}')
EAGER = tuple(name for name in WAYS if not any(word in name for word in ('compiled', 'but for', BFLOAT16)))
QUICK = (*BASELINES, 'lean (default)', 'optimized')
LOW_PRECISION = (*QUICK, *(name for name in WAYS if name.endswith(BFLOAT16)))


def saves(name: str, case: str) -> bool:
    """Whether a contender of the savings has something to leave out of a case's network."""
    return all(word in case for saving, word in ONLY.items() if name.endswith(saving))


def fits(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a contender can run inputs of this shape: torch knows no channels-last signals."""
    return len(shape) > 3 or 'channels last' not in name
