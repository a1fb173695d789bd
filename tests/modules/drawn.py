"""Networks with options drawn at random, for tests that hold for all of them."""

from typing import Any

from hypothesis import strategies as st

from mdnc.modules import resnet

STYLE = {
    'normalizer': ['batch', 'inst', 'pinst', 'group', 'layer', 'null'],
    'activator': ['prelu', 'relu', 'leaky_relu', 'elu', 'gelu', 'silu', 'null'],
    'layer_order': ['new', 'old'],
    'upsampling': ['linear', 'nearest', 'transposed'],
    'shortcut': ['conv', 'pool'],
    'padding_mode': ['zeros', 'reflect', 'replicate', 'circular'],
    'groups': [1, 2],
    'ratio': [1, 2],
    'bias': [False, True],
    'se': [0, 2],
    'resize_at': ['last', 'first'],
    'small': ['error', 'keep'],
    'drop_path': [0.0, 0.3],
    'zero_init': [False, True],
    'init': ['torch', 'kaiming'],
}
HEAD = {
    'tail': ['conv', 'act', 'norm', 'null'],
    'pool': ['avg', 'max', 'avgmax', 'gem', 'std'],
    'amplitude': [False, True],
    'dropout': [0.0, 0.4],
}
KERNELS = [1, 3, 5]


@st.composite
def networks(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a network, most options at their defaults; some combinations are refused."""
    order, family = draw(st.integers(1, 3)), draw(st.sampled_from(['EncoderNet', 'DecoderNet', 'AE', 'UNet']))
    count = draw(st.integers(2, 3))
    per_axis = st.sampled_from(KERNELS) | st.tuples(*[st.sampled_from(KERNELS)] * order)
    arguments: dict[str, Any] = {
        'channel': draw(st.sampled_from([2, 4])),
        'layers': draw(st.lists(st.integers(1, 2), min_size=count, max_size=count)),
        'block': draw(st.sampled_from(['plain', 'bottleneck'])),
        'kernel_size': draw(per_axis | st.lists(per_axis, min_size=count, max_size=count)),
    }
    if family == 'DecoderNet':
        arguments |= {
            'out_size': draw(st.tuples(*[st.integers(5, 14)] * order)),
            'in_length': draw(st.sampled_from([None, 3])),
        }
    for name in draw(st.lists(st.sampled_from(sorted(STYLE)), unique=True, max_size=6)):
        arguments[name] = draw(st.sampled_from(STYLE[name]))
    if family == 'EncoderNet':
        arguments['out_length'] = draw(st.sampled_from([None, 3]))
        for name in draw(st.lists(st.sampled_from(sorted(HEAD)), unique=True, max_size=3)):
            arguments[name] = draw(st.sampled_from(HEAD[name]))
    if arguments.get('normalizer') == 'group':
        arguments['norm_groups'] = 2
    _draw_shape(draw, arguments, family, order, count)
    return f'{family}{order}d', arguments


def _draw_shape(draw: st.DrawFn, arguments: dict[str, Any], family: str, order: int, count: int) -> None:
    downup = family in ('AE', 'UNet')
    strides = st.integers(1, 4) | st.tuples(*[st.integers(1, 3)] * order)
    if draw(st.booleans()):
        arguments['strides'] = draw(strides | st.lists(strides, min_size=count - downup, max_size=count - downup))
    widths = draw(st.sampled_from(['double', 'double', 'cap', 'list']))
    if widths == 'cap':
        arguments['max_channel'] = 4
    elif widths == 'list':
        arguments['channels'] = draw(st.lists(st.sampled_from([2, 4, 6]), min_size=count, max_size=count))
    if downup and draw(st.booleans()):
        arguments['up_layers'] = draw(
            st.integers(0, 2) | st.lists(st.integers(0, 2), min_size=count - 1, max_size=count - 1)
        )
    if downup and draw(st.booleans()):
        arguments['deep_supervision'] = draw(st.integers(1, count - 1))


def built(name: str, arguments: dict[str, Any]) -> Any:
    """The network, or the text of its refusal."""
    try:
        return getattr(resnet, name)(**arguments)
    except ValueError as error:
        return str(error)
