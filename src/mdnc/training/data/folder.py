"""A folder, or any list of files, that holds one sample a file: arrays, images, volumes, recordings."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from mdnc.training.data.files import File
from mdnc.training.data.grid import Grid
from mdnc.training.data.hdf5 import open_hdf5
from mdnc.training.data.images import SHOWN, PixelOptions, Tiff, open_image
from mdnc.training.data.mat import open_mat_sample
from mdnc.training.data.nifti import Volume
from mdnc.training.data.npy import open_npy, open_npz
from mdnc.training.data.plugins import open_own
from mdnc.training.data.reader import Array, DataError, Window, let_go
from mdnc.training.data.recordings import open_recording
from mdnc.training.data.wav import Wave

IMAGES: dict[str, Callable[[str, PixelOptions], Any]] = {
    **dict.fromkeys(('.png', '.jpg', '.jpeg', '.bmp', '.gif', '.webp'), open_image),
    **dict.fromkeys(('.tif', '.tiff'), Tiff),
}
ARRAYS: dict[str, Callable[[str], Any]] = {'.npy': open_npy, '.nii': Volume, '.nii.gz': Volume, '.wav': Wave}
# Formats that hold one sample a file only in folders, or where it is said so.
TABLES = ('.csv', '.tsv', '.parquet')
MEMBERS: dict[str, Callable[[str, str], Any]] = {
    '.mat': open_mat_sample,
    '.npz': open_npz,
    '.h5': open_hdf5,
    '.hdf5': open_hdf5,
}
# What was read last is kept: 256 MB of decoded samples, where one that is read in windows counts as 4.
_HELD, _LAZY = 2**28, 2**22


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


def _weight(opened: Any) -> int:
    size = 0 if isinstance(opened, np.memmap) else int(getattr(opened, 'nbytes', 0))
    return size or _LAZY


def _members(file: File) -> list[str]:
    return [name.strip() for name in file.member.split(',')] if file.member else []


class Folder:
    """One sample a file.

    Args:
        files: The files; the formats may differ.
        look: How the pixels of images are taken.
        columns: The columns of tables; empty means those of the first file that hold numbers.
    """

    def __init__(self, files: Sequence[File], look: PixelOptions = SHOWN, columns: Sequence[str] = ()) -> None:
        self.files, self._look, self._columns = tuple(files), look, list(columns)
        self._forget()

    def _forget(self) -> None:
        self._held: OrderedDict[int, Any] = OrderedDict()
        self._process, self._size = os.getpid(), 0

    def rearranged(self, places: Sequence[int]) -> 'Folder':
        """The same files in another order."""
        return Folder([self.files[place] for place in places], self._look, self._columns)

    def without(self, columns: Sequence[str]) -> 'Folder':
        """The same files without some columns.

        Raises:
            DataError: None is left.
        """
        left = [name for name in self.columns if name not in columns]
        if self.columns and not left:
            raise DataError(f'{self.files[0].path}: no column is left beside {list(columns)}')
        return Folder(self.files, self._look, left)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_held': OrderedDict(), '_size': 0}

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def columns(self) -> list[str]:
        """The columns of tables that are read; none of other formats."""
        if self._columns or not self.files or self.files[0].suffix not in TABLES:
            return self._columns
        with damage_named():
            return open_recording(self.files[0].path, _members(self.files[0])).columns

    def _open(self, index: int) -> Any:
        # Shape and window of a sample are asked for one after the other, and so are windows of one recording.
        if self._process != os.getpid():  # what is open does not survive a fork
            self._forget()
        if index not in self._held:
            with damage_named():
                self._held[index] = self._read(self.files[index])
            self._size += _weight(self._held[index])
            while len(self._held) > 1 and self._size > _HELD:
                self._size -= _weight(self._held.popitem(last=False)[1])
        self._held.move_to_end(index)
        return self._held[index]

    def _read(self, file: File) -> Any:
        suffix = file.suffix
        if suffix in IMAGES:
            return IMAGES[suffix](file.path, self._look)
        if suffix in TABLES:
            return open_recording(file.path, _members(file) or self.columns)
        if suffix in MEMBERS:
            return MEMBERS[suffix](file.path, file.member)
        return ARRAYS[suffix](file.path) if suffix in ARRAYS else open_own(suffix, file.path, file.member)

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(self._open(index).shape)

    def read(self, index: int, window: Window = ()) -> Array:
        opened = self._open(index)
        with damage_named():
            return np.asarray(opened[(..., *window)])

    def release(self) -> None:
        """Let go of what was read of memory maps."""
        for opened in self._held.values():
            let_go(opened)

    def grid(self, index: int) -> Grid | None:
        """What the file says of its axes, where its format says anything."""
        return getattr(self._open(index), 'grid', None)

    def name(self, index: int) -> str:
        return self.files[index].name

    def file(self, index: int) -> str:
        return self.files[index].name


class Stacked(Folder):
    """Files that are one sample together, channel upon channel: the modalities of a patient.

    Args:
        parts: The files of each modality, in the same order; the first ones say what samples are called.
    """

    def __init__(self, parts: Sequence[Folder]) -> None:
        self._parts = tuple(parts)
        super().__init__(parts[0].files)

    @property
    def columns(self) -> list[str]:
        """The columns of tables, one part after the other; none of other formats."""
        return [name for part in self._parts for name in part.columns]

    def rearranged(self, places: Sequence[int]) -> 'Stacked':
        return Stacked([part.rearranged(places) for part in self._parts])

    def without(self, columns: Sequence[str]) -> 'Stacked':
        return Stacked([part.without(columns) for part in self._parts])

    def shape(self, index: int) -> tuple[int, ...]:
        shapes = [part.shape(index) for part in self._parts]
        if len({shape[1:] for shape in shapes}) > 1:
            held = ', '.join(f'{part.name(index)} {shape}' for part, shape in zip(self._parts, shapes, strict=True))
            raise DataError(f'its files differ in size: {held}')
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def read(self, index: int, window: Window = ()) -> Array:
        self.shape(index)
        return np.concatenate([part.read(index, window) for part in self._parts])

    def release(self) -> None:
        for part in self._parts:
            part.release()

    def grid(self, index: int) -> Grid | None:
        return self._parts[0].grid(index)
