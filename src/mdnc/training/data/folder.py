"""A folder, or any list of files, that holds one sample a file: arrays or images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdnc._extras import require
from mdnc.training.data.npy import open_npy
from mdnc.training.data.reader import Array, DataError, Window


def open_image(path: str) -> Any:
    """A PNG or JPEG image as ``(1, H, W)`` or, with colours, ``(3 or 4, H, W)``."""
    image = require('PIL.Image', 'data')
    with image.open(path) as file:
        # A palette holds indices into a table of colours; what the image shows is those colours.
        pixels = np.asarray(file.convert('RGB') if file.mode == 'P' else file)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def open_tiff(path: str) -> Any:
    """A TIFF image or stack as it is stored, colours moved to the front."""
    tifffile = require('tifffile', 'data')
    with tifffile.TiffFile(path) as file:
        pixels, axes = file.asarray(), file.series[0].axes
    return np.moveaxis(pixels, axes.index('S'), 0) if 'S' in axes else pixels


SAMPLE_FORMATS = {
    '.npy': open_npy,
    '.png': open_image,
    '.jpg': open_image,
    '.jpeg': open_image,
    '.tif': open_tiff,
    '.tiff': open_tiff,
}


class Folder:
    """One sample a file.

    Args:
        paths: The files; the formats may differ.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self._last: tuple[int, Any] = (-1, None)

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> 'Folder':
        """All files of a folder that may be samples, sorted by name; other files (a CSV, a text) are left out."""
        paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SAMPLE_FORMATS)
        if not paths:
            raise DataError(f'{folder} holds no file of the kinds {", ".join(SAMPLE_FORMATS)}')
        return cls(paths)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_last': (-1, None)}

    def __len__(self) -> int:
        return len(self.paths)

    def _open(self, index: int) -> Any:
        # Shape and window of a sample are asked for one after the other: an image is decoded once for both.
        if self._last[0] != index:
            path = self.paths[index]
            self._last = (index, SAMPLE_FORMATS[path.suffix.lower()](str(path)))
        return self._last[1]

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(self._open(index).shape)

    def read(self, index: int, window: Window = ()) -> Array:
        return np.asarray(self._open(index)[(..., *window)])

    def name(self, index: int) -> str:
        return self.paths[index].name

    def file(self, index: int) -> str:
        return self.paths[index].name
