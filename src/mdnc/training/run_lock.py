"""A lock on a run folder, held by one process at a time until it ends."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no locking
    fcntl = None  # type: ignore[assignment]

from lightning.fabric.utilities.rank_zero import rank_zero_only

LOCK = '.lock'
_TAKEN = (errno.EACCES, errno.EAGAIN)
_held: dict[Path, tuple[int, int]] = {}  # handle, number of claims


class TakenError(RuntimeError):
    """Another process trains in a run folder; the message names both."""


def is_first_process() -> bool:
    """Whether this is the first process of a run, which writes its files, by its environment."""
    return getattr(rank_zero_only, 'rank', 0) == 0 and os.environ.get('NODE_RANK', '0') == '0'


def claim(run_dir: str | os.PathLike[str]) -> None:
    """Lock a run folder for this process; it may be called again.

    A file is locked, not only created: the lock ends with the process, however it is killed.

    Raises:
        TakenError: Another process has it.
        OSError: It is no folder, or cannot be written to.
    """
    place = Path(run_dir).resolve()
    handle, times = _held.get(place, (-1, 0))
    if not times:
        handle = _begun(place)
    _held[place] = handle, times + 1


def release(run_dir: str | os.PathLike[str]) -> None:
    """Release a lock; a folder that is still empty is removed."""
    place = Path(run_dir).resolve()
    handle, times = _held.get(place, (-1, 0))
    if times > 1:
        _held[place] = handle, times - 1
    elif times:
        del _held[place]
        if handle >= 0:
            (place / LOCK).unlink(missing_ok=True)
            os.close(handle)
        with contextlib.suppress(OSError):
            place.rmdir()


@contextlib.contextmanager
def claimed(run_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a lock in a ``with`` block."""
    claim(run_dir)
    try:
        yield
    finally:
        release(run_dir)


def _begun(place: Path) -> int:
    """Make the folder if there is none, and lock it."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        return _lock(place / LOCK)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(each for each in (place, *place.parents) if each.exists())
        raise NotADirectoryError(f'{place} cannot be the folder of a run: {file} is a file') from error
    except OSError as error:
        raise type(error)(
            f'nothing can be written to the run folder {place}: {os.strerror(error.errno or 0)}'
        ) from error


def _lock(path: Path) -> int:
    """Open and lock a file; -1 if the file system has no locks, or a parent process holds the lock."""
    if fcntl is None:
        return -1
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # Not flock: its locks are shared with workers, which may outlive a killed process by seconds.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = path.read_text()
            os.close(handle)
            if error.errno not in _TAKEN or holder == _words(os.getppid()):
                return -1
            raise TakenError(
                f'{path.parent} is already in use for training by {holder or "another process"}; wait for it, stop it, '
                'or choose another folder'
            ) from error
        if _is_still(handle, path):
            os.ftruncate(handle, 0)
            os.write(handle, _words(os.getpid()).encode())
            return handle
        os.close(handle)  # its owner has removed it in between


def _is_still(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _words(process: int) -> str:
    return f'process {process} on {socket.gethostname()}'
