"""Checks of the arguments that networks share."""

from collections.abc import Sequence
from typing import Any

from mdnc.modules import _checks, _options, _plan, _sizes
from mdnc.modules._families import Frame
from mdnc.modules._options import PerStage
from mdnc.modules._plan import Plan, Style
from mdnc.modules._sizes import Size

BLOCKS = ('plain', 'bottleneck')
STRIDES = range(1, 5)


class Arguments:
    """Checks the arguments of a network, and keeps the plain values for its ``config``.

    Args:
        owner: Name of the public class.
        kind: Its options.
        order: Number of spatial axes.
        channel: See the network.
        layers: See the network.
        block: See the network.
        kernel_size: See the network.
        given: The given options.
    """

    def __init__(
        self,
        owner: str,
        kind: type,
        order: int,
        channel: int,
        layers: Sequence[int],
        block: str,
        kernel_size: PerStage,
        given: Any,
    ) -> None:
        self.owner, self.kind = owner, kind
        self.order = _checks.spatial_order(owner, order)
        self.channel = _checks.integer(owner, 'channel', channel)
        self.layers = _checks.integers(owner, 'layers', layers, least=2)
        self.block = _checks.word(owner, 'block', block, BLOCKS)
        self.kernels = _checks.odd_kernels(owner, kernel_size, self.order, len(self.layers))
        self.options = _options.checked(kind, owner, dict(given))

    def frame(self, doubled: Sequence[int], steps: int) -> Frame:
        """The frame of a plan.

        Args:
            doubled: Channels of each level without `channels` and `max_channel`.
            steps: Number of strides.
        """
        options = self.options
        return Frame(
            order=self.order,
            channel=self.channel,
            widths=self._widths(doubled),
            layers=self.layers,
            block=self.block,
            kernels=self.kernels,
            strides=self._strides(steps),
            style=self._style,
            resize_first=options['resize_at'] == 'first',
            drop_path=options['drop_path'],
            small=options['small'],
        )

    @property
    def _style(self) -> Style:
        return Style(**{name: self.options[name] for name in Style.__dataclass_fields__})

    def planes(self, name: str, value: object) -> int:
        """Check a number of channels or the length of a vector."""
        return _checks.integer(self.owner, name, value)

    def length(self, name: str, value: object) -> int | None:
        """Check the length of a vector, or ``None`` for no vector."""
        return None if value is None else self.planes(name, value)

    def refuse(self, name: str, why: str) -> None:
        """Refuse an option that has no effect here, if it was given.

        Raises:
            ValueError: It is not at its default.
        """
        if self.options[name] != _options.record(self.kind)[name].default:
            raise ValueError(f'{self.owner}: {name}={self.options[name]!r} has no effect {why}.')

    def checked(self, plan: Plan) -> Plan:
        """Refuse a plan with layers that cannot be built, and options without effect."""
        options = self.options
        _plan.refuse_misfits(self.owner, (each for stage in plan.stages for each in stage.blocks), self._style)
        if 'group' not in (options['normalizer'], options.get('tail_normalizer')):
            self.refuse('norm_groups', "without a norm 'group'")
        blocks = (each for stage in plan.stages for each in stage.blocks if isinstance(each, _plan.Block))
        if options['zero_init'] and not all(map(_plan.learns_from_shortcut, blocks)):
            raise ValueError(
                f"{self.owner}: zero_init=True needs a norm with weights, not normalizer='inst', or another activator "
                "than 'relu', whose gradient is 0 at 0."
            )
        if options['small'] == 'keep' and options['upsampling'] == 'transposed' and plan.in_size is None:
            raise ValueError(f"{self.owner}: small='keep' needs an upsampling by interpolation, not 'transposed'.")
        return plan

    def config(self, **more: Any) -> dict[str, Any]:
        """The checked arguments as the constructor takes them."""
        same = len(set(self.kernels)) == 1
        shared = {
            'channel': self.channel,
            'layers': self.layers,
            'block': self.block,
            'kernel_size': self.kernels[0] if same else self.kernels,
        }
        return shared | more | _options.kept(self.kind, self.options)

    def _widths(self, doubled: Sequence[int]) -> tuple[int, ...]:
        channels, cap = self.options['channels'], self.options['max_channel']
        if channels is None:
            return tuple(min(wide, cap or wide) for wide in doubled)
        if cap is not None:
            raise ValueError(f'{self.owner}: max_channel={cap} has no effect with channels={channels}.')
        if len(channels) != len(doubled):
            raise ValueError(f'{self.owner}: channels={channels} must be {len(doubled)} ints, one for each of layers.')
        return tuple(channels)

    def _strides(self, steps: int) -> tuple[Size, ...]:
        given = self.options['strides']
        if given is None:
            # An axis with kernel 1 is never resized.
            return tuple(map(_sizes.stride, self.kernels[:steps]))
        self.options['strides'] = _checks.per_stage(self.owner, 'strides', given, self.order, steps, STRIDES)
        return self.options['strides']  # type: ignore[no-any-return]
