"""Arrays in memory, from NumPy, torch, pandas or plain lists, as readers."""

from collections.abc import Sequence
from functools import partial
from reprlib import repr as short_repr
from typing import Any

import numpy as np
import torch

from mdnc.training.data.reader import Array, DataError, Listed, Reader, Rows


def _held(array: np.ndarray) -> np.ndarray:
    return array


def memory_rows(array: Any, label: str = 'array') -> Rows:
    """A reader over an array in memory, samples along the first axis."""
    return Rows(partial(_held, plain_array(array)), label)


def plain_array(value: Any) -> Array:
    """A NumPy array of what is an array already: NumPy's, torch's, or what says that it is one.

    Raises:
        TypeError: It is something else, or a tensor that holds no plain values.
    """
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_quantized:
            raise TypeError(f'a tensor of layout {value.layout} holds no plain values; make it dense')
        held = value.detach().cpu().resolve_conj().resolve_neg()
        found: Array = (held.float() if held.dtype is torch.bfloat16 else held).numpy()  # NumPy knows no bfloat16
        return found
    if not (isinstance(value, np.ndarray | np.generic) or hasattr(value, '__array__')):
        raise TypeError(f'{short_repr(value)} is a {type(value).__name__}, not an array')
    array = np.asarray(value)
    return _of_objects(array) if array.dtype.kind == 'O' else array


def _absent(item: Any) -> bool:
    return item is None or (isinstance(item, float) and item != item) or type(item).__name__ in ('NAType', 'NaTType')


def _of_objects(array: Array) -> Array:
    # pandas keeps names, and numbers with gaps, as objects.
    items = array.ravel().tolist()
    there = [item for item in items if not _absent(item)]
    if there and all(isinstance(item, str) for item in there):
        return np.array(['' if _absent(item) else item for item in items]).reshape(array.shape)
    if there and all(isinstance(item, bool | int | float | np.number | np.bool_) for item in there):
        return np.array([np.nan if _absent(item) else item for item in items], np.float64).reshape(array.shape)
    kinds = sorted({type(item).__name__ for item in items})
    raise TypeError(f'an array of Python objects ({", ".join(kinds)}) is neither numbers nor names of classes')


def _of_items(items: Sequence[Any], label: str) -> Reader:
    arrays = [plain_array(item) for item in items]
    kinds = {array.dtype.kind in 'SUT' for array in arrays}
    if len({array.shape for array in arrays}) == 1 and len(kinds) == 1:
        return memory_rows(np.stack(arrays), label)
    if len(kinds) > 1 or 0 in {array.ndim for array in arrays}:
        raise TypeError('a list must hold one sample an item, all numbers or all names')
    return Listed(arrays, [f'{label}[{number}]' for number in range(len(arrays))])


def memory_reader(value: Any, label: str = 'array') -> Reader:
    """A reader over an array ``(N, ...)``, or over a list of one array, number or name a sample.

    Raises:
        TypeError: The value is neither.
        DataError: It holds no sample.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind == 'O' and value.ndim == 1 and len(value):
        value = value.tolist() if all(isinstance(item, np.ndarray | list) for item in value) else value
    if not isinstance(value, list | tuple):
        return memory_rows(value, label)
    if not value:
        raise DataError('the list is empty')
    if all(isinstance(item, np.ndarray | torch.Tensor) for item in value):
        return _of_items(value, label)
    if any(isinstance(item, dict | set) for item in value):
        raise TypeError(f'a list must hold one sample an item, not {short_repr(value)}')
    try:
        return memory_rows(np.asarray(value), label)
    except ValueError as error:  # samples of several lengths
        if not all(isinstance(item, list | tuple) for item in value):
            raise TypeError(f'{short_repr(value)} does not hold one sample an item') from error
        return _of_items([np.asarray(item) for item in value], label)
