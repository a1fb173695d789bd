"""What every network promises: checked inputs, sizes known without running, a plan and a configuration."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from mdnc.modules import _checks, _plan, _sizes
from mdnc.modules._dims import DIMS
from mdnc.modules._doc import inherit_sections
from mdnc.modules._plan import Plan, Shape
from mdnc.modules._pretrained import _Pretrained
from mdnc.modules._sizes import Size
from mdnc.modules.resnet.block import _BlockNd
from mdnc.modules.resnet.stage import _BlockResStkNd
from mdnc.ops import path
from mdnc.ops.fused import Manner
from mdnc.ops.path import MEMORY_LEVELS


class _ResNetNd(_Pretrained):
    """Base of the networks.

    Args:
        plan: The network in integers.
        config: The constructor's arguments as plain values, without ``order``.
    """

    def __init__(self, plan: Plan, config: dict[str, Any]) -> None:
        super().__init__()
        self._plan = plan
        self._config = config
        self.manner = Manner()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        inherit_sections(cls)

    @property
    def memory(self) -> str:
        """What training keeps for backward, from most to least; may be set at any time, and changes no result.

        - ``'plain'``: torch's own layers, three tensors a unit of norm, activation and convolution.
        - ``'fast'``: two, the unit's input and the convolution's.
        - ``'lean'``: one, the unit's input.
        - ``'leaner'``: one, but for inputs that a 1 × … × 1 convolution gives, which are computed again.
        - ``'least'``: one for each block, which is computed again.
        """
        return self.manner.memory

    @memory.setter
    def memory(self, level: str) -> None:
        _checks.word(type(self).__name__, 'memory', level, MEMORY_LEVELS)
        for each in self.modules():
            if isinstance(each, (_ResNetNd, _BlockNd)):
                each.manner = replace(each.manner, memory=level)

    def paths(self) -> list[path.Taken]:
        """Which path each unit of the blocks takes as things stand, and why not the fused one.

        Example:
            >>> import mdnc
            >>> net = mdnc.modules.resnet.EncoderNet1d(8, [1, 1], memory='plain')
            >>> print(net.paths()[0])
            netbody.1.conv_scale.conv1: plain, for the plain path was asked for
        """
        blocks = ((name, each) for name, each in self.named_modules() if isinstance(each, _BlockNd))
        return [unit for name, each in blocks for unit in each.paths(f'{name}.')]

    @property
    def plan(self) -> Plan:
        """The network in integers, stage by stage."""
        return self._plan

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values: ``type(net)(**net.config)`` builds the network anew.

        `memory` is left out: how a network is trained is not part of what it is.
        """
        return dict(self._config)

    @property
    def nlayers(self) -> int:
        """Number of convolutional layers along the depth, the fully connected one left out."""
        return self._plan.nlayers

    @property
    def min_size(self) -> Size:
        """Smallest equal-sided spatial size that the network takes."""
        return (self._plan.min_side,) * self._plan.order

    def stage_sizes(self, size: int | Sequence[int]) -> tuple[Size, ...]:
        """Spatial size of what each stage gives, without running the network.

        Args:
            size: Spatial size of the input, one int or one for each axis.

        Raises:
            ValueError: The network refuses inputs of this size.

        Example:
            >>> import mdnc
            >>> mdnc.modules.resnet.EncoderNet2d(8, [1, 1, 1]).stage_sizes((33, 20))
            ((17, 10), (9, 5), (5, 3))
        """
        checked = _checks.per_axis(type(self).__name__, 'size', size, self._plan.order)
        self._refuse_starved(checked)
        return self._plan.stage_sizes(checked)

    def output_size(self, size: int | Sequence[int]) -> Size:
        """Spatial size of the last map (before an encoder's head), without running the network.

        Args:
            size: Spatial size of the input, one int or one for each axis.

        Raises:
            ValueError: The network refuses inputs of this size.
        """
        return self.stage_sizes(size)[-1]

    def _admit(self, x: Tensor) -> None:
        # The door: whatever passes here runs through to the end.
        if _checks.traced(x):
            return
        lengths = [f'L{axis + 1}' for axis in range(self._plan.order)]
        shape: list[str | int] = ['B', self._plan.in_planes, *lengths]
        _checks.tensor(type(self).__name__, x, shape, next(self.parameters(), None))
        self._refuse_starved(tuple(x.shape[2:]))

    def _refuse_starved(self, size: Size) -> None:
        starved = self._plan.first_starved(size)
        if starved is None:
            return
        held = _sizes.text(self._plan.stage_sizes(size)[starved])
        raise ValueError(
            f'{type(self).__name__}: input size {size} is too small for {len(self._plan.stages)} stages: stage '
            f'{starved + 1} would hold {held}, and instance norm needs at least 2 values a plane. '
            f'Smallest equal-sided size that works: {self.min_size}.'
        )


class Arguments:
    """Checks the arguments that all families share, and keeps the plain values for a network's ``config``.

    Args:
        owner: Name of the public class.
        order: Number of spatial axes.
        channel: See the network.
        layers: See the network.
        block: See the network.
        kernel_size: See the network.
    """

    def __init__(
        self, owner: str, order: int, channel: int, layers: Sequence[int], block: str, kernel_size: object
    ) -> None:
        self.owner = owner
        order = _checks.spatial_order(owner, order)
        self.shape = Shape(
            order=order,
            channel=_checks.integer(owner, 'channel', channel),
            layers=_checks.integers(owner, 'layers', layers, least=2),
            block=_checks.word(owner, 'block', block, tuple(_plan.CONVS_PER_BLOCK)),
            kernel=_checks.odd_kernel(owner, kernel_size, order),
        )

    def planes(self, name: str, value: object) -> int:
        """Check a number of channels or the length of a vector."""
        return _checks.integer(self.owner, name, value)

    def length(self, name: str, value: object) -> int | None:
        """Check the length of a vector, or ``None`` for no vector."""
        return None if value is None else self.planes(name, value)

    def config(self, **more: Any) -> dict[str, Any]:
        """The checked arguments as the constructor takes them."""
        shape = self.shape
        shared = {
            'channel': shape.channel,
            'layers': shape.layers,
            'block': shape.block,
            'kernel_size': shape.kernel,
        }
        return shared | more


def outer_conv(plan: Plan, in_planes: int, out_planes: int, *, bias: bool) -> nn.Module:
    """A network's first or last convolution, two wider than those of its blocks."""
    return same_conv(plan.order, in_planes, out_planes, _sizes.outer_kernel(plan.kernel), bias=bias)


def same_conv(order: int, in_planes: int, out_planes: int, kernel: Size, *, bias: bool) -> nn.Module:
    """A convolution that keeps the size."""
    conv = cast(Any, DIMS[order].conv)
    return cast(nn.Module, conv(in_planes, out_planes, kernel, padding=_sizes.padding(kernel), bias=bias))


def stages(plan: Plan) -> list[nn.Module]:
    """The stages of a plan, in the order they run."""
    return [_BlockResStkNd(plan, stage) for stage in plan.stages]
