"""Checks of trainer options where Lightning accepts values that train nothing or fail during the run."""

import difflib
import inspect
import math
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L

_Legal = Callable[[Any], bool]


def is_count(value: object, least: int) -> bool:
    """Whether a value is a whole number of at least ``least``; bools are refused."""
    try:
        return not isinstance(value, bool) and operator.index(value) >= least  # type: ignore[arg-type]
    except TypeError:
        return False


def _batches(least: int) -> _Legal:
    return lambda value: (
        is_count(value, least) or (isinstance(value, float) and 0 <= value <= 1 and (value > 0 or not least))
    )


def _count(least: int, *others: object) -> _Legal:
    return lambda value: is_count(value, least) or (not isinstance(value, bool) and value in others)


def _clip(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


_PART = 'a number of batches, at least 0, or a fraction of them in [0, 1]'
_ATLEAST1 = 'a whole number, at least 1'
_ATLEAST0 = 'a whole number, at least 0'
_LEGAL: dict[str, tuple[str, _Legal]] = {
    'max_epochs': ('a whole number, at least 0, which only tests, or -1 for no end', _count(0, -1)),
    'min_epochs': (_ATLEAST0, _count(0)),
    'max_steps': ('a whole number, at least 1, or -1 for no end', _count(1, -1)),
    'min_steps': (_ATLEAST0, _count(0)),
    'limit_train_batches': ('a number of batches, at least 1, or a fraction of them in (0, 1]', _batches(1)),
    'limit_val_batches': (_PART, _batches(0)),
    'limit_test_batches': (_PART, _batches(0)),
    'limit_predict_batches': (_PART, _batches(0)),
    'overfit_batches': (_PART, _batches(0)),
    'val_check_interval': (
        'a number of batches, at least 1, a fraction of an epoch in (0, 1], or a time',
        lambda value: _batches(1)(value) or not isinstance(value, int | float),
    ),
    'check_val_every_n_epoch': (_ATLEAST1, _count(1)),
    'num_sanity_val_steps': ('a whole number, at least 0, or -1 for all', _count(0, -1)),
    'log_every_n_steps': (_ATLEAST0, _count(0)),
    'accumulate_grad_batches': (_ATLEAST1, _count(1)),
    'gradient_clip_val': ('a finite number, at least 0', _clip),
    'num_nodes': (_ATLEAST1, _count(1)),
    'reload_dataloaders_every_n_epochs': (_ATLEAST0, _count(0)),
}
_OURS = {
    'default_root_dir': 'it is set by run_dir',
    'enable_checkpointing': 'a run needs checkpoints',
    'barebones': 'a run needs its callbacks',
}


def check_options(run_dir: object, callbacks: object, options: Mapping[str, Any]) -> None:
    """Refuse arguments of `make_trainer` that are out of range or unknown.

    Raises:
        TypeError: The folder is not a path, callbacks are not a list of callbacks, or an option is unknown.
        ValueError: An option is out of range.
    """
    if not isinstance(run_dir, str | os.PathLike) or not os.fspath(run_dir):
        raise TypeError(f'make_trainer: run_dir must be the path of a folder, not {run_dir!r}')
    if not isinstance(callbacks, list | tuple) or not all(isinstance(each, L.Callback) for each in callbacks):
        raise TypeError(f'make_trainer: callbacks must be a list of Lightning callbacks, not {callbacks!r}')
    known = [name for name in inspect.signature(L.Trainer).parameters if name != 'default_root_dir']
    for name, value in options.items():
        if name in _OURS and value not in (None, name == 'enable_checkpointing'):
            raise ValueError(f'make_trainer: {name}={value!r} cannot be set: {_OURS[name]}')
        if name not in known:
            near = ''.join(f'; did you mean {word}?' for word in difflib.get_close_matches(name, known, n=1))
            raise TypeError(f'make_trainer: unknown option {name}{near}')
        words, legal = _LEGAL.get(name, ('', lambda _: True))
        if value is not None and not legal(value):
            raise ValueError(f'make_trainer: {name} must be {words}, not {value!r}')
