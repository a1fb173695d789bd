"""What training a network keeps in memory, in bytes, known before the run."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn, optim

from mdnc._purity import tensors
from mdnc._torch import DataDependentOutputException
from mdnc.analysis.parts import ITSELF, PartWatch
from mdnc.analysis.standin import StandIn, stand_in, trial, undisturbed
from mdnc.analysis.table import bytes_text, table
from mdnc.contribs.torchsummary.request import refuse_unreadable
from mdnc.modules import _checks

Optimizer = Callable[[list[Tensor]], optim.Optimizer]

OPTIMIZERS: dict[str, Optimizer] = {
    'adamw': optim.AdamW,
    'adam': optim.Adam,
    'sgd': optim.SGD,
    'momentum': partial(optim.SGD, momentum=0.9),
    'rmsprop': optim.RMSprop,
}


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes that a training step keeps, of a network or of one of its parts.

    Args:
        name: Class of the network, or path of the part in it.
        parameters: Bytes of the parameters.
        gradients: Bytes of the gradients of those parameters that require one.
        optimizer: Bytes of the optimizer's state.
        saved: Bytes kept for backward: storages, each once, without the parameters and the network's input.
        stages: The same for each part, in the order of the network; empty for a part.
    """

    name: str
    parameters: int
    gradients: int
    optimizer: int
    saved: int
    stages: tuple['MemoryForecast', ...] = ()

    @property
    def total(self) -> int:
        """The sum of the four. A device needs more while it computes: gradients of maps, workspaces, fragments."""
        return self.parameters + self.gradients + self.optimizer + self.saved

    def __str__(self) -> str:
        """The forecast as a table, a row for each part."""
        rows = [(row.name, *map(bytes_text, row._figures())) for row in (*self.stages, self)]
        return table(('part', 'parameters', 'gradients', 'optimizer', 'saved', 'total'), rows, foot=1)

    def to_dict(self) -> dict[str, Any]:
        """The forecast as plain values, ready for JSON."""
        names = ('parameters', 'gradients', 'optimizer', 'saved', 'total')
        own = {'name': self.name} | dict(zip(names, self._figures(), strict=True))
        return own | ({'stages': [stage.to_dict() for stage in self.stages]} if self.stages else {})

    def _figures(self) -> tuple[int, ...]:
        return self.parameters, self.gradients, self.optimizer, self.saved, self.total


def saved_by_part(watch: PartWatch, run: Callable[[], object], own: Iterable[Tensor]) -> dict[str, int]:
    """Run a network forward and count the bytes that autograd keeps for backward, by the part that keeps them first.

    Args:
        watch: Watches over the network.
        run: Runs it, on real tensors or on stand-ins.
        own: Tensors whose storages are left out.
    """
    # Storages are held on to until the end, so that none is freed and its address given to another.
    seen = {storage._cdata: (ITSELF, storage) for storage in (tensor.untyped_storage() for tensor in own)}
    left_out = set(seen)

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen.setdefault(storage._cdata, (watch.current, storage))
        return tensor.detach()  # the tensor itself would close a circle through its graph

    with watch.watching(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    counts: dict[str, int] = defaultdict(int)
    for address in seen.keys() - left_out:
        part, storage = seen[address]
        counts[part] += storage.nbytes()
    return counts


def saved_bytes(net: nn.Module, *inputs: Tensor) -> int:
    """Run a network forward on real tensors and count the bytes that it keeps for backward.

    The network, its statistics and the random state stay as they are.

    Args:
        net: Any module. It runs in the mode it is in.
        inputs: Its positional inputs.

    Returns:
        Bytes of the storages that autograd keeps, each once, without those of the parameters and the inputs.

    Raises:
        TypeError: ``net`` is no module, takes another number of inputs, or an input is sparse or quantized.

    Example:
        >>> import torch
        >>> saved_bytes(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Sigmoid()), torch.zeros(5, 3))
        40
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f'saved_bytes: net must be a torch.nn.Module, not {type(net).__name__}.')
    refuse_unreadable('saved_bytes', 'net', net)
    _checks.inputs('saved_bytes', net, len(inputs))
    given = tuple(tensors(inputs))
    for x in given:
        _checks.dense('saved_bytes', 'an input', x)
    with undisturbed(net):
        return sum(saved_by_part(PartWatch(net), lambda: net(*inputs), (*net.parameters(), *given)).values())


def memory_forecast(
    net: nn.Module,
    input_size: Any,
    batch_size: int = 1,
    dtype: torch.dtype | None = None,
    optimizer: str | Optimizer | None = 'adamw',
) -> MemoryForecast:
    """Forecast what training a network keeps in memory, by running it on stand-ins: nothing is computed or allocated.

    The network stays as it is, and may be on any device, ``'meta'`` too. It runs in the mode and at the memory
    level it has; under ``torch.autocast`` the forecast is that of autocast.

    Args:
        net: Any module of one input.
        input_size: Shape of the input without the batch, ``(C, L1, …)`` or a decoder's ``input_size``. For mdnc's
            networks and blocks the channels may be left out, and one int stands for equal sides.
        batch_size: Size of the batch, at least 1.
        dtype: Type of parameters and input, ``torch.float16``, ``bfloat16``, ``float32`` or ``float64``; ``None`` for
            the parameters' own.
        optimizer: ``'adamw'``, ``'adam'``, ``'sgd'``, ``'momentum'`` (SGD with it), ``'rmsprop'``, or what makes an
            optimizer of a list of parameters; ``None`` for none.

    Returns:
        The forecast, in bytes, for the whole and for each part.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has a value that is not legal, or the network refuses inputs of this size.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.UNet3d(16, [1, 1, 1])
        >>> forecast = memory_forecast(net, (1, 256, 256, 256), batch_size=2)
        >>> forecast.total == forecast.parameters + forecast.gradients + forecast.optimizer + forecast.saved
        True
    """
    run, make = trial('memory_forecast', net, input_size, batch_size, dtype), _optimizer(optimizer)
    watch = PartWatch(net)
    with stand_in(run) as stand:
        saved = saved_by_part(watch, stand.run, (*stand.parameters.values(), stand.x))
        states = _optimizer_states(stand, make)
    stages = _stages(watch, stand.parameters, saved, states)
    return MemoryForecast(
        name=type(net).__name__,
        parameters=sum(stage.parameters for stage in stages),
        gradients=sum(stage.gradients for stage in stages),
        optimizer=sum(stage.optimizer for stage in stages),
        saved=sum(stage.saved for stage in stages),
        stages=stages,
    )


def _optimizer(optimizer: object) -> Optimizer | None:
    if optimizer is None or callable(optimizer):
        return optimizer
    if isinstance(optimizer, str) and optimizer in OPTIMIZERS:
        return OPTIMIZERS[optimizer]
    words = ', '.join(map(repr, OPTIMIZERS))
    error = ValueError if isinstance(optimizer, str) else TypeError
    raise error(
        f'memory_forecast: optimizer={optimizer!r:.80} must be one of {words}, '
        'or what makes an optimizer of a list of parameters, or None.'
    )


def _optimizer_states(stand: StandIn, make: Optimizer | None) -> dict[str, int]:
    """Bytes of an optimizer's state for each parameter that is trained, found by a step of it."""
    trained = {name: parameter for name, parameter in stand.parameters.items() if parameter.requires_grad}
    if make is None or not trained:
        return {}
    # One for each shape, and on the CPU: states are as large for all others, and no device's own code is needed.
    kinds = {
        (parameter.shape, parameter.dtype): torch.empty_like(parameter, device='cpu', requires_grad=True)
        for parameter in trained.values()
    }
    for kind in kinds.values():
        kind.grad = torch.empty_like(kind)
    try:
        made = make(list(kinds.values()))
    except TypeError as error:
        raise TypeError(
            f'memory_forecast: optimizer={make!r:.80} makes none of a list of parameters: {error}'
        ) from error
    if not isinstance(made, optim.Optimizer):
        raise TypeError(f'memory_forecast: optimizer={make!r:.80} makes a {type(made).__name__}, no optimizer.')
    try:
        made.step()
    except DataDependentOutputException as error:
        raise ValueError(
            f'memory_forecast: {type(made).__name__} computes with values of the parameters, which a forecast does '
            'not have. Give optimizer=None and add its state yourself.'
        ) from error
    return {
        name: sum(map(_bytes, _tensors(made.state[kinds[parameter.shape, parameter.dtype]])))
        for name, parameter in trained.items()
    }


def _tensors(state: dict[str, Any]) -> list[Tensor]:
    return [value for value in state.values() if isinstance(value, Tensor)]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _stages(
    watch: PartWatch, parameters: dict[str, Tensor], saved: dict[str, int], states: dict[str, int]
) -> tuple[MemoryForecast, ...]:
    held: dict[str, list[str]] = defaultdict(list)
    for name in parameters:
        held[watch.part_of(name)].append(name)
    return tuple(
        MemoryForecast(
            name=part,
            parameters=sum(_bytes(parameters[name]) for name in held[part]),
            gradients=sum(_bytes(parameters[name]) for name in held[part] if parameters[name].requires_grad),
            optimizer=sum(states.get(name, 0) for name in held[part]),
            saved=saved.get(part, 0),
        )
        for part in watch.order
        if part != ITSELF or held[ITSELF] or saved.get(ITSELF)
    )
