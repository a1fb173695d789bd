"""Summaries of networks: modules as a tree, with sizes and costs; and comparisons of two networks."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from mdnc import ops
from mdnc._side_effects import tensors
from mdnc.analysis.cost import CostCounter
from mdnc.analysis.fake_run import Trial, stand_in, trial
from mdnc.analysis.memory import saved_by_part
from mdnc.analysis.parts import PartWatch
from mdnc.analysis.table import bytes_text, count_text, table
from mdnc.modules import Block, _checks
from mdnc.modules.resnet.branch import _Branch

Shape = tuple[int, ...]
LISTS = (nn.ModuleList, nn.ModuleDict)  # never called: their parameters count for their owner


@dataclass(frozen=True)
class ModuleFigures:
    """A module of a network, with all submodules.

    Args:
        path: Its path in the network; empty for the network itself.
        kind: Its class.
        depth: Its depth; 0 for the network itself.
        input: Shape of its input, the batch included; empty if it was never called.
        output: Shape of its output, in the same form.
        kernel: Its kernel size; empty without one.
        parameters: Number of its parameters, without those shared with an earlier module.
        macs: Multiply-adds of a forward pass.
        kept: Bytes kept for backward; ``None`` inside blocks and for units, which may keep them for several modules
            together.
    """

    path: str
    kind: str
    depth: int
    input: Shape
    output: Shape
    kernel: Shape
    parameters: int
    macs: int
    kept: int | None


COLUMNS: dict[str, tuple[str, Callable[[ModuleFigures], str]]] = {
    'input': ('input', lambda module: _shape_text(module.input)),
    'output': ('output', lambda module: _shape_text(module.output)),
    'kernel': ('kernel', lambda module: ' × '.join(map(str, module.kernel))),
    'parameters': ('parameters', lambda module: f'{module.parameters:,}'),
    'macs': ('MACs', lambda module: count_text(module.macs)),
    'kept': ('kept', lambda module: '' if module.kept is None else bytes_text(module.kept)),
}


@dataclass(frozen=True)
class Description:
    """Summary of a network.

    Args:
        modules: The network itself and its modules, in the order of a tree.
        trainable: Number of trainable parameters.
        uncounted: Operators without multiply-adds in this count.
        never_called: Paths of modules with parameters that were not called.
        depth: Depth of the printed tree.
        columns: Columns of the printed tree.

    Example:
        >>> from torch import nn
        >>> from mdnc.analysis import describe
        >>> description = describe(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), (3,))
        >>> description.trainable, [each.path for each in description.modules]
        (8, ['', '0', '1'])
    """

    modules: tuple[ModuleFigures, ...]
    trainable: int
    uncounted: tuple[str, ...]
    never_called: tuple[str, ...]
    depth: int
    columns: tuple[str, ...]

    @property
    def whole(self) -> ModuleFigures:
        """The network itself."""
        return self.modules[0]

    def __str__(self) -> str:
        """The tree as a table, followed by notes on what could not be counted."""
        shown = [module for module in self.modules if module.depth <= self.depth]
        labels = _tree(shown)
        titles, cells = zip(*(COLUMNS[name] for name in self.columns), strict=True) if self.columns else ((), ())
        rows = [(label, *(cell(module) for cell in cells)) for label, module in zip(labels, shown, strict=True)]
        return '\n'.join([table(('module', *titles), rows), *self._notes()])

    def to_dict(self) -> dict[str, Any]:
        """All modules and notes as plain data for JSON."""
        own = {name: getattr(self, name) for name in ('trainable', 'uncounted', 'never_called')}
        return json.loads(json.dumps(own | {'modules': [vars(module) for module in self.modules]}))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'Description':
        """The description from the result of `to_dict`.

        Raises:
            ValueError: The values are not those of a description.
        """
        try:
            modules = tuple(ModuleFigures(**{k: _as_tuple(v) for k, v in row.items()}) for row in values['modules'])
            trainable, uncounted, never = (_as_tuple(values[n]) for n in ('trainable', 'uncounted', 'never_called'))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'Description.from_dict: these are not the values of a description: {error}') from error
        made = cls(modules, trainable, uncounted, never, depth=2, columns=tuple(COLUMNS))
        counted = type(trainable) is int and isinstance(uncounted, tuple) and isinstance(never, tuple)
        if not (modules and counted and all(map(_is_sound, modules)) and made.to_dict() == values):
            raise ValueError('Description.from_dict: these are not the values of a description: a type is wrong.')
        return made

    def _notes(self) -> Iterator[str]:
        frozen = self.whole.parameters - self.trainable
        yield ''
        yield f'{self.whole.parameters:,} parameters, {frozen:,} of them not trained'
        if self.uncounted:
            yield f'not counted as multiply-adds: {", ".join(self.uncounted)}'
        if self.never_called:
            yield f'never called: {", ".join(self.never_called)}'


@dataclass(frozen=True)
class Comparison:
    """Comparison of two networks: totals, then their parts in order.

    Example:
        >>> from torch import nn
        >>> from mdnc.analysis import compare, describe
        >>> first, second = nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> print(compare(describe(first, (3,)), describe(second, (3,))))
        total       Sequential  Sequential  ratio
        ─────────────────────────────────────────
        input            1 × 3       1 × 3
        output           1 × 2       1 × 2
        parameters           8           8   1.00
        MACs                 6           6   1.00
        kept               0 B         8 B
        <BLANKLINE>
        parameters of parts  Sequential  Sequential  ratio
        ──────────────────────────────────────────────────
        0                             8           8   1.00
        1                                         0
    """

    first: Description
    second: Description

    def __str__(self) -> str:
        """A table of the values of both, and their ratio."""
        return '\n\n'.join(
            table((title, self.first.whole.kind, self.second.whole.kind, 'ratio'), rows)
            for title, rows in (('total', self._totals()), ('parameters of parts', self._parts()))
        )

    def to_dict(self) -> dict[str, Any]:
        """Both descriptions as plain data for JSON."""
        return {'first': self.first.to_dict(), 'second': self.second.to_dict()}

    def _totals(self) -> Iterator[tuple[str, ...]]:
        a, b = self.first.whole, self.second.whole
        yield 'input', _shape_text(a.input), _shape_text(b.input), ''
        yield 'output', _shape_text(a.output), _shape_text(b.output), ''
        yield 'parameters', f'{a.parameters:,}', f'{b.parameters:,}', _ratio(a.parameters, b.parameters)
        yield 'MACs', count_text(a.macs), count_text(b.macs), _ratio(a.macs, b.macs)
        yield 'kept', bytes_text(a.kept or 0), bytes_text(b.kept or 0), _ratio(a.kept or 0, b.kept or 0)

    def _parts(self) -> Iterator[tuple[str, ...]]:
        ours, theirs = ([m for m in each.modules if m.depth == 1] for each in (self.first, self.second))
        for a, b in zip_longest(ours, theirs):
            counts = [0 if module is None else module.parameters for module in (a, b)]
            names = dict.fromkeys(module.path for module in (a, b) if module is not None)
            texts = ['' if module is None else f'{module.parameters:,}' for module in (a, b)]
            yield ' | '.join(names), *texts, _ratio(*counts)


def _is_sound(module: ModuleFigures) -> bool:
    counts = (module.depth, module.parameters, module.macs, 0 if module.kept is None else module.kept)
    lengths = (module.input, module.output, module.kernel)
    numbers = [*counts, *(length for shape in lengths if isinstance(shape, tuple) for length in shape)]
    return (
        all(type(number) is int and number >= 0 for number in numbers)
        and all(isinstance(shape, tuple) for shape in lengths)
        and isinstance(module.path, str)
        and isinstance(module.kind, str)
    )


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _ratio(a: int, b: int) -> str:
    return f'{b / a:.2f}' if a else ''


def _shape_text(shape: Shape) -> str:
    return ' × '.join(map(str, shape))


def _tree(modules: Sequence[ModuleFigures]) -> list[str]:
    """A label for each module, indented below its owner."""
    above = ['']
    labels = []
    for module in modules:
        name = module.path.removeprefix(above[max(module.depth - 1, 0)]).removeprefix('.')
        labels.append(f'{"  " * module.depth}{name}  {module.kind}' if name else module.kind)
        above[module.depth :] = [module.path]
    return labels


class _Calls:
    """Records the order of the modules' first calls, and the shapes of inputs and outputs."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.modules = modules
        self.inputs: dict[str, Shape] = {}
        self.outputs: dict[str, Shape] = {}

    @property
    def order(self) -> list[str]:
        """Paths in the order of a tree: by their calls, followed by those never called."""
        return [*self.inputs, *(path for path in self.modules if path not in self.inputs)]

    @contextmanager
    def watching(self) -> Iterator[None]:
        handles = []
        try:
            for path, module in self.modules.items():
                handles.append(module.register_forward_pre_hook(partial(self._begin, path)))
                handles.append(module.register_forward_hook(partial(self._end, path)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, path: str, module: nn.Module, inputs: Any) -> None:
        self.inputs.setdefault(path, _first_shape(inputs))

    def _end(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self.outputs.setdefault(path, _first_shape(output))


def _first_shape(values: Any) -> Shape:
    return next((tuple(tensor.shape) for tensor in tensors(values)), ())


def _total(figures: Mapping[str, int], path: str) -> int:
    """Totals of a module with its submodules; the network itself has everything."""
    return sum(count for at, count in figures.items() if not path or f'{at}.'.startswith(f'{path}.'))


def _own_parameters(modules: dict[str, nn.Module], order: Sequence[str]) -> dict[str, int]:
    counts, seen = dict.fromkeys(order, 0), set[Tensor]()
    for path in order:
        for parameter in modules[path].parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                counts[path] += parameter.numel()
    return counts


def _plain_run(run: Trial, modules: dict[str, nn.Module]) -> tuple[_Calls, CostCounter]:
    """Run layer by layer, also those that a fused path would skip."""
    calls = _Calls(modules)
    watch = PartWatch(run.net, {path: module for path, module in modules.items() if path})
    meter = CostCounter(watch)
    with ops.plain(), stand_in(run) as stand, calls.watching(), watch.watching(), meter:
        stand.run()
    return calls, meter


def _kept(run: Trial, modules: dict[str, nn.Module]) -> dict[str, int | None]:
    """Run as the network does, and count bytes kept for backward down to whole blocks."""
    # A hook inside a block, or on a unit, would disable its fused path.
    fused = {path: module for path, module in modules.items() if isinstance(module, (Block, _Branch))}
    inside = {
        path
        for path in modules
        for at, module in fused.items()
        if f'{path}.'.startswith(f'{at}.' if at else '') and (path != at or isinstance(module, _Branch))
    }
    outside = {path: module for path, module in modules.items() if path not in inside}
    watch = PartWatch(run.net, {path: module for path, module in outside.items() if path})
    with stand_in(run) as stand:
        counts = saved_by_part(watch, stand.run, (*stand.parameters.values(), stand.x))
    return {path: _total(counts, path) for path in outside} | dict.fromkeys(inside)


def _module(
    path: str, calls: _Calls, meter: CostCounter, parameters: Mapping[str, int], kept: Mapping[str, int | None]
) -> ModuleFigures:
    module = calls.modules[path]
    above = [at for at in calls.modules if path and f'{path}.'.startswith(f'{at}.' if at else '') and at != path]
    kernel = getattr(module, 'kernel_size', ())
    return ModuleFigures(
        path=path,
        kind=type(module).__name__,
        depth=len(above),
        input=calls.inputs.get(path, ()),
        output=calls.outputs.get(path, ()),
        kernel=kernel if isinstance(kernel, tuple) else (kernel,),
        parameters=_total(parameters, path),
        macs=_total({at: sums.macs for at, sums in meter.parts.items()}, path),
        kept=kept[path],
    )


def describe(
    net: nn.Module,
    input_size: Any,
    batch_size: int = 1,
    dtype: torch.dtype | None = None,
    *,
    depth: int = 2,
    columns: Sequence[str] = tuple(COLUMNS),
) -> Description:
    """Describe a network as a tree of modules with sizes, parameters, multiply-adds and bytes kept for backward.

    The network runs on fake tensors: nothing is computed, allocated or changed. Sizes and multiply-adds are those of
    its separate layers; the bytes kept for backward are those of its memory level.

    Args:
        net: Any module with one input.
        input_size: See `memory_forecast`.
        batch_size: Size of the batch, at least 1.
        dtype: See `memory_forecast`.
        depth: Depth of the printed tree; 0 for the network alone.
        columns: Columns of the printed tree: ``'input'``, ``'output'``, ``'kernel'``, ``'parameters'``, ``'macs'`` and
            ``'kept'``, in any order.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has an illegal value, or the network refuses inputs of this size.

    Example:
        >>> from torch import nn
        >>> print(describe(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), (3,), columns=('output', 'parameters')))
        module       output  parameters
        ───────────────────────────────
        Sequential    1 × 2           8
          0  Linear   1 × 2           8
          1  ReLU     1 × 2           0
        <BLANKLINE>
        8 parameters, 0 of them not trained
        not counted as multiply-adds: relu
    """
    run = trial('describe', net, input_size, batch_size, dtype)
    depth = _checks.integer('describe', 'depth', depth, minimum=0)
    if isinstance(columns, (str, bytes)) or not isinstance(columns, Iterable):
        raise TypeError(f'describe: columns={columns!r:.80} must be a sequence of {", ".join(map(repr, COLUMNS))}.')
    columns = tuple(_checks.word('describe', 'columns', column, COLUMNS) for column in columns)
    modules = {path: module for path, module in net.named_modules() if not isinstance(module, LISTS)}
    calls, meter = _plain_run(run, modules)
    kept = _kept(run, modules)
    parameters = _own_parameters(modules, calls.order)
    return Description(
        modules=tuple(_module(path, calls, meter, parameters, kept) for path in calls.order),
        trainable=sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad),
        uncounted=tuple(sorted(meter.uncounted)),
        never_called=tuple(path for path, count in parameters.items() if count and path not in calls.inputs),
        depth=depth,
        columns=columns,
    )


def compare(first: Description, second: Description) -> Comparison:
    """Compare two networks.

    Args:
        first: Result of `describe` for one network.
        second: Result of `describe` for the other.

    Example:
        >>> import mdnc
        >>> nets = (mdnc.modules.resnet.encnet12(), mdnc.modules.resnet.encnet32())
        >>> comparison = compare(*(describe(net, 64) for net in nets))
    """
    for name, value in (('first', first), ('second', second)):
        if not isinstance(value, Description):
            raise TypeError(f'compare: {name} must be a result of describe, not {type(value).__name__}.')
    return Comparison(first, second)
