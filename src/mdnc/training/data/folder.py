"""A folder, or any list of files, that holds one sample a file: arrays or images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mdnc.training.data.files import File
from mdnc.training.data.grid import Grid
from mdnc.training.data.images import SHOWN, Look, Tiff, open_image
from mdnc.training.data.nifti import Volume
from mdnc.training.data.npy import open_npy
from mdnc.training.data.reader import Array, DataError, Window

SAMPLE_FORMATS: dict[str, Callable[..., Any]] = {
    '.npy': open_npy,
    '.png': open_image,
    '.jpg': open_image,
    '.jpeg': open_image,
    '.bmp': open_image,
    '.gif': open_image,
    '.webp': open_image,
    '.tif': Tiff,
    '.tiff': Tiff,
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
        look: How the pixels of images are taken.
    """

    def __init__(self, files: Sequence[File], look: Look = SHOWN) -> None:
        self.files, self._look = tuple(files), look
        self._last: tuple[int, Any] = (-1, None)

    def rearranged(self, places: Sequence[int]) -> 'Folder':
        """The same files in another order."""
        return Folder([self.files[place] for place in places], self._look)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_last': (-1, None)}

    def __len__(self) -> int:
        return len(self.files)

    def _open(self, index: int) -> Any:
        # Shape and window of a sample are asked for one after the other: an image is decoded once for both.
        if self._last[0] != index:
            with damage_named():
                path, reader = self.files[index].path, SAMPLE_FORMATS[self.files[index].suffix]
                self._last = (index, reader(path, self._look) if reader in (open_image, Tiff) else reader(path))
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
