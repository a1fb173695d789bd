"""Intermediate feature maps by name, and the two parts of a network: features and head."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from mdnc.modules import _checks, ragged
from mdnc.modules._plan import Linear, Plan, Schedule, Single, Stage
from mdnc.modules._pretrained import _Pretrained
from mdnc.modules._receptive_field import fields
from mdnc.modules.ragged import Ragged, values


@dataclass(frozen=True)
class FeatureInfo:
    """Properties of the feature maps of a stage, known without running the network.

    Args:
        name: Path of the stage in the network.
        channels: Its channels.
        strides: Distance of neighbouring positions of the map, in positions of the input, on each axis; a fraction if
            the map is larger than the input, as in a decoder. For vector inputs relative to the first map.
        receptive_field: Largest number of positions of the input that a value of the map depends on, on each axis;
            norms, through which it depends on its whole plane, are ignored.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 1])
        >>> for info in net.feature_info:
        ...     print(info.name, info.channels, info.strides, info.receptive_field)
        netbody.1 8 (2, 2) (7, 7)
        netbody.2 16 (4, 4) (11, 11)
    """

    name: str
    channels: int
    strides: tuple[int | Fraction, ...]
    receptive_field: tuple[int, ...]


class Featured(_Pretrained):
    """Base of modules that return named feature maps of the stages of a plan."""

    _plan: Plan

    @abstractmethod
    def _entered(self, x: Tensor, lengths: Any) -> Tensor | Ragged: ...

    @abstractmethod
    def _left(self, y: Tensor | Ragged, name: str, x: Tensor, lengths: Any) -> Tensor: ...

    @abstractmethod
    def _run(self, x: Tensor | Ragged, schedule: Schedule, wanted: Sequence[str] = ()) -> dict[str, Any]: ...

    @abstractmethod
    def _run_single(self, part: Single, x: Any, source: Tensor | Ragged) -> Any: ...

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        """Name, channels, strides and receptive field of the output of each stage, in the order of `features`.

        Example:
            >>> import mdnc
            >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 1], kernel_size=(1, 3))
            >>> net.feature_info[-1]
            FeatureInfo(name='netbody.2', channels=16, strides=(1, 4), receptive_field=(1, 11))
        """
        axes = [fields(self._plan, axis) for axis in range(self._plan.order)]
        return tuple(
            FeatureInfo(
                name,
                self._plan.planes[name],
                tuple(_whole(axis[name].stride) for axis in axes),
                tuple(axis[name].length for axis in axes),
            )
            for name in self._stage_names
        )

    def features(
        self, x: Tensor, stages: Sequence[str | int] | None = None, *, lengths: Any = None
    ) -> dict[str, Tensor]:
        """Feature maps of stages; the network is computed only up to the last of them.

        They are what a forward hook on the stage gets (the first of a pair; in a decoder before cropping), with
        gradients, computed as `memory` says, also under ``torch.compile`` and with ``torch.export``.

        Args:
            x: The input of the network.
            stages: Paths of stages, as in `feature_info`, or indices into it, negative ones from the end; ``None``
                for all.
            lengths: Size of each sample of a padded batch, as `Network.forward` takes it.

        Returns:
            Maps ``(B, channels, M1, …)`` by path of the stage, in the order they are computed.

        Raises:
            TypeError: ``stages`` is not a sequence of paths and ints.
            ValueError: The network has no such stage, or refuses the input.

        Example:
            >>> import mdnc, torch
            >>> net = mdnc.modules.resnet.UNet2d(8, [1, 1, 1])
            >>> maps = net.features(torch.zeros(1, 1, 24, 24), stages=[0, 'conv_middle_up'])
            >>> {name: tuple(each.shape) for name, each in maps.items()}
            {'conv_down_list.0': (1, 8, 12, 12), 'conv_middle_up': (1, 16, 12, 12)}
        """
        asked = self._asked(stages)
        source = self._entered(x, lengths)
        if not asked:
            return {}
        wanted = [f'{name}:whole' for name in asked]
        given = self._run(source, self._plan.schedule(self.training, until=asked[-1]), wanted)
        return {name: self._left(given[whole], name, x, lengths) for name, whole in zip(asked, wanted, strict=True)}

    def forward_features(self, x: Tensor, *, lengths: Any = None) -> Tensor:
        """Feature maps of the last stage: the network without its head.

        Args:
            x: The input of the network.
            lengths: Size of each sample of a padded batch, as `Network.forward` takes it.
        """
        name = self._stage_names[-1]
        given = self._run(self._entered(x, lengths), self._plan.schedule(self.training, until=name), [name])
        return self._left(given[name], name, x, lengths)

    def forward_head(self, maps: Tensor, x: Tensor | None = None, *, lengths: Any = None) -> Any:
        """The head, that is all layers after the last stage: ``forward_head(forward_features(x))`` is ``net(x)``.

        With `deep_supervision` it returns the last output only, also in training.

        Args:
            maps: Maps of the last stage, ``(B, channels, M1, …)``.
            x: The input of the network; needed with ``amplitude=True``, otherwise unused.
            lengths: Size of each sample of a padded batch in the input of the network, as `Network.forward` takes it.

        Raises:
            ValueError: The head refuses these maps, or needs ``x``.
        """
        owner = f'{type(self).__name__}.forward_head'
        if not _checks.traced(maps):
            shape: list[str | int] = ['B', self._plan.planes[self._stage_names[-1]]]
            shape += [f'M{axis + 1}' for axis in range(self._plan.order)]
            _checks.tensor(owner, maps, shape, next(self.parameters(), None))
        before = self._stage_names[-1]
        read = maps if x is None else self._entered(x, lengths)
        given: dict[str, Any] = {before: maps if lengths is None else self._among(owner, maps, lengths)}
        for part in self._head:
            if x is None and any(isinstance(layer, Linear) and layer.amplitudes for layer in part.layers):
                raise ValueError(f'{owner}: x=None, but with amplitude=True the head reads the input of the network.')
            if part.takes not in ('', *given):
                raise ValueError(f'{owner}: {part.name} takes {part.takes}, which is not among the last maps.')
            given[part.name] = self._run_single(part, given[part.takes or before], read)
            before = part.name
        names = self._plan.results(training=False)
        found = tuple(values(given[name]) for name in names)
        if lengths is not None:
            found = tuple(ragged.unboxed(each, tuple(maps.shape[2:])) for each in found)
        return found if len(names) > 1 else found[0]

    def _among(self, owner: str, maps: Tensor, lengths: Any) -> Tensor | Ragged:
        # What is real of the maps of the last stage.
        if _checks.traced(maps):
            raise ValueError(f'{owner}: lengths= cannot be used in a graph that is traced from the maps only.')
        taken = ragged.sizes(owner, lengths, maps.shape[0], self._plan.order)
        sizes = [self._plan.course(size).sizes[self._stage_names[-1]] for size in taken]
        ragged.refuse_beyond(owner, sizes, tuple(maps.shape[2:]))
        return ragged.boxed(maps, sizes)

    @property
    def _stage_names(self) -> list[str]:
        return [stage.name for stage in self._plan.stages]

    @property
    def _head(self) -> list[Single]:
        last = max(index for index, part in enumerate(self._plan.parts) if isinstance(part, Stage))
        behind = self._plan.parts[last + 1 :]
        return [part for part in behind if isinstance(part, Single) and not part.training]

    def _asked(self, stages: Sequence[str | int] | None) -> list[str]:
        names = self._stage_names
        if stages is None:
            return names
        return picked(f'{type(self).__name__}.features', stages, names, names)


def picked(owner: str, stages: Sequence[str | int], names: Sequence[str], stage_names: Sequence[str]) -> list[str]:
    """The requested names, checked, in the order of ``names``.

    Args:
        owner: Name of the caller, for error messages.
        stages: Names, or indices into ``stage_names``.
        names: Legal names.
        stage_names: Names that indices refer to.

    Raises:
        TypeError: It is not a sequence of names and ints.
        ValueError: A name is unknown.
    """
    if isinstance(stages, (str, bytes)) or not isinstance(stages, Sequence):
        raise TypeError(
            f'{owner}: stages={stages!r} must be a sequence of names or indices of stages, or None for all.'
        )
    found = {_pick(owner, each, names, stage_names) for each in stages}
    return [name for name in names if name in found]


def _pick(owner: str, each: str | int, names: Sequence[str], stage_names: Sequence[str]) -> str:
    if isinstance(each, str):
        if each in names:
            return each
        raise ValueError(
            f'{owner}: stages contains {each!r}, which is not one of {", ".join(names)}.{_checks.near(each, names)}'
        )
    count = len(stage_names)
    index = _checks.integer(owner, 'stages', each, minimum=-count)
    if index >= count:
        raise ValueError(
            f'{owner}: stages has {index}, but there are {count} stages, of indices {-count} to {count - 1}.'
        )
    return stage_names[index]


def _whole(value: Fraction) -> int | Fraction:
    return value.numerator if value.denominator == 1 else value
