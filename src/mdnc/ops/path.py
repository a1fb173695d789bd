"""The one rule by which a unit takes the fused path or the plain one, and the reason for the latter."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mdnc import _torch
from mdnc._torch import HOOKS_ON_ALL, FakeTensor, tracer
from mdnc.ops import fused, library
from mdnc.ops.backend import DEFAULT, TABLE
from mdnc.ops.channels_last import is_channels_last, to_layout, to_layout_both_ways
from mdnc.ops.convolution import Geometry
from mdnc.ops.definition import INTERPOLATION, Block, Norm, Resize, Shortcut, Unit, Weights
from mdnc.ops.fused import Statistics

MEMORY_LEVELS = ('plain', 'fast', 'lean', 'leaner', 'least')

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)  # the first three are what autocast mixes
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

# The version of torch whose compiler was seen to trace this rule; older ones get torch's own layers.
_COMPILES = torch.__version__ >= '2.13'  # compared as versions are

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


@dataclass(frozen=True)
class Fused:
    """A block read from its layers, ready for the fused path; see `fuse`."""

    how: Block
    weights: tuple[Weights, ...]
    tensors: tuple[Tensor, ...]
    statistics: tuple[Statistics | None, ...]
    axes: int

    def __call__(self, x: Tensor, memory: str = 'lean', backend: str = DEFAULT) -> Tensor:
        if torch.compiler.is_compiling():
            return library.block(x, self.weights, self.how, memory, backend)
        return fused.block(x, self.weights, self.how, memory, backend, self.statistics)


def fuse(how: Block, weights: tuple[Weights, ...], statistics: tuple[Statistics | None, ...] = ()) -> Fused:
    """A block with its parameters."""
    tensors = tuple(each for own in weights for each in own if each is not None)
    seen = statistics if any(each is not None for each in statistics) else ()
    first: Any = how.units[0] if how.units else how.shortcut
    return Fused(how, weights, tensors, seen, len(first.geometry.stride))


class _NotFused(Exception):
    """The reason why layers can't take the fused path."""


def read(units: Sequence[nn.Module], adds: str = 'nothing', shortcut: nn.Module | None = None) -> Fused | str:
    """Read a block from its layers, or say why it can't take the fused path.

    Args:
        units: Units, each a ``Sequential`` of [norm, act, (up-sampling), conv] or a convolution alone.
        adds: See ``definition.Block``.
        shortcut: ``Sequential`` of [(up-sampling), conv, norm].
    """
    try:
        parts = [_unit(_layers(each)) for each in units]
        last = None if shortcut is None else _shortcut(_layers(shortcut))
    except _NotFused as reason:
        return str(reason)
    how = Block(tuple(how for how, _, _ in parts), adds, None if last is None else last[0])
    _, *rest = zip(*parts, *(() if last is None else (last,)), strict=True)
    return fuse(how, *rest)


def call(module: nn.Module, x: Tensor, memory: str = 'lean', backend: str = DEFAULT) -> Tensor:
    """``module(x)``, for a unit or a convolution by the fused path where it may be taken."""
    y = run(x, [module], memory, backend)
    return plainly(module, x) if y is None else y


def plainly(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)``, torch's own layers kept from what torch 2.13 computes wrongly where channels lie last on a CPU.

    The gradient of the weights of a strided 1 × … × 1 convolution is then written out of bounds, and the gradient of an
    instance norm of a single sample is read as if it were contiguous (docs/performance.md).
    """
    if type(x) not in _TENSORS or x.device.type != 'cpu' or x.dim() < 3 or _traced(x):
        return module(x)  # type: ignore[no-any-return]
    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    if any(isinstance(each, _CONVS) and max(each.kernel_size) == 1 < max(each.stride) for each in layers):
        x = to_layout(x, False)
    y: Tensor = module(x)
    # A compiler has no place for a function of autograd, and computes norms by itself.
    alone = x.shape[0] == 1 and any(isinstance(each, _INSTANCE_NORMS) for each in layers)
    if alone and y.requires_grad and not torch.compiler.is_compiling():
        return to_layout_both_ways(y, is_channels_last(y), False)
    return y


def run(
    x: Tensor,
    units: Sequence[nn.Module],
    memory: str = 'lean',
    backend: str = DEFAULT,
    adds: str = 'nothing',
    shortcut: nn.Module | None = None,
) -> Tensor | None:
    """What the layers give, by the fused path; ``None`` where only the plain path may be taken."""
    if why_not_now(memory) or type(x) not in _TENSORS:
        return None
    if torch.compiler.is_compiling():
        if not units:  # a compiler fuses a shortcut alone
            return None
        block = read(units, adds, shortcut)
        refused = isinstance(block, str) or why_not_with(x, block) or why_not_compiled(x, block, memory)
        return None if refused else block(x, memory, backend)  # type: ignore[operator]
    first: Any = units[0] if units else shortcut
    reading = _READINGS.get(first)
    if reading is None or not reading.holds(units, adds, shortcut):
        reading = _Reading(units, adds, shortcut)
        _READINGS[first] = reading
    block = reading.block
    if isinstance(block, str) or why_not_with(x, block):
        return None
    if adds != 'nothing' and units and not TABLE[backend, x.device.type].whole_blocks:
        return None
    return fused.block(x, block.weights, block.how, memory, backend, block.statistics)


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
    """The path of one unit: its name in the network, whether it is fused, and why not."""

    unit: str
    fused: bool
    reason: str = ''

    def __str__(self) -> str:
        return f'{self.unit}: {"fused" if self.fused else "plain, for " + self.reason}'


def taken(named: dict[str, nn.Module], memory: str, adds: str, shortcut: str) -> list[Taken]:
    """The path of each unit of a block as things stand.

    Args:
        named: The units, and the shortcut if there is one, by name.
        memory: What the block would keep for backward.
        adds: See ``definition.Block``.
        shortcut: Name of the shortcut.
    """
    now = why_not_now(memory)
    units = [each for name, each in named.items() if name != shortcut]
    whole = read(units, adds, named.get(shortcut))
    reasons = {}
    for name, each in named.items():
        # What is not fused as a whole is fused one by one.
        parts = ([], 'shortcut', each) if name == shortcut else ([each],)
        alone = whole if isinstance(whole, Fused) else read(*parts)  # type: ignore[arg-type]
        reasons[name] = now or (alone if isinstance(alone, str) else why_not_parameters(alone))
    return [Taken(name, not reason, reason) for name, reason in reasons.items()]


def why_not_now(memory: str) -> str:
    """Why no unit takes the fused path at this moment, or an empty string."""
    compiling = torch.compiler.is_compiling()
    if compiling and not _COMPILES:  # first: an older compiler can trace none of the others
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
    if len(shape) != 2 + block.axes or not x.numel() > shape[0] * shape[1] > 0:
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
    norms = [unit.norm for unit in block.how.units]
    if any(norm is not None and norm.kind in ('batch', 'fixed') for norm in norms):
        return 'torch.compile fuses batch norms'
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


# ---- Reading layers ----


def _layers(module: nn.Module) -> list[Any]:
    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    for each in (module, *layers):
        if any(_torch.hooks(each)):
            raise _NotFused(f'{type(each).__name__} carries a hook')
        if 'forward' in each.__dict__:
            raise _NotFused(f'{type(each).__name__} has a forward of its own')
    return layers


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
        given = (*units[1:], adds, shortcut if units else None)
        if len(given) != len(self.arguments) or not all(map(is_, given, self.arguments)) or any(self.hooks):
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


_Part = tuple[Any, Weights, Statistics | None]  # a Unit or Shortcut, its parameters, the statistics of a batch norm
_ACTIVATIONS: dict[type[nn.Module], str] = {
    **{nn.PReLU: 'prelu', nn.ReLU: 'relu', nn.LeakyReLU: 'leaky_relu', nn.ELU: 'elu', nn.GELU: 'gelu', nn.SiLU: 'silu'}
}


def _unit(layers: list[Any]) -> _Part:
    *before, conv = layers
    geometry = _convolution(conv)
    norm, scale, shift, statistics = _norm(before.pop(0)) if before and _is_norm(before[0]) else _WITHOUT
    act = before.pop(0) if before and type(before[0]) in _ACTIVATIONS else None
    word, alpha = _activation(act)
    unit = Unit(geometry, norm, word, alpha, _resize(before, len(geometry.stride)))
    slope = act.weight if type(act) is nn.PReLU else None
    return unit, Weights(scale, shift, slope, conv.weight, conv.bias), statistics


def _shortcut(layers: list[Any]) -> _Part:
    norm, scale, shift, statistics = _norm(layers.pop()) if _is_norm(layers[-1]) else _WITHOUT
    *before, conv = layers
    geometry = _convolution(conv)
    plainest = geometry == Geometry(geometry.stride, (0,) * len(geometry.stride)) and max(conv.kernel_size) == 1
    if conv.bias is not None or not (plainest or geometry.transposed):
        raise _NotFused('the shortcut has another convolution than 1 × … × 1 without bias')
    pool = before.pop(0).stride if before and getattr(before[0], 'averages', False) else ()
    if pool and max(geometry.stride) > 1:
        raise _NotFused('the shortcut pools and has a stride')
    how = Shortcut(geometry, norm, _resize(before, len(geometry.stride)), pool)
    return how, Weights(scale, shift, None, conv.weight, None), statistics


_Normed = tuple[Norm | None, Tensor | None, Tensor | None, Statistics | None]
_WITHOUT: _Normed = (None, None, None, None)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _is_norm(layer: Any) -> bool:
    return type(layer) in (*_INSTANCE_NORMS, *_BATCH_NORMS, nn.GroupNorm, nn.SyncBatchNorm)


def _norm(norm: Any) -> _Normed:
    if type(norm) in _BATCH_NORMS:
        return _batch_norm(norm)
    if type(norm) is nn.GroupNorm:
        return Norm('group', norm.eps, norm.num_groups), norm.weight, norm.bias, None
    if type(norm) not in _INSTANCE_NORMS:
        raise _NotFused(f'{type(norm).__name__} takes its statistics from all processes')
    if norm.track_running_stats:
        raise _NotFused(f'{type(norm).__name__} tracks statistics')
    return Norm('instance', norm.eps), norm.weight, norm.bias, None


def _batch_norm(norm: Any) -> _Normed:
    # As nn.BatchNorm2d chooses between the statistics of the batch and those of before.
    if norm.training or (norm.running_mean is None and norm.running_var is None):
        tracks = norm.training and norm.track_running_stats and norm.running_mean is not None
        own = Statistics(norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum)
        return Norm('batch', norm.eps), norm.weight, norm.bias, own if tracks else None
    fixed = Statistics(norm.running_mean, norm.running_var)
    return Norm('fixed', norm.eps), norm.weight, norm.bias, fixed


def _activation(act: Any) -> tuple[str, float]:
    word = 'null' if act is None else _ACTIVATIONS[type(act)]
    if word == 'gelu' and act.approximate != 'none':
        raise _NotFused('GELU is approximate')
    own = {'leaky_relu': 'negative_slope', 'elu': 'alpha'}
    return word, float(getattr(act, own[word])) if word in own else 0.0


def _resize(layers: list[Any], axes: int) -> Resize | None:
    if not layers:
        return None
    up, *more = layers
    if more or type(up) is not nn.Upsample:
        raise _NotFused(f'{type(layers[-1]).__name__} stands between activation and convolution')
    linear = up.mode in INTERPOLATION.values() and up.align_corners
    if not linear and up.mode != 'nearest':
        raise _NotFused(f'Upsample(mode={up.mode!r}) stands between activation and convolution')
    return Resize(_each(up.size, axes), _each(up.scale_factor, axes), not linear)


def _each(value: Any, axes: int) -> Any:
    return value if value is None or isinstance(value, tuple) else (value,) * axes


_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _convolution(conv: Any) -> Geometry:
    if type(conv) not in (*_CONVS, *_TRANSPOSED):
        raise _NotFused(f'{type(conv).__name__} stands where a convolution would')
    if max(conv.dilation) > 1 or conv.padding_mode != 'zeros' or isinstance(conv.padding, str):
        raise _NotFused(f'{type(conv).__name__} has dilation or padding of another kind')
    if type(conv) in _TRANSPOSED:
        return Geometry(conv.stride, conv.padding, conv.groups, True, conv.output_padding)
    return Geometry(conv.stride, conv.padding, conv.groups)
