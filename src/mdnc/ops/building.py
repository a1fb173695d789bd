"""C++ of this package, built at first use for the machine that runs it, and kept on disk."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from mdnc._files import whole_file

CACHE_VARIABLE = 'MDNC_CACHE_DIR'
SECONDS_TO_BUILD = 120
_FLAGS = ('-O3', '-march=native', '-std=c++17', '-fPIC', '-shared', '-fno-math-errno', '-fno-trapping-math')

# What a build that fails raises.
FAILURES = (OSError, subprocess.SubprocessError)


def library(source: Path, options: Sequence[str] = ()) -> Path:
    """The shared library of a source, from the cache or built now.

    Args:
        source: A C++ file of this package.
        options: The compiler's options beside those that all sources share.

    Raises:
        OSError: There is no compiler, or the cache can't be written to.
        subprocess.SubprocessError: The compiler fails, or takes longer than `SECONDS_TO_BUILD`.
    """
    command = [_compiler(), *_FLAGS, str(source)]
    made_for = (source.read_text(), *command, *options, _machine())
    name = hashlib.sha256('\n'.join(made_for).encode()).hexdigest()[:24]
    kept = _cache() / f'{source.stem}-{name}.so'
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / kept.name
            words = [*command, *options, '-o', str(made)]
            subprocess.run(words, check=True, capture_output=True, text=True, timeout=SECONDS_TO_BUILD)
            with whole_file(kept) as file:
                file.write(made.read_bytes())
    return kept


def warn(source: Path, error: BaseException) -> None:
    """Say that a source can't be used; once in a process, for others fail for the same reason."""
    if not _warned:
        output = getattr(error, 'stderr', None) or str(error)
        reason = f'{type(error).__name__}: {output.strip().splitlines()[0]}' if output else type(error).__name__
        warnings.warn(f'mdnc.optimize: torch runs what {source.name} would, uncompiled: {reason}', stacklevel=3)
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


def _machine() -> str:
    # A folder may be shared by machines, and code made for one processor stops the process on another.
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return next((line for line in lines if line.startswith(('flags', 'Features'))), platform.machine())


def _cache() -> Path:
    chosen = os.environ.get(CACHE_VARIABLE)
    folder = Path(chosen) if chosen else Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mdnc'
    folder.mkdir(parents=True, exist_ok=True)
    return folder
