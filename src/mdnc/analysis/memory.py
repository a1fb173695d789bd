"""Memory of a training step, kept and at its peak, in bytes, estimated without running it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn, optim

from mdnc._side_effects import tensors
from mdnc._torch import DataDependentOutputException
from mdnc.analysis.fake_run import StandIn, Trial, stand_in, trial, undisturbed
from mdnc.analysis.parts import ITSELF, BothWaysWatch, PartWatch
from mdnc.analysis.peak import AllocationTracker
from mdnc.analysis.table import bytes_text, table
from mdnc.contribs.torchsummary.request import refuse_unreadable
from mdnc.modules import _checks

Optimizer = Callable[[list[Tensor]], optim.Optimizer]
Loss = Callable[[Any], Tensor]

OPTIMIZERS: dict[str, Optimizer] = {
    'adamw': optim.AdamW,
    'adam': optim.Adam,
    'sgd': optim.SGD,
    'momentum': partial(optim.SGD, momentum=0.9),
    'rmsprop': optim.RMSprop,
}


@dataclass(frozen=True)
class MemoryForecast:
    """Memory of a training step in bytes, for a network or one of its parts: what it keeps, and its peak.

    Args:
        name: Class of the network, or path of the part in it.
        parameters: Bytes of the parameters.
        gradients: Bytes of the gradients of those parameters that require one.
        optimizer: Bytes of the optimizer's state.
        saved: Bytes kept for backward: storages, each once, without the parameters and the network's input.
        peak: The largest number of bytes allocated at a time (for a part, while it runs, forward or backward) by the
            whole network: buffers, input, maps and their gradients, and workspaces of operators.
        stages: The same for each part, in the order of the network; empty for a part.
        unmeasured: Operators that ran whose workspaces are not known, and not in ``peak``; empty for a part.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.UNet2d(8, [1, 1, 1])
        >>> print(mdnc.analysis.memory_forecast(net, 64))  # doctest: +ELLIPSIS
        part...peak
        ...
    """

    name: str
    parameters: int
    gradients: int
    optimizer: int
    saved: int
    peak: int
    stages: tuple['MemoryForecast', ...] = ()
    unmeasured: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """The sum of parameters, gradients, optimizer and saved: allocated when backward begins."""
        return self.parameters + self.gradients + self.optimizer + self.saved

    def __str__(self) -> str:
        """The estimate as a table with a row for each part."""
        rows = [(row.name, *map(bytes_text, row._figures())) for row in (*self.stages, self)]
        return f'{table(("part", *_FIGURES), rows, foot=1)}\n{left_out(self.unmeasured)}'.rstrip()

    def to_dict(self) -> dict[str, Any]:
        """The estimate as plain data for JSON."""
        own = {'name': self.name} | dict(zip(_FIGURES, self._figures(), strict=True))
        if not self.stages:
            return own
        return own | {'unmeasured': list(self.unmeasured), 'stages': [stage.to_dict() for stage in self.stages]}

    def _figures(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in _FIGURES)


_FIGURES = ('parameters', 'gradients', 'optimizer', 'saved', 'total', 'peak')


def left_out(unmeasured: Sequence[str]) -> str:
    """A sentence that names the operators whose workspaces a peak leaves out; empty if there are none."""
    return f'The peak leaves out workspaces that were not measured: {", ".join(unmeasured)}.' if unmeasured else ''


def saved_by_part(watch: PartWatch, run: Callable[[], object], own: Iterable[Tensor]) -> dict[str, int]:
    """Run a network forward and count the bytes that autograd keeps for backward, by the part that keeps them first.

    Args:
        watch: Provides the part that is running.
        run: Function that runs it, on real or fake tensors.
        own: Tensors that are not counted.
    """
    counts: dict[str, int] = defaultdict(int)
    # Not by their addresses, which are reused after a tensor is freed.
    seen = WeakSet(tensor.untyped_storage() for tensor in own)

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in seen:
            seen.add(storage)
            counts[watch.current] += storage.nbytes()
        return tensor.detach()  # the tensor itself would create a reference cycle through its graph

    with watch.watching(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return counts


def saved_bytes(net: nn.Module, *inputs: Tensor) -> int:
    """Run a network forward on real tensors and count the bytes that it keeps for backward.

    The network, its statistics and the random state do not change.

    Args:
        net: Any module. It runs in the mode it is in.
        inputs: Its positional inputs.

    Returns:
        Bytes of the storages that autograd keeps, each once, without those of the parameters and the inputs.

    Raises:
        TypeError: ``net`` is not a module, takes another number of inputs, or an input is sparse or quantized.

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
    *,
    training: bool = True,
    loss: Loss | None = None,
    accumulate: int = 1,
    devices: int = 1,
) -> MemoryForecast:
    """Estimate the memory that a network keeps in training, and its peak, by running it on fake tensors.

    Nothing is computed or allocated, and the network does not change. It may be on any device, also on ``'meta'``,
    which counts as the CPU. Its mode and memory level are used, and so is ``torch.autocast`` if it is active.

    Args:
        net: Any module with one input.
        input_size: Shape of the input without the batch, ``(C, L1, …)`` or a decoder's ``input_size``. For mdnc's
            networks and blocks the channels may be omitted, and one int means equal sides.
        batch_size: Size of the batch, at least 1.
        dtype: Type of parameters and input, ``torch.float16``, ``bfloat16``, ``float32`` or ``float64``; ``None`` for
            the parameters' own.
        optimizer: ``'adamw'``, ``'adam'``, ``'sgd'``, ``'momentum'`` (SGD with momentum), ``'rmsprop'``, or a function
            that makes an optimizer from a list of parameters; ``None`` for none.
        training: Whether to estimate a training step (forward, loss, backward, optimizer), or a prediction: forward
            only, in eval mode and without gradients.
        loss: Function from the output of the network to a scalar; it also runs on fake tensors, and targets that it
            creates are counted. ``None`` for the mean of squares.
        accumulate: Number of batches per optimizer step; from 2 on, gradients of the batches before are kept.
        devices: Number of processes of data-parallel training; from 2 on, gradients are also in the buckets of
            ``DistributedDataParallel``.

    Returns:
        The estimate in bytes, for the network and for each part.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has an illegal value, or the network refuses inputs of this size.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.UNet3d(16, [1, 1, 1])
        >>> forecast = memory_forecast(net, (1, 256, 256, 256), batch_size=2)
        >>> forecast.total == forecast.parameters + forecast.gradients + forecast.optimizer + forecast.saved
        True
        >>> forecast.saved < forecast.peak < 2 * forecast.saved
        True
    """
    run, make = trial('memory_forecast', net, input_size, batch_size, dtype), _optimizer(optimizer)
    if not _checks.flag('memory_forecast', 'training', training):
        return _of_prediction(run)
    if loss is not None and not callable(loss):
        raise TypeError(f'memory_forecast: loss={loss!r:.80} must be a function from the output to a scalar, or None.')
    earlier = _checks.integer('memory_forecast', 'accumulate', accumulate) > 1
    copies = _checks.integer('memory_forecast', 'devices', devices) > 1
    watch = BothWaysWatch(net)
    with stand_in(run) as stand:
        trained = [each for each in stand.parameters.values() if each.requires_grad]
        gradients = sum(map(_bytes, trained))
        states, moment, unmeasured = _optimizer_states(stand, make)
        there = sum(states.values()) + (gradients if copies else 0)
        ledger = AllocationTracker(watch, (*stand.parameters.values(), *stand.buffers.values(), stand.x), there)
        if earlier:
            with ledger:
                for each in trained:
                    each.grad = torch.empty_like(each)
        saved = _step(stand, ledger, watch, _mean_of_squares if loss is None else loss)
        stages = _stages(watch, stand.parameters, saved, states, ledger.most)
        peak = max(ledger.peak, ledger.held + moment)
    return _whole(net, stages, peak, ledger.unmeasured | unmeasured)


def _step(stand: StandIn, ledger: AllocationTracker, watch: BothWaysWatch, loss: Loss) -> dict[str, int]:
    """Forward, loss and backward; returns the saved bytes by part."""
    outputs: list[Any] = []
    with ledger:
        saved = saved_by_part(watch, lambda: outputs.append(stand.run()), (*stand.parameters.values(), stand.x))
        watch.mark(outputs)
        found = loss(outputs.pop())
        if not isinstance(found, Tensor) or found.numel() != 1:
            what = f'a tensor of shape {tuple(found.shape)}' if isinstance(found, Tensor) else type(found).__name__
            raise TypeError(f'memory_forecast: loss returns {what}, but a scalar is needed.')
        torch.clear_autocast_cache()  # as the end of autocast does, before backward begins
        if found.requires_grad:
            with torch.autocast(found.device.type, enabled=False):
                torch.autograd.backward(found)
    return saved


def _mean_of_squares(outputs: Any) -> Tensor:
    found = [each.float().square().mean() for each in tensors(outputs) if each.is_floating_point()]
    return torch.stack(found).sum() if len(found) > 1 else found[0] if found else torch.zeros(())


def _of_prediction(run: Trial) -> MemoryForecast:
    watch = PartWatch(run.net)
    with stand_in(run) as stand:
        run.net.eval()
        ledger = AllocationTracker(watch, (*stand.parameters.values(), *stand.buffers.values(), stand.x))
        with torch.no_grad(), watch.watching(), ledger:
            stand.run()
        stages = _stages(watch, stand.parameters, {}, {}, ledger.most, training=False)
    return _whole(run.net, stages, ledger.peak, ledger.unmeasured)


def _whole(net: nn.Module, stages: tuple[MemoryForecast, ...], peak: int, unmeasured: Iterable[str]) -> MemoryForecast:
    return MemoryForecast(
        name=type(net).__name__,
        parameters=sum(stage.parameters for stage in stages),
        gradients=sum(stage.gradients for stage in stages),
        optimizer=sum(stage.optimizer for stage in stages),
        saved=sum(stage.saved for stage in stages),
        peak=peak,
        stages=stages,
        unmeasured=tuple(sorted(unmeasured)),
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
        'or a function that makes an optimizer from a list of parameters, or None.'
    )


def _optimizer_states(stand: StandIn, make: Optimizer | None) -> tuple[dict[str, int], int, set[str]]:
    """Bytes of the optimizer's state by parameter, of its temporary memory in a step, and operators not measured."""
    trained = {name: parameter for name, parameter in stand.parameters.items() if parameter.requires_grad}
    if make is None or not trained:
        return {}, 0, set()
    # One for each shape, and on the CPU: states have the same size for others and elsewhere.
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
            f'memory_forecast: optimizer={make!r:.80} makes no optimizer from a list of parameters: {error}'
        ) from error
    if not isinstance(made, optim.Optimizer):
        raise TypeError(f'memory_forecast: optimizer={make!r:.80} makes a {type(made).__name__}, not an optimizer.')
    try:
        made.step()  # creates the states
        there = [each for state in made.state.values() for each in _tensors(state)]
        gradients = (kind.grad for kind in kinds.values() if kind.grad is not None)
        ledger = AllocationTracker(PartWatch(nn.Identity()), (*kinds.values(), *gradients, *there))
        held = ledger.held
        with ledger:
            made.step()
    except DataDependentOutputException as error:
        raise ValueError(
            f'memory_forecast: {type(made).__name__} computes with values of the parameters, which fake tensors do '
            'not have. Use optimizer=None and add its state yourself.'
        ) from error
    states = {
        name: sum(map(_bytes, _tensors(made.state[kinds[parameter.shape, parameter.dtype]])))
        for name, parameter in trained.items()
    }
    # On a CPU parameters are updated one by one; elsewhere all at once, with a temporary copy.
    moment = ledger.peak - held
    together = moment and next(iter(trained.values())).device.type != 'cpu'
    return states, sum(map(_bytes, trained.values())) if together else moment, ledger.unmeasured


def _tensors(state: dict[str, Any]) -> list[Tensor]:
    return [value for value in state.values() if isinstance(value, Tensor)]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _stages(
    watch: PartWatch,
    parameters: dict[str, Tensor],
    saved: dict[str, int],
    states: dict[str, int],
    most: dict[str, int],
    *,
    training: bool = True,
) -> tuple[MemoryForecast, ...]:
    held: dict[str, list[str]] = defaultdict(list)
    for name in parameters:
        held[watch.part_of(name)].append(name)
    return tuple(
        MemoryForecast(
            name=part,
            parameters=sum(_bytes(parameters[name]) for name in held[part]),
            gradients=sum(_bytes(parameters[name]) for name in held[part] if parameters[name].requires_grad) * training,
            optimizer=sum(states.get(name, 0) for name in held[part]),
            saved=saved.get(part, 0),
            peak=most.get(part, 0),
        )
        for part in watch.order
        if part != ITSELF or held[ITSELF] or saved.get(ITSELF)
    )
