"""Prepare networks for the machine that they run on, and undo it."""

from typing import TypeVar

from torch import nn

from mdnc.ops import allocator
from mdnc.ops.backend import DEFAULT, OPTIMIZED

Net = TypeVar('Net', bound=nn.Module)


def optimize(net: Net, *, keep_memory: bool = False) -> Net:
    """Prepare a network, in place, for the device that it is on.

    Norm and activation are compiled at the first step (seconds; less from the cache on disk): C++ on a CPU, elsewhere
    by Inductor. On a CPU, 3 × 3 (× 3) convolutions of float32 are computed by minimal filtering where it is quicker.
    Tensors inside the network lie with the channels innermost. On Linux, large ones that the blocks make on a CPU come
    from a pool, which keeps what is freed for the next step. Parameters and keys stay what they were, and results up to
    rounding. Where nothing can be compiled, one warning says so and torch's own kernels run.

    Args:
        net: A network or blocks of this library, or a module that holds some.
        keep_memory: Let the whole process keep freed memory as the pool does for the blocks. This can't be undone, and
            needs glibc; elsewhere nothing is done.

    Returns:
        ``net`` itself. `restore` undoes what was done.

    Raises:
        TypeError: ``net`` is no module, or ``keep_memory`` no bool.
        ValueError: ``net`` holds no block of this library.

    References:
        Lavin and Gray, arXiv:1509.09308 (minimal filtering).

    Example:
        >>> import mdnc
        >>> net = mdnc.optimize(mdnc.modules.resnet.EncoderNet1d(8, [1, 1]))
        >>> net = mdnc.restore(net)
    """
    if not isinstance(keep_memory, bool):
        raise TypeError(f'optimize: keep_memory={keep_memory!r} must be True or False.')
    _set('optimize', net, OPTIMIZED)
    if keep_memory:
        allocator.keep()
    return net


def restore(net: Net) -> Net:
    """Undo `optimize`, in place, but for ``keep_memory``; the pool's idle memory goes back to the system.

    Args:
        net: What was given to `optimize`.

    Returns:
        ``net`` itself.

    Raises:
        TypeError: ``net`` is no module.
        ValueError: ``net`` holds no block of this library.

    Example:
        >>> import mdnc
        >>> net = mdnc.optimize(mdnc.modules.resnet.EncoderNet2d(8, [1, 1]))
        >>> before = net.backend
        >>> mdnc.restore(net) is net, net.backend == before
        (True, False)
    """
    _set('restore', net, DEFAULT)
    allocator.release()
    return net


def _set(owner: str, net: nn.Module, backend: str) -> None:
    if not isinstance(net, nn.Module):
        raise TypeError(f'{owner}: net={net!r} must be a module, such as a network of mdnc.')
    found = [each for each in net.modules() if _chooses(type(each))]
    if not found:
        raise ValueError(f'{owner}: {type(net).__name__} holds no network and no block of mdnc.')
    for each in found:
        each.backend = backend  # type: ignore[assignment]


def _chooses(kind: type[nn.Module]) -> bool:
    # Modules of others may have something of that name too.
    return getattr(kind, 'backend', None) == DEFAULT and hasattr(kind, '_memory')
