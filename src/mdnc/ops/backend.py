"""Who computes what a network is made of: one table, by name and device.

A backend computes norm and activation, convolutions and products of matrices, lays tensors in memory and says where
they come from. Blocks name theirs by a word, ``'torch'`` or, after ``mdnc.optimize``, ``'optimized'``; here alone that
word and the device of a tensor become functions. README.md in this folder is the map.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from torch import Tensor

from mdnc.ops import allocator, norm_act, norm_act_cpp, norm_act_inductor, small_blocks, winograd
from mdnc.ops.convolution import BY_SHAPE, TORCH, Convolution, Tools
from mdnc.ops.norm_act import Gradients, Moments

DEFAULT, OPTIMIZED = 'torch', 'optimized'


class NormAct(NamedTuple):
    """Who computes norm and activation.

    Args:
        forward: See ``norm_act.forward``.
        rebuild: See ``norm_act.rebuild``.
        backward: See ``norm_act.backward``.
        activate: See ``norm_act.activated``, of units without a norm.
        activate_backward: See ``norm_act.activation_backward``.
    """

    forward: Callable[..., tuple[Tensor, Moments]] = norm_act.forward
    rebuild: Callable[..., tuple[Tensor, Tensor | None]] = norm_act.rebuild
    backward: Callable[..., Gradients] = norm_act.backward
    activate: Callable[..., Tensor] = norm_act.activated
    activate_backward: Callable[..., tuple[Tensor, Tensor | None]] = norm_act.activation_backward


class Backend(NamedTuple):
    """Who computes, and where results lie; a result does not depend on it but for rounding.

    Args:
        norm_act: Norm and activation.
        convolution: Convolutions.
        tools: What the convolutions are made of: products of matrices, and the routes that may be taken.
        memory: For a tensor like a block's input, in which context the block is to run.
        channels_last: Whether a block's tensors are to lie with their channels innermost, whatever its input does.
        whole_blocks: Whether blocks are fused as a whole, or their units one by one.
        small: Says how a small block is computed in one call, see ``small_blocks.plan``; None for not at all.
        small_shortcuts: Whether a shortcut's 1 × … × 1 convolution comes before its up-sampling.
        few: Whether a block of few values, see ``Limits.few_values``, is torch's own layers at the level ``'lean'``.
        folds: Whether fixed norms become part of the convolutions before them, where there is no backward.
    """

    norm_act: NormAct = NormAct()
    convolution: Convolution = BY_SHAPE
    tools: Tools = TORCH
    memory: Callable[[Tensor], AbstractContextManager[Any]] = nullcontext
    channels_last: bool = False
    whole_blocks: bool = True
    small: Callable[..., small_blocks.Plan | None] | None = None
    small_shortcuts: bool = True
    few: bool = False
    folds: bool = True


class _Table(dict[tuple[str, str], Backend]):
    def __missing__(self, key: tuple[str, str]) -> Backend:
        name, device = key
        if device == 'cuda':
            raise KeyError(name)
        return self[name, 'cuda']  # what any other device gets too


_INDUCTOR = NormAct(norm_act_inductor.forward, norm_act_inductor.rebuild, norm_act_inductor.backward)
_CPP = NormAct(norm_act_cpp.forward, norm_act_cpp.rebuild, norm_act_cpp.backward)
# By a backend's name and the type of the device. Whoever measures what a part brings puts a backend without it here.
TABLE = _Table(
    {
        (DEFAULT, 'cpu'): Backend(few=True),
        (DEFAULT, 'cuda'): Backend(),
        # C++ normalises while it activates, and folding would spare it nothing.
        (OPTIMIZED, 'cpu'): Backend(
            _CPP,
            winograd.CONVOLUTION,
            memory=allocator.pooled,
            channels_last=True,
            small=small_blocks.plan,
            folds=False,
        ),
        (OPTIMIZED, 'cuda'): Backend(_INDUCTOR, channels_last=True),
    }
)
NAMES = (DEFAULT, OPTIMIZED)
