"""Common base of auto-encoders and U-Nets: an encoder, a deepest stage, a decoder."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn
from typing_extensions import Self, Unpack

from mdnc.modules import _checks, _families
from mdnc.modules._families import DownUpParts
from mdnc.modules._options import DownUpOptions, PerStage
from mdnc.modules.resnet.arguments import Arguments
from mdnc.modules.resnet.encoder import _EncoderNetNd
from mdnc.modules.resnet.network import Network
from mdnc.modules.resnet.sharing import encoder_of, with_encoder


class _DownUpNd(Network):
    """Network that halves the size level by level and doubles it again.

    Each number in ``layers`` makes a level, a stack of that many residual blocks (`BlockPlain2d` or
    `BlockBottleneck2d`). On the way down the last block of a level divides the size by a stride of 2, and the channels
    double from level to level; on the way up it multiplies the size by 2, cropped to that of the same level on the way
    down.

    Args:
        channel: Channels of the first and the last stage, at least 1; of the first convolution.
        layers: Number of residual blocks of each level; at least two levels of at least one block. The last is the
            deepest; the others apply to the encoder and to the decoder.
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

    @property
    def encoder(self) -> _EncoderNetNd:
        """The encoder part as a network of its own, with the same layers: training one also trains the other.

        It is a new object at each access, with its own mode and memory level; its configuration builds an equal
        encoder. With ``resize_at='first'`` it includes the deepest level; with ``'last'``, as documented, it ends
        before that level.

        Raises:
            ValueError: The network has a single level above the deepest, but an encoder needs at least two stages.

        Example:
            >>> import mdnc, torch
            >>> net = mdnc.modules.resnet.UNet2d(8, [1, 1, 1])
            >>> net.encoder(torch.zeros(1, 1, 24, 24)).shape
            torch.Size([1, 16, 6, 6])
            >>> net.encoder.netbody[0] is net.conv_first
            True
        """
        return encoder_of(self)

    @classmethod
    def from_encoder(
        cls, encoder: _EncoderNetNd, layers: int | None = None, channel: int | None = None, **arguments: Any
    ) -> Self:
        """Build a network from an encoder, whose layers become its encoder part.

        The layers are shared, as torch's modules are when they are given to another: to train the network trains the
        encoder. Give ``copy.deepcopy(encoder)`` where the encoder is to stay as it is. Its tail and head are left out.

        Args:
            encoder: An encoder with as many axes. One with ``resize_at='first'`` must begin with a stage of stride 1,
                and its last stage becomes the deepest level.
            layers: Number of blocks of the deepest level, below an encoder that resizes last; ``None`` for as many as
                the encoder's last stage has.
            channel: Channels of that level; ``None`` for twice those of the level above, within the encoder's cap.
            **arguments: Arguments and options that the encoder does not have: ``out_planes``, `up_layers`,
                `deep_supervision`, `upsampling`, `dropout`, `memory`.

        Raises:
            TypeError: It is not an encoder with as many axes, or an argument is unknown.
            ValueError: An argument is determined by the encoder, or the encoder does not fit.

        Example:
            >>> import mdnc, torch
            >>> encoder = mdnc.modules.resnet.EncoderNet2d(8, [1, 1], in_planes=3)
            >>> net = mdnc.modules.resnet.UNet2d.from_encoder(encoder, out_planes=2)
            >>> net(torch.zeros(1, 3, 24, 24)).shape
            torch.Size([1, 2, 24, 24])
        """
        return with_encoder(cls, encoder, layers, channel, arguments)  # type: ignore[no-any-return]


def _between(options: dict[str, Any], steps: int) -> Any:
    """Strides between levels, also from a list with an unused first entry for the first level."""
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


def _ways(given: Arguments, steps: int, skips: bool) -> DownUpParts:
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
            'of the decoder.'
        )
    return DownUpParts(skips, depths, options['deep_supervision'], options['dropout'])
