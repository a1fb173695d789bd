"""A few samples with their targets, as pictures that stand in a page by themselves."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdnc._extras import require
from mdnc.training.data.reader import Array, class_name
from mdnc.training.data.sources import Pair

_SHOWN = 3
_POINTS = 600  # of a curve
_SIDE = 320  # pixels of an image at most
_LARGEST = 2**26  # values of a sample that is read for its picture
_WIDE, _HIGH = 320, 120
_LINES = ('#1f77b4', '#d95f02', '#2f9e44', '#9c36b5')


@dataclass(frozen=True)
class Example:
    """A sample as a page shows it.

    Args:
        name: Its name.
        label: What its target says, where that is no map.
        svg: A curve, as SVG; empty for images.
        images: PNG images with what they are, as data URIs.
    """

    name: str
    label: str = ''
    svg: str = ''
    images: tuple[tuple[str, str], ...] = ()


def make_examples(pair: Pair, order: int) -> tuple[Example, ...]:
    """Pictures of the first, the middle and the last sample; what cannot be read has none."""
    places = np.unique(np.linspace(0, len(pair.inputs) - 1, _SHOWN).astype(int))
    return tuple(made for place in places if (made := _example(pair, int(place), order)) is not None)


def _example(pair: Pair, number: int, order: int) -> Example | None:
    try:
        if np.prod(pair.inputs.shape(number)) > _LARGEST:
            return None
        values = pair.inputs.read(number)
        values = values[None] if values.ndim == order else values
        target = None if pair.targets is None else pair.targets.read(number)
    except (OSError, ValueError, RuntimeError, KeyError, SyntaxError, EOFError):
        return None
    label, is_map = '', target is not None and target.shape[-order:] == values.shape[1:]
    if target is not None and not is_map:
        label = class_name(target) or ', '.join(f'{each:g}' for each in target.ravel()[:4])
    name = pair.inputs.name(number)
    if order == 1:
        rows = [
            *values[: len(_LINES)],
            *([target.reshape(-1, values.shape[1])[0]] if is_map and target is not None else []),
        ]
        return Example(name, label, _curves(rows))
    images = [('input', _png(_plane(values)))]
    if is_map and target is not None:
        images.append(('target', _png(_plane(target.reshape(-1, *values.shape[1:])[:1]), 'viridis')))
    return Example(name, label, images=tuple(images))


def _curves(rows: Sequence[Array]) -> str:
    lines = []
    for row, colour in zip(rows, (*_LINES, '#868e96'), strict=False):
        step = max(1, len(row) // _POINTS)
        shown = np.nan_to_num(row[::step].astype(np.float64))
        low, high = float(shown.min()), float(shown.max())
        heights = (_HIGH - 4) - (shown - low) / (high - low or 1) * (_HIGH - 8)
        across = np.linspace(2, _WIDE - 2, len(shown))
        points = ' '.join(f'{x:.1f},{y:.1f}' for x, y in zip(across, heights, strict=True))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
    return f'<svg viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="signal">{"".join(lines)}</svg>'


def _plane(values: Array) -> Array:
    """The middle plane of a volume, or an image; three channels of bytes are colours."""
    if values.ndim == 4:
        thin = int(np.argmin(values.shape[1:]))
        values = np.take(values, values.shape[1 + thin] // 2, 1 + thin)
    step = max(1, -(-max(values.shape[1:]) // _SIDE))
    values = values[:, ::step, ::step]
    if len(values) == 3 and values.dtype == np.uint8:
        return np.moveaxis(values, 0, -1)
    plane: Array = np.nan_to_num(values[0].astype(np.float64))
    return plane


def _png(plane: Array, colours: str = 'gray') -> str:
    file = io.BytesIO()
    require('matplotlib.image', 'train').imsave(file, plane, cmap=colours, format='png', metadata={'Software': None})
    return 'data:image/png;base64,' + base64.b64encode(file.getvalue()).decode()
