"""One run of a model and the facts of each call in it. The run leaves the model and everything else as they were."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdnc._side_effects import leaves, random_state_kept, silent, unchanged
from mdnc._torch import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
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
        return tuple(shape for tensor in leaves(output) for shape in self._of(tensor))

    def _of(self, tensor: Tensor) -> Iterator[Size]:
        if tensor.is_nested:
            yield from (tuple(sample.shape) for sample in tensor.unbind())  # samples differ, and have no batch
        else:
            # The first length is printed as the batch, whatever it is: that is the documented format.
            yield (self._request.batch_size, *tensor.shape[1:]) if tensor.dim() else ()
