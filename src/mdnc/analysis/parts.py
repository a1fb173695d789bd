"""The parts of a network for estimates: its children, with lists and sequences opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.autograd.graph import Node

from mdnc._side_effects import tensors
from mdnc.modules import Block, Network

LISTS = (nn.ModuleList, nn.Sequential)
ITSELF = '(itself)'  # work and memory outside the parts


def parts(net: nn.Module) -> dict[str, nn.Module]:
    """The parts of a network by their path in it, each once; for mdnc's networks in the order they run."""
    if isinstance(net, Block):
        return {}  # a block may run as one fused operator
    if isinstance(net, Network):
        return {name: net.get_submodule(name) for name in net.plan.named}
    names: dict[nn.Module, str] = {}
    for name, part in _opened('', net):
        names.setdefault(part, name)
    return {name: part for part, name in names.items()}


def _opened(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        # Types, not instances: a unit of a block is a sequence too.
        if type(child) in LISTS and len(child):  # type: ignore[arg-type]
            yield from _opened(f'{path}{name}.', child)
        else:
            yield f'{path}{name}', child


class PartWatch:
    """Tracks which part of a network is running, without changing how it runs.

    A layer with a hook takes the plain path, so the outer convolutions of mdnc's networks have none: what runs outside
    the parts belongs to the next of them in the plan.

    Args:
        net: The network.
        modules: Modules to track instead of its parts, by path.
    """

    def __init__(self, net: nn.Module, modules: dict[str, nn.Module] | None = None) -> None:
        self._parts = parts(net) if modules is None else modules
        self._running: list[str] = []
        self._begun: dict[str, None] = {}
        named = net.plan.named if isinstance(net, Network) else {}
        self._planned = tuple(named)
        self._unhooked = [name for name, part in named.items() if getattr(part, 'outer', False)]

    @property
    def current(self) -> str:
        """Path of the part that is running."""
        return self._running[-1] if self._running else self._idle

    @property
    def order(self) -> tuple[str, ...]:
        """The parts in the order they run, then those that do not run, then the rest."""
        begun = () if self._planned else self._begun
        return (*begun, *(name for name in self._parts if name not in begun), ITSELF)

    @property
    def _idle(self) -> str:
        behind = max((self._planned.index(name) + 1 for name in self._begun if name in self._planned), default=0)
        return next((name for name in self._planned[behind:] if name in self._unhooked), ITSELF)

    def part_of(self, name: str) -> str:
        """The part that holds the parameter or module of this path."""
        return next((part for part in self._parts if f'{name}.'.startswith(f'{part}.')), ITSELF)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Register hooks on the parts, but not on modules inside them."""
        handles = []
        try:
            for name, part in self._parts.items():
                if name not in self._unhooked:
                    handles.append(part.register_forward_pre_hook(partial(self._begin, name)))
                    handles.append(part.register_forward_hook(self._end))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, name: str, module: nn.Module, inputs: Any) -> None:
        self._running.append(name)
        self._begun[name] = None

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._running.pop()


class BothWaysWatch(PartWatch):
    """Also tracks which part is running in the backward pass."""

    def __init__(self, net: nn.Module, modules: dict[str, nn.Module] | None = None) -> None:
        super().__init__(net, modules)
        self._marked: set[Node] = set()
        self._backward = ''

    @property
    def current(self) -> str:
        """Path of the part that is running, forward or backward."""
        return self._backward or super().current

    def mark(self, values: Any) -> None:
        """Mark the graph nodes of these values, except those marked before, with their part."""
        part, waiting = self.current, [tensor.grad_fn for tensor in tensors(values)]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in self._marked:
                self._marked.add(node)
                node.register_prehook(partial(self._run_backward, part))
                waiting.extend(before for before, _ in node.next_functions)

    def _run_backward(self, part: str, _: Any) -> None:
        self._backward = part

    def _begin(self, name: str, module: nn.Module, inputs: Any) -> None:
        self.mark(inputs)
        super()._begin(name, module, inputs)

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.mark(output)
        super()._end(module, inputs, output)
