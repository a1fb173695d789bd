"""Batches of samples of unequal sizes: padded, and run through layers that ignore the padding."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import singledispatch
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mdnc._torch import CONVOLUTIONS, NORMS
from mdnc.modules import _checks, _layers, _plan, pooling
from mdnc.modules._dims import CONVOLVE
from mdnc.modules._masked_norm import normalize
from mdnc.modules._sizes import Size
from mdnc.modules._valid_region import ValidRegion
from mdnc.ops import path

# Positions along an axis, and their weights.
Picks = Callable[[], list[tuple[Tensor, Tensor | None]]]


class Ragged(NamedTuple):
    """A padded batch of maps inside a network.

    Args:
        values: The maps, ``(B, C, L1, …)``, finite everywhere.
        real: Which part of them is not padding.
        clean: Whether they are zero in the padding. They are between blocks; inside a block, layers that read the
            padding make sure of it.
    """

    values: Tensor
    real: ValidRegion
    clean: bool = True

    def cleaned(self) -> 'Ragged':
        """Set the padding to zero; in place, as no other code uses the values before."""
        return self if self.clean else Ragged(self.values.mul_(self.real.inside), self.real)

    def cropped(self, to: ValidRegion) -> 'Ragged':
        """Each sample cropped around its own centre."""
        if to is self.real:
            return self
        values = self.values
        starts = (self.real.sizes - to.sizes) // 2  # as `_sizes.crop_start`
        for axis, length in enumerate(to.padded):
            start = starts[:, axis : axis + 1]
            if _checks.traced(values) or bool(start.any()):
                values = picked(values, functools.partial(_window, start, length, values.shape[axis + 2]), axis)
            else:
                values = values.narrow(axis + 2, 0, length)
        return Ragged(values * to.inside, to)

    def joined(self, other: 'Ragged') -> 'Ragged':
        """Concatenated to one of the same sizes."""
        return Ragged(torch.cat((self.values, other.values), 1), other.real)

    def plus(self, other: 'Ragged') -> 'Ragged':
        """The sum with one of the same sizes, clean."""
        return Ragged(self.values + other.values, self.real, self.clean and other.clean).cleaned()


def extent(x: Tensor | Ragged) -> Any:
    """The spatial size of maps; of a padded batch its valid region."""
    return x.real if isinstance(x, Ragged) else x.shape[2:]


def values(y: Tensor | Ragged) -> Tensor:
    """The maps themselves."""
    return y.values if isinstance(y, Ragged) else y


def pad_batch(samples: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Put samples of unequal sizes into one batch, padded with zeros at the end of each axis.

    Args:
        samples: Tensors ``(C, L1, …)`` with one to three spatial axes and equal channels, dtype and device.

    Returns:
        The batch ``(B, C, max L1, …)``, and the ``lengths`` that networks take with it, ints on the CPU: ``(B,)`` for
        signals, ``(B, axes)`` for images and volumes.

    Raises:
        TypeError: Samples are not tensors, or differ in dtype.
        ValueError: There are no samples, or they differ in more than their sizes, or are empty.

    Example:
        >>> import mdnc, torch
        >>> x, lengths = mdnc.modules.pad_batch([torch.ones(1, 20), torch.ones(1, 33)])
        >>> x.shape, lengths
        (torch.Size([2, 1, 33]), tensor([20, 33]))
        >>> net = mdnc.modules.resnet.EncoderNet1d(8, [1, 1], out_length=3)
        >>> net(x, lengths=lengths).shape
        torch.Size([2, 3])
    """
    samples = _checked_samples(samples)
    first = samples[0]
    sizes = torch.tensor([each.shape[1:] for each in samples])
    x = first.new_zeros(len(samples), first.shape[0], *sizes.amax(0).tolist())
    for number, each in enumerate(samples):
        x[number][(slice(None), *map(slice, each.shape[1:]))] = each
    return x, sizes.squeeze(1) if first.dim() == 2 else sizes


def _checked_samples(samples: Any) -> list[Tensor]:
    samples = list(samples) if isinstance(samples, Iterable) and not isinstance(samples, Tensor) else samples
    if not isinstance(samples, list) or not all(isinstance(each, Tensor) for each in samples):
        raise TypeError(f'pad_batch: samples must be a sequence of tensors (C, L1, …), not {type(samples).__name__}.')
    if not samples:
        raise ValueError('pad_batch: samples is empty; at least one is needed.')
    first = samples[0]
    for number, each in enumerate(samples):
        _checks.dense('pad_batch', f'samples[{number}]', each)
        if not 2 <= each.dim() <= 4 or each.dim() != first.dim() or each.shape[0] != first.shape[0] or not each.numel():
            raise ValueError(
                f'pad_batch: samples[{number}] has shape {tuple(each.shape)}, samples[0] {tuple(first.shape)}; all '
                'must be (C, L1, …) with 1 to 3 spatial axes, the same number of channels, and none empty.'
            )
        if each.dtype != first.dtype or each.device != first.device:
            raise TypeError(
                f'pad_batch: samples[{number}] is {each.dtype} on {each.device}, samples[0] {first.dtype} on '
                f'{first.device}; all must be the same.'
            )
    return samples


# ---- Inputs of a network ----


def sizes(owner: str, lengths: Any, batch: int, order: int) -> list[Size]:
    """The checked size of each sample.

    Args:
        owner: Name of the network or function.
        lengths: The argument: ints ``(B, order)``, or ``(B,)`` for signals.
        batch: B.
        order: Number of spatial axes.

    Raises:
        TypeError: It has the wrong type.
        ValueError: It has the wrong shape, or a size below 1.
    """
    rows = lengths.tolist() if hasattr(lengths, 'tolist') else lengths
    legal = f'ints of shape ({batch}, {order})' + (f' or ({batch},)' if order == 1 else '')
    if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)):
        raise TypeError(f'{owner}: lengths={lengths!r} must be {legal}, a size for each sample.')
    if len(rows) != batch:
        raise ValueError(f'{owner}: lengths has {len(rows)} entries, but the batch has {batch} samples.')
    found = [_checks.per_axis(owner, f'lengths[{number}]', row, order) for number, row in enumerate(rows)]
    # One int for all axes is legal elsewhere; here it would more likely be a list of the wrong lengths.
    if order > 1 and any(not hasattr(row, '__len__') for row in rows):
        raise ValueError(f'{owner}: lengths={lengths!r} must be {legal}, one int for each axis of each sample.')
    return found


def refuse_beyond(owner: str, sizes: Sequence[Size], padded: Size) -> None:
    """Refuse sizes that are not within the padded one.

    Raises:
        ValueError: One is not.
    """
    for number, size in enumerate(sizes):
        if any(have > most for have, most in zip(size, padded, strict=True)):
            raise ValueError(f'{owner}: sample {number} of lengths has size {size}, beyond the padded size {padded}.')


def boxed(x: Tensor, sizes: Sequence[Size]) -> Tensor | Ragged:
    """A padded input without what no sample reaches: a plain one where all samples are of its size then.

    Args:
        x: The input, ``(B, C, L1, …)``, with anything where it is not real.
        sizes: Size of each sample.
    """
    box = tuple(map(max, zip(*sizes, strict=True)))
    for axis, length in enumerate(box):
        x = x.narrow(axis + 2, 0, length)
    return x if all(each == box for each in sizes) else padded(x, torch.tensor(sizes))


def padded(x: Tensor, sizes: Tensor) -> Ragged:
    """A padded input, cleaned of what is not real, be it not even finite."""
    real = ValidRegion(sizes.view(x.shape[0], -1), x.shape[2:], x.device)
    return Ragged(x.masked_fill(~real.inside, 0), real)


def unboxed(y: Tensor, size: Size) -> Tensor:
    """Maps padded with zeros at the ends, to a size where they have not reached it; a vector as it is."""
    if y.dim() == 2:
        return y
    pads = [(0, max(0, most - have)) for have, most in zip(y.shape[2:], size, strict=True)]
    return F.pad(y, [pad for pair in reversed(pads) for pad in pair]) if any(map(max, pads)) else y


# ---- Layers ----


def _window(start: Tensor, length: int, have: int) -> list[tuple[Tensor, Tensor | None]]:
    place = torch.arange(length, device=start.device) + start
    return [(place.clamp(max=have - 1), None)]


def _halo(last: Tensor, length: int, pad: int, mode: str) -> list[tuple[Tensor, Tensor | None]]:
    # What torch pads with, but at the end of each sample; further on anything.
    place = torch.arange(-pad, length + pad, device=last.device)
    if mode == 'reflect':
        place = last - (last - place.abs()).abs()
    else:
        place = place % (last + 1) if mode == 'circular' else place.clamp(min=0).minimum(last)
    return [(place.clamp(0, length - 1), None)]


def _between(have: Tensor, length: int, factor: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor | None]]:
    # Linear with aligned corners, in the steps of torch's own: a place is a float times a float.
    scale = (have - 1).to(dtype) / (have * factor - 1).to(dtype)
    place = scale * torch.arange(length, device=have.device).to(dtype)
    low = place.long().minimum(have - 1)
    share = (place - low).clamp(0, 1)
    return [(low, 1 - share), ((low + 1).minimum(have - 1), share)]


class _Picked(torch.autograd.Function):
    """`_sum_of`, which keeps no places: they weigh twice a plane, and are made again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, picks: Picks, axis: int) -> Tensor:
        ctx.shape, ctx.picks, ctx.axis = x.shape, picks, axis
        return _sum_of(x, picks, axis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        found = grad.new_zeros(ctx.shape)
        for place, share in _spread(ctx.picks, grad.shape, grad, ctx.axis):
            found = found.scatter_add(ctx.axis + 2, place, grad if share is None else grad * share)
        return found, None, None


def picked(x: Tensor, picks: Picks, axis: int) -> Tensor:
    """Of each sample the values at its own places of one axis, or sums of them.

    Args:
        x: The maps, ``(B, C, L1, …)``.
        picks: Makes the places, ints ``(B, M)``, and the share of each, ``(B, M)`` or ``None`` for all of it.
        axis: The spatial axis.
    """
    if path.transformed():
        return _sum_of(x, picks, axis)
    return _Picked.apply(x, picks, axis)  # type: ignore[no-any-return, no-untyped-call]


def _sum_of(x: Tensor, picks: Picks, axis: int) -> Tensor:
    terms = (
        x.gather(axis + 2, place) if share is None else x.gather(axis + 2, place) * share
        for place, share in _spread(picks, x.shape, x, axis)
    )
    return functools.reduce(torch.add, terms)


def _spread(picks: Picks, shape: Sequence[int], like: Tensor, axis: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    for place, share in picks():
        wanted, alone = list(shape), [1] * len(shape)
        wanted[axis + 2] = alone[axis + 2] = place.shape[1]
        alone[0] = place.shape[0]
        spread = place.to(like.device).view(alone).expand(wanted)
        yield spread, None if share is None else share.to(like.dtype).view(alone)


def through(layers: Sequence[_plan.Layer], modules: Iterable[Any], x: Ragged, stride: Size | None = None) -> Any:
    """Run layers of a plan, one after the other.

    Args:
        layers: The layers in plain values.
        modules: The same as torch's modules.
        x: A padded batch.
        stride: With which stride those resize that do; ``None`` for their own.

    Returns:
        A padded batch, or behind a pool a plain tensor.
    """
    y: Any = x
    for layer, module in zip(layers, modules, strict=True):
        if isinstance(y, Ragged):
            _refuse_other(layer, module)
            y = run(layer, module, y, stride)
        else:
            y = module(y)
    return y


@singledispatch
def run(layer: Any, module: Any, x: Ragged, stride: Size | None) -> Any:
    """What a layer makes of a padded batch."""
    raise TypeError(f'lengths= can not be followed through the layer {type(layer).__name__} of a plan.')


@run.register
def _(layer: _plan.Conv, module: Any, x: Ragged, stride: Size | None) -> Ragged:
    steps = stride if stride is not None and max(layer.stride) > 1 else layer.stride
    if layer.padding_mode != 'zeros' and any(layer.padding):
        values = _haloed(x, layer)
        y = CONVOLVE[len(steps)](values, module.weight, module.bias, steps, 0, 1, module.groups)
    else:
        x = x.cleaned() if max(layer.kernel) > 1 else x
        y = module(x.values) if steps == layer.stride else _layers.resized(module, x.values, steps)
    after = x.real.grown if layer.transposed else x.real.shrunk
    return Ragged(y, after(steps, y.shape[2:]), clean=False)


def _haloed(x: Ragged, layer: _plan.Conv) -> Tensor:
    # Padded so that each sample has its own border's halo where it ends.
    values = x.values
    for axis, pad in enumerate(layer.padding):
        if not pad:
            continue
        last, length = x.real.own[:, axis : axis + 1] - 1, values.shape[axis + 2]
        values = picked(values, functools.partial(_halo, last, length, pad, layer.padding_mode), axis)
    return values


@run.register
def _(layer: _plan.Norm, module: Any, x: Ragged, stride: Size | None) -> Ragged:
    return Ragged(normalize(layer, module, x.values, x.real, clean=x.clean), x.real)


@run.register
def _(layer: _plan.Act, module: Any, x: Ragged, stride: Size | None) -> Ragged:
    x = x.cleaned()  # all activations leave zero as it is
    return Ragged(module(x.values), x.real)


@run.register
def _(layer: _plan.Dropout, module: Any, x: Ragged, stride: Size | None) -> Ragged:
    x = x.cleaned()
    return Ragged(module(x.values), x.real)


@run.register
def _(layer: _plan.Upsample, module: Any, x: Ragged, stride: Size | None) -> Ragged:
    if layer.size is not None:
        raise ValueError(f'lengths= can not be followed through an up-sampling to the one size {layer.size}.')
    factors = stride or layer.factors
    if layer.mode == 'nearest':
        y = module(x.values) if factors == layer.factors else _layers.resized(module, x.values, factors)
        return Ragged(y, x.real.grown(factors, y.shape[2:]), clean=False)
    values = x.values
    real = x.real.grown(factors, [have * step for have, step in zip(values.shape[2:], factors, strict=True)])
    for axis, factor in enumerate(factors):
        if factor > 1:
            have, dtype = x.real.own[:, axis : axis + 1], torch.promote_types(values.dtype, torch.float32)
            values = picked(values, functools.partial(_between, have, real.padded[axis], factor, dtype), axis)
    return Ragged(values, real, clean=False)


@run.register
def _(layer: _plan.AveragePool, module: Any, x: Ragged, stride: Size | None) -> Ragged:
    steps = stride or layer.stride
    x = x.cleaned()
    shares = x.real.inside.to(x.values.dtype)
    y, share = module(x.values, steps), module(shares, steps)
    return Ragged(y * torch.where(share > 0, 1 / share, 0), x.real.shrunk(steps, y.shape[2:]))


@run.register
def _(layer: _plan.GlobalPool, module: Any, x: Ragged, stride: Size | None) -> Tensor:
    x, point = x.cleaned(), (..., *(None,) * (x.values.dim() - 2))
    if layer.kind in ('avg', 'max'):
        return (pooling.mean if layer.kind == 'avg' else pooling.first_max)(x.values, x.real)[point]
    if not torch.is_grad_enabled() or path.transformed():
        return module(x.values, x.real)  # type: ignore[no-any-return]
    # What is masked inside is made again in backward, from the map that the layer before keeps.
    again = functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    return again(module, x.values, x.real)  # type: ignore[no-any-return]


_KINDS: dict[type, tuple[type, ...]] = {
    _plan.Conv: CONVOLUTIONS,
    _plan.Norm: (*NORMS, nn.GroupNorm),
}


def _refuse_other(layer: _plan.Layer, module: Any) -> None:
    known = _KINDS.get(type(layer), (nn.Module,))
    if not isinstance(module, known) or isinstance(module, nn.SyncBatchNorm):
        raise TypeError(
            f'lengths= can not be followed through {type(module).__name__}, which stands where the plan has a '
            f'{type(layer).__name__}.'
        )
