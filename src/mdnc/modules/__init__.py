"""The networks: torch only."""

from mdnc.modules import resnet

__all__ = ['resnet']
