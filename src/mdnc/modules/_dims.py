"""The one table from the number of spatial axes to torch's classes."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Dim:
    """torch's layers for one number of spatial axes.

    Args:
        conv: Convolution.
        instance_norm: Instance norm.
        batch_norm: Batch norm.
        average_pool: Adaptive average pool.
        upsample_mode: Word of ``nn.Upsample`` for linear interpolation.
    """

    conv: type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]
    instance_norm: type[nn.InstanceNorm1d] | type[nn.InstanceNorm2d] | type[nn.InstanceNorm3d]
    batch_norm: type[nn.BatchNorm1d] | type[nn.BatchNorm2d] | type[nn.BatchNorm3d]
    average_pool: type[nn.AdaptiveAvgPool1d] | type[nn.AdaptiveAvgPool2d] | type[nn.AdaptiveAvgPool3d]
    upsample_mode: str


DIMS = {
    1: Dim(nn.Conv1d, nn.InstanceNorm1d, nn.BatchNorm1d, nn.AdaptiveAvgPool1d, 'linear'),
    2: Dim(nn.Conv2d, nn.InstanceNorm2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d, 'bilinear'),
    3: Dim(nn.Conv3d, nn.InstanceNorm3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d, 'trilinear'),
}
