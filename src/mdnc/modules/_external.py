"""Networks from outside mdnc: imported by name if the user asks for it, and only if they are modules of torch."""

import importlib
import os
import sys
from collections.abc import Collection
from typing import Any

from torch import nn


def import_network_class(name: str) -> type[nn.Module]:
    """Import a class of networks by its full name, also from the working directory. Importing runs the module's code.

    Raises:
        ValueError: The class does not exist, or is not an ``nn.Module``.
    """
    module, _, attribute = name.rpartition('.')
    if not module:
        raise ValueError(f'network {name!r} must be the full name of a class, package.Class')
    try:
        found: Any = getattr(_imported(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f'network {name!r} cannot be imported: {error}') from error
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise ValueError(f'network {name!r} is not a subclass of torch.nn.Module')
    return found


def _imported(module: str) -> Any:
    # The folder of the command is on the path, the working directory is not.
    here = os.getcwd()
    if here in sys.path or '' in sys.path:
        return importlib.import_module(module)
    sys.path.append(here)
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(here)


def allowed_class(name: str, allow: Collection[str], source: object) -> type[nn.Module]:
    """The class that a file names, if the user has allowed it.

    Args:
        name: Full name of a class.
        allow: The full names that the user trusts.
        source: The file, for the error.

    Raises:
        ValueError: The name is not allowed, or see `import_network_class`.
    """
    if isinstance(allow, str):
        raise TypeError(f'allow={allow!r} must be a list of names')
    if name not in allow:
        raise ValueError(
            f'{source} contains {name}, which is not part of mdnc: loading it would import and run that code. If you '
            f'trust it, give allow=[{name!r}], on the command line --allow {name}'
        )
    return import_network_class(name)
