"""A padded batch of samples of unequal sizes gives what each sample gives alone, and its gradients."""

import copy
import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import mdnc
from mdnc.modules import Network, pad_batch, resnet
from mdnc.ops import fused
from mdnc.ops.backend import DEFAULT, TABLE

Size = tuple[int, ...]

SIZES: dict[int, list[Size]] = {
    1: [(21,), (30,), (17,)],
    2: [(13, 21), (20, 14), (16, 16)],
    3: [(9, 7, 11), (11, 9, 8)],
}


@pytest.fixture(autouse=True)
def fused_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small blocks would be torch's own layers."""
    monkeypatch.setitem(TABLE, (DEFAULT, 'cpu'), TABLE[DEFAULT, 'cpu']._replace(few=False))


FAMILIES = ('EncoderNet', 'AE', 'UNet')
NORMS = ('pinst', 'inst', 'group', 'layer', 'null')
TOLERANCE = 1e-9


def build(family: str, order: int, layers: Sequence[int] = (2, 1), **options: Any) -> Network:
    torch.manual_seed(0)
    if options.get('normalizer') == 'group':
        options['norm_groups'] = 2
    net = getattr(resnet, f'{family}{order}d')(4, list(layers), in_planes=2, **options).double()
    with torch.no_grad():
        for each in net.parameters():  # biases, slopes and scales away from what they begin with
            each.add_(torch.randn_like(each) / 10)
    return net


def samples(sizes: Sequence[Size], planes: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(planes, *size, generator=generator, dtype=torch.float64) + 0.5 for size in sizes]
    return [each.requires_grad_() for each in made]


def padded(each: Sequence[Tensor], garbage: float = torch.nan, more: int = 0) -> Tensor:
    box = [max(sides) + more for sides in zip(*(one.shape[1:] for one in each), strict=True)]
    x = torch.full((len(each), each[0].shape[0], *box), garbage, dtype=each[0].dtype)
    for row, one in zip(x, each, strict=True):
        row[real(one.shape[1:])] = one.detach()
    return x.requires_grad_()


def real(size: Sequence[int]) -> tuple[slice, ...]:
    return (slice(None), *map(slice, size))


def outputs(y: Any) -> tuple[Tensor, ...]:
    return y if isinstance(y, tuple) else (y,)


def close(have: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(have, want, rtol=TOLERANCE, atol=TOLERANCE * max(1.0, float(want.detach().abs().max())))


def weights(shape: Sequence[int]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def check(net: Network, sizes: Sequence[Size], alone: Any = None, garbage: float = torch.nan, more: int = 1) -> None:
    """Outputs, gradients of the input and of the parameters, and buffers: of a padded batch, and sample by sample."""
    net.zero_grad()
    other, each = copy.deepcopy(net), samples(sizes, net.plan.in_planes)
    x = padded(each, garbage, more)
    together = outputs(net(x, lengths=list(sizes)))
    singly = [outputs(y) for y in (alone or _one_by_one)(other, each)]
    loss, sums = torch.zeros(()), torch.zeros(())
    for place, y in enumerate(together):
        weight = weights(y.shape)
        loss = loss + (y * weight).sum()
        for row, own, mass in zip(y, (one[place][0] for one in singly), weight, strict=True):
            inside = real(own.shape[1:])
            close(row[inside], own)
            assert outside(row, inside) == 0
            sums = sums + (mass[inside] * own).sum()
    loss.backward()
    sums.backward()
    for row, one in zip(x.grad, each, strict=True):
        close(row[real(one.shape[1:])], one.grad)
        assert outside(row, real(one.shape[1:])) == 0
    alike(net, other)


def outside(row: Tensor, inside: tuple[slice, ...]) -> float:
    rest = row.detach().clone()
    rest[inside] = 0
    return float(rest.abs().max())


def alike(net: Network, other: Network) -> None:
    for (name, have), want in zip(net.named_parameters(), other.parameters(), strict=True):
        assert (have.grad is None) == (want.grad is None), name
        if have.grad is not None:
            close(have.grad, want.grad)
    for have, want in zip(net.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(have, want, rtol=TOLERANCE, atol=TOLERANCE)


def _one_by_one(net: Network, each: Sequence[Tensor]) -> list[Any]:
    return [net(one[None]) for one in each]


# ---- Norms, orders, families ----


@pytest.mark.parametrize('layer_order', ['new', 'old'])
@pytest.mark.parametrize('normalizer', NORMS)
@pytest.mark.parametrize(('family', 'order'), list(itertools.product(FAMILIES, (1, 2, 3))))
def test_padded_equals_single(family: str, order: int, normalizer: str, layer_order: str):
    net = build(family, order, normalizer=normalizer, layer_order=layer_order)
    check(net.train(layer_order == 'new'), SIZES[order])


@pytest.mark.parametrize('activator', ['relu', 'leaky_relu', 'elu', 'gelu', 'silu', 'null'])
@pytest.mark.parametrize('normalizer', ['pinst', 'null'])
def test_activations(activator: str, normalizer: str):
    check(build('EncoderNet', 1, activator=activator, normalizer=normalizer), SIZES[1])


@pytest.mark.parametrize('garbage', [torch.nan, torch.inf, -torch.inf, 1e30])
@pytest.mark.parametrize('family', FAMILIES)
def test_what_stands_in_the_padding_means_nothing(family: str, garbage: float):
    check(build(family, 1), SIZES[1], garbage=garbage, more=3)


# ---- Batch statistics ----


class Joint(nn.Module):
    """A batch norm over the values of all samples, each of which runs through the network in a thread of its own."""

    def __init__(self, norm: Any, count: int) -> None:
        super().__init__()
        self.norm, self.count = norm, count
        self.given: dict[int, Tensor] = {}
        self.made: dict[int, Tensor] = {}
        self.all_here = threading.Barrier(count, self.run)
        self.all_gone = threading.Barrier(count)

    def __deepcopy__(self, memo: Any) -> 'Joint':
        return Joint(copy.deepcopy(self.norm, memo), self.count)

    def forward(self, x: Tensor) -> Tensor:
        number = int(threading.current_thread().name)
        self.given[number] = x
        self.all_here.wait(30)
        y = self.made[number]
        self.all_gone.wait(30)
        return y

    def run(self) -> None:
        norm, parts = self.norm, [self.given[number].flatten(2)[0].T for number in range(self.count)]
        norm.num_batches_tracked += 1
        share = norm.momentum or 1 / float(norm.num_batches_tracked)
        statistics = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        y = F.batch_norm(torch.cat(parts), *statistics, True, share, norm.eps)
        for number, own in enumerate(y.split([len(part) for part in parts])):
            self.made[number] = own.T.reshape(self.given[number].shape)


def together(net: Network, each: Sequence[Tensor]) -> list[Any]:
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, Joint(child, len(each)))
    made: dict[int, Any] = {}

    def run(number: int) -> None:
        made[number] = net(each[number][None])

    threads = [threading.Thread(target=run, args=(number,), name=str(number)) for number in range(len(each))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [made[number] for number in range(len(each))]


@pytest.mark.parametrize('momentum', [0.1, None])
@pytest.mark.parametrize('layer_order', ['new', 'old'])
@pytest.mark.parametrize(('family', 'order'), [('EncoderNet', 1), ('UNet', 1), ('AE', 2), ('UNet', 2), ('UNet', 3)])
def test_batch_norm_counts_what_is_real(family: str, order: int, layer_order: str, momentum: float | None):
    net = build(family, order, normalizer='batch', layer_order=layer_order)
    for each in net.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            each.momentum = momentum
    check(net, SIZES[order], alone=together)
    check(net.eval(), SIZES[order])


def test_batch_norm_that_is_frozen_or_tracks_nothing():
    net = build('EncoderNet', 1, normalizer='batch')
    for each in net.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            each.eval()
    before = copy.deepcopy(net.state_dict())
    check(net, SIZES[1])
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


# ---- Options ----

OPTIONS: list[tuple[str, int, dict[str, Any]]] = [
    *(
        ('EncoderNet', order, {'padding_mode': mode})
        for mode in ('reflect', 'replicate', 'circular')
        for order in (1, 2)
    ),
    ('UNet', 1, {'padding_mode': 'reflect'}),
    ('UNet', 2, {'padding_mode': 'circular', 'normalizer': 'null'}),
    ('EncoderNet', 3, {'padding_mode': 'replicate'}),
    *(('EncoderNet', 1, {'tail': tail}) for tail in ('conv', 'act', 'null')),
    *(
        (
            'EncoderNet',
            1,
            {'tail': 'norm', 'tail_normalizer': norm, 'norm_groups': 2}
            if norm == 'group'
            else {'tail': 'norm', 'tail_normalizer': norm},
        )
        for norm in ('inst', 'group', 'layer')
    ),
    *(
        ('EncoderNet', order, {'pool': pool, 'amplitude': True, 'tail': tail, 'activator': 'relu'})
        for pool in ('avg', 'max', 'avgmax', 'gem', 'std')
        for order, tail in ((1, 'conv'), (2, 'act'))
    ),
    ('EncoderNet', 3, {'pool': 'max', 'amplitude': True}),
    *(('EncoderNet', order, {'out_length': None, 'tail': 'act'}) for order in (1, 2)),
    *((family, 1, {'strides': 3}) for family in FAMILIES),
    *((family, 2, {'strides': (4, 3)}) for family in FAMILIES),
    *((family, 1, {'strides': 4, 'resize_at': 'first'}) for family in FAMILIES),
    ('UNet', 3, {'strides': (1, 3, 2)}),
    ('UNet', 2, {'kernel_size': (1, 3), 'block': 'plain'}),
    *((family, order, {'resize_at': 'first'}) for family in FAMILIES for order in (1, 2)),
    *((family, 1, {'block': 'plain', 'layer_order': order}) for family in FAMILIES for order in ('new', 'old')),
    *(('UNet', order, {'upsampling': kind}) for kind in ('nearest', 'transposed') for order in (1, 2)),
    ('UNet', 3, {'upsampling': 'transposed'}),
    ('AE', 1, {'upsampling': 'transposed', 'normalizer': 'null', 'strides': 3}),
    ('AE', 2, {'upsampling': 'nearest', 'normalizer': 'null', 'resize_at': 'first'}),
    *(('EncoderNet', order, {'shortcut': 'pool', 'se': 2}) for order in (1, 2, 3)),
    *(('EncoderNet', 2, {'shortcut': 'pool', 'strides': 3, 'normalizer': norm}) for norm in ('null', 'group')),
    ('UNet', 1, {'se': 2, 'groups': 2, 'ratio': 2, 'layer_order': 'old'}),
    ('UNet', 2, {'se': 2, 'normalizer': 'null', 'activator': 'silu'}),
    ('UNet', 1, {'up_layers': 0}),
    ('UNet', 1, {'up_layers': 0, 'resize_at': 'first', 'layers': (1, 1, 1)}),
    ('UNet', 1, {'deep_supervision': 2, 'layers': (1, 1, 1)}),
    ('UNet', 2, {'deep_supervision': 2, 'layers': (1, 1, 1), 'resize_at': 'first', 'strides': 3}),
    ('AE', 2, {'deep_supervision': 2, 'layers': (1, 1, 1), 'normalizer': 'null'}),
    ('UNet', 1, {'small': 'keep', 'layers': (1, 1, 1, 1)}),
]


@pytest.mark.parametrize(('family', 'order', 'options'), OPTIONS, ids=str)
def test_options(family: str, order: int, options: dict[str, Any]):
    check(build(family, order, **options), SIZES[order])


@pytest.mark.parametrize('family', FAMILIES)
def test_small_inputs_that_keep_their_size(family: str):
    # Alike in what is no longer strided: of four strides the last two.
    net = build(family, 1, (1, 1, 1, 1, 1), small='keep')
    check(net, [(5,), (6,), (5,)])


# ---- Drawn at random ----


@st.composite
def drawn(draw: Any) -> tuple[str, int, dict[str, Any], list[Size]]:
    family, order = draw(st.sampled_from(FAMILIES)), draw(st.sampled_from([1, 1, 2, 3]))
    options = {
        'normalizer': draw(st.sampled_from(NORMS)),
        'layer_order': draw(st.sampled_from(['new', 'old'])),
        'activator': draw(st.sampled_from(['prelu', 'relu', 'gelu', 'null'])),
        'block': draw(st.sampled_from(['plain', 'bottleneck'])),
        'resize_at': draw(st.sampled_from(['last', 'first'])),
        'strides': draw(st.lists(st.integers(1, 4), min_size=order, max_size=order)),
        'kernel_size': draw(st.lists(st.sampled_from([1, 3, 5]), min_size=order, max_size=order)),
        'padding_mode': draw(st.sampled_from(['zeros', 'zeros', 'reflect', 'replicate', 'circular'])),
        'shortcut': draw(st.sampled_from(['conv', 'pool'])),
        'se': draw(st.sampled_from([0, 2])),
    }
    if family == 'EncoderNet':
        options['pool'] = draw(st.sampled_from(['avg', 'max', 'avgmax', 'gem', 'std']))
        options['amplitude'] = draw(st.booleans())
    else:
        options['upsampling'] = draw(st.sampled_from(['linear', 'nearest']))
        options['up_layers'] = draw(st.sampled_from([None, 0, 1]))
    side = st.integers(1, {1: 50, 2: 24, 3: 10}[order])
    sizes = draw(st.lists(st.tuples(*[side] * order), min_size=1, max_size=4))
    return family, order, options, sizes


@settings(max_examples=60, deadline=None, derandomize=True)
@given(drawn())
def test_options_and_sizes_drawn_at_random(case: tuple[str, int, dict[str, Any], list[Size]]):
    family, order, options, sizes = case
    net = build(family, order, layers=(1, 1), **options)
    least = {size: net.plan.refusal(size, 1, True) for size in sizes}
    if any(least.values()):
        with pytest.raises(ValueError, match=r'of sample \d+ is too small'):
            net(torch.zeros(len(sizes), 2, *map(max, zip(*sizes, strict=True))).double(), lengths=sizes)
    else:
        check(net, sizes)


# ---- What it costs ----


def kept(net: Network, x: Tensor, **words: Any) -> int:
    """Bytes that a forward pass keeps for backward, each storage once."""
    held: dict[int, Tensor] = {}

    def pack(each: Tensor) -> Tensor:
        held[each.untyped_storage().data_ptr()] = each
        return each

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each):
        net(x, **words)
    return sum(each.untyped_storage().nbytes() for each in held.values())


@pytest.mark.parametrize(
    'options',
    [
        *({'normalizer': norm} for norm in ('batch', 'inst', 'layer', 'null')),
        *({'normalizer': norm, 'layer_order': 'old', 'activator': 'relu'} for norm in ('pinst', 'batch', 'null')),
        {'shortcut': 'pool'},
        {'se': 2, 'padding_mode': 'reflect'},
        {'strides': 3, 'upsampling': 'nearest'},
        {'resize_at': 'first', 'strides': 4},
    ],
    ids=str,
)
@pytest.mark.parametrize('family', FAMILIES)
def test_keeps_what_the_plain_path_keeps_and_masks(family: str, options: dict[str, Any]):
    if family == 'EncoderNet':
        options = {**options, 'pool': 'std', 'tail': 'act'} if options.get('upsampling') is None else {'pool': 'avgmax'}
    net, x = build(family, 1, **options, memory='plain'), torch.randn(3, 2, 60, dtype=torch.float64)
    # A byte a position and level for masks; eight more, shared by all channels, where an average pool counts.
    masks = 3 * 60 * (4 + 2 * 8 * (options.get('shortcut') == 'pool')) + 1000 * len(list(net.modules()))
    assert kept(net, x, lengths=[60, 41, 55]) <= kept(net, x) + masks


def test_nothing_runs_behind_the_longest_sample():
    net, x = build('UNet', 1), torch.randn(2, 2, 40, dtype=torch.float64)
    seen: list[torch.Size] = []
    net.conv_first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    y = net(x, lengths=[20, 17])
    assert seen == [torch.Size((2, 2, 20))]
    assert y.shape == (2, 1, 40) and outside(y[0], real((20,))) == 0


@pytest.mark.parametrize('family', FAMILIES)
def test_samples_of_one_size_take_the_ordinary_path(family: str):
    torch.manual_seed(0)
    net = getattr(resnet, f'{family}2d')(4, [1, 1], in_planes=2)
    x = torch.randn(3, 2, 12, 15)
    assert torch.equal(net(x, lengths=[(12, 15)] * 3), net(x))
    short, y = net(x[..., :10, :].contiguous()), net(x, lengths=[(10, 15)] * 3)
    assert torch.equal(y if y.dim() == 2 else y[..., :10, :], short)
    assert y.dim() == 2 or not y[..., 10:, :].any()


@pytest.mark.parametrize(
    ('family', 'options', 'reasons'),
    [
        ('EncoderNet', {}, {''}),
        ('EncoderNet', {'normalizer': 'batch', 'layer_order': 'old'}, {''}),
        ('EncoderNet', {'memory': 'plain'}, {'the plain path was asked for'}),
        ('UNet', {}, {'', 'the samples of the batch differ in size, and maps are enlarged'}),
        (
            'EncoderNet',
            {'shortcut': 'pool'},
            {'', 'the samples of the batch differ in size, and the shortcut averages'},
        ),
        ('EncoderNet', {'se': 2}, {'the samples of the batch differ in size, and squeeze-excite follows'}),
        ('EncoderNet', {'drop_path': 0.2}, {'', 'the samples of the batch differ in size, and branches are dropped'}),
    ],
    ids=str,
)
def test_paths_are_those_that_batches_of_unequal_sizes_take(family, options, reasons, monkeypatch):
    net, taken, run = build(family, 1, **options), [], fused.block
    found = net.paths(ragged=True)
    assert {unit.reason for unit in found} == reasons
    assert [unit.unit for unit in found] == [unit.unit for unit in net.paths()]
    monkeypatch.setattr(fused, 'block', lambda *given: taken.append(len(given[2].units)) or run(*given))
    net(padded(samples(SIZES[1])), lengths=SIZES[1])
    whole = {unit.unit.rpartition('.')[0] for unit in found if unit.fused}
    assert len([units for units in taken if units > 1]) == len(whole)


@pytest.mark.parametrize('optimized', [False, True])
@pytest.mark.parametrize('memory', ['fast', 'leaner', 'least'])
@pytest.mark.parametrize('normalizer', ['pinst', 'layer', 'batch'])
def test_memory_levels_and_backends(normalizer: str, memory: str, optimized: bool):
    net = build('EncoderNet', 2, normalizer=normalizer, memory=memory)
    other = copy.deepcopy(net)
    other.memory = 'plain'
    if optimized:
        mdnc.optimize(net)
    answers = []
    for each in (net, other):
        x = padded(samples(SIZES[2]))
        y = each(x, lengths=SIZES[2])
        y.backward(weights(y.shape))
        answers.append((y, x.grad))
    for mine, theirs in zip(*answers, strict=True):
        close(mine, theirs)
    alike(net, other)


def test_keeps_of_a_block_its_input():
    net, x = build('EncoderNet', 1), torch.randn(3, 2, 400, dtype=torch.float64)
    lean = kept(net, x, lengths=[400, 341, 355])
    net.memory = 'plain'
    assert lean < 0.45 * kept(net, x, lengths=[400, 341, 355])


def test_half_floats():
    net = build('UNet', 2, normalizer='group').to(torch.bfloat16)
    x = padded([each.detach().bfloat16() for each in samples(SIZES[2])])
    y = net(x, lengths=SIZES[2])
    y.float().square().sum().backward()
    assert y.dtype is torch.bfloat16 and torch.isfinite(y).all() and torch.isfinite(x.grad).all()
    single = net(x[:1, :, :13, :21])
    torch.testing.assert_close(y[:1, :, :13, :21], single, rtol=0.1, atol=0.1)


def test_autocast():
    net = build('EncoderNet', 1, normalizer='batch').float()
    x = padded([each.detach().float() for each in samples(SIZES[1])])
    with torch.autocast('cpu', torch.bfloat16):
        y = net(x, lengths=SIZES[1])
    torch.testing.assert_close(y.float(), net(x, lengths=SIZES[1]), rtol=0.1, atol=0.1)


# ---- Derivatives of other kinds, tracers ----


@pytest.mark.parametrize('normalizer', [*NORMS, 'batch'])
def test_derivatives_of_second_order(normalizer: str):
    net = build('UNet', 1, (1, 1), normalizer=normalizer, activator='gelu')
    assert torch.autograd.gradgradcheck(
        lambda x: net(x, lengths=[7, 9]), padded(samples([(7,), (9,)]), 0.0), fast_mode=True
    )


@pytest.mark.filterwarnings('ignore:.torch.jit.script:DeprecationWarning')  # torch's own, in forward mode
@pytest.mark.parametrize('normalizer', ['pinst', 'batch'])
def test_transforms_of_functions(normalizer: str):
    net = build('UNet', 1, (1, 1), normalizer=normalizer)
    sizes, x = [9, 12], padded(samples([(9,), (12,)]), 0.0).detach()
    weight = weights((2, 1, 12))

    def loss(x: Tensor) -> Tensor:
        return (net.eval()(x, lengths=sizes) * weight).sum()

    direction = weights(x.shape)
    want = torch.autograd.functional.jacobian(loss, x)
    close(torch.func.grad(loss)(x), want)
    close(torch.func.jvp(loss, (x,), (direction,))[1], (want * direction).sum())


def test_compiled():
    net, order = build('UNet', 1, (1, 1), block='plain', strides=3, padding_mode='reflect', se=2), 1
    torch.compiler.reset()
    compiled = torch.compile(net, backend='eager', dynamic=True, fullgraph=True)
    for sizes in (SIZES[order], SIZES[order][1:]):
        x, lengths = padded(samples(sizes)), torch.tensor(sizes)
        torch.testing.assert_close(compiled(x, lengths=lengths), net(x, lengths=lengths))


def test_exported():
    options = {'normalizer': 'batch', 'pool': 'max', 'amplitude': True, 'shortcut': 'pool'}
    net, order = build('EncoderNet', 2, (1, 1), block='plain', **options).eval(), 2
    x, lengths = padded(samples(SIZES[order]), more=2).detach(), torch.tensor(SIZES[order])
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {'x': dict.fromkeys((0, *range(2, 2 + order)), dynamic), 'lengths': {0: dynamic}}
    program = torch.export.export(net, (x,), {'lengths': lengths}, dynamic_shapes=shapes).module()
    for sizes in (SIZES[order], SIZES[order][1:]):
        x, lengths = padded(samples(sizes)).detach(), torch.tensor(sizes)
        torch.testing.assert_close(program(x, lengths=lengths), net(x, lengths=lengths))


def test_a_graph_of_fx_refuses_lengths():
    net = build('UNet', 1, (1, 1))
    traced, x = torch.fx.symbolic_trace(net), padded(samples(SIZES[1]), 0.0)
    torch.testing.assert_close(traced(x), net(x))
    with pytest.raises(ValueError, match=r'graph of torch\.fx was traced without lengths'):
        traced(x, lengths=SIZES[1])


@pytest.mark.parametrize('options', [{'pool': kind, 'amplitude': True, 'se': 2} for kind in ('avgmax', 'gem', 'std')])
def test_pools_and_gates_are_followed_by_fx(options: dict[str, Any]):
    net = build('EncoderNet', 2, drop_path=0.5, **options)
    x, traced = torch.randn(2, 2, 12, 13, dtype=torch.float64), torch.fx.symbolic_trace(net)
    torch.manual_seed(0)
    want = net(x)
    torch.manual_seed(0)
    close(traced(x), want)


# ---- Features and heads ----


@pytest.mark.parametrize(('family', 'order'), [('UNet', 1), ('AE', 2), ('EncoderNet', 2)])
def test_features_and_head(family: str, order: int):
    net = build(family, order, (1, 1, 1), **({'amplitude': True} if family == 'EncoderNet' else {}))
    sizes = {1: SIZES[1], 2: [(33, 21), (28, 34)]}[order]
    each = [one.detach() for one in samples(sizes)]
    x = padded(each, more=2).detach()
    maps = net.features(x, lengths=sizes)
    assert list(maps) == [info.name for info in net.feature_info]
    for row, one in enumerate(each):
        for name, want in net.features(one[None]).items():
            close(maps[name][row][real(want.shape[2:])], want[0])
            assert outside(maps[name][row], real(want.shape[2:])) == 0
    last = net.forward_features(x, lengths=sizes)
    assert torch.equal(last, list(maps.values())[-1])
    close(net.forward_head(last, x, lengths=sizes), net(x, lengths=sizes))


# ---- How sizes are said ----


@pytest.mark.parametrize('kind', [list, tuple, torch.tensor, np.array, lambda rows: [np.int64(row) for row in rows]])
def test_forms_of_lengths(kind: Any):
    net, x = build('EncoderNet', 1), padded(samples(SIZES[1]))
    want = net(x, lengths=[[21], [30], [17]])
    assert torch.equal(net(x, lengths=kind([21, 30, 17])), want)
    volume, volumes = build('EncoderNet', 3), padded(samples(SIZES[3]))
    rows = kind(SIZES[3]) if kind in (list, tuple, torch.tensor, np.array) else [np.array(size) for size in SIZES[3]]
    assert torch.equal(volume(volumes, lengths=rows), volume(volumes, lengths=SIZES[3]))


@pytest.mark.parametrize(
    ('lengths', 'error', 'text'),
    [
        (20, TypeError, 'UNet1d: lengths=20 must be ints of shape (2, 1) or (2,)'),
        ('ab', TypeError, "UNet1d: lengths='ab' must be ints"),
        ([20], ValueError, 'UNet1d: lengths has 1 entries, but the batch has 2 samples'),
        ([20, 20, 20], ValueError, 'lengths has 3 entries'),
        ([20.0, 20.0], TypeError, 'UNet1d: lengths[0]=20.0 must be an int of at least 1'),
        (torch.tensor([20.0, 20.0]), TypeError, 'UNet1d: lengths[0]=20.0 must be an int'),
        ([20, True], TypeError, 'UNet1d: lengths[1]=True must be an int'),
        ([0, 20], ValueError, 'UNet1d: lengths[0]=0 must be an int of at least 1'),
        ([20, -3], ValueError, 'UNet1d: lengths[1]=-3 must be'),
        ([20, 31], ValueError, 'UNet1d: sample 1 of lengths has size (31,), beyond the padded size (30,)'),
        ([(20, 20), (20, 20)], ValueError, 'UNet1d: lengths[0]=(20, 20) must be'),
        ([20, 1], ValueError, 'UNet1d: input size (1,) of sample 1 is too small for'),
    ],
    ids=str,
)
def test_refused_lengths(lengths: Any, error: type[Exception], text: str):
    net = build('UNet', 1)
    with pytest.raises(error) as caught:
        net(torch.randn(2, 2, 30, dtype=torch.float64), lengths=lengths)
    assert text in str(caught.value)


@pytest.mark.filterwarnings('ignore:.torch.jit.trace')
def test_refusals_of_what_does_not_go_together():
    x = torch.randn(2, 2, 20, 20, dtype=torch.float64)
    with pytest.raises(ValueError, match='one int for each axis of each sample'):
        build('UNet', 2)(x, lengths=[20, 17])
    decoder = resnet.DecoderNet1d(4, [1, 1], out_size=20)
    with pytest.raises(ValueError, match='DecoderNet1d: lengths= cannot be used in a network with a single size'):
        decoder(torch.randn(2, 2), lengths=[1, 1])
    net = build('UNet', 1, (1, 1, 1, 1), small='keep')
    with pytest.raises(ValueError, match="UNet1d: small='keep' strides samples 0 and 1 of lengths"):
        net(x[..., 0], lengths=[20, 4])
    with pytest.raises(ValueError, match="UNet1d: small='keep' depends on the size of each sample"):
        torch.jit.trace(Given(net), (x[..., 0], torch.tensor([20, 19])))
    batch = nn.SyncBatchNorm.convert_sync_batchnorm(build('EncoderNet', 1, normalizer='batch'))
    with pytest.raises(TypeError, match='SyncBatchNorm, which stands where the plan has a Norm'):
        batch(x[..., 0], lengths=[20, 19])


class Given(nn.Module):
    """A network that takes lengths by position."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.net(x, lengths=lengths)


# ---- Making a batch ----


def test_pad_batch():
    each = samples(SIZES[2])
    x, lengths = pad_batch(each)
    assert torch.equal(x, padded(each, 0.0)) and lengths.tolist() == [list(size) for size in SIZES[2]]
    signals, lengths = pad_batch([torch.ones(2, 3), torch.ones(2, 5)])
    assert signals.sum() == 16 and lengths.tolist() == [3, 5] and lengths.dtype is torch.int64
    x.sum().backward()
    assert torch.equal(each[0].grad, torch.ones_like(each[0]))


@pytest.mark.parametrize(
    ('given', 'error', 'text'),
    [
        ([], ValueError, 'pad_batch: samples is empty'),
        (3, TypeError, 'pad_batch: samples must be a sequence of tensors (C, L1, …), not int'),
        (torch.ones(2, 1, 3), TypeError, 'not Tensor'),
        ([[1.0]], TypeError, 'must be a sequence of tensors'),
        ([torch.ones(3)], ValueError, 'samples[0] has shape (3,)'),
        ([torch.ones(1, 3), torch.ones(2, 3)], ValueError, 'samples[1] has shape (2, 3), samples[0] (1, 3)'),
        ([torch.ones(1, 3), torch.ones(1, 3, 3)], ValueError, 'samples[1] has shape (1, 3, 3)'),
        ([torch.ones(1, 3), torch.ones(1, 0)], ValueError, 'none empty'),
        ([torch.ones(1, 3), torch.ones(1, 3).double()], TypeError, 'samples[1] is torch.float64'),
        ([torch.ones(1, 3).to_sparse()], TypeError, 'must be a dense tensor'),
    ],
    ids=str,
)
def test_pad_batch_refuses(given: Any, error: type[Exception], text: str):
    with pytest.raises(error) as caught:
        pad_batch(given)
    assert text in str(caught.value)
