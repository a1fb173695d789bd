"""A network by its name and arguments, and the name and arguments of a network."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mdnc._plain import plain
from mdnc.modules import resnet
from mdnc.modules._external import import_network_class

# What a configuration file can say; None stands first, so that a null is not taken for a word.
Value = None | int | float | bool | str | list[Any]


@dataclass
class Network:
    """A network by its name.

    Args:
        name: A network or preset of `mdnc.modules.resnet`, or the full name of any class of ``nn.Module``,
            ``my_package.Net``.
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
        or not isinstance(network.get('arguments', {}), dict | None)
    ):
        raise ValueError(f"network must be a module or {{'name': …, 'arguments': {{…}}}}, not {network!r:.200}")
    return Network(**network)


def build_network(network: Network | dict[str, Any]) -> nn.Module:
    """Build a network from its name and arguments. A class that is not of mdnc is imported, and so run.

    Raises:
        ValueError: There is no such network, it is no ``nn.Module``, or it refuses the arguments.
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
    short = name.removeprefix('mdnc.modules.resnet.')
    if short in resnet.__all__:
        return getattr(resnet, short)
    if '.' not in name:
        known = ', '.join(word for word in resnet.__all__ if not word.startswith('Block'))
        raise ValueError(f'there is no network called {name!r}; there are {known}, and any nn.Module as package.Class')
    return import_network_class(name)


def describe_network(network: nn.Module, given: Network | None = None) -> dict[str, Any]:
    """Name and arguments, as plain values, from which `build_network` makes the network again.

    Args:
        network: The network.
        given: What it was built from, where it was built by name. The arguments of another module that does not keep
            them in ``config`` are unknown: None.
    """
    network = getattr(network, '_orig_mod', network)  # of torch.compile
    kind = type(network)
    if kind.__name__ in resnet.__all__ and kind.__module__.startswith('mdnc.'):
        return {'name': kind.__name__, 'arguments': network.config}
    if given is not None:
        return {'name': given.name, 'arguments': plain(given.arguments, f'network {given.name}: arguments')}
    kept = getattr(network, 'config', None)
    try:
        arguments = plain(kept, 'config') if isinstance(kept, dict) else None
    except TypeError:
        arguments = None
    return {'name': f'{kind.__module__}.{kind.__qualname__}', 'arguments': arguments}


def output_channels(network: nn.Module) -> int:
    """Number of values or channels that a network gives: those of its last linear or convolutional layer."""
    found = [getattr(part, 'out_features', None) or getattr(part, 'out_channels', None) for part in network.modules()]
    counts = [count for count in found if isinstance(count, int)]
    if not counts:
        raise ValueError(f'{type(network).__name__} has no linear or convolutional layer that says how much it gives')
    return counts[-1]
