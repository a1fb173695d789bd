"""The right to write to a run's folder, which one process has at a time and loses with its life."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nobody is kept out
    fcntl = None  # type: ignore[assignment]

from lightning.fabric.utilities.rank_zero import rank_zero_only

LOCK = '.lock'
_TAKEN = (errno.EACCES, errno.EAGAIN)
_held: dict[Path, tuple[int, int]] = {}  # handle, how often it was claimed


class TakenError(RuntimeError):
    """Another process trains in a run's folder; the text names both."""


def is_first_process() -> bool:
    """Whether this is the process of a run that writes, as far as its environment says."""
    return getattr(rank_zero_only, 'rank', 0) == 0 and os.environ.get('NODE_RANK', '0') == '0'


def claim(run_dir: str | os.PathLike[str]) -> None:
    """Make a run's folder this process's own; it may do so again.

    A file is locked, not only made: the lock goes when the process does, by whatever it is killed.

    Raises:
        TakenError: Another process has it.
    """
    place = Path(run_dir).resolve()
    handle, times = _held.get(place, (-1, 0))
    if not times:
        place.mkdir(parents=True, exist_ok=True)
        handle = _lock(place / LOCK)
    _held[place] = handle, times + 1


def release(run_dir: str | os.PathLike[str]) -> None:
    """Give up a claim; a folder that is still empty is removed."""
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
    """Hold a claim in a ``with``."""
    claim(run_dir)
    try:
        yield
    finally:
        release(run_dir)


def _lock(path: Path) -> int:
    """Open and lock a file; -1 where the file system knows no locks, or a parent process holds it for this one."""
    if fcntl is None:
        return -1
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # Not flock: its locks are shared with the readers, which may outlive a killed process by seconds.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = path.read_text()
            os.close(handle)
            if error.errno not in _TAKEN or holder == _words(os.getppid()):
                return -1
            raise TakenError(
                f'{path.parent} is being trained already, by {holder or "another process"}; wait for its end, stop it, '
                'or choose another folder'
            ) from error
        if _is_still(handle, path):
            os.ftruncate(handle, 0)
            os.write(handle, _words(os.getpid()).encode())
            return handle
        os.close(handle)  # whoever had it removed it in between


def _is_still(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _words(process: int) -> str:
    return f'process {process} on {socket.gethostname()}'
