"""Checks of the arguments of tasks; each returns a plain value for checkpoints."""

import math
import os
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from torch import nn
from torchmetrics import Metric


def number(owner: str, name: str, value: object, legal: str, low: float, high: float = math.inf) -> float:
    """A finite number in [``low``, ``high``) as a float; ``legal`` describes this in the error.

    Raises:
        TypeError: It is not a number.
        ValueError: It is out of range.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f'{owner}: {name} must be {legal}, a number, not {value!r:.80}')
    if not low <= float(value) < high:
        raise ValueError(f'{owner}: {name} must be {legal}, not {value!r}')
    return float(value)


def flag(owner: str, name: str, value: object) -> bool:
    """True or False, NumPy's too.

    Raises:
        TypeError: It is neither.
    """
    if type(value).__name__ not in ('bool', 'bool_'):
        raise TypeError(f'{owner}: {name}={value!r:.80} must be true or false')
    return bool(value)


def weights(owner: str, name: str, value: object, count: int, each: str = 'class') -> list[float]:
    """``count`` numbers, none below 0 and not all of them 0.

    Raises:
        TypeError: They are not a list of numbers.
        ValueError: Their number is wrong, or they are out of range.
    """
    listed = _listed(owner, name, value, f'a list of {count} numbers, one per {each}')
    found = [number(owner, f'{name}[{place}]', part, '≥ 0', 0.0) for place, part in enumerate(listed)]
    if len(found) != count or not any(found):
        raise ValueError(f'{owner}: {name}={found} must be {count} numbers, one per {each}, not all of them 0')
    return found


def names(owner: str, value: object, count: int, each: str) -> list[str]:
    """The argument ``names``, ``count`` different strings.

    Raises:
        TypeError: They are not a list of strings.
        ValueError: Their number is wrong, or two are the same.
    """
    legal = f'{count} names, one per {each}, all different'
    listed = _listed(owner, 'names', value, legal)
    if not all(isinstance(word, str) for word in listed):
        raise TypeError(f'{owner}: names={listed!r:.200} must be {legal}')
    if len(listed) != count or len(set(listed)) < count:
        raise ValueError(f'{owner}: names={listed!r:.200} must be {legal}')
    return [str(word) for word in listed]


def path(owner: str, name: str, value: object) -> str:
    """A path as a string.

    Raises:
        TypeError: It is not a path.
        ValueError: It is empty.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f'{owner}: {name}={value!r:.80} must be the path of a run or a checkpoint')
    if not os.fspath(value):
        raise ValueError(f'{owner}: {name} must be the path of a run or a checkpoint, not empty')
    return str(value)


def own_parts(owner: str, optimizer: object, loss: object, metrics: object) -> dict[str, Metric]:
    """Check the optimizer, loss and metrics given by a user; returns the metrics.

    Raises:
        TypeError: ``optimizer`` cannot be called, ``loss`` is not a module, or ``metrics`` not a dictionary of metrics.
        ValueError: ``loss`` has parameters, which would not be trained, or the name of a metric is in use.
    """
    if optimizer is not None and not callable(optimizer):
        raise TypeError(
            f'{owner}: optimizer={optimizer!r:.80} must be a function that makes an optimizer from parameter groups'
        )
    if loss is not None and not isinstance(loss, nn.Module):
        raise TypeError(
            f"{owner}: loss={loss!r:.80} must be a module made with reduction='none', not its name or class"
        )
    if loss is not None and any(weight.requires_grad for weight in loss.parameters()):
        raise ValueError(
            f'{owner}: loss={type(loss).__name__} has parameters, but only those of the network are trained'
        )
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping) or not all(isinstance(metric, Metric) for metric in metrics.values()):
        raise TypeError(f'{owner}: metrics={metrics!r:.80} must be a dictionary of metrics of torchmetrics by name')
    for name in metrics:
        if not isinstance(name, str) or not name or set(name) & set('./') or name == 'loss':
            raise ValueError(
                f"{owner}: {name!r} cannot be the name of a metric: it must not contain '.' or '/', or be loss"
            )
    return dict(metrics)


def _listed(owner: str, name: str, value: object, legal: str) -> list[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f'{owner}: {name}={value!r:.80} must be {legal}')
    return list(value)
