"""Residual encoders, decoders, auto-encoders and U-Nets for signals, images and volumes in PyTorch."""

from mdnc import contribs, modules

__version__ = '0.2.0'

__all__ = ['__version__', 'contribs', 'modules']
