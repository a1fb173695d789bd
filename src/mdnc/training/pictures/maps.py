"""Inputs, targets and outputs beside each other: signals as lines, images as they are, volumes by middle slices."""

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


@dataclass(frozen=True)
class Example:
    """One sample to be shown.

    Args:
        name: The sample's name.
        given: The network's input, ``(C, L1, ...)``.
        target: The truth, ``(L1, ...)``, NaN where it is not known; None where the input is the truth.
        output: What the network made of the input, ``(L1, ...)``.
    """

    name: str
    given: Map
    target: Map | None
    output: Map


@dataclass(frozen=True)
class Style:
    """What the values are.

    Args:
        classes: Names of the classes, where targets and outputs are class numbers.
        alike: Whether inputs are of the same kind as outputs and share their scale.
        channels: How many channels targets and outputs have; the first is shown.
    """

    classes: Sequence[str] | None = None
    alike: bool = False
    channels: int = 1

    @property
    def note(self) -> str:
        """What is written beside a title where not all is shown."""
        return f' (channel 1 of {self.channels})' if self.channels > 1 and self.classes is None else ''


def _picture(given: Map, style: Style) -> Map:
    # Three channels are taken for colours, unless they stand beside one channel of the same kind.
    if len(given) != 3 or style.alike:
        first: Map = given[0]
        return first
    low, high = given.min(), given.max()
    colours: Map = np.moveaxis((given - low) / max(high - low, 1e-12), 0, -1)
    return colours


def _slices(example: Example, style: Style) -> Iterator[tuple[str, dict[str, Map]]]:
    """Rows of pictures: one for an image, for a volume one for the middle slice across each axis."""
    maps = {'input': example.given, 'target': example.target, 'output': example.output}
    there = {title: values for title, values in maps.items() if values is not None}
    if example.output.ndim == 2:
        yield example.name, {t: _picture(v, style) if t == 'input' else v for t, v in there.items()}
        return
    for axis in range(3):
        middle = example.output.shape[axis] // 2
        cut = {t: v.take(middle, axis - 3) for t, v in there.items()}
        yield (
            f'{example.name}\nslice {middle} of axis {axis + 1}',
            {t: _picture(v, style) if t == 'input' else v for t, v in cut.items()},
        )


def _draw_images(figure: Any, examples: Sequence[Example], style: Style) -> None:
    rows = [row for example in examples for row in _slices(example, style)]
    titles = list(rows[0][1])
    errors = style.classes is None and 'target' in titles
    grid = figure.subplots(len(rows), len(titles) + errors, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for line, (label, maps) in zip(grid, rows, strict=True):
        line[0].set_ylabel(label, fontsize=8)
        _draw_row(figure, line, maps, style)
    for axes, title in zip(grid[0], [*titles, 'output − target'], strict=False):
        axes.set_title(title + (style.note if title != 'input' or style.alike else ''))
    if style.classes is not None:
        colours = _class_colours(len(style.classes))
        handles = [Patch(color=colours(number), label=name) for number, name in enumerate(style.classes)]
        each = 0.8 + 0.09 * max(map(len, style.classes))  # inches that a name of ordinary letters takes
        columns = max(1, int(2.9 * len(titles) / each))
        figure.legend(handles=handles, loc='outside lower center', ncols=min(len(handles), columns))


def _class_colours(count: int) -> ListedColormap:
    # The first class is mostly background.
    others = colormaps['tab10' if count <= 11 else 'gist_ncar'].resampled(max(count - 1, 1))
    colours = [(0.1, 0.1, 0.1, 1.0), *(others(number / max(count - 2, 1)) for number in range(count - 1))]
    return ListedColormap(colours)


def _draw_row(figure: Any, line: Sequence[Any], maps: dict[str, Map], style: Style) -> None:
    truth = maps.get('target', maps['output'])
    low, high = float(np.nanmin(truth)), float(np.nanmax(truth))
    for axes, (title, values) in zip(line, maps.items(), strict=False):
        if title == 'input' and not style.alike:
            axes.imshow(values, cmap='gray')
        elif style.classes is not None:
            count = len(style.classes)
            axes.imshow(values, cmap=_class_colours(count), norm=BoundaryNorm(np.arange(count + 1) - 0.5, count))
        else:
            image = axes.imshow(values, cmap='gray' if style.alike else 'viridis', vmin=low, vmax=high)
    if style.classes is None:
        figure.colorbar(image, ax=line[len(maps) - 1], fraction=0.046)
    if style.classes is None and 'target' in maps:
        difference = maps['output'] - maps['target']
        # A few pixels along edges would otherwise make all others white.
        reach = float(np.nanpercentile(np.abs(difference), 99.5)) or 1.0
        image = line[len(maps)].imshow(difference, cmap='RdBu_r', vmin=-reach, vmax=reach)
        figure.colorbar(image, ax=line[len(maps)], fraction=0.046)


def _draw_lines(figure: Any, examples: Sequence[Example], style: Style) -> None:
    apart, form = not style.alike, 'default' if style.classes is None else 'steps-mid'
    grid = figure.subplots(len(examples) * (1 + apart), 1, squeeze=False, sharex=True)[:, 0]
    for number, example in enumerate(examples):
        upper, lower = grid[number * (1 + apart)], grid[number * (1 + apart) + apart]
        upper.plot(example.given[:1].T if style.alike else example.given.T, color='0.6', label='input')
        upper.set_title(example.name + style.note, fontsize=9)
        if example.target is not None:
            lower.plot(example.target, color='tab:blue', label='target', linewidth=2.5, alpha=0.6, drawstyle=form)
        lower.plot(example.output, color='tab:red', label='output', linewidth=1, drawstyle=form)
        if style.classes is not None:
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
    """A panel with inputs, targets, outputs and, for quantities, their difference.

    Args:
        examples: At least one; all of one order, 1, 2 or 3.
        style: What the values are.
    """
    if examples[0].output.ndim == 1:
        height = 1.9 * len(examples) * (1 if style.alike else 2) + 0.5
        return Panel(partial(_draw_lines, examples=examples, style=style), 8.0, height)
    rows = len(examples) * (3 if examples[0].output.ndim == 3 else 1)
    columns = 2 + (examples[0].target is not None) * (1 if style.classes is not None else 2)
    return Panel(partial(_draw_images, examples=examples, style=style), 2.9 * columns, 2.5 * rows + 0.5)
