"""Prepare networks for the machine that they run on, and undo it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from mdnc.ops import compiled, fused, pages
from mdnc.ops.fused import Manner
from mdnc.ops.layout import laid

Net = TypeVar('Net', bound=nn.Module)


def optimize(net: Net, *, keep_memory: bool = False) -> Net:
    """Prepare a network, in place, for the device that it is on.

    Norm and activation are compiled at the first step (seconds; less from the cache on disk): C++ on a CPU, elsewhere
    by Inductor. On a CPU, 3 × 3 (× 3) convolutions of float32 are computed by minimal filtering where it is quicker.
    The weights of convolutions are laid with the channels innermost. On Linux, large tensors that the blocks make on a
    CPU lie in a pool, which keeps what is freed for the next step. Parameters, keys and results stay what they were, up
    to rounding. Where nothing can be compiled, one warning says so and torch's own kernels run.

    Args:
        net: A network or blocks of this library, or a module that holds some.
        keep_memory: Let the whole process keep freed memory as the pool does for the blocks. This can't be undone, and
            needs glibc; elsewhere nothing is done.

    Returns:
        ``net`` itself. `restore` undoes what was done.

    Raises:
        ValueError: ``net`` holds no block of this library.

    References:
        Lavin and Gray, arXiv:1509.09308 (minimal filtering).

    Example:
        >>> import mdnc
        >>> net = mdnc.optimize(mdnc.modules.resnet.EncoderNet1d(8, [1, 1]))
        >>> net = mdnc.restore(net)
    """
    _set(net, compiled.KERNELS)
    for each in net.modules():
        _lay(each, last=True)
    if keep_memory:
        pages.keep()
    return net


def restore(net: Net) -> Net:
    """Undo `optimize`, in place, but for ``keep_memory``; the pool's idle memory goes back to the system.

    Args:
        net: What was given to `optimize`.

    Returns:
        ``net`` itself.
    """
    _set(net, fused.EAGER)
    for each in net.modules():
        _lay(each, last=False)
    pages.release()
    return net


def _set(net: nn.Module, kernels: fused.Kernels) -> None:
    found = list(_ours(net))
    if not found:
        raise ValueError(f'optimize: {type(net).__name__} holds no network and no block of mdnc.')
    for each, manner in found:
        each.manner = replace(manner, kernels=kernels)  # type: ignore[assignment]


def _ours(net: nn.Module) -> Iterator[tuple[nn.Module, Manner]]:
    for each in net.modules():
        manner = getattr(each, 'manner', None)
        if isinstance(manner, Manner):
            yield each, manner


def _lay(module: nn.Module, *, last: bool) -> None:
    if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return
    for each in (module.weight, module.weight.grad):
        if each is None:
            continue
        each.data = laid(each.data, last) if last else each.data.clone(memory_format=torch.contiguous_format)
