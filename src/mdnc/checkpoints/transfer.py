"""Weights of one network in another, as far as they fit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mdnc.checkpoints.keys import ANCHORS, anatomy, bare
from mdnc.modules import Network

OWNER = 'mdnc.load_into'
Fate = Literal['loaded', 'adapted', 'left', 'unused']
# Blocks and single layers are loaded whole or not at all.
UNIT = re.compile(r'(.*\.conv_list\.\d+|.*\.conv_scale|.*)\.')
BLOCK = re.compile(r'(\w+)(?:\.(\d+))?\.(conv_list\.\d+|conv_scale)')
LoaderState = tuple[str, str]  # stage, block in it
SINGLES = {
    ('encoder', 'netbody.0'): 'first',
    ('encoder', 'fc'): 'head',
    ('downup', 'conv_first'): 'first',
    ('downup', 'conv_final'): 'last',
    ('decoder', 'conv_in'): 'vector',
    ('decoder', 'conv_first'): 'widest',
    ('decoder', 'conv_last'): 'finest',
}


@dataclass(frozen=True)
class LoadRow:
    """What became of one block or layer.

    Args:
        stage: Its place in the network, for example ``'down 1'``; the same words for all families.
        here: Its name in the network; empty if the network has no such place.
        there: Its name in the state dict; empty if that has no such place.
        fate: ``'loaded'``, ``'adapted'`` (loaded after a change of shape), ``'left'`` (as the network had it) or
            ``'unused'`` (only in the state dict).
        note: Why, if it wasn't loaded as it is.

    Example:
        >>> import mdnc
        >>> unet = mdnc.modules.resnet.UNet2d(8, [2, 1, 1])
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [2, 1])
        >>> mdnc.checkpoints.load_into(net, unet.state_dict()).rows[0]
        LoadRow(stage='first', here='netbody.0', there='conv_first', fate='loaded', note='')
    """

    stage: str
    here: str
    there: str
    fate: Fate
    note: str = ''


@dataclass(frozen=True)
class LoadReport:
    """What `load_into` did, one row for each block and layer; ``print`` shows it as a table.

    Args:
        rows: In the network's order, then what was not used.

    Example:
        >>> import mdnc
        >>> unet = mdnc.modules.resnet.UNet2d(8, [2, 1, 1])
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [2, 1])
        >>> print(mdnc.checkpoints.load_into(net, unet.state_dict()))
        stage   network                state dict
        first   netbody.0              conv_first                    loaded
        down 1  netbody.1.conv_list.0  conv_down_list.0.conv_list.0  loaded
        down 1  netbody.1.conv_scale   conv_down_list.0.conv_scale   loaded
        down 2  netbody.2.conv_scale   conv_down_list.1.conv_scale   loaded
        tail    netbody.3              –                             left    not in the state dict
        head    fc                     –                             left    not in the state dict
        up 2    –                      conv_up_list.0.conv_scale     unused
        up 1    –                      conv_up_list.1.conv_list.0    unused
        up 1    –                      conv_up_list.1.conv_scale     unused
        middle  –                      conv_middle_up.conv_scale     unused
        last    –                      conv_final                    unused
    """

    rows: tuple[LoadRow, ...]

    def names(self, fate: Fate) -> tuple[str, ...]:
        """Names of the blocks and layers that were ``'loaded'``, ``'adapted'``, ``'left'`` or ``'unused'``."""
        return tuple(row.here or row.there for row in self.rows if row.fate == fate)

    def __str__(self) -> str:
        table = [('stage', 'network', 'state dict', '', '')]
        table += [(row.stage, row.here or '–', row.there or '–', row.fate, row.note) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return '\n'.join('  '.join(map(str.ljust, line, widths)).rstrip() for line in table)


def load_into(net: Network, state_dict: Mapping[str, Tensor], *, prefix: str | None = None) -> LoadReport:
    """Load what fits of another network's weights, and say what became of each block and layer.

    Places are compared, not names: the first convolution and the way down of an auto-encoder or U-Net are those of an
    encoder, and ways up are counted from the output. A block or layer is loaded whole or left as it is.

    A first convolution with another number of input channels is adapted as timm does it: one channel takes the sum
    of the old ones; several take them in turn, times old over new number, which keeps the size of the response.

    Args:
        net: The network to fill.
        state_dict: Tensors by name, of any network; wrappers and a common prefix are stripped.
        prefix: What the keys to take begin with where there are others too, for example ``'network.'``.

    Returns:
        The report.

    Raises:
        TypeError: ``net`` is none of mdnc's networks, or ``state_dict`` is no state dict.
        ValueError: It is of another order, or nothing in it fits; ``net`` is then unchanged.

    Example:
        >>> import mdnc
        >>> unet = mdnc.modules.resnet.UNet2d(8, [2, 1, 1], in_planes=3)
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [2, 1], in_planes=1)
        >>> report = mdnc.checkpoints.load_into(net, unet.state_dict())
        >>> report.names('loaded')
        ('netbody.1.conv_list.0', 'netbody.1.conv_scale', 'netbody.2.conv_scale')
        >>> report.names('adapted'), report.names('left')
        (('netbody.0',), ('netbody.3', 'fc'))
    """
    if not isinstance(net, Network):
        raise TypeError(f'{OWNER}: net must be a network of mdnc, not a {type(net).__name__}.')
    weights = bare(OWNER, state_dict, prefix)
    _refuse_other_order(net, weights)
    state = net.state_dict()
    theirs, ours = _places(weights), _places(state)
    rows, values = [], {}
    for place, here in ours.items():
        row, fitted = _fit(LoadRow(place[0], here, theirs.get(place, ''), 'left'), state, weights)
        rows.append(row)
        values.update(fitted)
    rows += [LoadRow(place[0], '', there, 'unused') for place, there in theirs.items() if place not in ours]
    if not values:
        raise ValueError(f'{OWNER}: nothing in the state dict fits {type(net).__name__}:\n{LoadReport(tuple(rows))}')
    with torch.no_grad():
        for key, value in values.items():
            state[key].copy_(value)
    return LoadReport(tuple(rows))


def _refuse_other_order(net: Network, weights: dict[str, Tensor]) -> None:
    rank = next(weights[anchor].ndim for anchor in ANCHORS if anchor in weights)
    if rank - 2 != net.plan.order:
        raise ValueError(f'{OWNER}: the state dict is of a {rank - 2}-D network, {type(net).__name__} is not.')


def _places(keys: Mapping[str, Tensor]) -> dict[LoaderState, str]:
    # Name of each block and layer by its place, in the order of the keys.
    units = dict.fromkeys(match[1] for match in map(UNIT.match, keys) if match)
    blocks = [match for match in map(BLOCK.fullmatch, units) if match]
    counts = {stem: max(int(block[2] or 0) for block in blocks if block[1] == stem) for stem in {b[1] for b in blocks}}
    build = anatomy(keys)
    return {_place(unit, build, counts): unit for unit in units}


def _place(unit: str, build: str, last: dict[str, int]) -> LoaderState:
    block = BLOCK.fullmatch(unit)
    if block is None:
        return SINGLES.get((build, unit)) or _behind(unit, last), ''
    stem, number, name = block.groups()
    if number is None:
        return 'middle', name
    # Levels count from the array: the way down from the input, ways up back from the output.
    down = stem == 'conv_down_list' or build == 'encoder'
    level = int(number) + (build != 'encoder') if down else last[stem] - int(number) + 1
    return f'{"down" if down else "grow" if build == "decoder" else "up"} {level}', name


def _behind(unit: str, last: dict[str, int]) -> str:
    # What an encoder has behind its stages is counted from there, however many these are.
    stem, number, layer = (*unit.split('.', 2), '', '')[:3]
    if stem not in last or not number.isdecimal():
        return unit
    behind = int(number) - last[stem] - 1
    return ' '.join(filter(None, ('tail', f'{behind or ""}', layer)))


def _fit(row: LoadRow, state: dict[str, Tensor], weights: dict[str, Tensor]) -> tuple[LoadRow, dict[str, Tensor]]:
    # The row with its fate, and the values for the network's keys.
    if not row.there:
        return replace(row, note='not in the state dict'), {}
    ours, theirs = _members(state, row.here), _members(weights, row.there)
    if ours.keys() != theirs.keys():
        return replace(row, note='it has other layers there'), {}
    row = replace(row, fate='loaded')
    if row.stage == 'first' and ours['weight'].shape[1] != theirs['weight'].shape[1] > 0:
        old, new = theirs['weight'].shape[1], ours['weight'].shape[1]
        theirs = {'weight': _with_planes(theirs['weight'], new)}
        row = replace(row, fate='adapted', note=f'input channels: {old} there, {new} here')
    for name, value in theirs.items():
        if value.is_meta and not ours[name].is_meta:
            return replace(row, fate='left', note=f'{name}: no values there, it is on the meta device'), {}
        if value.is_floating_point() != ours[name].is_floating_point():  # a batch norm counts batches
            return replace(row, fate='left', note=f'{name}: {value.dtype} there'), {}
        if value.shape != ours[name].shape:
            there, here = tuple(weights[f'{row.there}.{name}'].shape), tuple(ours[name].shape)
            return replace(row, fate='left', note=f'{name}: {there} there, {here} here'), {}
    return row, {f'{row.here}.{name}': value for name, value in theirs.items()}


def _members(tensors: dict[str, Tensor], unit: str) -> dict[str, Tensor]:
    return {key.removeprefix(f'{unit}.'): value for key, value in tensors.items() if key.startswith(f'{unit}.')}


def _with_planes(weight: Tensor, planes: int) -> Tensor:
    # (C, old, k, …) → (C, planes, k, …)
    old = weight.shape[1]
    if planes == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, [i % old for i in range(planes)]] * (old / planes)
