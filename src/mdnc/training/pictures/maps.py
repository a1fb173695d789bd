"""Inputs, targets and outputs beside each other: signals as lines, images as they are, volumes by slices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch
from numpy.typing import NDArray

from mdnc.training.pictures.page import Panel

Map = NDArray[Any]
_LONG = 40  # letters of a sample's name; of longer ones the end tells them apart
_INPUTS = 3  # channels of an input that are shown
_SLICES = 3  # of a volume
_STRIP = 4.0  # how much longer than wide a picture may be


@dataclass(frozen=True)
class Example:
    """One sample to be shown.

    Args:
        name: The sample's name.
        given: The network's input, ``(C, L1, ...)``.
        target: The truth, ``(L1, ...)``, NaN where it is not known; None where the input is the truth.
        output: What the network made of the input, ``(L1, ...)``; None where that is no map.
        channel: Which of several channels target and output are; None where there is one, or only the first is shown.
        words: What is to be said of it.
        step: Positions of the sample from one of the maps to the next; above 1 where a large one was thinned out.
    """

    name: str
    given: Map
    target: Map | None = None
    output: Map | None = None
    channel: int | None = None
    words: str = ''
    step: int = 1

    @property
    def maps(self) -> dict[str, Map]:
        """Target and output by their titles, as far as they are there."""
        both = {'target': self.target, 'output': self.output}
        return {title: values for title, values in both.items() if values is not None}

    @property
    def map(self) -> Map:
        """The first there is of target, output and input, ``(L1, ...)``."""
        return next(iter(self.maps.values()), self.given[0])

    def label(self, style: 'Style') -> str:
        """What stands beside it."""
        name = self.name if len(self.name) <= _LONG else f'…{self.name[1 - _LONG :]}'
        return name if self.channel is None else f'{name}\nchannel {self.channel + 1} of {style.channels}'


@dataclass(frozen=True)
class Style:
    """What the values are.

    Args:
        classes: Names of the classes, where targets and outputs are class numbers.
        alike: Whether inputs are of the same kind as outputs and share their scale.
        channels: How many channels targets and outputs have.
    """

    classes: Sequence[str] | None = None
    alike: bool = False
    channels: int = 1

    def note(self, example: Example) -> str:
        """What is written beside a title where not all is shown."""
        first = self.channels > 1 and self.classes is None and example.channel is None
        return f' (channel 1 of {self.channels})' if first else ''


def _inputs(given: Map, style: Style) -> dict[str, Map]:
    """The pictures of an input ``(C, L1, L2)`` by their titles."""
    # Three channels are taken for colours, unless they stand beside one channel of the same kind.
    if len(given) == 3 and not style.alike:
        low, high = given.min(), given.max()
        return {'input': np.moveaxis((given - low) / max(high - low, 1e-12), 0, -1)}
    if len(given) == 1 or style.alike:
        return {'input': given[0]}
    return {f'input (channel {number + 1} of {len(given)})': each for number, each in enumerate(given[:_INPUTS])}


def _slices(example: Example, style: Style) -> Iterator[tuple[str, dict[str, Map], dict[str, Map]]]:
    """Rows of pictures with their labels, inputs and others apart: one for an image, for a volume some slices."""
    label, there = example.label(style), example.maps
    if example.map.ndim == 2:
        yield label, _inputs(example.given, style), there
        return
    for axis, place, why in _places(example, style):
        cut = {title: values.take(place, axis) for title, values in there.items()}
        yield (
            f'{label}\nslice {place * example.step} of axis {axis + 1}{why}',
            _inputs(example.given.take(place, axis + 1), style),
            cut,
        )


def _places(example: Example, style: Style) -> list[tuple[int, int, str]]:
    """Axis and place of each slice of a volume, and why there: slices that are strips show little."""
    shape = example.map.shape
    count = _SLICES if example.channel is None else 1
    ratios = [max(plane) / min(plane) for plane in (np.delete(shape, axis) for axis in range(3))]
    axes = [axis for axis in range(3) if ratios[axis] <= _STRIP] or [int(np.argmin(ratios))]
    if count == 1 or len(axes) == 1:
        axis = min(axes, key=lambda each: ratios[each])
        return [(axis, *place) for place in _along(example, style, axis, count)]
    return [(axis, *_along(example, style, axis, 1)[0]) for axis in axes]


def _along(example: Example, style: Style, axis: int, count: int) -> list[tuple[int, str]]:
    """Up to ``count`` places along an axis: through the rarest classes first, then evenly spread over what is known."""
    flat = np.moveaxis(example.map, axis, 0).reshape(example.map.shape[axis], -1)
    found = dict(_rare(flat, style.classes)[:count]) if style.classes is not None and example.maps else {}
    known = np.flatnonzero(np.isfinite(flat).any(1))
    known = known if len(known) else np.arange(len(flat))
    for step in range(count):
        if len(found) < count:
            found.setdefault(int(known[(2 * step + 1) * len(known) // (2 * count)]), '')
    return sorted(found.items())


def _rare(flat: Map, classes: Sequence[str]) -> list[tuple[int, str]]:
    # Where each class has most of its voxels, the rarest class first; the first class is mostly background.
    counts = np.stack([(flat == number).sum(1) for number in range(len(classes))])
    order = [number for number in np.argsort(counts.sum(1), kind='stable') if counts[number].any() and number > 0]
    places: dict[int, str] = {}
    for number in order:
        places.setdefault(int(counts[number].argmax()), f', through {classes[number]}')
    return list(places.items())


def _draw_images(figure: Any, examples: Sequence[Example], style: Style) -> None:
    rows = [(example, *row) for example in examples for row in _slices(example, style)]
    first, _, inputs, others = rows[0]
    titles = [title + (style.note(first) if style.alike else '') for title in inputs]
    titles += [title + style.note(first) for title in others]
    errors = ['output − target' + style.note(first)] if style.classes is None and 'target' in others else []
    grid = figure.subplots(len(rows), len(titles + errors), squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for line, (_, label, given, maps) in zip(grid, rows, strict=True):
        line[0].set_ylabel(label, fontsize=8)
        _draw_inputs(line[: len(given)], list(given.values()), maps, style)
        _draw_row(figure, line[len(given) :], maps, style)
    for axes, title in zip(grid[0], [*titles, *errors], strict=True):
        axes.set_title(title, fontsize=10 if len(title) > 16 else None)
    if style.classes is not None and others:
        colours = _class_colours(len(style.classes))
        handles = [
            Patch(facecolor=colours(number), edgecolor='0.5', label=name) for number, name in enumerate(style.classes)
        ]
        each = 0.8 + 0.09 * max(map(len, style.classes))  # inches that a name of ordinary letters takes
        columns = max(1, int(2.9 * len(titles) / each))
        figure.legend(handles=handles, loc='outside lower center', ncols=min(len(handles), columns))


def _class_colours(count: int) -> ListedColormap:
    # The first class is mostly background.
    others = colormaps['tab10' if count <= 11 else 'gist_ncar'].resampled(max(count - 1, 1))
    colours = [(0.1, 0.1, 0.1, 1.0), *(others(number / max(count - 2, 1)) for number in range(count - 1))]
    return ListedColormap(colours)


def _aspect(values: Map) -> str:
    sides = values.shape[:2]
    return 'equal' if max(sides) <= _STRIP * min(sides) else 'auto'


def _limits(maps: dict[str, Map]) -> tuple[float, float]:
    known = [values[np.isfinite(values)] for values in maps.values()]
    values = next((each for each in known if each.size), np.zeros(1))
    return float(values.min()), float(values.max())


def _draw_inputs(line: Sequence[Any], given: Sequence[Map], maps: dict[str, Map], style: Style) -> None:
    low, high = _limits(maps) if style.alike and maps else (None, None)
    for axes, values in zip(line, given, strict=True):
        axes.imshow(values, cmap='gray', vmin=low, vmax=high, aspect=_aspect(values))


def _draw_row(figure: Any, line: Sequence[Any], maps: dict[str, Map], style: Style) -> None:
    if not maps:
        return
    low, high = _limits(maps)
    for axes, values in zip(line, maps.values(), strict=False):
        if style.classes is not None:
            count = len(style.classes)
            kind: dict[str, Any] = {
                'cmap': _class_colours(count),
                'norm': BoundaryNorm(np.arange(count + 1) - 0.5, count),
            }
        else:
            kind = {'cmap': 'gray' if style.alike else 'viridis', 'vmin': low, 'vmax': high}
        image = axes.imshow(values, aspect=_aspect(values), **kind)
    if style.classes is not None:
        return
    figure.colorbar(image, ax=line[len(maps) - 1], fraction=0.046)
    if 'target' in maps:
        difference = maps['output'] - maps['target']
        known = np.abs(difference[np.isfinite(difference)])
        # A few pixels along edges would otherwise make all others white.
        reach = float(np.percentile(known, 99.5)) if known.size else 1.0
        reach = reach or 1.0
        image = line[len(maps)].imshow(difference, cmap='RdBu_r', vmin=-reach, vmax=reach, aspect=_aspect(difference))
        figure.colorbar(image, ax=line[len(maps)], fraction=0.046)


def _draw_lines(figure: Any, examples: Sequence[Example], style: Style) -> None:
    apart = not style.alike and bool(examples[0].maps)
    form = 'default' if style.classes is None else 'steps-mid'
    grid = figure.subplots(len(examples) * (1 + apart), 1, squeeze=False, sharex=True)[:, 0]
    for number, example in enumerate(examples):
        upper, lower = grid[number * (1 + apart)], grid[number * (1 + apart) + apart]
        upper.plot(example.given[:1].T if style.alike else example.given.T, color='0.6', label='input')
        upper.set_title(example.label(style).replace('\n', ', ') + style.note(example), fontsize=9)
        if example.target is not None:
            lower.plot(example.target, color='tab:blue', label='target', linewidth=2.5, alpha=0.6, drawstyle=form)
        if example.output is not None:
            lower.plot(example.output, color='tab:red', label='output', linewidth=1, drawstyle=form)
        if style.classes is not None and apart:
            lower.set_yticks(range(len(style.classes)), style.classes)
        for axes in {upper, lower}:
            axes.grid(alpha=0.3)
            axes.legend(*_once(axes), loc='upper right', fontsize=8)
    grid[-1].set_xlabel('position')


def _once(axes: Any) -> tuple[list[Any], list[str]]:
    # A signal of several channels is several lines with one meaning.
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    return list(handles.values()), list(handles)


def maps_panel(examples: Sequence[Example], style: Style) -> Panel:
    """A panel with inputs and, where they are maps, targets, outputs and, for quantities, their difference.

    Args:
        examples: At least one; all of one order, 1, 2 or 3.
        style: What the values are.
    """
    first = examples[0]
    if first.map.ndim == 1:
        height = 1.9 * len(examples) * (1 if style.alike or not first.maps else 2) + 0.5
        width = 8.0 if first.maps else 5.6
        return Panel(partial(_draw_lines, examples=examples, style=style), width, height)
    rows = [row for example in examples for row in _slices(example, style)]
    _, inputs, others = rows[0]
    columns = len(inputs) + len(others) + (style.classes is None and 'target' in others)
    legend = 0.5 + 0.08 * len(style.classes) if style.classes is not None and others else 0.5
    return Panel(partial(_draw_images, examples=examples, style=style), 2.9 * columns, 2.5 * len(rows) + legend)
