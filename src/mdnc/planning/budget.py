"""What a run may take: memory, hours, devices."""

from dataclasses import dataclass

import torch

from mdnc.analysis.free_memory import free_bytes
from mdnc.analysis.memory import OPTIMIZERS
from mdnc.modules import _checks

PRECISIONS = ('32-true', 'bf16-mixed', '16-mixed', 'bf16-true')
_FREE_RESERVE = 0.1  # of what is free: other programs, fragments


@dataclass(frozen=True)
class Budget:
    """What a run may take.

    Args:
        memory: Bytes of one device; None for what is free on it now, less a tenth.
        reserve: Bytes of these that are left alone.
        hours: How long the run may take, above 0; None for as long as is usual for such data.
        devices: How many devices there are.
        precision: ``'32-true'``, ``'bf16-mixed'``, ``'16-mixed'`` or ``'bf16-true'``, as a trainer takes it; None for
            ``'bf16-mixed'`` on a CUDA device and ``'32-true'`` elsewhere.
        optimizer: ``'adamw'``, ``'adam'``, ``'sgd'``, ``'momentum'`` (SGD with it) or ``'rmsprop'``.
        device: ``'cuda'`` or ``'cpu'``; None for CUDA where there is a device.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has a value that is not legal.

    Example:
        >>> Budget(memory=8 * 2**30, reserve=2**29).bytes == 15 * 2**29
        True
    """

    memory: int | None = None
    reserve: int = 0
    hours: float | None = None
    devices: int = 1
    precision: str | None = None
    optimizer: str = 'adamw'
    device: str | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        device = ('cuda' if torch.cuda.is_available() else 'cpu') if self.device is None else self.device
        put(self, 'device', _checks.word('Budget', 'device', device, ('cpu', 'cuda')))
        usual = 'bf16-mixed' if device == 'cuda' else '32-true'
        precision = usual if self.precision is None else self.precision
        put(self, 'precision', _checks.word('Budget', 'precision', precision, PRECISIONS))
        put(self, 'optimizer', _checks.word('Budget', 'optimizer', self.optimizer, tuple(OPTIMIZERS)))
        put(self, 'reserve', _checks.integer('Budget', 'reserve', self.reserve, minimum=0))
        put(self, 'devices', _checks.integer('Budget', 'devices', self.devices))
        if self.hours is not None:
            put(self, 'hours', _checks.number('Budget', 'hours', self.hours, above=0))
        free = int(free_bytes(device) * (1 - _FREE_RESERVE)) if self.memory is None else self.memory
        put(self, 'memory', _checks.integer('Budget', 'memory', free))
        if self.bytes < 1:
            raise ValueError(f'Budget: reserve={self.reserve} leaves nothing of memory={self.memory} bytes.')

    @property
    def bytes(self) -> int:
        """Bytes that a plan may take."""
        return (self.memory or 0) - self.reserve
