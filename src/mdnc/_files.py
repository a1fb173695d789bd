"""Files that are written whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS)
PART_SUFFIX = '.mdnc-part'


def as_path(owner: str, name: str, value: object) -> Path:
    """Return a name of a file or folder as a path.

    Raises:
        TypeError: It is no str and no path.
        ValueError: It is empty, or no system allows it.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(text, str):
        raise TypeError(f'{owner}: {name}={value!r:.80} must be a str or a path.')
    if not text or '\0' in text:
        raise ValueError(f'{owner}: {name}={text!r:.80} must name a file or folder.')
    return Path(text)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file for writing that takes the name ``path`` only when all of it is on the disk.

    The bytes go to a temporary file in the folder of ``path`` (a rename is atomic only within one file
    system, so ``$TMPDIR`` is no place for it), are flushed to the disk, and replace ``path`` in one step.
    When the body raises, ``path`` is as it was and the temporary file is removed; after a kill, the
    leftovers carry `PART_SUFFIX` and may be swept. A symbolic link stays one, and what it points to is
    replaced; to a device or pipe, which must not be replaced, the finished bytes are written.

    Args:
        path: The final name; its folder must exist.

    Yields:
        The open temporary file.

    Raises:
        FileNotFoundError: There is no such folder.
        IsADirectoryError: ``path`` is a folder.
        OSError: The disk is full or refuses.

    Example:
        >>> import tempfile, pathlib
        >>> target = pathlib.Path(tempfile.mkdtemp()) / 'values.bin'
        >>> with whole_file(target) as file:
        ...     _ = file.write(b'123')
        >>> target.read_bytes()
        b'123'
    """
    target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    if target.is_dir():
        raise IsADirectoryError(f'{target} is a folder; it must be the name of a file.')
    if target.exists() and not target.is_file():
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with target.open('wb') as device:
                shutil.copyfileobj(file, device)
        return
    if not target.parent.is_dir():
        raise FileNotFoundError(f'{target} cannot be written: there is no folder {target.parent}.')
    try:
        handle, name = tempfile.mkstemp(prefix=f'.{target.name}.', suffix=PART_SUFFIX, dir=target.parent)
    except OSError as error:  # it names the temporary file
        raise _unwritten(target, error) from error
    part = Path(name)
    try:
        with os.fdopen(handle, 'w+b') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        os.replace(part, target)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise _unwritten(target, error) from error
        raise
    _sync_folder(target.parent)


def _unwritten(path: Path, error: OSError) -> OSError:
    kind = type(error)  # FileNotFoundError and its kin, where the folder is what lacks
    made = kind(f'{path} could not be written ({os.strerror(error.errno or 0)})')
    made.errno = error.errno
    return made


def _umask() -> int:
    # mkstemp makes files of mode 0600; a result is shared like any other file of its user.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    # Without this a power cut may forget the rename; Windows cannot open a folder and needs no such step.
    if os.name == 'nt':
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
