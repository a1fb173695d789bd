"""The unit of these networks: norm → act → conv, or conv → norm → act."""

from typing import Any

from torch import Tensor, nn

from mdnc.modules import _layers, _plan
from mdnc.modules._sizes import Size
from mdnc.ops import path


class _Branch(nn.Sequential):
    """One unit; its children's positions are checkpoint keys, so they follow from the plan alone."""

    def __init__(self, plan: _plan.Unit, order: int) -> None:
        super().__init__(*(_layers.build(layer, order) for layer in plan.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers."""
        return path.in_turn(self, x)


def resized(unit: nn.Module, plan: _plan.Unit, x: Tensor, stride: Size) -> Tensor:
    """The output of a unit with another stride than its own."""
    layers: Any = unit
    for layer, each in zip(plan.layers, layers, strict=True):
        resizes = isinstance(layer, (_plan.Upsample, _plan.AveragePool))
        if resizes or (isinstance(layer, _plan.Conv) and max(layer.stride) > 1):
            x = _layers.resized(each, x, stride)
        else:
            x = path.plainly(each, x)
    return x
