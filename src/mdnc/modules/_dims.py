"""A table from the number of spatial axes to torch's classes."""

from typing import Any, NamedTuple

from torch import nn
from torch.nn import functional as F


class Dim(NamedTuple):
    """torch's layers for one number of spatial axes, and its name of linear interpolation."""

    conv: Any
    conv_transpose: Any
    instance_norm: Any
    batch_norm: Any
    adaptive_avg_pool: Any
    adaptive_max_pool: Any
    linear: str


LAYERS = ('Conv', 'ConvTranspose', 'InstanceNorm', 'BatchNorm', 'AdaptiveAvgPool', 'AdaptiveMaxPool')
DIMS = {
    order: Dim._make([*(getattr(nn, f'{name}{order}d') for name in LAYERS), linear])
    for order, linear in ((1, 'linear'), (2, 'bilinear'), (3, 'trilinear'))
}

# With a stride that depends on the input, instead of that of the layer.
CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
