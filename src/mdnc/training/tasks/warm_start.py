"""Starting a training from another run: its weights, frozen parts, and layer-wise learning rates."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from mdnc.checkpoints import load, load_into
from mdnc.modules import freeze, param_groups
from mdnc.modules.resnet.network import Network


def words(owner: str, value: object) -> list[str] | None:
    """The argument ``freeze``: names of parts, or None.

    Raises:
        TypeError: It is not a list of strings.
    """
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
        raise TypeError(f'{owner}: freeze={value!r:.200} must be a list of names of parts, such as [netbody]')
    return [str(each) for each in value]


def hold(owner: str, network: nn.Module, parts: list[str] | None) -> None:
    """Freeze parts of a network, which then get no gradients.

    Raises:
        TypeError: The network is not of mdnc.
        ValueError: It has no such part, or no parameter would be left to train.
    """
    if not parts:
        return
    try:
        freeze(network, parts)  # type: ignore[arg-type] # it says so itself
    except (TypeError, ValueError) as error:
        raise type(error)(f'{owner}: freeze={parts!r:.200}: {error}') from error
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f'{owner}: freeze={parts!r:.200} leaves no parameter to be trained')


def take_weights(owner: str, network: nn.Module, source: str) -> str:
    """Load the weights of another run that fit, and report on each block and layer.

    Raises:
        ValueError: The run does not exist, nothing in it fits, or the network is not of mdnc.
    """
    if not isinstance(network, Network):
        raise ValueError(
            f'{owner}: weights={source!r} can be loaded into networks of mdnc only, not {type(network).__name__}'
        )
    try:
        report = load_into(network, load(source).state_dict())
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f'{owner}: weights={source!r}: {error}') from error
    if not report.names('loaded') and not report.names('adapted'):
        raise ValueError(f'{owner}: weights={source!r}: none of them fit this network:\n{report}')
    return f'weights from {source}:\n{report}'


def layered_groups(network: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Groups of `mdnc.modules.param_groups`, with a ``'factor'`` instead of the learning rate."""
    groups = param_groups(network, 1.0, weight_decay, layer_decay)
    for group in groups:
        group['factor'] = group.pop('lr')
    return groups


def scale_rates(optimizer: Optimizer) -> None:
    """Multiply the learning rate of each group with a ``'factor'`` by this factor."""
    for group in optimizer.param_groups:
        group['lr'] *= group.pop('factor', 1.0)
