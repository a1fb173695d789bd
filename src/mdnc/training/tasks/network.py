"""Networks from name and arguments, and the name and arguments of networks."""

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
    """A network given by name.

    Args:
        name: A network or preset of `mdnc.modules.resnet`, or the full name of any class of ``nn.Module``,
            ``my_package.Net``.
        arguments: Its keyword arguments; None if they are not known.
    """

    name: str
    arguments: dict[str, Value] | None = field(default_factory=dict)


def as_network(network: Network | dict[str, Any]) -> Network:
    """Convert the dictionary of a user or a checkpoint.

    Raises:
        ValueError: It has keys other than ``name`` and ``arguments``.
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
    """Build a network from its name and arguments. Classes outside mdnc are imported, which runs their code.

    Raises:
        ValueError: The network is unknown, is not an ``nn.Module``, or refuses the arguments.
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
        raise ValueError(f'unknown network {name!r}; choose from {known}, or give any nn.Module as package.Class')
    return import_network_class(name)


def describe_network(network: nn.Module, given: Network | None = None) -> dict[str, Any]:
    """Name and arguments, as plain values, from which `build_network` can rebuild the network.

    Args:
        network: The network.
        given: Name and arguments from which it was built, if any. The arguments of other modules without a
            ``config`` are unknown: None.
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
    """Number of outputs or output channels of a network: those of its last linear or convolutional layer."""
    found = [getattr(part, 'out_features', None) or getattr(part, 'out_channels', None) for part in network.modules()]
    counts = [count for count in found if isinstance(count, int)]
    if not counts:
        raise ValueError(
            f'{type(network).__name__} has no linear or convolutional layer from which its number of outputs '
            f'could be read'
        )
    return counts[-1]
