"""Batch norms with fixed statistics as part of the convolutions before them, where there is no backward."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mdnc.ops import norm_act
from mdnc.ops.convolution import Geometry
from mdnc.ops.definition import Block, Norm, Weights
from mdnc.ops.units import Statistics

# Where there is no backward, a norm whose statistics are fixed is a scale and a shift of what the convolution before it
# gives, and becomes part of that. In lower types the weights would lose more by it than the maps.
FOLDS = (torch.float32, torch.float64)


def folded(
    x: Tensor, weights: Sequence[Weights], how: Block, statistics: Sequence[Statistics | None]
) -> tuple[Block, list[Weights], list[Statistics | None]]:
    units, own, seen = [*how.units], [*weights], [*statistics]
    for index in range(1, len(units)):
        if _folds(units[index].norm, own[index - 1], units[index - 1].geometry, x):
            own[index - 1 : index + 1] = _into(own[index - 1], own[index], seen[index], units[index].norm)
            units[index], seen[index] = replace(units[index], norm=None), None
    shortcut = how.shortcut
    if shortcut is not None and _folds(shortcut.norm, own[-1], shortcut.geometry, x):
        kernel = own[-1]._replace(scale=None, shift=None)
        own[-1], _ = _into(kernel, own[-1], seen[-1], shortcut.norm)
        shortcut, seen[-1] = replace(shortcut, norm=None), None
    return Block(tuple(units), how.adds, shortcut), own, seen


def _folds(norm: Norm | None, before: Weights, geometry: Geometry | None, x: Tensor) -> bool:
    if norm is None or norm.kind != 'fixed' or geometry is None or geometry.transposed or before.kernel is None:
        return False
    return before.kernel.numel() <= x.shape[0] * x[0, 0].numel() * before.kernel.shape[0]


def _into(before: Weights, own: Weights, statistics: Statistics | None, norm: Norm | None) -> tuple[Weights, Weights]:
    assert statistics is not None
    assert norm is not None
    assert before.kernel is not None
    mean, rate = (
        each.view(-1) for each in norm_act.given(statistics.mean, statistics.variance, norm.eps, before.kernel.dtype)
    )
    scale = rate if own.scale is None else rate * own.scale
    bias = -mean * scale if before.bias is None else (before.bias - mean) * scale
    bias = bias if own.shift is None else bias + own.shift
    kernel = before.kernel * scale.view(-1, *(1 for _ in before.kernel.shape[1:]))
    return before._replace(kernel=kernel, bias=bias), own._replace(scale=None, shift=None)
