"""Multiply-adds and memory traffic of a network for each stage, and lower bounds of its time on a device."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from mdnc import ops
from mdnc._side_effects import tensors
from mdnc._torch import TorchDispatchMode, tree_leaves
from mdnc.analysis.fake_run import stand_in, trial
from mdnc.analysis.parts import ITSELF, BothWaysWatch, PartWatch
from mdnc.analysis.table import bytes_text, count_text, seconds_text, table
from mdnc.contribs.torchsummary.request import usable_device
from mdnc.modules import _checks

# Operators that only allocate memory.
EMPTY = ('empty', 'empty_like', 'empty_strided', 'new_empty', 'new_empty_strided')


@dataclass(frozen=True)
class Device:
    """Peak rates of a device.

    Args:
        name: Its name.
        bandwidth: Memory bandwidth, bytes read and written per second.
        arithmetic: Multiply-adds per second in the dtype used; half of its FLOP/s.

    Raises:
        TypeError: A rate is not a number.
        ValueError: A rate is not finite or not above 0.

    Example:
        >>> from torch import nn
        >>> from mdnc.analysis import Device, cost
        >>> gpu = Device('GPU', bandwidth=3e12, arithmetic=4e14)
        >>> cost(nn.Conv2d(3, 64, 3), (3, 512, 512)).floors(gpu).device
        'GPU'
    """

    name: str
    bandwidth: float
    arithmetic: float

    def __post_init__(self) -> None:
        for name in ('bandwidth', 'arithmetic'):
            _checks.number('Device', name, getattr(self, name), above=0)


@dataclass(frozen=True)
class Floors:
    """Lower bounds of times on a device, in seconds, for maps that do not fit into its caches.

    Args:
        device: Name of the device.
        arithmetic: Time of the multiply-adds.
        traffic: Time of the memory traffic.
        seconds: Sum over the parts of the larger of the two, to compare with a measured time.

    Example:
        >>> import mdnc
        >>> from mdnc.analysis import Device, cost
        >>> floors = cost(mdnc.modules.resnet.encnet12(), 64).floors(Device('CPU', bandwidth=2e10, arithmetic=1e11))
        >>> floors.seconds >= max(floors.arithmetic, floors.traffic)
        True
    """

    device: str
    arithmetic: float
    traffic: float
    seconds: float

    def __str__(self) -> str:
        """The times as a sentence."""
        return (
            f'{self.device}: not below {seconds_text(self.seconds)} '
            f'({seconds_text(self.arithmetic)} of arithmetic, {seconds_text(self.traffic)} of traffic)'
        )


@dataclass(frozen=True)
class Cost:
    """Multiply-adds and memory traffic of a network, or of a part of it.

    Args:
        name: Class of the network, or path of the part in it.
        macs: Multiply-adds of convolutions and matrix products.
        elements: Values read and written by these: maps and weights.
        bytes: The same in bytes. This is moved even if everything else is fused, unless it stays in a cache.
        eager_bytes: Bytes moved if each operator separately reads its inputs and writes its outputs.
        stages: The same for each part, in the order they run; empty for a part.
        uncounted: Operators without multiply-adds in this count: norms, activations, sums.

    Example:
        >>> import mdnc
        >>> from mdnc.analysis import cost
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 1])
        >>> print(cost(net, 32))
        part              MACs       bytes  bytes, eager  elements/MAC
        ──────────────────────────────────────────────────────────────
        netbody.0     204.80 k   36.78 KiB     36.78 KiB        0.0460
        netbody.1     245.76 k  163.00 KiB    492.09 KiB        0.1698
        netbody.2      69.63 k   47.50 KiB    140.84 KiB        0.1746
        netbody.3     147.46 k   17.06 KiB     17.06 KiB        0.0296
        netbody.4            0         0 B      4.06 KiB        0.0000
        fc                  32       208 B         208 B        1.6250
        ──────────────────────────────────────────────────────────────
        EncoderNet2d  667.68 k  264.55 KiB    691.05 KiB        0.1014
    """

    name: str
    macs: int = 0
    elements: int = 0
    bytes: int = 0
    eager_bytes: int = 0
    stages: tuple['Cost', ...] = ()
    uncounted: tuple[str, ...] = ()

    @property
    def elements_per_mac(self) -> float:
        """Values moved per multiply-add; the higher, the more a device waits for its memory."""
        return self.elements / self.macs if self.macs else float('inf') if self.elements else 0.0

    def floors(self, device: Device) -> Floors:
        """Lower bounds of times on a device; `measured_device` measures the rates of this machine."""
        if not isinstance(device, Device):
            raise TypeError(f'floors: device={device!r:.80} must be an mdnc.analysis.Device.')
        both = [(part.macs / device.arithmetic, part.bytes / device.bandwidth) for part in self.stages or (self,)]
        arithmetic, traffic = (sum(times) for times in zip(*both, strict=True))
        return Floors(device.name, arithmetic, traffic, sum(map(max, both)))

    def __str__(self) -> str:
        """A table, a row for each part."""
        rows = [
            (
                part.name,
                count_text(part.macs),
                bytes_text(part.bytes),
                bytes_text(part.eager_bytes),
                f'{part.elements_per_mac:.4f}',
            )
            for part in (*self.stages, self)
        ]
        return table(('part', 'MACs', 'bytes', 'bytes, eager', 'elements/MAC'), rows, foot=1)

    def to_dict(self) -> dict[str, Any]:
        """The values as plain data for JSON."""
        names = ('name', 'macs', 'elements', 'bytes', 'eager_bytes', 'elements_per_mac')
        own = {name: getattr(self, name) for name in names}
        if not self.stages:
            return own
        return own | {'uncounted': list(self.uncounted), 'stages': [part.to_dict() for part in self.stages]}


@dataclass
class _Sums:
    macs: int = 0
    elements: int = 0
    bytes: int = 0
    eager_bytes: int = 0

    def add(self, other: '_Sums') -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def cost(self, name: str) -> Cost:
        return Cost(name, **vars(self))


class CostCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums multiply-adds and traffic of operators, forward and backward, for each part.

    Args:
        watch: Provides the part that is running.
    """

    def __init__(self, watch: PartWatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parts: dict[str, _Sums] = defaultdict(_Sums)
        self.uncounted: set[str] = set()
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        read = _tensors((args, kwargs))
        written = _written(func, read, _tensors(outputs))
        if written:
            self._count(func, (args, kwargs, outputs), [*read, *written])
        return outputs

    def _count(self, func: Any, call: tuple[Any, Any, Any], moved: list[Tensor]) -> None:
        sums = self.parts[self._watch.current]
        size = sum(tensor.numel() * tensor.element_size() for tensor in moved)
        formula = flop_registry.get(func.overloadpacket)
        if formula is None:
            self.uncounted.add(func.overloadpacket.__name__)
            sums.add(_Sums(eager_bytes=size))
            return
        args, kwargs, outputs = call
        macs = formula(*args, **kwargs, out_val=outputs) // 2
        sums.add(_Sums(macs, sum(tensor.numel() for tensor in moved), size, size))


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _written(func: Any, read: list[Tensor], outputs: list[Tensor]) -> list[Tensor]:
    """The outputs that are written to memory: without views, and memory that is only allocated."""
    if func.overloadpacket.__name__ in EMPTY:
        return []
    if func._schema.is_mutable:
        return outputs
    storages = {tensor.untyped_storage()._cdata for tensor in read}
    return [output for output in outputs if output.untyped_storage()._cdata not in storages]


def _best_seconds(work: Callable[[], object], place: torch.device, budget_seconds: float = 0.5) -> float:
    """Seconds of the fastest of the runs within a time."""

    def settle() -> None:
        if place.type != 'cpu':
            torch.accelerator.synchronize(place)

    best, ends = float('inf'), time.perf_counter() + budget_seconds
    while time.perf_counter() < ends:
        settle()
        started = time.perf_counter()
        work()
        settle()
        best = min(best, time.perf_counter() - started)
    return best


def cost(
    net: nn.Module,
    input_size: Any,
    batch_size: int = 1,
    dtype: torch.dtype | None = None,
    *,
    training: bool = False,
) -> Cost:
    """Count multiply-adds and bytes moved for each part of a network, on fake tensors, so nothing is computed.

    The network is counted layer by layer, even if it would take the fused path; multiply-adds are half of the result
    of torch's ``FlopCounterMode``.

    Args:
        net: Any module with one input.
        input_size: See `memory_forecast`.
        batch_size: Size of the batch, at least 1.
        dtype: See `memory_forecast`.
        training: Whether to also count the backward pass.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has an illegal value, or the network refuses inputs of this size.

    Example:
        >>> from torch import nn
        >>> counted = cost(nn.Conv1d(2, 4, 3, bias=False), (2, 10))
        >>> counted.macs, counted.elements  # 8 places × 4 × 2 × 3; input, weight and output
        (192, 76)
    """
    run = trial('cost', net, input_size, batch_size, dtype)
    training = _checks.flag('cost', 'training', training)
    watch = BothWaysWatch(net)
    meter = CostCounter(watch)
    with ops.plain(), stand_in(run) as stand, watch.watching(), meter:
        outputs = stand.run()
        if training:
            watch.mark(outputs)
            needed = [output for output in tensors(outputs) if output.requires_grad]
            torch.autograd.backward(needed, [torch.empty_like(output) for output in needed])
    stages = tuple(meter.parts[name].cost(name) for name in watch.order if name != ITSELF or name in meter.parts)
    whole = _Sums()
    for part in meter.parts.values():
        whole.add(part)
    return replace(whole.cost(type(net).__name__), stages=stages, uncounted=tuple(sorted(meter.uncounted)))


def measured_device(device: str | torch.device = 'cpu', dtype: torch.dtype = torch.float32) -> Device:
    """Measure, in about a second, how fast a device copies memory and multiplies matrices.

    Args:
        device: The device, such as ``'cpu'`` or ``'cuda:0'``.
        dtype: Type of the matrices, ``torch.float16``, ``bfloat16``, ``float32`` or ``float64``.

    Returns:
        The best of several measurements, as peak rates of the device.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The device does not exist, or computes nothing.

    Example:
        >>> from mdnc.analysis import measured_device
        >>> device = measured_device('cpu')
        >>> device.bandwidth > 0, device.arithmetic > 0
        (True, True)
    """
    place, dtype = usable_device(device, 'measured_device'), _checks.dtype('measured_device', dtype)
    if place.type == 'meta':
        raise ValueError("measured_device: device='meta' computes nothing that could be measured.")
    source = torch.ones(2**26, dtype=torch.uint8, device=place)  # larger than any cache that it could stay in
    target = torch.empty_like(source)
    side = 1024 if place.type == 'cpu' else 8192
    matrix = torch.ones(side, side, device=place, dtype=dtype)
    copying = _best_seconds(lambda: target.copy_(source), place)
    multiplying = _best_seconds(lambda: matrix @ matrix, place)
    return Device(str(place), 2 * source.nbytes / copying, side**3 / multiplying)
