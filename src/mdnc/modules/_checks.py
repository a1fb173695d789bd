"""Checks of arguments and inputs: types, ranges, words, and the error messages.

Every check takes the name of its owner (the public class or function) first and raises a ``TypeError``
for a wrong type or a ``ValueError`` for a wrong value, naming the argument, the value and what is legal.
"""

import difflib
import inspect
import math
import operator
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import fx, nn

from mdnc._repr import short_repr
from mdnc._torch import tracing_state

AUTOCAST_DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # autocast converts between these
DTYPES = (*AUTOCAST_DTYPES, torch.float64)  # dtypes in which layers compute
MOST_VALUES = 2**50  # of one map, a petabyte; torch counts bytes in 63 bits, and maps inside grow


def integer(owner: str, name: str, value: object, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``; anything with ``__index__`` but a bool is one."""
    number = _index(value)
    if number is not None and number >= minimum:
        return number
    error = TypeError if number is None else ValueError
    raise error(f'{owner}: {name}={short_repr(value)} must be an int of at least {minimum}.')


def integers(owner: str, name: str, value: object, minimum: int = 1, least: int = 1) -> tuple[int, ...]:
    """Return a sequence of at least ``least`` ints as a tuple."""
    legal = f'must be a sequence of at least {least} ints, each at least {minimum}'
    numbers = _all_indices(value)
    if numbers is not None and len(numbers) >= least and min(numbers, default=minimum) >= minimum:
        return numbers
    error = TypeError if numbers is None else ValueError
    raise error(f'{owner}: {name}={short_repr(value)} {legal}.')


def per_axis(owner: str, name: str, value: object, order: int, minimum: int = 1) -> tuple[int, ...]:
    """Return one int for each of ``order`` axes, from one int for all or a sequence of as many."""
    legal = f'must be an int of at least {minimum}, or a sequence of {order} such int{"s" * (order > 1)}'
    number = _index(value)
    numbers = _all_indices(value) if number is None else (number,) * order
    if numbers is not None and len(numbers) == order and min(numbers) >= minimum:
        return numbers
    error = TypeError if numbers is None else ValueError
    raise error(f'{owner}: {name}={short_repr(value)} {legal}.')


def per_stage(
    owner: str, name: str, value: Any, order: int, stages: int, legal: range = range(1, 2**31)
) -> tuple[tuple[int, ...], ...]:
    """Return one int for each of ``order`` axes of each of ``stages`` stages.

    From one int for all, a sequence of ``order`` ints for the axes of all, or a sequence of ``stages`` of these.
    """
    number = _index(value)
    flat = (number,) * order if number is not None else _all_indices(value)
    rows = [flat] * stages if flat is not None and len(flat) == order else _rows(value, order)
    if len(rows) == stages and all(each in legal for row in rows for each in row):
        return tuple(rows)
    ints = f'an int of at least {legal[0]}' if legal[-1] > 100 else f'an int from {legal[0]} to {legal[-1]}'
    raise (TypeError if flat is None and not rows else ValueError)(
        f'{owner}: {name}={short_repr(value)} must be {ints}, a sequence of {order} of them, one for each axis, or a '
        f'list with one of these for each of {stages} stages.'
    )


def _rows(value: Any, order: int) -> list[tuple[int, ...]]:
    # Empty where an entry is neither an int nor one for each axis.
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return []
    rows: list[tuple[int, ...]] = []
    for entry in value:
        number = _index(entry)
        row = (number,) * order if number is not None else _all_indices(entry)
        if row is None or len(row) != order:
            return []
        rows.append(row)
    return rows


def near(word: str, legal: Iterable[str]) -> str:
    """'Did you mean …?' with the nearest legal word, or an empty string."""
    found = difflib.get_close_matches(str(word), list(legal), 1)
    return f' Did you mean {found[0]}?' if found else ''


def odd_kernels(owner: str, value: object, order: int, stages: int = 1) -> tuple[tuple[int, ...], ...]:
    """Return the kernel size of each axis of each stage; even ones have no centre and are refused."""
    kernels = (
        per_stage(owner, 'kernel_size', value, order, stages)
        if stages > 1
        else (per_axis(owner, 'kernel_size', value, order),)
    )
    if any(size % 2 == 0 for kernel in kernels for size in kernel):
        raise ValueError(
            f'{owner}: kernel_size={short_repr(value)} must be odd on every axis: an even kernel has no centre, '
            'so the two branches of a residual block would differ in size.'
        )
    return kernels


def word(owner: str, name: str, value: object, legal: Collection[str]) -> str:
    """Return ``value`` if it is exactly one of the legal words."""
    if isinstance(value, str) and value in legal:
        return str(value)
    error = ValueError if isinstance(value, str) else TypeError
    words = ', '.join(map(repr, legal))
    raise error(f'{owner}: {name}={short_repr(value)} must be one of {words}.')


def number(owner: str, name: str, value: object, above: float = -math.inf, least: float = -math.inf) -> float:
    """Return ``value`` as a finite float within bounds; bools are refused."""
    legal = f'above {above:g}' if above > -math.inf else f'of at least {least:g}'
    if isinstance(value, bool) or getattr(value, 'ndim', 0) != 0 or not hasattr(value, '__float__'):
        raise TypeError(f'{owner}: {name}={short_repr(value)} must be a finite number {legal}.')
    found = float(value)
    if math.isfinite(found) and found > above and found >= least:
        return found
    raise ValueError(f'{owner}: {name}={short_repr(value)} must be a finite number {legal}.')


def flag(owner: str, name: str, value: object) -> bool:
    """Return ``value`` if it is True or False."""
    if isinstance(value, bool):
        return value
    raise TypeError(f'{owner}: {name}={short_repr(value)} must be True or False.')


def dtype(owner: str, value: object) -> torch.dtype:
    """Return ``value`` if layers can compute in this dtype."""
    if isinstance(value, torch.dtype) and value in DTYPES:
        return value
    raise TypeError(f'{owner}: dtype={short_repr(value)} must be one of {", ".join(map(str, DTYPES))}.')


def countable(owner: str, shape: Sequence[int]) -> None:
    """Refuse an input of more values than any device holds."""
    if math.prod(shape) > MOST_VALUES:
        raise ValueError(
            f'{owner}: an input of shape {short_repr(tuple(shape))} has more than 2^50 values, which no device holds.'
        )


def inputs(owner: str, model: nn.Module, count: int) -> None:
    """Refuse a module that does not take as many positional inputs."""
    try:
        takes = inspect.signature(model.forward)
    except (TypeError, ValueError):  # compiled modules have none
        return
    try:
        takes.bind(*range(count))
    except TypeError as error:
        raise TypeError(
            f'{owner}: {type(model).__name__} must take {count} input{"s" * (count != 1)}, but its forward has the '
            f'arguments {takes}: {error}.'
        ) from error


@contextmanager
def buildable(what: str) -> Iterator[None]:
    """Turn torch's error about weights that are too large into one that names the network."""
    try:
        yield
    except (RuntimeError, OverflowError, MemoryError, TypeError) as error:
        if isinstance(error, TypeError) and 'Overflow' not in str(error):
            raise
        raise ValueError(f'{what}: one of its weights would be too large for any memory.') from error


def spatial_order(owner: str, value: object) -> int:
    """Return the number of spatial axes: 1 (signals), 2 (images) or 3 (volumes)."""
    order = integer(owner, 'order', value)
    if order > 3:
        raise ValueError(f'{owner}: order={order} must be 1 (signals), 2 (images) or 3 (volumes).')
    return order


def traced(x: object) -> bool:
    """Whether ``x`` is being traced for inputs of many sizes; its values are not checked then.

    True for proxies of ``torch.fx``, under ``torch.compile``, ``torch.export`` and ``torch.jit.trace``, and for
    tensors with symbolic sizes. A check there would tie the graph to the sample's size.
    """
    if isinstance(x, fx.Proxy) or torch.compiler.is_compiling():
        return True
    if not isinstance(x, torch.Tensor) or x.is_nested:
        return False
    return tracing_state() is not None or any(isinstance(length, torch.SymInt) for length in x.shape)


def tensor(owner: str, x: Any, shape: Sequence[str | int], weight: torch.Tensor | None) -> None:
    """Check an input's type, rank, channels, batch, dtype and device.

    Args:
        owner: Name of the module.
        x: The input.
        shape: The expected shape: ints are exact, words ('B', 'L1') are free.
        weight: A parameter of the module, with the dtype and device that the input must have; ``None`` if there is
            none.
    """
    expected = '(' + ', '.join(map(str, shape)) + ')'
    if not isinstance(x, torch.Tensor):
        raise TypeError(f'{owner}: the input must be a torch.Tensor of shape {expected}, not {type(x).__name__}.')
    dense(owner, 'the input', x)
    got = tuple(x.shape)
    if len(got) != len(shape):
        raise ValueError(f'{owner}: the input has shape {got}, but {expected} is needed (B is the batch size).')
    if any(isinstance(want, int) and want != have for want, have in zip(shape, got, strict=True)):
        raise ValueError(f'{owner}: the input has shape {got}, but {expected} is needed: the channels differ.')
    if 0 in got:
        raise ValueError(f'{owner}: the input has shape {got}, which is empty; every length must be at least 1.')
    _check_kind(owner, x, weight)


def dense(owner: str, name: str, x: torch.Tensor) -> None:
    """Refuse nested, sparse and quantized tensors."""
    if x.is_nested or x.layout is not torch.strided or x.is_quantized:
        kind = 'nested' if x.is_nested else 'quantized' if x.is_quantized else f'of layout {x.layout}'
        raise TypeError(f'{owner}: {name} must be a dense tensor, not one {kind}.')


def _check_kind(owner: str, x: torch.Tensor, weight: torch.Tensor | None) -> None:
    if not x.dtype.is_floating_point:
        raise TypeError(f'{owner}: the input has dtype {x.dtype}, but a floating-point dtype is needed.')
    if weight is None:
        return
    if x.device != weight.device:
        raise ValueError(f'{owner}: the input is on {x.device}, but the parameters are on {weight.device}.')
    if x.dtype == weight.dtype:
        return
    # Autocast converts between these three at each layer, and leaves float64 as it is.
    castable = x.dtype in AUTOCAST_DTYPES and weight.dtype in AUTOCAST_DTYPES
    if not (castable and torch.is_autocast_enabled(x.device.type)):
        raise TypeError(
            f'{owner}: the input has dtype {x.dtype}, but the parameters have {weight.dtype}; '
            f'convert one of them, for example x.to({weight.dtype}).'
        )


def _index(value: object) -> int | None:
    # operator.index takes bools and one-element torch tensors of any rank or of bools; these are refused.
    if isinstance(value, bool) or getattr(value, 'ndim', 0) != 0 or 'bool' in str(getattr(value, 'dtype', '')):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except (TypeError, RuntimeError):
        return None


def _all_indices(value: object) -> tuple[int, ...] | None:
    # Lists, tuples, ranges, and one-dimensional arrays and tensors; strings are refused.
    if isinstance(value, (str, bytes, bytearray)):
        return None
    if not isinstance(value, Sequence) and getattr(value, 'ndim', 0) != 1:
        return None
    numbers = [_index(item) for item in cast('Iterable[object]', value)]
    return None if None in numbers else cast('tuple[int, ...]', tuple(numbers))
