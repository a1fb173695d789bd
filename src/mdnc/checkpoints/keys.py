"""State dicts of any origin under the networks' own keys."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor

from mdnc._bundle import unwrapped
from mdnc.modules._pretrained import unusable

# The first convolution has one of these keys in every network.
ANCHORS = ('conv_first.weight', 'netbody.0.weight')


def anatomy(keys: Iterable[str]) -> Literal['encoder', 'decoder', 'downup']:
    """How a network with these bare keys is put together; auto-encoders and U-Nets are alike."""
    stems = {key.partition('.')[0] for key in keys}
    if 'conv_down_list' in stems:
        return 'downup'
    return 'decoder' if 'conv_first' in stems else 'encoder'


def bare(owner: str, state_dict: Mapping[str, Any], prefix: str | None) -> dict[str, Tensor]:
    """Strip wrappers and the prefix from the keys of a state dict.

    Args:
        owner: Name of the public function.
        state_dict: Tensors by name.
        prefix: What the keys of the network begin with, and the others don't; ``None`` to find it.

    Raises:
        TypeError: It is no state dict, or ``prefix`` is no str.
        ValueError: It holds no network, several, or more than one; or a tensor that is no weight.
    """
    _refuse_others(owner, state_dict)
    if not isinstance(prefix, (str, type(None))):
        raise TypeError(f"{owner}: prefix={prefix!r:.80} must be a str as 'network.', or None to find it.")
    tensors = {unwrapped(key): value for key, value in state_dict.items()}
    if prefix is None:
        prefix = _found_prefix(owner, tensors)
    own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    if not any(anchor in own for anchor in ANCHORS):
        raise ValueError(f'{owner}: prefix={prefix!r} is before no {" and no ".join(ANCHORS)} in the state dict.')
    for key, value in own.items():
        if fault := unusable(value):
            raise ValueError(f'{owner}: the state dict is of no network of mdnc: {key} {fault}.')
    return own


def _refuse_others(owner: str, state_dict: Mapping[str, Any]) -> None:
    if not isinstance(state_dict, Mapping):
        raise TypeError(f'{owner}: state_dict must map names to tensors, not be a {type(state_dict).__name__}.')
    for key, value in state_dict.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            continue
        inner = [name for name, item in state_dict.items() if isinstance(item, Mapping)]
        hint = f' It looks like a checkpoint around one; try one of its items {inner}.' if inner else ''
        raise TypeError(f'{owner}: state_dict has the item {key!r} of type {type(value).__name__}, no tensor.{hint}')


def _found_prefix(owner: str, tensors: dict[str, Tensor]) -> str:
    found = {key.removesuffix(anchor) for anchor in ANCHORS for key in tensors if f'.{key}'.endswith(f'.{anchor}')}
    if not found:
        raise ValueError(
            f'{owner}: the state dict is of no network of mdnc: it has neither {" nor ".join(ANCHORS)}, under any '
            f'prefix. Its keys begin {list(tensors)[:3]}.'
        )
    if len(found) > 1:
        raise ValueError(f'{owner}: the state dict holds several networks; say which: prefix= one of {sorted(found)}.')
    prefix = found.pop()
    others = [key for key in tensors if not key.startswith(prefix)]
    if others:
        raise ValueError(
            f'{owner}: the state dict holds {len(others)} keys beside the network under {prefix!r}, {others[0]!r} '
            f'first; to leave them out give prefix={prefix!r}.'
        )
    return prefix
