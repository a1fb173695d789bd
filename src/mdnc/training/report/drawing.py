"""Charts as parts of a page: drawn once, in colours that follow the page's, light or dark."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mdnc.analysis.picture import FAINT, INK
from mdnc.training.pictures import Panel

if TYPE_CHECKING:
    from matplotlib.artist import Artist

# Colours that stand for the page's own, by which they are replaced.
_WORDS, _LINES, _PAPER, _WHITE = '#010203', '#040506', '#fdfeff', '#ffffff'
_PAGE = {_WORDS: 'var(--ink)', INK: 'var(--ink)', _LINES: 'var(--line)', FAINT: 'var(--faint)', _PAPER: 'var(--paper)'}
_MARKS = {'#1f77b4': 'var(--blue)', '#d62728': 'var(--red)', '#ff7f0e': 'var(--orange)', '#999999': 'var(--faint)'}
_STYLE: Any = {
    'svg.fonttype': 'none',
    'font.family': 'sans-serif',
    'figure.facecolor': 'none',
    'axes.facecolor': 'none',
    'savefig.facecolor': 'none',
    'text.color': _WORDS,
    'axes.labelcolor': _WORDS,
    'axes.titlecolor': _WORDS,
    'axes.titlesize': 11,
    'xtick.color': _LINES,
    'ytick.color': _LINES,
    'xtick.labelcolor': _WORDS,
    'ytick.labelcolor': _WORDS,
    'axes.edgecolor': _LINES,
    'legend.facecolor': _PAPER,
    'legend.edgecolor': _LINES,
    'legend.framealpha': 0.8,
}
_POINTS = 300  # of more a picture is smaller than a list
_INCH = 96  # pixels of a page
_NARROW = 480  # pixels, below which a chart may be as narrow as the page


class Drawing(NamedTuple):
    """A chart on a page.

    Args:
        words: What it shows.
        svg: The drawing.
        width: Pixels that it takes where there is room.
        least: Pixels that it needs, so that its words can be read.
    """

    words: str
    svg: Markup
    width: int
    least: int


def _is_crowd(artist: 'Artist') -> bool:
    offsets = getattr(artist, 'get_offsets', None)
    return offsets is not None and len(offsets()) > _POINTS


def as_drawing(figure: Figure, words: str, whites: bool = False) -> Drawing:
    """Turn a matplotlib figure into a part of a page; ``whites`` says that its white is the paper."""
    for artist in figure.findobj(_is_crowd):
        artist.set_rasterized(True)
    text = io.StringIO()
    # Identifiers follow from the words: drawings on one page must not share them.
    with matplotlib.rc_context({'svg.hashsalt': words, 'svg.fonttype': 'none'}):
        figure.savefig(text, format='svg', metadata={'Date': None}, dpi=110)
    svg = text.getvalue()
    svg = re.sub(r'^.*?(?=<svg)|<metadata>.*?</metadata>|\s+id="(?:[a-z]+_)+\d+"', '', svg, flags=re.DOTALL)
    # Colours of an image are what they are, and those of its legend the same.
    marks = {} if '<image' in svg else _MARKS
    for colour, name in (_PAGE | marks | ({_WHITE: 'var(--paper)'} if whites else {})).items():
        svg = svg.replace(colour, name)
    svg = svg.replace('<svg ', f'<svg role="img" aria-label="{Markup.escape(words)}" ', 1)
    width = round(figure.get_figwidth() * _INCH)
    return Drawing(words, Markup(svg), width, 0 if width <= _NARROW else max(_NARROW, round(0.55 * width)))


@contextmanager
def page_colours() -> Iterator[None]:
    """Let matplotlib draw in colours that become the page's."""
    with matplotlib.rc_context(_STYLE):
        yield


def draw(panel: Panel, words: str) -> Drawing:
    """Draw a panel."""
    with page_colours():
        layout = ConstrainedLayoutEngine(w_pad=0.08)
        figure = Figure(figsize=(panel.width, panel.height), layout=layout, dpi=110)
        panel.draw(figure)
        return as_drawing(figure, words)
