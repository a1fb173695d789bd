"""What a summary is asked for: the arguments, checked and as plain data."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mdnc.modules import _checks

OWNER = 'summary'
UNKNOWN_BATCH = -1
BATCH_RUN = 2  # run where the batch is left open: batch norm needs more than one value a channel to train

Size = tuple[int, ...]
# torch.FloatTensor and its like are instances of torch.tensortype, which type checkers don't know.
Device = str | int | torch.device


@dataclass(frozen=True)
class Request:
    """One run of a model.

    Args:
        sizes: Size of each input, without the batch.
        batch_size: Size of the batch, or -1 to leave it open.
        device: Where the inputs are made.
        dtypes: Type of each input.
        stand_ins: Whether a model with values runs on shapes alone, so that nothing is computed.
    """

    sizes: tuple[Size, ...]
    batch_size: int
    device: torch.device
    dtypes: tuple[torch.dtype, ...]
    stand_ins: bool

    @property
    def batch_run(self) -> int:
        """Size of the batch that is run."""
        return BATCH_RUN if self.batch_size == UNKNOWN_BATCH else self.batch_size

    def inputs(self) -> list[Tensor]:
        """Random inputs in [0, 1): 0 for integers, which every embedding takes."""
        pairs = zip(self.sizes, self.dtypes, strict=True)
        return [torch.rand(self.batch_run, *size, device=self.device).to(dtype) for size, dtype in pairs]


def request(model: object, input_size: object, batch_size: object, device: object, dtypes: object) -> Request:
    """Check the arguments of ``summary``; the words are there."""
    if not isinstance(model, nn.Module):
        raise TypeError(f'{OWNER}: model must be a torch.nn.Module, not {type(model).__name__}.')
    refuse_unreadable(OWNER, 'model', model)
    sizes, batch = _sizes(input_size), _batch_size(batch_size)
    _checks.inputs(OWNER, model, len(sizes))
    for size in sizes:
        _checks.countable(OWNER, (abs(batch), *size))
    asked = None if device is None else usable_device(device)
    place = _place(model, asked)
    return Request(
        sizes=sizes,
        batch_size=batch,
        device=place,
        dtypes=_dtypes(dtypes, model, len(sizes)),
        stand_ins=asked == torch.device('meta') != place,
    )


def refuse_unreadable(owner: str, name: str, model: nn.Module) -> None:
    """Refuse a module whose parameters have no shape yet, or whose calls cannot be seen."""
    lazy = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if is_lazy(tensor)]
    if lazy:
        raise ValueError(
            f'{owner}: {name} has parameters without a shape yet: {", ".join(lazy)}. Run it once on a real input first.'
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError(
            f'{owner}: {name} holds a ScriptModule, which hides its calls; give the module it was made from.'
        )


def _sizes(input_size: object) -> tuple[Size, ...]:
    legal = 'one size, for example (3, 64, 63), or a sequence of sizes, one for each input'
    if isinstance(input_size, (str, bytes, Mapping, Set)) or not isinstance(input_size, Iterable):
        raise TypeError(f'{OWNER}: input_size={input_size!r} must be {legal}.')
    items = list(input_size)
    # () is the size of an input that is one number a sample, [] no input at all.
    if (items or isinstance(input_size, list)) and all(isinstance(item, Sequence) for item in items):
        return tuple(_size(item, input_size) for item in items)
    return (_size(items, input_size),)


def _size(size: Sequence[Any], given: object) -> Size:
    return tuple(_checks.integer(OWNER, f'input_size={given!r}: length', length) for length in size)


def _batch_size(value: object) -> int:
    number = _checks.integer(OWNER, 'batch_size', value, minimum=UNKNOWN_BATCH)
    if number == 0:
        raise ValueError(f'{OWNER}: batch_size=0 must be at least 1, or -1 to leave it open.')
    return number


def usable_device(value: object, owner: str = OWNER) -> torch.device:
    """The device that a word, an index or a ``torch.device`` names, if tensors can be made there."""
    if isinstance(value, bool) or not isinstance(value, (str, int, torch.device)):
        raise TypeError(f'{owner}: device={value!r} must be a device, for example "cpu", "cuda:0" or "meta", or None.')
    try:
        return torch.empty(0, device=value).device  # also turns 'cuda' into 'cuda:0'
    except (RuntimeError, AssertionError) as error:  # AssertionError: a build without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f'{owner}: device={str(value)!r} cannot be used here: {reason}') from error


def _place(model: nn.Module, asked: torch.device | None) -> torch.device:
    """Device of the inputs: the parameters' own; for 'meta' too, where the model runs on shapes alone."""
    held = list(dict.fromkeys(tensor.device for tensor in (*model.parameters(), *model.buffers())))
    if asked is None or asked.type == 'meta':
        return held[0] if held else torch.get_default_device()
    if held and asked not in held:
        places = ', '.join(map(str, held))
        raise ValueError(
            f"{OWNER}: device='{asked}' is not where the model is ({places}): move the model, or leave device out "
            "to take the model's own, or give device='meta' to compute nothing."
        )
    return asked


def _dtypes(dtypes: object, model: nn.Module, inputs: int) -> tuple[torch.dtype, ...]:
    if dtypes is None:
        return (_own_dtype(model),) * inputs
    if not isinstance(dtypes, Sequence) or isinstance(dtypes, str):
        raise TypeError(f'{OWNER}: dtypes={dtypes!r} must be a sequence of dtypes, one for each input.')
    if len(dtypes) != inputs:
        raise ValueError(f'{OWNER}: dtypes={dtypes!r} must hold one dtype for each of the {inputs} inputs.')
    return tuple(_dtype(item) for item in dtypes)


def _own_dtype(model: nn.Module) -> torch.dtype:
    dtypes = (parameter.dtype for parameter in model.parameters())
    return next((dtype for dtype in dtypes if dtype.is_floating_point or dtype.is_complex), torch.get_default_dtype())


def _dtype(value: object) -> torch.dtype:
    dtype = getattr(value, 'dtype', None) if isinstance(value, type(torch.FloatTensor)) else value
    if not isinstance(dtype, torch.dtype):
        raise TypeError(
            f'{OWNER}: dtypes holds {value!r}, but a torch.dtype or the like of torch.FloatTensor is needed.'
        )
    try:
        torch.zeros(1).to(dtype)
    except RuntimeError as error:  # quantized ones, and those that only name a number of bits
        raise ValueError(f'{OWNER}: dtypes holds {value!r}, of which no input can be made.') from error
    return dtype
