"""Runs of a network on fake tensors: shapes, dtypes and storages are tracked, nothing is computed."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mdnc._side_effects import random_state_kept, silent, unchanged
from mdnc._torch import MOMENTS, FakeTensorMode, TorchDispatchMode, find
from mdnc.contribs.torchsummary.request import refuse_unreadable
from mdnc.modules import Block, Network, _checks

# g, x, … → gradients of x, weight, bias
_GROUP_NORM_BACKWARD = find('torch.ops.aten.native_group_norm_backward.default')


@dataclass(frozen=True)
class Trial:
    """A network and an input for it.

    Args:
        net: The network.
        shape: Shape of the input, the batch included.
        dtype: Floating-point type of parameters and input; ``None`` for the parameters' own.
    """

    net: nn.Module
    shape: tuple[int, ...]
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class StandIn:
    """A network that runs with fake tensors.

    Args:
        net: The network itself.
        parameters: A fake tensor for each parameter, by name.
        buffers: A fake tensor for each buffer, by name.
        x: A fake tensor for the input.
    """

    net: nn.Module
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    x: Tensor

    def run(self) -> Any:
        """Run the network forward."""
        return functional_call(self.net, (self.parameters, self.buffers), (self.x,))


def trial(owner: str, net: object, input_size: object, batch_size: object = 1, dtype: object = None) -> Trial:
    """Check the common arguments of the estimates.

    Args:
        owner: Name of the public function.
        net: The network; any ``torch.nn.Module`` with one input.
        input_size: Shape of the input without the batch, ``(C, L1, …)`` or a decoder's ``input_size``. For mdnc's
            networks and blocks the channels may be omitted, and one int means equal sides.
        batch_size: Size of the batch, at least 1.
        dtype: ``torch.float16``, ``bfloat16``, ``float32`` or ``float64``, or ``None``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has an illegal value, or the network refuses inputs of this size.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f'{owner}: net must be a torch.nn.Module, not {type(net).__name__}.')
    refuse_unreadable(owner, 'net', net)
    _checks.inputs(owner, net, 1)
    kind = None if dtype is None else _checks.dtype(owner, dtype)
    batch = _checks.integer(owner, 'batch_size', batch_size)
    shape = (batch, *_input_shape(owner, net, input_size))
    _checks.countable(owner, shape)
    return Trial(net, shape, kind)


@contextmanager
def stand_in(trial: Trial) -> Iterator[StandIn]:
    """Replace the tensors of a network by fake ones; the network and the random state do not change."""
    with silent(), undisturbed(trial.net), FakeTensorMode(allow_non_fake_inputs=True) as mode, _Moments():  # type: ignore[no-untyped-call]
        parameters, buffers = (
            {name: _like(mode, tensor, trial.dtype) for name, tensor in named}
            for named in (trial.net.named_parameters(), trial.net.named_buffers())
        )
        first = next((p for p in parameters.values() if p.is_floating_point()), torch.empty(0, dtype=trial.dtype))
        x = torch.empty(trial.shape, dtype=first.dtype, device=first.device)
        yield StandIn(trial.net, parameters, buffers, x)


@contextmanager
def undisturbed(net: nn.Module) -> Iterator[None]:
    """Run a network with gradients; it and the random state do not change."""
    with ExitStack() as stack:
        stack.enter_context(random_state_kept())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if 'torch._dynamo' in sys.modules:  # a compiled network: its graph would hide the parts
            stack.enter_context(torch.compiler.set_stance('force_eager'))
        stack.enter_context(unchanged(net))
        stack.enter_context(_gradients_kept(net))
        yield


@contextmanager
def _gradients_kept(net: nn.Module) -> Iterator[None]:
    kept = [(parameter, parameter.grad) for parameter in net.parameters()]
    try:
        for parameter, _ in kept:
            parameter.grad = None  # else a backward pass inside would add to existing gradients
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


class _Moments(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives results and moments of norms the dtypes of the CPU's kernels, which fake tensors get wrong."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if func is _GROUP_NORM_BACKWARD and outputs[0] is not None:
            return outputs[0].to(args[1].dtype), *outputs[1:]
        if func not in MOMENTS or args[1] is None:
            return outputs
        normed, *moments = outputs
        return normed.to(args[0].dtype), *(each.to(args[1].dtype) for each in moments)


def _like(mode: FakeTensorMode, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    floating = dtype if tensor.is_floating_point() else None
    if floating in (None, tensor.dtype) and not tensor.is_meta:
        return mode.from_tensor(tensor)
    # A network on 'meta' will run elsewhere; the estimate is for the CPU.
    device = 'cpu' if tensor.is_meta else tensor.device
    like = torch.empty_like(mode.from_tensor(tensor.detach()), dtype=floating, device=device)
    return nn.Parameter(like, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else like


def _input_shape(owner: str, net: nn.Module, input_size: Any) -> tuple[int, ...]:
    if not isinstance(net, (Network, Block)):
        return _checks.integers(owner, 'input_size', input_size)
    if isinstance(net, Network) and net.plan.in_size is not None:
        return _only_shape(owner, net, input_size)
    order, planes = (net.plan if isinstance(net, Network) else net).order, net.plan.in_planes
    if len(_sequence(input_size)) != order + 1:
        size = _checks.per_axis(owner, 'input_size', input_size, order)
    else:
        channels, *lengths = _checks.integers(owner, 'input_size', input_size)
        if channels != planes:
            raise ValueError(
                f'{owner}: input_size={(channels, *lengths)} has {channels} channels, '
                f'but {type(net).__name__} takes {planes}.'
            )
        size = tuple(lengths)
    net.output_size(size)  # refuses sizes that the network cannot take
    return (planes, *size)


def _only_shape(owner: str, net: Network, input_size: object) -> tuple[int, ...]:
    whole = net.input_size
    given = _checks.integers(owner, 'input_size', _sequence(input_size))
    if given not in (whole, net.min_size):
        raise ValueError(
            f'{owner}: input_size={input_size!r} must be {whole}, the only one that this {type(net).__name__} takes.'
        )
    return whole


def _sequence(value: Any) -> Any:
    return value if hasattr(value, '__len__') else (value,)
