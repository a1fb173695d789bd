"""Temporary memory of torch's operators on a CPU, in addition to inputs and outputs, in bytes, from measurements."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mdnc._torch import conv_backend, find
from mdnc.ops.channels_last import is_channels_last

BLOCK = 16  # channels per block in oneDNN's blocked layouts
PAGE = 4096


def moment(func: Any, args: Any, outputs: Any) -> int:
    """Largest number of bytes of an operator beyond those that remain when it ends."""
    rule = RULES.get(func)
    return 0 if rule is None or args[0].fake_device.type != 'cpu' else max(0, rule(args, outputs))


def unmeasured(func: Any, args: Any) -> str:
    """The operator, or the device that it computes on, if its temporary memory is not known; else an empty string."""
    if _allocates_nothing(func):
        return ''
    device = next((each.fake_device.type for each in args if hasattr(each, 'fake_device')), 'cpu')
    if device != 'cpu':
        return f'all operators on {device}'
    name = str(func.overloadpacket)
    return '' if func in RULES or name in NOTHING else name


@functools.cache
def _allocates_nothing(func: Any) -> bool:
    # It goes value by value, makes a tensor of none, or what it returns is an argument, or a part of one.
    schema = func._schema
    views = all(each.alias_info is not None for each in schema.returns)
    makes = not any('Tensor' in str(each.type) for each in schema.arguments)
    return views or makes or torch.Tag.pointwise in func.tags or func.namespace == 'profiler'


def _blocked(channels: int, block: int = BLOCK) -> int:
    return -(-channels // block) * block


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


class _Convolution:
    """A convolution and the bytes of its tensors in the layouts of kernels."""

    def __init__(self, x: Tensor, w: Tensor, arguments: Any, out: Any) -> None:
        stride, padding, dilation, transposed, output_padding, groups = arguments
        self.transposed: bool = transposed
        self.groups: int = groups
        self.backend = conv_backend(x, w, None, stride, padding, dilation, transposed, output_padding, groups).name
        self.value: int = x.element_size()
        self.n, self.kernel, self.stride = len(x), tuple(map(int, w.shape[2:])), tuple(map(int, stride))
        # A transposed convolution is computed as the gradient of a convolution.
        self.c: int = x.shape[1]
        self.o: int = w.shape[0]
        self.inside: tuple[int, ...] = tuple(x.shape[2:])
        self.outside: tuple[int, ...] = tuple(out)
        if self.transposed:
            self.c, self.o = w.shape[1] * self.groups, x.shape[1]
            self.inside, self.outside = self.outside, self.inside
        self.taps, self.w = math.prod(self.kernel), _bytes(w)
        self.x, self.y = self.maps(self.c, self.inside), self.maps(self.o, self.outside)
        self.last = any(is_channels_last(each) and not each.is_contiguous() for each in (x, w))
        self.strided = max(stride) > 1
        self.threads = torch.get_num_threads()
        self.low = x.dtype == torch.bfloat16

    def maps(self, channels: int, size: tuple[int, ...]) -> int:
        return self.n * channels * math.prod(size) * self.value

    def weights(self, inputs: int, outputs: int) -> int:
        return inputs * outputs * self.taps * self.value // self.groups

    @property
    def columns(self) -> int:
        """The values under the kernel at each position (columns), of torch's own convolutions."""
        return 0 if self.taps == 1 and not self.strided else self.maps(self.c * self.taps, self.outside)

    @property
    def pointwise(self) -> bool:
        """Whether the kernels of 1 × … × 1 convolutions run."""
        even = len(self.inside) < 3 and not any(n % s for n, s in zip(self.inside, self.stride, strict=True))
        return self.taps == 1 and (even or not self.strided)

    def places(self, summed: int = 0) -> int:
        """Their workspace: the positions that a stride leaves, and for bfloat16 sums in single precision."""
        if not self.pointwise:
            return 0
        each = _blocked(self.c) * self.value if self.strided else 0
        return self.threads * math.prod(self.outside) * (each + (4 * _blocked(summed) if self.low else 0))

    @property
    def gathered(self) -> int:
        """Workspace of the gradient of a strided convolution's input: a copy for each thread."""
        read = math.prod(n + (k - 1) // 2 for n, k in zip(self.outside, self.kernel, strict=True))
        odd = self.inside[-1] % self.stride[-1] > 0
        own = _blocked(self.o * read * self.value, PAGE * self.value) + 2 * PAGE
        own += _blocked(self.c * 2 * self.inside[-1] * self.value, PAGE * self.value) if odd else 0
        own += 4 * _blocked(self.c) * self.outside[-1] if self.low else 0
        return (3 + odd + self.low) * PAGE + self.threads * own

    @property
    def sums(self) -> int:
        """Workspace of the gradient of the weights: sums of each thread, and for bfloat16 reordered maps."""
        weights = self.weights(self.padded_c, _blocked(self.o))
        if not self.low or (self.pointwise and not self.last and len(self.inside) == 2):
            return (self.threads - 1) * (weights + 2 * PAGE)
        c = _blocked(self.c) if self.pointwise else self.padded_c if self.last or self.c >= BLOCK else 0
        maps = c * _even(self.inside, 2 * (self.kernel[-1] // 2)) + _blocked(self.o) * _even(self.outside)
        if self.pointwise:
            maps = (c + _blocked(self.o)) * math.prod(self.outside)
        return min(self.threads, self.n) * (maps * self.value + 2 * weights) + 2 * PAGE * self.threads + 512

    @property
    def padded_c(self) -> int:
        return self.c if self.c < BLOCK else _blocked(self.c)


def _copied(*maps: Tensor) -> int:
    """Bytes of maps with strides that no kernel accepts, such as slices."""
    return sum(_bytes(x) for x in maps if not any(x.is_contiguous(memory_format=layout) for layout in _layouts(x)))


def _layouts(x: Tensor) -> tuple[torch.memory_format, ...]:
    return torch.contiguous_format, *{4: (torch.channels_last,), 5: (torch.channels_last_3d,)}.get(x.dim(), ())


def _even(size: tuple[int, ...], margin: int = 0) -> int:
    *rows, width = size
    return math.prod(rows) * _blocked(width + margin, 2)


def _convolution(args: Any, y: Tensor) -> int:
    x, w, _, *arguments = args
    how = _Convolution(x, w, arguments, y.shape[2:])
    if how.backend.startswith('Slow'):
        copied = how.x + how.w * (how.taps > 1) if how.last and how.backend == 'Slow3d' else 0
        return how.columns + copied
    return _copied(x) + (_gradient_of_input(how) - how.x if how.transposed else _result(how) - how.y)


def _convolution_backward(args: Any, outputs: Any) -> int:
    g, x, w, _, *arguments, needs = args
    how = _Convolution(x, w, arguments, g.shape[2:])
    given = how.y if how.transposed else how.x
    end = given * needs[0] + how.w * needs[1]
    if how.backend.startswith('Slow'):
        again = how.maps(how.c * how.taps, how.outside) if how.backend == 'Slow3d' else how.columns
        copied = how.x if how.last and how.backend == 'Slow3d' else 0
        return int(max((given + again) * needs[0] - end, (how.columns + copied) * needs[1]))
    first = (_result(how) if how.transposed else _gradient_of_input(how)) * needs[0]
    second = (given * needs[0] + _gradient_of_weights(how)) * needs[1]
    return int(_copied(g, x) + max(first, second) - end)


# Peak of oneDNN for each of the three, including the result. Contiguous maps are converted to blocks of channels
# and back; channels-last maps are used as they are.


def _result(how: _Convolution) -> int:
    if how.last:
        return how.y + PAGE * (how.threads + 1) + how.weights(how.c, _blocked(how.o))
    first = how.c < BLOCK and not how.pointwise
    given = 0 if first else how.maps(_blocked(how.c), how.inside)
    weights = how.weights(how.c if first else _blocked(how.c), _blocked(how.o))
    made = how.maps(_blocked(how.o), how.outside)
    return max(how.places(how.o) + given + weights + made, made + how.y)


def _gradient_of_input(how: _Convolution) -> int:
    if how.last or how.strided:
        scratch = how.gathered if how.strided else PAGE * (how.threads + 1)
        held = how.x + how.weights(_blocked(how.c), how.o) + scratch
        return held if how.last else max(how.y + held, how.x * (3 if how.c > 1 else 2))
    given, made = how.maps(_blocked(how.c), how.inside), how.maps(_blocked(how.o), how.outside)
    return max(made + how.weights(_blocked(how.c), _blocked(how.o)) + given + how.places(how.c), given + how.x)


def _gradient_of_weights(how: _Convolution) -> int:
    weights = how.weights(how.padded_c, _blocked(how.o))
    if how.last:
        return weights + max(how.sums, 2 * how.w)
    if how.c < 4 and not how.pointwise:
        return how.maps(_blocked(how.o), how.outside) + weights + how.sums
    if how.c < BLOCK and how.low and not how.pointwise:
        if how.o >= BLOCK:
            return how.maps(_blocked(how.o), how.outside) + weights + how.sums
        slices = how.outside if len(how.outside) < 3 else how.outside[1:]
        columns = how.c * how.taps * math.prod(slices) * how.value
        threads = how.threads if how.strided or len(how.outside) == 3 else 1
        return how.w + threads * (columns + 8 * how.w) + 512
    if how.c < BLOCK and not how.pointwise:
        if len(how.inside) == 3 and how.taps > 1:  # columns of a slice, for each thread
            return how.w + how.threads * (how.c * how.taps * math.prod(how.outside[1:]) * how.value + 4 * how.w)
        c, o = _blocked(how.c, 8), _blocked(how.o, 8)
        return how.maps(c, how.inside) + how.maps(o, how.outside) + how.weights(c, o) + how.sums
    given, made = how.maps(_blocked(how.c), how.inside), how.maps(_blocked(how.o), how.outside)
    return given + made + how.weights(_blocked(how.c), _blocked(how.o)) + how.sums + how.places()


def _enlarging_image(args: Any, y: Tensor) -> int:
    x = args[0]  # is converted to channels last, and so is the result
    return _bytes(x) + _bytes(y) if x.shape[1] > 1 and x.is_contiguous() else 0


def _enlarging(args: Any, y: Tensor) -> int:
    return (16 + 2 * y.element_size()) * sum(y.shape[2:])  # positions and weights along each axis


def _shrinking_volume(args: Any, y: Tensor) -> int:
    return 0 if args[0].is_contiguous() else _bytes(y)


def _batch_norm_backward(args: Any, outputs: Any) -> int:
    g, x = args[:2]
    if any(g.is_contiguous(memory_format=layout) and x.is_contiguous(memory_format=layout) for layout in _layouts(x)):
        return _bytes(x)
    return 4 * x.numel() if x.element_size() < 4 and not x.is_contiguous() else 0


def _group_norm_backward(args: Any, outputs: Any) -> int:
    n, c = args[1].shape[:2]
    return 8 * int(n * c)


def _layer_norm_backward(args: Any, outputs: Any) -> int:
    # Sums of each thread, for the scale and for the shift.
    shape, mean, mask = args[2], args[3], args[7]
    return 2 * torch.get_num_threads() * math.prod(shape) * mean.element_size() if any(mask[1:]) else 0


def _sum(args: Any, y: Tensor) -> int:
    x, axes = args[:2]
    several = len(axes or ()) > 1 and 0 in axes and x.is_contiguous()
    return 4 * x.numel() if x.element_size() < 4 and (y.dtype != x.dtype or several) else 0


def _mean(args: Any, y: Tensor) -> int:
    return 4 * args[0].numel() if args[0].element_size() < 4 else 0


def _product(args: Any, y: Tensor) -> int:
    a, b = args[:2]
    rows, depth = b.shape
    # Rows of b are copied for each thread, except columns with a distance that is not a power of two.
    laid = b.is_contiguous() or (rows >= 512 and rows & (rows - 1) == 0)
    return _copied(a) + torch.get_num_threads() * ((256 * min(depth, 1024) if laid else 0) + 1024)


Rule = Callable[[Any, Any], int]
_RULES: dict[str, Rule] = {
    'aten.convolution': _convolution,
    'aten.convolution_backward': _convolution_backward,
    'aten.upsample_linear1d': _enlarging,
    'aten.upsample_bilinear2d': _enlarging_image,
    'aten.upsample_trilinear3d': _enlarging,
    'aten.upsample_nearest1d': _enlarging,
    'aten.upsample_nearest2d': _enlarging_image,
    'aten.upsample_nearest3d': _enlarging,
    'aten.upsample_nearest3d_backward': _shrinking_volume,
    'aten.native_batch_norm_backward': _batch_norm_backward,
    'aten.native_group_norm_backward': _group_norm_backward,
    'aten.native_layer_norm_backward': _layer_norm_backward,
    'aten.sum.dim_IntList': _sum,
    'aten.mean.dim': _mean,
    'mkldnn._linear_pointwise': _product,
}
RULES: dict[Any, Rule] = {
    getattr(found, 'default', found): rule
    for name, rule in _RULES.items()
    if (found := find(f'torch.ops.{name}')) is not None
}

# Operators that were seen to allocate nothing beside their outputs, in the steps that tests/analysis/test_peak.py
# measures.
NOTHING = {
    f'aten.{name}'
    for name in (
        *('cat', 'constant_pad_nd', 'empty_like', 'flip', 'full_like', 'gather', 'index_select', 'new_empty'),
        *('new_full', 'new_ones', 'new_zeros', 'ones_like', 'rand_like', 'randn_like', 'repeat', 'roll'),
        *('select_backward', 'slice_backward', 'stack', 'zeros_like', '_local_scalar_dense', '_to_copy'),
        *('_unsafe_view', 'addmm', 'amax', 'amin', 'argmax', 'baddbmm', 'bmm', 'embedding', 'mm', 'mean', 'sum'),
        *('native_batch_norm', 'native_group_norm', 'native_layer_norm', 'pixel_shuffle'),
        *(f'{kind}_pad{axes}d' for kind in ('reflection', 'replication') for axes in (1, 2, 3)),
        *(f'max_pool{axes}d_with_indices{way}' for axes in (2, 3) for way in ('', '_backward')),
        *(f'avg_pool{axes}d{way}' for axes in (2, 3) for way in ('', '_backward')),
        *('_adaptive_avg_pool2d', '_adaptive_avg_pool2d_backward', 'glu', 'glu_backward', 'mse_loss_backward'),
        *('_prelu_kernel', '_prelu_kernel_backward', 'elu_backward', 'leaky_relu_backward'),
        *('_softmax', '_softmax_backward_data', '_log_softmax', '_log_softmax_backward_data'),
        *(f'nll_loss{kind}_{way}' for kind in ('', '2d') for way in ('forward', 'backward')),
        *(f'upsample_{kind}_backward' for kind in ('linear1d', 'bilinear2d', 'trilinear3d')),
        *(f'upsample_nearest{axes}d_backward' for axes in (1, 2)),
    )
}
