"""The unit of these networks: norm → act → conv, or conv → norm → act."""

from dataclasses import dataclass

from torch import nn

from mdnc.modules._dims import DIMS
from mdnc.modules._sizes import Size

NORMALIZERS = ('batch', 'inst', 'pinst', 'null')
ACTIVATORS = ('prelu', 'relu', 'null')
LAYER_ORDERS = ('new', 'old')
SCALERS = ('down', 'up')


@dataclass(frozen=True)
class Style:
    """What a unit is made of, and in which order; legal words above.

    Args:
        normalizer: Kind of norm: batch, instance (``'inst'``), instance with affine (``'pinst'``) or none.
        activator: Kind of activation, or none.
        layer_order: ``'new'`` for norm, act, conv; ``'old'`` for conv, norm, act.
        scaler: Whether a resizing unit strides (``'down'``) or up-samples before its convolution (``'up'``).
    """

    normalizer: str = 'pinst'
    activator: str = 'prelu'
    layer_order: str = 'new'
    scaler: str = 'down'


@dataclass(frozen=True)
class Window:
    """Geometry of a unit's convolution, one value for each spatial axis.

    Args:
        kernel: Kernel size.
        stride: Factor by which the unit resizes.
        padding: Zero padding on both sides.
        output_size: Size to up-sample to, instead of by ``stride``; ``None`` to go by ``stride``.
    """

    kernel: Size
    stride: Size
    padding: Size
    output_size: Size | None = None

    @property
    def resizes(self) -> bool:
        """Whether the size changes on any axis."""
        return self.output_size is not None or any(step > 1 for step in self.stride)


class _Branch(nn.Sequential):
    """One unit; its children's positions are checkpoint keys, so they follow from the words alone.

    - ``'new'``: norm, act, (up-sampling), conv
    - ``'old'``: (up-sampling), conv, norm, act
    - without a norm, in either order: (up-sampling), conv with bias, act
    """

    def __init__(self, order: int, in_planes: int, out_planes: int, window: Window, style: Style) -> None:
        conv = _convolution(order, in_planes, out_planes, window, style)
        if style.layer_order == 'new' and style.normalizer != 'null':
            layers = [*_normed_act(order, in_planes, style), *conv]
        else:
            layers = [*conv, *_normed_act(order, out_planes, style)]
        super().__init__(*layers)


def shortcut(order: int, in_planes: int, out_planes: int, window: Window, style: Style) -> _Branch | None:
    """Build a block's ``in_node``, a unit of a 1 × … × 1 convolution and a norm; ``None`` where x itself fits."""
    if not window.resizes and in_planes == out_planes:
        return None
    point = Window((1,) * order, window.stride, (0,) * order, window.output_size)
    return _Branch(order, in_planes, out_planes, point, Style(style.normalizer, 'null', 'old', style.scaler))


def _convolution(order: int, in_planes: int, out_planes: int, window: Window, style: Style) -> list[nn.Module]:
    dim = DIMS[order]
    layers: list[nn.Module] = []
    stride = window.stride
    if style.scaler == 'up':
        stride = (1,) * order
        if window.resizes:
            layers.append(_upsampling(dim.upsample_mode, window))
    bias = style.normalizer == 'null'
    layers.append(
        # The table's classes take tuples of one length each, which a type checker cannot see.
        dim.conv(in_planes, out_planes, window.kernel, stride, window.padding, bias=bias)  # type: ignore[arg-type]
    )
    return layers


def _upsampling(mode: str, window: Window) -> nn.Module:
    if window.output_size is not None:
        return nn.Upsample(size=window.output_size, mode=mode, align_corners=True)
    factors = tuple(float(step) for step in window.stride)
    return nn.Upsample(scale_factor=factors, mode=mode, align_corners=True)


def _normed_act(order: int, planes: int, style: Style) -> list[nn.Module]:
    dim = DIMS[order]
    layers: list[nn.Module] = []
    if style.normalizer == 'batch':
        layers.append(dim.batch_norm(planes))
    elif style.normalizer != 'null':
        layers.append(dim.instance_norm(planes, affine=style.normalizer == 'pinst'))
    if style.activator == 'prelu':
        layers.append(nn.PReLU(planes))
    elif style.activator == 'relu':
        layers.append(nn.ReLU())
    return layers
