"""Small blocks in one call: their values, which blocks take it, and what they leave alone."""

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mdnc
from mdnc.ops import backend, building, definition, fused, small_blocks
from mdnc.ops.convolution import Geometry
from mdnc.ops.definition import INSTANCE, Block, Norm, Resize, Shortcut, Unit, Weights
from tests.ops.cases import laid_out

ACTIVATORS = ('prelu', 'relu', 'leaky_relu', 'null')


class Drawn:
    """A block, its weights in float64, and an input."""

    def __init__(self, how: Block, weights: list[Weights], x: Tensor) -> None:
        self.how, self.weights, self.x = how, weights, x

    def __repr__(self) -> str:
        return f'{self.how}, {[tuple(own.kernel.shape) for own in self.weights]}, {tuple(self.x.shape)}'


@st.composite
def blocks(draw: st.DrawFn) -> Drawn:
    """A block of random shape that C++ knows."""
    axes = draw(st.integers(1, 3))
    adds = draw(st.sampled_from(('nothing', 'input', 'shortcut')))
    count = draw(st.integers(1, 3))
    widths = [16 * draw(st.integers(1, 3)) for _ in range(count + 1)]
    if adds == 'input':
        widths[-1] = widths[0]
    size = draw(st.tuples(*[st.integers(3, (40, 12, 6)[axes - 1])] * axes))
    strided = draw(st.integers(0, count - 1)) if adds != 'input' else -1
    stride = draw(st.tuples(*[st.integers(1, 2)] * axes))
    units, weights = [], []
    torch.manual_seed(draw(st.integers(0, 99)))
    for index, (ins, outs) in enumerate(itertools.pairwise(widths)):
        side, act = draw(st.sampled_from((1, 3, 5))), draw(st.sampled_from(ACTIVATORS))
        normed, affine, biased = act == 'relu' or draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
        where = Geometry(stride if index == strided else (1,) * axes, (side // 2,) * axes)
        units.append(Unit(where, INSTANCE if normed else None, act, 0.1 if act == 'leaky_relu' else 0.0))
        weights.append(drawn(ins, outs, (side,) * axes, normed and affine, act == 'prelu', biased))
    shortcut = None
    if adds == 'shortcut':
        shortcut = Shortcut(Geometry(stride if strided >= 0 else (1,) * axes, (0,) * axes))
        weights.append(drawn(widths[0], widths[-1], (1,) * axes, draw(st.booleans()), False, False, widths[-1]))
    x = torch.randn(draw(st.integers(1, 3)), widths[0], *size, dtype=torch.float64)
    return Drawn(Block(tuple(units), adds, shortcut), weights, x)


def drawn(
    ins: int, outs: int, sides: Sequence[int], affine: bool, slopes: bool, bias: bool, normed: int | None = None
) -> Weights:
    def values(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64)

    channels = ins if normed is None else normed
    kernel = values(outs, ins, *sides)
    return Weights(
        values(channels) if affine else None,
        values(channels) if affine else None,
        values(ins) if slopes else None,
        kernel / kernel[0].numel() ** 0.5,
        values(outs) if bias else None,
    )


def ready(x: Tensor, weights: Sequence[Weights], dtype: torch.dtype) -> tuple[Tensor, list[Weights], list[Tensor]]:
    x = laid_out(x.to(dtype), 'channels last').requires_grad_()
    own = [Weights._make(None if each is None else each.to(dtype).requires_grad_() for each in w) for w in weights]
    return x, own, [x, *(each for w in own for each in w if each is not None)]


def assert_right(how: Block, weights: Sequence[Weights], x: Tensor) -> None:
    """As small blocks and by the definition in float64; the difference is rounding, as torch's in float32 is."""
    found = []
    for dtype, block in (
        (torch.float64, definition.block),
        (torch.float32, definition.block),
        (torch.float32, optimized),
    ):
        z, own, wanted = ready(x, weights, dtype)
        y = block(z if block is optimized else z.contiguous(), own, how)
        g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found.append([y, *torch.autograd.grad(y, wanted, g.to(dtype))])
    scale = max(each.abs().max().item() for each in found[0])  # of biases before a norm the gradient is zero
    for exact, torchs, mine in zip(*found, strict=True):
        off, theirs = (mine - exact).abs().max().item(), (torchs - exact).abs().max().item()
        assert off < 10 * theirs + 1e-5 * exact.abs().max().item() + 1e-5 * scale


def optimized(x: Tensor, weights: Sequence[Weights], how: Block) -> Tensor:
    return fused.block(x, weights, how, 'lean', 'optimized')


def smallest_case(act: str = 'prelu', **more: object) -> tuple[Block, list[Weights], Tensor]:
    torch.manual_seed(0)
    unit = Unit(Geometry((1,), (1,)), INSTANCE, act)
    weights = drawn(16, 16, (3,), True, act == 'prelu', True)
    return replace(Block((unit,), 'input'), **more), [weights], torch.randn(2, 16, 13, dtype=torch.float64)


def planned(how: Block, weights: Sequence[Weights], x: Tensor) -> small_blocks.Plan | None:
    x, own, _ = ready(x, weights, torch.float32)
    return small_blocks.plan(x, own, how, backend.TABLE['optimized', 'cpu'].tools.limits)


@settings(max_examples=60, deadline=None)
@given(blocks())
def test_values_and_gradients_are_those_of_the_definition(case):
    how, weights, x = case.how, case.weights, case.x
    size = tuple(x.shape[2:])
    for unit, _own in zip(how.units, weights, strict=False):
        if unit.norm is not None and max(size) == 1:
            return  # no variance
        size = tuple((n - 1) // step + 1 for n, step in zip(size, unit.geometry.stride, strict=True))
    if how.adds == 'shortcut' and max(size) == 1:
        return
    with pytest.MonkeyPatch.context() as patch:  # what it would not speed up is right as well
        by = backend.TABLE['optimized', 'cpu']
        limits = by.tools.limits._replace(small_products=2**40, small_weights=2**40)
        patch.setitem(backend.TABLE, ('optimized', 'cpu'), by._replace(tools=by.tools._replace(limits=limits)))
        assert planned(how, weights, x) is not None
        assert_right(how, weights, x)


def test_values_may_be_far_from_zero_and_planes_constant():
    how, weights, x = smallest_case()
    for shifted in (x + 1e4, x * 1e-30, x * 1e30, torch.ones_like(x)):
        z, own, wanted = ready(shifted, weights, torch.float32)
        got = optimized(z, own, how)
        assert torch.allclose(got, definition.block(z.contiguous(), own, how), rtol=1e-2, atol=1e-2)
        assert all(each.isfinite().all() for each in torch.autograd.grad(got.sum(), wanted))


def test_runs_and_threads_change_no_bit():
    torch.manual_seed(0)
    units = Unit(Geometry((1, 1), (1, 1))), Unit(Geometry((2, 2), (1, 1)))
    weights = [drawn(32, 32, (3, 3), True, True, False), drawn(32, 64, (3, 3), True, True, False)]
    weights.append(drawn(32, 64, (1, 1), True, False, False, 64))
    how, before, found = Block(units, 'shortcut', Shortcut(Geometry((2, 2), (0, 0)))), torch.get_num_threads(), []
    try:
        for threads in (1, 3, 3):
            torch.set_num_threads(threads)
            x, own, wanted = ready(
                torch.randn(16, 32, 8, 8, generator=torch.Generator().manual_seed(0)), weights, torch.float32
            )
            assert small_blocks.plan(x, own, how) is not None
            y = optimized(x, own, how)
            found.append([y, *torch.autograd.grad(y.square().sum(), wanted)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) and torch.equal(b, c) for a, b, c in zip(*found, strict=True))


def test_keeps_what_lean_keeps():
    how, weights, x = smallest_case()
    kept: list[list[int]] = []
    for by in (backend.TABLE['optimized', 'cpu'], backend.TABLE['optimized', 'cpu']._replace(small=None)):
        z, own, _ = ready(x, weights, torch.float32)
        kept.append([])
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept[-1].append(t.numel()) or t, lambda t: t):
            fused._FusedBlock.apply(z, fused.Call(how, 'lean', by, z.dtype), (), *own[0])
    assert sorted(kept[0]) == sorted(kept[1])


def test_only_what_is_trained_gets_a_gradient():
    how, weights, x = smallest_case()
    z, own, _ = ready(x, weights, torch.float32)
    for each in (z, own[0].kernel, own[0].shift):
        each.requires_grad_(False)
    optimized(z, own, how).square().sum().backward()
    assert [each.grad is not None for each in (z, *own[0])] == [False, True, False, True, False, True]


def test_gradients_can_be_differentiated_again():
    how, weights, x = smallest_case()
    x, own, _wanted = ready(x, weights, torch.float32)
    assert small_blocks.plan(x, own, how) is not None
    got, want = (
        torch.autograd.grad(torch.autograd.grad(y.square().sum(), x, create_graph=True)[0].sum(), own[0].kernel)[0]
        for y in (optimized(x, own, how), definition.block(x.contiguous(), own, how))
    )
    assert torch.allclose(got, want, rtol=1e-3, atol=1e-3 * want.abs().max().item())


def test_without_gradients_it_is_the_same():
    how, weights, x = smallest_case()
    x, own, _ = ready(x, weights, torch.float32)
    with torch.inference_mode():
        alone = optimized(x, own, how)
    assert torch.equal(alone, optimized(x, own, how))


def unsuited() -> list[tuple[str, Block, list[Weights], Tensor, torch.dtype]]:
    how, weights, x = smallest_case()
    unit, shortcut = how.units[0], Shortcut(Geometry((1,), (0,)))
    of_shortcut = [*weights, drawn(16, 16, (1,), True, False, False)]
    big = [drawn(512, 512, (3,), True, True, True)]
    odd = [drawn(24, 24, (3,), True, True, True)]
    grouped = [weights[0]._replace(kernel=weights[0].kernel[:, :8])]

    def block(**changes: object) -> Block:
        return Block((replace(unit, **changes),), 'input')

    f32 = torch.float32
    return [
        ('float64', how, weights, x, torch.float64),
        ('many weights', how, big, x.repeat(1, 32, 1), f32),
        ('many products', how, weights, x.repeat(1, 1, 4000), f32),
        ('odd channels', how, odd, torch.randn(2, 24, 13), f32),
        ('an activation of another kind', block(activator='gelu'), [weights[0]._replace(slope=None)], x, f32),
        (
            'a ReLU of what may be infinite',
            block(norm=None, activator='relu'),
            [weights[0]._replace(slope=None)],
            x,
            f32,
        ),
        ('a norm of another kind', block(norm=Norm('group', groups=4)), weights, x, f32),
        ('groups', block(geometry=Geometry((1,), (1,), 2)), grouped, x, f32),
        ('an up-sampling', Block((replace(unit, resize=Resize((26,))),)), weights, x, f32),
        ('one slope for all', how, [weights[0]._replace(slope=torch.ones(1, dtype=torch.float64))], x, f32),
        ('a shortcut alone', Block((), 'shortcut', shortcut), of_shortcut[1:], x, f32),
        ('a pool', Block(how.units, 'shortcut', replace(shortcut, pool=(1,))), of_shortcut, x, f32),
        (
            'a norm of another kind there',
            Block(how.units, 'shortcut', replace(shortcut, norm=None)),
            of_shortcut,
            x,
            f32,
        ),
    ]


@pytest.mark.parametrize(
    ('how', 'weights', 'x', 'dtype'), [each[1:] for each in unsuited()], ids=[each[0] for each in unsuited()]
)
def test_other_blocks_go_their_way(how, weights, x, dtype):
    z, own, _ = ready(x, weights, dtype)
    assert small_blocks.plan(z, own, how) is None
    y = optimized(z, own, how)
    assert torch.allclose(y, definition.block(z.contiguous(), own, how), rtol=1e-3, atol=1e-3)


def test_networks_trained_with_it_agree_with_torch():
    torch.manual_seed(0)
    net, x = mdnc.modules.resnet.EncoderNet1d(16, [1, 1], 'plain', in_planes=2, out_length=3), torch.randn(3, 2, 77)
    exact = mdnc.modules.resnet.EncoderNet1d(16, [1, 1], 'plain', in_planes=2, out_length=3, memory='plain').double()
    exact.load_state_dict(net.state_dict())
    want = torch.autograd.grad(exact(x.double()).square().mean(), list(exact.parameters()))
    got = torch.autograd.grad(mdnc.optimize(net)(x).square().mean(), list(net.parameters()))
    scale = max(each.norm() for each in want)
    for mine, theirs in zip(got, want, strict=True):
        assert (mine - theirs).norm() < 1e-3 * theirs.norm() + 1e-6 * scale


def test_code_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path):
    wrong, part = tmp_path / 'small_blocks.cpp', 'Vector level = at.rate'
    source = small_blocks.SOURCE.read_text()
    assert source.count(part) == 1
    shutil.copy(small_blocks.SOURCE.parent / 'vectors.h', tmp_path)
    wrong.write_text(source.replace(part, f'{part} * 1.01f'))
    monkeypatch.setattr(small_blocks, 'SOURCE', wrong)
    monkeypatch.setattr(small_blocks, '_PLANS', {})
    monkeypatch.setattr(building, '_warned', [])
    monkeypatch.setenv(building.CACHE_VARIABLE, str(tmp_path))
    small_blocks.built.cache_clear()
    try:
        with pytest.warns(UserWarning, match='torch runs what small_blocks.cpp would, uncompiled: ArithmeticError'):
            assert planned(*smallest_case()) is None
    finally:
        small_blocks.built.cache_clear()
