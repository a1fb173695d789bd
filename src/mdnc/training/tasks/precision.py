"""Half precision for the network, single precision for data, statistics, losses and metrics."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.plugins.precision import HalfPrecision
from torch import nn


class NetworkHalf(HalfPrecision):
    """Lightning's ``bf16-true`` and ``16-true`` without rounding batches, statistics and metrics.

    For example, a pressure of 1013.25 would be 1012 in bfloat16, before its mean is subtracted.
    """

    def convert_module(self, module: nn.Module) -> nn.Module:
        getattr(module, 'network', module).to(dtype=self._desired_input_dtype)
        return module

    def convert_input(self, data: Any) -> Any:
        return data

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        # Lightning's class makes half precision the default of every new tensor.
        yield
