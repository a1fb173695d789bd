"""Values that a file gives back without running anything: numbers, words, lists, dictionaries, tensors."""

import io
import os
from collections import OrderedDict
from typing import Any

import torch

_LEAVES: tuple[type, ...] = (type(None), bool, int, float, complex, str, bytes, torch.Tensor, torch.nn.Parameter)
_LEAVES += (torch.Size, torch.dtype, torch.device)

_OWN: dict[type, Any] = {str: str.__str__, int: int.__int__, float: float.__float__}


def plain(value: Any, name: str) -> Any:
    """Make a value plain: what NumPy's and other libraries' numbers, words, arrays and paths say, in Python's own.

    What is plain already is given back as it is, not copied.

    Args:
        value: Anything.
        name: What it is called, for the refusal: ``'callbacks.Best'``.

    Returns:
        An equal value that `torch.load` reads with ``weights_only=True``.

    Raises:
        TypeError: A part of it cannot be read back without running code; the text names it.

    Example:
        >>> import numpy as np
        >>> plain({'lr': np.float32(0.5), 'classes': list(np.array(['cat', 'dog']))}, 'settings')
        {'lr': 0.5, 'classes': ['cat', 'dog']}
    """
    kind = type(value)
    if kind in _LEAVES:
        return value
    if kind in (dict, OrderedDict):
        return _mapping(value, name)
    if kind in (list, tuple):
        items = [plain(item, f'{name}[{number}]') for number, item in enumerate(value)]
        return value if all(one is other for one, other in zip(items, value, strict=True)) else kind(items)
    return _leaf(value, name)


def _mapping(value: dict[Any, Any], name: str) -> dict[Any, Any]:
    items = [(plain(key, f'a key of {name}'), plain(item, f'{name}.{key}')) for key, item in value.items()]
    same = all(one is key and other is item for (one, other), (key, item) in zip(items, value.items(), strict=True))
    return value if same else type(value)(items)


def _leaf(value: Any, name: str) -> Any:
    if callable(getattr(value, 'tolist', None)) and not isinstance(value, torch.Tensor):
        told = value.tolist()  # NumPy's and its kin's; an array of objects may hold anything
        return plain(told, name) if type(told) is not type(value) else _refuse(value, name)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    for base, own in _OWN.items():  # members of an Enum, say
        if isinstance(value, base):
            return own(value)
    if _reads_back(value):
        return value
    for base in (dict, list, tuple):
        if isinstance(value, base):
            return plain(base(value), name)
    return _refuse(value, name)


def _reads_back(value: Any) -> bool:
    file = io.BytesIO()
    try:
        torch.save(value, file)
        torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    except Exception:  # an object may refuse to be written or read in any way
        return False
    return True


def _refuse(value: Any, name: str) -> Any:
    kind = type(value)
    raise TypeError(
        f'{name} is a {kind.__module__}.{kind.__qualname__}, which no file gives back without running code; '
        'keep numbers, words, lists, dictionaries or tensors there'
    )
