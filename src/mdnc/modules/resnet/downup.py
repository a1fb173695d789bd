"""What auto-encoders and U-Nets share: a way down, a deepest stage, a way up."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn
from typing_extensions import Unpack

from mdnc.modules import _checks, _families
from mdnc.modules._families import Ways
from mdnc.modules._options import DownUpOptions, PerStage
from mdnc.modules.resnet.arguments import Arguments
from mdnc.modules.resnet.network import Network


class _DownUpNd(Network):
    """Network that halves the size level by level and doubles it again.

    Args:
        channel: Channels of the first and the last stage, at least 1; of the first convolution.
        layers: Number of residual blocks of each level; at least two levels of at least one block. The last is the
            middle; the others are used on the way down and again on the way up.
        block: Kind of the residual blocks, ``'plain'`` (2 convolutions) or ``'bottleneck'`` (3).
        kernel_size: Odd kernel size of the blocks: one int, one for each axis, or a list with one of these for each
            level. Without `strides`, an axis with kernel 1 is never resized.
        in_planes: Channels of the input, at least 1.
        out_planes: Channels of the output, at least 1.
        **options: See `DownUpOptions`.

    Shapes:
        x ``(B, in_planes, L1, …)`` → ``(B, out_planes, L1, …)``.

    Raises:
        TypeError: An argument or the input has the wrong type.
        ValueError: An argument or the input has the wrong value, or the input is too small for the stages.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.UNet1d(8, [1, 1, 1], out_planes=2)
        >>> net(torch.zeros(2, 1, 27)).shape
        torch.Size([2, 2, 27])
    """

    conv_down_list: nn.ModuleList
    conv_up_list: nn.ModuleList
    _skips: ClassVar[bool]

    def __init__(
        self,
        order: int,
        channel: int,
        layers: Sequence[int],
        block: str = 'bottleneck',
        kernel_size: PerStage = 3,
        in_planes: int = 1,
        out_planes: int = 1,
        **options: Unpack[DownUpOptions],
    ) -> None:
        given = Arguments(type(self).__name__, DownUpOptions, order, channel, layers, block, kernel_size, options)
        in_planes = given.planes('in_planes', in_planes)
        out_planes = given.planes('out_planes', out_planes)
        steps = len(given.layers) - 1
        given.options['strides'] = _between(given.options, steps)
        frame = given.frame([given.channel * 2**level for level in range(steps + 1)], steps)
        plan = given.checked(_families.autoencoder(frame, in_planes, out_planes, _ways(given, steps, self._skips)))
        super().__init__(plan, given.config(in_planes=in_planes, out_planes=out_planes), given.options)


def _between(options: dict[str, Any], steps: int) -> Any:
    """Strides between levels, from those or from a list whose first entry leads to the first level and does nothing."""
    given = options['strides']
    listed = isinstance(given, Sequence) and not isinstance(given, str) and len(given) == steps + 1
    if (
        listed
        and options['resize_at'] == 'first'
        and given[0] in (1, [1] * _length(given[0]), (1,) * _length(given[0]))
    ):
        return given[1:]
    return given


def _length(value: Any) -> int:
    return len(value) if isinstance(value, Sequence) else 1


def _ways(given: Arguments, steps: int, skips: bool) -> Ways:
    owner, options = given.owner, given.options
    up = options['up_layers']
    if up is None:
        depths = given.layers[:-1]
    elif isinstance(up, Sequence) and not isinstance(up, str):
        depths = _checks.integers(owner, 'up_layers', up, minimum=0)
    else:
        depths = (_checks.integer(owner, 'up_layers', up, minimum=0),) * steps
    if len(depths) != steps:
        raise ValueError(f'{owner}: up_layers={up!r} must have {steps} ints, one for each of layers but the last.')
    if up is not None:
        options['up_layers'] = depths
    if options['deep_supervision'] > steps:
        raise ValueError(
            f'{owner}: deep_supervision={options["deep_supervision"]} must be at most {steps}, the number of levels '
            'on the way up.'
        )
    return Ways(skips, depths, options['deep_supervision'], options['dropout'])
