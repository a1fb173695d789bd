"""Additions that stand beside the networks."""

from mdnc.contribs import torchsummary

__all__ = ['torchsummary']
