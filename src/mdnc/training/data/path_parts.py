"""What the path of a sample's file says of it: the folder that it lies in, or a part of its name."""

import re
from typing import Any

import numpy as np

from mdnc.training.data.reader import Array, DataError, Reader, Window

_TEXT = re.compile(r'folder|folder::-?[0-9]+|path::.+', re.DOTALL)


def is_path_part(text: Any) -> bool:
    """Whether a text names a part of paths, and no file."""
    return isinstance(text, str) and _TEXT.fullmatch(text) is not None


def path_part(text: str, file: str) -> str:
    """The part of a path, as ``'folder'``, ``'folder::1'`` or ``'path::_(\\d+)'`` name it.

    Raises:
        DataError: The path has no such part, or the pattern is none.
    """
    word, _, which = text.partition('::')
    if word == 'path':
        return _matched(which, file)
    folders = file.split('/')[:-1]
    place = int(which or -1)
    if place == 0:
        raise DataError(f'{text}: folders are counted from 1, and from -1 at the end')
    try:
        return folders[place - 1 if place > 0 else place]
    except IndexError:
        below = f'{len(folders)} folders' if folders else 'no folder'
        raise DataError(f'{text}: {file} lies in {below} below what was named; name a folder further up') from None


def _matched(pattern: str, file: str) -> str:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise DataError(f'path::{pattern} is no regular expression: {error}') from error
    if found.groups != 1:
        raise DataError(f'path::{pattern} must have one group (…), which is the part that counts, not {found.groups}')
    match = found.search(file)
    if match is None or match[1] is None:
        raise DataError(f'path::{pattern} fits nothing in {file}')
    return match[1]


class PathParts:
    """For each sample of a reader a part of its file's path.

    Args:
        reader: The samples.
        text: The part, see `path_part`.
    """

    def __init__(self, reader: Reader, text: str) -> None:
        self._files = [reader.file(index) for index in range(len(reader))]
        self._parts = [path_part(text, file) for file in self._files]

    def __len__(self) -> int:
        return len(self._parts)

    def shape(self, index: int) -> tuple[int, ...]:
        return ()

    def read(self, index: int, window: Window = ()) -> Array:
        return np.asarray(self._parts[index])

    def name(self, index: int) -> str:
        return self._files[index]

    def file(self, index: int) -> str:
        return self._files[index]
