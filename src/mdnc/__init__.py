"""Residual encoders, decoders, auto-encoders and U-Nets for signals, images and volumes in PyTorch."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from mdnc._start import outlive_wishes

outlive_wishes()  # before torch is imported

from mdnc import checkpoints, contribs, modules, ops  # noqa: E402
from mdnc._version import __version__  # noqa: E402
from mdnc.checkpoints import load_into, rebuild  # noqa: E402
from mdnc.modules import create_model, list_models  # noqa: E402
from mdnc.ops import optimize, restore  # noqa: E402

if TYPE_CHECKING:
    from mdnc import analysis, export, training

__all__ = [
    '__version__',
    'analysis',
    'checkpoints',
    'contribs',
    'create_model',
    'export',
    'list_models',
    'load_into',
    'modules',
    'ops',
    'optimize',
    'rebuild',
    'restore',
    'training',
]

# Imported when first asked for: `import mdnc` costs what `import torch` costs.
_LATER = ('analysis', 'export', 'training')


def __getattr__(name: str) -> ModuleType:
    if name in _LATER:
        return importlib.import_module(f'mdnc.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
