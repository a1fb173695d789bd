"""The parts of a network, by which figures are given: its children, lists and sequences opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from mdnc.modules._plan import Plan

LISTS = (nn.ModuleList, nn.Sequential)
ITSELF = '(itself)'  # what a network does or holds outside its parts


def parts(net: nn.Module) -> dict[str, nn.Module]:
    """The parts of a network by their path in it, each once; for mdnc's networks the outer layers and the stages."""
    names: dict[nn.Module, str] = {}
    for name, part in _parts('', net):
        names.setdefault(part, name)
    return {name: part for part, name in names.items()}


def _parts(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        # Types, not instances: a unit of a block is a sequence too, but may run as one fused operator.
        if type(child) in LISTS and len(child):  # type: ignore[arg-type]
            yield from _parts(f'{path}{name}.', child)
        else:
            yield f'{path}{name}', child


def part_names(plan: Plan) -> tuple[str, ...]:
    """Paths of what a plan speaks of: the first convolution, the stages as they run, the last convolution."""
    count = len(plan.stages)
    if plan.family == 'encoder':
        return tuple(f'netbody.{i}' for i in range(count + 2))
    if plan.family == 'decoder':
        return ('conv_first', *(f'netbody.{i}' for i in range(count)), 'conv_last')
    levels = range(plan.halvings)
    down, up = ([f'conv_{way}_list.{i}' for i in levels] for way in ('down', 'up'))
    return ('conv_first', *down, 'conv_middle_up', *up, 'conv_final')


class PartWatch:
    """Knows which part of a network is running, and in which order they began.

    Args:
        net: The network.
    """

    def __init__(self, net: nn.Module) -> None:
        self._parts = parts(net)
        self._running: list[str] = []
        self._begun: dict[str, None] = {}

    @property
    def current(self) -> str:
        """Path of the part that is running."""
        return self._running[-1] if self._running else ITSELF

    @property
    def order(self) -> tuple[str, ...]:
        """The parts in the order they began, those that never ran at the end, and what is outside them."""
        return (*self._begun, *(name for name in self._parts if name not in self._begun), ITSELF)

    def part_of(self, name: str) -> str:
        """The part that holds the parameter or module of this path."""
        return next((part for part in self._parts if f'{name}.'.startswith(f'{part}.')), ITSELF)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hook onto the parts, and onto nothing inside them: that could change the way they run."""
        handles = []
        try:
            for name, part in self._parts.items():
                handles.append(part.register_forward_pre_hook(partial(self._begin, name)))
                handles.append(part.register_forward_hook(self._end))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, name: str, *_: Any) -> None:
        self._running.append(name)
        self._begun[name] = None

    def _end(self, *_: Any) -> None:
        self._running.pop()
