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
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad
from torch.nn.modules import module as module_hooks

from mdnc.ops import fused, library
from mdnc.ops.definition import INTERPOLATION, Block, Resize, Shortcut, Unit, Weights
from mdnc.ops.fused import Manner
from mdnc.ops.layout import is_last, laid, relaid

MEMORY_LEVELS = ('plain', 'fast', 'lean', 'leaner', 'least')

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)  # the first three are what autocast mixes
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

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

    def __call__(self, x: Tensor, manner: Manner) -> Tensor:
        block = library.block if torch.compiler.is_compiling() else fused.block
        return block(x, self.weights, self.how, manner)


def fuse(how: Block, weights: tuple[Weights, ...]) -> Fused:
    """A block with its parameters."""
    return Fused(how, weights, tuple(each for own in weights for each in own if each is not None))


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
        pairs = [_unit(_layers(each)) for each in units]
        last = None if shortcut is None else _shortcut(_layers(shortcut))
    except _NotFused as reason:
        return str(reason)
    how = Block(tuple(how for how, _ in pairs), adds, None if last is None else last[0])
    return fuse(how, (*(own for _, own in pairs), *(() if last is None else (last[1],))))


def call(module: nn.Module, x: Tensor, manner: Manner) -> Tensor:
    """``module(x)``, for a unit or a convolution by the fused path where it may be taken."""
    y = run(x, [module], manner)
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
        x = laid(x, False)
    y: Tensor = module(x)
    # A compiler has no place for a function of autograd, and computes norms by itself.
    alone = x.shape[0] == 1 and any(isinstance(each, _NORMS) for each in layers) and not torch.compiler.is_compiling()
    return relaid(y, is_last(y), False) if alone and y.requires_grad else y


def run(
    x: Tensor, units: Sequence[nn.Module], manner: Manner, adds: str = 'nothing', shortcut: nn.Module | None = None
) -> Tensor | None:
    """What the layers give, by the fused path; ``None`` where only the plain path may be taken."""
    if why_not_now(manner.memory) or type(x) not in _TENSORS:
        return None
    if torch.compiler.is_compiling():
        block = read(units, adds, shortcut)
        return (
            None
            if isinstance(block, str) or why_not_with(x, block) or why_not_compiled(x, manner)
            else block(x, manner)
        )
    reading = _READINGS.get(units[0])
    if reading is None or not reading.holds(units, adds, shortcut):
        reading = _Reading(units, adds, shortcut)
        _READINGS[units[0]] = reading
    block = reading.block
    if isinstance(block, str) or why_not_with(x, block):
        return None
    return fused.block(x, block.weights, block.how, manner)


def memory(x: Tensor, manner: Manner) -> AbstractContextManager[None]:
    """In which context a network that runs like this makes its own tensors beside those of its blocks."""
    # Only where a block could take the fused path, for tracers can't follow.
    return nullcontext() if why_not_now(manner.memory) or torch.compiler.is_compiling() else manner.kernels.memory(x)


@dataclass(frozen=True)
class Taken:
    """The path of one unit: its name in the network, whether it is fused, and why not."""

    unit: str
    fused: bool
    reason: str = ''

    def __str__(self) -> str:
        return f'{self.unit}: {"fused" if self.fused else "plain, for " + self.reason}'


def taken(named: dict[str, nn.Module], manner: Manner, adds: str, shortcut: str) -> list[Taken]:
    """The path of each unit of a block as things stand.

    Args:
        named: The units, and the shortcut if there is one, by name.
        manner: How the block would run.
        adds: See ``definition.Block``.
        shortcut: Name of the shortcut.
    """
    now = why_not_now(manner.memory)
    units = [each for name, each in named.items() if name != shortcut]
    whole = read(units, adds, named.get(shortcut))
    reasons = {}
    for name, each in named.items():
        # Units of a block that is not fused as a whole are fused one by one; its shortcut then runs plainly.
        alone = whole if name == shortcut or isinstance(whole, Fused) else read([each])
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
    if reason := _tracer():
        return reason
    return 'hooks on all modules are registered' if any(_HOOKS_ON_ALL) else ''


def _tracer() -> str:
    # What records or transforms the layers one by one needs them called one by one.
    if torch._C._get_tracing_state() is not None:
        return 'torch.jit.trace is tracing'
    if _transformed() if torch.compiler.is_compiling() else _interpreter() is not None:
        return 'a torch.func transform is on'
    return 'forward-mode differentiation is on' if forward_ad._current_level >= 0 else ''


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
    if len(shape) != 2 + len(block.how.units[0].stride) or not x.numel() > shape[0] * shape[1] > 0:
        return f'the input has shape {tuple(shape)}'
    autocast = torch.is_autocast_enabled(device.type) and dtype != torch.float64
    legal = DTYPES[:3] if autocast else (dtype,)
    for each in tensors:
        if each.dtype not in legal or each.device != device:
            return f'the input is {dtype} on {device}, a parameter {each.dtype} on {each.device}'
    return ''


def why_not_compiled(x: Tensor, manner: Manner) -> str:
    """Why torch.compile, where it is tracing, gets torch's own layers of this block, or an empty string.

    This is the choice of where the operator stays a node of the graph: on a CPU everywhere, lone convolutions too, for
    one that Inductor sees has it lay all weights of the graph anew at each step. On other devices a compiler's kernels
    are quick and nothing was measured, so that only the levels that give time for memory keep it there.
    """
    if not torch.compiler.is_compiling():
        return ''
    if not library.name_of(manner.kernels):
        return 'the kernels have no name by which a graph could call them'
    if x.device.type != 'cpu' and manner.memory not in ('leaner', 'least'):
        return f'torch.compile fuses the layers on {x.device.type}'
    return ''


_interpreter = torch._C._functorch.peek_interpreter_stack


def _transformed() -> bool:
    return _interpreter() is not None


# torch.compile asks when it traces and guards the answer itself. As `torch.compiler.assume_constant_result`, which
# would import the compiler (a second) with this module.
_transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]


_TENSORS = (Tensor, nn.Parameter, FakeTensor)
_KINDS_OF_HOOKS = ('forward', 'forward_pre', 'backward', 'backward_pre')

# The registries themselves: they are empty unless somebody registers.
_HOOKS_ON_ALL: list[dict[int, Any]] = [getattr(module_hooks, f'_global_{kind}_hooks') for kind in _KINDS_OF_HOOKS]


def _traced(x: Tensor) -> bool:
    symbolic = torch.compiler.is_exporting() or not all(type(length) is int for length in x.shape)
    return symbolic or bool(_tracer())


def transformed() -> bool:
    """Whether a compiler, a tracer or a transform follows each step, and knows no derivative given beside them."""
    return torch.compiler.is_compiling() or bool(_tracer())


# ---- Reading layers ----


def _layers(module: nn.Module) -> list[Any]:
    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    for each in (module, *layers):
        if each._forward_hooks or each._forward_pre_hooks or each._backward_hooks or each._backward_pre_hooks:
            raise _NotFused(f'{type(each).__name__} carries a hook')
        if 'forward' in each.__dict__:
            raise _NotFused(f'{type(each).__name__} has a forward of its own')
    return layers


class _Reading:
    """What was read of a block, for as long as its layers are what they were.

    Whatever is set on a layer, put into its parameters or children, or hooked to it, ends it: attributes are compared
    with those of the time of reading, one by one, by identity. It lives beside the layers, so that copies and files of
    them know nothing of it, and holds no reference to the first unit, with which it goes.
    """

    def __init__(self, units: Sequence[nn.Module], adds: str, shortcut: nn.Module | None) -> None:
        self.block = read(units, adds, shortcut)
        self.arguments = (*units[1:], adds, shortcut)
        roots = [*units, *(() if shortcut is None else (shortcut,))]
        modules = [each for root in roots for each in (root, *root._modules.values()) if each is not None]
        self.first, self.others = type(modules[0]), modules[1:]
        self.types = [*map(type, self.others)]
        self.hooks = [getattr(each, f'_{kind}_hooks') for each in modules for kind in _KINDS_OF_HOOKS]
        self.states = [
            (own, [*own.values()]) for each in modules for own in (each.__dict__, each._modules, each._parameters)
        ]

    def holds(self, units: Sequence[nn.Module], adds: str, shortcut: nn.Module | None) -> bool:
        """Whether these are the layers that were read, as they were."""
        given = (*units[1:], adds, shortcut)
        if len(given) != len(self.arguments) or not all(map(is_, given, self.arguments)) or any(self.hooks):
            return False
        if type(units[0]) is not self.first or not all(map(is_, map(type, self.others), self.types)):
            return False
        for now, then in self.states:  # noqa: SIM110, for a generator is a call for each
            if len(now) != len(then) or not all(map(is_, now.values(), then)):
                return False
        return True


_READINGS: WeakKeyDictionary[nn.Module, _Reading] = WeakKeyDictionary()


def _unit(layers: list[Any]) -> tuple[Unit, Weights]:
    *before, conv = layers
    scale, shift, eps = _norm(before.pop(0)) if before else (None, None, None)
    stride, padding = _convolution(conv)
    act = before.pop(0) if before and type(before[0]) in (nn.PReLU, nn.ReLU) else None
    slope = act.weight if type(act) is nn.PReLU else None
    word = 'null' if act is None else 'relu' if slope is None else 'prelu'
    unit = Unit(stride, padding, eps, word, _resize(before, len(stride)))
    return unit, Weights(scale, shift, slope, conv.weight, conv.bias)


def _shortcut(layers: list[Any]) -> tuple[Shortcut, Weights]:
    scale, shift, eps = _norm(layers[-1])
    *before, conv = layers[:-1]
    stride, padding = _convolution(conv)
    if conv.bias is not None or any(padding) or max(conv.kernel_size) > 1:
        raise _NotFused('the shortcut has another convolution than 1 × … × 1 without bias')
    return Shortcut(stride, eps, _resize(before, len(stride))), Weights(scale, shift, None, conv.weight, None)


def _norm(norm: Any) -> tuple[Tensor | None, Tensor | None, float]:
    if type(norm) not in _NORMS:
        raise _NotFused(f'{type(norm).__name__} stands where an instance norm would')
    if norm.track_running_stats:
        raise _NotFused(f'{type(norm).__name__} tracks statistics')
    return norm.weight, norm.bias, norm.eps


def _resize(layers: list[Any], axes: int) -> Resize | None:
    if not layers:
        return None
    up, *more = layers
    if more or type(up) is not nn.Upsample or up.mode not in INTERPOLATION.values() or not up.align_corners:
        raise _NotFused(f'{type(layers[-1]).__name__} stands between activation and convolution')
    return Resize(_each(up.size, axes), _each(up.scale_factor, axes))


def _each(value: Any, axes: int) -> Any:
    return value if value is None or isinstance(value, tuple) else (value,) * axes


def _convolution(conv: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if type(conv) not in _CONVS:
        raise _NotFused(f'{type(conv).__name__} stands where a convolution would')
    odd = conv.groups > 1 or max(conv.dilation) > 1 or conv.padding_mode != 'zeros' or isinstance(conv.padding, str)
    if odd:
        raise _NotFused(f'{type(conv).__name__} has groups, dilation or padding of another kind')
    return conv.stride, conv.padding
