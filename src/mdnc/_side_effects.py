"""Calls of modules that leave no trace: modes, buffers, notes and random states put back; and what they give."""

import copy
import dataclasses
import logging
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mdnc import _torch


def tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in an output of any make: in lists, mappings, fields of objects, nested tensors; in order."""
    for tensor in leaves(output):
        yield from tensor.unbind() if tensor.is_nested else (tensor,)


def leaves(output: Any, _seen: frozenset[int] = frozenset()) -> Iterator[Tensor]:
    """The same, nested tensors whole."""
    if isinstance(output, Tensor):
        yield output
        return
    if id(output) in _seen:  # an object that holds itself
        return
    for item in _parts(output):
        yield from leaves(item, _seen | {id(output)})


def _parts(output: Any) -> Iterator[Any]:
    if isinstance(output, (type, nn.Module)):
        return
    if isinstance(output, Mapping):
        yield from output.values()
    elif isinstance(output, (list, tuple, set, frozenset)):
        yield from output
    elif dataclasses.is_dataclass(output):
        yield from (getattr(output, field.name, None) for field in dataclasses.fields(output))
    else:
        yield from getattr(output, '__dict__', {}).values()


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Run on copies of the buffers, and put every attribute of every module back at the end.

    The copies, rather than values written back, keep a graph valid that waits for its backward pass.
    """
    kept = [put_back for module in model.modules() for put_back in _kept(module)]
    try:
        _copy_buffers(model)
        yield
    finally:
        for put_back in kept:
            put_back()


def _kept(module: nn.Module) -> Iterator[Callable[[], None]]:
    own = vars(module)
    for held in (own, *own.values()):
        # Parameters, buffers, children and hooks are in dictionaries; what else a module notes, in lists and sets.
        if type(held) in (dict, OrderedDict, list, set):
            yield partial(_put_back, held, copy.copy(held))


def _put_back(held: Any, content: Any) -> None:
    held.clear()
    if isinstance(held, list):
        held.extend(content)
    else:
        held.update(content)


def _copy_buffers(model: nn.Module) -> None:
    copies = {id(buffer): buffer.detach().clone() for buffer in model.buffers()}
    for module in model.modules():
        own = _torch.buffers(module)
        for name, buffer in own.items():
            if buffer is not None:
                own[name] = copies[id(buffer)]


@contextmanager
def silent() -> Iterator[None]:
    """Keep back the traceback that torch logs beside an error on stand-ins."""
    logger = logging.getLogger('torch._subclasses.fake_tensor')
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def random_state_kept() -> Iterator[None]:
    numpy = sys.modules.get('numpy')
    states = random.getstate(), numpy and numpy.random.get_state()
    # A device that has not been used yet has no state to lose, and asking would start it.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices, device_type='cuda'):
            yield
    finally:
        random.setstate(states[0])
        if numpy:
            numpy.random.set_state(states[1])
