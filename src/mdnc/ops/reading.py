"""Blocks read from their layers: a description, see ``definition.Block``, and its parameters; or why there is none."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdnc import _torch
from mdnc.ops import fused, library
from mdnc.ops.backend import DEFAULT
from mdnc.ops.convolution import Geometry
from mdnc.ops.definition import INTERPOLATION, Block, Norm, Resize, Shortcut, Unit, Weights
from mdnc.ops.units import Statistics

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Fused:
    """A block read from its layers, ready for the fused path; see `fuse`.

    Args:
        how: The block.
        weights: Parameters of the units, those of the shortcut last.
        tensors: The parameters that there are, in a row.
        statistics: Of each unit, then of the shortcut, those of a batch norm; empty where there are none.
        axes: Number of spatial axes.
        planes: Channels of the input.
    """

    how: Block
    weights: tuple[Weights, ...]
    tensors: tuple[Tensor, ...]
    statistics: tuple[Statistics | None, ...]
    axes: int
    planes: int

    def __call__(self, x: Tensor, memory: str = 'lean', backend: str = DEFAULT) -> Tensor:
        if torch.compiler.is_compiling():
            return library.block(x, self.weights, self.how, memory, backend, self.statistics)
        return fused.block(x, self.weights, self.how, memory, backend, self.statistics)


def fuse(how: Block, weights: tuple[Weights, ...], statistics: tuple[Statistics | None, ...] = ()) -> Fused:
    """A block with its parameters."""
    tensors = tuple(each for own in weights for each in own if each is not None)
    seen = statistics if any(each is not None for each in statistics) else ()
    first: Any = how.units[0] if how.units else how.shortcut
    planes = _planes(first.geometry, weights[0].kernel)
    assert planes is not None, 'a block begins with a unit that has a convolution'
    return Fused(how, weights, tensors, seen, len(first.geometry.stride), planes[0])


class _NotFused(Exception):
    """The reason why layers can't take the fused path."""


def read(units: Sequence[nn.Module], adds: str = 'nothing', shortcut: nn.Module | None = None) -> Fused | str:
    """Read a block from its layers, or say why it can't take the fused path.

    Args:
        units: Units, each a ``Sequential`` of [norm, act, (up-sampling), conv] or [(up-sampling), conv, norm, act], or
            a convolution alone.
        adds: See ``definition.Block``.
        shortcut: ``Sequential`` of [(up-sampling), conv, norm].
    """
    try:
        parts = [_unit(each) for each in _cut(units)]
        last = None if shortcut is None else _shortcut(_layers(shortcut))
        _refuse_misfits(parts, adds, last)
    except _NotFused as reason:
        return str(reason)
    how = Block(tuple(how for how, _, _ in parts), adds, None if last is None else last[0])
    _, *rest = zip(*parts, *(() if last is None else (last,)), strict=True)
    return fuse(how, *rest)


def _cut(units: Sequence[nn.Module]) -> list[list[Any]]:
    """The layers of all units, cut after each convolution, whichever of a unit's layers that is."""
    found: list[list[Any]] = []
    rest: list[Any] = []
    for unit in units:
        layers = _layers(unit)
        if not any(type(each) in (*CONVOLUTIONS, *_TRANSPOSED) for each in layers):
            raise _NotFused(f'{type(layers[-1]).__name__} stands where a convolution would')
        for each in layers:
            rest.append(each)
            if type(each) in (*CONVOLUTIONS, *_TRANSPOSED):
                found.append(rest)
                rest = []
    return [*found, rest] if rest else found


def _layers(module: nn.Module) -> list[Any]:
    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    for each in (module, *layers):
        if any(_torch.hooks(each)):
            raise _NotFused(f'{type(each).__name__} carries a hook')
        if 'forward' in each.__dict__:
            raise _NotFused(f'{type(each).__name__} has a forward of its own')
    return layers


_Part = tuple[Any, Weights, Statistics | None]  # a Unit or Shortcut, its parameters, the statistics of a batch norm
_ACTIVATIONS: dict[type[nn.Module], str] = {
    **{nn.PReLU: 'prelu', nn.ReLU: 'relu', nn.LeakyReLU: 'leaky_relu', nn.ELU: 'elu', nn.GELU: 'gelu', nn.SiLU: 'silu'}
}


def _unit(layers: list[Any]) -> _Part:
    before, conv = [*layers], None
    if type(layers[-1]) in (*CONVOLUTIONS, *_TRANSPOSED):
        conv = before.pop()
    geometry = None if conv is None else _convolution(conv)
    norm, scale, shift, statistics = _norm(before.pop(0)) if before and _is_norm(before[0]) else _WITHOUT
    act = before.pop(0) if before and type(before[0]) in _ACTIVATIONS else None
    word, alpha = _activation(act)
    unit = Unit(geometry, norm, word, alpha, _resize(before, 0 if geometry is None else len(geometry.stride)))
    slope = act.weight if type(act) is nn.PReLU else None
    kernel, bias = (None, None) if conv is None else (conv.weight, conv.bias)
    return unit, Weights(scale, shift, slope, kernel, bias), statistics


def _shortcut(layers: list[Any]) -> _Part:
    norm, scale, shift, statistics = _norm(layers.pop()) if _is_norm(layers[-1]) else _WITHOUT
    *before, conv = layers
    geometry = _convolution(conv)
    plainest = geometry == Geometry(geometry.stride, (0,) * len(geometry.stride)) and max(conv.kernel_size) == 1
    if not (plainest or geometry.transposed):
        raise _NotFused('the shortcut has another convolution than 1 × … × 1')
    pool = before.pop(0).stride if before and getattr(before[0], 'averages', False) else ()
    if pool and max(geometry.stride) > 1:
        raise _NotFused('the shortcut pools and has a stride')
    how = Shortcut(geometry, norm, _resize(before, len(geometry.stride)), pool)
    return how, Weights(scale, shift, None, conv.weight, conv.bias), statistics


_Normed = tuple[Norm | None, Tensor | None, Tensor | None, Statistics | None]
_WITHOUT: _Normed = (None, None, None, None)


def _refuse_misfits(parts: Sequence[_Part], adds: str, shortcut: _Part | None) -> None:
    """Refuse layers that do not fit: torch's own say why not, where kernels would read beyond the parameters."""
    planes: list[tuple[int, int]] = []  # into each unit, and out of it
    for part in parts:
        planes.append(_planes(part[0].geometry, part[1].kernel) or (planes[-1][1], planes[-1][1]))
    fits = all(before[1] == after[0] for before, after in itertools.pairwise(planes))
    fits = fits and all(_fit(own, seen, *each) for (_, own, seen), each in zip(parts, planes, strict=True))
    if shortcut is not None:
        how, own, seen = shortcut
        beside = _planes(how.geometry, own.kernel) or (0, 0)
        whole = (planes[0][0], planes[-1][1]) if planes else beside
        fits = fits and whole == beside and _fit(own, seen, beside[1], beside[1])
    elif adds == 'input':
        fits = fits and planes[0][0] == planes[-1][1]
    if not fits:
        raise _NotFused('the layers do not fit one another')


def _planes(geometry: Geometry | None, kernel: Tensor | None) -> tuple[int, int] | None:
    """Channels that go into a convolution, and that come out; None for no convolution."""
    if geometry is None or kernel is None:
        return None
    if kernel.dim() != 2 + len(geometry.stride):
        raise _NotFused('the weights of a convolution are laid out in another way')
    first, second = kernel.shape[0], kernel.shape[1] * geometry.groups
    return (first, second) if geometry.transposed else (second, first)


def _fit(own: Weights, seen: Statistics | None, normed: int, out: int) -> bool:
    """Whether parameters and statistics are those of so many channels normalised, and so many that come out."""
    vectors = (own.scale, own.shift, *(() if seen is None else (seen.mean, seen.variance)))
    if not all(each is None or each.numel() == normed for each in vectors):
        return False
    return (own.slope is None or own.slope.numel() in (1, normed)) and (own.bias is None or own.bias.numel() == out)


def _is_norm(layer: Any) -> bool:
    return type(layer) in (*INSTANCE_NORMS, *_BATCH_NORMS, nn.GroupNorm, nn.SyncBatchNorm)


def _norm(norm: Any) -> _Normed:
    if type(norm) in _BATCH_NORMS:
        return _batch_norm(norm)
    if type(norm) is nn.GroupNorm:
        return Norm('group', norm.eps, norm.num_groups), norm.weight, norm.bias, None
    if type(norm) not in INSTANCE_NORMS:
        raise _NotFused(f'{type(norm).__name__} takes its statistics from all processes')
    if norm.track_running_stats:
        raise _NotFused(f'{type(norm).__name__} tracks statistics')
    return Norm('instance', norm.eps), norm.weight, norm.bias, None


def _batch_norm(norm: Any) -> _Normed:
    # As nn.BatchNorm2d chooses between the statistics of the batch and those of before.
    if norm.training or (norm.running_mean is None and norm.running_var is None):
        tracks = norm.training and norm.track_running_stats and norm.running_mean is not None
        own = Statistics(norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum)
        return Norm('batch', norm.eps), norm.weight, norm.bias, own if tracks else None
    fixed = Statistics(norm.running_mean, norm.running_var)
    return Norm('fixed', norm.eps), norm.weight, norm.bias, fixed


def _activation(act: Any) -> tuple[str, float]:
    word = 'null' if act is None else _ACTIVATIONS[type(act)]
    if word == 'gelu' and act.approximate != 'none':
        raise _NotFused('GELU is approximate')
    own = {'leaky_relu': 'negative_slope', 'elu': 'alpha'}
    return word, float(getattr(act, own[word])) if word in own else 0.0


def _resize(layers: list[Any], axes: int) -> Resize | None:
    if not layers:
        return None
    up, *more = layers
    if more or type(up) is not nn.Upsample:
        raise _NotFused(f'{type(layers[-1]).__name__} stands between activation and convolution')
    if up.recompute_scale_factor:
        raise _NotFused('Upsample recomputes its factors')
    linear = up.mode in INTERPOLATION.values() and up.align_corners
    if not linear and up.mode != 'nearest':
        raise _NotFused(f'Upsample(mode={up.mode!r}) stands between activation and convolution')
    return Resize(_each(up.size, axes), _each(up.scale_factor, axes), not linear)


def _each(value: Any, axes: int) -> Any:
    return value if value is None or isinstance(value, tuple) else (value,) * axes


def _convolution(conv: Any) -> Geometry:
    if type(conv) not in (*CONVOLUTIONS, *_TRANSPOSED):
        raise _NotFused(f'{type(conv).__name__} stands where a convolution would')
    if max(conv.dilation) > 1 or conv.padding_mode != 'zeros' or isinstance(conv.padding, str):
        raise _NotFused(f'{type(conv).__name__} has dilation or padding of another kind')
    if type(conv) in _TRANSPOSED:
        return Geometry(conv.stride, conv.padding, conv.groups, True, conv.output_padding)
    return Geometry(conv.stride, conv.padding, conv.groups)
