"""The one rule by which a unit takes the fused path or the plain one, and the reason for the latter."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mdnc import _torch
from mdnc._torch import HOOKS_ON_ALL, NORMS, FakeTensor, tracer
from mdnc.ops import fused
from mdnc.ops.backend import DEFAULT, TABLE
from mdnc.ops.channels_last import is_channels_last, to_layout, to_layout_both_ways
from mdnc.ops.convolution import is_shallow
from mdnc.ops.definition import low_precision
from mdnc.ops.limits import Limits
from mdnc.ops.masked import Mask, Region
from mdnc.ops.reading import CONVOLUTIONS, Fused, read

MEMORY_LEVELS = ('plain', 'fast', 'lean', 'leaner', 'least')

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)  # the first three are what autocast mixes

# The version of torch whose compiler was seen to trace this rule; older ones get torch's own layers.
COMPILES = torch.__version__ >= '2.13'  # compared as versions are

_plainly: ContextVar[bool] = ContextVar('plainly', default=False)
# torch.compile reads no ContextVar, and guards on this: whether `plain` is open in any thread.
_anywhere = False
_open, _counting = 0, threading.Lock()


@contextmanager
def plain() -> Iterator[None]:
    """Have torch's own layers called, whatever the networks' ``memory`` says.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.EncoderNet1d(8, [1, 1])
        >>> with mdnc.ops.plain():
        ...     y = net(torch.zeros(1, 1, 16))
    """
    token = _plainly.set(True)
    _count(1)
    try:
        yield
    finally:
        _count(-1)
        _plainly.reset(token)


def _count(step: int) -> None:
    global _open, _anywhere
    with _counting:
        _open += step
        _anywhere = _open > 0


def call(module: nn.Module, x: Tensor, memory: str = 'lean', backend: str = DEFAULT) -> Tensor:
    """``module(x)``, for a unit or a convolution by the fused path where it may be taken."""
    y = run(x, [module], memory, backend)
    return plainly(module, x) if y is None else y


def plainly(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)``, torch's own layers kept from what torch 2.13 computes wrongly where channels lie last on a CPU.

    The gradient of the weights of a strided 1 × … × 1 convolution is then written out of bounds, and gradients of norms
    of a single sample are read as if they lay otherwise (docs/performance.md, and `in_turn`).
    """
    if type(x) not in _TENSORS or x.device.type != 'cpu' or x.dim() < 3 or _traced(x):
        return module(x)  # type: ignore[no-any-return]
    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    if any(isinstance(each, CONVOLUTIONS) and max(each.kernel_size) == 1 < max(each.stride) for each in layers):
        x = to_layout(x, False)
    if isinstance(module, nn.Conv3d):
        return in_turn([module], x)
    if not (_is_trained(x) and x.shape[0] == 1 and any(isinstance(each, NORMS) for each in layers)):
        return module(x)  # type: ignore[no-any-return]
    y: Tensor = module(to_layout_both_ways(x, False, is_channels_last(x)))
    return to_layout_both_ways(y, is_channels_last(y), False) if y.requires_grad else y


def in_turn(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """One layer after the other, as ``nn.Sequential`` does.

    Maps and gradients of a single sample come to each layer contiguous. Torch 2.13 takes the strides of such a sample
    for those of another layout, in the gradients of norms and, in float64, of the weights of grouped convolutions; and
    where weights lie channels last, what a convolution gives does too. Volumes less deep than a kernel are convolved in
    float32 rather than in bfloat16, see ``convolution.is_shallow``.
    """
    trained = _is_trained(x) and x.device.type == 'cpu' and (x.shape[0] == 1 or x.dim() == 5) and not _traced(x)
    alone = trained and x.shape[0] == 1 and x.dim() > 2
    for layer in layers:
        x = to_layout_both_ways(x, False, is_channels_last(x)) if alone else x
        x = _in_float32(layer, x) if trained and type(layer) is nn.Conv3d else layer(x)
    return x


def _is_trained(x: Tensor) -> bool:
    """Whether tensors of known sizes may be differentiated; not under a compiler, to which sizes are symbols."""
    known = not torch.compiler.is_compiling() and type(x) in _TENSORS and torch.is_grad_enabled()
    return known and x.dim() > 0 and type(x.shape[0]) is int


def _in_float32(layer: nn.Conv3d, x: Tensor) -> Tensor:
    """``layer(x)``, in float32 where torch is wrong in bfloat16."""
    dtype = low_precision(x)
    if not is_shallow(x, layer.weight, dtype):
        return layer(x)  # type: ignore[no-any-return]
    wide = {name: each.float() for name, each in layer.named_parameters()}
    with torch.autocast('cpu', enabled=False):
        return torch.func.functional_call(layer, wide, (x.float(),)).to(dtype)  # type: ignore[no-any-return]


def run(
    x: Tensor,
    units: Sequence[nn.Module],
    memory: str = 'lean',
    backend: str = DEFAULT,
    adds: str = 'nothing',
    shortcut: nn.Module | None = None,
) -> Tensor | None:
    """What the layers give, fused or, of few values, one by one; ``None`` where only the plain path may be taken."""
    if why_not_now(memory) or type(x) not in _TENSORS:
        return None
    if torch.compiler.is_compiling():
        if not units:  # a compiler fuses a shortcut alone
            return None
        block = read(units, adds, shortcut)
        refused = isinstance(block, str) or why_not_with(x, block) or why_not_compiled(x, block, memory)
        return None if refused else block(x, memory, backend)  # type: ignore[operator]
    by = TABLE[backend, x.device.type]
    few = by.few and x.numel() <= by.tools.limits.few_values
    # Torch's own layers may have changed since they were read: they are called as they are.
    if few and is_small(x, _reading_of(units, adds, shortcut).block, memory, by.tools.limits):
        return _by_layers(x, units, adds, shortcut)
    reading = _READINGS.get(units[0] if units else shortcut)  # type: ignore[arg-type]
    held = reading is not None and reading.holds(units, adds, shortcut)  # most often: a call less than `block_of`
    block = reading.block if held else block_of(units, adds, shortcut)  # type: ignore[union-attr]
    if isinstance(block, str) or why_not_with(x, block):
        return None
    if adds != 'nothing' and units and not by.whole_blocks:
        return None
    return fused.block(x, block.weights, block.how, memory, backend, block.statistics)


def _by_layers(x: Tensor, units: Sequence[nn.Module], adds: str, shortcut: nn.Module | None) -> Tensor:
    """What torch's own layers give of a whole block, whose units need not be asked one by one then."""
    y = x
    for unit in units:
        y = plainly(unit, y)
    if shortcut is None:
        return y + x if adds == 'input' else y
    beside = plainly(shortcut, x)
    return y + beside if units else beside


def run_padded(
    x: Tensor,
    region: Region,
    units: Sequence[nn.Module],
    memory: str,
    backend: str,
    adds: str,
    shortcut: nn.Module | None,
) -> tuple[Tensor, Region] | None:
    """As `run`, of a batch padded with zeros; the result is padded with zeros too, and comes with what is no padding.

    Args:
        x: The input.
        region: What of it is not padding.
        units: See `run`.
        memory: See `run`.
        backend: See `run`.
        adds: See `run`.
        shortcut: See `run`.
    """
    if why_not_now(memory) or torch.compiler.is_compiling() or type(x) not in _TENSORS:
        return None
    by, block = TABLE[backend, x.device.type], block_of(units, adds, shortcut)
    if isinstance(block, str) or why_not_padded(block) or why_not_with(x, block) or not by.whole_blocks:
        return None
    if by.few and is_small(x, block, memory, by.tools.limits):
        return None
    masks, after = _masks(region, block, x.shape)
    y = fused.block(x, block.weights, block.how, memory, backend, block.statistics, masks)
    return masks[-1].cleared(y), after


def why_not_padded(block: Fused | str) -> str:
    """Why padded batches can't take the fused path of this block, or an empty string."""
    if isinstance(block, str):
        return block
    if block.how.enlarges:
        return 'maps are enlarged'
    return 'the shortcut averages' if block.how.shortcut is not None and block.how.shortcut.pool else ''


def _masks(region: Region, block: Fused, shape: Sequence[int]) -> tuple[list[Mask], Region]:
    """The padding of each unit's input, then that of the block's output, and what is none of the latter."""
    found, size = [Mask(region.inside, region.volume)], tuple(shape[2:])
    for unit, own in zip(block.how.units, block.weights, strict=False):
        if unit.geometry is not None and own.kernel is not None:
            sides = zip(size, own.kernel.shape[2:], unit.geometry.stride, unit.geometry.padding, strict=True)
            size = tuple((n + 2 * pad - k) // step + 1 for n, k, step, pad in sides)
            before, region = region, region.shrunk(unit.geometry.stride, size)
            found.append(found[-1] if region is before else Mask(region.inside, region.volume))
        else:
            found.append(found[-1])
    return found, region


def is_small(x: Tensor, block: Fused | str, memory: str, limits: Limits) -> bool:
    """Whether torch's own layers are the quicker ones for so few values, see ``Limits.few_values``."""
    few = memory == 'lean' and x.numel() <= limits.few_values and x.dim() > 2 and x.shape[1] <= limits.few_channels
    return few and not isinstance(block, str) and not block.how.enlarges


def call_shortcut(module: nn.Module, x: Tensor, memory: str = 'lean', backend: str = DEFAULT) -> Tensor:
    """``module(x)`` of a shortcut by itself, by the fused path where it may be taken."""
    y = run(x, [], memory, backend, 'shortcut', module)
    return plainly(module, x) if y is None else y


def memory(x: Tensor, level: str, backend: str) -> AbstractContextManager[None]:
    """In which context a network that runs like this makes its own tensors beside those of its blocks."""
    # Only where a block could take the fused path, for tracers can't follow; torch.fx gives no tensors at all.
    if type(x) not in _TENSORS or why_not_now(level) or torch.compiler.is_compiling():
        return nullcontext()
    return TABLE[backend, x.device.type].memory(x)


@dataclass(frozen=True)
class Taken:
    """The path of one unit: its name in the network, whether it is fused, and why not.

    Args:
        unit: Its name.
        fused: Whether it takes the fused path.
        reason: Why it does not.
        plain_up_to: Up to so many values of its block's input it is torch's own layers all the same, see
            ``Limits.few_values``.
    """

    unit: str
    fused: bool
    reason: str = ''
    plain_up_to: int = 0

    def __str__(self) -> str:
        small = f', plain for up to {self.plain_up_to} values' if self.plain_up_to else ''
        return f'{self.unit}: {"fused" + small if self.fused else "plain, for " + self.reason}'


def taken(named: dict[str, nn.Module], memory: str, adds: str, shortcut: str, backend: str = DEFAULT) -> list[Taken]:
    """The path of each unit of a block as things stand.

    Args:
        named: The units, and the shortcut if there is one, by name.
        memory: What the block would keep for backward.
        adds: See ``definition.Block``.
        shortcut: Name of the shortcut.
        backend: Who computes.
    """
    now = why_not_now(memory)
    units = [each for name, each in named.items() if name != shortcut]
    whole = read(units, adds, named.get(shortcut))
    device = next((each.device.type for unit in named.values() for each in unit.parameters()), 'cpu')
    few, found = _few_values(memory, backend, device), []
    for name, each in named.items():
        # What is not fused as a whole is fused one by one.
        parts = ([], 'shortcut', each) if name == shortcut else ([each],)
        alone = whole if isinstance(whole, Fused) else read(*parts)  # type: ignore[arg-type]
        reason = now or (alone if isinstance(alone, str) else why_not_parameters(alone))
        plain_up_to = 0 if reason or alone.how.enlarges else few  # type: ignore[union-attr]
        found.append(Taken(name, not reason, reason, plain_up_to))
    return found


def why_not_now(memory: str) -> str:
    """Why no unit takes the fused path at this moment, or an empty string."""
    compiling = torch.compiler.is_compiling()
    if compiling and not COMPILES:  # first: an older compiler can trace none of the others
        return 'torch.compile before torch 2.13 is tracing'
    if torch.compiler.is_exporting():
        return 'torch.export is tracing'
    if memory == 'plain' or (_anywhere if compiling else _plainly.get()):
        return 'the plain path was asked for'
    if _torch.WRONG:
        return _torch.why_not_fused()
    if reason := tracer():
        return reason
    return 'hooks on all modules are registered' if any(HOOKS_ON_ALL) else ''


def _few_values(memory: str, backend: str, device: str) -> int:
    by = TABLE[backend, device]
    return by.tools.limits.few_values if by.few and memory == 'lean' else 0


def why_not_parameters(block: Fused) -> str:
    """Why these parameters can't take the fused path, or an empty string."""
    odd = next((each for each in block.tensors if type(each) not in _TENSORS), None)
    return '' if odd is None else f'a parameter is a {type(odd).__name__}'


def why_not_with(x: Tensor, block: Fused) -> str:
    """Why these tensors can't take the fused path, or an empty string."""
    if type(x) not in _TENSORS:
        return f'the input is a {type(x).__name__}'
    tensors = block.tensors
    for each in tensors:
        if type(each) not in _TENSORS:
            return why_not_parameters(block)
    device, dtype, shape = x.device, x.dtype, x.shape
    if device.type not in ('cpu', 'cuda') or x.layout is not torch.strided or dtype not in DTYPES:
        return f'the input is {x.layout}, {dtype}, on {device}'
    if not torch.compiler.is_compiling() and {*map(type, shape)} != {int}:
        return 'the input has symbolic sizes'
    if len(shape) != 2 + block.axes or shape[1] != block.planes or not x.numel() > shape[0] * shape[1] > 0:
        return f'the input has shape {tuple(shape)}'
    autocast = torch.is_autocast_enabled(device.type) and dtype != torch.float64
    legal = DTYPES[:3] if autocast else (dtype,)
    for each in tensors:
        if each.dtype not in legal or each.device != device:
            return f'the input is {dtype} on {device}, a parameter {each.dtype} on {each.device}'
    return ''


def why_not_compiled(x: Tensor, block: Fused, memory: str) -> str:
    """Why torch.compile, where it is tracing, gets torch's own layers of this block, or an empty string.

    This is the choice of where the operator stays a node of the graph: on a CPU everywhere, lone convolutions too, for
    one that Inductor sees has it lay all weights of the graph anew at each step. On other devices a compiler's kernels
    are quick and nothing was measured, so that only the levels that give time for memory keep it there.
    """
    if not torch.compiler.is_compiling():
        return ''
    if x.device.type != 'cpu' and memory not in ('leaner', 'least'):
        return f'torch.compile fuses the layers on {x.device.type}'
    return ''


_TENSORS = (Tensor, nn.Parameter, FakeTensor)


def _traced(x: Tensor) -> bool:
    symbolic = torch.compiler.is_exporting() or not all(type(length) is int for length in x.shape)
    return symbolic or bool(tracer())


def transformed() -> bool:
    """Whether a compiler, a tracer or a transform follows each step, and knows no derivative given beside them."""
    return torch.compiler.is_compiling() or bool(tracer())


class _Reading:
    """What was read of a block, for as long as its layers are what they were.

    Whatever is set on a layer, put into its parameters or children, or hooked to it, ends it: attributes are compared
    with those of the time of reading, one by one, by identity. It lives beside the layers, so that copies and files of
    them know nothing of it, and holds no reference to the first of them, with which it goes.
    """

    def __init__(self, units: Sequence[nn.Module], adds: str, shortcut: nn.Module | None) -> None:
        self.block = read(units, adds, shortcut)
        self.arguments = (*units[1:], adds, shortcut if units else None)
        roots = [*units, *(() if shortcut is None else (shortcut,))]
        modules = [each for root in roots for each in (root, *root.children())]
        self.first, self.others = type(modules[0]), modules[1:]
        self.types = [*map(type, self.others)]
        self.hooks = [registry for each in modules for registry in _torch.hooks(each)]
        self.states = [(own, [*own.values()]) for each in modules for own in (each.__dict__, *_torch.contents(each))]

    def holds(self, units: Sequence[nn.Module], adds: str, shortcut: nn.Module | None) -> bool:
        """Whether these are the layers that were read, as they were."""
        if self.arguments != (*units[1:], adds, shortcut if units else None) or any(self.hooks):
            return False
        if type(units[0] if units else shortcut) is not self.first or not all(
            map(is_, map(type, self.others), self.types)
        ):
            return False
        for now, then in self.states:  # noqa: SIM110, for a generator is a call for each
            if len(now) != len(then) or not all(map(is_, now.values(), then)):
                return False
        return True


_READINGS: WeakKeyDictionary[nn.Module, _Reading] = WeakKeyDictionary()


def _reading_of(units: Sequence[nn.Module], adds: str, shortcut: nn.Module | None) -> _Reading:
    """What was read of these layers, though they may have changed since; read now where nothing was."""
    first: Any = units[0] if units else shortcut
    reading = _READINGS.get(first)
    if reading is None or reading.arguments != (*units[1:], adds, shortcut if units else None):
        reading = _READINGS[first] = _Reading(units, adds, shortcut)
    return reading


def block_of(units: Sequence[nn.Module], adds: str, shortcut: nn.Module | None) -> Fused | str:
    """As ``reading.read``, once for as long as the layers stay what they are."""
    first: Any = units[0] if units else shortcut
    reading = _READINGS.get(first)
    if reading is None or not reading.holds(units, adds, shortcut):
        reading = _Reading(units, adds, shortcut)
        _READINGS[first] = reading
    return reading.block
