"""Samples that differ in channels or axes, which no network takes together."""

from mdnc.training.data.images import Colours, conversion_advice
from mdnc.training.data.reader import DataError

_SHOWN = 3  # names of each kind


class MixedKindsError(DataError):
    """Samples differ in channels or axes; the text names some of each kind.

    Args:
        text: What is said.
        colours: What images of these kinds may be converted to; None: they may not.
        counts: What there is of each kind, in words.
    """

    def __init__(self, text: str, colours: Colours | None, counts: str) -> None:
        super().__init__(text)
        self.colours, self.counts = colours, counts


class Kinds:
    """The samples by their number of channels and spatial axes.

    Example:
        >>> kinds = Kinds()
        >>> kinds.add((3, 64, 64), 'a.png'), kinds.add((1, 64, 64), 'b.png')
        (True, False)
        >>> kinds.first
        (3, 2)
    """

    def __init__(self) -> None:
        self._names: dict[tuple[int, int], list[str]] = {}
        self._counts: dict[tuple[int, int], int] = {}

    def add(self, shape: tuple[int, ...], name: str) -> bool:
        """Count a sample ``(C, L1, ...)``; whether it is of the kind of the first."""
        kind = (shape[0], len(shape) - 1)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        names = self._names.setdefault(kind, [])
        if len(names) < _SHOWN:
            names.append(name)
        return kind == self.first

    @property
    def first(self) -> tuple[int, int] | None:
        """Channels and spatial axes of the first sample."""
        return next(iter(self._counts), None)

    def refuse_several(self) -> None:
        """Refuse samples of several kinds.

        Raises:
            MixedKindsError: There are such.
        """
        if len(self._counts) < 2:
            return
        found = sorted(self._counts, key=lambda kind: -self._counts[kind])
        each = [f'{self._counts[kind]} of {_words(*kind)} ({self._some(kind)})' for kind in found]
        counts = ', '.join(f'{self._counts[kind]} of {_words(*kind)}' for kind in found)
        images = all(channels <= 4 and axes == 2 for channels, axes in found)
        most = max(channels for channels, _ in found)
        colours: Colours | None = ('rgb' if most > 2 else 'grey') if images else None
        advice = conversion_advice(most, most, 2) if images else ': name those of one kind, by a pattern or a list'
        raise MixedKindsError(
            f'the samples differ in channels or axes, and a network takes one kind: {", ".join(each)}{advice}',
            colours,
            counts,
        )

    def _some(self, kind: tuple[int, int]) -> str:
        names = self._names[kind]
        return ', '.join(names) + (', …' if self._counts[kind] > len(names) else '')


def _words(channels: int, axes: int) -> str:
    return f'{channels} channel{"s" * (channels != 1)} and {axes} {"axis" if axes == 1 else "axes"}'
