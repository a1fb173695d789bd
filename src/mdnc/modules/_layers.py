"""The layers of a plan as torch's modules."""

import math
from functools import singledispatch
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdnc._torch import CONVOLUTIONS
from mdnc.modules import _plan, pooling
from mdnc.modules._dims import CONVOLVE, DIMS
from mdnc.modules._sizes import Size
from mdnc.modules._valid_region import ValidRegion
from mdnc.modules.pooling import AveragePool, AvgMaxPool, DeviationPool, GeneralizedMeanPool, Pool
from mdnc.ops import convolution, definition


@singledispatch
def build(layer: Any, order: int) -> nn.Module:
    """Build a layer of a plan for so many spatial axes."""
    raise TypeError(f'{type(layer).__name__} is not a layer of a plan')


@build.register
def _(layer: _plan.Conv, order: int) -> nn.Module:
    dim = DIMS[order]
    planes = (layer.in_planes, layer.out_planes, layer.kernel, layer.stride, layer.padding)
    if layer.transposed:
        return cast(nn.Module, dim.conv_transpose(*planes, layer.output_padding, layer.groups, layer.bias))
    return cast(nn.Module, dim.conv(*planes, groups=layer.groups, bias=layer.bias, padding_mode=layer.padding_mode))


@build.register
def _(layer: _plan.Norm, order: int) -> nn.Module:
    if layer.kind == 'batch':
        return cast(nn.Module, DIMS[order].batch_norm(layer.planes))
    if layer.kind in ('group', 'layer'):
        return nn.GroupNorm(layer.groups, layer.planes)
    return cast(nn.Module, DIMS[order].instance_norm(layer.planes, affine=layer.kind == 'pinst'))


@build.register
def _(layer: _plan.Act, order: int) -> nn.Module:
    kinds = {'relu': nn.ReLU, 'leaky_relu': nn.LeakyReLU, 'elu': nn.ELU, 'gelu': nn.GELU, 'silu': nn.SiLU}
    return nn.PReLU(layer.planes) if layer.kind == 'prelu' else cast(nn.Module, kinds[layer.kind]())


@build.register
def _(layer: _plan.Upsample, order: int) -> nn.Module:
    mode = DIMS[order].linear if layer.mode == 'linear' else 'nearest'
    aligned = True if layer.mode == 'linear' else None
    if layer.size is not None:
        return nn.Upsample(size=layer.size, mode=mode, align_corners=aligned)
    return nn.Upsample(scale_factor=tuple(map(float, layer.factors)), mode=mode, align_corners=aligned)


@build.register
def _(layer: _plan.AveragePool, order: int) -> nn.Module:
    return AveragePool(layer.stride)


@build.register
def _(layer: _plan.GlobalPool, order: int) -> nn.Module:
    own: dict[str, type[Pool]] = {'avgmax': AvgMaxPool, 'gem': GeneralizedMeanPool, 'std': DeviationPool}
    if layer.kind in own:
        return own[layer.kind](order)
    pools = {'avg': DIMS[order].adaptive_avg_pool, 'max': DIMS[order].adaptive_max_pool}
    return cast(nn.Module, pools[layer.kind](1))


@build.register
def _(layer: _plan.Linear, order: int) -> nn.Module:
    return nn.Linear(layer.in_planes + layer.amplitudes, layer.out_planes)


@build.register
def _(layer: _plan.Dropout, order: int) -> nn.Module:
    return nn.Dropout(layer.rate)


@build.register
def _(part: _plan.Single, order: int) -> nn.Module:
    layers = [build(layer, order) for layer in part.layers]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    """Scales each plane by a gate computed from the means of all, after Hu et al., arXiv:1709.01507.

    Args:
        plan: Its planes, and those inside.
        order: Number of spatial axes.
    """

    def __init__(self, plan: _plan.SqueezeExcite, order: int) -> None:
        super().__init__()
        self.order = order
        self.down = nn.Linear(plan.planes, plan.hidden)
        self.up = nn.Linear(plan.hidden, plan.planes)

    def forward(self, x: Tensor, real: ValidRegion | None = None) -> Tensor:
        """Scale ``(B, C, L1, …)``; in padded batches, which are zero in the padding, means are taken without it."""
        return x * self.gate(pooling.mean(x, real))[(..., *(None,) * self.order)]

    def gate(self, means: Tensor) -> Tensor:
        """The gates ``(B, C)`` from the means of the planes ``(B, C)``."""
        return torch.sigmoid(self.up(F.relu(self.down(means))))


def resized(layer: Any, x: Tensor, stride: Size) -> Tensor:
    """The output of a resizing layer with a stride other than its own.

    Args:
        layer: A convolution, an average pool or an up-sampling by factors.
        x: Its input, ``(B, C, L1, …)``.
        stride: The stride or factors on each axis.
    """
    order = x.dim() - 2
    if isinstance(layer, nn.Upsample):
        return F.interpolate(x, None, [float(step) for step in stride], layer.mode, align_corners=layer.align_corners)
    if isinstance(layer, AveragePool):
        return layer(x, stride)  # type: ignore[no-any-return]
    padding = layer.padding
    if layer.padding_mode != 'zeros':
        x, padding = F.pad(x, [pad for pad in reversed(padding) for _ in (0, 1)], layer.padding_mode), 0
    if order == 3 and convolution.is_shallow(x, layer.weight, definition.low_precision(x)):
        with torch.autocast('cpu', enabled=False):
            bias = None if layer.bias is None else layer.bias.float()
            y = CONVOLVE[3](x.float(), layer.weight.float(), bias, stride, padding, 1, layer.groups)
        return cast(Tensor, y.to(definition.low_precision(x)))
    return cast(Tensor, CONVOLVE[order](x, layer.weight, layer.bias, stride, padding, 1, layer.groups))


# ---- Initialization ----


def begin(module: nn.Module, activator: str) -> None:
    """Initialize all convolutions of a module as He et al., arXiv:1502.01852, for any number of axes.

    Args:
        module: The module.
        activator: The activation before the convolutions.
    """
    slope = {'prelu': 0.25, 'leaky_relu': 0.01, 'null': 1.0}.get(activator, 0.0)
    gain = math.sqrt(2 / (1 + slope**2))
    found: list[Any] = [each for each in module.modules() if isinstance(each, CONVOLUTIONS)]
    for each in found:
        transposed = each.transposed
        fan = each.weight[0].numel() if not transposed else each.weight[:, 0].numel() / math.prod(each.stride)
        with torch.no_grad():
            each.weight.normal_(0, gain / math.sqrt(fan))
            if each.bias is not None:
                each.bias.zero_()
