"""A folder, or any list of files, that holds one sample a file: arrays or images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mdnc._extras import require
from mdnc.training.data.files import File
from mdnc.training.data.grid import Grid
from mdnc.training.data.nifti import Volume
from mdnc.training.data.npy import open_npy
from mdnc.training.data.reader import Array, DataError, Window

# Pillow tells formats by their content, and one of them (EPS) is a program that it lets Ghostscript run.
_IMAGES = ('PNG', 'JPEG', 'TIFF', 'BMP', 'GIF', 'WEBP')


def open_image(path: str, palette: bool = True) -> Any:
    """A PNG or JPEG image as ``(1, H, W)`` or, with colours, ``(3 or 4, H, W)``.

    Args:
        path: The file.
        palette: Whether an image of a palette is the colours that it shows, ``(3, H, W)``, or the indices of these,
            ``(1, H, W)``, as masks of classes are often stored.
    """
    image = require('PIL.Image', 'data')
    with image.open(path, formats=_IMAGES) as file:
        pixels = np.asarray(file.convert('RGB') if file.mode == 'P' and palette else file)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _decode_pages(path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    # Pillow decodes what tifffile leaves to the package imagecodecs, as long as the values are ordinary ones.
    image, sequence = require('PIL.Image', 'data'), require('PIL.ImageSequence', 'data')
    with image.open(path, formats=('TIFF',)) as file:
        pages = [np.asarray(page) for page in sequence.Iterator(file)]
    pixels = np.stack(pages)
    return pixels.reshape(shape) if pixels.size == np.prod(shape) and pixels.dtype == dtype else None


def open_tiff(path: str) -> Any:
    """A TIFF image or stack as it is stored, colours moved to the front."""
    tifffile = require('tifffile', 'data')
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        axes = series.axes
        try:
            pixels = series.asarray()
        except ValueError as error:
            if 'imagecodecs' not in str(error):
                raise
            pixels = _decode_pages(path, series.shape, series.dtype)
            if pixels is None:
                codec = getattr(series.keyframe.compression, 'name', 'that')
                raise DataError(f"its compression {codec} needs imagecodecs; run: pip install 'mdnc[data]'") from error
    return np.moveaxis(pixels, axes.index('S'), 0) if 'S' in axes else pixels


SAMPLE_FORMATS: dict[str, Callable[..., Any]] = {
    '.npy': open_npy,
    '.png': open_image,
    '.jpg': open_image,
    '.jpeg': open_image,
    '.tif': open_tiff,
    '.tiff': open_tiff,
    '.nii': Volume,
    '.nii.gz': Volume,
}


@contextmanager
def damage_named() -> Iterator[None]:
    """Say of whatever a library raises about a file that the file is at fault."""
    try:
        yield
    except (DataError, ImportError, FileNotFoundError, PermissionError, MemoryError):
        raise
    except Exception as error:  # each format's library has errors of its own
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise DataError(f'the file is damaged, cut short or of another kind than its name says: {reason}') from error


class Folder:
    """One sample a file.

    Args:
        files: The files; the formats may differ.
        palette: Whether images of a palette are the colours that they show, and not the indices of these.
    """

    def __init__(self, files: Sequence[File], palette: bool = True) -> None:
        self.files, self._palette = tuple(files), palette
        self._last: tuple[int, Any] = (-1, None)

    def rearranged(self, places: Sequence[int]) -> 'Folder':
        """The same files in another order."""
        return Folder([self.files[place] for place in places], self._palette)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_last': (-1, None)}

    def __len__(self) -> int:
        return len(self.files)

    def _open(self, index: int) -> Any:
        # Shape and window of a sample are asked for one after the other: an image is decoded once for both.
        if self._last[0] != index:
            with damage_named():
                path, reader = self.files[index].path, SAMPLE_FORMATS[self.files[index].suffix]
                self._last = (index, open_image(path, self._palette) if reader is open_image else reader(path))
        return self._last[1]

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(self._open(index).shape)

    def read(self, index: int, window: Window = ()) -> Array:
        opened = self._open(index)
        with damage_named():
            return np.asarray(opened[(..., *window)])

    def grid(self, index: int) -> Grid | None:
        """What the file says of its axes, where its format says anything."""
        return getattr(self._open(index), 'grid', None)

    def name(self, index: int) -> str:
        return self.files[index].name

    def file(self, index: int) -> str:
        return self.files[index].name
