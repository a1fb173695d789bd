"""Who competes: ways to run one and the same network.

A way is some steps, each from a network and its input to a network and its input.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import mdnc
from mdnc.ops import convolution, fused, optimization, path, products
from mdnc.ops.compiled import KERNELS as COMPILED_KERNELS

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


def with_kernels(**exchanged: Any) -> Callable[[Any, Tensor], Setup]:
    """Optimize, with some of the kernels exchanged for others."""

    def step(net: nn.Module, x: Tensor) -> Setup:
        optimization._set('with_kernels', mdnc.optimize(net), COMPILED_KERNELS._replace(**exchanged))
        return net, x

    return step


def products_by_blas(net: nn.Module, x: Tensor) -> Setup:
    """Products of matrices by torch's own, as if it had no oneDNN."""
    products._AVAILABLE = False
    return net, x


def enlarged_first(net: nn.Module, x: Tensor) -> Setup:
    """A shortcut's up-sampling before its 1 × … × 1 convolution, as the layers have it."""
    read = fused._ShortcutRun._read

    def enlarged(self: Any, x: Tensor) -> Tensor:
        return read(self, x) if self.how.resize is None else self.how.resize(x)

    def backward(self: Any, g: Tensor, x: Tensor, kept: Any, gx: Tensor | None) -> Any:
        z = enlarged(self, x)
        u, still = fused.convolution.forward(z, self.kernel, None, self.geometry), self.how.resize is None
        flat = u.flatten(2)
        grads = self.kernels.backward(g.flatten(2), flat, flat, kept.at, self.affine, self.step)
        gu = grads.x.view(u.shape)
        gz, gkernel, _ = fused.convolution.backward(gu, z, self.kernel, self.geometry, (gx is not None, True, False))
        if gx is not None and gz is not None:
            gread = gz if still else fused._resize_backward(gz, self.how.resize, x.shape[2:])
            read(self, gx).add_(gread)
        return fused._Grads(grads.scale, grads.shift, None, gkernel)

    fused._ShortcutRun.open = lambda self, x: fused.convolution.forward(  # type: ignore[method-assign]
        enlarged(self, x), self.kernel, None, self.geometry
    )
    fused._ShortcutRun.backward = backward  # type: ignore[method-assign]
    return net, x


EAGER_PLANES = {name: getattr(fused.EAGER, name) for name in ('forward', 'rebuild', 'backward')}
PLAIN = memory('plain')
SMALL = ' but for small shortcuts'
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
    'optimized but for Winograd': (with_kernels(convolution=convolution.BY_SHAPE),),
    'optimized but for the pool': (with_kernels(memory=nullcontext),),
    'optimized but for the kernels': (with_kernels(**EAGER_PLANES),),
    "optimized but for oneDNN's products": (products_by_blas, optimized),
    'optimized but for blocks as a whole': (optimized, units_alone),
    f'lean{SMALL}': (enlarged_first,),
    f'optimized{SMALL}': (enlarged_first, optimized),
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
    *(name for name in WAYS if name.startswith('optimized') and 'compiled' not in name and SMALL not in name),
)
SHORTCUTS = ('plain', 'lean (default)', f'lean{SMALL}', 'optimized', f'optimized{SMALL}')
EAGER = tuple(name for name in WAYS if 'compiled' not in name and 'but for' not in name)
QUICK = (*BASELINES, 'lean (default)', 'optimized')


def fits(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a contender can run inputs of this shape: torch knows no channels-last signals."""
    return len(shape) > 3 or 'channels last' not in name
