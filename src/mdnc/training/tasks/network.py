"""A network by its name and arguments, and the name and arguments of a network."""

import importlib
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mdnc.modules import resnet

# What a configuration file can say; None stands first, so that a null is not taken for a word.
Value = None | int | float | bool | str | list[Any]


@dataclass
class Network:
    """A network by its name.

    Args:
        name: A network or preset of `mdnc.modules.resnet`, or the full name of any ``nn.Module``, ``my_package.Net``.
        arguments: Its keyword arguments; None where they are not known.
    """

    name: str
    arguments: dict[str, Value] | None = field(default_factory=dict)


def as_network(network: Network | dict[str, Any]) -> Network:
    """Read what a user or a checkpoint gives as a dictionary.

    Raises:
        ValueError: It holds something else than ``name`` and ``arguments``.
    """
    if isinstance(network, Network):
        return network
    if (
        not isinstance(network, dict)
        or set(network) - {'name', 'arguments'}
        or not isinstance(network.get('name'), str)
    ):
        raise ValueError(f"network must be a module or {{'name': …, 'arguments': {{…}}}}, not {network!r}")
    return Network(**network)


def build_network(network: Network | dict[str, Any]) -> nn.Module:
    """Build a network from its name and arguments.

    Raises:
        ValueError: There is no such network, or it refuses the arguments.
    """
    network = as_network(network)
    name, arguments = network.name, network.arguments
    maker = _find(name)
    if arguments is None:
        raise ValueError(f'network {name} was given as a module, so its arguments are not known: pass the module again')
    try:
        built: nn.Module = maker(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f'network {name} refuses its arguments {arguments!r}: {error}') from error
    return built


def _find(name: str) -> Any:
    if name in resnet.__all__:
        return getattr(resnet, name)
    module, _, attribute = name.rpartition('.')
    if not module:
        known = ', '.join(word for word in resnet.__all__ if not word.startswith('Block'))
        raise ValueError(f'there is no network called {name!r}; there are {known}, and any nn.Module as package.Class')
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f'network {name!r} cannot be imported: {error}') from error


def describe_network(network: nn.Module) -> dict[str, Any]:
    """Name and arguments, as plain values, from which `build_network` makes the network again.

    The arguments of a module that does not keep them in ``config`` are unknown: None.
    """
    kind = type(network)
    ours = kind.__name__ in resnet.__all__ and kind.__module__.startswith('mdnc.')
    name = kind.__name__ if ours else f'{kind.__module__}.{kind.__qualname__}'
    return {'name': name, 'arguments': getattr(network, 'config', None)}


def output_channels(network: nn.Module) -> int:
    """Number of values or channels that a network gives: those of its last linear or convolutional layer."""
    found = [getattr(part, 'out_features', None) or getattr(part, 'out_channels', None) for part in network.modules()]
    counts = [count for count in found if isinstance(count, int)]
    if not counts:
        raise ValueError(f'{type(network).__name__} has no linear or convolutional layer that says how much it gives')
    return counts[-1]
