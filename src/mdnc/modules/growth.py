"""Adapting trained networks: other input channels, more blocks, more spatial axes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from mdnc._torch import CONVOLUTIONS
from mdnc.modules import _checks, _plan, _sizes
from mdnc.modules._plan import Part, Stage
from mdnc.modules._variants import face
from mdnc.modules.resnet.network import Network, plan_of

# ---- Other inputs ----


def adapt_inputs(net: Network, in_planes: int, how: Literal['average', 'repeat', 'zero'] = 'average') -> Network:
    """A copy of a trained network for another number of input channels.

    Args:
        net: An encoder, auto-encoder or U-Net.
        in_planes: Channels of its input, at least 1.
        how: Weights of the first convolution:

            - ``'average'``: each channel has the sum of the old weights divided by the new number: the output for an
              image with equal channels does not change.
            - ``'repeat'``: the old channels in turn, with weights divided among the repetitions: the output for
            channels
              that are repeated in the same way does not change. With fewer channels, the first are kept.
            - ``'zero'``: the old weights, and zeros for new channels: the output does not depend on the new channels.

    Returns:
        A new network of the same class; nothing in it is frozen.

    Raises:
        TypeError: ``net`` is not a network of mdnc, or an argument has the wrong type.
        ValueError: ``net`` has no input channels, or an argument has the wrong value.

    Example:
        >>> import mdnc
        >>> grey = mdnc.modules.resnet.EncoderNet2d(8, [1, 1])
        >>> mdnc.modules.adapt_inputs(grey, 3).config['in_planes']
        3
    """
    plan, config = plan_of('adapt_inputs', net), net.config
    in_planes = _checks.integer('adapt_inputs', 'in_planes', in_planes)
    how = _checks.word('adapt_inputs', 'how', how, ('average', 'repeat', 'zero'))  # type: ignore[assignment]
    if 'in_planes' not in config:
        raise ValueError(
            f'adapt_inputs: net is a {type(net).__name__}, which has no input channels that could be changed.'
        )
    mixed = _mixed(plan.in_planes, in_planes, how)
    tensors = _copied(net)
    for part in plan.parts:
        for prefix, layer in _layers(part):
            if part is plan.parts[0] and isinstance(layer, _plan.Conv):
                weight = tensors[f'{prefix}weight']
                tensors[f'{prefix}weight'] = torch.einsum('oi...,ni->on...', weight, mixed.to(weight))
            elif isinstance(layer, _plan.Linear) and layer.amplitudes:
                weight = tensors[f'{prefix}weight']
                pooled, scales = weight[:, : layer.in_planes], weight[:, layer.in_planes :]
                tensors[f'{prefix}weight'] = torch.cat((pooled, scales @ mixed.to(weight).T), 1)
    return _made(net, type(net), {**config, 'in_planes': in_planes}, tensors)


def _mixed(old: int, new: int, how: str) -> Tensor:
    # Share of the weights of each old channel in each new one: (new, old).
    if how == 'average':
        return torch.full((new, old), 1 / new, dtype=torch.float64)
    eye = torch.eye(new, old, dtype=torch.float64)
    if how == 'zero' or new <= old:
        return eye
    repeated = torch.eye(old, dtype=torch.float64)[torch.arange(new) % old]
    return repeated / repeated.sum(0)


# ---- More blocks ----


def deepen(net: Network, layers: Sequence[int], up_layers: Sequence[int] | int | None = None) -> Network:
    """A copy of a trained network with more blocks, which are initially identities: outputs do not change.

    New blocks follow the blocks that keep the size and channels of a stage: before a last block that resizes, or after
    a first.

    Args:
        net: The network.
        layers: Number of blocks of each stage or level, as in its constructor; not fewer than it has.
        up_layers: Of an auto-encoder or U-Net, the option of its constructor; ``None`` to keep it.

    Returns:
        A new network of the same class; nothing in it is frozen.

    Raises:
        TypeError: ``net`` is not a network of mdnc, or an argument has the wrong type.
        ValueError: A number is below what the network has, or a stage has no place for an identity block,
            for example because its only block resizes and changes the channels.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.EncoderNet2d(8, [1, 2]).eval()
        >>> deeper = mdnc.modules.deepen(net, [2, 4])
        >>> x = torch.randn(2, 1, 16, 16)
        >>> torch.allclose(deeper(x), net(x), atol=1e-5)
        True
    """
    plan, config = plan_of('deepen', net), {**net.config, 'layers': layers}
    if up_layers is not None:
        config['up_layers'] = up_layers
    weight = next(net.parameters())
    cls: Any = type(net)
    deeper: Network = cls(**config, device=weight.device, dtype=weight.dtype)
    for part in deeper.plan.stages:
        before = plan.named.get(part.name)
        if not isinstance(before, Stage) or not _extends(part, before):
            raise ValueError(_no_room(part, before, config))
        for index in range(len(before.still), len(part.still)):
            block: Any = deeper.get_submodule(f'{part.name}.conv_list.{index}')
            block.begin_as_shortcut()
    deeper.load_state_dict(_copied(net), strict=False)
    return _like(net, deeper)


def _extends(new: Stage, old: Stage) -> bool:
    # Whether the blocks of the old stage are those of the new one, except for blocks that can be identities.
    blocks = {name: _without_chance(each) for name, each in new.named.items()}
    kept = all(blocks.get(name) == _without_chance(each) for name, each in old.named.items())
    more = new.still[len(old.still) :]
    return kept and all(each.shortcut is None and _plan.learns_from_shortcut(each) for each in more)


def _without_chance(block: _plan.Block | _plan.Unit) -> _plan.Block | _plan.Unit:
    return replace(block, drop_path=0.0) if isinstance(block, _plan.Block) else block


def _no_room(new: Stage, old: Part | None, config: dict[str, Any]) -> str:
    have = len(old.blocks) if isinstance(old, Stage) else 0
    words = f'layers={config["layers"]}' + (f', up_layers={config["up_layers"]}' if 'up_layers' in config else '')
    why = (
        'blocks can only be added'
        if len(new.blocks) < have
        else (
            'a block there would change the channels or the size, or could not learn, so it cannot start as an identity'
        )
    )
    return f'deepen: {words} gives {new.name} {len(new.blocks)} blocks instead of {have}, but {why}.'


# ---- More axes ----


def lift(net: Network, kernel_size: int | None = None, length: int | None = None) -> Network:
    """A copy of a trained network with one spatial axis more, the first: signals → images → volumes.

    The trained kernels are placed at the centre of the new axis, with zeros around them (or, in transposed convolutions
    that up-sample, copies that fill the gaps). So for an input that is constant along the new axis, the output is that
    of the trained network, constant along this axis: also at the borders, with every norm and at every size. The zeros
    are trained further.

    Args:
        net: A network of one or two spatial axes.
        kernel_size: Odd kernel size on the new axis; ``None`` for that of the present first axis; 1 for a network that
            treats positions on the new axis separately, except in norms, and never resizes it.
        length: Of a decoder, the length of its output on the new axis.

    Returns:
        A new network of the class with one axis more; nothing in it is frozen.

    Raises:
        TypeError: ``net`` is not a network of mdnc or has no class with one axis more, or an argument has the wrong
            type.
        ValueError: An argument has the wrong value, or is missing for a decoder or given for another network.

    Example:
        >>> import mdnc, torch
        >>> net = mdnc.modules.resnet.UNet2d(8, [1, 1])
        >>> volumes = mdnc.modules.lift(net)
        >>> x = torch.randn(1, 1, 8, 9)
        >>> torch.allclose(volumes(x[:, :, None].expand(1, 1, 7, 8, 9))[:, :, 3], net(x), atol=1e-5)
        True
    """
    plan = plan_of('lift', net)
    cls = face(type(net), plan.order + 1)
    if cls is None:
        raise TypeError(
            f'lift: net is a {type(net).__name__}, and there is no such network with {plan.order + 1} axes.'
        )
    config = _lifted(net, kernel_size, length)
    shape = cls(**config, device='meta')
    vectors = {part.name for part in shape.plan.parts if isinstance(part, _plan.Single) and part.vector}
    tensors = _copied(net)
    for name, module in shape.named_modules():
        if isinstance(module, CONVOLUTIONS):
            key = f'{name}.weight'
            tensors[key] = _inflated(tensors[key], module, everywhere=name in vectors)
    return _made(net, cls, config, tensors)


def _lifted(net: Network, kernel_size: int | None, length: int | None) -> dict[str, Any]:
    config = net.config
    if kernel_size is not None:
        ((kernel_size,),) = _checks.odd_kernels('lift', kernel_size, 1)
    if (length is None) == ('out_size' in config):
        need = 'a decoder needs the length of its output on' if length is None else 'only a decoder needs a length of'
        raise ValueError(f'lift: length={length!r}, but {need} the new axis.')
    if length is not None:
        config['out_size'] = (_checks.integer('lift', 'length', length), *config['out_size'])
    if 'kernel_size' not in config:
        raise TypeError(f'lift: a {type(net).__name__} has no kernel_size that could be extended by an axis.')
    kernels = config['kernel_size']
    each = kernels if isinstance(kernels[0], tuple) else (kernels,)
    if 'strides' not in config and (kernel_size or 1) > 1 and any(kernel[0] == 1 for kernel in each):
        config['strides'] = _said_strides(net, each)
    longer = tuple((kernel_size or kernel[0], *kernel) for kernel in each)
    config['kernel_size'] = longer if isinstance(kernels[0], tuple) else longer[0]
    if 'strides' in config:
        config['strides'] = tuple((1 if kernel_size == 1 else row[0], *row) for row in config['strides'])
    return config


def _said_strides(net: Network, kernels: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    # The strides implied by the kernels, given explicitly: else the new axis would be resized where the first is not.
    cls: Any = type(net)
    rows = len(cls(**{**net.config, 'strides': 1}, device='meta').config['strides'])
    return [_sizes.stride(kernels[index if len(kernels) > 1 else 0]) for index in range(rows)]


def _inflated(weight: Tensor, conv: Any, everywhere: bool) -> Tensor:
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    taps = range(kernel) if everywhere else range(padding, padding + (stride if conv.transposed else 1))
    if taps[-1] >= kernel:
        raise ValueError(
            f'lift: a transposed convolution of kernel {kernel} leaves gaps on the new axis at stride {stride}; give '
            'kernel_size=1.'
        )
    lifted = weight.new_zeros((*weight.shape[:2], kernel, *weight.shape[2:]))
    lifted[:, :, taps] = weight[:, :, None]
    return lifted


# ---- Making the networks ----


def _layers(part: Part) -> list[tuple[str, _plan.Layer]]:
    # The layers of a part beside the stages, with what their keys begin with.
    if not isinstance(part, _plan.Single):
        return []
    if len(part.layers) == 1:
        return [(f'{part.name}.', part.layers[0])]
    return [(f'{part.name}.{index}.', layer) for index, layer in enumerate(part.layers)]


def _copied(net: Network) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _made(net: Network, cls: Any, config: dict[str, Any], tensors: dict[str, Tensor]) -> Network:
    made: Network = cls(**config, device='meta')
    made.load_state_dict(tensors, assign=True)
    return _like(net, made)


def _like(net: Network, made: Network) -> Network:
    made.memory = net.memory
    return made.train(net.training)
