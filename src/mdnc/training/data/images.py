"""Images: PNG, JPEG and the like, and TIFF, as arrays with channels first."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mdnc._extras import require
from mdnc.training.data.grid import Grid
from mdnc.training.data.reader import Array, DataError

# Pillow tells formats by their content, and one of them (EPS) is a program that it lets Ghostscript run.
_FORMATS = ('PNG', 'JPEG', 'TIFF', 'BMP', 'GIF', 'WEBP')
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
Colours = Literal['rgb', 'grey']


def conversion_advice(channels: int, others: int, order: int) -> str:
    """What helps where samples differ in channels, if they may be images in grey, in colour or with transparency."""
    pictures = order == 2 and max(channels, others) <= 4
    return ": for image files, colours='rgb' or 'grey' converts all of them" if pictures else ''


@dataclass(frozen=True)
class PixelOptions:
    """How the pixels of images are taken.

    Args:
        palette: Whether an image of a palette is the colours that it shows, ``(3, H, W)``, or the indices of these,
            ``(1, H, W)``, as masks of classes are often stored.
        colours: What all images become, ``'rgb'`` or ``'grey'``; None: they stay as they are.
        flat: Whether an image is of numbers and no colours: one that is stored as grey in three channels is one.
    """

    palette: bool = True
    colours: Colours | None = None
    flat: bool = False

    def apply(self, pixels: Array) -> Array:
        """What becomes of ``(C, H, W)``.

        Raises:
            DataError: Colours were found where numbers must be.
        """
        count = len(pixels)
        if pixels.ndim != 3 or count > 4:
            return pixels
        if self.flat and count > 1:
            shown = pixels[: count - 1 + count % 2]  # without what is transparent
            if (shown != shown[:1]).any():
                raise DataError('it shows colours, but must hold one number a pixel: that of its class')
            return shown[:1]
        if self.colours == 'rgb':
            return pixels[:3] if count > 2 else np.repeat(pixels[:1], 3, 0)
        if self.colours == 'grey':
            return np.tensordot(_LUMA, pixels[:3], 1)[None] if count > 2 else pixels[:1]
        return pixels


SHOWN = PixelOptions()
NUMBERS = PixelOptions(palette=False)


def open_image(path: str, look: PixelOptions = SHOWN) -> Array:
    """A PNG, JPEG, … as ``(1, H, W)`` or, with colours, ``(3 or 4, H, W)``, turned as its camera says (EXIF)."""
    image, operations = require('PIL.Image', 'data'), require('PIL.ImageOps', 'data')
    with image.open(path, formats=_FORMATS) as file:
        shown = operations.exif_transpose(file)
        if shown.mode == 'CMYK' or (shown.mode in ('P', 'PA') and look.palette):
            shown = shown.convert('RGB')
        pixels = np.asarray(shown)
    return look.apply(pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0))


def _decode_pages(path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    # Pillow decodes what tifffile leaves to the package imagecodecs, as long as the values are ordinary ones.
    image, sequence = require('PIL.Image', 'data'), require('PIL.ImageSequence', 'data')
    with image.open(path, formats=('TIFF',)) as file:
        pages = [np.asarray(page) for page in sequence.Iterator(file)]
    pixels = np.stack(pages)
    return pixels.reshape(shape) if pixels.size == np.prod(shape) and pixels.dtype == dtype else None


def _pixels(path: str, series: Any) -> Any:
    if series.dataoffset is not None:  # stored as it is, in one piece
        return require('tifffile', 'data').memmap(path, mode='r')
    try:
        return series.asarray()
    except ValueError as error:
        if 'imagecodecs' not in str(error):
            raise
        pixels = _decode_pages(path, series.shape, series.dtype)
        if pixels is None:
            codec = getattr(series.keyframe.compression, 'name', 'that')
            raise DataError(f"its compression {codec} needs imagecodecs; run: pip install 'mdnc[data]'") from error
        return pixels


def _arranged(pixels: Any, axes: str, named: bool) -> tuple[Any, str]:
    """Channels first, and the letters of the axes of space; where axes are ``named``, those of one value are none."""
    if named:
        lone = [place for place, letter in enumerate(axes) if pixels.shape[place] == 1 and letter not in 'YX']
        pixels = pixels[tuple(0 if place in lone else slice(None) for place in range(len(axes)))]
        axes = ''.join(letter for place, letter in enumerate(axes) if place not in lone)
    colours = 'CS' if named else 'S'
    order = sorted(range(len(axes)), key=lambda place: axes[place] not in colours)
    pixels, first = np.transpose(pixels, order), sum(letter in colours for letter in axes)
    space = ''.join(axes[place] for place in order[first:])
    if first == 0 and (named or len(space) == 2):
        return pixels[None], space
    return (pixels.reshape(-1, *pixels.shape[first:]) if first > 1 else pixels), space


def _micrometres(file: Any, space: str) -> tuple[float, ...] | None:
    if not file.is_ome:
        return None
    found: Any = require('tifffile', 'data').xml2dict(file.ome_metadata)
    images = found.get('OME', {}).get('Image', {})
    pixels = (images[0] if isinstance(images, list) else images).get('Pixels', {})
    units = {'nm': 1e-3, 'µm': 1.0, 'um': 1.0, 'mm': 1e3}
    sizes = [
        pixels.get(f'PhysicalSize{axis}', 0) * units.get(pixels.get(f'PhysicalSize{axis}Unit', 'µm'), 0)
        for axis in space
    ]
    return tuple(map(float, sizes)) if all(sizes) else None


class Tiff:
    """A TIFF image or stack: colours, and channels that OME or ImageJ name, are moved to the front.

    An image is ``(C, H, W)``; a stack whose axes are named is ``(C, Z, H, W)``, and one whose axes are not is as it is
    stored.

    Args:
        path: The file.
        look: How its pixels are taken.
    """

    def __init__(self, path: str, look: PixelOptions = SHOWN) -> None:
        tifffile = require('tifffile', 'data')
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            named = series.kind in ('ome', 'imagej')
            pixels, space = _arranged(_pixels(path, series), series.axes, named)
            spacing = _micrometres(file, space)
        if len(space) > 3:
            raise DataError(f'its axes are {series.axes} {series.shape}, and of space and time there may be three')
        self._pixels = look.apply(pixels)
        self.shape = tuple(self._pixels.shape)
        self.grid = None if spacing is None else Grid(self.shape[1:], spacing)

    def __getitem__(self, place: Any) -> Any:
        return self._pixels[place]
