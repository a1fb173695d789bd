"""Residual encoders, decoders, auto-encoders and U-Nets for signals, images and volumes in PyTorch."""

from mdnc import checkpoints, contribs, modules, ops
from mdnc.checkpoints import load_into, rebuild

__version__ = '0.2.0'

__all__ = ['__version__', 'checkpoints', 'contribs', 'load_into', 'modules', 'ops', 'rebuild']
