"""Optional packages: imported where they are used, and named with their extra where they are missing."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module, or say which extra of mdnc brings it.

    Args:
        module: Full name of the module, for example ``'h5py'``.
        extra: Name of the extra in mdnc's metadata that installs it, for example ``'data'``.

    Returns:
        The imported module.

    Raises:
        ImportError: The module is not installed; the text holds the ``pip install`` line.
    """
    with named(extra, module):
        return importlib.import_module(module)


@contextmanager
def named(extra: str, module: str = '') -> Iterator[None]:
    """Say of a package that an import lacks which extra of mdnc brings it.

    Args:
        extra: Name of the extra.
        module: The optional module, where only its own absence is meant: one that is there but misses a part of its own
            is not ours to explain.

    Raises:
        ImportError: A package is not installed; the text holds the ``pip install`` line.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name
        if missing is None or missing.startswith('mdnc') or (module and not module.startswith(missing)):
            raise
        raise ImportError(
            f"{missing} is not installed, and this needs it; run: pip install 'mdnc[{extra}]'", name=missing
        ) from error
