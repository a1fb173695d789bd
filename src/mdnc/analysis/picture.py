"""Pictures of networks, drawn by matplotlib from a sketch, without a display."""

import math
import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from mdnc._extras import require
from mdnc._files import as_path, whole_file
from mdnc.analysis.fake_run import trial
from mdnc.analysis.sketch import Column, Sketch, Skip, Slab, sketch
from mdnc.modules import Network, _checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ('svg', 'png', 'pdf')

# Colours that are also distinct for colour-blind people, after Okabe and Ito; with the texts of the legend.
ROLES = {
    'vector': ('#cc79a7', 'vector'),
    'conv': ('#9aa5b1', 'convolution'),
    'down': ('#56a0d3', 'stage, divides the size'),
    'middle': ('#e69f00', 'middle stage'),
    'up': ('#3fae8f', 'stage, multiplies the size'),
    'keep': ('#a6d9c7', 'stage, keeps the size'),
    'layer': ('#e4dcc8', 'norm and activation'),
}
INK, FAINT = '#1f2933', '#7b8794'

# Lengths in inches.
TALLEST, LOWEST = 2.3, 0.3
GAP = 0.07
COLUMN = 1.3
ROW = 0.2
SKIP = 0.27
ARC = 0.2
MARGIN = 1.35
LEGEND = 0.5
TITLE = 0.4


class _Paper:
    """Axes in inches, 0 at the centre line of the maps."""

    def __init__(self, sketch: Sketch) -> None:
        matplotlib = require('matplotlib.figure', 'analysis')
        self.patches = require('matplotlib.patches', 'analysis')
        self.lines = require('matplotlib.lines', 'analysis')
        self.path = require('matplotlib.path', 'analysis').Path
        above = TALLEST / 2 + ARC + SKIP * len(sketch.skips) + TITLE
        below = TALLEST / 2 + ROW * (len(sketch.rows) + 2) + LEGEND
        width = 2 * MARGIN + sum(map(_width, sketch.columns))
        self.figure: Figure = matplotlib.Figure(figsize=(width, above + below), dpi=150, facecolor='white')
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(-below, above))
        self.axes.set_axis_off()
        self.top, self.bottom, self.width = above, -below, width

    def words(self, x: float, y: float, text: str, **how: Any) -> None:
        """Write."""
        style: dict[str, Any] = {'ha': 'center', 'va': 'center', 'fontsize': 8, 'color': INK}
        self.axes.text(x, y, text, **style | how)

    def arrow(self, *points: tuple[float, float], colour: str = INK) -> None:
        """Draw an arrow along a line of points."""
        path = self.path(points)
        style = {'arrowstyle': '-|>', 'mutation_scale': 9, 'lw': 1, 'color': colour, 'joinstyle': 'round'}
        self.axes.add_patch(self.patches.FancyArrowPatch(path=path, shrinkA=0, shrinkB=0, fill=False, **style))

    def arc(self, start: tuple[float, float], end: tuple[float, float], style: str) -> None:
        """Draw an arc between two points."""
        raised = [(x, y + ARC) for x, y in (start, end)]
        path = self.path([start, *raised, end], [1, 4, 4, 4])
        self.axes.add_patch(self.patches.PathPatch(path, fill=False, lw=0.9, ls=style, ec=INK))


def _thickness(slab: Slab) -> float:
    return 0.06 + 0.033 * math.log2(slab.planes + 1)


def _extent(column: Column) -> float:
    return sum(map(_thickness, column.slabs)) + GAP * (len(column.slabs) - 1)


def _width(column: Column) -> float:
    return max(COLUMN, _extent(column) + 0.5)


def _height(side: float) -> float:
    # The root keeps the narrow end of deep networks visible.
    return max(TALLEST * math.sqrt(side), LOWEST)


def _draw_slab(paper: _Paper, slab: Slab, x: float, role: str) -> float:
    """Draw a slab at x with its shortcut; return its end."""
    end = x + _thickness(slab)
    before, after = _height(slab.before) / 2, _height(slab.after) / 2
    corners = [(x, -before), (end, -after), (end, after), (x, before)]
    paper.axes.add_patch(paper.patches.Polygon(corners, closed=True, fc=ROLES[role][0], ec=INK, lw=0.8))
    if slab.shortcut:
        start, stop = (x - GAP / 2, before + 0.02), (end + GAP / 2, after + 0.02)
        paper.arc(start, stop, 'dashed' if slab.shortcut == 'identity' else 'solid')
    return end


def _draw_column(paper: _Paper, column: Column, left: float) -> list[float]:
    """Draw a part of the network with its texts; return the start of each slab, and the end."""
    middle = left + _width(column) / 2
    edges = [middle - _extent(column) / 2]
    for slab in column.slabs:
        edges.append(_draw_slab(paper, slab, edges[-1], column.role) + GAP)
    edges[-1] -= GAP
    top = -TALLEST / 2 - 1.3 * ROW
    paper.words(middle, top, column.name, fontsize=7.5, fontweight='bold')
    for row, cell in enumerate(column.cells, start=1):
        paper.words(middle, top - row * ROW, cell)
    return edges


def _draw_skip(paper: _Paper, skip: Skip, ends: tuple[tuple[float, float], ...], level: int) -> None:
    (start, low), (end, high) = ends
    height = TALLEST / 2 + ARC + SKIP * (level + 0.5)
    paper.arrow((start, low), (start, height), (end, height), (end, high), colour=FAINT)
    words = {'fontsize': 7.5, 'bbox': {'fc': 'white', 'ec': 'none', 'pad': 1.5}}
    paper.words((start + end) / 2, height, f'{"skip of " if skip.joins else ""}{skip.planes}', **words)


def _draw_skips(paper: _Paper, sketch: Sketch, edges: list[list[float]]) -> None:
    for level, skip in enumerate(reversed(sketch.skips)):
        giver, taker = sketch.columns[skip.giver].slabs[-1], sketch.columns[skip.taker].slabs[0]
        leaves, enters = edges[skip.giver], edges[skip.taker]
        start = (leaves[-2] - GAP / 2, giver.before) if skip.held else (leaves[-1] + GAP / 2, giver.after)
        end = (enters[1], taker.after) if skip.late else (enters[0], taker.before)
        ends = (start[0], _height(start[1]) / 2), (end[0] - GAP / 2, _height(end[1]) / 2)
        _draw_skip(paper, skip, ends, level)


def _draw_flow(paper: _Paper, sketch: Sketch, edges: list[list[float]]) -> None:
    """Draw the arrows from the input through the parts to the output."""
    stops = [(0.45, 0.45), *((column[0], column[-1]) for column in edges), (paper.width - 0.45, 0.0)]
    apart = [skip.taker for skip in sketch.skips if not skip.joins]
    for i, ((_, start), (end, _)) in enumerate(pairwise(stops)):
        if i not in apart:
            paper.arrow((start + 0.04, 0), (end - 0.03, 0))
    first, last = MARGIN / 2 + 0.1, paper.width - MARGIN / 2 - 0.1
    for x, word, shape in ((first, 'input', sketch.source), (last, 'output', sketch.result)):
        paper.words(x, 0.3, word, fontweight='bold')
        paper.words(x, 0.14, shape, fontsize=7)


def _draw_legend(paper: _Paper, sketch: Sketch) -> None:
    roles = {column.role for column in sketch.columns}
    shortcuts = {slab.shortcut for column in sketch.columns for slab in column.slabs}
    handles: list[Any] = [
        paper.patches.Patch(fc=colour, ec=INK, lw=0.8, label=words)
        for role, (colour, words) in ROLES.items()
        if role in roles
    ]
    for shortcut, style, words in (
        ('identity', '--', 'shortcut, identity'),
        ('conv', '-', 'shortcut, 1 × 1 convolution'),
    ):
        if shortcut in shortcuts:
            handles.append(paper.lines.Line2D([], [], color=INK, lw=0.9, ls=style, label=words))
    columns = len(handles) if paper.width > 1.9 * len(handles) else (len(handles) + 1) // 2
    paper.figure.legend(handles=handles, ncol=columns, loc='lower center', frameon=False, fontsize=8)


def figure(net: nn.Module, input_size: Any = None) -> 'Figure':
    """Draw a network as a matplotlib figure.

    Parts are drawn in the order they run, from left to right: a slab is a convolution or a residual block; its height
    shows the size of its maps and its thickness their channels (as root and logarithm). Arcs are shortcuts, and long
    arrows are skips.

    Args:
        net: One of mdnc's networks.
        input_size: Spatial size of the input, one int or one for each axis, or ``(C, L1, …)``; ``None`` to write sizes
            relative to the input. A decoder has its own.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: An argument has the wrong type.
        ValueError: The network refuses inputs of this size.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.UNet2d(8, [1, 1, 1])
        >>> drawn = mdnc.analysis.figure(net, 64)
        >>> type(drawn).__name__
        'Figure'
    """
    if not isinstance(net, Network):
        raise TypeError(f'figure: net must be one of the networks of mdnc, not {type(net).__name__}.')
    size = None
    if input_size is not None and net.plan.in_size is None:
        size = trial('figure', net, input_size).shape[2:]
    drawn = sketch(net, size)
    paper = _Paper(drawn)
    edges, left = [], MARGIN
    for column in drawn.columns:
        edges.append(_draw_column(paper, column, left))
        left += _width(column)
    for row, words in enumerate(drawn.rows, start=1):
        paper.words(MARGIN - 0.1, -TALLEST / 2 - (1.3 + row) * ROW, words, ha='right', color=FAINT)
    _draw_flow(paper, drawn, edges)
    _draw_skips(paper, drawn, edges)
    _draw_legend(paper, drawn)
    paper.words(paper.width / 2, paper.top - TITLE / 2, drawn.title, fontsize=11)
    return paper.figure


def draw(net: nn.Module, path: str | os.PathLike[str], input_size: Any = None) -> Path:
    """Draw a network to a file, as in `figure`.

    Args:
        net: One of mdnc's networks.
        path: The file, whose name ends in ``.svg``, ``.png`` or ``.pdf``; an incomplete file is never left.
        input_size: See `figure`.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: The folder does not exist.
        IsADirectoryError: ``path`` is a folder.
        TypeError: An argument has the wrong type.
        ValueError: An argument has an illegal value.

    Example:
        >>> import mdnc, tempfile
        >>> net = mdnc.modules.resnet.UNet2d(8, [1, 1, 1])
        >>> draw(net, tempfile.mkdtemp() + '/unet.svg', (64, 63)).name
        'unet.svg'
    """
    target = as_path('draw', 'path', path)
    kind = _checks.word('draw', "path's suffix", target.suffix.removeprefix('.').lower(), FORMATS)
    drawn = figure(net, input_size)
    # Without a date and with a fixed salt for its identifiers, the same network gives the same file.
    date = {'svg': {'Date': None}, 'pdf': {'CreationDate': None}}.get(kind, {})
    with require('matplotlib', 'analysis').rc_context({'svg.hashsalt': 'mdnc'}), whole_file(target) as file:
        drawn.savefig(file, format=kind, metadata=date)
    return target
