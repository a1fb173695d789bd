"""Optional packages: imported where they are used, and named with their extra where they are missing."""

import importlib
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
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module that is there but misses a part of its own is not ours to explain.
        if error.name is None or not module.startswith(error.name):
            raise
        raise ImportError(
            f"{error.name} is not installed, and this needs it; run: pip install 'mdnc[{extra}]'", name=error.name
        ) from error
