"""C++ of this package, built at first use for the machine that runs it, and kept on disk."""

import ctypes
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdnc._files import whole_file
from mdnc.ops import fake_tensors, processor

CACHE_VARIABLE = 'MDNC_CACHE_DIR'
SECONDS_TO_BUILD = 120
_FLAGS = ('-O3', '-march=native', '-std=c++17', '-fPIC', '-shared', '-fno-math-errno', '-fno-trapping-math')

# What a build that fails, or gives wrong values, raises.
FAILURES = (OSError, subprocess.SubprocessError, ArithmeticError)


def loaded(source: Path, results: Mapping[str, Any], prove: Callable[[Any], None] | None = None) -> Any:
    """The library of a source, loaded; None, after a warning, where it can't be built, or gives wrong values.

    Args:
        source: A C++ file of this package.
        results: What its functions give, by their names.
        prove: Raises ArithmeticError where the values of the library are wrong; see `compare`.
    """
    try:
        found = ctypes.CDLL(str(library(source, threads())))
        for name, kind in results.items():
            getattr(found, name).restype = kind
        if prove is not None:
            with fake_tensors.on_real_tensors():
                prove(found)
    except FAILURES as error:
        warn(source, error, stacklevel=4)
        return None
    return found


def random_tensors() -> Callable[..., Tensor]:
    """A function that draws a tensor of a shape, for proofs: the same each time, whatever torch's defaults are."""
    generator = torch.Generator('cpu').manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float32, device='cpu')


def compare(got: Tensor, want: Tensor, tolerance: float = 1e-4) -> None:
    """Raise ArithmeticError where values of a build, of float64 or narrower, are not those wanted, of float64."""
    if not torch.allclose(got.double(), want, rtol=tolerance, atol=tolerance * want.abs().max().item()):
        raise ArithmeticError('the compiler made code whose values are wrong')


def library(source: Path, options: Sequence[str] = ()) -> Path:
    """The shared library of a source, from the cache or built now.

    A file of the cache carries the digest of its bytes in its name, and only one whose bytes are those is used: loading
    a damaged one would stop the process. The cache holds code, so that a folder that others may write to is refused.

    Args:
        source: A C++ file of this package; headers lie beside it.
        options: The compiler's options beside those that all sources share.

    Raises:
        OSError: There is no compiler, or the cache can't be written to, or others may write to it.
        subprocess.SubprocessError: The compiler fails, or takes longer than `SECONDS_TO_BUILD`.
    """
    command = [_compiler(), *_FLAGS, str(source)]
    texts = [each.read_text() for each in (source, *sorted(source.parent.glob('*.h')))]  # headers of all sources
    # A folder may be shared by machines, and code made for one processor stops the process on another.
    made_for = (*texts, *command, *options, processor.flags())
    name = f'{source.stem}-{_digest(chr(10).join(made_for).encode())}'
    folder = _cache()
    kept = next((each for each in sorted(folder.glob(f'{name}-*.so')) if _whole(each)), None)
    return _built(folder, name, [*command, *options]) if kept is None else kept


def _built(folder: Path, name: str, command: list[str]) -> Path:
    with tempfile.TemporaryDirectory() as work:
        made = Path(work) / f'{name}.so'
        words = [*command, '-o', str(made)]
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=SECONDS_TO_BUILD)
        content = made.read_bytes()
    kept = folder / f'{name}-{_digest(content)}.so'
    if kept.is_symlink():
        kept.unlink()  # not written through
    with whole_file(kept) as file:
        file.write(content)
    return kept


def _whole(kept: Path) -> bool:
    """Whether a file holds the bytes that its name says; one that doesn't gives way to what is built anew."""
    return not kept.is_symlink() and kept.is_file() and kept.stem.endswith(f'-{_digest(kept.read_bytes())}')


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]


def warn(source: Path, error: BaseException, stacklevel: int = 3) -> None:
    """Say that a source can't be used; once in a process, for others fail for the same reason."""
    if not _warned:
        output = getattr(error, 'stderr', None) or str(error)
        reason = f'{type(error).__name__}: {output.strip().splitlines()[0]}' if output else type(error).__name__
        warnings.warn(
            f'mdnc.optimize: torch runs what {source.name} would, uncompiled: {reason}', stacklevel=stacklevel
        )
    _warned.append(source)


_warned: list[Path] = []


def threads() -> list[str]:
    """Options for code that runs on several threads; Apple's compiler has none."""
    return [] if sys.platform == 'darwin' else ['-fopenmp']


def _compiler() -> str:
    compiler = os.environ.get('CXX') or next(filter(None, map(shutil.which, ('g++', 'clang++', 'c++'))), None)
    if compiler is None:
        raise FileNotFoundError('no C++ compiler: set CXX, or install g++ or clang++')
    return compiler


def _cache() -> Path:
    chosen = os.environ.get(CACHE_VARIABLE)
    folder = Path(chosen) if chosen else Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mdnc'
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_strangers(folder)
    return folder


def _refuse_strangers(folder: Path) -> None:
    # Code is loaded from here: the folder, and a link that leads to it, must be the user's own, or the system's.
    if not hasattr(os, 'geteuid'):
        return
    if _owners(folder) - {os.geteuid(), 0} or folder.stat().st_mode & stat.S_IWOTH:
        raise PermissionError(
            f'{folder} is of another user, or all may write to it: name a folder of your own in {CACHE_VARIABLE}'
        )


def _owners(folder: Path) -> set[int]:
    return {folder.stat().st_uid, folder.lstat().st_uid}
