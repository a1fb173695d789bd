"""The fast path: fused operators over the parameters of torch's own layers, their definition beside them."""

from mdnc.ops.operator import norm_act_conv
from mdnc.ops.optimization import optimize, restore
from mdnc.ops.path import plain

__all__ = ['norm_act_conv', 'optimize', 'plain', 'restore']
