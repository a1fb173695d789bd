"""One run of a model and the facts of each call in it. The run leaves the model and everything else as they were."""

import copy
import dataclasses
import logging
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from mdnc.contribs.torchsummary.request import OWNER, Request, Size

ROWLESS = (nn.Sequential, nn.ModuleList)
UNKNOWN_VALUES = (DataDependentOutputException, DynamicOutputShapeException)


@dataclass(frozen=True)
class Call:
    """One call of a module.

    Args:
        name: Class of the module.
        shapes: Shape of each tensor that it gave, with the batch that was asked for as its first length.
        parameters: Values of the module's own parameters that no earlier call has counted.
    """

    name: str
    shapes: tuple[Size, ...]
    parameters: int


@dataclass(frozen=True)
class Record:
    """The facts of one run.

    Args:
        calls: The calls in the order they ended, those of containers left out.
        parameters: Values of all parameters, each parameter once, called or not.
        trainable: How many of them require a gradient.
    """

    calls: tuple[Call, ...]
    parameters: int
    trainable: int


def record(model: nn.Module, request: Request) -> Record:
    """Run the model once as asked and collect the facts."""
    recorder = _Recorder(request)
    with ExitStack() as stack:
        stack.enter_context(random_state_kept())
        stack.enter_context(torch.no_grad())
        if 'torch._dynamo' in sys.modules:  # a compiled model: its graph would hide the calls or take in the hooks
            stack.enter_context(torch.compiler.set_stance('force_eager'))
        if request.stand_ins:
            # Stand-ins of shape, dtype and device: the model's own tensors are read for these alone.
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(unchanged(model))  # takes the hooks away too
        recorder.watch(model)
        _run(model, request)
    parameters = list(model.parameters())
    return Record(
        calls=tuple(recorder.calls),
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    )


def _run(model: nn.Module, request: Request) -> None:
    try:
        with silent():
            model(*request.inputs())
    except UNKNOWN_VALUES as error:
        raise RuntimeError(f"{OWNER}: with device='meta' there are no values, and the model fails: {error}") from error


class _Recorder:
    """Listens to the calls of a model's modules."""

    def __init__(self, request: Request) -> None:
        self.calls: list[Call] = []
        self._request = request
        self._counted: set[int] = set()
        self._running: list[tuple[nn.Module, list[int]]] = []

    def watch(self, model: nn.Module) -> None:
        """Hook onto every module of the model."""
        for module in model.modules():
            module.register_forward_pre_hook(self._begin)
            module.register_forward_hook(self._end)

    def _begin(self, module: nn.Module, _: Any) -> None:
        self._running.append((module, []))

    def _end(self, module: nn.Module, _: Any, output: Any) -> None:
        found = [self._count(module)]
        caller = None
        while caller is not module:  # above it stand calls that raised, and whose error the model caught
            caller, inner = self._running.pop()
            found += inner
        if not isinstance(module, ROWLESS):
            self.calls.append(Call(type(module).__name__, self._shapes(output), sum(found)))
        elif self._running:
            # Parameters that a container itself holds stand in the row of the module that called it.
            self._running[-1][1].extend(found)

    def _count(self, module: nn.Module) -> int:
        fresh = [p for p in module.parameters(recurse=False) if id(p) not in self._counted]
        self._counted.update(map(id, fresh))
        return sum(parameter.numel() for parameter in fresh)

    def _shapes(self, output: Any) -> tuple[Size, ...]:
        return tuple(shape for tensor in _leaves(output) for shape in self._of(tensor))

    def _of(self, tensor: Tensor) -> Iterator[Size]:
        if tensor.is_nested:
            yield from (tuple(sample.shape) for sample in tensor.unbind())  # samples differ, and have no batch
        else:
            # The first length is printed as the batch, whatever it is: that is the documented format.
            yield (self._request.batch_size, *tensor.shape[1:]) if tensor.dim() else ()


def tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in an output of any make: in lists, mappings, fields of objects, nested tensors; in order."""
    for tensor in _leaves(output):
        yield from tensor.unbind() if tensor.is_nested else (tensor,)


def _leaves(output: Any, _seen: frozenset[int] = frozenset()) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
        return
    if id(output) in _seen:  # an object that holds itself
        return
    for item in _parts(output):
        yield from _leaves(item, _seen | {id(output)})


def _parts(output: Any) -> Iterator[Any]:
    if isinstance(output, (type, nn.Module)):
        return
    if isinstance(output, Mapping):
        yield from output.values()
    elif isinstance(output, (list, tuple, set, frozenset)):
        yield from output
    elif dataclasses.is_dataclass(output):
        yield from (getattr(output, field.name, None) for field in dataclasses.fields(output))
    else:
        yield from getattr(output, '__dict__', {}).values()


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Run on copies of the buffers, and put every attribute of every module back at the end.

    The copies, rather than values written back, keep a graph valid that waits for its backward pass.
    """
    kept = [put_back for module in model.modules() for put_back in _kept(module)]
    try:
        _copy_buffers(model)
        yield
    finally:
        for put_back in kept:
            put_back()


def _kept(module: nn.Module) -> Iterator[Callable[[], None]]:
    own = vars(module)
    for held in (own, *own.values()):
        # Parameters, buffers, children and hooks are in dictionaries; what else a module notes, in lists and sets.
        if type(held) in (dict, OrderedDict, list, set):
            yield partial(_put_back, held, copy.copy(held))


def _put_back(held: Any, content: Any) -> None:
    held.clear()
    if isinstance(held, list):
        held.extend(content)
    else:
        held.update(content)


def _copy_buffers(model: nn.Module) -> None:
    copies = {id(buffer): buffer.detach().clone() for buffer in model.buffers()}
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = copies[id(buffer)]


@contextmanager
def silent() -> Iterator[None]:
    """Keep back the traceback that torch logs beside an error on stand-ins."""
    logger = logging.getLogger('torch._subclasses.fake_tensor')
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def random_state_kept() -> Iterator[None]:
    numpy = sys.modules.get('numpy')
    states = random.getstate(), numpy and numpy.random.get_state()
    # A device that has not been used yet has no state to lose, and asking would start it.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices, device_type='cuda'):
            yield
    finally:
        random.setstate(states[0])
        if numpy:
            numpy.random.set_state(states[1])
