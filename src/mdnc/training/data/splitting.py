"""The samples of each part: drawn at random, given, or divided in order of time."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mdnc.training.data.attributes import attribute, is_attribute
from mdnc.training.data.reader import DataError
from mdnc.training.data.sources import Pair
from mdnc.training.data.split import PARTS, SampleAttributes, Split, split_samples
from mdnc.training.data.windowing import Stretch, Windowing, recording_length

Names = list[str] | None


def _strata(pair: Pair, names: Names) -> list[str]:
    if names is not None:
        return names
    if pair.targets is None:
        raise DataError('split.stratify=True needs targets; name a column instead')
    values = [pair.targets.read(number) for number in range(len(pair.targets))]
    odd = next((number for number, value in enumerate(values) if value.ndim or value.dtype.kind not in 'biu'), None)
    if odd is not None:
        raise DataError(
            f'split.stratify=True needs targets that are classes, but {pair.targets.name(odd)} is '
            f'{values[odd].dtype} {values[odd].shape}; name a column instead'
        )
    return [str(value.item()) for value in values]


def _told(pair: Pair, split: Split, names: Names) -> SampleAttributes:
    given = split.given is not None and is_attribute(pair, str(split.given))
    strata = split.stratify
    said = _strata(pair, names) if strata is True else attribute(pair, strata, 'stratify') if strata else None
    return SampleAttributes(
        part=attribute(pair, str(split.given), 'given') if given else None,
        group=None if split.group is None else attribute(pair, split.group, 'group'),
        stratum=said,
    )


def divide(pairs: Mapping[str, Pair], split: Split, names: Names = None) -> dict[str, tuple[str, np.ndarray]]:
    """The source of each part and its sample numbers; ``val`` and ``test`` may be drawn from ``train``.

    Args:
        pairs: The sources.
        split: How ``train`` is divided.
        names: The class names of its samples, if targets are names.
    """
    given = [part for part in ('val', 'test') if part in pairs]
    none: dict[str, Any] = dict.fromkeys(given, 0.0)
    asked = replace(split, **none)
    taken = split_samples(pairs['train'].inputs, asked, _told(pairs['train'], asked, names))
    twice = next((part for part in given if len(taken[part])), None)
    if twice is not None:
        raise DataError(f'{split.given or "split"} defines {twice}, but the data have a part of that name')
    return {part: ('train', taken[part]) for part in PARTS} | {
        part: (part, np.arange(len(pairs[part].inputs))) for part in given
    }


def _in_time(split: Split, recordings: int, windowing: Windowing) -> bool:
    if split.time is not None:
        return split.time
    if split.given is not None or split.group or split.stratify or split.folds:
        return False
    return windowing.horizon > 0 or recordings == 1


def divide_recordings(
    pairs: Mapping[str, Pair], split: Split, names: Names, windowing: Windowing
) -> dict[str, tuple[str, list[Stretch]]]:
    """The source of each part and the stretches of recordings for its windows.

    Whole recordings are drawn; or, in order of time, the first stretch of each is for training, and no window crosses
    a border.
    """
    lengths = {
        part: [recording_length(pair.inputs, number) for number in range(len(pair.inputs))]
        for part, pair in pairs.items()
    }
    in_time = _in_time(split, len(lengths['train']), windowing)
    shares = {part: getattr(split, part) for part in ('val', 'test') if part not in pairs}
    shares = {part: share for part, share in shares.items() if in_time and not isinstance(share, list)}
    none: dict[str, Any] = dict.fromkeys(shares, 0.0)
    whole = replace(split, time=None, **none) if in_time else split
    found: dict[str, tuple[str, list[Stretch]]] = {}
    for part, (source, numbers) in divide(pairs, whole, names).items():
        found[part] = source, [Stretch(int(number), 0, lengths[source][number]) for number in numbers]
    if shares:
        _cut_in_time(found, shares)
    return found


def _cut_in_time(found: dict[str, tuple[str, list[Stretch]]], shares: Mapping[str, float]) -> None:
    kept = []
    for each in found['train'][1]:
        sizes = {part: max(round(share * each.end), 1) if share else 0 for part, share in shares.items()}
        end = each.end
        for part in ('test', 'val'):
            size = sizes.get(part, 0)
            if size:
                found[part][1].append(Stretch(each.number, end - size, end))
            end -= size
        kept.append(Stretch(each.number, 0, end))
    found['train'] = 'train', kept
