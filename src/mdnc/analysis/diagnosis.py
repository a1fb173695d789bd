"""Possible problems of a network on a batch, in plain sentences."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from mdnc import ops
from mdnc._side_effects import tensors
from mdnc.analysis.fake_run import undisturbed
from mdnc.analysis.parts import PartWatch
from mdnc.analysis.table import table
from mdnc.contribs.torchsummary.request import refuse_unreadable
from mdnc.modules import _checks

Loss = Callable[[Any], Tensor]
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of findings.

    Args:
        few_values: Norms with fewer values than this in their statistics.
        padding: Convolutions with more than this fraction of padding under their kernels.
        constant: Channels with a standard deviation below this, relative to the root mean square of the map.
        gradient: Parts with a gradient, relative to the weights, this many times below or above that of the middle
            part.
        amplitude: Outputs with a smaller relative change than this when the input is doubled.

    Raises:
        TypeError: A threshold is not a number.
        ValueError: A threshold is below 0 (``gradient``: below 1) or not finite.

    Example:
        >>> import torch
        >>> from mdnc.analysis import Thresholds, diagnose
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 9, padding=4), torch.nn.Conv1d(4, 1, 3))
        >>> for share in (0.5, 0.1):
        ...     print(len(diagnose(net, torch.rand(2, 1, 16), thresholds=Thresholds(padding=share)).findings))
        0
        1
    """

    few_values: int = 16
    padding: float = 0.5
    constant: float = 1e-5
    gradient: float = 1e3
    amplitude: float = 0.01

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _checks.number('Thresholds', name, value, least=1 if name == 'gradient' else 0)


@dataclass(frozen=True)
class Finding:
    """A possible problem.

    Args:
        kind: Name of the threshold, or ``'finite'``.
        part: Path of the part; empty for the whole network.
        text: A sentence.
    """

    kind: str
    part: str
    text: str


@dataclass
class PartState:
    """Measurements in a part of a network.

    Args:
        name: Its path.
        values: Smallest number of values in the statistics of its norms; ``None`` without a norm.
        padding: Largest fraction of padding under the kernel of one of its convolutions.
        constant: Largest fraction of constant channels in the output of one of its layers.
        layer: Path of that layer.
        gradient: Root mean square of the gradients, relative to that of the weights; ``None`` without trainable
            weights.
        output: Root mean square of the output of its last layer; ``None`` if no layer was called.
    """

    name: str
    values: int | None = None
    padding: float = 0.0
    constant: float = 0.0
    layer: str = ''
    gradient: float | None = None
    output: float | None = None


@dataclass(frozen=True)
class Diagnosis:
    """Measurements on a batch, and possible problems.

    Args:
        name: Class of the network.
        parts: Measurements in each part.
        amplitude: Relative change of the output when the input is doubled.
        findings: Possible problems, in the order of the network.

    Example:
        >>> import torch
        >>> from mdnc.analysis import diagnose
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv1d(4, 1, 3))
        >>> diagnosis = diagnose(net, torch.rand(2, 1, 16))
        >>> diagnosis.name, [part.name for part in diagnosis.parts]
        ('Sequential', ['0', '1', '2'])
    """

    name: str
    parts: tuple[PartState, ...]
    amplitude: float
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        """The table and the findings."""
        rows = [
            (
                part.name,
                '' if part.values is None else f'{part.values}',
                f'{part.padding:.0%}',
                f'{part.constant:.0%}',
                '' if part.output is None else f'{part.output:.3g}',
                '' if part.gradient is None else f'{part.gradient:.2g}',
            )
            for part in self.parts
        ]
        seen = table(('part', 'values a norm', 'padding', 'constant', 'rms of output', 'gradient / weight'), rows)
        change = f'Doubling the input changes the output by {self.amplitude:.2%}.'
        sentences = [finding.text for finding in self.findings] or ['No problems were found.']
        return '\n'.join([seen, '', change, *sentences])

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data for JSON, with ``None`` for numbers that are not finite."""
        return dict(_jsonable(asdict(self)))


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass
class _Observer:
    """Measures the layers of a network while it runs."""

    net: nn.Module
    thresholds: Thresholds
    states: dict[str, PartState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watch = PartWatch(self.net)

    @contextmanager
    def looking(self) -> Iterator[None]:
        handles = []
        try:
            for path, module in self.net.named_modules():
                if not any(True for _ in module.children()):
                    handles.append(module.register_forward_hook(partial(self._look, path)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def state(self, path: str) -> PartState:
        name = self.watch.part_of(path)
        return self.states.setdefault(name, PartState(name))

    @torch.no_grad()
    def _look(self, path: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not (isinstance(output, Tensor) and inputs and isinstance(inputs[0], Tensor)):
            return
        state, x = self.state(path), inputs[0]
        values = _norm_values(module, x)
        if values is not None:
            state.values = min(values, state.values or values)
        state.padding = max(state.padding, _padding_share(module, x))
        constant = _constant_share(output, self.thresholds.constant)
        if constant > state.constant:
            state.constant, state.layer = constant, path
        state.output = output.double().square().mean().sqrt().item()


def _norm_values(module: nn.Module, x: Tensor) -> int | None:
    """Number of values in the statistics of a norm; None for other layers, or with running statistics."""
    plane = math.prod(x.shape[2:])
    if isinstance(module, INSTANCE_NORMS):
        return plane
    if isinstance(module, BATCH_NORMS):
        return x.shape[0] * plane if module.training else None
    if isinstance(module, nn.GroupNorm):
        return module.num_channels // module.num_groups * plane
    return math.prod(module.normalized_shape) if isinstance(module, nn.LayerNorm) else None


def _padding_share(module: nn.Module, x: Tensor) -> float:
    """Fraction of padding under the kernel, over all positions."""
    if not isinstance(module, CONVS) or module.padding_mode != 'zeros' or isinstance(module.padding, str):
        return 0.0
    full = tuple(kernel - 1 for kernel in module.kernel_size)
    if math.prod(x.shape[2:]) == 1 and module.padding == full:
        return 0.0  # a vector expanded to a map: each value under the kernel is used
    inside = 1.0
    axes = zip(x.shape[2:], module.kernel_size, module.stride, module.padding, module.dilation, strict=True)
    for length, kernel, stride, padding, dilation in axes:
        places = torch.arange(-padding, length + padding - dilation * (kernel - 1), stride)
        under = places[:, None] + dilation * torch.arange(kernel)
        inside *= ((under >= 0) & (under < length)).double().mean().item()
    return 1 - inside


def _constant_share(output: Tensor, threshold: float) -> float:
    """Fraction of the channels of ``(B, C, …)`` that are nearly constant over batch and positions."""
    if output.dim() < 2 or output.numel() < 2 * output.shape[1]:
        return 0.0
    channels = output.detach().double().transpose(0, 1).flatten(1)
    still = channels.std(1) <= threshold * channels.square().mean().sqrt()
    return still.double().mean().item()


def _mean_square(output: Any) -> Tensor:
    return torch.stack([each.double().square().mean() for each in tensors(output) if each.numel()]).sum()


def _loss(net: nn.Module, loss: Loss | None, output: Any) -> Tensor:
    given = list(tensors(output))
    if not any(each.numel() for each in given):
        raise ValueError(
            f'diagnose: {type(net).__name__} returns no values on this batch, so there is nothing to check.'
        )
    if loss is None:
        return _mean_square(output)
    found = loss(output)
    if not isinstance(found, Tensor) or found.numel() != 1:
        kind = f'a tensor of shape {tuple(found.shape)}' if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(f'diagnose: loss must return a tensor with one value, not {kind}.')
    if any(each.requires_grad for each in given) and not found.requires_grad:
        raise ValueError('diagnose: loss returns a value without a gradient: it must be computed from the output.')
    return found.reshape(())


def _add_gradients(observer: _Observer, loss: Tensor) -> None:
    """Set for each part the size of the gradients of its weights, relative to the weights."""
    trained = [(name, p) for name, p in observer.net.named_parameters() if p.requires_grad and loss.requires_grad]
    if not trained:
        return
    gradients = torch.autograd.grad(loss, [p for _, p in trained], allow_unused=True)
    sums: dict[str, list[float]] = {}
    for (name, parameter), gradient in zip(trained, gradients, strict=True):
        both = sums.setdefault(observer.state(name).name, [0.0, 0.0])
        both[0] += 0.0 if gradient is None else gradient.double().square().sum().item()
        both[1] += parameter.detach().double().square().sum().item()
    for part, (slopes, weights) in sums.items():
        observer.states[part].gradient = math.sqrt(slopes / weights) if weights else math.sqrt(slopes)


def _change(once: Any, twice: Any) -> float:
    """Difference of two outputs, relative to the first."""
    one, two = list(tensors(once)), list(tensors(twice))
    if [each.shape for each in one] != [each.shape for each in two]:
        return math.inf
    pairs = list(zip(one, two, strict=True))
    size = sum(a.double().square().sum().item() for a, _ in pairs)
    apart = sum((a.double() - b.double()).square().sum().item() for a, b in pairs)
    return math.sqrt(apart / size) if size else math.inf if apart else 0.0


def _findings(parts: tuple[PartState, ...], amplitude: float, limits: Thresholds) -> Iterator[Finding]:
    sizes = [part.gradient for part in parts if part.gradient]
    middle = median(sizes) if sizes else 0.0
    for part in parts:
        yield from _part_findings(part, limits)
        yield from _gradient_findings(part, middle, limits)
    if amplitude < limits.amplitude:
        yield Finding(
            'amplitude',
            '',
            f'The output does not depend on the amplitude of the input: doubling it changes the output by '
            f'{amplitude:.2%} (less than {limits.amplitude:.0%}).',
        )


def _part_findings(part: PartState, limits: Thresholds) -> Iterator[Finding]:
    if part.output is not None and not math.isfinite(part.output):
        yield Finding('finite', part.name, f'{part.name} gives values that are not finite.')
    if part.values is not None and part.values < limits.few_values:
        yield Finding(
            'few_values',
            part.name,
            f'{part.name} norms over {part.values} values (fewer than {limits.few_values}): their statistics are '
            'noise. Larger inputs or fewer stages help.',
        )
    if part.padding > limits.padding:
        yield Finding(
            'padding',
            part.name,
            f'{part.name} sees mostly padding: {part.padding:.0%} of the values under a kernel '
            f'(more than {limits.padding:.0%}). Larger inputs or fewer stages help.',
        )
    if part.constant > 0:
        yield Finding(
            'constant',
            part.name,
            f'{part.name} has channels that are constant on this batch: {part.constant:.0%} of those of {part.layer} '
            f'(deviation below {limits.constant:g} of the map).',
        )


def _gradient_findings(part: PartState, middle: float, limits: Thresholds) -> Iterator[Finding]:
    if part.gradient is None:
        return
    if part.gradient == 0:
        yield Finding('gradient', part.name, f'No gradient reaches {part.name}.')
    elif not math.isfinite(part.gradient):
        yield Finding('finite', part.name, f'{part.name} has gradients that are not finite.')
    elif middle and not middle / limits.gradient <= part.gradient <= middle * limits.gradient:
        ratio = part.gradient / middle
        yield Finding(
            'gradient',
            part.name,
            f'{part.name} has gradients {ratio:.1e} times as large, relative to its weights, as the part in the middle '
            f'(a factor of more than {limits.gradient:g}).',
        )


def _refuse(net: object, x: object, loss: object, thresholds: object) -> None:
    if not isinstance(net, nn.Module):
        raise TypeError(f'diagnose: net must be a torch.nn.Module, not {type(net).__name__}.')
    refuse_unreadable('diagnose', 'net', net)
    _checks.inputs('diagnose', net, 1)
    if not isinstance(x, Tensor):
        raise TypeError(f'diagnose: x must be a tensor of floating-point values, not {type(x).__name__}.')
    _checks.dense('diagnose', 'x', x)
    if not x.is_floating_point():
        raise TypeError(f'diagnose: x must be a tensor of floating-point values, not of {x.dtype}.')
    if not x.dim() or not x.numel() or x.is_meta:
        what = 'on the meta device' if x.is_meta else 'empty' if x.dim() else 'a single number'
        raise ValueError(f'diagnose: x has shape {tuple(x.shape)} and is {what}; a batch of values is needed.')
    if loss is not None and not callable(loss):
        raise TypeError(f'diagnose: loss={loss!r:.80} must be a function of the output, or None.')
    if not isinstance(thresholds, (Thresholds, type(None))):
        raise TypeError(f'diagnose: thresholds={thresholds!r:.80} must be mdnc.analysis.Thresholds, or None.')


def diagnose(net: nn.Module, x: Tensor, loss: Loss | None = None, thresholds: Thresholds | None = None) -> Diagnosis:
    """Run a network on a batch and report possible problems; the network is not changed and gets no gradients.

    It checks for norms over few values, convolutions over mostly padding, channels that are dead or constant,
    gradients much smaller or larger in one part than in the others, values that are not finite, and an output
    that does not depend on the amplitude of the input.

    Args:
        net: Any module with one input. It runs in the mode it is in, layer by layer: twice forward, once backward.
        x: A batch as in training.
        loss: Function from the output to a tensor with one value; ``None`` for the mean of squares.
        thresholds: Thresholds of findings; ``None`` for the defaults.

    Returns:
        Measurements in each part, and the findings.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The batch is empty or without values, the network returns none, or the loss has no gradient.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv1d(4, 1, 3))
        >>> _ = torch.nn.init.constant_(net[0].bias, -100)  # nothing passes the ReLU
        >>> for finding in diagnose(net, torch.rand(2, 1, 16)).findings[:2]:
        ...     print(finding.text)
        No gradient reaches 0.
        1 has channels that are constant on this batch: 100% of those of 1 (deviation below 1e-05 of the map).
    """
    _refuse(net, x, loss, thresholds)
    limits = thresholds or Thresholds()
    observer = _Observer(net, limits)
    with ops.plain(), undisturbed(net), observer.looking():
        once = net(x)
        _add_gradients(observer, _loss(net, loss, once))
    with ops.plain(), undisturbed(net), torch.no_grad():  # from the same random state
        amplitude = _change(once, net(2 * x))
    parts = tuple(observer.states[name] for name in observer.watch.order if name in observer.states)
    return Diagnosis(type(net).__name__, parts, amplitude, tuple(_findings(parts, amplitude, limits)))
