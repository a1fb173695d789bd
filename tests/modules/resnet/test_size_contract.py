"""Every size works and gives what ``output_size`` says, or is refused by a rule that says why."""

import itertools
import random
import re

import pytest
import torch

from mdnc.modules import resnet

SIDES = range(1, 41)
TINY = {'channel': 1, 'layers': [1, 1, 1], 'block': 'plain'}


def networks(order: int) -> list[torch.nn.Module]:
    return [
        resnet.__dict__[f'EncoderNet{order}d'](**TINY, out_length=None),
        resnet.__dict__[f'AE{order}d'](**TINY),
        resnet.__dict__[f'UNet{order}d'](**TINY),
    ]


def rule(net: torch.nn.Module, size: tuple[int, ...]) -> tuple[int, ...] | None:
    """The size rule written a second time, by hand: halvings that round up, and two values at least at the bottom."""
    encoder = type(net).__name__.startswith('Encoder')
    bottom = [-(-side // (8 if encoder else 4)) for side in size]
    if all(side == 1 for side in bottom):
        return None
    return tuple(bottom) if encoder else size


def runs(net: torch.nn.Module, size: tuple[int, ...]) -> bool:
    """Run a size that the rule takes, or see it refused in training and eval alike; tell which."""
    x, expected = torch.randn(1, 1, *size), rule(net, size)
    for mode in (True, False):
        net.train(mode)
        if expected is None:
            with pytest.raises(ValueError, match=r'stage \d would hold 1'):
                net(x)
        else:
            assert tuple(net(x).shape[2:]) == expected
    return expected is not None


@pytest.mark.parametrize('order', [1, 2, 3])
def test_output_size_over_the_full_product(order: int):
    refused = 0
    for net in networks(order):
        for size in itertools.product(SIDES, repeat=order):
            expected = rule(net, size)
            if expected is None:
                refused += 1
                with pytest.raises(ValueError, match='too small'):
                    net.output_size(size)
            else:
                assert net.output_size(size) == expected
    assert refused == 8**order + 2 * 4**order


def test_every_length_runs_or_is_refused():
    assert sum(runs(net, (side,)) for net in networks(1) for side in SIDES) == 3 * 40 - 8 - 4 - 4


def test_every_image_size_runs_or_is_refused():
    with torch.no_grad():
        worked = sum(runs(net, size) for net in networks(2) for size in itertools.product(SIDES, SIDES))
    assert worked == 3 * 40**2 - 8**2 - 2 * 4**2


def test_drawn_volume_sizes_run_or_are_refused():
    draw = random.Random(3)
    sizes = [tuple(draw.choice(SIDES) for _ in range(3)) for _ in range(200)]
    sizes[:3] = [(1, 1, 1), (4, 4, 4), (1, 1, 5)]
    with torch.no_grad():
        worked = [runs(net, size) for net in networks(3) for size in sizes]
    assert any(worked) and not all(worked)


@pytest.mark.parametrize('order', [1, 2, 3])
def test_decoders_give_every_size_that_they_take(order: int):
    draw = random.Random(order)
    sizes = [(side,) for side in SIDES] if order == 1 else [tuple(draw.choices(SIDES, k=order)) for _ in range(150)]
    make = resnet.__dict__[f'DecoderNet{order}d']
    for size in sizes:
        for in_length in (None, 2):
            if all(side <= 8 for side in size):
                with pytest.raises(ValueError, match=re.escape(f'out_size={size}')):
                    make(**TINY, out_size=size, in_length=in_length)
                continue
            net = make(**TINY, out_size=size, in_length=in_length)
            with torch.no_grad():
                assert tuple(net(torch.randn(1, *net.input_size)).shape[2:]) == size
            assert net.output_size(net.min_size) == size == net.stage_sizes(net.min_size)[-1]


def test_min_size_works_and_one_less_does_not():
    for order in (1, 2, 3):
        for net in networks(order):
            side = net.min_size[0]
            assert net.min_size == (side,) * order
            net.output_size(net.min_size)
            with pytest.raises(ValueError, match='too small'):
                net.output_size(side - 1)


@pytest.mark.parametrize('kernel', [1, (1, 3), (3, 1)])
def test_axes_with_kernel_one_keep_their_length(kernel: int | tuple[int, int]):
    strides = [1 if k == 1 else 2 for k in (kernel if isinstance(kernel, tuple) else (kernel,) * 2)]
    for size in itertools.product(range(1, 12), repeat=2):
        net = resnet.EncoderNet2d(1, [1, 1], block='plain', kernel_size=kernel, out_length=None)
        expected = tuple(-(-side // step**2) for side, step in zip(size, strides, strict=True))
        if expected == (1, 1):
            with pytest.raises(ValueError, match='too small'):
                net(torch.zeros(1, 1, *size))
        else:
            assert tuple(net(torch.zeros(1, 1, *size)).shape[2:]) == expected == net.output_size(size)


def test_stage_sizes_are_what_the_stages_give():
    sizes: list[tuple[int, ...]] = []

    def note(_module, _args, output):
        output = output[0] if isinstance(output, tuple) else output
        sizes.append(tuple(output.shape[2:]))

    for net in networks(2):
        sizes.clear()
        stages = [module for module in net.modules() if type(module).__name__ == '_BlockResStkNd']
        hooks = [stage.register_forward_hook(note) for stage in stages]
        net(torch.zeros(1, 1, 21, 34))
        assert net.stage_sizes((21, 34)) == tuple(sizes)
        for hook in hooks:
            hook.remove()


def test_the_refusal_says_what_works():
    net = resnet.EncoderNet2d(4, [1] * 5)
    with pytest.raises(ValueError) as refusal:
        net(torch.zeros(1, 1, 32, 32))
    assert str(refusal.value) == (
        'EncoderNet2d: input size (32, 32) is too small for 5 stages: stage 5 would hold 1 × 1, and instance norm '
        'needs at least 2 values a plane. Smallest equal-sided size that works: (33, 33).'
    )
    assert net(torch.zeros(1, 1, 32, 33)).shape == (1, 2)


BLOCK_WORDS = list(
    itertools.product(
        ['BlockPlain', 'BlockBottleneck'],
        ['batch', 'inst', 'pinst', 'null'],
        ['prelu', 'relu', 'null'],
        ['new', 'old'],
        ['down', 'up'],
    )
)


@pytest.mark.parametrize('words', BLOCK_WORDS, ids='-'.join)
def test_blocks_of_every_style_and_small_size(words: tuple[str, ...]):
    name, normalizer, activator, layer_order, scaler = words
    make = resnet.__dict__[f'{name}1d']
    for stride, planes in itertools.product((1, 2, 3), ((2, 2), (2, 3))):
        block = make(
            *planes, stride=stride, normalizer=normalizer, activator=activator, layer_order=layer_order, scaler=scaler
        )
        for length in (1, 2, 3, 5):
            x = torch.randn(2, 2, length, requires_grad=True)
            after = length * stride if scaler == 'up' else -(-length // stride)
            if normalizer.endswith('inst') and min(after, length) < 2:
                with pytest.raises(ValueError, match='too small'):
                    block(x)
                continue
            assert block.output_size(length) == (after,)
            y = block(x)
            assert y.shape == (2, planes[1], after)
            y.sum().backward()


def test_the_smallest_size_that_is_named_works_for_the_batch():
    net = resnet.EncoderNet1d(2, [1, 1], normalizer='batch')
    assert net(torch.zeros(2, 1, 1)).shape == (2, 2)  # two samples are two values
    with pytest.raises(ValueError, match=r'Smallest equal-sided size that works: \(5,\)') as refusal:
        net(torch.zeros(1, 1, 4))
    assert 'stage 2 would hold 1' in str(refusal.value)
    assert net(torch.zeros(1, 1, 5)).shape == (1, 2)


def test_batch_norm_of_one_value_is_refused_in_training_only():
    block = resnet.BlockPlain1d(2, 2, normalizer='batch')
    with pytest.raises(ValueError, match='batch norm needs at least 2 values a channel'):
        block(torch.zeros(1, 2, 1))
    assert block.eval()(torch.zeros(1, 2, 1)).shape == (1, 2, 1)


def test_a_block_names_the_map_that_is_too_small():
    for words, held in (({'stride': 2, 'scaler': 'up'}, '1'), ({'stride': 3}, '1 × 1')):
        make = resnet.BlockPlain1d if len(held) == 1 else resnet.BlockPlain2d
        block = make(2, 2, **words)
        size = (1,) if len(held) == 1 else (2, 3)
        with pytest.raises(ValueError, match=f'would be {held}, and instance norm needs at least 2 values a plane'):
            block(torch.zeros(1, 2, *size))


def test_blocks_up_sample_to_a_given_size():
    for name in ('BlockPlain2d', 'BlockBottleneck2d'):
        block = resnet.__dict__[name](2, 3, output_size=(9, 4), scaler='up')
        assert block(torch.zeros(1, 2, 5, 5)).shape == (1, 3, 9, 4)
        assert block.output_size(5) == (9, 4)
