"""Networks that share layers: the way down of an auto-encoder or U-Net as an encoder, an encoder as a way down."""

import itertools
from typing import Any

from mdnc.modules import _checks, _options, _sizes
from mdnc.modules._options import EncoderOptions, Options
from mdnc.modules._plan import Block, Plan, Stage
from mdnc.modules._variants import order_of
from mdnc.modules.resnet.encoder import ENCODERS, HEAD_OPTIONS, _EncoderNetNd
from mdnc.modules.resnet.network import Network


def encoder_of(net: Network) -> _EncoderNetNd:
    """The way down of a network as an encoder with the same layers.

    Raises:
        ValueError: It has a single level, and an encoder has at least two stages.
    """
    down = _way_down(net.plan)
    if len(down) < 2:
        raise ValueError(
            f'{type(net).__name__}: encoder needs at least two levels on the way down, and layers='
            f'{net.config["layers"]} has {len(down)}.'
        )
    encoder = ENCODERS[net.plan.order](**_encoder_config(net, down), memory=net.memory, device='meta')
    share_layers(encoder, net, {net.plan.parts[0].name: 'netbody.0', **_places(down)})
    return encoder.train(net.training)


def _way_down(plan: Plan) -> list[Stage]:
    return list(itertools.takewhile(lambda stage: not (stage.undoes or stage.skip or stage.like), plan.stages))


def _places(down: list[Stage]) -> dict[str, str]:
    # Where an encoder has each stage of a way down.
    return {stage.name: f'netbody.{index + 1}' for index, stage in enumerate(down)}


def _encoder_config(net: Network, down: list[Stage]) -> dict[str, Any]:
    config, count = net.config, len(down)
    no_more = {'upsampling', 'max_channel', 'channels', 'strides', *HEAD_OPTIONS}
    names = {*_options.record(Options), 'channel', 'block', 'in_planes'} - no_more
    shared = {name: value for name, value in config.items() if name in names}
    kernels = config['kernel_size']
    kernels = kernels[:count] if isinstance(kernels[0], tuple) else kernels
    widths, strides = tuple(stage.out_planes for stage in down), tuple(stage.resize.stride for stage in down)
    shared |= {'layers': tuple(len(stage.blocks) for stage in down), 'kernel_size': kernels}
    if widths != tuple(config['channel'] * 2**level for level in range(count)):
        shared['channels'] = widths
    each = kernels if isinstance(kernels[0], tuple) else (kernels,) * count
    if strides != tuple(_sizes.stride(kernel) for kernel in each):
        shared['strides'] = strides
    if 'drop_path' in shared:  # the chance of the last block of the way down
        shared['drop_path'] = max(block.drop_path for block in down[-1].blocks if isinstance(block, Block))
    return {**shared, 'out_length': None, 'tail': 'null'}


def with_encoder(
    cls: type[Network], encoder: Any, layers: int | None, channel: int | None, given: dict[str, Any]
) -> Any:
    """A network of a class of auto-encoders or U-Nets whose way down has the layers of an encoder.

    Args:
        cls: The class.
        encoder: The encoder.
        layers: Blocks of the deepest level, below the encoder; ``None`` for as many as its last stage has.
        channel: Channels of the deepest level; ``None`` for twice those above it, within the encoder's cap.
        given: Further arguments of the class.
    """
    owner = f'{cls.__name__}.from_encoder'
    if not isinstance(encoder, _EncoderNetNd) or encoder.plan.order != order_of(cls):
        raise TypeError(
            f'{owner}: encoder must be an EncoderNet{order_of(cls)}d, which has as many axes, not '
            f'{type(encoder).__name__}.'
        )
    _refuse_what_it_says(owner, encoder, {**given, 'layers': layers, 'channel': channel})
    config = _deeper(owner, encoder, layers, channel) if _resizes_last(encoder) else _shared_config(encoder)
    weight = next(encoder.parameters())
    words = {'memory': encoder.memory, **given, 'device': weight.device, 'dtype': weight.dtype}
    net: Any = cls(**config, **words)
    places = {place: name for name, place in _places(_way_down(net.plan)).items()}
    share_layers(net, encoder, {'netbody.0': net.plan.parts[0].name, **places})
    return net.train(encoder.training)


def _resizes_last(encoder: Network) -> bool:
    return bool(encoder.config.get('resize_at', 'last') == 'last')


def _refuse_what_it_says(owner: str, encoder: Network, given: dict[str, Any]) -> None:
    free = (
        {'upsampling', 'dropout', 'memory', 'layers', 'channel'}
        if _resizes_last(encoder)
        else {'upsampling', 'dropout', 'memory'}
    )
    said = ({*_options.record(Options), 'block', 'kernel_size', 'in_planes', 'layers', 'channel'}) - free
    for name in said:
        if given.get(name) is not None:
            raise ValueError(f'{owner}: {name}={given[name]!r} may not be given, for the encoder says it.')
    stride = encoder.plan.stages[0].resize.stride
    if not _resizes_last(encoder) and max(stride) > 1:
        raise ValueError(
            f"{owner}: encoder has resize_at='first' and a first stage of stride {stride}, but the way down of an "
            'auto-encoder or U-Net begins at full size; give the encoder strides whose first is 1.'
        )


def _shared_config(encoder: Network) -> dict[str, Any]:
    heads = _options.record(EncoderOptions).keys() - _options.record(Options).keys()
    return {name: each for name, each in encoder.config.items() if name not in {'out_length', 'dropout', *heads}}


def _deeper(owner: str, encoder: Network, layers: int | None, channel: int | None) -> dict[str, Any]:
    # With a level more below the encoder, where the last block of its last stage leads to.
    config, widths = _shared_config(encoder), [stage.out_planes for stage in encoder.plan.stages]
    depth = config['layers'][-1] if layers is None else _checks.integer(owner, 'layers', layers)
    config['layers'] = (*config['layers'], depth)
    if isinstance(config['kernel_size'][0], tuple):
        config['kernel_size'] = (*config['kernel_size'], config['kernel_size'][-1])
    usual = min(2 * widths[-1], config.get('max_channel', 2 * widths[-1]))
    deepest = usual if channel is None else _checks.integer(owner, 'channel', channel)
    if 'channels' in config or deepest != usual:
        config.pop('max_channel', None)
        config['channels'] = (*widths, deepest)
    return config


def share_layers(into: Network, given: Network, places: dict[str, str]) -> None:
    """Replace layers of one network by those of another, so that both hold the same.

    Args:
        into: Whose layers are replaced.
        given: Whose layers it gets.
        places: Paths of parts of ``given``, each with the path of the part of ``into`` that gets its layers.
    """
    for source, target in places.items():
        for name, module in list(into.get_submodule(target).named_modules(prefix=target)):
            if not any(True for _ in module.children()):
                holder, _, own = name.rpartition('.')
                setattr(into.get_submodule(holder), own, given.get_submodule(source + name[len(target) :]))
