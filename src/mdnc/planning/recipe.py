"""A recipe as a flat table of words, and back: ``data.init_args.split.val`` is the word ``data.split.val``."""

import inspect
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mdnc.training import ArrayData, SampleData

# What holds words itself; any other dictionary is a value.
_INNER = (
    *('model', 'data', 'trainer', 'keeper', 'guard'),
    *('model.network', 'model.network.arguments', 'data.split', 'data.augmentation'),
)
_CLASSES = ('model', 'data')


def flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a recipe.

    Raises:
        ValueError: A part of it that should hold words holds something else.

    Example:
        >>> flat({'data': {'class_path': 'Digits', 'init_args': {'split': {'val': 0.2}}}})
        {'data.class_path': 'Digits', 'data.split.val': 0.2}
    """
    found: dict[str, Any] = {}
    for name, value in recipe.items():
        _flatten(str(name), value, found)
    return found


def _flatten(word: str, value: Any, found: dict[str, Any]) -> None:
    if word not in _INNER or value is None:
        found[word] = value
        return
    if not isinstance(value, Mapping):
        if word in _CLASSES and isinstance(value, str):
            found[f'{word}.class_path'] = value
            return
        raise ValueError(f'plan: {word}={value!r:.80} must hold words, as in a recipe.')
    for name, inner in value.items():
        if word in _CLASSES and name == 'init_args':
            _flatten(word, inner or {}, found)
        elif word in _CLASSES and name == 'class_path':
            found[f'{word}.class_path'] = str(inner).rpartition('.')[2] if _is_ours(inner) else inner
        else:
            _flatten(f'{word}.{name}', inner, found)


def _is_ours(path: object) -> bool:
    return str(path).startswith('mdnc.')


def nested(words: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a table of words."""
    recipe: dict[str, Any] = {}
    for word, value in words.items():
        first, *names = word.split('.')
        if first in _CLASSES and names != ['class_path']:
            names = ['init_args', *names]
        place = recipe
        for name in (first, *names)[:-1]:
            place = place.setdefault(name, {})
        place[(first, *names)[-1]] = value
    return recipe


_KEPT = ('workers', 'seed', 'normalise', 'missing', 'nonfinite', 'overlap', 'balance', 'blend', 'tiles', 'mirror')


def data_words(data: SampleData) -> dict[str, Any]:
    """The words of a data module that was made in Python, as far as a recipe can hold them."""
    words: dict[str, Any] = {'data.class_path': type(data).__name__}
    if isinstance(data, ArrayData):
        named = {'inputs': data._inputs, 'targets': data._targets, 'predict': data._new}
        words |= {f'data.{name}': _paths(value) for name, value in named.items() if value is not None}
        told = {name: getattr(data, name) for name in ('order', 'classes', 'values')}
        told |= {'colours': data._look.colours, 'columns': data._columns or None, 'recordings': data._recordings}
        words |= {f'data.{name}': value for name, value in told.items() if value is not None}
    told = {**SampleData._reading(data), 'crop': data._view.crop and [*data._view.crop], 'patch': data.patch}
    words |= {f'data.{name}': value for name, value in told.items() if value is not None}
    defaults = inspect.signature(SampleData.__init__).parameters
    for name in _KEPT:
        if (value := getattr(data, name)) != defaults[name].default:
            words[f'data.{name}'] = value
    if data.split != defaults['split'].default:
        words |= {f'data.split.{name}': value for name, value in vars(data.split).items() if value is not None}
    return words


def _paths(value: Any) -> Any:
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): _paths(each) for name, each in value.items()}
    if isinstance(value, list | tuple) and all(isinstance(each, str | os.PathLike) for each in value):
        return [os.fspath(each) for each in value]
    shape = np.shape(value) if isinstance(value, np.ndarray) else ''
    return f'<{type(value).__name__} {shape} in memory: name its file here>'
