"""`torch.save` files that are written whole, and that show any damage when they are read.

The file is an ordinary torch archive followed by a mark and the SHA-256 of all before it. `torch.load` and
zip tools ignore what follows the archive, so other programs read these files too; torch itself does not
check the sums inside its archives, so a flipped byte would load as a changed weight.
"""

import hashlib
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from mdnc._files import whole_file
from mdnc._plain import plain

_MARK = b'mdnc-sha256:'
_TAIL = len(_MARK) + hashlib.sha256().digest_size
_CHUNK = 1 << 22
_NAMED = re.compile(r'GLOBAL ([\w.]+)')
_ZIP_TAIL = 22  # bytes of a zip's last record when it has no comment, as torch writes it


class DamagedFileError(ValueError):
    """A file is not what was written: empty, cut short, or changed.

    Example:
        >>> import pathlib, tempfile
        >>> import mdnc
        >>> path = pathlib.Path(tempfile.mkdtemp()) / 'net.pt'
        >>> path.write_bytes(b'')
        0
        >>> try:
        ...     mdnc.load(path)
        ... except mdnc.checkpoints.DamagedFileError as error:
        ...     print(str(error).replace(str(path), 'net.pt'))
        net.pt is empty: its writing was cut off, or the disk was full
    """


class _Hashed:
    """The writing end of a file that sums up what passes, and remembers why a write failed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sum = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            written = self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sum.update(data)
        return written

    def flush(self) -> None:
        self._file.flush()


def save_archive(value: object, path: str | os.PathLike[str]) -> None:
    """Write ``value`` under the name ``path``, whole or not at all.

    Args:
        value: Plain values and tensors; numbers, words and arrays of NumPy are made plain, so that `load_archive`
            reads back whatever is written.
        path: The final name; its folder must exist.

    Raises:
        OSError: The disk is full or refuses; ``path`` is as it was.
        TypeError: A part of the value could not be read back; nothing is written.
    """
    value = plain(value, Path(path).name)
    with whole_file(path) as file:
        hashed = _Hashed(file)
        try:
            torch.save(value, hashed)  # type: ignore[arg-type] # all of a file that it uses
        except RuntimeError as error:
            # torch's writer turns a full disk into a RuntimeError that doesn't say so.
            raise hashed.error or error from error
        file.write(_MARK + hashed.sum.digest())


def check_archive(path: str | os.PathLike[str]) -> None:
    """Read a file once and refuse it if it is not exactly what was written.

    Args:
        path: A file of `save_archive`, or a plain torch archive, whose inner sums are then checked.

    Raises:
        DamagedFileError: The file is empty, cut short or changed, or unpacks into more than it is; the text names it
            and says which.
        IsADirectoryError: It is a folder.
        OSError: It cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder, and a checkpoint is one file')
    if not path.is_file():
        raise DamagedFileError(f'{path} is no file but a device or a pipe')
    if size == 0:
        raise DamagedFileError(f'{path} is empty: its writing was cut off, or the disk was full')
    with path.open('rb') as file:
        file.seek(max(size - _TAIL, 0))
        tail = file.read()
        file.seek(0)
        sum_, left = hashlib.sha256(), size - _TAIL if tail.startswith(_MARK) else 0
        while left and (chunk := file.read(min(_CHUNK, left))):
            sum_.update(chunk)
            left -= len(chunk)
    if not tail.startswith(_MARK):
        _check_plain(path)
    elif sum_.digest() != tail[len(_MARK) :]:
        raise DamagedFileError(f'{path} is damaged: its bytes are not those that were written (checksum differs)')
    else:
        _refuse_bomb(path, size)


def _refuse_bomb(path: Path, size: int) -> None:
    # torch writes its archives as they are; a small file must not unpack into more than it is.
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # on damaged bytes the zip reader raises half a dozen kinds
        raise DamagedFileError(f'{path} is damaged: it is cut short or no checkpoint at all ({error})') from error
    promised = sum(entry.file_size for entry in entries)
    if promised > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise DamagedFileError(
            f'{path} is no checkpoint of torch, which compresses nothing: its {size} bytes unpack into {promised}'
        )


def _check_plain(path: Path) -> None:
    # Without our mark it is a foreign torch archive, which ends with the zip format's last record, or damaged.
    _refuse_bomb(path, path.stat().st_size)
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # as above
        raise DamagedFileError(f'{path} is damaged: it is cut short or no checkpoint at all ({error})') from error
    with path.open('rb') as file:
        file.seek(-_ZIP_TAIL, os.SEEK_END)
        whole = file.read().startswith(b'PK\x05\x06')
    if broken is not None or not whole:
        raise DamagedFileError(f'{path} is damaged: {broken or "its end"} is not what was written')


def load_archive(path: str | os.PathLike[str], map_location: Any = 'cpu') -> Any:
    """Check a file, then read it with ``weights_only=True``: nothing in it is run.

    Args:
        path: A file of `save_archive`, or a plain torch archive.
        map_location: Where the tensors go, as in `torch.load`.

    Returns:
        The value that was saved.

    Raises:
        DamagedFileError: The file is empty, cut short, changed, or holds more than plain values and tensors.
    """
    check_archive(path)
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own text tells how to have the code run.
        named = _NAMED.search(str(error))
        what = f': it names {named[1]:.200}' if named else ''
        raise DamagedFileError(
            f'{path} holds more than plain values and tensors, and nothing else is ever loaded{what}'
        ) from error
    except Exception as error:  # as above, for the reader of a plain archive whose sums were right
        raise DamagedFileError(f'{path} cannot be read as a checkpoint: {error}') from error
