"""Networks that are not mdnc's: imported by name where a user asks for it, and only if they are networks."""

import importlib
import os
import sys
from collections.abc import Collection
from typing import Any

from torch import nn


def import_network_class(name: str) -> type[nn.Module]:
    """Import a class of networks by its full name, from the working folder too. Importing runs the module's code.

    Raises:
        ValueError: There is no such class, or it is no ``nn.Module``.
    """
    module, _, attribute = name.rpartition('.')
    if not module:
        raise ValueError(f'network {name!r} must be the full name of a class, package.Class')
    try:
        found: Any = getattr(_imported(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f'network {name!r} cannot be imported: {error}') from error
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise ValueError(f'network {name!r} is no class of torch.nn.Module, and is not called')
    return found


def _imported(module: str) -> Any:
    # The command's own folder stands on the path, the one that the user works in does not.
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
            f'{source} holds a {name}, which is none of mdnc: loading it would run code of that name. Where you trust '
            f'it, allow it: allow=[{name!r}], on the command line --allow {name}'
        )
    return import_network_class(name)
