"""The options of networks and blocks in addition to their documented arguments; each is defined here once.

An option is a field of a typed dictionary: its type for editors and type checkers, and an `Option` with its default,
its check and its description, from which signatures, docstrings, the command line and the site are made. To add one,
add its field here and its effect where plans are made (`_plan`, `_families`) or built.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from reprlib import repr as short_repr
from typing import Annotated, Any, TypedDict, get_args, get_type_hints

import torch

from mdnc.modules import _checks
from mdnc.ops import path

NORMALIZERS = ('batch', 'inst', 'pinst', 'group', 'layer', 'null')
ACTIVATORS = ('prelu', 'relu', 'leaky_relu', 'elu', 'gelu', 'silu', 'null')
LAYER_ORDERS = ('new', 'old')
SCALERS = ('down', 'up')
MEMORY_LEVELS = path.MEMORY_LEVELS

PerAxis = int | Sequence[int]
PerStage = int | Sequence[int | Sequence[int]]

Check = Callable[[str, str, Any], Any]


@dataclass(frozen=True)
class Option:
    """An option.

    Args:
        default: Its value if it is not given.
        check: Takes the owner's name, the option's name and a value; returns the plain value, or raises.
        words: Its meaning and legal values.
        kept: Whether it is saved in the configuration of the network.
    """

    default: Any
    check: Check
    words: str
    kept: bool = True

    @property
    def legal(self) -> tuple[Any, ...]:
        """All legal values, if they can be listed; else empty."""
        return (False, True) if self.check is _checks.flag else getattr(self.check, 'legal', ())


class _Word:
    """Checks that a value is one of the given words."""

    def __init__(self, *legal: str) -> None:
        self.legal = legal

    def __call__(self, owner: str, name: str, value: Any) -> str:
        return _checks.word(owner, name, value, self.legal)


def _int(minimum: int) -> Check:
    return lambda owner, name, value: _checks.integer(owner, name, value, minimum)


def _maybe(check: Check) -> Check:
    return lambda owner, name, value: None if value is None else check(owner, name, value)


def _chance(owner: str, name: str, value: Any) -> float:
    chance = _checks.number(owner, name, value, least=0)
    if chance < 1:
        return chance
    raise ValueError(f'{owner}: {name}={short_repr(value)} must be at least 0 and below 1.')


def _device(owner: str, name: str, value: Any) -> torch.device | None:
    try:
        return None if value is None else torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise type(error)(f'{owner}: {name}={value!r} is not a device of torch: {error}') from error


def _dtype(owner: str, name: str, value: Any) -> torch.dtype | None:
    found = getattr(torch, value, None) if isinstance(value, str) else value
    if found is None and value is None:
        return None
    if isinstance(found, torch.dtype) and found.is_floating_point:
        return found
    raise (TypeError if not isinstance(found, torch.dtype) else ValueError)(
        f'{owner}: {name}={value!r} must be a floating-point torch.dtype, such as torch.float32 or torch.bfloat16.'
    )


def _as_given(owner: str, name: str, value: Any) -> Any:
    return value  # checked later: the number of stages is not known here


_MEMORY = Option(
    'lean',
    _Word(*MEMORY_LEVELS),
    "What training keeps for backward, see `memory`: ``'plain'``, ``'fast'``, ``'lean'``, ``'leaner'`` or ``'least'``.",
    kept=False,
)


class StyleOptions(TypedDict, total=False):
    """Options of blocks, in networks and alone."""

    norm_groups: Annotated[
        int, Option(8, _int(1), "Number of groups of a norm ``'group'``; it must divide the channels of each norm.")
    ]
    ratio: Annotated[
        int,
        Option(
            1,
            _int(1),
            'Reduction of a bottleneck: its inner convolutions have 1/ratio of its output channels; 1, as '
            'documented, for its input channels.',
        ),
    ]
    groups: Annotated[
        int, Option(1, _int(1), 'Groups of the k × … × k convolutions, as in ResNeXt; they must divide the channels.')
    ]
    bias: Annotated[
        bool, Option(False, _checks.flag, 'Whether convolutions next to a norm also have a bias, as in nnU-Net.')
    ]
    se: Annotated[
        int,
        Option(
            0,
            _int(0),
            'Squeeze-and-excitation after each block, with 1/se of its channels inside; 16 in the paper '
            '(arXiv:1709.01507); 0 for none.',
        ),
    ]
    shortcut: Annotated[
        str,
        Option(
            'conv',
            _Word('conv', 'pool'),
            "How a shortcut divides the size: ``'conv'`` by the stride of its convolution, ``'pool'`` by an average "
            'pool before it (ResNet-D, arXiv:1812.01187).',
        ),
    ]
    upsampling: Annotated[
        str,
        Option(
            'linear',
            _Word('linear', 'nearest', 'transposed'),
            "How the size is multiplied: ``'linear'`` (corners aligned) or ``'nearest'`` interpolation before a "
            "convolution, or a ``'transposed'`` convolution.",
        ),
    ]
    padding_mode: Annotated[
        str,
        Option(
            'zeros',
            _Word('zeros', 'reflect', 'replicate', 'circular'),
            "What convolutions pad with: ``'zeros'``, ``'reflect'``, ``'replicate'`` or ``'circular'``.",
        ),
    ]
    resize_at: Annotated[
        str,
        Option(
            'last',
            _Word('last', 'first'),
            'Which block of a stage, and which convolution of a plain block, changes size and channels: the '
            "``'last'``, or the ``'first'``, as in torchvision's and nnU-Net's. In an auto-encoder or U-Net, "
            "``'first'`` has each level begin with the stride that leads to it, the first with none, and on the way up "
            'with a single unit that grows to it, before it is joined.',
        ),
    ]


class BlockOptions(StyleOptions, total=False):
    """Options of single blocks."""

    drop_path: Annotated[
        float,
        Option(
            0.0, _chance, 'Probability that the branch is dropped for a sample in training (stochastic depth), below 1.'
        ),
    ]
    memory: Annotated[str, _MEMORY]


class Options(StyleOptions, total=False):
    """Options of every network."""

    normalizer: Annotated[
        str,
        Option(
            'pinst',
            _Word(*NORMALIZERS),
            "Norm of blocks and shortcuts: ``'batch'``, ``'inst'`` (instance norm without affine), ``'pinst'`` (with), "
            "``'group'`` (see `norm_groups`), ``'layer'`` (over all of a sample, one group) or ``'null'`` (none).",
        ),
    ]
    activator: Annotated[
        str,
        Option(
            'prelu',
            _Word(*ACTIVATORS),
            "Activation: ``'prelu'`` (one slope for each channel), ``'relu'``, ``'leaky_relu'`` (slope 0.01), "
            "``'elu'``, ``'gelu'``, ``'silu'`` or ``'null'`` (none).",
        ),
    ]
    layer_order: Annotated[
        str,
        Option(
            'new',
            _Word(*LAYER_ORDERS),
            "``'new'`` for norm, activation, convolution; ``'old'`` for convolution, norm, activation.",
        ),
    ]
    channels: Annotated[
        Sequence[int] | None,
        Option(
            None,
            _maybe(lambda owner, name, value: _checks.integers(owner, name, value)),
            'Channels of each stage, instead of doubling `channel` from stage to stage. Of a decoder: what each stage '
            'takes. Of an auto-encoder or U-Net: of each level, the deepest last.',
        ),
    ]
    max_channel: Annotated[
        int | None, Option(None, _maybe(_int(1)), 'Cap on the doubling of channels; None for no cap.')
    ]
    strides: Annotated[
        PerStage | None,
        Option(
            None,
            _as_given,
            'Strides between stages, 1 to 4: one int, one for each axis, or a list with one of these for each stage '
            '(of an auto-encoder or U-Net: for each step between two levels). None for 2, and 1 on axes with kernel 1.',
        ),
    ]
    drop_path: Annotated[
        float,
        Option(
            0.0,
            _chance,
            'Probability that the branch of the last block is dropped for a sample in training, rising from '
            '0 at the first '
            '(stochastic depth, arXiv:1603.09382); below 1.',
        ),
    ]
    dropout: Annotated[
        float,
        Option(
            0.0, _chance, 'Probability of dropping each value before the last layer in training (dropout), below 1.'
        ),
    ]
    init: Annotated[
        str,
        Option(
            'torch',
            _Word('torch', 'kaiming'),
            "Initial weights of convolutions: ``'torch'`` (its defaults) or ``'kaiming'``: normal, fan-in, with the "
            "gain of the activation (of PReLU's first slope), biases 0 (arXiv:1502.01852).",
        ),
    ]
    zero_init: Annotated[
        bool,
        Option(
            False,
            _checks.flag,
            'Whether each block starts as its shortcut alone: the last weights of its branch are initially 0.',
        ),
    ]
    small: Annotated[
        str,
        Option(
            'error',
            _Word('error', 'keep'),
            "Inputs that are too small: ``'error'``, or ``'keep'``: an axis that would shrink to one value is not "
            'strided any more; the parameters are the same.',
        ),
    ]
    memory: Annotated[str, _MEMORY]
    device: Annotated[
        'torch.device | str | int | None',
        Option(None, _device, "Device on which it is built; None for torch's default device.", kept=False),
    ]
    dtype: Annotated[
        'torch.dtype | str | None',
        Option(None, _dtype, "Floating-point dtype of its parameters; None for torch's default.", kept=False),
    ]


class EncoderOptions(Options, total=False):
    """Options of encoders."""

    tail: Annotated[
        str,
        Option(
            'conv',
            _Word('conv', 'act', 'norm', 'null'),
            "Layers between the last stage and the pool: ``'conv'`` (as documented; together with mean and "
            "linear layer an affine map), "
            "``'act'`` (activation), ``'norm'`` (norm and activation) or ``'null'`` (none).",
        ),
    ]
    tail_normalizer: Annotated[
        str,
        Option(
            'batch',
            _Word(*NORMALIZERS[:-1]),
            "Norm of a tail ``'norm'``, with the values of `normalizer`; an instance norm would remove the mean that "
            'the pool reads.',
        ),
    ]
    pool: Annotated[
        str,
        Option(
            'avg',
            _Word('avg', 'max', 'avgmax', 'gem', 'std'),
            "Global pool, one value for each channel: ``'avg'``, ``'max'``, their mean ``'avgmax'``, the "
            "generalised mean "
            "``'gem'`` with a learned power (arXiv:1711.02512), or the standard deviation ``'std'``.",
        ),
    ]
    amplitude: Annotated[
        bool,
        Option(
            False,
            _checks.flag,
            'Whether the logarithm of the scale of each input channel is appended to the pooled vector.',
        ),
    ]


class DecoderOptions(Options, total=False):
    """Options of decoders."""


class DownUpOptions(Options, total=False):
    """Options of auto-encoders and U-Nets."""

    up_layers: Annotated[
        Sequence[int] | int | None,
        Option(
            None,
            _as_given,
            'Number of decoder blocks of each level except the deepest, starting at full resolution, or one '
            'int for all; 0 '
            'for a level that only joins and resizes. None for as many as in the encoder.',
        ),
    ]
    deep_supervision: Annotated[
        int,
        Option(
            0,
            _int(0),
            'Deep supervision: number of levels that return an output in training, each at its own size, as '
            'a tuple, finest '
            'first; eval mode returns the finest only. 0 for the finest only, without a tuple.',
        ),
    ]


@functools.cache
def record(kind: type) -> dict[str, Option]:
    """The options of a typed dictionary by name, options of base classes first."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: get_args(hint)[1] for name, hint in hints.items()}


def checked(kind: type, owner: str, given: dict[str, Any]) -> dict[str, Any]:
    """All options of a kind: given ones are checked, the others have their defaults.

    Raises:
        TypeError: An option is unknown, or has the wrong type.
        ValueError: An option has an illegal value.
    """
    known = record(kind)
    for name in given:
        if name not in known:
            raise TypeError(f'{owner}: unknown argument {name}.{_checks.near(name, known)}')
    return {
        name: option.check(owner, name, given[name]) if name in given else option.default
        for name, option in known.items()
    }


def kept(kind: type, options: dict[str, Any]) -> dict[str, Any]:
    """The checked options that are saved in a configuration: not at their default, and part of the network."""
    known = record(kind)
    return {name: value for name, value in options.items() if known[name].kept and value != known[name].default}


def of(function: Callable[..., Any]) -> type | None:
    """The typed dictionary that a function takes as its keywords, if any."""
    found = function.__annotations__.get('options')
    return next(iter(get_args(found)), None) if found is not None else None


def signature(function: Callable[..., Any], kind: type) -> inspect.Signature:
    """The signature of a function with its options written out."""
    own = inspect.signature(function)
    hints = get_type_hints(kind)
    words = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=hints[name])
        for name, option in record(kind).items()
    ]
    return own.replace(parameters=[*words, *more])


def described(kind: type) -> str:
    """The descriptions of options as lines of a docstring's ``Args``."""
    return '\n'.join(f'{name}: {option.words}' for name, option in record(kind).items())
