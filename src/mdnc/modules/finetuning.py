"""Fine-tuning of trained networks: frozen parts, and groups of parameters for an optimizer."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from mdnc._bundle import unwrapped
from mdnc.modules import _checks, _plan
from mdnc.modules._plan import Stage
from mdnc.modules.resnet.features import picked
from mdnc.modules.resnet.network import Network, plan_of

# ---- Freezing ----


def freeze(net: Network, stages: Sequence[str | int] | None = None) -> None:
    """Freeze parts of a network, in place: their parameters get no gradients, and they run in eval mode.

    Statistics of batch norms are also frozen, and dropout and drop path are off there. This lasts until `unfreeze`,
    also after ``net.train()``.

    Args:
        net: The network.
        stages: Which parts: paths as in ``net.plan.parts`` (``'netbody.0'``, ``'conv_first'``), prefixes of
            several parts (``'netbody'``), or indices into ``net.feature_info``; ``None`` for all.

    Raises:
        TypeError: ``net`` is not a network of mdnc, or ``stages`` is not a sequence of paths and ints.
        ValueError: The network has no such part.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 1])
        >>> mdnc.modules.freeze(net, ['netbody'])
        >>> sorted(name for name, each in net.named_parameters() if each.requires_grad)
        ['fc.bias', 'fc.weight']
    """
    names = _parts('freeze', net, stages)
    for name in names:
        net.get_submodule(name).requires_grad_(False)
    net.held = tuple(part.name for part in net.plan.parts if part.name in {*net.held, *names})
    net.train(net.training)


def unfreeze(net: Network, stages: Sequence[str | int] | None = None) -> None:
    """Make frozen parts of a network trainable again, in place; arguments as in `freeze`.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 1])
        >>> mdnc.modules.freeze(net)
        >>> mdnc.modules.unfreeze(net, ['fc'])
        >>> [name for name, each in net.named_parameters() if each.requires_grad]
        ['fc.weight', 'fc.bias']
    """
    names = _parts('unfreeze', net, stages)
    for name in names:
        net.get_submodule(name).requires_grad_(True)
    net.held = tuple(name for name in net.held if name not in names)
    net.train(net.training)


def _parts(owner: str, net: Network, stages: Sequence[str | int] | None) -> list[str]:
    plan, paths = plan_of(owner, net), [part.name for part in net.plan.parts]
    if stages is None:
        return paths
    words = [top for top in plan.modules if top not in paths]
    asked = picked(owner, stages, [*paths, *words], [stage.name for stage in plan.stages])
    return [path for path in paths if path in asked or path.partition('.')[0] in asked]


# ---- Groups for an optimizer ----


def decaying_names(net: nn.Module) -> frozenset[str]:
    """Names of the parameters with weight decay, without prefixes of wrappers: weights of convolutions and of
    linear layers.

    Norms, slopes of PReLU, powers of pools and biases are vectors; decaying a scale or a slope towards 0 does not help.

    Args:
        net: Any module.

    Example:
        >>> import mdnc
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 1])
        >>> decaying = mdnc.modules.decaying_names(net)
        >>> 'fc.weight' in decaying, 'fc.bias' in decaying
        (True, False)
    """
    return frozenset(unwrapped(name) for name, parameter in net.named_parameters() if parameter.ndim > 1)


def param_groups(
    net: nn.Module, lr: float, weight_decay: float = 0.0, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Parameters in groups for an optimizer of torch: weight decay for weights only, layer-wise learning rates.

    The learning rate of a part is ``lr · layer_decay^n`` for n parts with parameters between it and the output, in the
    order they run: the last part has ``lr`` itself, and so have heads that run in training only. There is no weight
    decay for norms, biases, slopes of PReLU and powers of pools. Each parameter is in exactly one group.

    Args:
        net: The network; any module with ``layer_decay=1``.
        lr: Learning rate of the last part, above 0.
        weight_decay: Decay of weights of convolutions and linear layers, at least 0.
        layer_decay: Factor from a part to the part before it, above 0 and at most 1; 1 for one rate everywhere.

    Returns:
        Groups with ``'params'``, ``'lr'``, ``'weight_decay'`` and a ``'name'``, from the first part to the last.

    Raises:
        TypeError: An argument is not a number, or ``net`` has no plan for a layer decay.
        ValueError: A number is out of range.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 1])
        >>> groups = mdnc.modules.param_groups(net, lr=0.001, weight_decay=0.05, layer_decay=0.5)
        >>> optimizer = torch.optim.AdamW(groups)
        >>> tuple((group['name'], group['lr']) for group in groups[-2:])
        (('fc', 0.001), ('fc, no decay', 0.001))
    """
    lr = _checks.number('param_groups', 'lr', lr, above=0)
    weight_decay = _checks.number('param_groups', 'weight_decay', weight_decay, least=0)
    layer_decay = _checks.number('param_groups', 'layer_decay', layer_decay, above=0)
    if layer_decay > 1:
        raise ValueError(f'param_groups: layer_decay={layer_decay:g} must be above 0 and at most 1.')
    depths = _depths(net) if layer_decay < 1 else {}
    decaying, groups = decaying_names(net), dict[tuple[str, bool], dict[str, Any]]()
    for name, parameter in net.named_parameters():
        part = max((path for path in depths if name.startswith(f'{path}.')), key=len, default='')
        decays = unwrapped(name) in decaying
        group = groups.setdefault((part, decays), {'params': [], 'lr': lr * layer_decay ** depths.get(part, 0)})
        group['params'].append(parameter)
        group['weight_decay'] = weight_decay if decays else 0.0
        group['name'] = f'{part or "all"}{"" if decays else ", no decay"}'
    order = {path: index for index, path in enumerate(depths)}
    return [groups[key] for key in sorted(groups, key=lambda key: (order.get(key[0], -1), not key[1]))]


def _depths(net: nn.Module) -> dict[str, int]:
    # How many parts with parameters stand between a part and the output, by path, as they run.
    plan = plan_of('param_groups', net)
    parts = [part for part in plan.parts if isinstance(part, (Stage, _plan.Single)) and part.tensors]
    depths, behind = dict[str, int](), 0
    for part in reversed(parts):
        depths[part.name] = 0 if part.training else behind
        behind += not part.training
    return dict(reversed(depths.items()))
