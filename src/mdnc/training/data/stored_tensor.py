"""A large sample as a tensor whose values are read, and converted to single precision, where they are used."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mdnc.training.data.reader import Array, Reader, Window, refuse_no_numbers, release


def single_precision(values: Array) -> Array:
    """A copy in single precision; what is too large for it becomes Inf, which is reported later."""
    with np.errstate(over='ignore'):
        return np.array(values, np.float32, order='C')


@dataclass(frozen=True)
class StoredSample:
    """A sample of a reader, or a map that is its target, read a window at a time.

    Args:
        reader: The samples.
        number: Which of them.
        lone: Whether it has no channel axis.
        whole: Whether its values are whole numbers, as of classes.
    """

    reader: Reader
    number: int
    lone: bool
    whole: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels and spatial size."""
        shape = tuple(self.reader.shape(self.number))
        return (1, *shape) if self.lone else shape

    def read(self, window: Window) -> Array:
        """Values ``(C, ...)`` of a window, in single precision or as whole numbers.

        Raises:
            DataError: They are no numbers.
        """
        values = refuse_no_numbers(self.reader.read(self.number, window))
        values = values[None] if self.lone else values
        found = np.array(values, np.int64, order='C') if self.whole else single_precision(values)
        release(self.reader)
        return found


class _View(NamedTuple):
    """Which part of a sample a tensor is of: ranges of channels and axes, after so many axes of length 1; where it is
    ``bare``, the tensor has no axis of channels."""

    ranges: tuple[tuple[int, int], ...]
    lead: int = 0
    bare: bool = False

    def within(self, index: Any) -> '_View | None':
        """The view of a slice; None where it is none of the kind."""
        if index is None:
            return self._replace(lead=self.lead + 1)
        parts = list(index) if isinstance(index, tuple) else [index]
        filled = [place for place, part in enumerate(parts) if part is Ellipsis]
        shown = self.ranges[self.bare :]
        count = self.lead + len(shown)
        if filled:
            parts[filled[0] : filled[0] + 1] = [slice(None)] * (count - len(parts) + 1)
        parts += [slice(None)] * (count - len(parts))
        if len(parts) > count or not all(isinstance(part, slice) and part.step in (None, 1) for part in parts):
            return None
        if any(part.indices(1)[:2] != (0, 1) for part in parts[: self.lead]):
            return None
        ranges = [*self.ranges[: self.bare]]
        for part, (begin, end) in zip(parts[self.lead :], shown, strict=True):
            start, stop, _ = part.indices(end - begin)
            ranges.append((begin + start, begin + max(start, stop)))
        return self._replace(ranges=tuple(ranges))

    @property
    def shape(self) -> tuple[int, ...]:
        return (*(1,) * self.lead, *(end - begin for begin, end in self.ranges[self.bare :]))


class StoredTensor(Tensor):
    """A tensor on the CPU, in single precision or of whole numbers, that holds no values: slices are views of what is
    stored, and all other operations read what they are given.

    It stands on a single NaN, or the least number, which whatever went past this class would find.
    """

    _sample: StoredSample
    _view: _View

    @classmethod
    def of(cls, sample: StoredSample, view: _View | None = None, bare: bool = False) -> 'StoredTensor':
        """The whole sample ``(C, L1, ...)``, or, if it is ``bare``, ``(L1, ...)``; or a view of it."""
        view = view or _View(tuple((0, length) for length in sample.shape), bare=bare)
        nothing = torch.full((), torch.iinfo(torch.int64).min) if sample.whole else torch.full((), torch.nan)
        made = nothing.expand(view.shape).as_subclass(cls)
        made._sample, made._view = sample, view
        return made

    def values(self) -> Tensor:
        """The values, read."""
        (first, last), *ranges = self._view.ranges
        found = torch.from_numpy(self._sample.read(tuple(slice(*each) for each in ranges)))
        return found[first:last].view(self._view.shape)

    def __reduce_ex__(self, protocol: Any) -> Any:  # a process that reads sends only where the values are
        return StoredTensor.of, (self._sample, self._view)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f'StoredTensor({tuple(self._view.shape)} of {self._sample.reader.name(self._sample.number)})'

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FACTS:
            return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        if func in _VIEWS and isinstance(args[0], cls):
            found = _VIEWS[func](args[0], *args[1:], **kwargs)
            if found is not None:
                return found
        return func(*_read(args), **_read(kwargs))


def _read(given: Any) -> Any:
    if isinstance(given, StoredTensor):
        return given.values()
    if isinstance(given, list | tuple):
        return type(given)(map(_read, given)) if type(given) in (list, tuple) else given
    return {name: _read(value) for name, value in given.items()} if isinstance(given, dict) else given


def _part(x: StoredTensor, index: Any) -> StoredTensor | None:
    view = x._view.within(index)
    return None if view is None else StoredTensor.of(x._sample, view)


def _narrowed(x: StoredTensor, dim: int, start: int, length: int) -> StoredTensor | None:
    places = [slice(None)] * x.ndim
    places[dim] = slice(start, start + length)
    return _part(x, tuple(places))


def _moved(x: StoredTensor, *args: Any, **kwargs: Any) -> StoredTensor | None:
    wanted = torch.empty(0, dtype=x.dtype).to(*args, **kwargs)  # as it would be
    same = wanted.device.type == 'cpu' and wanted.dtype == x.dtype and not kwargs.get('copy')
    return x if same else None


_VIEWS: dict[Any, Callable[..., StoredTensor | None]] = {
    Tensor.__getitem__: _part,
    Tensor.narrow: _narrowed,
    torch.narrow: _narrowed,
    Tensor.to: _moved,
    Tensor.detach: lambda x: x,
    Tensor.contiguous: lambda x, **_: x,
    Tensor.float: lambda x, **_: x if x.dtype == torch.float32 else None,
    Tensor.cpu: lambda x, **_: x,
}
_FACTS = {
    getattr(Tensor, name).__get__
    for name in ('shape', 'ndim', 'dtype', 'device', 'requires_grad', 'is_cuda', 'is_mps', 'is_meta', 'is_sparse',
                 'is_quantized', 'layout', 'itemsize', 'nbytes', 'is_leaf', 'grad_fn', 'is_nested')
} | {Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.is_floating_point, torch.is_floating_point,
     Tensor.is_complex, torch.is_complex, torch.numel, Tensor.element_size, Tensor.ndimension}  # fmt: skip


def large(shape: tuple[int, ...]) -> bool:
    """Whether a sample of this shape is so large, 64 MiB in single precision, that it is not held as a whole."""
    return 4 * math.prod(shape) >= LARGE


LARGE = 2**26  # bytes
