"""Residual encoders, decoders, auto-encoders and U-Nets for signals, images and volumes in PyTorch."""

import importlib
from typing import TYPE_CHECKING, Any

from mdnc._early_signals import ignore_save_signal

ignore_save_signal()  # before torch is imported

from mdnc import checkpoints, contribs, modules, ops  # noqa: E402
from mdnc._extras import named  # noqa: E402
from mdnc._version import __version__  # noqa: E402
from mdnc.checkpoints import load_into, rebuild  # noqa: E402
from mdnc.modules import create_model, list_models  # noqa: E402
from mdnc.ops import optimize, restore  # noqa: E402

if TYPE_CHECKING:
    from mdnc import analysis, export, training
    from mdnc.training.predictor import load

__all__ = [
    '__version__',
    'analysis',
    'checkpoints',
    'contribs',
    'create_model',
    'export',
    'list_models',
    'load',
    'load_into',
    'modules',
    'ops',
    'optimize',
    'rebuild',
    'restore',
    'training',
]

# Imported when first asked for: `import mdnc` costs what `import torch` costs.
_LATER = {'analysis': 'analysis', 'export': 'export', 'training': 'train'}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        with named(_LATER[name]):
            return importlib.import_module(f'mdnc.{name}')
    if name == 'load':
        with named('train'):
            return importlib.import_module('mdnc.training.predictor').load
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
